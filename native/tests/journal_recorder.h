/*
 * A table of calls that notes what is on disk, and what may be. SPDX-License-Identifier: MIT
 *
 * The journal runs on real files. They are looked at before and after each call and at each step, so stores into a map
 * are seen too. fdatasync is the barrier of a file, fsync of the directory that of the names.
 */
#ifndef AGENTD_JOURNAL_RECORDER_H
#define AGENTD_JOURNAL_RECORDER_H

#include "journal_workload.h"

enum { BLOCK = 512, MAX_FILES = 64, MAX_VERSIONS = 4096, MAX_NAMES = 16, MAX_CHANGES = 64 };

enum { BLOCKS = SMALL_SEGMENT / BLOCK };

/* A block as it was at some time since the last barrier. */
struct version {
    uint32_t block;
    uint8_t bytes[BLOCK];
};

struct file {
    ino_t inode;
    int fd;
    uint64_t size;
    uint8_t durable[SMALL_SEGMENT];
    uint8_t seen[SMALL_SEGMENT];
    unsigned n_versions;
    struct version versions[MAX_VERSIONS];
};

struct name {
    char name[SEGMENT_NAME_BYTES];
    unsigned file;
};

struct names {
    unsigned n;
    struct name names[MAX_NAMES];
};

struct recorder {
    struct directory directory, image;
    struct promises promises;
    unsigned n_files;
    struct file *files;
    struct names durable;
    unsigned n_changes;
    struct names changes[MAX_CHANGES]; /* after each change since the last barrier, oldest first */
    void (*look)(struct recorder *recorder, bool barrier);
    uint64_t random;
    unsigned n_images, every;
    bool quiet;      /* while an image is recovered */
    bool sync_fails; /* the next one: what it should have written is never written, and the kernel thinks it clean */
};

static inline uint64_t roll_dice(struct recorder *recorder, uint64_t n)
{
    recorder->random = recorder->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (recorder->random >> 33) % n;
}

static inline unsigned file_of(struct recorder *recorder, const char *name)
{
    struct stat found;
    int fd = openat(recorder->directory.fd, name, O_RDONLY | O_CLOEXEC);
    struct file *file;

    CHECK(fd >= 0 && fstat(fd, &found) == 0);
    for (unsigned i = 0; i < recorder->n_files; i++)
        if (recorder->files[i].inode == found.st_ino && recorder->files[i].fd >= 0) {
            close(fd);
            return i;
        }
    CHECK(recorder->n_files < MAX_FILES);
    file = &recorder->files[recorder->n_files];
    memset(file->durable, 0, sizeof file->durable);
    memset(file->seen, 0, sizeof file->seen);
    file->inode = found.st_ino;
    file->fd = fd; /* open, so that its inode is not used again */
    file->n_versions = 0;
    return recorder->n_files++;
}

/* Which names there are now. */
static inline void note_name(int fd, const char *name, void *context)
{
    struct recorder *recorder = context;
    struct names *now = &recorder->changes[recorder->n_changes];

    (void)fd;
    CHECK(now->n < MAX_NAMES);
    CHECK(strlen(name) < SEGMENT_NAME_BYTES);
    memcpy(now->names[now->n].name, name, strlen(name));
    now->names[now->n++].file = file_of(recorder, name);
}

static inline int by_name(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->name, ((const struct name *)b)->name);
}

static inline void observe_names(struct recorder *recorder)
{
    struct names *now = &recorder->changes[recorder->n_changes];
    const struct names *last = recorder->n_changes ? now - 1 : &recorder->durable;

    memset(now, 0, sizeof *now);
    each_file(&recorder->directory, note_name, recorder);
    qsort(now->names, now->n, sizeof *now->names, by_name);
    if (memcmp(now, last, sizeof *now) != 0)
        CHECK(++recorder->n_changes < MAX_CHANGES);
}

/* The block is dirty. One that is as the disk has it makes no difference. */
static inline void add_version(struct file *file, uint32_t block)
{
    const uint8_t *now = file->seen + block * BLOCK, *last = file->durable + block * BLOCK;
    struct version *version = &file->versions[file->n_versions];

    for (unsigned i = 0; i < file->n_versions; i++)
        if (file->versions[i].block == block)
            last = file->versions[i].bytes;
    if (memcmp(now, last, BLOCK) == 0)
        return;
    CHECK(file->n_versions < MAX_VERSIONS);
    file->n_versions++;
    version->block = block;
    memcpy(version->bytes, now, BLOCK);
}

static inline void observe_file(struct file *file)
{
    static uint8_t now[SMALL_SEGMENT];
    ssize_t size = pread(file->fd, now, sizeof now, 0);

    CHECK(size >= 0);
    memset(now + size, 0, sizeof now - (size_t)size);
    file->size = (uint64_t)size;
    for (uint32_t block = 0; block < BLOCKS; block++) {
        uint32_t offset = block * BLOCK;

        if (memcmp(now + offset, file->seen + offset, BLOCK) == 0)
            continue;
        memcpy(file->seen + offset, now + offset, BLOCK);
        add_version(file, block);
    }
}

static inline void observe(struct recorder *recorder)
{
    observe_names(recorder);
    for (unsigned i = 0; i < recorder->n_files; i++)
        observe_file(&recorder->files[i]);
}

/* A moment at which the power may go. */
static inline void moment(struct recorder *recorder, bool barrier)
{
    if (recorder->quiet)
        return;
    observe(recorder);
    recorder->quiet = true;
    recorder->look(recorder, barrier);
    recorder->quiet = false;
}

#define KERNEL journal_files_kernel

static inline int recorded_open(void *context, int directory, const char *name, int flags)
{
    int result;

    if (flags & O_CREAT)
        moment(context, false);
    result = KERNEL.open(NULL, directory, name, flags);
    if (flags & O_CREAT)
        moment(context, false);
    return result;
}

static inline struct file *file_behind(struct recorder *recorder, int fd)
{
    struct stat found;

    CHECK(fstat(fd, &found) == 0);
    for (unsigned i = 0; i < recorder->n_files; i++)
        if (recorder->files[i].inode == found.st_ino)
            return &recorder->files[i];
    return NULL;
}

static inline ssize_t recorded_pwrite(void *context, int fd, const void *bytes, size_t size, uint64_t offset)
{
    struct recorder *recorder = context;
    struct file *file;
    ssize_t result;

    moment(recorder, false);
    result = KERNEL.pwrite(NULL, fd, bytes, size, offset);
    file = file_behind(recorder, fd);
    if (file) {
        observe_file(file);
        for (uint64_t block = offset / BLOCK; size && block <= (offset + size - 1) / BLOCK; block++)
            add_version(file, (uint32_t)block); /* also what is as it was */
    }
    moment(recorder, false);
    return result;
}

static inline int recorded_fdatasync(void *context, int fd)
{
    struct recorder *recorder = context;
    struct file *file;
    bool fails = recorder->sync_fails;

    moment(recorder, true);
    recorder->sync_fails = false;
    file = file_behind(recorder, fd);
    CHECK(file != NULL);
    for (unsigned i = 0; i < file->n_versions && !fails; i++)
        memcpy(file->durable + file->versions[i].block * BLOCK, file->versions[i].bytes, BLOCK);
    file->n_versions = 0;
    return fails ? -EIO : KERNEL.fdatasync(NULL, fd);
}

static inline int recorded_sync_directory(void *context, int directory)
{
    struct recorder *recorder = context;

    moment(recorder, true);
    if (recorder->n_changes)
        recorder->durable = recorder->changes[recorder->n_changes - 1];
    recorder->n_changes = 0;
    return KERNEL.sync_directory(NULL, directory);
}

static inline int recorded_link(void *context, int directory, const char *from, const char *to)
{
    int result;

    moment(context, false);
    result = KERNEL.link(NULL, directory, from, to);
    moment(context, false);
    return result;
}

static inline int recorded_rename(void *context, int directory, const char *from, const char *to)
{
    int result;

    moment(context, false);
    result = KERNEL.rename(NULL, directory, from, to);
    moment(context, false);
    return result;
}

static inline int recorded_unlink(void *context, int directory, const char *name)
{
    int result;

    moment(context, false);
    result = KERNEL.unlink(NULL, directory, name);
    moment(context, false);
    return result;
}

static inline void recorded_point(void *context, const char *name)
{
    (void)name;
    moment(context, false);
}

static inline struct journal_files recording(struct recorder *recorder)
{
    struct journal_files files = KERNEL;

    files.context = recorder;
    files.open = recorded_open;
    files.pwrite = recorded_pwrite;
    files.fdatasync = recorded_fdatasync;
    files.sync_directory = recorded_sync_directory;
    files.link = recorded_link;
    files.rename = recorded_rename;
    files.unlink = recorded_unlink;
    files.point = recorded_point;
    return files;
}

#endif
