/* Maps with nothing around them. What for stands in guard.h. */
#define _GNU_SOURCE
#include "guard.h"

#include <sys/mman.h>

#include "../tests/check.h"

/* More than a 32-bit size can step over at once. */
#define AROUND (UINT64_C(5) << 30)

void *__real_mmap(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *memory, size_t bytes);
void *__wrap_mmap(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *memory, size_t bytes);

void *__wrap_mmap(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    int nothing = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint8_t *reserved = __real_mmap(hint, bytes + 2 * AROUND, PROT_NONE, nothing, -1, 0);
    void *memory;

    if (reserved == MAP_FAILED)
        return reserved;
    memory = __real_mmap(reserved + AROUND, bytes, protection, flags | MAP_FIXED, fd, offset);
    if (memory == MAP_FAILED) {
        int error = errno;

        __real_munmap(reserved, bytes + 2 * AROUND);
        errno = error;
    }
    return memory;
}

void *__wrap_mmap64(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return __wrap_mmap(hint, bytes, protection, flags, fd, offset);
}

int __wrap_munmap(void *memory, size_t bytes)
{
    /* To whole pages, as the map was. */
    bytes = (bytes + PAIR_PAGE_BYTES - 1) & ~(size_t)(PAIR_PAGE_BYTES - 1);
    return __real_munmap((uint8_t *)memory - AROUND, bytes + 2 * AROUND);
}

uint8_t *guard_read(const struct ring_reader *reader, const uint8_t *body, uint32_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    CHECK(copy);
    CHECK(body >= reader->data && (uint64_t)(body - reader->data) + size <= reader->mask + 1);
    memcpy(copy, body, size);
    return copy;
}

void guard_write(const struct ring_writer *writer, uint8_t *body, uint32_t size, uint8_t value)
{
    CHECK(body >= writer->data && (uint64_t)(body - writer->data) + size <= writer->mask + 1);
    memset(body, value, size);
}

uint64_t guard_parse(const uint8_t *bytes, uint32_t size)
{
    struct record record;
    uint64_t sum = 0;

    if (!record_parse(bytes, size, &record))
        return 0;
    for (uint32_t i = 0; i < record.header.details_bytes; i++)
        sum += record.details[i] | 1;
    for (uint32_t i = 0; i < record.body_bytes; i++)
        sum += record.body[i] | 1;
    return sum;
}
