/* Both ends of the traffic, and who starts them. What it is for stands in traffic.h. */
#define _GNU_SOURCE
#include "traffic.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VERDICT_BYTES = 24, ASKED = 16, PATIENCE_MS = 20000, LOOKS = 200 };

/* One end, and how it sleeps and wakes the other. */
struct end {
    struct traffic *traffic;
    struct pair pair;
    int own_bell, peer_bell;
};

static bool is_asked(uint64_t number)
{
    return mixed(number) % ASKED == 1;
}

static void ring_bell(int bell)
{
    uint64_t one = 1;

    CHECK(write(bell, &one, sizeof one) == sizeof one);
}

static void publish(struct end *end)
{
    if (pair_publish(&end->pair))
        ring_bell(end->peer_bell);
}

/* After the pair was armed and there was still nothing: until the other end rings. */
static void sleep_until_rung(struct end *end)
{
    struct pollfd wait = {.fd = end->own_bell, .events = POLLIN};
    uint64_t rung;
    int found = poll(&wait, 1, end->traffic->may_break ? 5 : PATIENCE_MS);

    CHECK(found == 1 || end->traffic->may_break); /* or a wake-up was lost */
    if (found == 1)
        CHECK(read(end->own_bell, &rung, sizeof rung) == sizeof rung);
    atomic_fetch_add(&end->traffic->n_sleeps, 1);
}

static bool is_stopped(const struct end *end)
{
    return atomic_load_explicit(&end->traffic->stop, memory_order_relaxed);
}

/* -EPROTO ends the traffic where holes are punched, and is a failure anywhere else. */
static bool is_broken(struct end *end, int error)
{
    if (error != -EPROTO)
        return false;
    CHECK(end->traffic->may_break);
    atomic_fetch_add(&end->traffic->n_broken, 1);
    atomic_store(&end->traffic->stop, 1);
    return true;
}

static void check_body(struct end *end, const uint8_t *body, uint32_t size, uint64_t number)
{
    if (body_is(body, size, number, false))
        return;
    CHECK(end->traffic->may_break);
    CHECK(body_is(body, size, number, true));
    atomic_fetch_add(&end->traffic->n_holes, 1);
}

/* --- the sender --- */

/* What the sender knows of the verdicts that it waits for: the numbers they are about, in order. */
struct asked {
    uint64_t next, to; /* below `to` all that were asked have been sent */
};

static bool has_open_question(struct asked *asked)
{
    while (asked->next < asked->to && !is_asked(asked->next))
        asked->next++;
    return asked->next < asked->to;
}

/* Takes the verdicts that are there. False when the pair is broken. */
static bool take_verdicts(struct end *end, struct asked *asked)
{
    struct ring_reader *verdicts = &end->pair.sender.verdicts;
    const uint8_t *body;
    uint32_t size;
    int found;

    while ((found = ring_peek(verdicts, &body, &size)) == 1) {
        CHECK(has_open_question(asked) && size == VERDICT_BYTES);
        check_body(end, body, size, asked->next++);
        ring_next(verdicts, size);
        ring_release(verdicts);
        atomic_fetch_add_explicit(&end->traffic->n_verdicts, 1, memory_order_relaxed);
    }
    return !is_broken(end, found);
}

/* One in sixteen is committed only when up to seven others are behind it, and these may be late themselves. */
struct late {
    struct ring_later laters[8];
    unsigned n;
};

static void commit(struct end *end, uint64_t number, uint32_t size, struct late *late)
{
    struct ring_writer *ring = &end->pair.sender.ring;

    if (mixed(number) % 16 == 5 && late->n < sizeof late->laters / sizeof *late->laters)
        ring_commit_later(ring, size, &late->laters[late->n++]);
    else
        ring_commit(ring, size);
}

/* In an order that is not theirs. */
static void commit_late(struct end *end, struct late *late)
{
    for (uint64_t turn = end->pair.sender.ring.position; late->n > 0; turn++) {
        unsigned which = (unsigned)(mixed(turn) % late->n);

        ring_commit_now(&end->pair.sender.ring, &late->laters[which]);
        late->laters[which] = late->laters[--late->n];
    }
}

/* Room for that number's body; NULL when it is all over. */
static uint8_t *claim(struct end *end, struct asked *asked, uint32_t size, struct late *late)
{
    uint8_t *body;
    int error;

    while ((error = ring_claim(&end->pair.sender.ring, size, &body)) == -EAGAIN) {
        commit_late(end, late); /* the reader comes no further */
        publish(end);
        if (!take_verdicts(end, asked) || (end->traffic->may_break && is_stopped(end)))
            return NULL;
        sched_yield();
    }
    if (is_broken(end, error))
        return NULL;
    CHECK(error == 0);
    return body;
}

static void await_verdicts(struct end *end, struct asked *asked)
{
    while (take_verdicts(end, asked) && has_open_question(asked)) {
        if (end->traffic->may_break && is_stopped(end))
            return;
        pair_arm(&end->pair);
        if (!take_verdicts(end, asked) || !has_open_question(asked))
            return;
        sleep_until_rung(end);
        pair_disarm(&end->pair);
    }
}

static void send_all(struct end *end)
{
    uint32_t largest = ring_max_size(end->pair.sender.ring.mask);
    struct asked asked = {0};
    struct late late = {.n = 0};

    for (uint64_t number = 0; number < atomic_load_explicit(&end->traffic->n_records, memory_order_relaxed); number++) {
        uint32_t size = body_size(number, largest);
        uint8_t *body = claim(end, &asked, size, &late);

        if (!body)
            return;
        body_fill(body, size, number);
        commit(end, number, size, &late);
        asked.to = number + 1;
        if (mixed(number) % 8 == 6)
            commit_late(end, &late);
        if (mixed(number) % 4 != 2)
            publish(end); /* the others wait for the next one */
        if (is_stopped(end))
            atomic_store(&end->traffic->n_records, number + 1);
    }
    commit_late(end, &late);
    publish(end);
    ring_bell(end->peer_bell); /* it may sleep and not know yet that this was all */
    await_verdicts(end, &asked);
}

/* --- the receiver --- */

/* False when it is all over. */
static bool answer(struct end *end, uint64_t number)
{
    struct ring_writer *verdicts = &end->pair.receiver.verdicts;
    uint8_t *body;
    int error;

    while ((error = ring_claim(verdicts, VERDICT_BYTES, &body)) == -EAGAIN) {
        if (end->traffic->may_break && is_stopped(end))
            return false;
        sched_yield();
    }
    if (is_broken(end, error))
        return false;
    CHECK(error == 0);
    body_fill(body, VERDICT_BYTES, number);
    ring_commit(verdicts, VERDICT_BYTES);
    publish(end);
    return true;
}

/* The next record, 0 when there is none although it slept, or what is wrong. */
static int await_record(struct end *end, const uint8_t **body, uint32_t *size)
{
    struct ring_reader *ring = &end->pair.receiver.ring;
    int found = 0;

    for (uint64_t looks = mixed(ring->position) % LOOKS; !found && looks > 0; looks--)
        found = ring_peek(ring, body, size);
    if (found)
        return found;
    pair_arm(&end->pair);
    found = ring_peek(ring, body, size);
    if (!found) {
        sleep_until_rung(end);
        found = ring_peek(ring, body, size);
    }
    pair_disarm(&end->pair);
    return found;
}

static void receive_all(struct end *end)
{
    struct ring_reader *ring = &end->pair.receiver.ring;
    uint32_t largest = ring_max_size(ring->mask);
    uint64_t number = 0;

    while (number < atomic_load_explicit(&end->traffic->n_records, memory_order_relaxed)) {
        const uint8_t *body;
        uint32_t size;
        int found = ring_peek(ring, &body, &size);

        if (!found) {
            pair_take(&end->pair, number);
            found = await_record(end, &body, &size);
        }
        if (is_broken(end, found))
            break;
        if (!found) {
            if (end->traffic->may_break && is_stopped(end))
                break;
            continue;
        }
        if (size == 0 && body_size(number, largest) != 0) { /* a hole between a late record's size and its kind */
            CHECK(is_broken(end, -EPROTO));
            break;
        }
        CHECK(size == body_size(number, largest));
        check_body(end, body, size, number);
        ring_next(ring, size);
        if (mixed(number) % 8 == 3)
            pair_take(&end->pair, number + 1);
        number++;
        if (is_asked(number - 1) && !answer(end, number - 1))
            break;
    }
    pair_take(&end->pair, number);
    atomic_store(&end->traffic->n_received, number);
}

/* --- both --- */

struct traffic *traffic_create(void)
{
    void *memory = mmap(NULL, sizeof(struct traffic), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(memory != MAP_FAILED);
    return memory;
}

static pid_t start(struct traffic *traffic, enum pair_end which, int fd, const int bells[2])
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        struct end end = {
            .traffic = traffic,
            .own_bell = bells[which == PAIR_RECEIVER],
            .peer_bell = bells[which == PAIR_SENDER],
        };

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        open_at(&end.pair, fd, &traffic->shape, which, traffic->position);
        atomic_fetch_add(&traffic->n_begun, 1);
        if (which == PAIR_SENDER)
            send_all(&end);
        else
            receive_all(&end);
        pair_detach(&end.pair);
        _exit(EXIT_SUCCESS);
    }
    return child;
}

void traffic_run(struct traffic *traffic, traffic_disturber *disturb)
{
    int bells[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
    unsigned n_left = 2;
    pid_t ends[2];
    int fd;

    CHECK(pair_create(&traffic->shape, false, &fd) == 0);
    ends[0] = start(traffic, PAIR_SENDER, fd, bells);
    ends[1] = start(traffic, PAIR_RECEIVER, fd, bells);
    while (n_left > 0) {
        int status;
        pid_t ended = waitpid(-1, &status, disturb ? WNOHANG : 0);

        CHECK(ended >= 0);
        if (ended > 0) {
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS);
            ends[ended == ends[1]] = 0;
            n_left--;
        } else if (atomic_load(&traffic->n_begun) == 2) {
            disturb(traffic, ends, fd);
        } else {
            sched_yield();
        }
    }
    close(bells[0]);
    close(bells[1]);
    close(fd);
}
