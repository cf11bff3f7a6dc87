/* The bytes of one record of the journal: what stands where is in journal.h. SPDX-License-Identifier: MIT */
#ifndef AGENTD_JOURNAL_RECORD_H
#define AGENTD_JOURNAL_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "crc32c.h"

/* As it lies in the file, little-endian. */
struct journal_header {
    uint32_t crc;
    uint32_t size; /* of the body */
    uint64_t sequence;
    uint64_t synced_upto;
    uint64_t position;
    uint16_t type;
    uint16_t flags;
    uint32_t reserved;
};

_Static_assert(sizeof(struct journal_header) == 40, "it is the format");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the numbers change place on a big-endian machine");

/* A flag: the journal's own record, which no reader sees. It has no body. */
#define JOURNAL_OWN 1u

#define JOURNAL_HEADER_BYTES ((uint32_t)sizeof(struct journal_header))

/* What a record takes with its header and padding. */
static inline uint64_t journal_record_bytes(uint64_t size)
{
    return (JOURNAL_HEADER_BYTES + size + 7) & ~UINT64_C(7);
}

/* The checksum of a header and the body that follows; `seed` is that of the journal's id. */
static inline uint32_t journal_checksum(uint32_t seed, const struct journal_header *header, const void *body)
{
    uint32_t crc = crc32c(seed, &header->size, JOURNAL_HEADER_BYTES - (uint32_t)sizeof header->crc);

    return crc32c(crc, body, header->size);
}

/* Whether a header can be that of a record at `position`, of which `room` bytes are left. The checksum is not asked. */
static inline bool journal_header_fits(const struct journal_header *header, uint64_t position, uint64_t room)
{
    return header->position == position && header->sequence != 0 && header->synced_upto <= position &&
           header->flags <= JOURNAL_OWN && header->reserved == 0 && journal_record_bytes(header->size) <= room;
}

#endif
