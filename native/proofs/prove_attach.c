/*
 * What a peer leaves behind that is killed at any moment of its life: nothing.
 *
 *     prove_attach [long]
 *
 * A child makes, attaches, uses and detaches pairs, and is killed at random. This process has the other end of the one
 * pair, uses it on and detaches: after all rounds it has the descriptors, the maps and the memory that it began with.
 */
#define _GNU_SOURCE
#include "ends.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct pair_shape shape = {
    .lane = PAIR_CRITICAL, .number = 5, .ring_capacity = 65536, .verdict_capacity = 4096};

static _Atomic uint32_t *has_begun;
static uint64_t n_random;

/* What this process has. */
struct possessions {
    unsigned n_fds, n_maps, n_pairs;
    long resident_kib;
};

static struct possessions possessions(void)
{
    struct possessions found = {0};
    char line[512];
    FILE *file = fopen("/proc/self/maps", "r");
    DIR *fds;

    CHECK(file);
    while (fgets(line, sizeof line, file)) {
        found.n_maps++;
        found.n_pairs += strstr(line, "agentd-pair") != NULL;
    }
    fclose(file);
    file = fopen("/proc/self/status", "r");
    CHECK(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "RssShmem:", 9) == 0)
            found.resident_kib = strtol(line + 9, NULL, 10);
    fclose(file);
    fds = opendir("/proc/self/fd");
    CHECK(fds);
    while (readdir(fds))
        found.n_fds++;
    closedir(fds);
    return found;
}

/* Sends or receives a little, on an end that may have seen better days. */
static void use(struct pair *pair)
{
    const uint8_t *body;
    uint64_t position;
    uint32_t size;

    for (unsigned i = 0; i < 20; i++) {
        if (pair->end == PAIR_SENDER) {
            CHECK(ring_write(&pair->sender.ring, "a record", 8, &position) != -EPROTO);
        } else if (ring_peek(&pair->receiver.ring, &body, &size) == 1) {
            CHECK(size == 8 && memcmp(body, "a record", 8) == 0);
            ring_next(&pair->receiver.ring, size);
            pair_take(pair, i);
        }
        pair_publish(pair);
    }
}

static _Noreturn void live(int fd, enum pair_end end)
{
    struct pair pair;

    atomic_store(has_begun, 1);
    CHECK(pair_attach(&pair, fd, &shape, end) == 0);
    use(&pair);
    pair_detach(&pair);
    for (;;) {
        int own;

        CHECK(pair_create(&shape, false, &own) == 0);
        CHECK(pair_attach(&pair, own, &shape, end) == 0);
        use(&pair);
        pair_detach(&pair);
        close(own);
    }
}

/* Up to 0.4 ms: what a life takes, about; asleep it would be longer. */
static void wait_a_moment(void)
{
    uint64_t ns = mixed(n_random++) % 400000;
    struct timespec begun, now;

    clock_gettime(CLOCK_MONOTONIC, &begun);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((uint64_t)(now.tv_sec - begun.tv_sec) * 1000000000 + (uint64_t)now.tv_nsec < ns + (uint64_t)begun.tv_nsec);
}

/* True when the child was killed before it was done with the pair. */
static void run_round(enum pair_end end)
{
    enum pair_end other = end == PAIR_SENDER ? PAIR_RECEIVER : PAIR_SENDER;
    struct pair pair;
    int fd, status;
    pid_t child;

    atomic_store(has_begun, 0);
    CHECK(pair_create(&shape, false, &fd) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        live(fd, other);
    CHECK(pair_attach(&pair, fd, &shape, end) == 0);
    close(fd);
    while (!atomic_load(has_begun))
        sched_yield();
    use(&pair);
    wait_a_moment();
    CHECK(kill(child, SIGKILL) == 0);
    use(&pair);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    use(&pair);
    pair_detach(&pair);
}

int main(int argc, char **argv)
{
    unsigned n_rounds = argc > 1 && strcmp(argv[1], "long") == 0 ? 10000 : 200, n_done = 0;
    struct possessions before, after;

    has_begun = mmap(NULL, sizeof *has_begun, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(has_begun != MAP_FAILED);
    run_round(PAIR_SENDER); /* what the library keeps for itself is there from now on */
    possessions();
    before = possessions();
    for (; n_done < n_rounds; n_done++)
        run_round(n_done % 2 ? PAIR_SENDER : PAIR_RECEIVER);
    after = possessions();
    printf(
        "%u children killed; descriptors %u -> %u, maps %u -> %u, of pairs %u, shared memory %ld -> %ld KiB\n", n_done,
        before.n_fds, after.n_fds, before.n_maps, after.n_maps, after.n_pairs, before.resident_kib, after.resident_kib);
    CHECK(n_done > 0 && after.n_fds == before.n_fds && after.n_pairs == 0);
    CHECK(after.resident_kib == before.resident_kib);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* their own maps grow */
    CHECK(after.n_maps == before.n_maps);
#endif
    return EXIT_SUCCESS;
}
