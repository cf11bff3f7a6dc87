/* What every program of bench/ needs that runs on two cores: a clock, a core, an end to all waiting.
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_PATIENCE_H
#define BENCH_PATIENCE_H

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define GIVE_UP_NS 2000000000u

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline _Noreturn void fail(const char *why)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, why);
    _exit(1);
}

static inline void check(int result, const char *what)
{
    if (result < 0)
        fail(what);
}

/* For every loop that waits: nothing here spins for ever. */
struct patience {
    uint64_t spins, until_ns;
};

static inline void wait_on(struct patience *patience)
{
    if (++patience->spins % 65536)
        return;
    if (!patience->until_ns)
        patience->until_ns = now_ns() + GIVE_UP_NS;
    else if (now_ns() > patience->until_ns)
        fail("the other end does not answer");
}

static inline void pin(const char *core)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((unsigned)atoi(core), &set);
    check(sched_setaffinity(0, sizeof set, &set), "sched_setaffinity");
}

#endif
