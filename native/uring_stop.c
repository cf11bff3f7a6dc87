/* The end of an engine's requests: nothing that the kernel may still write to is given back before it is known. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "clock.h"
#include "uring_abi.h"
#include "uring_slots.h"

/* What was linked to a cancelled one may have started meanwhile: it is asked again. */
#define ROUND_MS 20

bool uring_holds(const struct uring *uring, uint32_t slot)
{
    return uring->slots && slot < uring->n_slots && uring->slots[slot].state == SLOT_IN_FLIGHT;
}

/* What the kernel has not taken, it never shall. */
static uint32_t take_back(struct uring *uring, struct uring_completion *completions)
{
    bool has_thread = uring->setup_flags & IORING_SETUP_SQPOLL;
    uint32_t from = has_thread ? uring->sq_published : uring->sq_head, n = 0;

    for (uint32_t place = from; place != uring->sq_tail; place++) {
        uint32_t number = uring->order[place & (uring->memory.sq_entries - 1)];
        struct uring_slot *slot;

        if (!uring_is_slot(number))
            continue;
        slot = &uring->slots[number];
        completions[n++] = (struct uring_completion){
            .token = (uint64_t)slot->generation << 32 | number,
            .result = -ECANCELED,
            .kind = (enum uring_kind)slot->kind,
        };
        uring_free_slot(uring, number);
    }
    uring->sq_tail = uring->sq_published = from;
    /* The kernel reads it in our next call, or, where it has a thread, has seen it already. */
    atomic_store_explicit(uring->memory.sq_tail, from, memory_order_release);
    return n;
}

static void cancel_all(struct uring *uring)
{
    for (uint32_t number = 0; number < uring->n_slots; number++) {
        struct io_uring_sqe *sqe;

        if (uring->slots[number].state != SLOT_IN_FLIGHT)
            continue;
        sqe = uring_push(uring, NO_SLOT);
        if (!sqe) {
            uring_submit(uring);
            sqe = uring_push(uring, NO_SLOT);
        }
        if (!sqe) /* in the next round */
            break;
        memset(sqe, 0, sizeof *sqe);
        sqe->opcode = IORING_OP_ASYNC_CANCEL;
        sqe->fd = -1;
        sqe->addr = (uint64_t)uring->slots[number].generation << 32 | number;
        sqe->user_data = CLOSING;
    }
    uring_submit(uring);
}

int uring_stop(struct uring *uring, int timeout_ms, struct uring_completion *completions, uint32_t *n)
{
    int64_t until_ns = clock_monotonic_ns() + timeout_ms * INT64_C(1000000);
    int error = uring_check(uring);

    *n = 0;
    if (error)
        return error;
    *n = take_back(uring, completions);
    while (uring->n_in_flight > 0 || !uring_is_taken(uring)) {
        int64_t left_ms = (until_ns - clock_monotonic_ns()) / 1000000;
        struct pollfd ready = {.fd = uring->fd, .events = POLLIN};
        int reaped;

        cancel_all(uring);
        reaped = uring_reap(uring, completions + *n, uring->n_slots - *n);
        if (reaped > 0)
            *n += (uint32_t)reaped;
        if ((uring->n_in_flight == 0 && uring_is_taken(uring)) || left_ms <= 0 || (reaped < 0 && uring->broken))
            break;
        if (reaped <= 0)
            poll(&ready, 1, left_ms < ROUND_MS ? (int)left_ms : ROUND_MS);
    }
    return (int)uring->n_in_flight;
}
