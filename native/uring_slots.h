/* What the files of the engine share, and nobody else needs. SPDX-License-Identifier: MIT */
#ifndef AGENTD_URING_SLOTS_H
#define AGENTD_URING_SLOTS_H

#include "uring.h"

#define NO_SLOT UINT32_MAX
/* The token of what uring_stop() asks the kernel: no slot has that number. */
#define CLOSING UINT64_MAX
/* Doorbells have no slot: their success is not told. This is their place in the order, and their token. */
#define DOORBELL_SLOT (UINT32_MAX - 1)
#define DOORBELL (UINT64_MAX - 1)

enum slot_state { SLOT_FREE, SLOT_QUEUED, SLOT_IN_FLIGHT };

struct uring_slot {
    uint32_t generation;
    uint32_t next_free;
    uint32_t length;
    uint8_t kind;
    uint8_t state;
    bool link;
    bool severed; /* it left as a NOP, since what it was linked to had left before it */
};

/* Give a slot back: no completion of its last use is believed from now on. */
void uring_free_slot(struct uring *uring, uint32_t number);

/* The next place in the queue, for the request of that slot, or NULL. */
struct io_uring_sqe *uring_push(struct uring *uring, uint32_t slot);

/* Whether the place in the order is a slot's, not a doorbell's or of uring_stop()'s own. */
static inline bool uring_is_slot(uint32_t number)
{
    return number < DOORBELL_SLOT;
}

/* A completion that names a doorbell: one that failed. */
void uring_note_doorbell(struct uring *uring, const struct io_uring_cqe *cqe);

/* Where the kernel has a thread: whether that has taken all that was submitted. */
bool uring_is_taken(const struct uring *uring);

/* io_uring_enter(2), counted. */
int uring_call(struct uring *uring, uint32_t to_submit, uint32_t flags);

#endif
