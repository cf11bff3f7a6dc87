/*
 * The pool: where the large bodies of a pair travel, sender to receiver. SPDX-License-Identifier: MIT
 *
 * It is the tail of the pair's memory, and sparse: what nobody has used takes no page.
 *
 *     pool_offset           returns: a word of 64 bits for each slot, the receiver's to write; resident
 *     pool_offset + 4096    blocks: pool_capacity bytes, the sender's to write
 *
 * A block is pages in a row that hold one body. The record of such a body is RECORD_POOLED; where else its body is, it
 * has a reference:
 *
 *     0              4              8                       16                      24                      32
 *     +--------------+--------------+-----------------------+-----------------------+-----------------------+
 *     | slot         | 0            | generation            | offset                | size                  |
 *     +--------------+--------------+-----------------------+-----------------------+-----------------------+
 *      below 256                     never 0                 from where the pair's memory begins
 *
 * The sender alone hands blocks out, and all that it knows of them is private to it. The receiver gives one back by
 * storing its generation in the word of its slot: no block that is out has another's generation, so the word can't
 * overflow, and nothing but that one number is ever taken from it. A receiver that stores what it should not has blocks
 * overwritten that it still reads; nobody else sees those. A reference that leads out of the blocks is refused: who
 * wrote it is broken or hostile.
 *
 * Of all that are free, the lowest pages that are enough are handed out. So a sender whose receiver keeps up writes the
 * same few blocks over and over, while they are in the caches of both, and what was ever touched is one stretch from
 * the beginning: one number says what has pages, and the rest can be given back to the system in one call.
 *
 * Nothing here waits or allocates memory of its own. A full pool is an answer (-EAGAIN).
 */
#ifndef AGENTD_POOL_H
#define AGENTD_POOL_H

#include "pair.h"
#include "record.h"

#define POOL_SLOTS 256u
#define POOL_PAGE_BYTES 4096u

struct pool_slot {
    uint32_t first_page;
    uint32_t n_pages; /* 0: not in use */
    uint64_t generation;
};

struct pool_run {
    uint32_t first_page;
    uint32_t n_pages;
};

/* The sender's side. All of it is private to the sender; nothing of it lies in shared memory. */
struct pool {
    uint8_t *memory; /* of the pair */
    uint64_t blocks_offset;
    const _Atomic uint64_t *returns; /* in shared memory, the receiver's to write */
    uint32_t n_pages;
    uint32_t populated; /* so many pages from the first are there, and writing them can't fail */
    uint32_t touched;   /* none beyond has a page, whoever wrote it */
    uint32_t n_used;    /* slots: handed out, not taken back */
    uint32_t n_out;     /* of them, the receiver's */
    uint32_t n_free;    /* runs */
    uint64_t generation;
    uint64_t out[POOL_SLOTS / 64]; /* a bit for each slot that the receiver has */
    struct pool_slot slots[POOL_SLOTS];
    struct pool_run free[POOL_SLOTS + 1]; /* by page; no two of them touch */
};

/* For the sender's end of a pair that has one: 0, or -EINVAL. The pair must stay attached. */
int pool_open(struct pool *pool, const struct pair *pair);

/*
 * A block of `size` bytes: 0 and its reference. Its bytes are what somebody left there. -EMSGSIZE: no pool of this size
 * ever takes that; -EAGAIN: no room, or no slot, until the receiver gives something back.
 */
int pool_allocate(struct pool *pool, uint64_t size, struct record_reference *reference);

/* Where the block lies. To be written only after pool_populate(). */
static inline uint8_t *pool_block(const struct pool *pool, const struct record_reference *reference)
{
    return pool->memory + reference->offset;
}

/*
 * See that writing the block can't fail: its pages are allocated and in this mapping, or -ENOSPC or -ENOMEM says that
 * there are none. It changes nothing of the pool, so that it can run beside its other functions; pool_is_populated()
 * then remembers. What the kernel writes for us, into the memfd, needs neither.
 */
int pool_populate(const struct pool *pool, const struct record_reference *reference);
void pool_is_populated(struct pool *pool, const struct record_reference *reference);

/* Before its record is committed: the block is the receiver's from now on. */
void pool_hand_over(struct pool *pool, const struct record_reference *reference);

/*
 * Take a block back that the receiver will never hear of, handed over or not. False when it is not out any more: then
 * nothing happens.
 */
bool pool_take_back(struct pool *pool, const struct record_reference *reference);

/* Take back what the receiver has given back. pool_allocate() does so by itself. */
void pool_collect(struct pool *pool);

/* The same again and again, until nothing is the receiver's any more: true; or that time has come. */
bool pool_await_returns(struct pool *pool, int64_t until_ns);

/* Give the system the pages that are in no block and beyond the first `keep_bytes`; how many bytes that were, or
 * -errno. */
int64_t pool_trim(struct pool *pool, uint64_t keep_bytes);

/*
 * The receiver's side. A record that is RECORD_POOLED, as record_parse() left it: true, and its body is the block; or
 * false, when what it refers to is no block of this pair.
 */
static inline bool pool_find(const struct pair *pair, struct record *record)
{
    const struct record_reference *reference = &record->reference;
    uint64_t blocks_offset = pair->pool_offset + POOL_PAGE_BYTES, capacity = pair->shape.pool_capacity;
    uint64_t within = reference->offset - blocks_offset;

    if (reference->slot >= POOL_SLOTS || reference->generation == 0)
        return false;
    /* Below the first block it is a huge number. Without a pool nothing is within. */
    if (within >= capacity || reference->size > capacity - within)
        return false;
    record->body = pair->memory + reference->offset;
    record->body_bytes = (uint32_t)reference->size;
    return true;
}

/* The receiver has read the block, and reads it no more. The reference is one that pool_find() let pass. */
static inline void pool_return(const struct pair *pair, const struct record_reference *reference)
{
    _Atomic uint64_t *returns = (_Atomic uint64_t *)(void *)(pair->memory + pair->pool_offset);

    /* PAIRS WITH the acquire in pool_collect(): what the sender overwrites has been read. */
    atomic_store_explicit(&returns[reference->slot], reference->generation, memory_order_release);
}

#endif
