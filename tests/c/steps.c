/*
 * A library to preload: the process dies of SIGKILL at a step, the Nth time that it comes there, writes down its steps,
 * or is refused more of the disk. A step is a system call on a file of the journal, or what the process itself names.
 * See ../steps.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether it is the one to die at. STEPS_LOG names a file that gets a line a step: the thread, and its name. */
static int is_last(const char *name)
{
    static unsigned hits;
    const char *log = getenv("STEPS_LOG"), *step = getenv("STEPS_LAST"), *hit = getenv("STEPS_HIT");

    if (log && *log) {
        char line[128];
        int fd = open(log, O_WRONLY | O_APPEND | O_CREAT, 0600);
        int size = snprintf(line, sizeof line, "%ld %s\n", syscall(SYS_gettid), name);

        syscall(SYS_write, fd, line, size);
        close(fd);
    }
    return step && hit && strcmp(step, name) == 0 &&
           __atomic_add_fetch(&hits, 1, __ATOMIC_SEQ_CST) == strtoul(hit, NULL, 10);
}

void agentd_test_step(const char *name)
{
    if (is_last(name))
        kill(getpid(), SIGKILL);
}

static int ends(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);

    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

/* What a path is in the journal's directory; NULL: nothing of it. */
static const char *part(const char *path)
{
    static const char directory[] = "/journal/";
    const char *name = strrchr(path, '/');
    static _Thread_local char found[NAME_MAX + 1];

    if (!name || ends(path, "/journal"))
        return name ? "directory" : NULL;
    if (name - path + 2 < (long)sizeof directory)
        return NULL;
    if (strncmp(name + 2 - sizeof directory, directory, sizeof directory - 1) != 0)
        return NULL;
    if (ends(name, ".segment"))
        return "segment";
    if (strstr(name, ".preparing"))
        return "preparing";
    if (strncmp(name, "/spare-", 7) == 0)
        return "spare";
    snprintf(found, sizeof found, "%s", name + 1);
    return found;
}

/* `name` beneath a directory, or the file itself. */
static const char *part_at(int fd, const char *name)
{
    char link[64], path[2 * PATH_MAX];
    ssize_t size = 0;

    if (name && (*name == '/' || fd == AT_FDCWD))
        return part(name);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, PATH_MAX);
    if (size < 0)
        return NULL;
    path[size] = 0;
    if (name)
        snprintf(path + size, sizeof path - (size_t)size, "/%s", name);
    return part(path);
}

static void at(const char *call, const char *what)
{
    char step[NAME_MAX + 32];

    if (!what)
        return;
    snprintf(step, sizeof step, "%s %s", call, what);
    agentd_test_step(step);
}

static int is_half(const char *call, const char *what)
{
    char step[NAME_MAX + 32];

    if (!what)
        return 0;
    snprintf(step, sizeof step, "half of %s %s", call, what);
    return is_last(step);
}

/*
 * 0, or the errno that STEPS_ERROR has, of a call that takes more of the disk, while the file that STEPS_FLAG names is
 * there: as where a quota is used up.
 */
static int refused(const char *what)
{
    const char *flag = getenv("STEPS_FLAG"), *error = getenv("STEPS_ERROR");

    return what && flag && error && access(flag, F_OK) == 0 ? (int)strtol(error, NULL, 10) : 0;
}

static int fails(int error)
{
    if (error)
        errno = error;
    return error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t size)
{
    const char *what = part_at(fd, NULL);

    at("write", what);
    if (fails(refused(what)))
        return -1;
    if (is_half("write", what)) {
        REAL(write)(fd, bytes, size / 2);
        kill(getpid(), SIGKILL);
    }
    return REAL(write)(fd, bytes, size);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
    const char *what = part_at(fd, NULL);

    at("pwrite64", what);
    if (what && strcmp(what, "preparing") == 0 && fails(refused(what)))
        return -1;
    if (is_half("pwrite64", what)) {
        REAL(pwrite64)(fd, bytes, size / 2, offset);
        kill(getpid(), SIGKILL);
    }
    return REAL(pwrite64)(fd, bytes, size, offset);
}

int fdatasync(int fd)
{
    at("fdatasync", part_at(fd, NULL));
    return REAL(fdatasync)(fd);
}

int fsync(int fd)
{
    at("fsync", part_at(fd, NULL));
    return REAL(fsync)(fd);
}

int rename(const char *from, const char *to)
{
    at("rename", part(from));
    return REAL(rename)(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    at("rename", part_at(from_fd, from));
    return REAL(renameat)(from_fd, from, to_fd, to);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    at("link", part_at(from_fd, from));
    return REAL(linkat)(from_fd, from, to_fd, to, flags);
}

int unlink(const char *path)
{
    at("unlink", part(path));
    return REAL(unlink)(path);
}

int unlinkat(int fd, const char *path, int flags)
{
    at("unlink", part_at(fd, path));
    return REAL(unlinkat)(fd, path, flags);
}

int posix_fallocate64(int fd, off64_t offset, off64_t bytes)
{
    const char *what = part_at(fd, NULL);

    at("allocate", what);
    return refused(what) ? refused(what) : REAL(posix_fallocate64)(fd, offset, bytes);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes)
{
    const char *what = part_at(fd, NULL);

    at("allocate", what);
    return fails(refused(what)) ? -1 : REAL(fallocate64)(fd, mode, offset, bytes);
}
