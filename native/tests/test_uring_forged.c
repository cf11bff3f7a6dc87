/* The engine's accounting against a kernel that is made up: what it takes, refuses and says is random, and some is
 * lies. */
#include <errno.h>
#include <string.h>

#include "../uring_abi.h"
#include "../uring_slots.h"
#include "check.h"

enum { ENTRIES = 16, COMPLETIONS = 32, SLOTS = 48, STEPS = 200000 };

/* Its words, and what it holds: tokens that it has taken and not completed. */
static struct {
    _Atomic uint32_t sq_head, sq_tail, sq_flags, cq_head, cq_tail, cq_overflow;
    struct io_uring_sqe sqes[ENTRIES];
    struct io_uring_cqe cqes[COMPLETIONS];
    struct io_uring_sqe held[SLOTS];
    uint32_t n_held;
    bool honest;
} kernel;

static uint64_t state = 88172645463325252u;
/* What was queued and not yet told: by slot, the token, and the kernel's true answer once there is one. */
static uint64_t wanted[SLOTS];
static int32_t answers[SLOTS];
static bool answered[SLOTS];
static uint64_t lies, told;
/* Doorbells that the kernel took, and those that it says have failed. */
static uint64_t doorbells, dumb;

static uint32_t any(uint32_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

static bool say(uint64_t token, int32_t result, uint32_t flags)
{
    uint32_t tail = atomic_load(&kernel.cq_tail);

    if (tail - atomic_load(&kernel.cq_head) == COMPLETIONS)
        return false;
    kernel.cqes[tail % COMPLETIONS] = (struct io_uring_cqe){.user_data = token, .res = result, .flags = flags};
    atomic_store(&kernel.cq_tail, tail + 1);
    return true;
}

static void complete_one(void)
{
    uint32_t which = any(kernel.n_held), slot;
    struct io_uring_sqe sqe = kernel.held[which];
    int32_t result = -(int32_t)any(40);

    if (result == 0 && (sqe.opcode == IORING_OP_READ || sqe.opcode == IORING_OP_WRITE))
        result = (int32_t)any(sqe.len + 1);
    if (!say(sqe.user_data, result, 0))
        return;
    kernel.held[which] = kernel.held[--kernel.n_held];
    slot = uring_slot_of(sqe.user_data);
    CHECK(slot < SLOTS && wanted[slot] == sqe.user_data && !answered[slot]);
    answers[slot] = result;
    answered[slot] = true;
}

/* A completion of nothing that is under way. */
static void lie(void)
{
    uint32_t slot = any(SLOTS);
    uint64_t token = wanted[slot];

    if (token == 0)
        return;
    switch (any(5)) {
    case 0:
        token = (uint64_t)any(1 << 30) << 32 | (SLOTS + any(1 << 20)); /* no slot */
        break;
    case 1:
        token += UINT64_C(1) << 62; /* a use that is still to come */
        break;
    case 2:
        token -= UINT64_C(1) << 32; /* one that is over */
        break;
    case 3:
        token = (uint64_t)any(UINT32_MAX) << 8 | UINT64_C(0x7fff) << 48; /* a pointer, say */
        break;
    default:
        if (!answered[slot])
            return;
        break; /* the same again */
    }
    lies += say(token, (int32_t)any(1000) - 500, 0);
}

static int enter(struct uring *uring, uint32_t to_submit, uint32_t flags)
{
    uint32_t head = atomic_load(&kernel.sq_head), n = atomic_load(&kernel.sq_tail) - head;

    CHECK(uring->fd == -1 && n <= ENTRIES && (to_submit == n || flags));
    for (uint32_t i = any(3); i > 0 && kernel.n_held > 0; i--)
        complete_one();
    if (!kernel.honest && any(4) == 0)
        lie();
    if (!to_submit)
        return 0;
    if (any(4) == 0)
        return any(2) ? -EINTR : any(2) ? -EAGAIN : -EBUSY;
    if (!kernel.honest && any(2))
        n = any(n + 1); /* some of them */
    for (uint32_t i = 0; i < n; i++, head++) {
        if (kernel.sqes[head % ENTRIES].user_data == CLOSING) {
            say(CLOSING, 0, 0);
            continue;
        }
        if (kernel.sqes[head % ENTRIES].user_data == DOORBELL) {
            bool is_cut_off = kernel.sqes[head % ENTRIES].opcode == IORING_OP_NOP;

            CHECK(is_cut_off || kernel.sqes[head % ENTRIES].flags == IOSQE_CQE_SKIP_SUCCESS);
            doorbells++;
            if (is_cut_off || any(4) == 0)
                dumb += say(DOORBELL, is_cut_off ? 0 : -EBADF, 0);
            continue;
        }
        CHECK(kernel.n_held < SLOTS);
        kernel.held[kernel.n_held++] = kernel.sqes[head % ENTRIES];
    }
    atomic_store(&kernel.sq_head, head);
    return any(8) ? (int)n : -EINTR; /* which is no reason to believe that it took none */
}

static struct uring start(uint32_t position)
{
    struct uring_memory memory = {
        .sq_head = &kernel.sq_head,
        .sq_tail = &kernel.sq_tail,
        .sq_flags = &kernel.sq_flags,
        .cq_head = &kernel.cq_head,
        .cq_tail = &kernel.cq_tail,
        .cq_overflow = &kernel.cq_overflow,
        .sqes = kernel.sqes,
        .cqes = kernel.cqes,
        .sq_entries = ENTRIES,
        .cq_entries = COMPLETIONS,
    };
    struct uring uring = {.fd = -1};

    memset(&kernel, 0, sizeof kernel);
    memset(wanted, 0, sizeof wanted);
    memset(answered, 0, sizeof answered);
    kernel.sq_head = kernel.sq_tail = kernel.cq_head = kernel.cq_tail = position;
    CHECK(uring_start(&uring, &memory, SLOTS, enter) == 0);
    return uring;
}

static void expect(const struct uring_completion *completion, bool stopped)
{
    uint32_t slot = uring_slot_of(completion->token);

    CHECK(slot < SLOTS && wanted[slot] == completion->token); /* so it was told once */
    if (answered[slot])
        CHECK(completion->result == answers[slot] || completion->result == -ECANCELED);
    else
        CHECK(stopped && completion->result == -ECANCELED);
    wanted[slot] = 0;
    answered[slot] = false;
    told++;
}

static void ring_any(struct uring *uring)
{
    static const int bells[3] = {5, 6, 7};
    uint32_t queued = uring_queued(uring), room = ENTRIES - queued, n = any(4), rang;

    if (any(2)) {
        CHECK(uring_queue_doorbell(uring, 5) == (room ? 0 : -EAGAIN));
        return;
    }
    rang = uring_ring(uring, bells, n);
    CHECK(rang <= n && rang <= room);
    CHECK(rang == 0 || uring_queued(uring) == 0); /* they are the last */
    CHECK(uring_queued(uring) <= queued);
}

static void queue_any(struct uring *uring)
{
    static char buffer[64];
    struct uring_request request = {
        .kind = (enum uring_kind)any(URING_DOORBELL), .buffer = buffer, .length = any(64), .link = any(4) == 0};
    uint64_t token;
    uint32_t room = uring_room(uring);
    int error = uring_queue(uring, &request, &token);

    CHECK(error == (room ? 0 : -EAGAIN));
    if (error)
        return;
    CHECK(wanted[uring_slot_of(token)] == 0);
    wanted[uring_slot_of(token)] = token;
}

static uint32_t count_wanted(void)
{
    uint32_t n = 0;

    for (int i = 0; i < SLOTS; i++)
        n += wanted[i] != 0;
    return n;
}

static uint32_t queued_doorbells(const struct uring *uring)
{
    uint32_t n = 0;

    for (uint32_t place = uring->sq_head; place != uring->sq_tail; place++)
        n += uring->order[place % ENTRIES] == DOORBELL_SLOT;
    return n;
}

static void test_random_completions(uint32_t position)
{
    struct uring uring = start(position);
    struct uring_completion completions[SLOTS];
    uint64_t queued = 0;
    uint32_t n;

    lies = told = doorbells = dumb = 0;
    uring.skips = true;
    for (int step = 0; step < STEPS; step++) {
        int result = 0;

        switch (any(5)) {
        case 0:
            result = uring_submit(&uring);
            CHECK(result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR);
            break;
        case 1:
            atomic_store(&kernel.sq_flags, any(3) ? 0 : IORING_SQ_CQ_OVERFLOW);
            result = uring_reap(&uring, completions, any(SLOTS + 1));
            CHECK(result >= 0);
            for (int i = 0; i < result; i++)
                expect(&completions[i], false);
            break;
        case 2:
            ring_any(&uring);
            break;
        default:
            queue_any(&uring);
        }
        CHECK(count_wanted() + queued_doorbells(&uring) == uring.n_in_flight + uring_queued(&uring));
    }
    kernel.honest = true;
    queued = count_wanted();
    CHECK(uring_stop(&uring, 20000, completions, &n) == 0 && n == queued);
    for (uint32_t i = 0; i < n; i++)
        expect(&completions[i], true);
    CHECK(count_wanted() == 0 && uring.n_in_flight == 0 && lies > 0);
    CHECK(uring.counts.unexpected == lies && told > STEPS / 4);
    CHECK(uring.counts.submitted[URING_DOORBELL] == doorbells && doorbells > STEPS / 16);
    CHECK(uring.counts.failed[URING_DOORBELL] == dumb && uring.counts.completed[URING_DOORBELL] == dumb && dumb > 0);
    uring_close(&uring);
}

/* A cut through a chain: what is left of it is told as cancelled, and does nothing. */
static int take_one_at_first(struct uring *uring, uint32_t to_submit, uint32_t flags)
{
    uint32_t head = atomic_load(&kernel.sq_head), n = head == 0 ? 1 : to_submit;

    (void)flags;
    (void)uring;
    for (uint32_t i = 0; i < n; i++)
        CHECK(kernel.sqes[head + i].opcode == (head + i == 0 || head + i == 3 ? IORING_OP_WRITE : IORING_OP_NOP));
    for (uint32_t i = 0; i < n; i++)
        CHECK(say(kernel.sqes[head + i].user_data, kernel.sqes[head + i].opcode == IORING_OP_NOP ? 0 : 1, 0));
    atomic_store(&kernel.sq_head, head + n);
    return (int)n;
}

static void test_cut_chain(void)
{
    struct uring uring = start(0);
    struct uring_completion completions[4];
    char byte = 0;

    uring.enter = take_one_at_first;
    for (int i = 0; i < 4; i++) {
        struct uring_request request = {.kind = URING_WRITE, .buffer = &byte, .length = 1, .link = i < 2};
        uint64_t token;

        CHECK(uring_queue(&uring, &request, &token) == 0);
    }
    CHECK(uring_submit(&uring) == 4 && uring_reap(&uring, completions, 4) == 4);
    CHECK(completions[0].result == 1 && completions[3].result == 1);
    CHECK(completions[1].result == -ECANCELED && completions[2].result == -ECANCELED);
    uring_close(&uring);
}

/* More than was asked for; more to come of what is told once; more than the ring holds; more than was queued. */
static void test_impossible(void)
{
    struct uring uring = start(0);
    struct uring_completion completion;
    struct uring_request request = {.kind = URING_READ, .buffer = &completion, .length = 4};
    uint64_t token;

    CHECK(uring_queue(&uring, &request, &token) == 0);
    uring.enter = take_one_at_first;
    kernel.sqes[0].opcode = IORING_OP_WRITE;
    CHECK(uring_submit(&uring) == 1 && uring_reap(&uring, &completion, 1) == 1);
    CHECK(uring_queue(&uring, &request, &token) == 0);
    CHECK(uring.slots[0].state == SLOT_QUEUED);
    CHECK(say(token, 4, 0) && uring_reap(&uring, &completion, 1) == 0); /* it was not submitted */
    atomic_store(&kernel.sq_head, 2);
    uring.slots[0].state = SLOT_IN_FLIGHT;
    CHECK(say(token, 4, IORING_CQE_F_MORE) && uring_reap(&uring, &completion, 1) == 0);
    CHECK(say(token, 5, 0) && uring_reap(&uring, &completion, 1) == 1 && completion.result == -EPROTO);
    CHECK(uring.counts.unexpected == 3);
    atomic_store(&kernel.cq_tail, atomic_load(&kernel.cq_head) + COMPLETIONS + 1);
    CHECK(uring_reap(&uring, &completion, 1) == -EPROTO && uring_submit(&uring) == -EPROTO);
    uring_close(&uring);
    uring = start(0);
    CHECK(say(DOORBELL, -EBADF, 0) && uring_reap(&uring, &completion, 1) == 0); /* none was rung */
    CHECK(uring.counts.unexpected == 1 && uring.counts.failed[URING_DOORBELL] == 0);
    uring_close(&uring);
    uring = start(0);
    atomic_store(&kernel.sq_head, 1);
    CHECK(uring_queue(&uring, &request, &token) == 0);
    uring.enter = take_one_at_first;
    atomic_store(&kernel.sq_head, 5);
    kernel.sqes[5].opcode = IORING_OP_NOP;
    CHECK(uring_submit(&uring) == -EPROTO && uring_check(&uring) == -EPROTO);
    uring_close(&uring);
}

int main(void)
{
    test_random_completions(0);
    test_random_completions(UINT32_MAX - 1000);
    test_cut_chain();
    test_impossible();
    return EXIT_SUCCESS;
}
