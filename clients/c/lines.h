/*
 * The main connection, on its JSON face: as much of it as a client of the direct lanes needs.
 * SPDX-License-Identifier: MIT
 */
#ifndef AGENTD_LINES_H
#define AGENTD_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longer lines are passed over: nothing that is said to a client without credit is as long. */
#define LINE_MAX_BYTES 16384u

struct lines {
    size_t used;
    size_t taken; /* of them, by the line that was read last */
    bool passing_over;
    char buffer[LINE_MAX_BYTES];
};

/* Where the daemon listens unless somebody says otherwise. False: it does not fit. */
bool line_default_socket(char *path, size_t room);
/* A connection of that type: its descriptor, or -errno. */
int line_connect(const char *path, int type);
/* All of it: 0 or -errno. */
int line_say(int fd, const char *text);

/* The next line, terminated: 1; 0 when there is none yet; -EPIPE at the end; -errno. Good until the next call. */
int line_read(struct lines *lines, int fd, char **line);

/* A field of the object in that line, if it has one of that kind and it fits; `text` is terminated. */
bool line_text(const char *line, const char *name, char *text, size_t room);
bool line_number(const char *line, const char *name, uint64_t *number);
/* Whether its verb is that. */
bool line_is(const char *line, const char *verb);

/* From base64: how many bytes, or 0 when it is none or too long. */
size_t line_bytes(const char *base64, uint8_t *bytes, size_t room);

#endif
