/*
 * What it costs to wake those who sleep, by write(2) and through the engine in turns: the sender's time for all of
 * them, and when the last of them was awake. One process a receiver, each in epoll_wait(2) on an eventfd of its own.
 *
 *     doorbells SENDER_CORE RECEIVERS_CORE RECEIVERS ROUNDS
 *
 * Prints a JSON object of medians in nanoseconds. engine.py builds and drives it.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "clock.h"
#include "uring.h"

enum { MOST = 64, MOST_ROUNDS = 20000, BY_WRITE, BY_ENGINE, N_WAYS = 2 };

/* Where a receiver says that it woke, a line each. */
static struct {
    _Alignas(64) _Atomic int64_t at_ns;
    _Atomic uint64_t times;
} *awake;

static int64_t cost_ns[N_WAYS][MOST_ROUNDS], awake_ns[N_WAYS][MOST_ROUNDS];
static int bells[MOST];
static uint64_t one = 1;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void pin(int core)
{
    cpu_set_t cores;

    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    if (sched_setaffinity(0, sizeof cores, &cores) < 0)
        fail("sched_setaffinity");
}

static _Noreturn void receive(int i)
{
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    uint64_t count;

    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, bells[i], &event) < 0)
        fail("epoll");
    for (;;) {
        if (epoll_wait(epoll, &event, 1, -1) != 1)
            continue;
        atomic_store(&awake[i].at_ns, clock_monotonic_ns());
        if (read(bells[i], &count, sizeof count) == sizeof count)
            atomic_fetch_add(&awake[i].times, count);
    }
}

static void ring(struct uring *uring, int way, uint32_t n)
{
    if (way == BY_ENGINE) {
        if (uring_ring(uring, bells, n) != n)
            fail("uring_ring");
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (write(bells[i], &one, sizeof one) != sizeof one)
            fail("write");
}

static int compare(const void *one_of, const void *other)
{
    int64_t a = *(const int64_t *)one_of, b = *(const int64_t *)other;

    return (a > b) - (a < b);
}

static int64_t median(int64_t *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return values[n / 2];
}

int main(int argc, char **argv)
{
    struct uring_shape shape = {.entries = MOST, .sqpoll_cpu = -1};
    struct uring uring;
    uint32_t n;
    int rounds, error;

    if (argc != 5 || (n = (uint32_t)atoi(argv[3])) < 1 || n > MOST || (rounds = atoi(argv[4])) > MOST_ROUNDS)
        return 2;
    awake = mmap(NULL, MOST * sizeof *awake, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (awake == MAP_FAILED)
        fail("mmap");
    for (uint32_t i = 0; i < n; i++) {
        bells[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pin(atoi(argv[2]));
            receive((int)i);
        }
    }
    pin(atoi(argv[1]));
    error = uring_open(&uring, &shape);
    if (error) {
        fprintf(stderr, "%s\n", uring_refusal(error));
        return 77;
    }
    for (int turn = 0; turn < 2 * rounds; turn++) {
        int way = turn % 2 ? BY_ENGINE : BY_WRITE;
        int64_t begin, end, last = 0;

        /* They all sleep again, and so does their core. */
        for (begin = clock_monotonic_ns(); clock_monotonic_ns() < begin + 60000 + 6000 * (int64_t)n;)
            ;
        begin = clock_monotonic_ns();
        ring(&uring, way, n);
        end = clock_monotonic_ns();
        for (uint32_t i = 0; i < n; i++) {
            while (atomic_load(&awake[i].times) != (uint64_t)turn + 1)
                ;
            if (atomic_load(&awake[i].at_ns) > last)
                last = atomic_load(&awake[i].at_ns);
        }
        cost_ns[way - BY_WRITE][turn / 2] = end - begin;
        awake_ns[way - BY_WRITE][turn / 2] = last - begin;
    }
    printf(
        "{\"write(2), the sender\": %lld, \"write(2), the last awake\": %lld, \"engine, the sender\": %lld, "
        "\"engine, the last awake\": %lld}\n",
        (long long)median(cost_ns[0], rounds), (long long)median(awake_ns[0], rounds),
        (long long)median(cost_ns[1], rounds), (long long)median(awake_ns[1], rounds));
    uring_close(&uring);
    return 0;
}
