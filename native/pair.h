/*
 * A pair: the memory that one sender and one receiver share on a direct lane, and nobody else.
 * SPDX-License-Identifier: MIT
 *
 * It is a sealed memfd. Both ends map all of it; each checks it before use and trusts nothing that the other may write.
 *
 *     0        header: what this is. Written once, before the memfd is sealed; each end copies and checks it
 *     4096     receiver page: its position in the ring, its gate
 *     8192     sender page: its position in the verdict ring
 *     12288    verdict ring: receiver to sender, what became of records that asked to know
 *              ring: sender to receiver
 *
 * Sender:    write records, then pair_publish(): says whether the doorbell must be rung.
 * Receiver:  read records, ring_release(). To sleep: pair_arm(), look once more, and only then block on the doorbell.
 *
 * The wake-up is lost by nobody: the sender stores its record and then looks at the gate, the receiver stores the gate
 * and then looks for records, and a full fence stands between the two steps on both sides. So at least one of them sees
 * the other. Who takes ARMED out of the gate rings; one sender's burst rings once.
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

enum pair_lane { PAIR_CRITICAL = 1, PAIR_HIGH = 2 };
enum pair_end { PAIR_SENDER = 1, PAIR_RECEIVER = 2 };

/* The gate: bits, so that arming and closing do not undo each other. */
enum pair_gate {
    PAIR_ARMED = 1,  /* the receiver sleeps, or is about to: ring */
    PAIR_PAUSED = 2, /* policy: send nothing until it is gone */
    PAIR_CLOSED = 4, /* the receiver takes nothing any more */
};

/* What both ends must agree on. Sizes in bytes; the capacities as in ring.h. */
struct pair_shape {
    enum pair_lane lane;
    uint64_t number; /* of the grant: with a record's position it makes the message's id */
    uint64_t ring_capacity;
    uint64_t verdict_capacity;
};

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
};

struct pair_receiver_page {
    _Alignas(PAIR_LINE_BYTES) _Atomic uint64_t position;
    _Alignas(PAIR_LINE_BYTES) _Atomic uint32_t gate;
};

struct pair_sender_page {
    _Alignas(PAIR_LINE_BYTES) _Atomic uint64_t verdict_position;
};

/* One end, private to its process. */
struct pair {
    struct pair_shape shape;
    enum pair_end end;
    uint32_t forks; /* how often the process had forked when it attached */
    uint8_t *memory;
    uint64_t total_bytes;
    struct pair_receiver_page *receiver_page;
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
 * A fresh pair's memfd, allocated to its last page and sealed against every change of its size: 0 and `*fd`.
 * -EINVAL: no such shape; -ENOSPC, -ENOMEM: no memory for it; or what memfd_create(2) says.
 */
int pair_create(const struct pair_shape *shape, int *fd);

/*
 * Map the memfd as one of its ends. Every page is touched here, so that none faults later; nothing is left mapped when
 * it fails. `fd` stays the caller's and may be closed afterwards. `position`: where this end goes on, 0 for a fresh one.
 *
 * -EPERM: it is not sealed, so the other end could take the memory away; -EPROTO: it is not a pair of that shape;
 * -ENOMEM, -ENOSPC: it can't be made resident.
 */
int pair_attach(struct pair *pair, int fd, const struct pair_shape *expected, enum pair_end end);
void pair_detach(struct pair *pair);

/* How often this process or its parents have forked since the core was loaded; set by a handler of pthread_atfork(). */
extern uint32_t pair_forks;

/* A child inherits the pairs of its parent, and a ring with two writers is none: whether this one is its own. */
static inline bool pair_is_own(const struct pair *pair)
{
    return pair->forks == pair_forks;
}

/* Before a record is written: 0; -ESHUTDOWN when the receiver has closed, -EBUSY while it is paused. */
static inline int pair_may_send(const struct pair *pair)
{
    uint32_t gate = atomic_load_explicit(&pair->receiver_page->gate, memory_order_relaxed);

    if (gate & PAIR_CLOSED)
        return -ESHUTDOWN;
    return gate & PAIR_PAUSED ? -EBUSY : 0;
}

/* After one record or many: whether the caller must ring the receiver's doorbell. */
static inline bool pair_publish(struct pair *pair)
{
    _Atomic uint32_t *gate = &pair->receiver_page->gate;

    /* PAIRS WITH the fence in pair_arm(): the records are stored before the gate is read. */
    ordering_full_fence();
    if (!(atomic_load_explicit(gate, memory_order_relaxed) & PAIR_ARMED))
        return false;
    /* The exchange: of several that find it armed, one rings. */
    return atomic_fetch_and_explicit(gate, ~(uint32_t)PAIR_ARMED, memory_order_acq_rel) & PAIR_ARMED;
}

/* The receiver is about to sleep. It must look at the ring once more before it does. */
static inline void pair_arm(struct pair *pair)
{
    atomic_fetch_or_explicit(&pair->receiver_page->gate, PAIR_ARMED, memory_order_relaxed);
    /* PAIRS WITH the fence in pair_publish(): the gate is stored before the ring is read. */
    ordering_full_fence();
}

/* The receiver is awake. */
static inline void pair_disarm(struct pair *pair)
{
    atomic_fetch_and_explicit(&pair->receiver_page->gate, ~(uint32_t)PAIR_ARMED, memory_order_relaxed);
}

/* The receiver's policy: PAIR_PAUSED on or off, PAIR_CLOSED for good. */
void pair_set_gate(struct pair *pair, enum pair_gate bit, bool on);

#endif
