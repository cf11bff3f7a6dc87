/* Lines of JSON: what a client of the direct lanes has to find in them, and no more. */
#define _GNU_SOURCE
#include "lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *set(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

bool line_default_socket(char *path, size_t room)
{
    const char *given = set("AGENTD_SOCKET"), *runtime = set("AGENTD_RUNTIME_DIR"), *xdg = set("XDG_RUNTIME_DIR");
    unsigned uid = (unsigned)getuid();
    struct stat status;
    char users[64];
    int length;

    snprintf(users, sizeof users, "/run/user/%u", uid);
    if (given)
        length = snprintf(path, room, "%s", given);
    else if (runtime)
        length = snprintf(path, room, "%s/agentd.sock", runtime);
    else if (xdg)
        length = snprintf(path, room, "%s/agentd/agentd.sock", xdg);
    else if (stat(users, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == uid)
        length = snprintf(path, room, "%s/agentd/agentd.sock", users);
    else
        length = snprintf(path, room, "/tmp/agentd-%u/agentd.sock", uid);
    return length > 0 && (size_t)length < room;
}

int line_connect(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, error;

    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    error = -errno;
    close(fd);
    return error;
}

int line_say(int fd, const char *text)
{
    size_t size = strlen(text);

    while (size > 0) {
        ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);

        if (sent < 0 && errno != EINTR)
            return -errno;
        if (sent > 0) {
            text += sent;
            size -= (size_t)sent;
        }
    }
    return 0;
}

int line_read(struct lines *lines, int fd, char **line)
{
    for (;;) {
        char *start = lines->buffer, *end;
        ssize_t got;

        lines->used -= lines->taken;
        memmove(start, start + lines->taken, lines->used);
        lines->taken = 0;
        end = memchr(start, '\n', lines->used);
        if (end) {
            bool whole = !lines->passing_over;

            *end = '\0';
            lines->taken = (size_t)(end - start) + 1;
            lines->passing_over = false;
            if (!whole)
                continue;
            *line = start;
            return 1;
        }
        if (lines->used == sizeof lines->buffer) {
            lines->passing_over = true;
            lines->used = 0;
        }
        got = recv(fd, start + lines->used, sizeof lines->buffer - lines->used, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
        if (got == 0)
            return -EPIPE;
        lines->used += (size_t)got;
    }
}

/* The scanner. Each takes the place where something begins and gives the place behind it, or NULL if it is not there.
 */

static const char *blanks(const char *at)
{
    return at + strspn(at, " \t\r");
}

static const char *string_end(const char *at)
{
    if (*at != '"')
        return NULL;
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && *++at == '\0')
            return NULL;
    return *at ? at + 1 : NULL;
}

static const char *value_end(const char *at)
{
    unsigned depth = 0;

    do {
        at = blanks(at);
        if (*at == '"') {
            at = string_end(at);
            if (!at)
                return NULL;
        } else if (*at == '{' || *at == '[') {
            depth++;
            at++;
        } else if (*at == '}' || *at == ']') {
            if (depth == 0)
                return NULL;
            depth--;
            at++;
        } else if (depth > 0 && (*at == ',' || *at == ':')) {
            at++;
        } else {
            size_t word = strcspn(at, "\"{}[],: \t\r");

            if (word == 0)
                return NULL;
            at += word;
        }
    } while (depth > 0);
    return at;
}

/* Where the value of that field begins. */
static const char *find(const char *at, const char *name)
{
    size_t length = strlen(name);

    at = blanks(at);
    if (*at++ != '{')
        return NULL;
    for (;;) {
        const char *key = blanks(at), *key_end = string_end(key), *value;

        if (!key_end)
            return NULL;
        at = blanks(key_end);
        if (*at++ != ':')
            return NULL;
        value = blanks(at);
        if ((size_t)(key_end - key) == length + 2 && memcmp(key + 1, name, length) == 0)
            return value;
        at = value_end(value);
        if (!at)
            return NULL;
        at = blanks(at);
        if (*at++ != ',')
            return NULL;
    }
}

static int hex_of(const char *at)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF";
        const char *found = at[i] ? strchr(digits, at[i]) : NULL;

        if (!found)
            return -1;
        value = value << 4 | (int)((found - digits) & 15);
    }
    return value;
}

/* One escaped letter: the place behind it. Beyond the first 2^16 letters they are pairs, and shown as question marks.
 */
static const char *unescape(const char *at, char letter[4], size_t *size)
{
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *found = *at ? strchr(plain, *at) : NULL;
    int code;

    *size = 1;
    if (found) {
        letter[0] = meant[found - plain];
        return at + 1;
    }
    code = *at == 'u' ? hex_of(at + 1) : -1;
    if (code <= 0) /* a zero would end the text */
        return NULL;
    if (code < 0x80) {
        letter[0] = (char)code;
    } else if (code < 0x800) {
        letter[0] = (char)(0xc0 | code >> 6);
        letter[1] = (char)(0x80 | (code & 63));
        *size = 2;
    } else if (code >= 0xd800 && code < 0xe000) {
        letter[0] = '?';
    } else {
        letter[0] = (char)(0xe0 | code >> 12);
        letter[1] = (char)(0x80 | (code >> 6 & 63));
        letter[2] = (char)(0x80 | (code & 63));
        *size = 3;
    }
    return at + 5;
}

bool line_text(const char *line, const char *name, char *text, size_t room)
{
    const char *at = find(line, name);

    if (!at || *at != '"' || !string_end(at) || room == 0)
        return false;
    for (at++; *at != '"';) {
        char letter[4] = {*at};
        size_t size = 1;

        if (*at++ == '\\' && !(at = unescape(at, letter, &size)))
            return false;
        if (size >= room)
            return false;
        memcpy(text, letter, size);
        text += size;
        room -= size;
    }
    *text = '\0';
    return true;
}

bool line_number(const char *line, const char *name, uint64_t *number)
{
    const char *at = find(line, name);
    char *end;

    if (!at || *at < '0' || *at > '9')
        return false;
    errno = 0;
    *number = strtoull(at, &end, 10);
    return errno == 0 && (*end == ',' || *end == '}' || *end == ' ');
}

bool line_is(const char *line, const char *verb)
{
    char found[32];

    return line_text(line, "verb", found, sizeof found) && strcmp(found, verb) == 0;
}

size_t line_bytes(const char *base64, uint8_t *bytes, size_t room)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0, length = strlen(base64);
    uint32_t bits = 0;

    if (length == 0 || length % 4 != 0)
        return 0;
    for (size_t i = 0; i < length && base64[i] != '='; i++) {
        const char *found = strchr(digits, base64[i]);

        if (!found)
            return 0;
        bits = bits << 6 | (uint32_t)(found - digits);
        if (i % 4 == 0)
            continue;
        if (n == room)
            return 0;
        bytes[n++] = (uint8_t)(bits >> (6 - i % 4 * 2));
    }
    return n;
}
