/* The core of CRITICAL and HIGH between two processes on two cores that are both awake, over the real ring, pair and
 * mailbox; core.py drives it.
 *
 * usage: critical CORE_A CORE_B LANE (critical or high, whose pairs differ by the size of their rings). Each line on
 * stdin, "WHAT MILLISECONDS", is answered by one line of JSON on stdout:
 *   {"trips": [[ns, how often], ...]}   floor, ring, record, crowded: round trips, each timed alone
 *   {"rate": N, "lost": M}              unfenced, batched, single, batched-records, large, memcpy: things a second
 *   {"ns": N, "lost": M}                enqueue, enqueue-record: what one costs its sender
 *
 * `lost` is how often an end lost its core to somebody else meanwhile: what was measured then is not its speed.
 * Between two lines the other end sleeps. Both are awake and warm before the clock runs; each body has a sequence
 * number that the one who takes it insists on, and so does the sender in every reply. What differs, and what does not
 * come within two seconds, ends the program with status 1.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "critical_ends.h"

#define NS_PER_MS 1000000u
#define MEMCPY_BYTES (64u << 20)

enum { BURST = 200, WARM_UP = 500, ACTIVE = 37 };
enum { FINE_NS = 1 << 14, N_RARE = 4096 };

static const struct task tasks[] = {
    {"floor", TRIPS, FLOOR, 0, 0, false},        {"ring", TRIPS, RING, SMALL, 1, false},
    {"record", TRIPS, RECORD, SMALL, 1, false},  {"crowded", TRIPS, RECORD, SMALL, 1, true},
    {"unfenced", FLOW, RING, SMALL, 0, false},   {"batched", FLOW, RING, SMALL, BATCH, false},
    {"single", FLOW, RING, SMALL, 1, false},     {"batched-records", FLOW, RECORD, SMALL, BATCH, false},
    {"large", FLOW, RECORD, LARGE, 1, false},    {"memcpy", MEMCPY, FLOOR, LARGE, 0, false},
    {"enqueue", ENQUEUE, RING, SMALL, 1, false}, {"enqueue-record", ENQUEUE, RECORD, SMALL, 1, false},
};
enum { N_TASKS = sizeof tasks / sizeof tasks[0] };

static struct end quiet, crowd, self; /* alone in its mailbox; with the idle ones; sending to itself */

/* How often this process had to leave its core against its will. */
static long times_lost(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nivcsw;
}

static uint32_t often[FINE_NS];
static uint64_t rare[N_RARE];

static void measure_trips(const struct task *task, struct end *end, uint64_t span_ns)
{
    uint32_t n_rare = 0;
    uint64_t from, to, until;
    const char *comma = "";

    memset(often, 0, sizeof often);
    for (uint32_t i = 0; i < WARM_UP; i++)
        trip(task, end, false, 0);
    until = now_ns() + span_ns;
    do {
        from = now_ns();
        trip(task, end, false, from);
        to = now_ns();
        if (to - from < FINE_NS)
            often[to - from]++;
        else if (n_rare < N_RARE)
            rare[n_rare++] = to - from;
        else
            fail("hardly a round trip is undisturbed");
    } while (to < until);
    trip(task, end, true, 0);
    printf("{\"trips\": [");
    for (uint32_t ns = 0; ns < FINE_NS; ns++) {
        if (often[ns]) {
            printf("%s[%u, %u]", comma, ns, often[ns]);
            comma = ", ";
        }
    }
    for (uint32_t i = 0; i < n_rare; i++, comma = ", ")
        printf("%s[%llu, 1]", comma, (unsigned long long)rare[i]);
    printf("]}\n");
}

/* As fast as it goes; the clock stops when the receiver has given back the last. */
static void measure_flow(const struct task *task, struct end *end, int socket, uint64_t span_ns)
{
    long lost = times_lost(), other_lost;
    struct ring_writer *ring = &end->out.sender.ring;
    struct head *head = (void *)sent;
    struct patience patience = {0};
    uint64_t from = now_ns(), first = sequence, last_position;
    uint32_t in_batch = 0;

    do {
        head->sequence = ++sequence;
        head->last = (sequence - first) % 512 == 0 && now_ns() - from >= span_ns;
        put_now(task, &end->out, sent, from);
        if (task->batch && (++in_batch == task->batch || head->last)) {
            publish(&end->out);
            in_batch = 0;
        }
    } while (!head->last);
    last_position = ring->position - RING_WORD_BYTES;
    while (!pair_is_delivered(&end->out, last_position))
        wait_on(&patience);
    span_ns = now_ns() - from;
    if (read(socket, &other_lost, sizeof other_lost) != sizeof other_lost)
        fail("the other end is gone");
    printf(
        "{\"rate\": %.0f, \"lost\": %ld}\n", (double)(sequence - first) * 1e9 / (double)span_ns,
        times_lost() - lost + other_lost);
}

/* Bursts into a ring that nobody reads meanwhile; it is emptied while the clock stands. */
static void measure_enqueue(const struct task *task, uint64_t span_ns)
{
    uint64_t from, n = 0, spent_ns = 0, until = now_ns() + span_ns;
    long lost = times_lost();
    struct head *head = (void *)sent;

    sequence = 0;
    for (uint32_t burst = 0; now_ns() < until; burst++) {
        from = now_ns();
        for (uint32_t i = 0; i < BURST; i++) {
            head->sequence = sequence + i + 1;
            if (put(&self.out, task->way, sent, task->size, from) < 0)
                fail("a burst does not fit into the ring");
            publish(&self.out);
        }
        if (burst > 2) {
            spent_ns += now_ns() - from;
            n += BURST;
        }
        for (uint32_t i = 0; i < BURST; i++)
            get_now(&self, task->way, got, task->size);
        mailbox_take(self.in);
    }
    printf("{\"ns\": %.2f, \"lost\": %ld}\n", n ? (double)spent_ns / (double)n : 0, times_lost() - lost);
}

/* Of blocks as large as the records, from memory that no cache holds into more of the kind. */
static void measure_memcpy(const struct task *task, uint64_t span_ns)
{
    static uint8_t *from, *to;
    uint64_t started, ended, n = 0;
    long lost;

    if (!from) {
        from = malloc(MEMCPY_BYTES);
        to = malloc(MEMCPY_BYTES);
        if (!from || !to)
            fail("no memory to copy");
        memset(from, 1, MEMCPY_BYTES);
        memset(to, 2, MEMCPY_BYTES);
    }
    lost = times_lost();
    started = now_ns();
    do {
        for (uint64_t end = n + 64; n < end; n++) {
            uint64_t offset = n * task->size % MEMCPY_BYTES;

            memcpy(to + offset, from + offset, task->size);
        }
        ended = now_ns();
    } while (ended - started < span_ns);
    printf("{\"rate\": %.0f, \"lost\": %ld}\n", (double)n * 1e9 / (double)(ended - started), times_lost() - lost);
}

enum { FDS = CROWD + 2 }; /* one direction: the crowd's pairs, the quiet one, the one to itself */

static enum pair_lane lane = PAIR_CRITICAL;

static struct pair_shape shape_of(int number)
{
    return (struct pair_shape){
        .lane = lane,
        .number = (uint64_t)number,
        .ring_capacity = lane == PAIR_HIGH ? HIGH_BYTES : CRITICAL_BYTES, /* as agentd makes them (core.py) */
        .verdict_capacity = 1 << 12};
}

static void attach(struct pair *pair, int fd, int number, enum pair_end end)
{
    struct pair_shape shape = shape_of(number);

    check(pair_attach(pair, fd, &shape, end), "pair_attach");
}

static void join(struct end *end, const int *in, int out, int first, int active, int n)
{
    mailbox_init(&end->mailbox);
    for (int i = 0; i < n; i++) {
        attach(&end->entries[i].pair, in[i], first + i, PAIR_RECEIVER);
        check(mailbox_add(&end->mailbox, &end->entries[i]), "mailbox_add");
    }
    end->in = &end->entries[active];
    attach(&end->out, out, first + active, PAIR_SENDER);
}

/* Until the first end closes its socket. */
static int be_other_end(int socket)
{
    int choice;
    char byte = 0;

    while (read(socket, &choice, sizeof choice) == sizeof choice) {
        const struct task *task = &tasks[choice];

        struct end *end = task->crowded ? &crowd : &quiet;
        long lost = times_lost();

        sequence = 0;
        check((int)write(socket, &byte, 1), "write");
        if (task->way == FLOOR) {
            echo_words();
        } else if (task->kind == TRIPS) {
            echo(task, end);
        } else {
            drain(task, end);
            lost = times_lost() - lost;
            check((int)write(socket, &lost, sizeof lost), "write");
        }
    }
    return 0;
}

static void measure(const struct task *task, int socket, uint64_t span_ns)
{
    struct end *end = task->crowded ? &crowd : &quiet;
    int choice = (int)(task - tasks);
    char byte;

    sequence = 0;
    atomic_store(&words->there, 0);
    atomic_store(&words->back, 0);
    if (task->kind == TRIPS || task->kind == FLOW) {
        check((int)write(socket, &choice, sizeof choice), "write");
        if (read(socket, &byte, 1) != 1) /* it is awake now */
            fail("the other end is gone");
    }
    if (task->kind == TRIPS)
        measure_trips(task, end, span_ns);
    else if (task->kind == FLOW)
        measure_flow(task, end, socket, span_ns);
    else if (task->kind == ENQUEUE)
        measure_enqueue(task, span_ns);
    else
        measure_memcpy(task, span_ns);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static int fds[2][FDS];
    int sockets[2], end;
    unsigned long span_ms;
    char line[64], name[32];

    if (argc != 4 || (strcmp(argv[3], "critical") != 0 && strcmp(argv[3], "high") != 0))
        return 2;
    lane = strcmp(argv[3], "high") == 0 ? PAIR_HIGH : PAIR_CRITICAL;
    words = mmap(NULL, PAIR_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED)
        fail("mmap");
    for (int i = 0; i < 2 * FDS; i++) {
        struct pair_shape shape = shape_of(i % FDS);

        check(pair_create(&shape, false, &fds[i / FDS][i % FDS]), "pair_create");
    }
    check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets), "socketpair");
    end = fork() == 0;
    if (end)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(argv[1 + end]);
    close(sockets[!end]);
    join(&crowd, fds[end], fds[!end][ACTIVE], 0, ACTIVE, CROWD);
    join(&quiet, &fds[end][CROWD], fds[!end][CROWD], CROWD, 0, 1);
    if (end)
        return be_other_end(sockets[1]);
    join(&self, &fds[0][CROWD + 1], fds[0][CROWD + 1], CROWD + 1, 0, 1);
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%31s %lu", name, &span_ms) == 2) {
        const struct task *task = tasks;

        while (task < tasks + N_TASKS && strcmp(task->name, name) != 0)
            task++;
        if (task == tasks + N_TASKS)
            fail("no such measurement");
        measure(task, sockets[0], span_ms * NS_PER_MS);
    }
    return 0;
}
