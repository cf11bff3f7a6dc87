/* The rule of recovery.h: how far the records go. What is done about it is in recovery_cut.c. */
#define _GNU_SOURCE
#include "recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "recovery_cut.h"
#include "scan.h"

struct walk {
    struct journal *journal;
    const struct journal_shape *shape;
    struct scan scan;
    struct scan_place place;
    uint64_t sequence; /* of the last good record; 0: none yet */
    bool exact;        /* the next one has the sequence after it */
    uint64_t synced;   /* everything before it was on disk, the start or a good record says */
    uint64_t damage;   /* the last that was skipped; 0: none */

    /* Of everything that is valid behind the first bad place, at which all of it was looked at. */
    bool surveyed;
    uint64_t survey_position; /* of the last record of those that say most */
    uint64_t survey_synced;   /* what it says */
};

static void report(const struct walk *walk, enum journal_finding finding, uint64_t position, uint64_t bytes)
{
    if (walk->shape->report)
        walk->shape->report(walk->shape->report_context, finding, position, bytes);
}

static uint64_t position_of(const struct walk *walk, struct scan_place place)
{
    return scan_position(&walk->scan, place);
}

/* How many bytes of the files lie between two places, headers of segments aside. */
static uint64_t bytes_between(const struct walk *walk, struct scan_place from, struct scan_place to)
{
    uint64_t bytes = 0;

    for (; from.segment < to.segment; from.segment++, from.offset = SEGMENT_FIRST_RECORD)
        bytes += walk->scan.segments[from.segment].bytes - from.offset;
    return bytes + to.offset - from.offset;
}

/* Whether segments from..to are all there, and are what their names say. */
static bool are_sound(const struct walk *walk, size_t from, size_t to)
{
    const struct segment *segments = walk->scan.segments;

    for (size_t i = from; i < to; i++)
        if (segments[i + 1].number != segments[i].number + 1 || segments[i + 1].bad_header)
            return false;
    return true;
}

/* The walk leaves its segment, whose records end at `end`. */
static void enter(struct walk *walk, struct scan_place place)
{
    struct segment *segments = walk->journal->segments;

    for (size_t i = walk->place.segment; i < place.segment; i++) {
        segments[i].end = i == walk->place.segment ? walk->place.offset : SEGMENT_FIRST_RECORD;
        segments[i].last_sequence = walk->sequence;
    }
    walk->place = place;
}

/* Whether the place is a lawful end of its segment: 1, and the walk is at the next record; 0; -errno. */
static int go_on_in_next(struct walk *walk)
{
    struct scan_place behind = walk->place;
    struct journal_header later;
    int found = 0;

    if (!walk->exact) /* no sequence tells that nothing is missing: at least nothing may be left */
        found = scan_search(&walk->scan, &behind, behind.segment + 1, walk->sequence, &later);
    if (found)
        return found < 0 ? found : 0;
    for (size_t i = walk->place.segment + 1; i < walk->scan.n_segments; i++) {
        struct scan_place first = {.segment = i, .offset = SEGMENT_FIRST_RECORD};
        struct journal_header header;
        int result;

        if (!are_sound(walk, i - 1, i))
            return 0;
        result = scan_record(&walk->scan, first, walk->sequence, &header);
        if (result < 0)
            return result;
        if (result > 0) {
            if (walk->exact && header.sequence != walk->sequence + 1)
                return 0;
            enter(walk, first);
            return 1;
        }
        /* It may be empty: made ahead for smaller records, of which none came. */
    }
    return 0;
}

/* Look at everything behind the place once: what do those say that are valid there? */
static int survey(struct walk *walk)
{
    struct scan_place place = walk->place;
    struct journal_header header;
    int result = 0;

    while (!walk->surveyed) {
        result = scan_search(&walk->scan, &place, walk->scan.n_segments, walk->sequence, &header);
        if (result < 0)
            return result;
        if (result == 0)
            walk->surveyed = true;
        else if (header.synced_upto >= walk->survey_synced) {
            walk->survey_synced = header.synced_upto;
            walk->survey_position = header.position;
        }
        place.offset += journal_record_bytes(header.size);
    }
    return 0;
}

/* Go to the next valid record, over damage: it is reported. */
static void skip_to(struct walk *walk, struct scan_place found)
{
    const struct segment *segments = walk->scan.segments;

    report(walk, JOURNAL_SKIPPED, position_of(walk, walk->place), bytes_between(walk, walk->place, found));
    for (size_t i = walk->place.segment; i < found.segment; i++)
        for (uint64_t number = segments[i].number + 1; number < segments[i + 1].number; number++)
            report(walk, JOURNAL_MISSING, number << 32, segments[i].bytes);
    walk->damage = position_of(walk, walk->place);
    enter(walk, found);
}

/* There is no record here, and no lawful end: 1 when the walk goes on, 0 when this is the end, -errno. */
static int judge(struct walk *walk)
{
    struct scan_place found = walk->place;
    uint64_t position = position_of(walk, walk->place), start = walk->shape->start;
    struct journal_header header;
    int result = scan_search(&walk->scan, &found, walk->scan.n_segments, walk->sequence, &header);

    if (result < 0)
        return result;
    if (position < start) {
        struct scan_place from = walk->place;

        while (from.segment < walk->scan.n_segments && walk->scan.segments[from.segment].number < start >> 32)
            from.segment++;
        if (from.segment < walk->scan.n_segments && walk->scan.segments[from.segment].number == start >> 32 &&
            (result == 0 || header.position > start)) {
            /* All up to the start is damaged. What is there may be the end, which the start says nothing of. */
            from.offset = (uint32_t)start;
            skip_to(walk, from);
            walk->exact = false;
            return 1;
        }
        if (result == 0) /* nothing is left of what was on disk */
            return 0;
    } else if (result == 0) {
        return 0;
    } else if (are_sound(walk, walk->place.segment, found.segment)) {
        result = survey(walk);
        if (result < 0)
            return result;
        /* Of all that lie behind this place too, the survey's record says most, if it is one of them. */
        if (walk->survey_position < position || walk->survey_synced <= position)
            return 0;
    }
    skip_to(walk, found);
    walk->sequence = header.sequence - 1;
    walk->exact = true;
    return 1;
}

static int walk_on(struct walk *walk)
{
    struct journal_header header;
    int result;

    do {
        result = scan_record(&walk->scan, walk->place, walk->sequence, &header);
        if (result < 0)
            return result;
        if (result && (!walk->exact || header.sequence == walk->sequence + 1)) {
            walk->place.offset += journal_record_bytes(header.size);
            walk->sequence = header.sequence;
            walk->exact = true;
            if (header.synced_upto > walk->synced)
                walk->synced = header.synced_upto;
            continue;
        }
        result = go_on_in_next(walk);
        if (result == 0)
            result = judge(walk);
        if (result < 0)
            return result;
    } while (result > 0);
    return 0;
}

/* The sequence of the last record before segment `end`. */
static int last_sequence_before(struct walk *walk, size_t end, uint64_t *sequence)
{
    *sequence = 0;
    while (end-- > 0 && *sequence == 0) {
        struct scan_place place = {.segment = end, .offset = SEGMENT_FIRST_RECORD};
        struct journal_header header;
        int result;

        while ((result = scan_search(&walk->scan, &place, end + 1, *sequence, &header)) > 0) {
            *sequence = header.sequence;
            place.offset += journal_record_bytes(header.size);
        }
        if (result < 0)
            return result;
    }
    return 0;
}

/* What its file says of itself. One that says nothing that can be right may still have records. */
static int identify(struct walk *walk, struct segment *segment, bool *known)
{
    struct journal *journal = walk->journal;
    const struct journal_files *files = journal->files;
    struct segment_identity identity = {.number = 0};
    char name[SEGMENT_NAME_BYTES];
    int64_t size;
    int fd, result;

    segment_name(name, segment->number);
    fd = journal_open_file(files, journal->directory, name, O_RDONLY);
    if (fd < 0)
        return fd;
    result = segment_identify(files, fd, &identity);
    size = files->size(files->context, fd);
    files->close(files->context, fd);
    if (size < 0)
        return (int)size;
    segment->bytes = (uint64_t)size & ~UINT64_C(7);
    if (result < 0 && result != -EILSEQ)
        return result;
    if (result >= 0 && *known && memcmp(identity.id, journal->id, sizeof journal->id) != 0)
        return -EILSEQ; /* segments of two journals */
    if (result >= 0 && !*known) {
        memcpy(journal->id, identity.id, sizeof journal->id);
        *known = true;
    }
    segment->bad_header = result < 0 || identity.number != segment->number;
    if (segment->number >= walk->shape->start >> 32 && (segment->bad_header || result > 0))
        report(walk, JOURNAL_SKIPPED, segment->number << 32, SEGMENT_FIRST_RECORD);
    return 0;
}

static int identify_all(struct walk *walk)
{
    struct journal *journal = walk->journal;
    bool known = false;

    for (size_t i = 0; i < journal->n_segments; i++) {
        int error = identify(walk, &journal->segments[i], &known);

        if (error)
            return error;
    }
    if (!known)
        return -EILSEQ; /* whose they are is not known, so no record can be told from chance */
    journal->seed = crc32c(0, journal->id, sizeof journal->id);
    return 0;
}

/* Where the walk begins: at the first record of the start's segment, so that the last sequence is known at the start.
 */
static void begin(struct walk *walk)
{
    const struct segment *segments = walk->scan.segments;
    uint64_t number = walk->shape->start >> 32;
    size_t first = 0;

    while (first < walk->scan.n_segments && segments[first].number < number)
        first++;
    if (first == walk->scan.n_segments || (segments[first].number > number && first > 0))
        first--; /* the start's is missing */
    walk->place = (struct scan_place){.segment = first, .offset = SEGMENT_FIRST_RECORD};
    walk->synced = walk->shape->start;
    walk->exact = segments[first].number == 1; /* whose first record is the first of all */
}

static int find_end(struct walk *walk)
{
    int error = 0;

    begin(walk);
    error = walk_on(walk);
    if (!error && walk->sequence == 0)
        error = last_sequence_before(walk, walk->place.segment, &walk->sequence);
    return error;
}

int recovery_run(struct journal *journal, const struct journal_shape *shape)
{
    struct walk walk = {.journal = journal, .shape = shape};
    struct recovery_end end;
    uint64_t position;
    int error = identify_all(&walk);

    if (error)
        return error;
    error = scan_start(
        &walk.scan, journal->files, journal->directory, journal->seed, journal->segments, journal->n_segments);
    if (!error)
        error = find_end(&walk);
    if (!error) {
        end = (struct recovery_end){.place = walk.place, .sequence = walk.sequence, .synced = walk.synced};
        end.needs_witness = walk.damage && walk.synced <= walk.damage;
        journal->segments[walk.place.segment].end = walk.place.offset;
        journal->segments[walk.place.segment].last_sequence = walk.sequence;
        error = recovery_cut(journal, shape, &walk.scan, &end);
        position = position_of(&walk, end.place);
        journal->sequence = end.sequence;
        journal->next_number = journal->segments[end.place.segment].number + 1;
        journal->tail = position;
        if (position < shape->start) {
            /* What was on disk is gone, its segment too: no position may be used again. */
            report(&walk, JOURNAL_MISSING, shape->start >> 32 << 32, shape->start & UINT32_MAX);
            journal->tail = shape->start;
            journal->next_number = (shape->start >> 32) + 1;
        }
        journal->flushed = journal->synced = journal->tail;
    }
    scan_end(&walk.scan);
    return error;
}
