/*
 * The system calls of the journal, as a table: a test hands in its own, which fails the Nth call, writes less than it
 * was asked to, notes what would be lost without power, or dies at a step. SPDX-License-Identifier: MIT
 *
 * Every call answers as the kernel does, but with -errno in place of -1 and errno. Directories are descriptors, names
 * are names within them. Nothing else in the journal makes a system call.
 */
#ifndef AGENTD_JOURNAL_FILES_H
#define AGENTD_JOURNAL_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One pwrite of zeros: larger ones leave extents behind which make each later fdatasync slower. */
#define JOURNAL_ZEROING_BYTES (64u << 10)

struct journal_files {
    void *context; /* the first argument of each */

    int (*open)(void *context, int directory, const char *name, int flags); /* O_CLOEXEC and mode 0600 are added */
    int (*close)(void *context, int fd);
    ssize_t (*pread)(void *context, int fd, void *bytes, size_t size, uint64_t offset);
    ssize_t (*pwrite)(void *context, int fd, const void *bytes, size_t size, uint64_t offset);
    int (*fdatasync)(void *context, int fd);
    int (*sync_directory)(void *context, int directory);
    int (*allocate)(void *context, int fd, uint64_t bytes); /* fallocate, from the file's beginning */
    int64_t (*size)(void *context, int fd);                 /* of the file */
    int (*link)(void *context, int directory, const char *from, const char *to); /* -EEXIST: never replaces */
    int (*rename)(void *context, int directory, const char *from, const char *to);
    int (*unlink)(void *context, int directory, const char *name);

    /* Shared. Stores into a page behind the file's end, or one that the disk has no room for, are SIGBUS. */
    int (*map)(void *context, int fd, uint64_t bytes, bool writable, uint8_t **map);
    void (*unmap)(void *context, uint8_t *map, uint64_t bytes);
    /* See that stores into the pages take no fault: they are dirty then, and the next sync writes them. Best effort. */
    void (*prefault)(void *context, uint8_t *map, uint64_t bytes);

    /* Have bytes of the map read from the disk, without waiting for them. Best effort. */
    void (*will_need)(void *context, uint8_t *map, uint64_t bytes);

    int (*lock)(void *context, int directory); /* flock, without waiting: -EWOULDBLOCK while another has it */
    /* Whether the filesystem copies on write, so that even a page that is allocated can run out of room. */
    bool (*copies_on_write)(void *context, int directory);
    /* Each name in the directory, in any order; stops at the first answer that is not 0 and returns it. */
    int (*list)(void *context, int directory, int (*seen)(void *seen_context, const char *name), void *seen_context);
    int (*random)(void *context, void *bytes, size_t size);
    uint64_t (*now_ns)(void *context); /* CLOCK_REALTIME */

    /* Called at each step at which dying matters, with its name. NULL: nobody asks. */
    void (*point)(void *context, const char *name);
};

/* The kernel's. `point` is NULL. */
extern const struct journal_files journal_files_kernel;

/* Here it matters what is left when the process dies. */
static inline void journal_point(const struct journal_files *files, const char *name)
{
    if (__builtin_expect(files->point != NULL, 0))
        files->point(files->context, name);
}

/*
 * All of it, however many calls it takes: a short one is continued, an interrupted one repeated. 0 or -errno; -EIO
 * when the file ends, or the disk takes nothing and gives no reason.
 */
int journal_write(const struct journal_files *files, int fd, const void *bytes, size_t size, uint64_t offset);
int journal_read_file(const struct journal_files *files, int fd, void *bytes, size_t size, uint64_t offset);

/*
 * As the calls of the table, repeated when interrupted. What a filesystem does not have, allocating or syncing a
 * directory, is no error.
 */
int journal_open_file(const struct journal_files *files, int directory, const char *name, int flags);
int journal_allocate(const struct journal_files *files, int fd, uint64_t bytes);
int journal_sync_directory(const struct journal_files *files, int directory);

/*
 * Not repeated: any error is final, an interruption too, which may have taken the place of another error. What was not
 * written may be gone from memory, and the next call would know of nothing.
 */
static inline int journal_sync_file(const struct journal_files *files, int fd)
{
    return files->fdatasync(files->context, fd);
}

#endif
