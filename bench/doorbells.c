/* Doorbells between processes on two cores: what ringing costs the sender, and when those who slept are awake.
 * doorbells.py drives it.
 *
 * usage: doorbells SENDER_CORE RECEIVERS_CORE SQPOLL_CORE (-1: none). Each line on stdin, "RECEIVERS WAKES SENDER", is
 * answered by one line of JSON on stdout:
 *   {"write": {"cost": [ns, ...], "median": [ns, ...], "last": [ns, ...]}, "engine": ...}
 *
 * A wake: a record of 64 B for each of so many receivers, published into its pair of the HIGH lane, and its doorbell.
 * Each receiver is a process of its own that is armed and asleep in epoll_wait(2). All of them share a core, the sender
 * has another. SENDER is what it did before: "slept", both cores were left alone for a random time, so that nothing is
 * awake but by accident, and nobody's code in a cache; or "ran", and only the receivers' core was left alone.
 *
 *   write    a write(2) for each doorbell
 *   engine   all of them by uring_ring(), in one submission
 *   sqpoll   the same, taken by a thread of the kernel with a core of its own
 *
 * The ways take turns, wake by wake. `cost` ends when the sender could go on; `median` and `last` are the moments at
 * which the receivers' own code ran again. All begin before the first record is written. A receiver that finds another
 * record than the one that is due, or none, ends the program with status 1; so does one that does not wake up.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "mailbox.h"
#include "patience.h"
#include "record.h"
#include "uring.h"

#define NS_PER_MS 1000000u
#define NS_PER_US 1000u

enum { RECEIVERS = 32, BODY = 64, MAX_WAKES = 1000 };
enum { MIN_PAUSE_MS = 1, MAX_PAUSE_MS = 3 };
/* While a sender runs its receivers fall asleep one after the other, and then their core does. */
enum { SPIN_US = 60, SPIN_EACH_US = 6 };
enum how { PLAIN, ENGINE, SQPOLL, N_WAYS };

static const char *const ways[N_WAYS] = {"write", "engine", "sqpoll"};

/* What a receiver says of itself, in memory that all share. */
struct said {
    _Alignas(PAIR_LINE_BYTES) _Atomic uint64_t taken; /* how many records */
    uint64_t awake_ns;                                /* when it woke up for the last one */
};

static struct said *said;
static struct pair pairs[RECEIVERS];
static int bells[RECEIVERS];
static struct uring rings[N_WAYS];
static uint64_t sent_to[RECEIVERS];
static const uint64_t one = 1;

static _Noreturn void receive(int fd, int bell, const struct pair_shape *shape, struct said *mine)
{
    static struct mailbox mailbox;
    static struct mailbox_entry entry;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    struct mailbox_entry *found_in;
    const uint8_t *bytes;
    uint32_t size;
    uint64_t taken = 0, awake_ns, number;
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    mailbox_init(&mailbox);
    check(pair_attach(&entry.pair, fd, shape, PAIR_RECEIVER), "pair_attach");
    check(mailbox_add(&mailbox, &entry), "mailbox_add");
    check(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, bell, &event), "epoll_ctl");
    for (;;) {
        struct record record;

        mailbox_arm(&mailbox);
        if (!mailbox_peek(&mailbox, &found_in, &bytes, &size))
            while (epoll_wait(epoll_fd, &event, 1, -1) < 0)
                if (errno != EINTR)
                    fail("epoll_wait");
        awake_ns = now_ns();
        mailbox_disarm(&mailbox);
        if (mailbox_peek(&mailbox, &found_in, &bytes, &size) != 1 || !record_parse(bytes, size, &record))
            fail("a doorbell, and no record");
        memcpy(&number, record.body, sizeof number);
        if (number != ++taken)
            fail("a message is missing, or came twice");
        mailbox_next(&mailbox, found_in, size);
        mailbox_take(found_in);
        mine->awake_ns = awake_ns;
        atomic_store_explicit(&mine->taken, taken, memory_order_release);
    }
}

static bool has_slept;

static void pass(uint64_t span_ns)
{
    struct timespec pause = {.tv_nsec = (long)span_ns};
    uint64_t until_ns = now_ns() + span_ns;

    if (has_slept)
        nanosleep(&pause, NULL);
    while (now_ns() < until_ns)
        ;
}

/* Until each of them has taken what it was sent and is armed again; then a while more, in which it falls asleep. */
static void let_sleep(int n)
{
    for (int i = 0; i < n; i++) {
        uint64_t give_up_ns = now_ns() + GIVE_UP_NS;

        while (atomic_load(&said[i].taken) != sent_to[i] ||
               !(atomic_load_explicit(pairs[i].peer_gate, memory_order_relaxed) & PAIR_ARMED)) {
            if (now_ns() > give_up_ns)
                fail("a receiver does not wake up");
            pass(has_slept ? NS_PER_MS / 10 : 0);
        }
    }
    if (has_slept)
        pass(MIN_PAUSE_MS * NS_PER_MS + (uint64_t)random() % ((MAX_PAUSE_MS - MIN_PAUSE_MS) * NS_PER_MS));
    else
        pass((SPIN_US + (uint64_t)n * SPIN_EACH_US) * NS_PER_US);
}

static void put(int receiver, uint64_t at_ns)
{
    struct record_header header = {.content = RECORD_BYTES, .sent_ns = at_ns};
    uint8_t body[BODY] = {0}, *room;

    sent_to[receiver]++;
    memcpy(body, &sent_to[receiver], sizeof sent_to[receiver]);
    if (ring_claim(&pairs[receiver].sender.ring, record_overhead(0, 0) + BODY, &room))
        fail("a ring is full");
    memcpy(record_write(room, &header, 0, ""), body, BODY);
    ring_commit(&pairs[receiver].sender.ring, record_overhead(0, 0) + BODY);
    if (!pair_publish(&pairs[receiver]))
        fail("a receiver that should sleep does not want to be rung for");
}

static void ring_each(enum how how, int n, uint64_t at_ns)
{
    for (int i = 0; i < n; i++) {
        put(i, at_ns);
        if (how == PLAIN)
            check((int)write(bells[i], &one, sizeof one), "write");
    }
    if (how != PLAIN && uring_ring(&rings[how], bells, (uint32_t)n) != (uint32_t)n)
        fail("uring_ring");
}

struct wake {
    uint64_t cost_ns, median_ns, last_ns;
};

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

static struct wake wake(enum how how, int n)
{
    uint64_t from_ns, awake_ns[RECEIVERS];
    struct wake result;

    let_sleep(n);
    from_ns = now_ns();
    ring_each(how, n, from_ns);
    result.cost_ns = now_ns() - from_ns;
    let_sleep(n);
    for (int i = 0; i < n; i++)
        awake_ns[i] = said[i].awake_ns - from_ns;
    qsort(awake_ns, (size_t)n, sizeof *awake_ns, compare);
    result.median_ns = awake_ns[n / 2];
    result.last_ns = awake_ns[n - 1];
    return result;
}

static void print(const char *what, const struct wake *wakes, int n, size_t offset)
{
    printf("\"%s\": [", what);
    for (int i = 0; i < n; i++) {
        uint64_t ns;

        memcpy(&ns, (const char *)&wakes[i] + offset, sizeof ns);
        printf("%s%llu", i ? ", " : "", (unsigned long long)ns);
    }
    printf("]");
}

static void measure(int n_receivers, int n_wakes, int n_ways)
{
    static struct wake wakes[N_WAYS][MAX_WAKES];

    for (int way = 0; way < n_ways; way++)
        wake(way, n_receivers); /* after other programs had the cores: not counted */
    for (int i = 0; i < n_wakes; i++)
        for (int way = 0; way < n_ways; way++)
            wakes[way][i] = wake(way, n_receivers);
    for (int way = 0; way < n_ways; way++) {
        printf("%s\"%s\": {", way ? ", " : "{", ways[way]);
        print("cost", wakes[way], n_wakes, offsetof(struct wake, cost_ns));
        printf(", ");
        print("median", wakes[way], n_wakes, offsetof(struct wake, median_ns));
        printf(", ");
        print("last", wakes[way], n_wakes, offsetof(struct wake, last_ns));
        printf("}");
    }
    printf("}\n");
    fflush(stdout);
}

static void open_ring(enum how how, int sqpoll_core)
{
    struct uring_shape shape = {.entries = 2 * RECEIVERS, .sqpoll_cpu = sqpoll_core};
    int error = uring_open(&rings[how], &shape);

    if (error)
        fail(uring_refusal(error));
}

int main(int argc, char **argv)
{
    char line[64], sender[16];
    int n_receivers, n_wakes, n_ways = argc == 4 && atoi(argv[3]) >= 0 ? N_WAYS : SQPOLL;

    if (argc != 4)
        return 2;
    said = mmap(NULL, RECEIVERS * sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (said == MAP_FAILED)
        fail("mmap");
    for (int i = 0; i < RECEIVERS; i++) {
        struct pair_shape shape = {
            .lane = PAIR_HIGH, .number = (uint64_t)i, .ring_capacity = 1 << 20, .verdict_capacity = 1 << 12};
        int fd;

        check(pair_create(&shape, false, &fd), "pair_create");
        bells[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        check(bells[i], "eventfd");
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pin(argv[2]);
            receive(fd, bells[i], &shape, &said[i]);
        }
        check(pair_attach(&pairs[i], fd, &shape, PAIR_SENDER), "pair_attach");
        close(fd);
    }
    pin(argv[1]);
    open_ring(ENGINE, -1);
    if (n_ways > SQPOLL)
        open_ring(SQPOLL, atoi(argv[3]));
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%d %d %15s", &n_receivers, &n_wakes, sender) == 3) {
        has_slept = strcmp(sender, "slept") == 0;
        if (n_receivers < 1 || n_receivers > RECEIVERS || n_wakes < 1 || n_wakes > MAX_WAKES)
            fail("no such measurement");
        measure(n_receivers, n_wakes, n_ways);
    }
    return 0;
}
