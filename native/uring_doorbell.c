/*
 * Doorbells through the engine: writes to eventfds that say nothing when they succeed, so that they cost their sender
 * no completion and wake no loop of its own. What is promised stands in uring.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "clock.h"
#include "pair.h"
#include "uring_abi.h"
#include "uring_slots.h"

/* How long the kernel's thread may take to get its turn, before a descriptor is lost rather than closed. */
#define TAKEN_MS 100

/* The kernel reads it until the doorbell has rung, which may be after the engine is gone. */
static const uint64_t one = 1;

static bool has_thread(const struct uring *uring)
{
    return uring->setup_flags & IORING_SETUP_SQPOLL;
}

bool uring_has_thread(const struct uring *uring)
{
    return !uring_check(uring) && has_thread(uring);
}

static bool push(struct uring *uring, int bell)
{
    struct io_uring_sqe *sqe = uring_push(uring, DOORBELL_SLOT);

    if (!sqe)
        return false;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_WRITE;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->fd = bell;
    sqe->addr = (uint64_t)(uintptr_t)&one;
    sqe->len = sizeof one;
    sqe->off = UINT64_MAX;
    sqe->user_data = DOORBELL;
    uring->chain_open = false;
    return true;
}

int uring_queue_doorbell(struct uring *uring, int bell)
{
    int error = uring_check(uring);

    if (error)
        return error;
    if (bell < 0)
        return -EINVAL;
    if (!uring->skips)
        return -EOPNOTSUPP;
    return push(uring, bell) ? 0 : -EAGAIN;
}

/* The last so many were not taken and never shall be: the kernel looks at the tail in our calls alone. */
static void take_back(struct uring *uring, uint32_t n)
{
    uring->sq_tail = uring->sq_published -= n;
    atomic_store_explicit(uring->memory.sq_tail, uring->sq_tail, memory_order_release);
}

uint32_t uring_ring(struct uring *uring, const int *bells, uint32_t n)
{
    uint32_t queued = 0, left;

    if (uring_check(uring) || !uring->skips || uring->chain_open)
        return 0;
    while (queued < n && push(uring, bells[queued]))
        queued++;
    if (!queued)
        return 0;
    uring_submit(uring);
    if (has_thread(uring))
        return queued;
    if (uring->broken)
        return 0;
    left = uring_queued(uring);
    if (left > queued)
        left = queued;
    take_back(uring, left);
    return queued - left;
}

void uring_note_doorbell(struct uring *uring, const struct io_uring_cqe *cqe)
{
    uint64_t *completed = &uring->counts.completed[URING_DOORBELL];

    if (*completed == uring->counts.submitted[URING_DOORBELL] || (cqe->flags & IORING_CQE_F_MORE)) {
        uring->counts.unexpected++;
        return;
    }
    ++*completed;
    /* Its count is at its highest: it is rung. */
    uring->counts.failed[URING_DOORBELL] += cqe->res != -EAGAIN;
}

bool uring_is_taken(const struct uring *uring)
{
    if (!has_thread(uring))
        return true;
    /* PAIRS WITH the kernel's release of the head after it has read an SQE, and has its file. */
    return atomic_load_explicit(uring->memory.sq_head, memory_order_acquire) == uring->sq_published;
}

bool uring_sleeps(const struct uring *uring)
{
    if (!uring_has_thread(uring))
        return false;
    return atomic_load_explicit(uring->memory.sq_flags, memory_order_relaxed) & IORING_SQ_NEED_WAKEUP;
}

bool uring_await_taken(struct uring *uring)
{
    int64_t until_ns = clock_monotonic_ns() + TAKEN_MS * INT64_C(1000000);

    if (uring_check(uring) == -EBADF || uring->forks != pair_forks)
        return true; /* uring_stop() has waited, and a child's descriptors are its own */
    while (!uring_is_taken(uring)) {
        if (clock_monotonic_ns() > until_ns)
            return false;
        sched_yield();
    }
    return true;
}
