/* The kernel's calls as the journal's table has them, and the loops around those that may do less than asked. */
#define _GNU_SOURCE
#include "journal_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* A signal may interrupt each of several tries; more than that is no accident. */
#define MAX_INTERRUPTIONS 64

/* As statfs(2) names them. */
#define BTRFS_MAGIC 0x9123683E
#define BCACHEFS_MAGIC 0xCA451A4E
#define ZFS_MAGIC 0x2FC12FC1

static int answer(int result)
{
    return result < 0 ? -errno : result;
}

static int kernel_open(void *context, int directory, const char *name, int flags)
{
    (void)context;
    return answer(openat(directory, name, flags | O_CLOEXEC, 0600));
}

static int kernel_close(void *context, int fd)
{
    (void)context;
    return answer(close(fd));
}

static ssize_t kernel_pread(void *context, int fd, void *bytes, size_t size, uint64_t offset)
{
    ssize_t result = pread(fd, bytes, size, (off_t)offset);

    (void)context;
    return result < 0 ? -errno : result;
}

static ssize_t kernel_pwrite(void *context, int fd, const void *bytes, size_t size, uint64_t offset)
{
    ssize_t result = pwrite(fd, bytes, size, (off_t)offset);

    (void)context;
    return result < 0 ? -errno : result;
}

static int kernel_fdatasync(void *context, int fd)
{
    (void)context;
    return answer(fdatasync(fd));
}

static int kernel_sync_directory(void *context, int directory)
{
    (void)context;
    return answer(fsync(directory));
}

static int kernel_allocate(void *context, int fd, uint64_t bytes)
{
    (void)context;
    return answer(fallocate(fd, 0, 0, (off_t)bytes));
}

static int64_t kernel_size(void *context, int fd)
{
    struct stat found;

    (void)context;
    return fstat(fd, &found) < 0 ? -errno : found.st_size;
}

static int kernel_link(void *context, int directory, const char *from, const char *to)
{
    (void)context;
    return answer(linkat(directory, from, directory, to, 0));
}

static int kernel_rename(void *context, int directory, const char *from, const char *to)
{
    (void)context;
    return answer(renameat(directory, from, directory, to));
}

static int kernel_unlink(void *context, int directory, const char *name)
{
    (void)context;
    return answer(unlinkat(directory, name, 0));
}

static int kernel_map(void *context, int fd, uint64_t bytes, bool writable, uint8_t **map)
{
    void *found = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);

    (void)context;
    if (found == MAP_FAILED)
        return -errno;
    /* A child that shares it would go on writing where its parent does. */
    madvise(found, bytes, MADV_DONTFORK);
    *map = found;
    return 0;
}

static void kernel_unmap(void *context, uint8_t *map, uint64_t bytes)
{
    (void)context;
    munmap(map, bytes);
}

static void kernel_prefault(void *context, uint8_t *map, uint64_t bytes)
{
    (void)context;
    madvise(map, bytes, MADV_POPULATE_WRITE); /* without it, stores take the faults */
}

static void kernel_will_need(void *context, uint8_t *map, uint64_t bytes)
{
    (void)context;
    madvise(map, bytes, MADV_WILLNEED); /* without it, each read waits for the disk */
}

static int kernel_lock(void *context, int directory)
{
    (void)context;
    return answer(flock(directory, LOCK_EX | LOCK_NB));
}

static bool kernel_copies_on_write(void *context, int directory)
{
    struct statfs found;

    (void)context;
    if (fstatfs(directory, &found) < 0)
        return true; /* writing by calls is right anywhere */
    switch ((uint32_t)found.f_type) {
    case BTRFS_MAGIC:
    case BCACHEFS_MAGIC:
    case ZFS_MAGIC:
        return true;
    default:
        return false;
    }
}

static int
kernel_list(void *context, int directory, int (*seen)(void *seen_context, const char *name), void *seen_context)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result = 0;
    struct dirent *entry;
    DIR *stream;

    (void)context;
    if (fd < 0)
        return -errno;
    stream = fdopendir(fd);
    if (!stream) {
        result = -errno;
        close(fd);
        return result;
    }
    while (result == 0) {
        errno = 0;
        entry = readdir(stream);
        if (!entry) {
            result = -errno;
            break;
        }
        result = seen(seen_context, entry->d_name);
    }
    closedir(stream);
    return result;
}

static int kernel_random(void *context, void *bytes, size_t size)
{
    ssize_t result = getrandom(bytes, size, 0);

    (void)context;
    if (result < 0)
        return -errno;
    return (size_t)result == size ? 0 : -EIO;
}

static uint64_t kernel_now_ns(void *context)
{
    struct timespec now;

    (void)context;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const struct journal_files journal_files_kernel = {
    .open = kernel_open,
    .close = kernel_close,
    .pread = kernel_pread,
    .pwrite = kernel_pwrite,
    .fdatasync = kernel_fdatasync,
    .sync_directory = kernel_sync_directory,
    .allocate = kernel_allocate,
    .size = kernel_size,
    .link = kernel_link,
    .rename = kernel_rename,
    .unlink = kernel_unlink,
    .map = kernel_map,
    .unmap = kernel_unmap,
    .prefault = kernel_prefault,
    .will_need = kernel_will_need,
    .lock = kernel_lock,
    .copies_on_write = kernel_copies_on_write,
    .list = kernel_list,
    .random = kernel_random,
    .now_ns = kernel_now_ns,
};

int journal_write(const struct journal_files *files, int fd, const void *bytes, size_t size, uint64_t offset)
{
    const uint8_t *from = bytes;

    for (unsigned interruptions = 0; size > 0;) {
        ssize_t written = files->pwrite(files->context, fd, from, size, offset);

        if (written == -EINTR && interruptions++ < MAX_INTERRUPTIONS)
            continue;
        if (written <= 0)
            return written < 0 ? (int)written : -EIO;
        from += written;
        offset += (uint64_t)written;
        size -= (size_t)written;
    }
    return 0;
}

int journal_read_file(const struct journal_files *files, int fd, void *bytes, size_t size, uint64_t offset)
{
    uint8_t *to = bytes;

    for (unsigned interruptions = 0; size > 0;) {
        ssize_t found = files->pread(files->context, fd, to, size, offset);

        if (found == -EINTR && interruptions++ < MAX_INTERRUPTIONS)
            continue;
        if (found <= 0)
            return found < 0 ? (int)found : -EIO;
        to += found;
        offset += (uint64_t)found;
        size -= (size_t)found;
    }
    return 0;
}

int journal_open_file(const struct journal_files *files, int directory, const char *name, int flags)
{
    int result = -EINTR;

    for (unsigned tries = 0; result == -EINTR && tries < MAX_INTERRUPTIONS; tries++)
        result = files->open(files->context, directory, name, flags);
    return result;
}

int journal_allocate(const struct journal_files *files, int fd, uint64_t bytes)
{
    int result = -EINTR;

    for (unsigned tries = 0; result == -EINTR && tries < MAX_INTERRUPTIONS; tries++)
        result = files->allocate(files->context, fd, bytes);
    /* Where the filesystem has no such call, the zeros that are written next allocate. */
    return result == -EOPNOTSUPP || result == -ENOSYS ? 0 : result;
}

int journal_sync_directory(const struct journal_files *files, int directory)
{
    int result = -EINTR;

    for (unsigned tries = 0; result == -EINTR && tries < MAX_INTERRUPTIONS; tries++)
        result = files->sync_directory(files->context, directory);
    /* Some filesystems have no such thing, and nothing that it could do. */
    return result == -EINVAL ? 0 : result;
}
