/* Making, checking and mapping a pair's memory. What lies where, and why that is enough, stands in pair.h. */
#define _GNU_SOURCE
#include "pair.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3; older ones refuse it with EINVAL */
#endif
#ifndef MFD_HUGETLB
#define MFD_HUGETLB 0x0004U
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define MAGIC "agentdP\n"
#define BYTE_ORDER_MARK 0x01020304u
#define HEADER_BYTES 72u
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
/* The usual size of a huge page, and the only one that is asked for. */
#define HUGE_PAGE_BYTES (UINT64_C(2) << 20)
#define HUGE_PAGE_FLAGS (MFD_HUGETLB | 21U << 26)

enum { HEADER_PAGE, RECEIVER_PAGE, SENDER_PAGE, N_PAGES };

_Static_assert(sizeof(struct pair_header) == 88, "the header is read by other builds and languages");
_Static_assert(offsetof(struct pair_header, pool_offset) == HEADER_BYTES, "a pair without a pool is as it always was");
_Static_assert(offsetof(struct pair_header, total_bytes) == 24, "the header is read by other builds and languages");
_Static_assert(offsetof(struct pair_header, verdict_capacity) == 64, "the header is read by other builds");
_Static_assert(sizeof(struct pair_receiver_page) == 2 * PAIR_LINE_BYTES, "a line for each word");
_Static_assert(offsetof(struct pair_receiver_page, gate) == PAIR_LINE_BYTES, "a line for each word");
_Static_assert(offsetof(struct pair_sender_page, gate) == PAIR_LINE_BYTES, "a line for each word");
_Static_assert(sizeof(struct pair_sender_page) == 2 * PAIR_LINE_BYTES, "a line for each word");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a gate that needs a lock can't be shared between processes");

uint32_t pair_forks;

static void note_fork(void)
{
    pair_forks++;
}

static pthread_once_t fork_watch = PTHREAD_ONCE_INIT;

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, note_fork);
}

void pair_watch_forks(void)
{
    pthread_once(&fork_watch, watch_forks);
}

static bool is_capacity(uint64_t capacity)
{
    return capacity >= RING_MIN_CAPACITY && capacity <= RING_MAX_CAPACITY && (capacity & (capacity - 1)) == 0;
}

/* The ring begins on a page of its own, whatever the verdict ring's size. */
static uint64_t pages(uint64_t bytes)
{
    return (bytes + PAIR_PAGE_BYTES - 1) & ~(uint64_t)(PAIR_PAGE_BYTES - 1);
}

static uint64_t huge_pages_of(uint64_t bytes)
{
    return (bytes + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
}

static struct pair_header header_of(const struct pair_shape *shape)
{
    uint64_t verdict_offset = (uint64_t)N_PAGES * PAIR_PAGE_BYTES;
    uint64_t ring_offset = verdict_offset + pages(shape->verdict_capacity);
    uint64_t pool_offset = ring_offset + pages(shape->ring_capacity);
    struct pair_header header = {
        .version = PAIR_VERSION,
        .byte_order = BYTE_ORDER_MARK,
        .header_bytes = HEADER_BYTES,
        .lane = (uint32_t)shape->lane,
        .total_bytes = pool_offset,
        .number = shape->number,
        .ring_offset = ring_offset,
        .ring_capacity = shape->ring_capacity,
        .verdict_offset = verdict_offset,
        .verdict_capacity = shape->verdict_capacity,
    };

    memcpy(header.magic, MAGIC, sizeof header.magic);
    if (shape->pool_capacity) {
        header.header_bytes = sizeof header;
        header.total_bytes = pool_offset + PAIR_PAGE_BYTES + shape->pool_capacity;
        header.pool_offset = pool_offset;
        header.pool_capacity = shape->pool_capacity;
    }
    return header;
}

uint64_t pair_total_bytes(const struct pair_shape *shape)
{
    if (!is_capacity(shape->ring_capacity) || !is_capacity(shape->verdict_capacity))
        return 0;
    if (shape->lane != PAIR_CRITICAL && shape->lane != PAIR_HIGH)
        return 0;
    if (shape->pool_capacity % PAIR_POOL_GRAIN || shape->pool_capacity > PAIR_POOL_MAX_CAPACITY)
        return 0;
    if (shape->pool_capacity && shape->lane != PAIR_HIGH)
        return 0;
    return header_of(shape).total_bytes;
}

/* By a mapping of its own: files of huge pages know no pwrite(). */
static int write_header(int fd, const struct pair_header *header, uint64_t mapped_bytes)
{
    void *memory = mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (memory == MAP_FAILED)
        return -errno;
    memcpy(memory, header, sizeof *header);
    munmap(memory, mapped_bytes);
    return 0;
}

static int fill_and_seal(int fd, const struct pair_header *header, uint64_t file_bytes)
{
    int error;

    if (ftruncate(fd, (off_t)file_bytes) < 0)
        return -errno;
    /* That alone would promise pages that a full tmpfs can't give: SIGBUS at the first touch. */
    do
        error = posix_fallocate(fd, 0, (off_t)(file_bytes - header->pool_capacity));
    while (error == EINTR);
    if (error)
        return -error;
    error = write_header(fd, header, file_bytes - header->pool_capacity);
    if (error)
        return error;
    return fcntl(fd, F_ADD_SEALS, SEALS) < 0 ? -errno : 0;
}

int pair_create(const struct pair_shape *shape, bool huge_pages, int *fd)
{
    struct pair_header header = header_of(shape);
    uint64_t file_bytes = huge_pages ? huge_pages_of(header.total_bytes) : header.total_bytes;
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge_pages ? HUGE_PAGE_FLAGS : 0);
    int made, error;

    if (!pair_total_bytes(shape) || (huge_pages && shape->pool_capacity))
        return -EINVAL;
    made = memfd_create("agentd-pair", flags | MFD_NOEXEC_SEAL);
    if (made < 0 && errno == EINVAL)
        made = memfd_create("agentd-pair", flags);
    if (made < 0)
        return -errno;
    error = fill_and_seal(made, &header, file_bytes);
    if (error) {
        close(made);
        return error;
    }
    *fd = made;
    return 0;
}

/* Checks all that makes the memory safe to map; says how much of it there is. */
static int check_size_and_seals(int fd, const struct pair_header *header, uint64_t *file_bytes)
{
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat status;

    if (seals < 0) /* no memfd at all */
        return errno == EINVAL ? -EPROTO : -errno;
    if ((seals & SEALS) != SEALS)
        return -EPERM;
    if (fstat(fd, &status) < 0)
        return -errno;
    *file_bytes = (uint64_t)status.st_size;
    if (*file_bytes == huge_pages_of(header->total_bytes) && !header->pool_capacity)
        return 0;
    return *file_bytes == header->total_bytes ? 0 : -EPROTO;
}

/* The first `bytes` resident and writable now, in this mapping: no fault later, and a refusal instead of a signal. */
static int populate(void *memory, size_t mapped_bytes, size_t bytes)
{
    if (madvise(memory, mapped_bytes, MADV_DONTFORK) < 0)
        return -errno;
    if (madvise(memory, bytes, MADV_POPULATE_WRITE) == 0)
        return 0;
    return errno == EFAULT ? -ENOSPC : -errno;
}

static void open_ends(struct pair *pair, const struct pair_header *header)
{
    struct pair_sender_page *sender_page = (void *)(pair->memory + SENDER_PAGE * PAIR_PAGE_BYTES);
    uint8_t *ring = pair->memory + header->ring_offset;
    uint8_t *verdicts = pair->memory + header->verdict_offset;
    uint64_t ring_capacity = header->ring_capacity, verdict_capacity = header->verdict_capacity;

    pair->receiver_page = (void *)(pair->memory + RECEIVER_PAGE * PAIR_PAGE_BYTES);
    /* Can't fail: the shape was checked. */
    if (pair->end == PAIR_SENDER) {
        pair->own_gate = &sender_page->gate;
        pair->peer_gate = &pair->receiver_page->gate;
        ring_open_writer(&pair->sender.ring, ring, ring_capacity, &pair->receiver_page->position, 0);
        ring_open_reader(&pair->sender.verdicts, verdicts, verdict_capacity, &sender_page->verdict_position, 0);
    } else {
        pair->own_gate = &pair->receiver_page->gate;
        pair->peer_gate = &sender_page->gate;
        ring_open_reader(&pair->receiver.ring, ring, ring_capacity, &pair->receiver_page->position, 0);
        ring_open_writer(&pair->receiver.verdicts, verdicts, verdict_capacity, &sender_page->verdict_position, 0);
    }
}

/* The header is copied once into private memory: what was checked is what is used. */
static int check_header(const void *memory, const struct pair_header *expected)
{
    struct pair_header found;

    memcpy(&found, memory, sizeof found);
    return memcmp(&found, expected, sizeof found) == 0 ? 0 : -EPROTO;
}

int pair_attach(struct pair *pair, int fd, const struct pair_shape *expected, enum pair_end end)
{
    struct pair_header header = header_of(expected);
    uint64_t file_bytes = 0;
    void *memory;
    int error;

    if (!pair_total_bytes(expected) || (end != PAIR_SENDER && end != PAIR_RECEIVER))
        return -EINVAL;
    pair_watch_forks();
    error = check_size_and_seals(fd, &header, &file_bytes);
    if (error)
        return error;
    memory = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    error = populate(memory, file_bytes, file_bytes - header.pool_capacity);
    if (!error)
        error = check_header(memory, &header);
    if (error) {
        munmap(memory, file_bytes);
        return error;
    }
    *pair = (struct pair){
        .shape = *expected,
        .end = end,
        .forks = pair_forks,
        .memory = memory,
        .total_bytes = file_bytes,
        .resident_bytes = file_bytes - header.pool_capacity,
        .pool_offset = header.pool_offset,
    };
    open_ends(pair, &header);
    return 0;
}

void pair_detach(struct pair *pair)
{
    /* A child has no such mapping, and may have another in its place. */
    if (pair->memory && pair_is_own(pair))
        munmap(pair->memory, pair->total_bytes);
    pair->memory = NULL;
}

int pair_lock(struct pair *pair)
{
    return mlock(pair->memory, pair->resident_bytes) < 0 ? -errno : 0;
}

void pair_set_gate(struct pair *pair, enum pair_gate bit, bool on)
{
    if (on)
        /* PAIRS WITH the acquire in pair_peer(). */
        atomic_fetch_or_explicit(pair->own_gate, (uint32_t)bit, memory_order_release);
    else
        atomic_fetch_and_explicit(pair->own_gate, ~(uint32_t)bit, memory_order_relaxed);
}
