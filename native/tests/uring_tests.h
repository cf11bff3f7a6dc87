/* What the tests of the engine on the kernel's own io_uring share. SPDX-License-Identifier: MIT */
#ifndef AGENTD_URING_TESTS_H
#define AGENTD_URING_TESTS_H

#include "../uring.h"

#include <errno.h>
#include <poll.h>

#include "../uring_abi.h"
#include "../uring_slots.h"
#include "check.h"

enum { MANY = 64 };

static const struct uring_shape usual = {.entries = MANY, .sqpoll_cpu = -1};

__attribute__((unused)) static const struct uring_shape deferring = {.entries = MANY, .defer = true, .sqpoll_cpu = -1};

static inline struct uring open_one(const struct uring_shape *shape)
{
    struct uring uring;

    CHECK(uring_open(&uring, shape) == 0);
    return uring;
}

static inline uint64_t queue(struct uring *uring, struct uring_request request)
{
    uint64_t token = 0;

    CHECK(uring_queue(uring, &request, &token) == 0);
    CHECK(token != 0);
    return token;
}

static inline struct uring_request transfer(enum uring_kind kind, int fd, void *buffer, size_t length, int64_t offset)
{
    return (struct uring_request){.kind = kind, .fd = fd, .buffer = buffer, .length = length, .offset = offset};
}

static inline uint64_t queue_nop(struct uring *uring)
{
    return queue(uring, (struct uring_request){.kind = URING_NOP});
}

/* Waits for the descriptor as an event loop does. */
static inline void reap_all(struct uring *uring, struct uring_completion *completions, uint32_t n)
{
    uint32_t reaped = 0;

    while (reaped < n) {
        struct pollfd ready = {.fd = uring->fd, .events = POLLIN};
        int result = uring_reap(uring, completions + reaped, n - reaped);

        CHECK(result >= 0);
        reaped += (uint32_t)result;
        if (reaped < n && uring->setup_flags & IORING_SETUP_DEFER_TASKRUN)
            poll(&ready, 1, 1); /* nobody wakes us */
        else if (reaped < n)
            CHECK(poll(&ready, 1, 20000) == 1); /* a lost wake-up */
    }
}

static inline int32_t run(struct uring *uring, struct uring_request request)
{
    struct uring_completion completion;
    uint64_t token = queue(uring, request);

    CHECK(uring_submit(uring) == 1);
    reap_all(uring, &completion, 1);
    CHECK(completion.token == token && completion.kind == request.kind);
    return completion.result;
}

/* All of it ends at once: nothing was under way. */
static inline void close_idle(struct uring *uring)
{
    struct uring_completion completions[2 * MANY];
    uint32_t n;

    CHECK(uring_stop(uring, 0, completions, &n) == 0 && n == 0);
    CHECK(uring->counts.unexpected == 0 && uring->counts.lost == 0);
    uring_close(uring);
    uring_close(uring);
}

/* Exits the test where there is no io_uring, and says why. */
static inline void need_one(void)
{
    struct uring uring;
    int error = uring_open(&uring, &usual);

    if (error) {
        fprintf(stderr, "not run: %s\n", uring_refusal(error));
        exit(error == -EPERM || error == -ENOSYS || error == -ENOMEM || error == -EOPNOTSUPP ? EXIT_SKIPPED : 1);
    }
    close_idle(&uring);
}

#endif
