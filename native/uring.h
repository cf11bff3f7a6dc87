/*
 * An io_uring engine over the raw system calls: requests are queued, leave together in one system call, and each one's
 * completion is told exactly once.
 *
 * What the kernel hands back is not believed: a completion names its request by a token, which is the number of a slot
 * in private memory and how often that slot was used (never a pointer); what fits no request under way is counted and
 * passed over. The table of slots is bounded, and full is a value.
 *
 * An engine belongs to the thread that opened it: another's call is -EEXIST. A child process has none of its memory,
 * and every call there is -ESTALE. Buffers must live until their completion was told, or uring_stop() has said so.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef AGENTD_URING_H
#define AGENTD_URING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_uring_sqe;
struct io_uring_cqe;

enum { URING_MAX_ENTRIES = 4096 };

/* A doorbell is no request: it has no token, and only its failure is told, by a count. See uring_ring(). */
enum uring_kind {
    URING_NOP,
    URING_READ,
    URING_WRITE,
    URING_FSYNC,
    URING_POLL,
    URING_CANCEL,
    URING_DOORBELL,
    URING_N_KINDS,
};

struct uring_shape {
    uint32_t entries;     /* how many can be queued for one submission; rounded up to a power of two */
    uint32_t completions; /* how many completions wait in the ring; 0: twice as many */
    uint32_t in_flight;   /* how many requests may be under way; 0: as many as completions, so that none overflows */
    bool defer;           /* completions are finished in the caller's calls alone, and wake nobody: see uring_setup.c */
    int sqpoll_cpu; /* where a thread of the kernel takes what is submitted; -1: none, the caller's call does it */
};

struct uring_request {
    enum uring_kind kind;
    int fd;
    void *buffer; /* READ, WRITE */
    size_t length;
    int64_t offset;  /* READ, WRITE; -1: the file's own position, or it has none */
    uint64_t target; /* CANCEL: a token */
    uint32_t events; /* POLL: of poll(2) */
    bool data_only;  /* FSYNC: as fdatasync(2) */
    bool link;       /* the next one starts when this one has succeeded in full, else it is cancelled */
    bool punt;       /* by a thread of the kernel from the start: what would copy for long */
};

struct uring_completion {
    uint64_t token;
    int32_t result; /* as the system call's, or -errno */
    enum uring_kind kind;
};

struct uring_counts {
    uint64_t submitted[URING_N_KINDS];
    uint64_t completed[URING_N_KINDS];
    uint64_t failed[URING_N_KINDS]; /* of those completed, which of the doorbells are these alone */
    uint64_t unexpected;            /* completions of no request under way, or that say what can't be */
    uint64_t lost;                  /* that the kernel had no memory for */
    uint64_t enters;                /* system calls */
};

/* Where the ring's words lie: the kernel's mapping, or what a test made up. */
struct uring_memory {
    _Atomic uint32_t *sq_head, *sq_tail, *sq_flags;
    _Atomic uint32_t *cq_head, *cq_tail, *cq_overflow;
    struct io_uring_sqe *sqes;
    const struct io_uring_cqe *cqes;
    uint32_t sq_entries, cq_entries; /* powers of two */
};

struct uring_slot;
struct uring;

/* io_uring_enter(2), or what a test has in its place: how many SQEs were taken, or -errno. */
typedef int uring_enter(struct uring *uring, uint32_t to_submit, uint32_t flags);

struct uring {
    int fd;
    uint32_t setup_flags; /* what the kernel granted */
    bool restricted;      /* it accepts nothing but the kinds above */
    bool broken;          /* its memory is no ring any more */
    bool skips;           /* it can be asked to say nothing of what succeeds */
    bool chain_open;      /* what was queued last waits for its successor */
    int enter_fd;         /* for its owner's calls: the descriptor, or its number among those registered */
    uint32_t enter_flags;
    uint32_t forks;
    uint64_t owner;
    uring_enter *enter;
    struct uring_memory memory;
    uint32_t sq_head;      /* up to here they were taken */
    uint32_t sq_published; /* up to here the kernel may take them */
    uint32_t sq_tail;      /* up to here they are queued */
    uint32_t cq_head;
    uint32_t n_slots, n_in_flight, n_free, first_free;
    struct uring_slot *slots;
    uint32_t *order; /* the slots of the SQEs */
    struct uring_counts counts;
    void *maps[2];
    size_t map_bytes[2];
};

/*
 * Open one with as much of what is wanted as this kernel grants, found by trying. -EPERM, -EACCES: forbidden; -ENOSYS,
 * -EOPNOTSUPP: the kernel has none, or not enough of it; -ENOMEM: no memory that may be locked; -EINVAL: no such shape
 * or core; or as io_uring_setup(2). Nothing is left open then. uring_refusal() says it in words.
 */
int uring_open(struct uring *uring, const struct uring_shape *shape);
const char *uring_refusal(int error);

/* The end of opening, and all of it for a test: the engine over that memory. -ENOMEM. */
int uring_start(struct uring *uring, const struct uring_memory *memory, uint32_t n_slots, uring_enter *enter);

/* Whether the caller is the thread that opened it, in that process. */
bool uring_is_owner(const struct uring *uring);

/* 0, or why the caller can't use it: -ESTALE, -EBADF it is closed, -EEXIST another thread's, -EPROTO it is broken. */
int uring_check(const struct uring *uring);

/*
 * Queue a request, which leaves with the next submission: 0 and its token, never 0. -EAGAIN: no slot, or no place in
 * the queue; -EINVAL: no such request. What is linked must leave in one submission: see uring_room() before.
 */
int uring_queue(struct uring *uring, const struct uring_request *request, uint64_t *token);

/* How many can be queued now; how many are queued. */
uint32_t uring_room(const struct uring *uring);
uint32_t uring_queued(const struct uring *uring);

/*
 * Hand over what is queued: how many left, in one system call, or none at all where the kernel has a thread for it.
 * -EAGAIN, -EBUSY: the kernel took none for now, and they stay queued: reap, and submit again; or another -errno.
 */
int uring_submit(struct uring *uring);

/*
 * Ring the doorbells of others: eventfds that are EFD_NONBLOCK, in one submission, together with what is queued. How
 * many rang: the first so many, the rest is the caller's to ring by write(2). None where the engine can't be used, is
 * full, an open chain would take them for its successors, or no completion can be spared. Nothing of it stays queued,
 * and where the kernel has no thread they may be closed at once.
 */
uint32_t uring_ring(struct uring *uring, const int *bells, uint32_t n);

/*
 * Queue a doorbell as the end of a chain, where it rings when all before it has succeeded. -EAGAIN: no place;
 * -EOPNOTSUPP: no completion can be spared here; or as uring_check(). It must stay open until the chain has ended.
 */
int uring_queue_doorbell(struct uring *uring, int bell);

/*
 * Whether a doorbell that was rung may be closed, its number perhaps another file's soon: at once, where the kernel has
 * no thread; else when that has taken what was submitted, which is waited for a moment.
 */
bool uring_await_taken(struct uring *uring);

/* Whether the kernel has a thread that takes what is submitted; whether it has one that is asleep by now, so that a
 * submission would cost a system call that wakes it. False where the caller can't use the engine.
 */
bool uring_has_thread(const struct uring *uring);
bool uring_sleeps(const struct uring *uring);

/* Completions, at most so many: how many, or -errno. Never waits. The descriptor is readable when there are some. */
int uring_reap(struct uring *uring, struct uring_completion *completions, uint32_t max);

/*
 * The end of every request: what is queued does not leave, what is under way is cancelled and waited for. The
 * completions (n_slots of them at most) and, in `n`, how many. Returns how many are still under way after that time:
 * their buffers must never be freed; or -errno, and then it is all of them.
 */
int uring_stop(struct uring *uring, int timeout_ms, struct uring_completion *completions, uint32_t *n);

/* Whether a slot's buffer is still the kernel's. The slot is the token's low half. */
bool uring_holds(const struct uring *uring, uint32_t slot);

/* After uring_stop(). Any thread may, a child process too. Twice does no harm. */
void uring_close(struct uring *uring);

static inline uint32_t uring_slot_of(uint64_t token)
{
    return (uint32_t)token;
}

#endif
