/* Queueing, submitting and reaping. What is promised stands in uring.h; how a ring is opened in uring_setup.c. */
#define _GNU_SOURCE
#include "uring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ordering.h"
#include "pair.h"
#include "uring_abi.h"
#include "uring_slots.h"

/* As many bytes as one system call moves. */
#define MAX_TRANSFER_BYTES 0x7ffff000u
/* A signal may interrupt each of several tries; more than that is no accident. */
#define MAX_INTERRUPTIONS 16

/*
 * A thread's name, which no later thread has: one at the same address would be let in, and has other rings behind the
 * same numbers.
 */
static uint64_t this_thread(void)
{
    static _Atomic uint64_t n_threads;
    static _Thread_local uint64_t number;

    if (!number)
        number = atomic_fetch_add_explicit(&n_threads, 1, memory_order_relaxed) + 1;
    return number;
}

static const uint8_t opcodes[URING_N_KINDS] = {
    [URING_NOP] = IORING_OP_NOP,     [URING_READ] = IORING_OP_READ,     [URING_WRITE] = IORING_OP_WRITE,
    [URING_FSYNC] = IORING_OP_FSYNC, [URING_POLL] = IORING_OP_POLL_ADD, [URING_CANCEL] = IORING_OP_ASYNC_CANCEL,
};

int uring_start(struct uring *uring, const struct uring_memory *memory, uint32_t n_slots, uring_enter *enter)
{
    pair_watch_forks();
    uring->forks = pair_forks;
    uring->owner = this_thread();
    uring->slots = calloc(n_slots, sizeof *uring->slots);
    uring->order = calloc(memory->sq_entries, sizeof *uring->order);
    if (!uring->slots || !uring->order)
        return -ENOMEM;
    uring->memory = *memory;
    uring->enter = enter;
    uring->n_slots = uring->n_free = n_slots;
    uring->sq_head = atomic_load_explicit(memory->sq_head, memory_order_relaxed);
    uring->sq_tail = uring->sq_published = uring->sq_head;
    uring->cq_head = atomic_load_explicit(memory->cq_head, memory_order_relaxed);
    for (uint32_t i = 0; i < n_slots; i++)
        uring->slots[i] = (struct uring_slot){.generation = 1, .next_free = i + 1 < n_slots ? i + 1 : NO_SLOT};
    return 0;
}

bool uring_is_owner(const struct uring *uring)
{
    return uring->forks == pair_forks && uring->owner == this_thread();
}

int uring_check(const struct uring *uring)
{
    if (uring->forks != pair_forks)
        return -ESTALE;
    if (!uring->enter)
        return -EBADF;
    if (!uring_is_owner(uring))
        return -EEXIST;
    return uring->broken ? -EPROTO : 0;
}

void uring_free_slot(struct uring *uring, uint32_t number)
{
    struct uring_slot *slot = &uring->slots[number];

    slot->state = SLOT_FREE;
    if (++slot->generation == 0) /* so that no token is ever 0 */
        slot->generation = 1;
    slot->next_free = uring->first_free;
    uring->first_free = number;
    uring->n_free++;
}

static uint32_t sq_room(const struct uring *uring)
{
    uint32_t head = uring->sq_head;

    /* Its thread takes them whenever it likes. PAIRS WITH the kernel's release of the head after it has read an SQE. */
    if (uring->setup_flags & IORING_SETUP_SQPOLL)
        head = atomic_load_explicit(uring->memory.sq_head, memory_order_acquire);
    return uring->memory.sq_entries - (uring->sq_tail - head);
}

uint32_t uring_queued(const struct uring *uring)
{
    uint32_t from = uring->setup_flags & IORING_SETUP_SQPOLL ? uring->sq_published : uring->sq_head;

    return uring->sq_tail - from;
}

uint32_t uring_room(const struct uring *uring)
{
    uint32_t places = sq_room(uring);

    return places < uring->n_free ? places : uring->n_free;
}

static bool is_request(const struct uring_request *request)
{
    switch (request->kind) {
    case URING_READ:
    case URING_WRITE:
        return request->fd >= 0 && request->length <= MAX_TRANSFER_BYTES && request->offset >= -1;
    case URING_FSYNC:
        return request->fd >= 0;
    case URING_POLL:
        return request->fd >= 0 && request->events <= UINT16_MAX;
    case URING_NOP:
    case URING_CANCEL:
        return true;
    default:
        return false;
    }
}

static void fill(struct io_uring_sqe *sqe, const struct uring_request *request)
{
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcodes[request->kind];
    sqe->flags = (uint8_t)((request->link ? IOSQE_IO_LINK : 0) | (request->punt ? IOSQE_ASYNC : 0));
    sqe->fd = request->fd;
    switch (request->kind) {
    case URING_READ:
    case URING_WRITE:
        sqe->addr = (uint64_t)(uintptr_t)request->buffer;
        sqe->len = (uint32_t)request->length;
        sqe->off = (uint64_t)request->offset;
        break;
    case URING_FSYNC:
        sqe->fsync_flags = request->data_only ? IORING_FSYNC_DATASYNC : 0;
        break;
    case URING_POLL:
        sqe->poll_events = (uint16_t)request->events; /* the low half, in either order of bytes */
        break;
    case URING_CANCEL:
        sqe->addr = request->target;
        break;
    default:
        break;
    }
    if (request->kind == URING_NOP || request->kind == URING_CANCEL)
        sqe->fd = -1;
}

struct io_uring_sqe *uring_push(struct uring *uring, uint32_t slot)
{
    uint32_t place = uring->sq_tail & (uring->memory.sq_entries - 1);

    if (sq_room(uring) == 0)
        return NULL;
    uring->sq_tail++;
    uring->order[place] = slot;
    return &uring->memory.sqes[place];
}

int uring_queue(struct uring *uring, const struct uring_request *request, uint64_t *token)
{
    int error = uring_check(uring);
    struct io_uring_sqe *sqe;
    struct uring_slot *slot;
    uint32_t number;

    if (error)
        return error;
    if (!is_request(request))
        return -EINVAL;
    number = uring->first_free;
    sqe = number == NO_SLOT ? NULL : uring_push(uring, number);
    if (!sqe)
        return -EAGAIN;
    slot = &uring->slots[number];
    uring->first_free = slot->next_free;
    uring->n_free--;
    slot->length = (uint32_t)request->length;
    slot->kind = (uint8_t)request->kind;
    slot->state = SLOT_QUEUED;
    slot->link = request->link;
    slot->severed = false;
    uring->chain_open = request->link;
    *token = (uint64_t)slot->generation << 32 | number;
    fill(sqe, request);
    sqe->user_data = *token;
    return 0;
}

/* The kernel has those up to there: false when that can't be. */
static bool note_taken(struct uring *uring, uint32_t head)
{
    if (head - uring->sq_head > uring->sq_published - uring->sq_head) {
        uring->broken = true;
        return false;
    }
    for (; uring->sq_head != head; uring->sq_head++) {
        uint32_t number = uring->order[uring->sq_head & (uring->memory.sq_entries - 1)];

        uring->counts.submitted[URING_DOORBELL] += number == DOORBELL_SLOT;
        if (!uring_is_slot(number))
            continue;
        uring->slots[number].state = SLOT_IN_FLIGHT;
        uring->counts.submitted[uring->slots[number].kind]++;
        uring->n_in_flight++;
    }
    return true;
}

/*
 * The kernel took a part of what was queued, and the cut went through a chain: what it has not taken would start as if
 * nothing had gone before. So it does nothing, and is told as cancelled.
 */
static void sever(struct uring *uring)
{
    uint32_t mask = uring->memory.sq_entries - 1, place = uring->sq_head, number = uring->order[(place - 1) & mask];

    for (; uring_is_slot(number) && uring->slots[number].link && place != uring->sq_tail; place++) {
        struct io_uring_sqe *sqe = &uring->memory.sqes[place & mask];
        uint64_t token = sqe->user_data;

        number = uring->order[place & mask];
        memset(sqe, 0, sizeof *sqe);
        sqe->opcode = IORING_OP_NOP;
        sqe->fd = -1;
        sqe->user_data = token;
        if (uring_is_slot(number)) /* any completion of a doorbell is its failure */
            uring->slots[number].severed = true;
    }
}

static void publish(struct uring *uring)
{
    uring->sq_published = uring->sq_tail;
    uring->chain_open = false;
    /* PAIRS WITH the kernel's acquire of the tail, before it reads the SQEs. */
    atomic_store_explicit(uring->memory.sq_tail, uring->sq_tail, memory_order_release);
}

int uring_call(struct uring *uring, uint32_t to_submit, uint32_t flags)
{
    int result = uring->enter(uring, to_submit, flags);

    uring->counts.enters++;
    if (result == -EBADR) /* the kernel says so once */
        uring->counts.lost = atomic_load_explicit(uring->memory.cq_overflow, memory_order_relaxed);
    return result;
}

static int submit_to_thread(struct uring *uring)
{
    uint32_t n = uring_queued(uring);
    int error;

    publish(uring);
    note_taken(uring, uring->sq_published); /* from now on they may complete */
    /* The thread says that it sleeps, then looks at the tail once more; we store the tail, then look whether it sleeps.
     */
    ordering_full_fence();
    if (!(atomic_load_explicit(uring->memory.sq_flags, memory_order_relaxed) & IORING_SQ_NEED_WAKEUP))
        return (int)n;
    error = uring_call(uring, n, IORING_ENTER_SQ_WAKEUP);
    return error < 0 ? error : (int)n;
}

int uring_submit(struct uring *uring)
{
    int error = uring_check(uring), taken = 0, interrupted = 0;

    if (error)
        return error;
    if (uring->setup_flags & IORING_SETUP_SQPOLL)
        return submit_to_thread(uring);
    publish(uring);
    while (uring->sq_head != uring->sq_tail) {
        uint32_t before = uring->sq_head;
        int result = uring_call(uring, uring->sq_tail - before, 0);

        /* What it says matters less than what it took. PAIRS WITH the kernel's release of the head. */
        if (!note_taken(uring, atomic_load_explicit(uring->memory.sq_head, memory_order_acquire)))
            return -EPROTO;
        taken += (int)(uring->sq_head - before);
        if (uring->sq_head != before) {
            sever(uring);
            continue;
        }
        if (result == -EINTR && ++interrupted < MAX_INTERRUPTIONS)
            continue;
        if (taken)
            break;
        return result < 0 ? result : -EAGAIN;
    }
    return taken;
}

/* What the request of that slot may have as its result. */
static int32_t checked(struct uring *uring, const struct uring_slot *slot, int32_t result)
{
    bool moves = slot->kind == URING_READ || slot->kind == URING_WRITE;

    if (slot->severed)
        return -ECANCELED;
    if (result <= 0 || slot->kind == URING_POLL || (moves && (uint32_t)result <= slot->length))
        return result;
    if (slot->kind == URING_CANCEL) /* how many it cancelled, by some kernels */
        return 0;
    uring->counts.unexpected++;
    return -EPROTO;
}

static bool take_one(struct uring *uring, const struct io_uring_cqe *cqe, struct uring_completion *completion)
{
    uint32_t number = uring_slot_of(cqe->user_data);
    struct uring_slot *slot;

    if (cqe->user_data == CLOSING)
        return false;
    if (cqe->user_data == DOORBELL) {
        uring_note_doorbell(uring, cqe);
        return false;
    }
    if (number >= uring->n_slots || uring->slots[number].state != SLOT_IN_FLIGHT ||
        uring->slots[number].generation != cqe->user_data >> 32 || (cqe->flags & IORING_CQE_F_MORE)) {
        uring->counts.unexpected++;
        return false;
    }
    slot = &uring->slots[number];
    *completion = (struct uring_completion){
        .token = cqe->user_data, .result = checked(uring, slot, cqe->res), .kind = (enum uring_kind)slot->kind};
    uring->counts.completed[slot->kind]++;
    uring->counts.failed[slot->kind] += completion->result < 0;
    uring->n_in_flight--;
    uring_free_slot(uring, number);
    return true;
}

static uint32_t take(struct uring *uring, struct uring_completion *completions, uint32_t max)
{
    struct uring_memory *memory = &uring->memory;
    /* PAIRS WITH the kernel's release of the tail, after it has written the CQEs. */
    uint32_t tail = atomic_load_explicit(memory->cq_tail, memory_order_acquire), n = 0;

    if (tail - uring->cq_head > memory->cq_entries) {
        uring->broken = true;
        return 0;
    }
    while (uring->cq_head != tail && n < max) {
        struct io_uring_cqe cqe;

        memcpy(&cqe, &memory->cqes[uring->cq_head++ & (memory->cq_entries - 1)], sizeof cqe);
        n += take_one(uring, &cqe, &completions[n]);
    }
    /* PAIRS WITH the kernel's acquire of the head, before it writes there again. */
    atomic_store_explicit(memory->cq_head, uring->cq_head, memory_order_release);
    return n;
}

/*
 * Whether the kernel has more for us that it shows only to a call: completions beyond the end of the ring, and those
 * that it leaves to us to finish. It says so by a flag; an empty ring is asked once all the same.
 */
static bool has_more(const struct uring *uring, bool asked, uint32_t n)
{
    uint32_t flags = atomic_load_explicit(uring->memory.sq_flags, memory_order_relaxed);

    if (flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN))
        return true;
    return !asked && n == 0 && uring->n_in_flight > 0 && (uring->setup_flags & IORING_SETUP_DEFER_TASKRUN);
}

int uring_reap(struct uring *uring, struct uring_completion *completions, uint32_t max)
{
    int error = uring_check(uring);
    bool asked = false;
    uint32_t n;

    if (error)
        return error;
    n = take(uring, completions, max);
    while (n < max && !uring->broken && has_more(uring, asked, n)) {
        uint32_t before = uring->cq_head;

        asked = true;
        error = uring_call(uring, 0, IORING_ENTER_GETEVENTS);
        n += take(uring, completions + n, max - n);
        if (uring->cq_head == before)
            break;
        error = 0;
    }
    if (n > 0)
        return (int)n;
    if (uring->broken)
        return -EPROTO;
    /* No memory now, a signal, or told by `lost`: the descriptor stays readable. */
    return error == -EINTR || error == -EAGAIN || error == -EBUSY || error == -EBADR || error > 0 ? 0 : error;
}
