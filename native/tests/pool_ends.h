/* Both ends of a pair with a pool, for its tests. SPDX-License-Identifier: MIT */
#ifndef AGENTD_POOL_ENDS_H
#define AGENTD_POOL_ENDS_H

#include "../pool.h"

#include <sys/stat.h>
#include <unistd.h>

#include "../proofs/ends.h"
#include "check.h"

enum { PAGE = POOL_PAGE_BYTES, N_PAGES = 64 };

static const struct pair_shape shape = {
    .lane = PAIR_HIGH, .number = 5, .ring_capacity = 4096, .verdict_capacity = 1024, .pool_capacity = N_PAGES * PAGE};

/* Both ends of a pair, and its pool. */
struct ends {
    int fd;
    struct pair sender, receiver;
    struct pool pool;
};

static inline void open_ends(struct ends *ends, const struct pair_shape *with)
{
    CHECK(pair_create(with, false, &ends->fd) == 0);
    CHECK(pair_attach(&ends->sender, ends->fd, with, PAIR_SENDER) == 0);
    CHECK(pair_attach(&ends->receiver, ends->fd, with, PAIR_RECEIVER) == 0);
    CHECK(pool_open(&ends->pool, &ends->sender) == 0);
}

static inline void close_ends(struct ends *ends)
{
    pair_detach(&ends->sender);
    pair_detach(&ends->receiver);
    close(ends->fd);
}

/* How much memory the file takes. */
static inline uint64_t taken_bytes(int fd)
{
    struct stat status;

    CHECK(fstat(fd, &status) == 0);
    return (uint64_t)status.st_blocks * 512;
}

static inline struct record_reference allocate(struct ends *ends, uint64_t size)
{
    struct record_reference reference;

    CHECK(pool_allocate(&ends->pool, size, &reference) == 0);
    return reference;
}

/* As a sender does with a body. */
static inline struct record_reference send(struct ends *ends, uint64_t size)
{
    struct record_reference reference = allocate(ends, size);

    CHECK(pool_populate(&ends->pool, &reference) == 0);
    pool_is_populated(&ends->pool, &reference);
    pool_hand_over(&ends->pool, &reference);
    return reference;
}

#endif
