/* The clocks run forwards, agree with the kernel's, and boot time is never behind monotonic time. */
#define _GNU_SOURCE
#include "../clock.h"

#include <time.h>

#include "check.h"

static int64_t kernel_ns(clockid_t id)
{
    struct timespec now;

    CHECK(clock_gettime(id, &now) == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void test_forwards(int64_t (*read_ns)(void))
{
    int64_t last_ns = read_ns();

    CHECK(last_ns > 0);
    for (int i = 0; i < 100000; i++) {
        int64_t now_ns = read_ns();

        CHECK(now_ns >= last_ns);
        last_ns = now_ns;
    }
}

static void test_same_clock(int64_t (*read_ns)(void), clockid_t id)
{
    int64_t before_ns = kernel_ns(id);
    int64_t now_ns = read_ns();
    int64_t after_ns = kernel_ns(id);

    CHECK(before_ns <= now_ns && now_ns <= after_ns);
}

static void test_sleep_counts(void)
{
    int64_t monotonic_ns = clock_monotonic_ns();

    CHECK(clock_boottime_ns() >= monotonic_ns);
}

int main(void)
{
    test_forwards(clock_boottime_ns);
    test_forwards(clock_monotonic_ns);
    test_same_clock(clock_boottime_ns, CLOCK_BOOTTIME);
    test_same_clock(clock_monotonic_ns, CLOCK_MONOTONIC);
    test_sleep_counts();
    return EXIT_SUCCESS;
}
