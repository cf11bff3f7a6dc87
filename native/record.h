/*
 * What a record of a direct lane and a verdict on it consist of, as bytes. SPDX-License-Identifier: MIT
 *
 * A record, in the pair's ring (numbers little-endian):
 *
 *     0        1        2              4              8
 *     +--------+--------+--------------+--------------+
 *     | content| flags  | details_bytes| 0            |
 *     +--------+--------+--------------+--------------+
 *     | sent_ns: CLOCK_REALTIME, when it was written  |
 *     +-----------------------------------------------+
 *     | deadline_ns: CLOCK_BOOTTIME, with RECORD_DEADLINE only
 *     +-----------------------------------------------+
 *     | details: msgpack, as in clients/PROTOCOL.md   |
 *     | body                                          |
 *
 * With RECORD_POOLED the body lies in a block of the pair's pool, and where else it is stands a reference to it of 32
 * bytes and nothing more: pool.h.
 *
 * A verdict, in the reverse ring: the position of the record that it is about, the state that record has reached, and
 * the reason in UTF-8, or the reply's body:
 *
 *     0                       8        9        10             16
 *     +-----------------------+--------+--------+--------------+
 *     | position              | state  | content| 0            | reason or body
 *     +-----------------------+--------+--------+--------------+
 *
 * A message's id is made of the pair's number and the record's position, so both ends know it: record_id().
 */
#ifndef AGENTD_RECORD_H
#define AGENTD_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum record_content { RECORD_BYTES = 0, RECORD_TEXT = 1, RECORD_JSON = 2, RECORD_N_CONTENTS = 3 };

enum record_flags {
    RECORD_ASKED = 1,    /* the sender wants a verdict */
    RECORD_DEADLINE = 2, /* of no use after its deadline */
    RECORD_STOP = 4,     /* the receiver is asked to stop: for its library, not for the application */
    RECORD_REQUEST = 8,  /* the sender waits for a reply */
    RECORD_POOLED = 16,  /* the body lies in the pool */
    RECORD_FLAGS = 31,
};

enum record_state {
    RECORD_ACKED = 1,
    RECORD_EXPIRED = 2,
    RECORD_DEAD = 3,
    RECORD_REPLIED = 4, /* the reply, which acks */
    RECORD_SAVING = 5,  /* of a file: so many of its bytes are saved; the first time it asks for them. Ends nothing */
    RECORD_SAVED = 6,   /* of a file: it is whole, under its name. Ends nothing */
    RECORD_N_STATES = 7,
};

struct record_header {
    uint8_t content;
    uint8_t flags;
    uint16_t details_bytes;
    uint32_t zero;
    uint64_t sent_ns;
};

/* Where a body lies that is not in the ring. What each number means, and may be, stands in pool.h. */
struct record_reference {
    uint32_t slot;
    uint32_t zero;
    uint64_t generation;
    uint64_t offset;
    uint64_t size;
};

struct record_verdict {
    uint64_t position;
    uint8_t state;
    uint8_t content;
    uint8_t zero[6];
};

_Static_assert(sizeof(struct record_header) == 16, "other builds and languages read it");
_Static_assert(sizeof(struct record_reference) == 32, "other builds and languages read it");
_Static_assert(sizeof(struct record_verdict) == 16, "other builds and languages read it");

/* A reason in a verdict is cut to this. */
#define RECORD_MAX_REASON 104u
/* What a verdict takes in the reverse ring at most, its word included, if it is no reply. */
#define RECORD_VERDICT_BYTES (8u + (unsigned)sizeof(struct record_verdict) + RECORD_MAX_REASON)

/*
 * The ids of direct messages have their highest bit set; a pair's ids come again after 8 TiB. People name a message by
 * the lowest bits of its id: each pair begins somewhere else, so that these differ.
 */
static inline uint64_t record_id(uint64_t number, uint64_t position)
{
    uint64_t place = (position / 8 + number * UINT64_C(0x9E3779B97F)) & UINT64_C(0xFFFFFFFFFF);

    return UINT64_C(1) << 63 | (number & 0x7FFFFF) << 40 | place;
}

/* A record's parts, in the memory it was parsed from. */
struct record {
    struct record_header header;
    uint64_t deadline_ns; /* 0: none */
    const uint8_t *details;
    const uint8_t *body;
    uint32_t body_bytes;
    struct record_reference reference; /* with RECORD_POOLED only: pool_find() must look at it before anybody uses it */
};

/* How many bytes stand before the body. */
static inline uint32_t record_overhead(uint8_t flags, uint16_t details_bytes)
{
    return (uint32_t)sizeof(struct record_header) + (flags & RECORD_DEADLINE ? 8 : 0) + details_bytes;
}

/* Eight bytes, loaded once: the compiler may not come back for them, whatever the other end writes meanwhile. */
static inline uint64_t record_load(const uint8_t *bytes)
{
    struct unaligned {
        uint64_t word;
    } __attribute__((packed, may_alias));

    return ((const volatile struct unaligned *)(const void *)bytes)->word;
}

/* The body is a reference: true, and its numbers are our own; false when it can't be one. */
static inline bool record_parse_reference(struct record *record)
{
    uint64_t words[sizeof record->reference / 8];

    if (record->body_bytes != sizeof words)
        return false;
    for (unsigned i = 0; i < sizeof words / 8; i++)
        words[i] = record_load(record->body + 8 * i);
    memcpy(&record->reference, words, sizeof record->reference);
    return record->reference.zero == 0;
}

/*
 * Take apart what the other end wrote: true, or false when it can't be a record. Each number is loaded once, into
 * `record`; the body and the details still lie in shared memory, so copy them before you look into them.
 */
static inline bool record_parse(const uint8_t *bytes, uint32_t size, struct record *record)
{
    uint64_t words[2];
    uint32_t overhead;

    if (size < sizeof record->header)
        return false;
    words[0] = record_load(bytes);
    words[1] = record_load(bytes + 8);
    memcpy(&record->header, words, sizeof record->header);
    if (record->header.flags == 0 && record->header.details_bytes == 0) {
        /* Most have nothing before the body; the processor guesses so, and reads on before the header is here. */
        record->deadline_ns = 0;
        record->details = record->body = bytes + sizeof record->header;
        record->body_bytes = size - (uint32_t)sizeof record->header;
        return record->header.content < RECORD_N_CONTENTS;
    }
    overhead = record_overhead(record->header.flags, record->header.details_bytes);
    if (record->header.content >= RECORD_N_CONTENTS || record->header.flags & ~RECORD_FLAGS || overhead > size)
        return false;
    record->deadline_ns = 0;
    bytes += sizeof record->header;
    if (record->header.flags & RECORD_DEADLINE) {
        record->deadline_ns = record_load(bytes);
        bytes += sizeof record->deadline_ns;
    }
    record->details = bytes;
    record->body = bytes + record->header.details_bytes;
    record->body_bytes = size - overhead;
    return !(record->header.flags & RECORD_POOLED) || record_parse_reference(record);
}

/* Write what stands before the body; where the body goes. */
static inline uint8_t *
record_write(uint8_t *bytes, const struct record_header *header, uint64_t deadline_ns, const void *details)
{
    memcpy(bytes, header, sizeof *header);
    bytes += sizeof *header;
    if (header->flags & RECORD_DEADLINE) {
        memcpy(bytes, &deadline_ns, sizeof deadline_ns);
        bytes += sizeof deadline_ns;
    }
    if (header->details_bytes)
        memcpy(bytes, details, header->details_bytes);
    return bytes + header->details_bytes;
}

#endif
