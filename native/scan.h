/*
 * Looking for records in the segments of a journal by pread: what recovery sees. SPDX-License-Identifier: MIT
 *
 * A disk that can't be read answers -EIO here, where a map would end the process.
 */
#ifndef AGENTD_SCAN_H
#define AGENTD_SCAN_H

#include <stddef.h>

#include "journal_files.h"
#include "journal_record.h"
#include "segment.h"

#define SCAN_WINDOW_BYTES (1u << 18)

struct scan {
    const struct journal_files *files;
    int directory;
    uint32_t seed;
    const struct segment *segments;
    size_t n_segments;

    int fd; /* of segment `open`; -1: none */
    size_t open;
    uint8_t *window; /* what was read of it, from `from` on */
    uint64_t from, n_bytes;
};

/* A place in the segments: which of them, and where in its file. */
struct scan_place {
    size_t segment;
    uint64_t offset;
};

/* -ENOMEM. */
int scan_start(
    struct scan *scan, const struct journal_files *files, int directory, uint32_t seed, const struct segment *segments,
    size_t n_segments);
void scan_end(struct scan *scan);

static inline uint64_t scan_position(const struct scan *scan, struct scan_place place)
{
    return scan->segments[place.segment].number << 32 | place.offset;
}

/* `size` bytes, SCAN_WINDOW_BYTES at most, that lie within the file. They are valid until the next call. 0 or -errno.
 */
int scan_bytes(struct scan *scan, struct scan_place place, uint64_t size, const uint8_t **bytes);

/* Whether there is a valid record, with a sequence greater than `sequence`: 1 and its header, 0, or -errno. */
int scan_record(struct scan *scan, struct scan_place place, uint64_t sequence, struct journal_header *header);

/*
 * The first place at `place` or behind it, but before segment `end`, which holds its own position, as a record does,
 * valid or not: 1, 0, or -errno. Every place is tried.
 */
int scan_candidate(struct scan *scan, struct scan_place *place, size_t end);

/*
 * The first such record at `place` or behind it, but before segment `end`: 1, and where it is; 0; -errno.
 */
int scan_search(
    struct scan *scan, struct scan_place *place, size_t end, uint64_t sequence, struct journal_header *header);

#endif
