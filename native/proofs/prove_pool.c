/*
 * Large bodies by way of the pool, between honest ends and under a peer that writes anything anywhere.
 *
 *     prove_pool [long]
 *
 * A sender fills blocks and hands them over, a receiver reads them and gives them back, in any order and late. In half
 * of the rounds both are alone, and every byte must arrive. In the others a third thread scribbles over the words, the
 * ring and the blocks, and some references lead anywhere: bodies may be spoiled then, but what the sender knows of its
 * pool stays whole, and the receiver never looks outside the blocks.
 */
#define _GNU_SOURCE
#include "guard.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../pool.h"
#include "ends.h"

static const struct pair_shape shape = {
    .lane = PAIR_HIGH,
    .number = 13,
    .ring_capacity = 4096,
    .verdict_capacity = RING_MIN_CAPACITY,
    .pool_capacity = PAIR_POOL_GRAIN};

enum { ROUND_STEPS = 3000, PATIENCE = 100000, MOST_KEPT = 8 };

static struct pair sender, receiver;
static struct pool pool;
static bool hostile; /* this round */
static int memfd;
static _Atomic bool is_over, is_sent; /* this round: somebody had enough of the pair; nothing more comes */
static _Atomic uint64_t n_sent, n_read, n_spoiled, n_refused, n_full, n_scribbles;
static uint64_t n_rounds;

static uint64_t draw(uint64_t *random, uint64_t below)
{
    return mixed((*random)++) % below;
}

/* All pages are in one block or one run, and no two runs touch. */
static void check_whole(void)
{
    uint8_t seen[PAIR_POOL_GRAIN / POOL_PAGE_BYTES] = {0};
    uint32_t n_used = 0, n_pages = 0;

    for (uint32_t i = 0; i < POOL_SLOTS; i++) {
        n_used += pool.slots[i].n_pages > 0;
        for (uint32_t page = 0; page < pool.slots[i].n_pages; page++) {
            CHECK(pool.slots[i].first_page + page < sizeof seen);
            seen[pool.slots[i].first_page + page]++;
        }
    }
    for (uint32_t i = 0; i < pool.n_free; i++) {
        CHECK(pool.free[i].n_pages > 0);
        CHECK(i == 0 || pool.free[i - 1].first_page + pool.free[i - 1].n_pages < pool.free[i].first_page);
        for (uint32_t page = 0; page < pool.free[i].n_pages; page++) {
            CHECK(pool.free[i].first_page + page < sizeof seen);
            seen[pool.free[i].first_page + page]++;
        }
    }
    for (size_t page = 0; page < sizeof seen; page++)
        n_pages += seen[page] == 1;
    CHECK(n_pages == sizeof seen && n_used == pool.n_used && pool.n_out <= n_used);
}

/* What might pass for a word, or a number of a reference, or lead just out of the blocks. */
static uint64_t scribble(uint64_t *random)
{
    uint64_t blocks = sender.pool_offset + POOL_PAGE_BYTES;

    switch (draw(random, 6)) {
    case 0:
        return mixed(*random);
    case 1:
        return draw(random, 2 * ROUND_STEPS); /* a generation, perhaps */
    case 2:
        return blocks + draw(random, 3 * PAIR_POOL_GRAIN) - PAIR_POOL_GRAIN;
    case 3:
        return draw(random, 2 * PAIR_POOL_GRAIN);
    case 4:
        return draw(random, 2 * POOL_SLOTS); /* a slot */
    default:
        return UINT64_C(1) << draw(random, 64);
    }
}

/* One body, with its number as details: whether there was room. */
static bool send_one(uint64_t number, uint64_t *random)
{
    struct record_header header = {.flags = RECORD_POOLED, .details_bytes = sizeof number};
    uint32_t whole = record_overhead(header.flags, header.details_bytes) + (uint32_t)sizeof(struct record_reference);
    uint64_t size = draw(random, draw(random, 4) ? 3 * POOL_PAGE_BYTES : PAIR_POOL_GRAIN + 1);
    struct record_reference reference;
    uint8_t *room = NULL;
    int error = ring_claim(&sender.sender.ring, whole, &room);

    if (!error)
        error = pool_allocate(&pool, size, &reference);
    check_whole();
    CHECK(error == 0 || error == -EAGAIN || (hostile && error == -EPROTO));
    if (error) {
        n_full++;
        ring_abort(&sender.sender.ring);
        is_over |= error == -EPROTO;
        return false;
    }
    CHECK(reference.offset >= sender.pool_offset + POOL_PAGE_BYTES && reference.offset + size <= sender.total_bytes);
    CHECK(pool_populate(&pool, &reference) == 0);
    pool_is_populated(&pool, &reference);
    if (draw(random, 16) == 0) {
        CHECK(pool_take_back(&pool, &reference)); /* thought better of it */
        ring_abort(&sender.sender.ring);
        return true;
    }
    body_fill(pool_block(&pool, &reference), (uint32_t)size, number);
    room = record_write(room, &header, 0, &number);
    pool_hand_over(&pool, &reference);
    if (hostile && draw(random, 64) == 0) { /* a sender of that kind */
        uint64_t word = scribble(random), place = draw(random, 4) * 8;

        memcpy((uint8_t *)&reference + place, &word, place ? 8 : 4); /* a slot is half a word */
    }
    memcpy(room, &reference, sizeof reference);
    ring_commit(&sender.sender.ring, whole);
    n_sent++;
    return true;
}

static void *run_sender(void *argument)
{
    uint64_t random = n_rounds << 32, number = 0;

    (void)argument;
    for (unsigned n_idle = 0; number < ROUND_STEPS && n_idle < PATIENCE && !is_over;) {
        if (send_one(number, &random)) {
            number++;
            n_idle = 0;
        } else {
            /* Honest ones wait for each other; words that were scribbled over may never come back. */
            n_idle += hostile;
            sched_yield();
        }
        if (draw(&random, 64) == 0)
            CHECK(pool_trim(&pool, draw(&random, PAIR_POOL_GRAIN)) >= 0);
    }
    is_sent = true;
    return NULL;
}

static void read_block(const struct record *record, uint64_t number)
{
    const uint8_t *blocks = receiver.memory + receiver.pool_offset + POOL_PAGE_BYTES;

    CHECK(record->reference.slot < POOL_SLOTS);
    CHECK(record->body >= blocks && record->body_bytes <= PAIR_POOL_GRAIN);
    CHECK((uint64_t)(record->body - blocks) + record->body_bytes <= PAIR_POOL_GRAIN);
    if (!body_is(record->body, record->body_bytes, number, false)) {
        CHECK(hostile);
        n_spoiled++;
    }
    n_read++;
}

struct kept {
    struct record record;
    uint64_t number;
};

/* Look at one of those that were kept, and give it back. */
static void finish(struct kept *kept, unsigned *n_kept, unsigned which)
{
    read_block(&kept[which].record, kept[which].number);
    pool_return(&receiver, &kept[which].record.reference);
    kept[which] = kept[--*n_kept];
}

/* The next record, if there is one: 1; 0; or -EPROTO. */
static int take(struct kept *kept)
{
    struct ring_reader *ring = &receiver.receiver.ring;
    const uint8_t *bytes;
    uint8_t *copy;
    uint32_t size;
    int found = ring_peek(ring, &bytes, &size);

    if (found != 1)
        return found;
    copy = guard_read(ring, bytes, size);
    found = record_parse(copy, size, &kept->record) && kept->record.header.flags & RECORD_POOLED &&
                    pool_find(&receiver, &kept->record)
                ? 1
                : -EPROTO;
    kept->number = 0;
    if (found == 1 && kept->record.header.details_bytes == sizeof kept->number)
        memcpy(&kept->number, kept->record.details, sizeof kept->number);
    free(copy);
    ring_next(ring, size);
    ring_release(ring);
    return found;
}

static void *run_receiver(void *argument)
{
    uint64_t random = n_rounds << 32 | UINT64_C(1) << 62;
    struct kept kept[MOST_KEPT];
    unsigned n_kept = 0;

    (void)argument;
    while (!is_over) {
        bool nothing_comes = is_sent; /* looked at before the ring */
        int found = n_kept < MOST_KEPT ? take(&kept[n_kept]) : 0;

        CHECK(found >= 0 || hostile);
        if (found < 0) {
            n_refused++;
            is_over = true;
        } else if (found) {
            n_kept++;
        } else if (n_kept == 0 && nothing_comes) {
            break;
        } else if (n_kept == 0) {
            sched_yield();
        }
        if (n_kept && (found == 0 || draw(&random, 3) == 0))
            finish(kept, &n_kept, (unsigned)draw(&random, n_kept));
    }
    return NULL;
}

static void *run_scribbler(void *argument)
{
    uint64_t bytes = pair_total_bytes(&shape), random = n_rounds << 32 | UINT64_C(1) << 63;
    uint64_t pause = draw(&random, 20000), ring = sender.pool_offset - shape.ring_capacity;
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

    (void)argument;
    CHECK(memory != MAP_FAILED);
    while (!is_over && !is_sent) {
        uint64_t from = draw(&random, 2) ? ring : sender.pool_offset;
        uint64_t place = draw(&random, 8) ? from + draw(&random, 512) * 8 : draw(&random, bytes / 8) * 8;

        for (volatile uint64_t left = pause; left > 0 && !is_over; left--)
            ;
        *(volatile uint64_t *)(void *)(memory + place) = scribble(&random);
        n_scribbles++;
    }
    munmap(memory, bytes);
    return NULL;
}

static void run_round(void)
{
    void *(*const runs[])(void *) = {run_sender, run_receiver, run_scribbler};
    pthread_t threads[3];

    CHECK(pair_create(&shape, false, &memfd) == 0);
    CHECK(pair_attach(&sender, memfd, &shape, PAIR_SENDER) == 0);
    CHECK(pair_attach(&receiver, memfd, &shape, PAIR_RECEIVER) == 0);
    CHECK(pool_open(&pool, &sender) == 0);
    is_over = is_sent = false;
    for (unsigned i = 0; i < 2u + hostile; i++)
        CHECK(pthread_create(&threads[i], NULL, runs[i], NULL) == 0);
    for (unsigned i = 0; i < 2u + hostile; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    pool_collect(&pool);
    check_whole();
    CHECK(hostile || (pool.n_used == 0 && pool.n_free == 1)); /* nothing was lost */
    pair_detach(&sender);
    pair_detach(&receiver);
    close(memfd);
    n_rounds++;
}

int main(int argc, char **argv)
{
    time_t end = time(NULL) + (argc > 1 && strcmp(argv[1], "long") == 0 ? 60 : 1) + 1;

    while (time(NULL) < end || n_rounds < 2 || (n_scribbles && (!n_refused || !n_spoiled))) {
        run_round();
#if !defined(__SANITIZE_THREAD__) /* every scribble is a race */
        hostile = n_rounds % 16 != 0;
#endif
    }
    printf(
        "%llu pairs; %llu bodies sent, %llu read, %llu of them spoiled by %llu scribbles; %llu references refused; no "
        "room %llu times\n",
        (unsigned long long)n_rounds, (unsigned long long)n_sent, (unsigned long long)n_read,
        (unsigned long long)n_spoiled, (unsigned long long)n_scribbles, (unsigned long long)n_refused,
        (unsigned long long)n_full);
    return EXIT_SUCCESS;
}
