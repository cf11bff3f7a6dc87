/* The pool: no two blocks overlap, none is lost, and no page is kept in vain. */
#define _GNU_SOURCE
#include "pool_ends.h"

static void test_shapes(void)
{
    struct pair_shape wrong = shape;
    struct pair pair;
    struct pool pool;
    int fd;

    wrong.lane = PAIR_CRITICAL;
    CHECK(pair_create(&wrong, false, &fd) == -EINVAL);
    wrong = shape;
    wrong.pool_capacity += PAGE; /* no multiple of the grain */
    CHECK(pair_create(&wrong, false, &fd) == -EINVAL);
    wrong.pool_capacity = PAIR_POOL_MAX_CAPACITY + PAIR_POOL_GRAIN;
    CHECK(pair_create(&wrong, false, &fd) == -EINVAL);
    wrong.pool_capacity = UINT64_MAX - PAIR_POOL_GRAIN + 1;
    CHECK(pair_create(&wrong, false, &fd) == -EINVAL);
    CHECK(pair_create(&shape, true, &fd) == -EINVAL); /* a page of 2 MiB can't be given back by halves */

    CHECK(pair_create(&shape, false, &fd) == 0);
    wrong = shape;
    wrong.pool_capacity = 0;
    CHECK(pair_attach(&pair, fd, &wrong, PAIR_SENDER) == -EPROTO);
    wrong.pool_capacity = shape.pool_capacity * 2;
    CHECK(pair_attach(&pair, fd, &wrong, PAIR_SENDER) == -EPROTO);
    CHECK(pair_attach(&pair, fd, &shape, PAIR_RECEIVER) == 0);
    CHECK(pool_open(&pool, &pair) == -EINVAL); /* the sender alone hands blocks out */
    pair_detach(&pair);
    close(fd);

    wrong.pool_capacity = 0;
    CHECK(pair_create(&wrong, false, &fd) == 0);
    CHECK(pair_attach(&pair, fd, &wrong, PAIR_SENDER) == 0);
    CHECK(pool_open(&pool, &pair) == -EINVAL);
    pair_detach(&pair);
    close(fd);
}

/* The largest there can be costs nothing until it is used. */
static void test_it_is_sparse(void)
{
    struct pair_shape largest = shape;
    struct ends ends;
    uint64_t before;

    largest.pool_capacity = PAIR_POOL_MAX_CAPACITY;
    open_ends(&ends, &largest);
    before = taken_bytes(ends.fd);
    CHECK(before <= ends.sender.resident_bytes + PAGE);
    pair_lock(&ends.sender); /* refused or not: it does not fill the pool */
    CHECK(taken_bytes(ends.fd) == before);
    send(&ends, 3 * PAGE - 1);
    CHECK(taken_bytes(ends.fd) == before + 3 * PAGE);
    close_ends(&ends);
}

static void test_what_the_kernel_writes_needs_no_mapping(void)
{
    struct record_reference reference, next;
    uint64_t before;
    struct ends ends;

    open_ends(&ends, &shape);
    before = taken_bytes(ends.fd);
    reference = allocate(&ends, PAGE + 2);
    CHECK(taken_bytes(ends.fd) == before);
    CHECK(pwrite(ends.fd, "kernel", 6, (off_t)reference.offset + PAGE - 4) == 6);
    CHECK(memcmp(ends.receiver.memory + reference.offset + PAGE - 4, "kernel", 6) == 0);
    next = send(&ends, PAGE); /* over what the kernel has filled */
    pool_block(&ends.pool, &next)[0] = 1;
    CHECK(memcmp(pool_block(&ends.pool, &reference) + PAGE - 4, "kernel", 6) == 0);
    CHECK(pool_take_back(&ends.pool, &reference));
    pool_return(&ends.receiver, &next);
    CHECK(pool_trim(&ends.pool, 0) == 3 * PAGE);
    CHECK(taken_bytes(ends.fd) == before);
    close_ends(&ends);
}

static void test_the_lowest_that_fits(void)
{
    struct record_reference a, b, c, d, other;
    struct ends ends;

    open_ends(&ends, &shape);
    a = send(&ends, PAGE);
    CHECK(a.offset == ends.sender.pool_offset + PAGE && a.offset % PAGE == 0 && a.generation != 0);
    for (int i = 0; i < 1000; i++) { /* who keeps up has the same block again and again */
        pool_return(&ends.receiver, &a);
        b = send(&ends, PAGE);
        CHECK(b.offset == a.offset && b.generation != a.generation);
        a = b;
    }
    b = send(&ends, 2 * PAGE);
    c = send(&ends, 3 * PAGE);
    d = send(&ends, 1);
    CHECK(b.offset == a.offset + PAGE && c.offset == b.offset + 2 * PAGE && d.offset == c.offset + 3 * PAGE);
    pool_return(&ends.receiver, &b);
    other = send(&ends, 3 * PAGE); /* too large for that gap */
    CHECK(other.offset == d.offset + PAGE);
    pool_return(&ends.receiver, &c);
    other = send(&ends, 5 * PAGE); /* the two gaps are one */
    CHECK(other.offset == b.offset);
    close_ends(&ends);
}

static void test_no_room(void)
{
    struct record_reference blocks[N_PAGES], reference;
    struct ends ends;

    open_ends(&ends, &shape);
    CHECK(pool_allocate(&ends.pool, N_PAGES * PAGE + 1, &reference) == -EMSGSIZE);
    CHECK(pool_allocate(&ends.pool, UINT64_MAX, &reference) == -EMSGSIZE);
    for (int i = 0; i < N_PAGES; i++)
        blocks[i] = send(&ends, PAGE);
    CHECK(pool_allocate(&ends.pool, 0, &reference) == -EAGAIN);
    CHECK(ends.pool.n_out == N_PAGES && ends.pool.n_free == 0);
    pool_return(&ends.receiver, &blocks[17]);
    CHECK(pool_allocate(&ends.pool, PAGE + 1, &reference) == -EAGAIN); /* of pages in a row */
    CHECK(send(&ends, PAGE).offset == blocks[17].offset);
    for (int i = 0; i < N_PAGES; i++)
        if (i != 17)
            pool_return(&ends.receiver, &blocks[i]);
    CHECK(pool_allocate(&ends.pool, N_PAGES * PAGE, &reference) == -EAGAIN);
    CHECK(ends.pool.n_out == 1 && ends.pool.n_free == 2);
    close_ends(&ends);
}

static void test_no_slot(void)
{
    struct pair_shape large = shape;
    struct record_reference reference, first;
    struct ends ends;

    large.pool_capacity = 4 * PAIR_POOL_GRAIN * N_PAGES;
    open_ends(&ends, &large);
    first = send(&ends, PAGE);
    for (unsigned i = 1; i < POOL_SLOTS; i++)
        send(&ends, PAGE);
    CHECK(pool_allocate(&ends.pool, PAGE, &reference) == -EAGAIN);
    pool_return(&ends.receiver, &first);
    reference = allocate(&ends, PAGE);
    CHECK(reference.slot == first.slot);
    close_ends(&ends);
}

/* What was not sent after all. */
static void test_taking_back(void)
{
    struct record_reference reference, again;
    struct ends ends;

    open_ends(&ends, &shape);
    reference = allocate(&ends, N_PAGES * PAGE);
    CHECK(pool_take_back(&ends.pool, &reference));
    CHECK(!pool_take_back(&ends.pool, &reference)); /* once */
    again = allocate(&ends, PAGE);
    CHECK(again.slot == reference.slot && !pool_take_back(&ends.pool, &reference)); /* another's by now */
    pool_hand_over(&ends.pool, &reference);
    CHECK(ends.pool.n_out == 0);
    pool_hand_over(&ends.pool, &again);
    pool_hand_over(&ends.pool, &again);
    CHECK(ends.pool.n_out == 1);
    CHECK(pool_take_back(&ends.pool, &again)); /* promised, and never committed */
    CHECK(ends.pool.n_out == 0 && ends.pool.n_used == 0 && ends.pool.n_free == 1);
    close_ends(&ends);
}

static void test_generations_wrap(void)
{
    struct record_reference reference;
    struct ends ends;

    open_ends(&ends, &shape);
    ends.pool.generation = UINT64_MAX - 2;
    for (int i = 0; i < 6; i++) {
        reference = send(&ends, PAGE);
        CHECK(reference.generation != 0);
        pool_collect(&ends.pool);
        CHECK(ends.pool.n_out == 1);
        pool_return(&ends.receiver, &reference);
        pool_collect(&ends.pool);
        CHECK(ends.pool.n_out == 0);
    }
    CHECK(reference.generation == 4);
    close_ends(&ends);
}

static void test_trimming(void)
{
    struct record_reference a, b;
    struct ends ends;
    uint64_t before;

    open_ends(&ends, &shape);
    before = taken_bytes(ends.fd);
    a = send(&ends, 4 * PAGE);
    b = send(&ends, 8 * PAGE);
    CHECK(taken_bytes(ends.fd) == before + 12 * PAGE);
    CHECK(pool_trim(&ends.pool, 0) == 0); /* all of it is in use */
    pool_return(&ends.receiver, &b);
    CHECK(pool_trim(&ends.pool, 0) == 8 * PAGE); /* what lies behind the last that is */
    CHECK(taken_bytes(ends.fd) == before + 4 * PAGE);
    b = send(&ends, 20 * PAGE); /* there again, and writable */
    memset(pool_block(&ends.pool, &b), 7, 20 * PAGE);
    CHECK(taken_bytes(ends.fd) == before + 24 * PAGE);
    pool_return(&ends.receiver, &a);
    pool_return(&ends.receiver, &b);
    CHECK(pool_trim(&ends.pool, 3 * PAGE - 1) == 21 * PAGE); /* a warm part */
    CHECK(taken_bytes(ends.fd) == before + 3 * PAGE);
    CHECK(pool_trim(&ends.pool, UINT64_MAX) == 0);
    CHECK(pool_trim(&ends.pool, 0) == 3 * PAGE && pool_trim(&ends.pool, 0) == 0);
    CHECK(taken_bytes(ends.fd) == before);
    close_ends(&ends);
}

/* Against a model: which pages belong to whom. */
static void test_at_random(void)
{
    enum { STEPS = 40000, MOST = 12 };
    uint64_t owner[N_PAGES] = {0}, random = 1, n_full = 0;
    struct record_reference blocks[MOST];
    bool out[MOST];
    unsigned n = 0;
    struct ends ends;

    open_ends(&ends, &shape);
    for (int step = 0; step < STEPS; step++) {
        uint64_t what = mixed(random++) % 8, free_pages = 0, used = 0;

        if (what < 4 && n < MOST) {
            uint64_t most = mixed(random++) % 3 ? 6 * PAGE : 40 * PAGE, size = mixed(random++) % most, row = 0;
            uint64_t need = size ? (size + PAGE - 1) / PAGE : 1;
            struct record_reference made;
            int error = pool_allocate(&ends.pool, size, &made);

            if (error) {
                CHECK(error == -EAGAIN);
                n_full++;
                for (unsigned page = 0; page < N_PAGES; page++) { /* it was right: there are not so many in a row */
                    row = owner[page] ? 0 : row + 1;
                    CHECK(row < need);
                }
                continue;
            }
            for (uint64_t page = 0; page < need; page++) {
                uint64_t *whose = &owner[(made.offset - ends.pool.blocks_offset) / PAGE + page];

                CHECK(*whose == 0);
                *whose = made.generation;
            }
            out[n] = what < 3;
            if (out[n])
                pool_hand_over(&ends.pool, &made);
            blocks[n++] = made;
        } else if (n > 0) {
            unsigned which = (unsigned)(mixed(random++) % n);

            for (unsigned page = 0; page < N_PAGES; page++)
                if (owner[page] == blocks[which].generation)
                    owner[page] = 0;
            if (out[which]) {
                pool_return(&ends.receiver, &blocks[which]);
                pool_collect(&ends.pool);
            } else {
                CHECK(pool_take_back(&ends.pool, &blocks[which]));
            }
            n--;
            blocks[which] = blocks[n];
            out[which] = out[n];
        }
        if (what == 7)
            CHECK(pool_trim(&ends.pool, mixed(random++) % (N_PAGES * PAGE)) >= 0);
        for (unsigned page = 0; page < N_PAGES; page++)
            used += owner[page] != 0;
        for (uint32_t i = 0; i < ends.pool.n_free; i++) {
            const struct pool_run *run = &ends.pool.free[i];

            CHECK(run->n_pages > 0);
            free_pages += run->n_pages;
            CHECK(i == 0 || run[-1].first_page + run[-1].n_pages < run->first_page); /* else they were one */
            for (uint32_t page = 0; page < run->n_pages; page++)
                CHECK(owner[run->first_page + page] == 0);
        }
        CHECK(used + free_pages == N_PAGES && ends.pool.n_used == n);
    }
    CHECK(n_full > 100);
    close_ends(&ends);
}

int main(void)
{
    test_shapes();
    test_it_is_sparse();
    test_what_the_kernel_writes_needs_no_mapping();
    test_the_lowest_that_fits();
    test_no_room();
    test_no_slot();
    test_taking_back();
    test_generations_wrap();
    test_trimming();
    test_at_random();
    return EXIT_SUCCESS;
}
