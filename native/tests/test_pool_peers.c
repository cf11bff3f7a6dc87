/* The pool between two ends: what the one says harms nobody but itself, and every byte arrives. */
#define _GNU_SOURCE
#include "pool_ends.h"

#include <pthread.h>
#include <sys/wait.h>

#include "../clock.h"

/* Whatever stands in the words, a block is taken back by its own generation alone, and one that is being filled by
 * none. */
static void test_hostile_words(void)
{
    struct record_reference held, out, forged;
    struct ends ends;

    open_ends(&ends, &shape);
    held = allocate(&ends, PAGE);
    out = send(&ends, PAGE);
    pool_return(&ends.receiver, &held);
    for (unsigned slot = 2; slot < POOL_SLOTS; slot++) {
        forged = (struct record_reference){.slot = slot, .generation = mixed(slot)};
        pool_return(&ends.receiver, &forged);
    }
    forged = out;
    for (int i = -3; i <= 3; i++) {
        forged.generation = out.generation + (uint64_t)i;
        if (i)
            pool_return(&ends.receiver, &forged);
    }
    pool_collect(&ends.pool);
    CHECK(ends.pool.n_used == 2 && ends.pool.n_out == 1);
    pool_hand_over(&ends.pool, &held);
    pool_collect(&ends.pool); /* it was given back before it was sent: the receiver's loss */
    CHECK(ends.pool.n_used == 1);
    close_ends(&ends);
}

static bool finds(const struct ends *ends, struct record_reference reference)
{
    struct record record = {.reference = reference};

    if (!pool_find(&ends->receiver, &record))
        return false;
    CHECK(record.body >= ends->receiver.memory + ends->receiver.pool_offset + PAGE);
    CHECK(record.body + record.body_bytes <= ends->receiver.memory + ends->receiver.total_bytes);
    return true;
}

static void test_references_are_checked(void)
{
    struct record_reference sound, wrong;
    struct pair_shape plain = shape;
    struct ends ends;
    struct pair pair;
    int fd;

    open_ends(&ends, &shape);
    sound = send(&ends, 2 * PAGE);
    CHECK(finds(&ends, sound));
    wrong = sound;
    wrong.slot = POOL_SLOTS;
    CHECK(!finds(&ends, wrong));
    wrong.slot = UINT32_MAX;
    CHECK(!finds(&ends, wrong));
    wrong = sound;
    wrong.generation = 0;
    CHECK(!finds(&ends, wrong));
    for (int bit = 0; bit < 64; bit++) {
        wrong = sound;
        wrong.offset = UINT64_C(1) << bit;
        CHECK(
            finds(&ends, wrong) ==
            (wrong.offset >= sound.offset && wrong.offset <= ends.sender.total_bytes - 2 * PAGE));
        wrong = sound;
        wrong.size = UINT64_C(1) << bit;
        CHECK(finds(&ends, wrong) == (wrong.size <= shape.pool_capacity));
        wrong.offset = UINT64_MAX - (UINT64_C(1) << bit) + 1;
        CHECK(!finds(&ends, wrong));
    }
    wrong = sound;
    wrong.offset--; /* a byte of the words */
    CHECK(!finds(&ends, wrong));
    wrong = sound;
    wrong.size = shape.pool_capacity;
    CHECK(finds(&ends, wrong));
    wrong.size++;
    CHECK(!finds(&ends, wrong));
    wrong = sound;
    wrong.offset = ends.sender.total_bytes - 1;
    wrong.size = 1;
    CHECK(finds(&ends, wrong));
    wrong.size = 2;
    CHECK(!finds(&ends, wrong));
    wrong.offset++;
    wrong.size = 0;
    CHECK(!finds(&ends, wrong));
    close_ends(&ends);

    /* A pair that has no pool has no block. */
    plain.pool_capacity = 0;
    CHECK(pair_create(&plain, false, &fd) == 0);
    CHECK(pair_attach(&pair, fd, &plain, PAIR_RECEIVER) == 0);
    for (uint64_t offset = 0; offset <= 2 * pair.total_bytes; offset += 8) {
        struct record record = {.reference = {.generation = 1, .offset = offset}};

        CHECK(!pool_find(&pair, &record));
    }
    pair_detach(&pair);
    close(fd);
}

/* What the record itself must be, before anybody looks into the pool. */
static void test_records(void)
{
    struct record_reference reference = {.slot = 1, .generation = 2, .offset = 3, .size = 4};
    struct record_header header = {.flags = RECORD_POOLED | RECORD_DEADLINE, .details_bytes = 2};
    uint8_t bytes[64] = {0}, *body = record_write(bytes, &header, 77, "de");
    uint32_t whole = (uint32_t)(body - bytes) + (uint32_t)sizeof reference;
    struct record record = {0};

    memcpy(body, &reference, sizeof reference);
    CHECK(record_parse(bytes, whole, &record));
    CHECK(memcmp(&record.reference, &reference, sizeof reference) == 0 && record.deadline_ns == 77);
    CHECK(!record_parse(bytes, whole - 1, &record));
    CHECK(!record_parse(bytes, whole + 1, &record));
    body[4] = 1;
    CHECK(!record_parse(bytes, whole, &record));
}

struct returning {
    struct ends *ends;
    struct record_reference references[2];
};

static void *give_back_both(void *argument)
{
    struct returning *returning = argument;

    for (int i = 0; i < 2; i++)
        pool_return(&returning->ends->receiver, &returning->references[i]);
    return NULL;
}

static void test_waiting_for_returns(void)
{
    static const int64_t long_ns = 60000000000;
    struct returning returning;
    struct record_reference again;
    struct ends ends;
    pthread_t receiver;

    open_ends(&ends, &shape);
    returning.ends = &ends;
    CHECK(pool_await_returns(&ends.pool, 0));
    for (int i = 0; i < 2; i++)
        returning.references[i] = send(&ends, PAGE);
    CHECK(!pool_await_returns(&ends.pool, 0));
    CHECK(!pool_await_returns(&ends.pool, clock_monotonic_ns() + 1000));
    CHECK(ends.pool.n_out == 2);
    CHECK(pthread_create(&receiver, NULL, give_back_both, &returning) == 0);
    CHECK(pool_await_returns(&ends.pool, clock_monotonic_ns() + long_ns));
    CHECK(pthread_join(receiver, NULL) == 0);
    again = send(&ends, PAGE);
    CHECK(again.offset == returning.references[0].offset);
    close_ends(&ends);
}

/* Two processes: every byte of every body arrives, though blocks are used again and again. */
static void test_traffic(void)
{
    enum { BODIES = 3000 };
    struct ends ends;
    int status;
    pid_t child;

    open_ends(&ends, &shape);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct pair pair;

        CHECK(pair_attach(&pair, ends.fd, &shape, PAIR_RECEIVER) == 0);
        for (uint64_t number = 0; number < BODIES;) {
            const uint8_t *bytes;
            uint32_t size;
            struct record record = {0};

            if (ring_peek(&pair.receiver.ring, &bytes, &size) == 0)
                continue;
            CHECK(
                record_parse(bytes, size, &record) && record.header.flags == RECORD_POOLED &&
                pool_find(&pair, &record));
            CHECK(record.body_bytes == 1 + mixed(number) % (9 * PAGE));
            for (uint32_t i = 0; i < record.body_bytes; i++)
                CHECK(record.body[i] == (uint8_t)(number + i));
            pool_return(&pair, &record.reference);
            ring_next(&pair.receiver.ring, size);
            ring_release(&pair.receiver.ring);
            number++;
        }
        _exit(0);
    }
    for (uint64_t number = 0; number < BODIES;) {
        struct record_header header = {.flags = RECORD_POOLED};
        uint64_t size = 1 + mixed(number) % (9 * PAGE);
        struct record_reference reference;
        uint8_t *room = NULL, *block;

        if (ring_claim(&ends.sender.sender.ring, sizeof header + sizeof reference, &room) == -EAGAIN ||
            pool_allocate(&ends.pool, size, &reference) == -EAGAIN)
            continue;
        CHECK(pool_populate(&ends.pool, &reference) == 0);
        pool_is_populated(&ends.pool, &reference);
        block = pool_block(&ends.pool, &reference);
        for (uint64_t i = 0; i < size; i++)
            block[i] = (uint8_t)(number + i);
        pool_hand_over(&ends.pool, &reference);
        room = record_write(room, &header, 0, "");
        memcpy(room, &reference, sizeof reference);
        ring_commit(&ends.sender.sender.ring, sizeof header + sizeof reference);
        number++;
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    pool_collect(&ends.pool);
    CHECK(ends.pool.n_out == 0 && ends.pool.n_used == 0 && ends.pool.n_free == 1);
    close_ends(&ends);
}

int main(void)
{
    test_hostile_words();
    test_references_are_checked();
    test_records();
    test_waiting_for_returns();
    test_traffic();
    return EXIT_SUCCESS;
}
