/*
 * Two processes at full speed, and what may happen to them meanwhile.
 *
 *     prove_traffic [long]
 *
 * Undisturbed, from positions before every wrap; stopped and continued at any moment; and with holes punched into the
 * memory, page by page, which no seal forbids: an end may then see nothing more or that its pair is broken, and the
 * bytes that were in the hole as zeros; never a message that was not sent, never a signal.
 */
#define _GNU_SOURCE
#include "traffic.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct traffic *traffic;
static uint64_t n_random;

static uint64_t draw(uint64_t below)
{
    return mixed(n_random++) % below;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void set_up(uint64_t ring_capacity, uint64_t verdict_capacity, uint64_t position, uint64_t n_records)
{
    *traffic = (struct traffic){
        .shape =
            {.lane = PAIR_CRITICAL, .number = 3, .ring_capacity = ring_capacity, .verdict_capacity = verdict_capacity},
        .position = position,
        .n_records = n_records,
    };
}

/* Undisturbed: all positions that wrap, and some that do not. */
static void prove_stress(uint64_t n_records)
{
    uint64_t positions[] = {
        0,
        (UINT64_C(1) << 32) - 4096,
        (UINT64_C(1) << 63) - 4096,
        -UINT64_C(4096),
        mixed(1) & ~UINT64_C(7),
        mixed(2) & ~UINT64_C(7)};
    static const uint64_t capacities[] = {RING_MIN_CAPACITY, 4096, 65536, 1 << 20};
    enum { N_POSITIONS = sizeof positions / sizeof *positions, N_CAPACITIES = sizeof capacities / sizeof *capacities };
    uint64_t n_received = 0, n_verdicts = 0, n_sleeps = 0;

    for (unsigned i = 0; i < N_POSITIONS; i++) {
        for (unsigned j = 0; j < N_CAPACITIES; j++) {
            uint64_t n = n_records / (N_POSITIONS * N_CAPACITIES) + 1;

            set_up(capacities[j], capacities[(i + j) % 2], positions[i], n);
            traffic_run(traffic, NULL);
            CHECK(traffic->n_received == n);
            n_received += n;
            n_verdicts += traffic->n_verdicts;
            n_sleeps += traffic->n_sleeps;
        }
    }
    printf(
        "stress: %llu records, %llu verdicts, %llu sleeps\n", (unsigned long long)n_received,
        (unsigned long long)n_verdicts, (unsigned long long)n_sleeps);
    CHECK(n_received >= n_records && n_verdicts > 0 && n_sleeps > 0);
}

static uint64_t until_ms, n_stops, n_punches;
static off_t page;

static void stop_and_continue(struct traffic *meanwhile, const pid_t ends[2], int fd)
{
    pid_t one = ends[draw(2)];

    (void)fd;
    if (now_ms() >= until_ms)
        atomic_store(&meanwhile->stop, 1);
    if (one && kill(one, SIGSTOP) == 0) {
        usleep((useconds_t)draw(2000));
        CHECK(kill(one, SIGCONT) == 0);
        n_stops++;
    }
    usleep((useconds_t)draw(500));
}

/* Stopped anywhere, for any time: nothing is lost. */
static void prove_stops(uint64_t ms)
{
    set_up(4096, RING_MIN_CAPACITY, 0, UINT64_MAX);
    until_ms = now_ms() + ms;
    traffic_run(traffic, stop_and_continue);
    printf(
        "stops: %llu, over %llu records, %llu verdicts\n", (unsigned long long)n_stops,
        (unsigned long long)traffic->n_received, (unsigned long long)traffic->n_verdicts);
    CHECK(n_stops > 0 && traffic->n_received > 0 && traffic->n_received == traffic->n_records);
}

static void punch(struct traffic *meanwhile, const pid_t ends[2], int fd)
{
    (void)ends;
    if (now_ms() >= until_ms)
        atomic_store(&meanwhile->stop, 1);
    usleep((useconds_t)draw(400));
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAIR_PAGE_BYTES, PAIR_PAGE_BYTES) == 0);
    n_punches++;
}

static void prove_holes(unsigned n_rounds)
{
    uint64_t n_received = 0, n_broken = 0, n_silent = 0, n_holes = 0, n_pages = 0;

    for (unsigned round = 0; round < n_rounds; round++) {
        set_up(16384, 4096, 0, UINT64_MAX);
        n_pages = pair_total_bytes(&traffic->shape) / PAIR_PAGE_BYTES;
        for (page = 0; page < (off_t)n_pages; page++) {
            set_up(16384, 4096, 0, UINT64_MAX);
            traffic->may_break = true;
            until_ms = now_ms() + 10;
            traffic_run(traffic, punch);
            n_received += traffic->n_received;
            n_broken += traffic->n_broken > 0;
            n_silent += traffic->n_broken == 0;
            n_holes += traffic->n_holes;
        }
    }
    printf(
        "holes: %llu, in all %llu pages, under %llu records; %llu pairs broken, %llu not; %llu bodies with zeros\n",
        (unsigned long long)n_punches, (unsigned long long)n_pages, (unsigned long long)n_received,
        (unsigned long long)n_broken, (unsigned long long)n_silent, (unsigned long long)n_holes);
    CHECK(n_punches > 0 && n_received > 0);
}

int main(int argc, char **argv)
{
    bool thorough = argc > 1 && strcmp(argv[1], "long") == 0;

    setvbuf(stdout, NULL, _IOLBF, 0); /* forks must not repeat it */
    traffic = traffic_create();
    prove_stress(thorough ? 100000000 : 1000000);
    prove_stops(thorough ? 60000 : 300);
    prove_holes(thorough ? 100 : 2);
    return EXIT_SUCCESS;
}
