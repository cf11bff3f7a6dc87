/*
 * A peer that writes anything anywhere, at any time.
 *
 *     prove_hostile [long]
 *
 * Both ends do all that an end does while a third thread scribbles over every byte of the pair: header, positions,
 * gates, words, bodies; noise, and values that nearly fit. Neither ever reads or writes outside its ring; when one says
 * -EPROTO, both go on with a fresh pair. Of most worth under AddressSanitizer.
 */
#define _GNU_SOURCE
#include "guard.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ends.h"

static const struct pair_shape shape = {
    .lane = PAIR_CRITICAL, .number = 9, .ring_capacity = 4096, .verdict_capacity = RING_MIN_CAPACITY};

enum { ROUND_STEPS = 20000, PATIENCE = 300 };

static int memfd;
static _Atomic bool is_over; /* this round: somebody had enough of the pair */
static _Atomic uint64_t n_written, n_read, n_parsed, n_refused, n_attached, n_scribbles;
static uint64_t n_rounds, n_broken;

/* Each thread draws for itself. */
static uint64_t draw(uint64_t *random, uint64_t below)
{
    return mixed((*random)++) % below;
}

static void broken(void)
{
    atomic_store(&is_over, true);
    n_refused++;
}

/* Whether there was room; what is written looks like a record more often than not. */
static bool write_any(struct ring_writer *writer, uint64_t *random)
{
    uint32_t size = (uint32_t)draw(random, ring_max_size(writer->mask) + 9);
    struct record_header header = {
        .content = (uint8_t)draw(random, 3),
        .flags = (uint8_t)draw(random, RECORD_FLAGS + 1),
        .details_bytes = (uint16_t)draw(random, size + 1),
    };
    uint8_t *body;
    int error = ring_claim(writer, size, &body);

    if (error == -EPROTO)
        broken();
    if (error)
        return error != -EAGAIN;
    guard_write(writer, body, size, (uint8_t)draw(random, 256));
    if (size >= sizeof header)
        memcpy(body, &header, sizeof header);
    if (draw(random, 16) == 0) {
        ring_abort(writer);
        return true;
    }
    if (draw(random, 4) == 0)
        size = (uint32_t)draw(random, size + 1);
    if (draw(random, 8) == 0) {
        struct ring_later later;

        ring_commit_later(writer, size, &later);
        ring_is_committed(writer, &later); /* somebody else may have done it */
        ring_commit_now(writer, &later);
    } else {
        ring_commit(writer, size);
    }
    n_written++;
    return true;
}

/* What was read: 1, none: 0, broken: below. */
static int read_any(struct ring_reader *reader)
{
    const uint8_t *body;
    uint32_t size;
    int found = ring_peek(reader, &body, &size);

    if (found == -EPROTO)
        broken();
    CHECK(found == 1 || found == 0 || found == -EPROTO);
    if (found == 1) {
        uint8_t *copy = guard_read(reader, body, size);

        n_parsed += guard_parse(copy, size) > 0;
        free(copy);
        ring_next(reader, size);
        n_read++;
    }
    return found;
}

static void use_gates(struct pair *pair, uint64_t *random)
{
    int peer = pair_peer(pair);

    CHECK(peer == 0 || peer == -ESHUTDOWN || peer == -EBUSY);
    pair_publish(pair);
    pair_arm(pair);
    pair_disarm(pair);
    pair_set_gate(pair, PAIR_PAUSED, draw(random, 2));
}

/* A third one comes while the header is being scribbled over. */
static void attach_again(enum pair_end end)
{
    struct pair pair;
    int error = pair_attach(&pair, memfd, &shape, end);

    CHECK(error == 0 || error == -EPROTO);
    if (!error)
        pair_detach(&pair);
    n_attached++;
}

/* A hole in the ring looks like an empty or a full one for ever. */
static void idle(unsigned *n_idle)
{
    (*n_idle)++;
    sched_yield();
}

static void *run_sender(void *argument)
{
    struct pair *pair = argument;
    uint64_t random = n_rounds << 32;
    unsigned n_idle = 0;

    for (unsigned i = 0; i < ROUND_STEPS && n_idle < PATIENCE && !is_over; i++) {
        if (write_any(&pair->sender.ring, &random))
            n_idle = 0;
        else
            idle(&n_idle);
        use_gates(pair, &random);
        pair_is_delivered(pair, pair->sender.ring.position - draw(&random, 4096));
        if (read_any(&pair->sender.verdicts) == 1)
            ring_release(&pair->sender.verdicts);
        if (draw(&random, 4096) == 0)
            attach_again(PAIR_SENDER);
    }
    is_over = true;
    return NULL;
}

static void *run_receiver(void *argument)
{
    struct mailbox_entry *entry = argument;
    uint64_t random = n_rounds << 32 | UINT64_C(1) << 62;
    unsigned n_idle = 0;

    for (unsigned i = 0; i < ROUND_STEPS && n_idle < PATIENCE && !is_over; i++) {
        if (read_any(&entry->pair.receiver.ring) == 1)
            n_idle = 0;
        else
            idle(&n_idle);
        if (n_idle || draw(&random, 4) == 0)
            pair_take(&entry->pair, i);
        use_gates(&entry->pair, &random);
        if (draw(&random, 4) == 0)
            write_any(&entry->pair.receiver.verdicts, &random);
        if (draw(&random, 4096) == 0)
            attach_again(PAIR_RECEIVER);
    }
    is_over = true;
    return NULL;
}

/* Wherever the next record begins in the last part of the ring, it would lead out of it. */
static void lead_out(uint8_t *memory, uint64_t bytes)
{
    for (uint64_t left = shape.ring_capacity / RING_LARGEST_PART; left > 0; left -= 8) {
        uint64_t word = ring_word((uint32_t)left, RING_RECORD);

        *(volatile uint64_t *)(void *)(memory + bytes - left) = word;
        n_scribbles++;
    }
}

/* Where it writes, and what: mostly what might pass. */
static void scribble(uint8_t *memory, uint64_t bytes, uint64_t *random)
{
    uint64_t place = draw(random, bytes / 8) * 8, there, word;

    if (draw(random, 4) == 0) /* a position or a gate */
        place = PAIR_PAGE_BYTES * (1 + draw(random, 2)) + 8 * draw(random, 2) + PAIR_LINE_BYTES * draw(random, 2);
    memcpy(&there, memory + place, 8);
    switch (draw(random, 6)) {
    case 0:
        word = mixed(*random);
        break;
    case 1:
        word = ring_word((uint32_t)draw(random, shape.ring_capacity / 8 + 16), RING_RECORD);
        break;
    case 2:
        word = ring_word((uint32_t)draw(random, 64) * 8, RING_PADDING);
        break;
    case 3:
        word = there + 8 * draw(random, 1024) - 4096;
        break;
    case 4:
        word = there ^ UINT64_C(1) << draw(random, 64);
        break;
    default:
        word = 0;
    }
    *(volatile uint64_t *)(void *)(memory + place) = word;
    n_scribbles++;
}

static void *run_scribbler(void *argument)
{
    uint64_t bytes = pair_total_bytes(&shape), random = n_rounds << 32 | UINT64_C(1) << 63;
    uint64_t pause = draw(&random, 4) ? draw(&random, 100000) : 0;
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

    (void)argument;
    CHECK(memory != MAP_FAILED);
    do {
        for (volatile uint64_t left = pause; left > 0 && !is_over; left--)
            ;
        if (draw(&random, 64) == 0)
            lead_out(memory, bytes);
        else
            scribble(memory, bytes, &random);
    } while (!is_over);
    munmap(memory, bytes);
    return NULL;
}

static void run_round(void)
{
    void *(*const runs[])(void *) = {run_sender, run_receiver, run_scribbler};
    struct mailbox_entry receiver = {0};
    struct pair sender;
    void *arguments[] = {&sender, &receiver, NULL};
    uint64_t refused_before = n_refused;
    pthread_t threads[3];

    CHECK(pair_create(&shape, false, &memfd) == 0);
    CHECK(pair_attach(&sender, memfd, &shape, PAIR_SENDER) == 0);
    CHECK(pair_attach(&receiver.pair, memfd, &shape, PAIR_RECEIVER) == 0);
    is_over = false;
    for (unsigned i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, runs[i], arguments[i]) == 0);
    for (unsigned i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    pair_detach(&sender);
    pair_detach(&receiver.pair);
    close(memfd);
    n_rounds++;
    n_broken += n_refused > refused_before;
}

int main(int argc, char **argv)
{
    time_t end = time(NULL) + (argc > 1 && strcmp(argv[1], "long") == 0 ? 60 : 1) + 1;

#if defined(__SANITIZE_THREAD__)
    return EXIT_SKIPPED; /* every access here is a race */
#endif
    while (time(NULL) < end || !n_broken || !n_parsed || !n_attached)
        run_round();
    printf(
        "%llu pairs, %llu of them broken by %llu scribbles; %llu records written, %llu read, %llu of them parsed; "
        "%llu late attachments\n",
        (unsigned long long)n_rounds, (unsigned long long)n_broken, (unsigned long long)n_scribbles,
        (unsigned long long)n_written, (unsigned long long)n_read, (unsigned long long)n_parsed,
        (unsigned long long)n_attached);
    CHECK(n_rounds > 0 && n_scribbles > 0 && n_written > 0 && n_read > 0);
    return EXIT_SUCCESS;
}
