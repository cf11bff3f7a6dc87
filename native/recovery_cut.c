/* Removing the end that was never synced. What is promised stands in recovery_cut.h. */
#define _GNU_SOURCE
#include "recovery_cut.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define COPY_NAME "broken.preparing"

struct cut {
    struct journal *journal;
    const struct journal_shape *shape;
    struct scan *scan;
    struct recovery_end *end;
    uint64_t *ends; /* for each segment from the end's on: behind its last valid record, or where it is left alone */
    uint64_t bytes; /* what goes */
};

static void report(const struct cut *cut, enum journal_finding finding, uint64_t position, uint64_t bytes)
{
    if (cut->shape->report)
        cut->shape->report(cut->shape->report_context, finding, position, bytes);
}

/* Where in the segment what has to go begins. */
static uint64_t cut_from(const struct cut *cut, size_t segment)
{
    return segment == cut->end->place.segment ? cut->end->place.offset : SEGMENT_FIRST_RECORD;
}

/* A record that is not whole, and nothing valid behind it: how far it says that it reaches, if that can be. */
static int torn_end(struct cut *cut, struct scan_place place, uint64_t *end)
{
    uint64_t bytes = cut->scan->segments[place.segment].bytes, room = bytes - place.offset, size;
    struct journal_header header;
    const uint8_t *found;
    int error = scan_bytes(cut->scan, place, JOURNAL_HEADER_BYTES, &found);

    if (error)
        return error;
    memcpy(&header, found, sizeof header);
    size = journal_record_bytes(header.size);
    if (size > bytes / SEGMENT_LARGEST_PART)
        size = JOURNAL_HEADER_BYTES;
    *end = place.offset + (size < room ? size : room);
    return 0;
}

/*
 * Find the end of all behind the place that is a record, or was to be one: when more has been appended, none of it may
 * be found where a record is looked for.
 */
static int measure_segment(struct cut *cut, struct scan_place place, uint64_t *end)
{
    size_t behind = place.segment + 1;
    int result;

    *end = place.offset;
    while ((result = scan_candidate(cut->scan, &place, behind)) > 0) {
        struct journal_header header;

        result = scan_record(cut->scan, place, 0, &header);
        if (result > 0) {
            *end = place.offset += journal_record_bytes(header.size);
        } else {
            if (result == 0 && place.offset >= *end)
                result = torn_end(cut, place, end);
            place.offset += 8;
        }
        if (result < 0)
            break;
    }
    return result;
}

static int measure(struct cut *cut)
{
    for (size_t i = cut->end->place.segment; i < cut->scan->n_segments; i++) {
        struct scan_place place = {.segment = i, .offset = cut_from(cut, i)};
        uint64_t *end = &cut->ends[i - cut->end->place.segment];
        int error = 0;

        *end = place.offset;
        if (scan_position(cut->scan, place) >= cut->shape->start) /* else it is damage: it was on disk */
            error = measure_segment(cut, place, end);
        if (error)
            return error;
        cut->bytes += *end - place.offset;
    }
    return 0;
}

static int copy_to(struct cut *cut, int fd)
{
    uint64_t offset = 0;

    for (size_t i = cut->end->place.segment; i < cut->scan->n_segments; i++) {
        struct scan_place place = {.segment = i, .offset = cut_from(cut, i)};
        uint64_t end = cut->ends[i - cut->end->place.segment];

        while (place.offset < end) {
            uint64_t size = end - place.offset < SCAN_WINDOW_BYTES ? end - place.offset : SCAN_WINDOW_BYTES;
            const uint8_t *bytes;
            int error = scan_bytes(cut->scan, place, size, &bytes);

            journal_point(cut->journal->files, "cut.copy");
            if (!error)
                error = journal_write(cut->journal->files, fd, bytes, size, offset);
            if (error)
                return error;
            place.offset += size;
            offset += size;
        }
    }
    return journal_sync_file(cut->journal->files, fd);
}

/* The copy is for people, who may want to look. Where there is no room for it, there is none. */
static int keep_copy(struct cut *cut)
{
    struct journal *journal = cut->journal;
    const struct journal_files *files = journal->files;
    char name[SEGMENT_NAME_BYTES];
    int fd, error;

    fd = journal_open_file(files, journal->directory, COPY_NAME, O_WRONLY | O_CREAT | O_TRUNC);
    if (fd < 0)
        return fd == -ENOSPC || fd == -EDQUOT ? 0 : fd;
    error = copy_to(cut, fd);
    files->close(files->context, fd);
    if (!error) {
        snprintf(name, sizeof name, "broken-%016" PRIx64, scan_position(cut->scan, cut->end->place));
        journal_point(files, "cut.name_copy");
        error = files->rename(files->context, journal->directory, COPY_NAME, name);
    } else {
        files->unlink(files->context, journal->directory, COPY_NAME);
    }
    if (!error)
        error = journal_sync_directory(files, journal->directory);
    return error == -ENOSPC || error == -EDQUOT ? 0 : error;
}

static int set_aside(struct cut *cut, const struct segment *segment)
{
    struct journal *journal = cut->journal;
    char name[SEGMENT_NAME_BYTES], aside[SEGMENT_NAME_BYTES];

    report(cut, JOURNAL_SET_ASIDE, segment->number << 32, segment->bytes);
    if (journal->read_only)
        return 0;
    segment_name(name, segment->number);
    snprintf(aside, sizeof aside, "%016" PRIx64 ".broken", segment->number);
    journal_point(journal->files, "cut.set_aside");
    return journal->files->rename(journal->files->context, journal->directory, name, aside);
}

/*
 * What is behind the end's segment. The last one first, each on disk before the next: a crash in between leaves the
 * same end, and never records behind a segment that is gone.
 */
static int remove_segments(struct cut *cut)
{
    struct journal *journal = cut->journal;
    size_t first = cut->end->place.segment;

    for (size_t i = cut->scan->n_segments; i-- > first + 1;) {
        const struct segment *segment = &cut->scan->segments[i];
        bool has_records = cut->ends[i - first] > SEGMENT_FIRST_RECORD;
        int error = 0;

        if (!has_records && segment->bad_header) {
            error = set_aside(cut, segment);
        } else if (journal->read_only) {
            continue;
        } else if (has_records || segment->bytes != journal->segment_bytes) {
            journal_point(journal->files, "cut.unlink");
            error = segment_retire(journal->files, journal->directory, segment->number, 0);
        } else {
            continue; /* made ahead, and good to be used */
        }
        if (!error && !journal->read_only)
            error = journal_sync_directory(journal->files, journal->directory);
        if (error)
            return error;
    }
    return 0;
}

static int open_segment(const struct cut *cut, const struct segment *segment)
{
    char name[SEGMENT_NAME_BYTES];

    segment_name(name, segment->number);
    return journal_open_file(cut->journal->files, cut->journal->directory, name, O_RDWR);
}

static int sync_and_close(const struct cut *cut, int fd, int error)
{
    const struct journal_files *files = cut->journal->files;

    journal_point(files, "cut.sync");
    if (!error)
        error = journal_sync_file(files, fd);
    files->close(files->context, fd);
    return error;
}

/* Write the bytes anew: zeros, or what can be read there. */
static int rewrite(struct cut *cut, int fd, uint8_t *buffer, bool zeros, uint64_t from, uint64_t to)
{
    const struct journal_files *files = cut->journal->files;
    int error = 0;

    while (!error && from < to) {
        size_t size = to - from < JOURNAL_ZEROING_BYTES ? to - from : JOURNAL_ZEROING_BYTES;

        if (zeros)
            memset(buffer, 0, size);
        else
            error = journal_read_file(files, fd, buffer, size, from);
        journal_point(files, "cut.rewrite");
        if (!error)
            error = journal_write(files, fd, buffer, size, from);
        from += size;
    }
    return error;
}

/*
 * A segment in which there may be something that is not on disk: what stays is written once more. The kernel forgets
 * that a page is dirty when it could not write it; so it is made dirty again.
 */
static int settle_segment(struct cut *cut, size_t i, uint8_t *buffer)
{
    const struct segment *segment = &cut->scan->segments[i];
    uint64_t from = SEGMENT_FIRST_RECORD, to = segment->end;
    int fd, error;

    if (segment->number == cut->end->synced >> 32 && (uint32_t)cut->end->synced > from)
        from = (uint32_t)cut->end->synced;
    if (from >= to)
        return 0;
    fd = open_segment(cut, segment);
    if (fd < 0)
        return fd;
    error = rewrite(cut, fd, buffer, false, from, to);
    return sync_and_close(cut, fd, error);
}

static int settle(struct cut *cut, uint8_t *buffer)
{
    int error = 0;

    for (size_t i = 0; !error && i <= cut->end->place.segment; i++)
        if (cut->scan->segments[i].number >= cut->end->synced >> 32)
            error = settle_segment(cut, i, buffer);
    return error;
}

/* All before the place is on disk by now, and this record says so. Without room for it there is none. */
static int write_witness(struct cut *cut)
{
    struct recovery_end *end = cut->end;
    struct segment *segment = &cut->journal->segments[end->place.segment];
    struct journal_header header = {
        .sequence = end->sequence + 1,
        .position = scan_position(cut->scan, end->place),
        .synced_upto = scan_position(cut->scan, end->place),
        .flags = JOURNAL_OWN,
    };
    int fd, error;

    if (!end->needs_witness || end->place.offset + sizeof header > segment->bytes)
        return 0;
    header.crc = journal_checksum(cut->journal->seed, &header, NULL);
    fd = open_segment(cut, segment);
    if (fd < 0)
        return fd;
    journal_point(cut->journal->files, "cut.witness");
    error = journal_write(cut->journal->files, fd, &header, sizeof header, end->place.offset);
    error = sync_and_close(cut, fd, error);
    if (error)
        return error;
    end->place.offset += sizeof header;
    end->sequence++;
    segment->end = end->place.offset;
    segment->last_sequence = end->sequence;
    return 0;
}

/* Zeros over what goes of the last segment. */
static int erase(struct cut *cut, uint8_t *buffer)
{
    int fd, error;

    if (cut->end->place.offset >= cut->ends[0])
        return 0;
    fd = open_segment(cut, &cut->scan->segments[cut->end->place.segment]);
    if (fd < 0)
        return fd;
    error = rewrite(cut, fd, buffer, true, cut->end->place.offset, cut->ends[0]);
    return sync_and_close(cut, fd, error);
}

/* Some segment has to say whose all this is. When none that stays does, a new one is made that will be the next. */
static int keep_id(struct cut *cut)
{
    const struct journal *journal = cut->journal;

    for (size_t i = 0; i <= cut->end->place.segment; i++)
        if (!cut->scan->segments[i].bad_header)
            return 0;
    return segment_prepare(
        journal->files, journal->directory, journal->id, cut->scan->segments[cut->end->place.segment].number + 1,
        journal->segment_bytes, 1);
}

static int put_in_order(struct cut *cut)
{
    uint8_t *buffer;
    int error;

    if (cut->journal->read_only)
        return remove_segments(cut); /* it tells of them */
    buffer = malloc(JOURNAL_ZEROING_BYTES);
    if (!buffer)
        return -ENOMEM;
    error = cut->bytes ? keep_copy(cut) : 0;
    if (!error)
        error = settle(cut, buffer);
    if (!error)
        error = write_witness(cut);
    if (!error)
        error = remove_segments(cut);
    if (!error)
        error = keep_id(cut);
    if (!error)
        error = erase(cut, buffer);
    free(buffer);
    return error;
}

int recovery_cut(
    struct journal *journal, const struct journal_shape *shape, struct scan *scan, struct recovery_end *end)
{
    struct cut cut = {.journal = journal, .shape = shape, .scan = scan, .end = end};
    int error;

    cut.ends = calloc(scan->n_segments - end->place.segment, sizeof *cut.ends);
    error = cut.ends ? measure(&cut) : -ENOMEM;
    if (!error && cut.bytes)
        report(&cut, JOURNAL_CUT, scan_position(scan, end->place), cut.bytes);
    if (!error)
        error = put_in_order(&cut);
    if (!error)
        journal->n_segments = end->place.segment + 1;
    free(cut.ends);
    return error;
}
