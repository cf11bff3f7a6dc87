/* The bare floors between two cores at this moment; floor.py builds and drives it.
 *
 * usage: floor CORE_A CORE_B. Each line on stdin is answered by one on stdout: "CACHELINE SOCKET", both the median
 * one-way time (half a round trip) in nanoseconds.
 *   CACHELINE  two pinned processes that hand one word to each other, both spinning
 *   SOCKET     the same two over a Unix stream socket, 64 bytes, both asleep in read(2) between messages
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKS = 31, ROUNDS = 200, TRIPS = 41, BODY = 64 };
#define GIVE_UP_NS 500000000LL

static _Atomic uint32_t *word;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void pin(const char *core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)atoi(core), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        perror("floor: sched_setaffinity");
        exit(1);
    }
}

/* Exits where the other end never comes: a stuck floor must not spin for ever. */
static void await_word(uint32_t wanted)
{
    int64_t deadline = 0;
    for (uint32_t spins = 1; atomic_load_explicit(word, memory_order_acquire) != wanted; spins++) {
        if (spins % 65536 == 0) {
            int64_t now = now_ns();
            if (deadline == 0)
                deadline = now + GIVE_UP_NS;
            else if (now > deadline)
                _exit(1);
        }
    }
}

static void move(int fd, char *body, int writing)
{
    for (ssize_t done = 0; done < BODY;) {
        ssize_t n =
            writing ? write(fd, body + done, (size_t)(BODY - done)) : read(fd, body + done, (size_t)(BODY - done));
        if (n <= 0)
            _exit(0);
        done += n;
    }
}

static void other_end(int fd)
{
    char body[BODY];
    for (;;) {
        move(fd, body, 0);
        move(fd, body, 1);
        for (uint32_t turn = 0; turn < BLOCKS * ROUNDS; turn++) {
            await_word(2 * turn + 1);
            atomic_store_explicit(word, 2 * turn + 2, memory_order_release);
        }
        for (int trip = 0; trip < TRIPS; trip++) {
            move(fd, body, 0);
            move(fd, body, 1);
        }
    }
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int ends[2];
    char line[16], body[BODY] = {0};
    if (argc != 3)
        return 2;
    word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (word == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        return 1;
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        pin(argv[2]);
        other_end(ends[1]);
    }
    close(ends[1]);
    pin(argv[1]);
    while (fgets(line, sizeof line, stdin)) {
        int64_t blocks[BLOCKS], trips[TRIPS];
        atomic_store(word, 0);
        move(ends[0], body, 1); /* wakes the other end before the clock runs */
        move(ends[0], body, 0);
        for (int block = 0; block < BLOCKS; block++) {
            int64_t start = now_ns();
            for (uint32_t round = 0; round < ROUNDS; round++) {
                uint32_t turn = (uint32_t)block * ROUNDS + round;
                atomic_store_explicit(word, 2 * turn + 1, memory_order_release);
                await_word(2 * turn + 2);
            }
            blocks[block] = now_ns() - start;
        }
        for (int trip = 0; trip < TRIPS; trip++) {
            int64_t start = now_ns();
            move(ends[0], body, 1);
            move(ends[0], body, 0);
            trips[trip] = now_ns() - start;
        }
        qsort(blocks, BLOCKS, sizeof blocks[0], ascending);
        qsort(trips, TRIPS, sizeof trips[0], ascending);
        printf("%.1f %.1f\n", (double)blocks[BLOCKS / 2] / (2.0 * ROUNDS), (double)trips[TRIPS / 2] / 2.0);
        fflush(stdout);
    }
    close(ends[0]);
    wait(NULL);
    return 0;
}
