/*
 * One file of the journal: made ahead of need, opened, mapped, retired. SPDX-License-Identifier: MIT
 *
 * What a segment's bytes mean stands in journal.h. segment_prepare() touches files only and nothing of a journal that
 * is open: it can run in another thread.
 */
#ifndef AGENTD_SEGMENT_H
#define AGENTD_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "journal_files.h"
#include "journal_record.h"

#define SEGMENT_FIRST_RECORD 4096u /* where records begin */
#define SEGMENT_SECOND_HEADER 2048u
#define SEGMENT_GRAIN (64u << 10)
#define SEGMENT_MIN_BYTES SEGMENT_GRAIN
#define SEGMENT_MAX_BYTES (UINT64_C(2) << 30)
#define SEGMENT_MAX_NUMBER UINT32_MAX
#define SEGMENT_LARGEST_PART 3u /* a record takes at most this part of a segment */
#define SEGMENT_ID_BYTES 16u
#define SEGMENT_SPARES 2u      /* retired segments that wait to be used again, at most */
#define SEGMENT_NAME_BYTES 40u /* of any file of the journal, with the zero behind it */

struct segment {
    uint64_t number;
    uint64_t bytes;         /* of the file */
    uint64_t end;           /* offset behind the last record; 0: not known yet */
    uint64_t last_sequence; /* of that record; 0: it has none, or it is not known yet */
    uint8_t *map;           /* NULL: not mapped */
    uint64_t prefaulted;    /* offset to which its pages are in the map: of the last segment only */
    int fd;                 /* -1: closed. Open while records may be appended or must still be synced */
    bool writable;          /* the map */
    bool bad_header;        /* it can't be appended to, but what is valid in it is read */
};

/* Whether segments may have that many bytes. */
bool segment_bytes_are_valid(uint64_t bytes);

/* "%016x.segment". `name` has SEGMENT_NAME_BYTES. */
void segment_name(char *name, uint64_t number);

/*
 * Make segment `number` ready: it has its final name, its header, and room on the disk, and all of that is synced, the
 * directory too. A spare is used again if there is one, else
 * it is made of zeros. 0, also when there already is such a
 * segment; -errno, and nothing is left behind: -ENOSPC, -EDQUOT, -EIO, …
 *
 * Two may prepare the same number at once, in two threads, if `maker` differs (0 and 1): the second finds it done.
 */
int segment_prepare(
    const struct journal_files *files, int directory, const uint8_t id[SEGMENT_ID_BYTES], uint64_t number,
    uint64_t bytes, unsigned maker);

/* What the header of a segment says. */
struct segment_identity {
    uint64_t number;
    uint64_t bytes;
    uint64_t created_ns;
    uint8_t id[SEGMENT_ID_BYTES];
};

/*
 * Read the header: 0; 1 when one of its two copies is damaged; -EILSEQ when both are, or the file has another length
 * than they say; -EPROTONOSUPPORT when it is of a later format; else -errno.
 */
int segment_identify(const struct journal_files *files, int fd, struct segment_identity *identity);

/* Whether the segment of that number, if it is there, is there to stay: 0, or -EAGAIN while its maker is not done. */
int segment_is_ready(const struct journal_files *files, int directory, uint64_t number);

/*
 * Open segment `number` to append to it, and map it. -ENOENT; -EILSEQ when it is not what its name says, or is of
 * another journal; -errno. Its `end` is not known.
 */
int segment_open(
    const struct journal_files *files, int directory, const uint8_t id[SEGMENT_ID_BYTES], uint64_t number,
    struct segment *segment);

/*
 * Map the file of a segment that has no map, to be read; it is opened for it and closed again. 0; -EILSEQ when it is
 * shorter than it was, or too short for a record; -errno.
 */
int segment_map(const struct journal_files *files, int directory, struct segment *segment);

/* Give up map and descriptor. */
void segment_close(const struct journal_files *files, struct segment *segment);

/* Take it out of the directory: for good, or to be one of `keep` spares. The caller syncs the directory. */
int segment_retire(const struct journal_files *files, int directory, uint64_t number, unsigned keep);

/* Remove what an interrupted segment_prepare() left. Only when nobody prepares. */
int segment_clean(const struct journal_files *files, int directory);

/*
 * The record at `offset` of a mapped segment of which only the bytes before `limit` are looked at: its header, or NULL
 * when there is no valid one.
 */
const struct journal_header *
segment_record(const struct segment *segment, uint64_t offset, uint64_t limit, uint32_t seed);

/* The first place at or behind `offset` where there is a valid record, or `limit`. */
uint64_t segment_search(const struct segment *segment, uint64_t offset, uint64_t limit, uint32_t seed);

#endif
