/*
 * The engine's own cost, in C: what a request costs alone and in a crowd, with the kernel's help deferred or not. One
 * process, one thread; prints a JSON object of nanoseconds per operation. engine.py builds and drives it.
 */
#define _GNU_SOURCE
#include "uring.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"

enum { MOST = 64 };

static uint64_t one = 1;

static void fail(const char *what)
{
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

/* So many requests a submission, each completion reaped: nanoseconds a request. */
static double cost(struct uring *uring, const struct uring_request *request, int n, int64_t span_ns)
{
    struct uring_completion completions[MOST];
    int64_t begin = clock_monotonic_ns(), now = begin;
    uint64_t token, count = 0, turns = 0;

    do {
        int reaped = 0;

        for (int i = 0; i < n; i++)
            if (uring_queue(uring, request, &token))
                fail("queueing");
        if (uring_submit(uring) != n)
            fail("submitting");
        while (reaped < n) {
            int more = uring_reap(uring, completions + reaped, (uint32_t)(n - reaped));

            if (more < 0)
                fail("reaping");
            reaped += more;
        }
        for (int i = 0; i < n; i++)
            if (completions[i].result < 0)
                fail("an operation");
        count += (uint64_t)n;
        if (++turns % 64) /* the clock costs as much as a request */
            continue;
        now = clock_monotonic_ns();
    } while (now - begin < span_ns);
    return (double)(now - begin) / (double)count;
}

static double doorbells(struct uring *uring, int bell, uint32_t n, int64_t span_ns)
{
    int64_t begin = clock_monotonic_ns(), now = begin;
    uint64_t count = 0, turns = 0;
    int bells[MOST];

    for (uint32_t i = 0; i < n; i++)
        bells[i] = bell;
    do {
        if (uring_ring(uring, bells, n) != n)
            fail("ringing");
        count += n;
        if (++turns % 64)
            continue;
        now = clock_monotonic_ns();
    } while (now - begin < span_ns);
    return (double)(now - begin) / (double)count;
}

static double plain_doorbells(int bell, int64_t span_ns)
{
    int64_t begin = clock_monotonic_ns(), now;
    uint64_t count = 0;

    do {
        for (int i = 0; i < MOST; i++)
            if (write(bell, &one, sizeof one) != sizeof one)
                fail("write");
        count += MOST;
        now = clock_monotonic_ns();
    } while (now - begin < span_ns);
    return (double)(now - begin) / (double)count;
}

int main(int argc, char **argv)
{
    int64_t span_ns = (argc > 1 ? atoll(argv[1]) : 50) * 1000000;
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct uring_request nop = {.kind = URING_NOP};

    printf("{\"doorbell by write(2)\": %.1f", plain_doorbells(bell, span_ns));
    for (int defer = 0; defer < 2; defer++) {
        struct uring_shape shape = {.entries = MOST, .defer = defer, .sqpoll_cpu = -1};
        const char *how = defer ? ", deferred" : "";
        struct uring uring;
        int error = uring_open(&uring, &shape);

        if (error) {
            fprintf(stderr, "%s\n", uring_refusal(error));
            return 77;
        }
        printf(", \"nop, 1 a submission%s\": %.1f", how, cost(&uring, &nop, 1, span_ns));
        printf(", \"nop, 64 a submission%s\": %.1f", how, cost(&uring, &nop, MOST, span_ns));
        printf(", \"doorbell by SQE, 1 a submission%s\": %.1f", how, doorbells(&uring, bell, 1, span_ns));
        printf(", \"doorbell by SQE, 32 a submission%s\": %.1f", how, doorbells(&uring, bell, 32, span_ns));
        uring_close(&uring);
    }
    printf("}\n");
    close(bell);
    return 0;
}
