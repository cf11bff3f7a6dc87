/* Opening and closing. What is promised stands in journal.h; what is found after a crash is recovery.c's. */
#define _GNU_SOURCE
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "recovery.h"

struct listing {
    struct segment *segments;
    size_t n, room;
};

static int note_segment(void *context, const char *name)
{
    struct listing *listing = context;
    char expected[SEGMENT_NAME_BYTES];
    uint64_t number = strtoull(name, NULL, 16);
    struct segment *segments;

    if (number == 0 || number > SEGMENT_MAX_NUMBER)
        return 0;
    segment_name(expected, number);
    if (strcmp(name, expected) != 0)
        return 0;
    if (listing->n == listing->room) {
        segments = realloc(listing->segments, (2 * listing->room + 16) * sizeof *segments);
        if (!segments)
            return -ENOMEM;
        listing->segments = segments;
        listing->room = 2 * listing->room + 16;
    }
    listing->segments[listing->n++] = (struct segment){.number = number, .fd = -1};
    return 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t first = ((const struct segment *)a)->number, second = ((const struct segment *)b)->number;

    return first < second ? -1 : first > second;
}

static int list_segments(struct journal *journal)
{
    struct listing listing = {.n = 0};
    int error = journal->files->list(journal->files->context, journal->directory, note_segment, &listing);

    journal->segments = listing.segments;
    journal->n_segments = listing.n;
    journal->segments_room = listing.room;
    if (!error && listing.n)
        qsort(listing.segments, listing.n, sizeof *listing.segments, by_number);
    return error;
}

/* The last segment, if there may be appended to it: its records are those that recovery found. */
static int open_last(struct journal *journal)
{
    struct segment *last = &journal->segments[journal->n_segments - 1], opened;
    int error;

    if (last->bad_header || last->number + 1 != journal->next_number)
        return 0;
    error = segment_open(journal->files, journal->directory, journal->id, last->number, &opened);
    if (error)
        return error;
    opened.end = last->end;
    opened.last_sequence = last->last_sequence;
    opened.prefaulted = (last->end - 1) & ~(JOURNAL_PREFAULT_BYTES - 1);
    *last = opened;
    journal->limit = last->number << 32 | last->bytes;
    if (journal->tail > journal->limit)
        journal->limit = journal->tail;
    return 0;
}

static int open_empty(struct journal *journal, const struct journal_shape *shape)
{
    int error = journal->files->random(journal->files->context, journal->id, sizeof journal->id);
    uint64_t first = UINT64_C(1) << 32 | SEGMENT_FIRST_RECORD;
    bool had_records = shape->start > first; /* and not even their segments are left */

    journal->seed = crc32c(0, journal->id, sizeof journal->id);
    journal->next_number = had_records ? (shape->start >> 32) + 1 : 1;
    journal->tail = had_records ? shape->start : first;
    journal->flushed = journal->synced = journal->tail;
    if (had_records && shape->report)
        shape->report(shape->report_context, JOURNAL_MISSING, shape->start >> 32 << 32, shape->start & UINT32_MAX);
    return error;
}

static bool start_is_valid(uint64_t start)
{
    return start == 0 || (start >> 32 != 0 && start % 8 == 0 && (start & UINT32_MAX) >= SEGMENT_FIRST_RECORD);
}

static int open_files(struct journal *journal, const struct journal_shape *shape)
{
    const struct journal_files *files = journal->files;
    int error;

    if (!journal->read_only) {
        error = files->lock(files->context, journal->directory);
        if (!error)
            error = segment_clean(files, journal->directory);
        if (error)
            return error;
        journal->gathers = shape->gathers || files->copies_on_write(files->context, journal->directory);
    }
    error = list_segments(journal);
    if (error)
        return error;
    if (journal->n_segments == 0)
        return open_empty(journal, shape);
    error = recovery_run(journal, shape);
    if (error)
        return error;
    journal->limit = journal->tail;
    return journal->read_only ? 0 : open_last(journal);
}

int journal_open(
    struct journal *journal, int directory, const struct journal_shape *shape, const struct journal_files *files)
{
    int error;

    *journal = (struct journal){
        .files = files,
        .read_only = shape->read_only,
        .segment_bytes = shape->segment_bytes ? shape->segment_bytes : JOURNAL_DEFAULT_SEGMENT_BYTES,
        .next = {.fd = -1},
    };
    if (!segment_bytes_are_valid(journal->segment_bytes) || !start_is_valid(shape->start))
        return -EINVAL;
    /* Opened anew, the lock on it is this journal's own. */
    journal->directory = journal_open_file(files, directory, ".", O_RDONLY | O_DIRECTORY);
    if (journal->directory < 0)
        return journal->directory;
    error = open_files(journal, shape);
    if (!journal->limit)
        journal->limit = journal->tail;
    if (error) {
        journal->tail = journal->flushed; /* there is nothing to flush */
        journal_close(journal);
    }
    return error;
}

int journal_close(struct journal *journal)
{
    const struct journal_files *files = journal->files;
    int error = journal->read_only ? 0 : journal_flush(journal);

    for (size_t i = 0; i < journal->n_segments; i++)
        segment_close(files, &journal->segments[i]);
    segment_close(files, &journal->next);
    files->close(files->context, journal->directory);
    free(journal->segments);
    free(journal->gathered);
    journal->segments = NULL;
    journal->gathered = NULL;
    journal->n_segments = 0;
    journal->directory = -1;
    return error;
}
