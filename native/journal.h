/*
 * The journal: records on disk, in order, from one writer. SPDX-License-Identifier: MIT
 *
 * A directory of segments, files of one fixed size, of which the last is appended to:
 *
 *     0000000000000001.segment    the number in hexadecimal: 1, 2, 3, …; the oldest are retired first
 *     0000000000000003.preparing  a segment that is being made (.preparing-now: by the writer itself)
 *     spare-0, spare-1            retired segments, to be used again
 *     broken-POSITION             what recovery cut off, for people to look at
 *     NUMBER.broken               a file that had a segment's name and was none
 *
 * A position is a number of 64 bits: the segment's number << 32 | the offset in its file. Positions only grow.
 *
 * Format 1. Numbers are little-endian. A segment begins with its header, twice, at 0 and at 2048: either will do.
 *
 *      0                       8           12          16                      24
 *     +-----------------------+-----------+-----------+-----------------------+-----------------------+
 *     | "agentdJ1"            | format: 1 | 64: bytes | number                | bytes of the file     |
 *     +-----------------------+-----------+-----------+-----------------------+-----------------------+
 *     | id of the journal: 16 random bytes            | created: ns since 1970| crc32c    | 0         |
 *     +-----------------------------------------------+-----------------------+-----------+-----------+
 *      32                                              48                      56          60        64
 *
 * Its checksum is of the 56 bytes before it. Records begin at 4096, each at a multiple of 8:
 *
 *      0           4           8                       16                      24
 *     +-----------+-----------+-----------------------+-----------------------+-----------------------+
 *     | crc32c    | size      | sequence              | synced_upto           | position              |
 *     +-----+-----+-----------+-----------------------+-----------------------+-----------------------+
 *     | type|flags| 0         | body: size bytes, then 0 to 7 bytes of anything, up to a multiple of 8
 *     +-----+-----+-----------+-----------------------------------------------------------------------
 *      32    34    36          40
 *
 *     crc32c       of the journal's id and all that is behind this field: the rest of the header, and the body
 *     sequence     1 for the first record of the journal, one more for each
 *     synced_upto  everything before this position was known to be on disk when the record was written
 *     position     the record's own, so that no record is valid in any other place: not one that an earlier use of
 *                  the file left here, nor a copy that somebody sent as a message
 *     flags        0; 1: written by recovery for the sake of its synced_upto, and no reader sees it
 *
 * Zeros are no record. Behind the last record of a segment may be anything that is not a record of this place: the next
 * one is the first of the next segment, if that has the next sequence. A record takes a third of a segment at most.
 *
 * Durability. The kernel writes the pages of a mapped file in any order, so after a crash a record may be whole though
 * one before it is not. synced_upto tells damage from the end: see recovery.h. Two rules make it true:
 *   - segment n is synced before n + 2 is opened: what is not synced lies in two segments at most;
 *   - a segment has its name, its header and its blocks on disk before the first record is written to it.
 * The first error of a sync, or of a write into a segment, poisons the journal: the kernel may have thrown away what it
 * could not write, so no later success says anything. It answers that error from then on, until it is opened anew.
 *
 * Appending. While no sync is in flight, a record is stored into the map: no system call. A page that is being written
 * out can't be stored to, and one that was costs a fault; so while a sync is in flight, and where the last one ended,
 * records gather in memory, and journal_flush() writes them in one call. What is not flushed can't be read, and must
 * not be acknowledged at any level.
 *
 * No threads, no globals: one journal is used by one thread at a time.
 */
#ifndef AGENTD_JOURNAL_H
#define AGENTD_JOURNAL_H

#include "journal_files.h"
#include "journal_record.h"
#include "segment.h"

#define JOURNAL_DEFAULT_SEGMENT_BYTES (UINT64_C(64) << 20)
/* More than this is not gathered: it is written by then, whoever waits. */
#define JOURNAL_GATHER_BYTES (UINT64_C(4) << 20)
/*
 * Of the last segment, so much ahead of the tail is made ready to be stored to, in one call: a fault a page costs five
 * times as much. The next sync writes what is left of it.
 */
#define JOURNAL_PREFAULT_BYTES (UINT64_C(256) << 10)

/* What recovery found and did. `position` and `bytes` say where, in the journal's own positions and the files' bytes.
 */
enum journal_finding {
    JOURNAL_SKIPPED,   /* damaged, and left where it is: what comes after it is kept */
    JOURNAL_CUT,       /* the end, never synced and not whole: copied to broken-POSITION and removed */
    JOURNAL_MISSING,   /* a segment is not there: so many bytes, from its first */
    JOURNAL_SET_ASIDE, /* a file with a segment's name that is none, and nothing behind it: it is NUMBER.broken now */
};

typedef void journal_report(void *context, enum journal_finding finding, uint64_t position, uint64_t bytes);

struct journal_shape {
    uint64_t segment_bytes; /* of segments that are made from now on; 0: the default */
    uint64_t start; /* everything before this position is known to be on disk, and is not looked at; 0: all is */
    bool read_only; /* look, report what would be done, change nothing; needs no lock */
    bool gathers;   /* never store into a map; set by itself where the filesystem copies on write */
    journal_report *report; /* NULL: nobody is told */
    void *report_context;
};

struct journal {
    const struct journal_files *files;
    int directory;
    bool read_only;
    bool gathers;
    uint32_t seed; /* every checksum begins with it: that of the id */
    uint8_t id[SEGMENT_ID_BYTES];
    uint64_t segment_bytes;

    /* Oldest first; the last is appended to. Numbers may be missing; a journal without a record may have none. */
    struct segment *segments;
    size_t n_segments, segments_room;
    uint64_t next_number; /* of the segment after the last */
    struct segment next;  /* that segment, opened ahead of need; number 0: not yet */

    uint64_t sequence; /* of the last record */
    uint64_t tail;     /* where the next record goes, if it still fits there */
    uint64_t limit;    /* where the room for it ends: of the last segment, or the tail when none can be appended to */
    uint64_t flushed;  /* what lies before it can be read */
    uint64_t synced;   /* what lies before it is on disk */
    int poisoned;      /* -errno of what poisoned it, or 0 */
    bool syncing;      /* between journal_sync_begin() and journal_sync_end() */

    uint8_t *gathered; /* NULL: none ever was. Records that are not in the file yet: they go there at `flushed` */
    uint64_t n_gathered;

    /* What was read last: whose sequence says whether a segment ends behind it. */
    uint64_t read_to, read_sequence;
};

/*
 * Open the journal in a directory, or make one there, and recover: see recovery.h. `files` must outlive it; the
 * descriptor is the caller's. 0, and all that can be read is on disk; -EWOULDBLOCK: another process has it open;
 * -EINVAL: segment_bytes, or a start that is no position; -EILSEQ: no segment has a header that can be read, so it is
 * not known whose they are, and nothing was touched; -EPROTONOSUPPORT: a later version wrote it; -errno.
 */
int journal_open(
    struct journal *journal, int directory, const struct journal_shape *shape, const struct journal_files *files);

/* Flushes, but does not sync. To be called once for each journal that was opened. The flush's answer. */
int journal_close(struct journal *journal);

/* The largest body. */
static inline uint32_t journal_max_size(const struct journal *journal)
{
    return ((uint32_t)(journal->segment_bytes / SEGMENT_LARGEST_PART) & ~7u) - JOURNAL_HEADER_BYTES;
}

/* Where its first record is, if there is any. */
static inline uint64_t journal_first(const struct journal *journal)
{
    return journal->n_segments ? journal->segments[0].number << 32 | SEGMENT_FIRST_RECORD : journal->tail;
}

/*
 * Append a record: 0 and its position, or nothing was appended:
 * -EAGAIN: sync first, a segment that is full was not yet synced. -EMSGSIZE: larger than journal_max_size().
 * -ENOSPC, -EDQUOT, or another error of making the next segment: the journal is as before, and may succeed later.
 * -EROFS: it is read-only. Poisoned: the error that did it.
 */
int journal_append(struct journal *journal, uint16_t type, const void *body, uint32_t size, uint64_t *position);

/* Everything that was appended can be read, also by a process that comes after this one. 0, or it is poisoned. */
int journal_flush(struct journal *journal);

/* What to sync: the descriptors, in this order, each with fdatasync; then everything before `upto` is on disk. */
struct journal_sync {
    uint64_t upto;
    unsigned n_fds; /* 0: there was nothing to do, and there is nothing to end */
    int fds[2];     /* the journal's; open until journal_sync_end() */
};

/* Flushes, and begins a sync. 0; -EALREADY while one is in flight; poisoned: the error that did it. */
int journal_sync_begin(struct journal *journal, struct journal_sync *sync);

/*
 * It is done: `error` is 0, or the -errno of the first fdatasync that failed (those after it need not be tried), which
 * poisons the journal. Only for a sync that was begun and had something to do; returns `error`.
 */
int journal_sync_end(struct journal *journal, const struct journal_sync *sync, int error);

/* All three in one, with the table's fdatasync: for who may wait. */
int journal_sync(struct journal *journal);

struct journal_record {
    uint64_t position;
    uint64_t sequence;
    const uint8_t *body; /* in the map: until its segment is retired or the journal closed */
    uint32_t size;
    uint16_t type;
    bool is_own; /* never, of what journal_read() answers */
};

/*
 * The first record at or behind `position`: 1, and `*next` is where to read on. 0 at the end, with `*next` = position.
 * -EILSEQ: here is damage, or something is missing: `*next` is where the next valid record is, or the end. A position
 * before the first record is the first's. -EINVAL: no position of a record. -errno when a segment can't be mapped.
 */
int journal_read(struct journal *journal, uint64_t position, struct journal_record *record, uint64_t *next);

/*
 * These are going to be read, in any order: have the disk bring all of them at once, and no more than them. A read of a
 * map that no cache holds waits for the disk each time, and brings megabytes around it. What can't be had, or is no
 * record, is for journal_read() to say. Waits for the records' headers.
 */
void journal_expect(struct journal *journal, const uint64_t *positions, size_t n);

/*
 * Forget the segments that lie wholly before `position`, as far as they are synced and later records are too; up to
 * `keep` of them (SEGMENT_SPARES at most) are kept to be used again. How many went, or -errno: those that went are
 * gone.
 */
int journal_retire(struct journal *journal, uint64_t position, unsigned keep);

/*
 * Which segment to prepare next; and whether nobody has: then segment_prepare() it, in another thread if there is one,
 * or an append will, on the spot. It finds and opens what another thread made. So a new journal has no segment at all.
 */
static inline uint64_t journal_next_number(const struct journal *journal)
{
    return journal->next_number;
}
bool journal_needs_prepare(struct journal *journal);

#endif
