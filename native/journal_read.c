/* Reading records where they lie, in the maps. What is promised stands in journal.h. */
#define _GNU_SOURCE
#include "journal.h"

#include <errno.h>

#define PAGE_BYTES 4096u
/* Of a record so much is asked for ahead: reading on through a longer one, the kernel is ahead by itself. */
#define EXPECTED_BYTES (UINT64_C(256) << 10)

/* The first segment with that number or a higher one, or n_segments. */
static size_t find_segment(const struct journal *journal, uint64_t number)
{
    size_t from = 0, to = journal->n_segments;

    while (from < to) {
        size_t middle = (from + to) / 2;

        if (journal->segments[middle].number < number)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static int see_mapped(const struct journal *journal, struct segment *segment)
{
    return segment->map ? 0 : segment_map(journal->files, journal->directory, segment);
}

/* Behind this offset is nothing to be read. */
static uint64_t limit_of(const struct journal *journal, const struct segment *segment)
{
    uint64_t limit = segment->end ? segment->end : segment->bytes;

    if (segment->number == journal->flushed >> 32)
        limit = (uint32_t)journal->flushed;
    return limit < segment->bytes ? limit : segment->bytes; /* a file may have lost its end */
}

static uint64_t position_in(const struct segment *segment, uint64_t offset)
{
    return segment->number << 32 | offset;
}

/* The first valid record from there on, or the end of all. */
static int next_valid(struct journal *journal, size_t i, uint64_t offset, uint64_t *position)
{
    for (; i < journal->n_segments; i++, offset = SEGMENT_FIRST_RECORD) {
        struct segment *segment = &journal->segments[i];
        uint64_t limit = limit_of(journal, segment);
        int error = see_mapped(journal, segment);

        if (error == -EILSEQ || error == -ENOENT)
            continue; /* it is shorter than it was, or gone */
        if (error)
            return error;
        offset = segment_search(segment, offset, limit, journal->seed);
        if (offset < limit) {
            *position = position_in(segment, offset);
            return 0;
        }
    }
    *position = journal->flushed;
    return 0;
}

/*
 * Of a segment that no walk of this process has been through, the end: where no valid record is left, and the sequence
 * of the last one.
 */
static void learn_end(struct journal *journal, struct segment *segment, uint64_t offset)
{
    uint64_t sequence = journal->read_sequence, end = offset;

    if (journal->read_to != position_in(segment, offset)) {
        sequence = 0;
        end = offset = SEGMENT_FIRST_RECORD;
    }
    while ((offset = segment_search(segment, offset, segment->bytes, journal->seed)) < segment->bytes) {
        const struct journal_header *header = segment_record(segment, offset, segment->bytes, journal->seed);

        sequence = header->sequence;
        end = offset += journal_record_bytes(header->size);
    }
    segment->end = end;
    segment->last_sequence = sequence;
}

static int read_at(
    struct journal *journal, const struct segment *segment, uint64_t offset, const struct journal_header *header,
    struct journal_record *record, uint64_t *next)
{
    *record = (struct journal_record){
        .position = position_in(segment, offset),
        .sequence = header->sequence,
        .body = (const uint8_t *)(header + 1),
        .size = header->size,
        .type = header->type,
        .is_own = header->flags & JOURNAL_OWN,
    };
    *next = record->position + journal_record_bytes(header->size);
    journal->read_to = *next;
    journal->read_sequence = header->sequence;
    return 1;
}

/* A segment has ended with that sequence: is the first record of those behind it the next one? As journal_read(). */
static int
read_first_behind(struct journal *journal, size_t i, uint64_t position, struct journal_record *record, uint64_t *next)
{
    uint64_t sequence = journal->segments[i].last_sequence;
    int error;

    for (i++; i < journal->n_segments; i++) {
        struct segment *segment = &journal->segments[i];
        const struct journal_header *header;

        if (segment->number != segment[-1].number + 1)
            break;
        error = see_mapped(journal, segment);
        if (error == -EILSEQ || error == -ENOENT)
            break;
        if (error)
            return error;
        header = segment_record(segment, SEGMENT_FIRST_RECORD, limit_of(journal, segment), journal->seed);
        if (header && (sequence == 0 || header->sequence == sequence + 1))
            return read_at(journal, segment, SEGMENT_FIRST_RECORD, header, record, next);
        if (header || limit_of(journal, segment) > SEGMENT_FIRST_RECORD)
            break;
        /* Nothing was ever put there. */
    }
    if (i == journal->n_segments) {
        *next = position;
        return 0;
    }
    error = next_valid(journal, i, SEGMENT_FIRST_RECORD, next);
    return error ? error : -EILSEQ;
}

static int read_any(struct journal *journal, uint64_t position, struct journal_record *record, uint64_t *next)
{
    const struct journal_header *header;
    struct segment *segment;
    uint64_t offset;
    size_t i;
    int error;

    *next = position;
    if (position % 8 != 0)
        return -EINVAL;
    if (position < journal_first(journal))
        *next = position = journal_first(journal);
    if (position >= journal->flushed || journal->n_segments == 0)
        return 0;
    i = find_segment(journal, position >> 32);
    if (i == journal->n_segments)
        return 0; /* behind the last segment, and nothing is there yet */
    segment = &journal->segments[i];
    offset = (uint32_t)position;
    error = segment->number == position >> 32 ? see_mapped(journal, segment) : -ENOENT;
    if (error == -EILSEQ || error == -ENOENT) {
        error = next_valid(journal, segment->number == position >> 32 ? i + 1 : i, SEGMENT_FIRST_RECORD, next);
        return error ? error : -EILSEQ;
    }
    if (error)
        return error;
    if (offset < SEGMENT_FIRST_RECORD)
        offset = SEGMENT_FIRST_RECORD;
    header = segment_record(segment, offset, limit_of(journal, segment), journal->seed);
    if (header)
        return read_at(journal, segment, offset, header, record, next);
    if (!segment->end && segment->number != journal->flushed >> 32)
        learn_end(journal, segment, offset);
    if (offset >= limit_of(journal, segment) && i + 1 < journal->n_segments)
        return read_first_behind(journal, i, position, record, next);
    if (offset >= limit_of(journal, segment))
        return 0;
    error = next_valid(journal, i, offset, next);
    return error ? error : -EILSEQ;
}

int journal_read(struct journal *journal, uint64_t position, struct journal_record *record, uint64_t *next)
{
    int result = read_any(journal, position, record, next);

    while (result > 0 && record->is_own)
        result = read_any(journal, *next, record, next);
    return result;
}

/* The bytes [from, to) of the segment, as far as it has them, in whole pages. */
static void will_need(const struct journal *journal, const struct segment *segment, uint64_t from, uint64_t to)
{
    from &= ~(uint64_t)(PAGE_BYTES - 1);
    if (to > segment->bytes)
        to = segment->bytes;
    if (from < to)
        journal->files->will_need(journal->files->context, segment->map + from, to - from);
}

/* The segment of a position where a record can be, mapped, or NULL. */
static struct segment *segment_of(struct journal *journal, uint64_t position)
{
    size_t i = find_segment(journal, position >> 32);
    struct segment *segment = i < journal->n_segments ? &journal->segments[i] : NULL;

    if (!segment || segment->number != position >> 32 || see_mapped(journal, segment))
        return NULL;
    return (uint64_t)(uint32_t)position + JOURNAL_HEADER_BYTES <= segment->bytes && position % 8 == 0 ? segment : NULL;
}

void journal_expect(struct journal *journal, const uint64_t *positions, size_t n)
{
    /* First what a small record needs, of all of them; then, of those that turn out to be larger, the rest. */
    for (size_t i = 0; i < n; i++) {
        const struct segment *segment = segment_of(journal, positions[i]);
        uint64_t offset = (uint32_t)positions[i];

        if (segment)
            will_need(journal, segment, offset, offset + PAGE_BYTES);
    }
    for (size_t i = 0; i < n; i++) {
        const struct segment *segment = segment_of(journal, positions[i]);
        uint64_t offset = (uint32_t)positions[i], size;
        struct journal_header header;

        if (!segment)
            continue;
        memcpy(&header, segment->map + offset, sizeof header);
        if (!journal_header_fits(&header, positions[i], segment->bytes - offset))
            continue;
        size = journal_record_bytes(header.size);
        if (size > PAGE_BYTES)
            will_need(journal, segment, offset + PAGE_BYTES, offset + (size < EXPECTED_BYTES ? size : EXPECTED_BYTES));
    }
}
