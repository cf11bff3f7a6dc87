/*
 * A pair: the memory that one sender and one receiver share on a direct lane, and nobody else.
 * SPDX-License-Identifier: MIT
 *
 * It is a sealed memfd. Both ends map all of it; each checks it before use and trusts nothing that the other may write.
 *
 *     0        header: what this is. Written once, before the memfd is sealed; each end copies and checks it
 *     4096     receiver page: its position in the ring, how many records that were, its gate
 *     8192     sender page: its position in the verdict ring, its gate
 *     12288    verdict ring: receiver to sender, what became of records that asked to know
 *              ring: sender to receiver
 *              pool, where the pair has one: large bodies, sender to receiver; pool.h
 *
 * All but the pool's blocks is allocated when it is made, and resident from the moment an end attaches. The blocks cost
 * nothing until the sender uses them.
 *
 * Who wrote (the sender records, the receiver verdicts) calls pair_publish(): it says whether the other's doorbell must
 * be rung. Who wants to sleep calls pair_arm(), looks once more for what it waits for, and only then blocks.
 *
 * The wake-up is lost by nobody: the writer stores its record and then looks at the other's gate, the sleeper stores
 * its gate and then looks for records, and a full fence stands between the two steps on both sides. So at least one of
 * them sees the other. Who takes ARMED out of the gate rings: one burst rings once.
 */
#ifndef AGENTD_PAIR_H
#define AGENTD_PAIR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ordering.h"
#include "ring.h"

#define PAIR_VERSION 1u
#define PAIR_PAGE_BYTES 4096u
/* Two lines: the prefetcher of the next line must not drag the other end's words along. */
#define PAIR_LINE_BYTES 128u
#define PAIR_POOL_GRAIN (64u << 10)
#define PAIR_POOL_MAX_CAPACITY (UINT64_C(2) << 30)

enum pair_lane { PAIR_CRITICAL = 1, PAIR_HIGH = 2 };
enum pair_end { PAIR_SENDER = 1, PAIR_RECEIVER = 2 };

/* The gate of an end: bits, so that arming and closing do not undo each other. */
enum pair_gate {
    PAIR_ARMED = 1,  /* it sleeps, or is about to: ring */
    PAIR_PAUSED = 2, /* the receiver's: policy, send nothing until it is gone */
    PAIR_CLOSED = 4, /* it has left: the receiver takes nothing any more, the sender sends nothing any more */
};

/* What both ends must agree on. Sizes in bytes; the capacities as in ring.h. */
struct pair_shape {
    enum pair_lane lane;
    uint64_t number; /* of the grant: with a record's position it makes the message's id */
    uint64_t ring_capacity;
    uint64_t verdict_capacity;
    uint64_t pool_capacity; /* bytes for large bodies, a multiple of PAIR_POOL_GRAIN; 0: no pool, as for CRITICAL */
};

/* What lies beyond `header_bytes` is zero: the two last words are there only where there is a pool. */
struct pair_header {
    char magic[8];
    uint32_t version;
    uint32_t byte_order;
    uint32_t header_bytes;
    uint32_t lane;
    uint64_t total_bytes;
    uint64_t number;
    uint64_t ring_offset;
    uint64_t ring_capacity;
    uint64_t verdict_offset;
    uint64_t verdict_capacity;
    uint64_t pool_offset; /* of its first page: the words by which blocks come back. The blocks lie behind it */
    uint64_t pool_capacity;
};

struct pair_receiver_page {
    _Alignas(PAIR_LINE_BYTES) _Atomic uint64_t position; /* of the ring: what lies before it was delivered */
    _Atomic uint64_t taken;                              /* how many records that were */
    _Alignas(PAIR_LINE_BYTES) _Atomic uint32_t gate;
};

struct pair_sender_page {
    _Alignas(PAIR_LINE_BYTES) _Atomic uint64_t verdict_position;
    _Alignas(PAIR_LINE_BYTES) _Atomic uint32_t gate;
};

/* One end, private to its process. */
struct pair {
    struct pair_shape shape;
    enum pair_end end;
    uint32_t forks; /* how often the process had forked when it attached */
    uint8_t *memory;
    uint64_t total_bytes;
    uint64_t resident_bytes; /* what is touched and locked: all but the pool's blocks */
    uint64_t pool_offset;    /* 0: none */
    struct pair_receiver_page *receiver_page;
    _Atomic uint32_t *own_gate;
    _Atomic uint32_t *peer_gate;
    union {
        struct {
            struct ring_writer ring;
            struct ring_reader verdicts;
        } sender;
        struct {
            struct ring_reader ring;
            struct ring_writer verdicts;
        } receiver;
    };
};

/* How many bytes a pair of that shape takes; 0 when there is none of that shape. */
uint64_t pair_total_bytes(const struct pair_shape *shape);

/*
 * A fresh pair's memfd, sealed against every change of its size, and allocated but for the blocks of its pool: 0 and
 * `*fd`. With `huge_pages` it is made of them, or refused. -EINVAL: no such shape, or huge pages for a pool; -ENOSPC,
 * -ENOMEM: no memory for it, or no huge page; or what memfd_create(2) says.
 */
int pair_create(const struct pair_shape *shape, bool huge_pages, int *fd);

/*
 * Map the memfd as one of its ends. Every page but the pool's blocks is touched here, so that none faults later;
 * nothing is left mapped when it fails. `fd` stays the caller's and may be closed afterwards.
 *
 * -EPERM: it is not sealed, so the other end could take the memory away; -EPROTO: it is not a pair of that shape;
 * -ENOMEM, -ENOSPC: it can't be made resident.
 */
int pair_attach(struct pair *pair, int fd, const struct pair_shape *expected, enum pair_end end);
void pair_detach(struct pair *pair);

/* Ask that its pages are never swapped out: 0, or what mlock(2) says, and it works on all the same. */
int pair_lock(struct pair *pair);

/* How often this process or its parents have forked since the core was loaded; set by a handler of pthread_atfork(). */
extern uint32_t pair_forks;

/* Count them from now on; attaching does that by itself. */
void pair_watch_forks(void);

/* A child inherits the pairs of its parent, and a ring with two writers is none: whether this one is its own. */
static inline bool pair_is_own(const struct pair *pair)
{
    return pair->forks == pair_forks;
}

/* What the other end says of itself: 0; -ESHUTDOWN when it has left, -EBUSY while it is paused. */
static inline int pair_peer(const struct pair *pair)
{
    /* PAIRS WITH the release in pair_set_gate(): who sees it closed sees all that was written before. */
    uint32_t gate = atomic_load_explicit(pair->peer_gate, memory_order_acquire);

    if (gate & PAIR_CLOSED)
        return -ESHUTDOWN;
    return gate & PAIR_PAUSED ? -EBUSY : 0;
}

/* After one record or many: whether the caller must ring the other end's doorbell. */
static inline bool pair_publish(struct pair *pair)
{
    /* PAIRS WITH the fence in pair_arm(): the records are stored before the gate is read. */
    ordering_full_fence();
    if (!(atomic_load_explicit(pair->peer_gate, memory_order_relaxed) & PAIR_ARMED))
        return false;
    /* The exchange: of several that find it armed, one rings. */
    return atomic_fetch_and_explicit(pair->peer_gate, ~(uint32_t)PAIR_ARMED, memory_order_acq_rel) & PAIR_ARMED;
}

/* This end is about to sleep; one that has many pairs sets them all, then needs pair_armed() once. */
static inline void pair_set_armed(struct pair *pair)
{
    atomic_fetch_or_explicit(pair->own_gate, PAIR_ARMED, memory_order_relaxed);
}

/* From here on it must look once more for what it waits for before it sleeps. */
static inline void pair_armed(void)
{
    /* PAIRS WITH the fence in pair_publish(): the gate is stored before the ring is read. */
    ordering_full_fence();
}

static inline void pair_arm(struct pair *pair)
{
    pair_set_armed(pair);
    pair_armed();
}

/* This end is awake. */
static inline void pair_disarm(struct pair *pair)
{
    if (atomic_load_explicit(pair->own_gate, memory_order_relaxed) & PAIR_ARMED)
        atomic_fetch_and_explicit(pair->own_gate, ~(uint32_t)PAIR_ARMED, memory_order_relaxed);
}

/* The receiver has copied `taken` records, all it has read, into memory of its own: they are delivered. */
static inline void pair_take(struct pair *pair, uint64_t taken)
{
    /* Read only when the receiver is gone, to count what it left behind. */
    atomic_store_explicit(&pair->receiver_page->taken, taken, memory_order_relaxed);
    ring_release(&pair->receiver.ring);
}

/* Whether the record at this position is delivered. */
static inline bool pair_is_delivered(const struct pair *pair, uint64_t position)
{
    /* PAIRS WITH the release in ring_release(). Positions are compared as what lies between them: they wrap. */
    uint64_t read_to = atomic_load_explicit(&pair->receiver_page->position, memory_order_acquire);

    return (int64_t)(read_to - position) > 0;
}

/* Of this end's own gate: PAIR_PAUSED on or off, PAIR_CLOSED for good. */
void pair_set_gate(struct pair *pair, enum pair_gate bit, bool on);

#endif
