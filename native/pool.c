/* The sender's side of a pool: handing blocks out and taking them back. What lies where stands in pool.h. */
#define _GNU_SOURCE
#include "pool.h"

#include "clock.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14, as attaching needs it */
#endif

_Static_assert(POOL_SLOTS * sizeof(uint64_t) <= POOL_PAGE_BYTES, "the words have one page");
_Static_assert(PAIR_POOL_MAX_CAPACITY / POOL_PAGE_BYTES <= UINT32_MAX, "pages are counted in 32 bits");
_Static_assert(PAIR_POOL_MAX_CAPACITY <= UINT32_MAX, "so are a body's bytes");
_Static_assert(PAIR_POOL_GRAIN % POOL_PAGE_BYTES == 0, "a pool is whole pages");

int pool_open(struct pool *pool, const struct pair *pair)
{
    if (!pair->pool_offset || pair->end != PAIR_SENDER)
        return -EINVAL;
    *pool = (struct pool){
        .memory = pair->memory,
        .blocks_offset = pair->pool_offset + POOL_PAGE_BYTES,
        .returns = (const _Atomic uint64_t *)(const void *)(pair->memory + pair->pool_offset),
        .n_pages = (uint32_t)(pair->shape.pool_capacity / POOL_PAGE_BYTES),
        .n_free = 1,
    };
    pool->free[0].n_pages = pool->n_pages;
    return 0;
}

static bool is_out(const struct pool *pool, uint32_t slot)
{
    return pool->out[slot / 64] >> slot % 64 & 1;
}

static uint32_t end_of(const struct pool *pool, const struct record_reference *reference)
{
    const struct pool_slot *slot = &pool->slots[reference->slot];

    return slot->first_page + slot->n_pages;
}

/* Whether it is still this block that is in the slot. */
static bool is_current(const struct pool *pool, const struct record_reference *reference)
{
    const struct pool_slot *slot = &pool->slots[reference->slot];

    return slot->n_pages && slot->generation == reference->generation;
}

static void remove_run(struct pool *pool, uint32_t at)
{
    pool->n_free--;
    memmove(&pool->free[at], &pool->free[at + 1], (pool->n_free - at) * sizeof pool->free[0]);
}

/* The pages are free again, as one run with those that they touch. */
static void free_pages(struct pool *pool, uint32_t first_page, uint32_t n_pages)
{
    uint32_t at = 0, end = pool->n_free;
    bool touches_last, touches_next;

    while (at < end) { /* the first run behind it */
        uint32_t middle = (at + end) / 2;

        if (pool->free[middle].first_page < first_page)
            at = middle + 1;
        else
            end = middle;
    }
    touches_last = at > 0 && pool->free[at - 1].first_page + pool->free[at - 1].n_pages == first_page;
    touches_next = at < pool->n_free && first_page + n_pages == pool->free[at].first_page;
    if (touches_last) {
        pool->free[at - 1].n_pages += n_pages;
        if (touches_next) {
            pool->free[at - 1].n_pages += pool->free[at].n_pages;
            remove_run(pool, at);
        }
    } else if (touches_next) {
        pool->free[at].first_page = first_page;
        pool->free[at].n_pages += n_pages;
    } else {
        /* There is a place: between any two runs lies a block that is in use, so runs are one more than slots at most.
         */
        memmove(&pool->free[at + 1], &pool->free[at], (pool->n_free - at) * sizeof pool->free[0]);
        pool->free[at] = (struct pool_run){first_page, n_pages};
        pool->n_free++;
    }
}

static void free_slot(struct pool *pool, uint32_t number)
{
    struct pool_slot *slot = &pool->slots[number];

    if (is_out(pool, number)) {
        pool->out[number / 64] &= ~(UINT64_C(1) << number % 64);
        pool->n_out--;
    }
    free_pages(pool, slot->first_page, slot->n_pages);
    slot->n_pages = 0;
    pool->n_used--;
}

void pool_collect(struct pool *pool)
{
    for (uint32_t i = 0; i < POOL_SLOTS / 64; i++) {
        for (uint64_t out = pool->out[i]; out; out &= out - 1) {
            uint32_t number = i * 64 + (uint32_t)__builtin_ctzll(out);
            /* PAIRS WITH the release in pool_return(). */
            uint64_t returned = atomic_load_explicit(&pool->returns[number], memory_order_acquire);

            if (returned == pool->slots[number].generation)
                free_slot(pool, number);
        }
    }
}

bool pool_await_returns(struct pool *pool, int64_t until_ns)
{
    do
        pool_collect(pool);
    while (pool->n_out && clock_monotonic_ns() < until_ns);
    return pool->n_out == 0;
}

int pool_allocate(struct pool *pool, uint64_t size, struct record_reference *reference)
{
    uint64_t n_pages = size / POOL_PAGE_BYTES + (size % POOL_PAGE_BYTES != 0 || size == 0);
    uint32_t number = 0, at = 0;

    if (n_pages > pool->n_pages)
        return -EMSGSIZE;
    pool_collect(pool);
    if (pool->n_used == POOL_SLOTS)
        return -EAGAIN;
    while (at < pool->n_free && pool->free[at].n_pages < n_pages)
        at++;
    if (at == pool->n_free)
        return -EAGAIN;
    while (pool->slots[number].n_pages)
        number++;
    if (++pool->generation == 0) /* what a word has that nobody ever wrote */
        pool->generation = 1;
    pool->slots[number] = (struct pool_slot){pool->free[at].first_page, (uint32_t)n_pages, pool->generation};
    pool->n_used++;
    pool->free[at].first_page += (uint32_t)n_pages;
    pool->free[at].n_pages -= (uint32_t)n_pages;
    if (!pool->free[at].n_pages)
        remove_run(pool, at);
    *reference = (struct record_reference){
        .slot = number,
        .generation = pool->generation,
        .offset = pool->blocks_offset + (uint64_t)pool->slots[number].first_page * POOL_PAGE_BYTES,
        .size = size,
    };
    if (pool->touched < end_of(pool, reference))
        pool->touched = end_of(pool, reference);
    return 0;
}

int pool_populate(const struct pool *pool, const struct record_reference *reference)
{
    uint32_t end = end_of(pool, reference);
    uint8_t *from = pool->memory + pool->blocks_offset + (uint64_t)pool->populated * POOL_PAGE_BYTES;

    if (end <= pool->populated)
        return 0;
    /* From where all is there: what lies between is of blocks that the kernel wrote, or was left by ones that were. */
    if (madvise(from, (size_t)(end - pool->populated) * POOL_PAGE_BYTES, MADV_POPULATE_WRITE) == 0)
        return 0;
    return errno == EFAULT ? -ENOSPC : -errno;
}

void pool_is_populated(struct pool *pool, const struct record_reference *reference)
{
    /* Nothing below the end of a block in use is ever trimmed: what pool_populate() found or made is still there. */
    if (is_current(pool, reference) && pool->populated < end_of(pool, reference))
        pool->populated = end_of(pool, reference);
}

void pool_hand_over(struct pool *pool, const struct record_reference *reference)
{
    if (is_current(pool, reference) && !is_out(pool, reference->slot)) {
        pool->out[reference->slot / 64] |= UINT64_C(1) << reference->slot % 64;
        pool->n_out++;
    }
}

bool pool_take_back(struct pool *pool, const struct record_reference *reference)
{
    if (!is_current(pool, reference))
        return false;
    free_slot(pool, reference->slot);
    return true;
}

int64_t pool_trim(struct pool *pool, uint64_t keep_bytes)
{
    uint64_t keep = keep_bytes / POOL_PAGE_BYTES + (keep_bytes % POOL_PAGE_BYTES != 0);
    uint64_t bytes;

    pool_collect(pool);
    for (uint32_t i = 0; i < POOL_SLOTS; i++) {
        const struct pool_slot *slot = &pool->slots[i];

        if (slot->n_pages && keep < slot->first_page + slot->n_pages)
            keep = slot->first_page + slot->n_pages;
    }
    if (pool->touched <= keep)
        return 0;
    bytes = (pool->touched - keep) * POOL_PAGE_BYTES;
    if (madvise(pool->memory + pool->blocks_offset + keep * POOL_PAGE_BYTES, bytes, MADV_REMOVE) < 0)
        return -errno;
    pool->touched = (uint32_t)keep;
    if (pool->populated > keep)
        pool->populated = (uint32_t)keep;
    return (int64_t)bytes;
}
