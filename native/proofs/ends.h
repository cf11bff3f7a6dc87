/*
 * What the proofs have in common: records that tell their number, and rings that begin anywhere.
 * SPDX-License-Identifier: MIT
 */
#ifndef AGENTD_ENDS_H
#define AGENTD_ENDS_H

#include "../pair.h"
#include "../tests/check.h"

/* A number that looks random and is the same in both processes. */
static inline uint64_t mixed(uint64_t number)
{
    number = (number + 1) * UINT64_C(0x9E3779B97F4A7C15);
    number = (number ^ number >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    number = (number ^ number >> 27) * UINT64_C(0x94D049BB133111EB);
    return number ^ number >> 31;
}

/* Small as a rule, now and then as large as the ring takes; any number of bytes. */
static inline uint32_t body_size(uint64_t number, uint32_t largest)
{
    uint64_t random = mixed(number);
    uint32_t limit = random % 64 == 0 ? largest : 48;

    return (uint32_t)(random >> 8) % (limit + 1);
}

static inline uint64_t body_word(uint64_t number, uint32_t place)
{
    return mixed(number) + place * UINT64_C(0x0101010101010101);
}

static inline void body_fill(uint8_t *body, uint32_t size, uint64_t number)
{
    uint64_t word;
    uint32_t i;

    for (i = 0; i + 8 <= size; i += 8) {
        word = body_word(number, i);
        memcpy(body + i, &word, 8);
    }
    word = body_word(number, i);
    memcpy(body + i, &word, size - i);
}

/* Whether it is that body. With `holes` it may have zeros in place of any of its bytes. */
static inline bool body_is(const uint8_t *body, uint32_t size, uint64_t number, bool holes)
{
    for (uint32_t i = 0; i < size; i += 8) {
        uint64_t expected = body_word(number, i), found = expected;

        memcpy(&found, body + i, size - i < 8 ? size - i : 8);
        if (found == expected)
            continue;
        if (!holes)
            return false;
        for (unsigned bit = 0; bit < 64; bit += 8)
            if ((uint8_t)(found >> bit) && (uint8_t)(found >> bit) != (uint8_t)(expected >> bit))
                return false;
    }
    return true;
}

/*
 * Attach to a fresh pair whose rings begin at `position` and not at 0. Both ends must do so; one may send before the
 * other has come, as in use.
 */
static inline void
open_at(struct pair *pair, int fd, const struct pair_shape *shape, enum pair_end end, uint64_t position)
{
    _Atomic uint64_t *read_to, *verdicts_read_to;
    uint64_t size = shape->ring_capacity, verdicts_size = shape->verdict_capacity;
    struct pair_sender_page *sender_page;

    CHECK(pair_attach(pair, fd, shape, end) == 0);
    sender_page = (void *)(pair->memory + 2 * PAIR_PAGE_BYTES);
    read_to = &pair->receiver_page->position;
    verdicts_read_to = &sender_page->verdict_position;
    atomic_store(read_to, position);
    atomic_store(verdicts_read_to, position);
    if (end == PAIR_SENDER) {
        CHECK(ring_open_writer(&pair->sender.ring, pair->sender.ring.data, size, read_to, position) == 0);
        CHECK(
            ring_open_reader(
                &pair->sender.verdicts, pair->sender.verdicts.data, verdicts_size, verdicts_read_to, position) == 0);
    } else {
        CHECK(ring_open_reader(&pair->receiver.ring, pair->receiver.ring.data, size, read_to, position) == 0);
        CHECK(
            ring_open_writer(
                &pair->receiver.verdicts, pair->receiver.verdicts.data, verdicts_size, verdicts_read_to, position) ==
            0);
    }
}

#endif
