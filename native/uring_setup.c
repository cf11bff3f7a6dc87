/* Opening an engine: what this kernel grants is found by trying, never by its version. */
#define _GNU_SOURCE
#include "uring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pair.h"
#include "uring_abi.h"

#define NEEDED_FEATURES (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS)
/* How long the kernel's thread looks before it sleeps. 0 would not be never, but a second. */
#define SQPOLL_IDLE_MS 20

static const uint8_t opcodes[] = {
    IORING_OP_NOP, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL,
};

enum { N_OPCODES = sizeof opcodes };

/* Each step gives up what the kernels before a version do not know, the newest first. */
static const struct step {
    uint32_t without;
    uint32_t instead;
} steps[] = {
    {0, 0},
    {IORING_SETUP_NO_SQARRAY, 0},
    {IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_COOP_TASKRUN},
    {IORING_SETUP_SINGLE_ISSUER, 0},
    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0},
    {IORING_SETUP_SUBMIT_ALL, 0},
    {IORING_SETUP_R_DISABLED, 0},
};

/*
 * DEFER_TASKRUN is for who never sleeps on the descriptor: there poll(2) and epoll say that it is readable when they
 * are called, but who sleeps in them already is not woken (Linux 6.18: a read of a pipe, anything of the kernel's
 * threads). COOP_TASKRUN spares the interrupts just so, and wakes.
 */
static uint32_t wanted_flags(const struct uring_shape *shape)
{
    uint32_t flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL |
                     IORING_SETUP_R_DISABLED | IORING_SETUP_NO_SQARRAY;

    if (shape->sqpoll_cpu >= 0)
        return flags | IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF;
    return flags | IORING_SETUP_TASKRUN_FLAG | (shape->defer ? IORING_SETUP_DEFER_TASKRUN : IORING_SETUP_COOP_TASKRUN);
}

static int set_up(struct io_uring_params *params, const struct uring_shape *shape)
{
    uint32_t flags = wanted_flags(shape);
    long fd = -1;

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        /* Where the kernel's thread does the work there is none of ours to defer. */
        if (i > 0 && !(flags & steps[i].without))
            continue;
        flags = (flags & ~steps[i].without) | steps[i].instead;
        memset(params, 0, sizeof *params);
        params->flags = flags;
        params->cq_entries = shape->completions ? shape->completions : 2 * shape->entries;
        if (flags & IORING_SETUP_SQPOLL) {
            params->sq_thread_cpu = (uint32_t)shape->sqpoll_cpu;
            params->sq_thread_idle = SQPOLL_IDLE_MS;
        }
        fd = syscall(__NR_io_uring_setup, shape->entries, params); /* its descriptor is close-on-exec by itself */
        if (fd >= 0)
            return (int)fd;
        if (errno != EINVAL)
            return -errno;
    }
    return -EINVAL;
}

static int register_with(int fd, unsigned opcode, void *argument, unsigned n)
{
    long result = syscall(__NR_io_uring_register, fd, opcode, argument, n);

    return result < 0 ? -errno : (int)result;
}

static int check_opcodes(int fd)
{
    union {
        struct io_uring_probe probe;
        uint8_t room[sizeof(struct io_uring_probe) + 64 * sizeof(struct io_uring_probe_op)];
    } answer;
    int error;

    memset(&answer, 0, sizeof answer);
    error = register_with(fd, IORING_REGISTER_PROBE, &answer, 64);
    if (error)
        return error == -EINVAL ? -EOPNOTSUPP : error;
    for (size_t i = 0; i < N_OPCODES; i++)
        if (opcodes[i] > answer.probe.last_op || !(answer.probe.ops[opcodes[i]].flags & IO_URING_OP_SUPPORTED))
            return -EOPNOTSUPP;
    return 0;
}

/* Its owner's calls need not look the descriptor up: 60 ns of 800. A thread has 16 places for that. */
static void register_itself(struct uring *uring)
{
    struct io_uring_rsrc_update place = {.offset = UINT32_MAX, .data = (uint32_t)uring->fd};

    if (register_with(uring->fd, REGISTER_RING_FDS, &place, 1) != 1)
        return;
    uring->enter_fd = (int)place.offset;
    uring->enter_flags = IORING_ENTER_REGISTERED_RING;
}

/* Or the ring would outlive its descriptor until the thread ends, as it does where another thread closes it. */
static void unregister_itself(struct uring *uring)
{
    struct io_uring_rsrc_update place = {.offset = (uint32_t)uring->enter_fd};

    if (uring->enter_flags && uring_is_owner(uring))
        register_with(uring->fd, UNREGISTER_RING_FDS, &place, 1);
    uring->enter_flags = 0;
}

/* From here on the ring does what the engine does and nothing else, whoever writes to its memory. */
static int restrict_and_enable(struct uring *uring)
{
    struct io_uring_restriction allowed[N_OPCODES + 2];
    unsigned n;

    if (!(uring->setup_flags & IORING_SETUP_R_DISABLED))
        return 0;
    memset(allowed, 0, sizeof allowed);
    for (size_t i = 0; i < N_OPCODES; i++) {
        allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
        allowed[i].sqe_op = opcodes[i];
    }
    allowed[N_OPCODES].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    allowed[N_OPCODES].sqe_flags = IOSQE_IO_LINK | IOSQE_ASYNC | (uring->skips ? IOSQE_CQE_SKIP_SUCCESS : 0);
    n = N_OPCODES + 1;
    if (uring->enter_flags) {
        allowed[n].opcode = IORING_RESTRICTION_REGISTER_OP;
        allowed[n++].register_op = UNREGISTER_RING_FDS;
    }
    uring->restricted = register_with(uring->fd, IORING_REGISTER_RESTRICTIONS, allowed, n) == 0;
    return register_with(uring->fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static int map(struct uring *uring, int which, size_t bytes, uint64_t place)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring->fd, (off_t)place);

    if (memory == MAP_FAILED)
        return -errno;
    uring->maps[which] = memory;
    uring->map_bytes[which] = bytes;
    /* Two processes that advance the same tail would submit each other's requests. */
    return madvise(memory, bytes, MADV_DONTFORK) < 0 ? -errno : 0;
}

static _Atomic uint32_t *word(void *ring, uint32_t offset)
{
    return (_Atomic uint32_t *)(void *)((uint8_t *)ring + offset);
}

static int map_rings(struct uring *uring, const struct io_uring_params *params, struct uring_memory *memory)
{
    size_t sq_bytes = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
    size_t cq_bytes = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    int error = map(uring, 0, sq_bytes > cq_bytes ? sq_bytes : cq_bytes, IORING_OFF_SQ_RING);
    uint8_t *ring = uring->maps[0];

    if (!error)
        error = map(uring, 1, params->sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    if (error)
        return error;
    *memory = (struct uring_memory){
        .sq_head = word(ring, params->sq_off.head),
        .sq_tail = word(ring, params->sq_off.tail),
        .sq_flags = word(ring, params->sq_off.flags),
        .cq_head = word(ring, params->cq_off.head),
        .cq_tail = word(ring, params->cq_off.tail),
        .cq_overflow = word(ring, params->cq_off.overflow),
        .sqes = uring->maps[1],
        .cqes = (const struct io_uring_cqe *)(const void *)(ring + params->cq_off.cqes),
        .sq_entries = params->sq_entries,
        .cq_entries = params->cq_entries,
    };
    if (!(params->flags & IORING_SETUP_NO_SQARRAY)) /* SQE n lies at place n, always */
        for (uint32_t i = 0; i < params->sq_entries; i++)
            atomic_store_explicit(word(ring, params->sq_off.array + 4 * i), i, memory_order_relaxed);
    return 0;
}

static int enter(struct uring *uring, uint32_t to_submit, uint32_t flags)
{
    long result = syscall(__NR_io_uring_enter, uring->enter_fd, to_submit, 0, flags | uring->enter_flags, NULL, 0);

    return result < 0 ? -errno : (int)result;
}

static bool is_shape(const struct uring_shape *shape)
{
    return shape->entries > 0 && shape->entries <= URING_MAX_ENTRIES && shape->completions <= 2 * URING_MAX_ENTRIES &&
           shape->in_flight <= 2 * URING_MAX_ENTRIES;
}

int uring_open(struct uring *uring, const struct uring_shape *shape)
{
    struct io_uring_params params;
    struct uring_memory memory;
    int error, fd;

    *uring = (struct uring){.fd = -1, .forks = pair_forks};
    if (!is_shape(shape))
        return -EINVAL;
    fd = set_up(&params, shape);
    if (fd < 0)
        return fd;
    uring->fd = uring->enter_fd = fd;
    uring->setup_flags = params.flags;
    uring->skips = params.features & IORING_FEAT_CQE_SKIP;
    error = (params.features & NEEDED_FEATURES) == NEEDED_FEATURES ? 0 : -EOPNOTSUPP;
    if (!error)
        error = check_opcodes(uring->fd);
    if (!error)
        error = map_rings(uring, &params, &memory);
    if (!error)
        error = uring_start(uring, &memory, shape->in_flight ? shape->in_flight : params.cq_entries, enter);
    if (!error) {
        register_itself(uring); /* which a restricted one refuses */
        error = restrict_and_enable(uring);
    }
    if (error)
        uring_close(uring);
    return error;
}

const char *uring_refusal(int error)
{
    switch (-error) {
    case EPERM:
    case EACCES:
        return "io_uring is forbidden here: by kernel.io_uring_disabled, or by a sandbox such as a container's";
    case ENOSYS:
        return "there is no io_uring: this kernel has none, or a sandbox hides it";
    case EOPNOTSUPP:
        return "the io_uring of this kernel is too old for the engine";
    case ENOMEM:
        return "no memory for an io_uring: the rings of all processes of a user count against RLIMIT_MEMLOCK";
    case EMFILE:
    case ENFILE:
        return "no file descriptor left for an io_uring";
    case EINVAL:
        return "no io_uring of that size, or on that core";
    default:
        return strerror(-error);
    }
}

void uring_close(struct uring *uring)
{
    for (int i = 0; i < 2; i++) {
        /* A child has no such mapping, and may have another in its place. */
        if (uring->maps[i] && uring->forks == pair_forks)
            munmap(uring->maps[i], uring->map_bytes[i]);
        uring->maps[i] = NULL;
    }
    if (uring->fd >= 0) {
        unregister_itself(uring);
        close(uring->fd);
    }
    uring->fd = -1;
    free(uring->slots);
    free(uring->order);
    uring->slots = NULL;
    uring->order = NULL;
    uring->enter = NULL;
}
