/*
 * An end that is killed after each of its instructions leaves a sound ring to the other.
 *
 *     prove_kill [long]
 *
 * A child does one thing to a pair, instruction by instruction, under ptrace(2). After each instruction its parent
 * looks at the same memory as the other end. Then the child is done again and killed with SIGKILL after instruction k:
 * for each k, or without `long` for some. What a sender is killed over was not sent or was sent whole; what a receiver
 * is killed over is delivered or not, and no verdict is torn or comes before delivery.
 */
#define _GNU_SOURCE
#include "../pair.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ends.h"

static const struct pair_shape shape = {
    .lane = PAIR_CRITICAL, .number = 7, .ring_capacity = RING_MIN_CAPACITY, .verdict_capacity = RING_MIN_CAPACITY};

enum { LARGEST = RING_MIN_CAPACITY / RING_LARGEST_PART - RING_WORD_BYTES };

/* Both ends of one pair, in this process. */
struct ends {
    struct pair sender, receiver;
    uint64_t first; /* position of the record that is received */
    bool slept;     /* the end that looks on was armed */
};

struct scene {
    const char *name;
    enum pair_end end;
    uint64_t position;                /* where the ring begins */
    void (*set_up)(struct ends *);    /* before; by the parent */
    void (*act)(struct pair *own);    /* what is killed */
    unsigned (*check)(struct ends *); /* whether all is sound, and how far the act has come */
    unsigned whole;                   /* what check says when the act is done */
};

/* How far the child is, in memory that it shares with its parent. */
enum phase { NOT_YET, ACTING, DONE };
static _Atomic uint32_t *phase;

static int open_both(const struct scene *scene, struct ends *ends)
{
    uint64_t mask = shape.ring_capacity - 1;
    int fd;

    CHECK(pair_create(&shape, false, &fd) == 0);
    open_at(&ends->sender, fd, &shape, PAIR_SENDER, scene->position);
    open_at(&ends->receiver, fd, &shape, PAIR_RECEIVER, scene->position);
    ends->first = scene->position;
    /* What an earlier lap left; only the word at the position need be zero. */
    memset(ends->sender.sender.ring.data, 0xFF, shape.ring_capacity);
    memset(ends->sender.sender.ring.data + (scene->position & mask), 0, RING_WORD_BYTES);
    scene->set_up(ends);
    return fd;
}

static void close_both(struct ends *ends, int fd)
{
    pair_detach(&ends->sender);
    pair_detach(&ends->receiver);
    close(fd);
}

/* --- a sender --- */

static void send_numbered(struct pair *sender, uint64_t number, uint32_t size)
{
    uint8_t *body;

    CHECK(ring_claim(&sender->sender.ring, size, &body) == 0);
    body_fill(body, size, number);
    ring_commit(&sender->sender.ring, size);
    pair_publish(sender);
}

static void send_one(struct pair *sender)
{
    send_numbered(sender, 0, 40);
}

static void send_two(struct pair *sender)
{
    send_numbered(sender, 0, 40);
    send_numbered(sender, 1, 40);
}

static struct ring_later claim_later(struct pair *sender, uint64_t number)
{
    struct ring_later later;
    uint8_t *body;

    CHECK(ring_claim(&sender->sender.ring, 40, &body) == 0);
    body_fill(body, 40, number);
    ring_commit_later(&sender->sender.ring, 40, &later);
    return later;
}

static void send_one_later(struct pair *sender)
{
    struct ring_later later = claim_later(sender, 0);

    ring_commit_now(&sender->sender.ring, &later);
    pair_publish(sender);
}

/* What is committed behind it is seen with it, or not at all. */
static void send_two_later(struct pair *sender)
{
    struct ring_later first = claim_later(sender, 0), second = claim_later(sender, 1);

    ring_commit_now(&sender->sender.ring, &first);
    ring_commit_now(&sender->sender.ring, &second);
    pair_publish(sender);
}

/* How it would be without the one rule, that the word comes last. */
static void send_wrongly(struct pair *sender)
{
    uint8_t *body;

    CHECK(ring_claim(&sender->sender.ring, 40, &body) == 0);
    ring_commit(&sender->sender.ring, 40);
    atomic_signal_fence(memory_order_seq_cst); /* nor may the compiler put it right */
    body_fill(body, 40, 0);
    pair_publish(sender);
}

static void set_up_nothing(struct ends *ends)
{
    (void)ends;
}

static void set_up_sleeping_receiver(struct ends *ends)
{
    pair_arm(&ends->receiver);
    ends->slept = true;
}

/* The sender has to look how far the receiver is. */
static void set_up_lapped(struct ends *ends)
{
    const uint8_t *body;
    uint32_t size;

    for (uint64_t number = 100; number < 107; number++)
        send_numbered(&ends->sender, number, LARGEST);
    while (ring_peek(&ends->receiver.receiver.ring, &body, &size) == 1)
        ring_next(&ends->receiver.receiver.ring, size);
    ring_release(&ends->receiver.receiver.ring);
    set_up_sleeping_receiver(ends);
}

static bool was_woken(const struct ends *ends, const struct pair *looks_on)
{
    return ends->slept && !(atomic_load(looks_on->own_gate) & PAIR_ARMED);
}

static unsigned check_sent(struct ends *ends)
{
    struct ring_reader reader = ends->receiver.receiver.ring; /* a copy: nothing is taken */
    bool woken = was_woken(ends, &ends->receiver);
    const uint8_t *body;
    unsigned n_found = 0;
    uint32_t size;
    int found;

    while ((found = ring_peek(&reader, &body, &size)) == 1) {
        CHECK(size == 40 && n_found < 2);
        CHECK(body_is(body, size, n_found, false));
        ring_next(&reader, size);
        n_found++;
    }
    CHECK(found == 0);
    CHECK(!woken || n_found > 0); /* when it then dies, the daemon rings in its stead */
    return n_found;
}

/* --- a receiver --- */

static void receive_one(struct pair *receiver)
{
    struct ring_reader *ring = &receiver->receiver.ring;
    const uint8_t *body;
    uint8_t copy[LARGEST], *verdict;
    uint32_t size;

    CHECK(ring_peek(ring, &body, &size) == 1);
    memcpy(copy, body, size);
    ring_next(ring, size);
    pair_take(receiver, 1);
    CHECK(body_is(copy, size, 0, false));
    CHECK(ring_claim(&receiver->receiver.verdicts, 24, &verdict) == 0);
    body_fill(verdict, 24, 1);
    ring_commit(&receiver->receiver.verdicts, 24);
    pair_publish(receiver);
}

static void set_up_sent(struct ends *ends)
{
    send_one(&ends->sender);
}

static void set_up_waiting_sender(struct ends *ends)
{
    send_one(&ends->sender);
    pair_arm(&ends->sender);
    ends->slept = true;
}

static unsigned check_received(struct ends *ends)
{
    struct ring_reader verdicts = ends->sender.sender.verdicts; /* copies: nothing is taken or written */
    struct ring_writer writer = ends->sender.sender.ring;
    bool woken = was_woken(ends, &ends->sender), delivered;
    const uint8_t *body;
    uint32_t size;
    int found = ring_peek(&verdicts, &body, &size);

    delivered = pair_is_delivered(&ends->sender, ends->first);
    CHECK(found == 0 || found == 1);
    if (found) {
        CHECK(size == 24 && body_is(body, size, 1, false));
        ring_next(&verdicts, size);
        CHECK(ring_peek(&verdicts, &body, &size) == 0);
        CHECK(delivered);
    }
    CHECK(!delivered || atomic_load(&ends->sender.receiver_page->taken) == 1);
    CHECK(ring_find_room(&writer, writer.position + 64) == 0);
    CHECK(!woken || found);
    return (unsigned)delivered + (unsigned)found;
}

static const struct scene scenes[] = {
    {"a first record", PAIR_SENDER, 0, set_up_nothing, send_one, check_sent, 1},
    {"a sleeping receiver", PAIR_SENDER, 0, set_up_sleeping_receiver, send_one, check_sent, 1},
    {"two records", PAIR_SENDER, 512, set_up_sleeping_receiver, send_two, check_sent, 2},
    {"to the end of the ring", PAIR_SENDER, 5 * RING_MIN_CAPACITY - 48, set_up_sleeping_receiver, send_one, check_sent,
     1},
    {"padding", PAIR_SENDER, UINT64_MAX - 23, set_up_sleeping_receiver, send_one, check_sent, 1},
    {"a late record", PAIR_SENDER, 0, set_up_sleeping_receiver, send_one_later, check_sent, 1},
    {"late behind padding", PAIR_SENDER, UINT64_MAX - 23, set_up_sleeping_receiver, send_one_later, check_sent, 1},
    {"two late records", PAIR_SENDER, 3 * RING_MIN_CAPACITY, set_up_lapped, send_two_later, check_sent, 2},
    {"a new lap", PAIR_SENDER, 3 * RING_MIN_CAPACITY, set_up_lapped, send_two, check_sent, 2},
    {"receiving", PAIR_RECEIVER, 0, set_up_sent, receive_one, check_received, 2},
    {"a waiting sender", PAIR_RECEIVER, 512, set_up_waiting_sender, receive_one, check_received, 2},
    {"receiving over padding", PAIR_RECEIVER, UINT64_MAX - 23, set_up_waiting_sender, receive_one, check_received, 2},
};

/* --- the child and its steps --- */

/* Like the end that the parent opened and set up, in a process that has none of its memory. */
static struct pair open_again(const struct ends *ends, int fd, enum pair_end end)
{
    const struct pair *there = end == PAIR_SENDER ? &ends->sender : &ends->receiver;
    struct pair pair;

    CHECK(pair_attach(&pair, fd, &shape, end) == 0);
    if (end == PAIR_SENDER) {
        pair.sender.ring.position = pair.sender.ring.claimed = there->sender.ring.position;
        pair.sender.ring.room_to = there->sender.ring.room_to;
        pair.sender.verdicts.position = there->sender.verdicts.position;
    } else {
        pair.receiver.ring.position = there->receiver.ring.position;
        pair.receiver.verdicts.position = pair.receiver.verdicts.claimed = there->receiver.verdicts.position;
        pair.receiver.verdicts.room_to = there->receiver.verdicts.room_to;
    }
    return pair;
}

static _Noreturn void run_child(const struct scene *scene, const struct ends *ends, int fd)
{
    struct ends first;
    struct pair own = open_again(ends, fd, scene->end);

    /* Once before, so that no step is one of the dynamic linker's. */
    open_both(scene, &first);
    scene->act(scene->end == PAIR_SENDER ? &first.sender : &first.receiver);
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    raise(SIGSTOP);
    atomic_store(phase, ACTING);
    scene->act(&own);
    atomic_store(phase, DONE);
    for (;;)
        raise(SIGSTOP);
}

static pid_t start(const struct scene *scene, const struct ends *ends, int fd)
{
    int status;
    pid_t child;

    atomic_store(phase, NOT_YET);
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        run_child(scene, ends, fd);
    CHECK(waitpid(child, &status, 0) == child);
    if (!WIFSTOPPED(status)) {
        fprintf(stderr, "ptrace(2) is not allowed here\n");
        exit(EXIT_SKIPPED);
    }
    CHECK(ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)PTRACE_O_EXITKILL) == 0);
    return child;
}

static void step(pid_t child)
{
    int status;

    CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
}

static void end(pid_t child)
{
    int status;

    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Looks after each instruction; how many there are. */
static unsigned walk(const struct scene *scene)
{
    unsigned n_steps = 0, come = 0, stages = 1;
    struct ends ends = {0};
    int fd = open_both(scene, &ends);
    pid_t child = start(scene, &ends, fd);

    while (atomic_load(phase) != DONE) {
        unsigned now;

        step(child);
        n_steps += atomic_load(phase) == ACTING;
        now = scene->check(&ends);
        CHECK(now >= come);
        stages += now > come;
        come = now;
    }
    end(child);
    CHECK(come == scene->whole && scene->check(&ends) == come);
    CHECK(stages == scene->whole + 1); /* each was seen by itself */
    CHECK(n_steps > 0);
    close_both(&ends, fd);
    return n_steps;
}

/* Killed after the first `n_steps` instructions. */
static void kill_after(const struct scene *scene, unsigned n_steps)
{
    struct ends ends = {0};
    int fd = open_both(scene, &ends);
    pid_t child = start(scene, &ends, fd);
    unsigned come;

    for (unsigned n_done = 0; n_done < n_steps; n_done += atomic_load(phase) == ACTING)
        step(child);
    end(child);
    come = scene->check(&ends);
    CHECK(come <= scene->whole && scene->check(&ends) == come);
    close_both(&ends, fd);
}

/* That these proofs would notice: in a child, because they exit. */
static void prove_the_proof(void)
{
    static const struct scene wrong = {"wrong", PAIR_SENDER, 0, set_up_nothing, send_wrongly, check_sent, 1};
    int status;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        CHECK(freopen("/dev/null", "w", stderr));
        walk(&wrong);
        _exit(EXIT_SUCCESS);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE);
}

int main(int argc, char **argv)
{
    bool thorough = argc > 1 && strcmp(argv[1], "long") == 0;
    unsigned n_cases = 0;

#if defined(__SANITIZE_THREAD__)
    return EXIT_SKIPPED; /* its own instructions would be stepped through */
#endif
    phase = mmap(NULL, sizeof *phase, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(phase != MAP_FAILED);
    for (unsigned i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        unsigned n_steps = walk(&scenes[i]), stride = thorough ? 1 : n_steps / 24 + 1, n_kills = 0;

        for (unsigned n = 1; n <= n_steps; n += stride, n_kills++)
            kill_after(&scenes[i], n);
        printf("%-24s %u instructions, killed after %u of them\n", scenes[i].name, n_steps, n_kills);
        n_cases += n_kills;
    }
    printf("%u cases\n", n_cases);
    fflush(stdout);
    prove_the_proof();
    CHECK(n_cases > 0);
    return EXIT_SUCCESS;
}
