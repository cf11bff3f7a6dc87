/*
 * Appending, syncing, retiring. Format and promises stand in journal.h; opening is in journal_open.c, reading in
 * journal_read.c.
 *
 * Of the last segment, [.., flushed) is in the file and may be read; [flushed, tail) is stored into the map, or it is
 * all in `gathered`, never some here and some there: a sync begins with a flush, and after it records go on gathering
 * until the next flush. The tail is never at the first place of a segment that was rolled into: who makes room for a
 * record appends it, so no position is called synced that names a segment without records.
 */
#define _GNU_SOURCE
#include "journal.h"

#include <errno.h>
#include <stdlib.h>

#define PAGE_BYTES 4096u

static struct segment *last_segment(const struct journal *journal)
{
    return &journal->segments[journal->n_segments - 1];
}

static uint64_t end_of(const struct segment *segment)
{
    return segment->number << 32 | segment->end;
}

static int poison(struct journal *journal, int error)
{
    if (!journal->poisoned)
        journal->poisoned = error;
    return journal->poisoned;
}

/* Those whose records are on disk need no descriptor any more. */
static void close_synced(struct journal *journal)
{
    for (size_t i = journal->n_segments > 2 ? journal->n_segments - 3 : 0; i + 1 < journal->n_segments; i++) {
        struct segment *segment = &journal->segments[i];

        if (segment->fd >= 0 && end_of(segment) <= journal->synced) {
            journal->files->close(journal->files->context, segment->fd);
            segment->fd = -1;
        }
    }
}

/* Open the next segment if it is made and there to stay: 0, -ENOENT or -EAGAIN when it is not, -errno. */
static int open_next(struct journal *journal)
{
    int error = segment_open(journal->files, journal->directory, journal->id, journal->next_number, &journal->next);

    if (error)
        return error;
    /* Asked after it was opened: who makes it takes away what this looks for when all is done. */
    error = segment_is_ready(journal->files, journal->directory, journal->next_number);
    if (error) {
        segment_close(journal->files, &journal->next);
        journal->next.number = 0;
    }
    return error;
}

bool journal_needs_prepare(struct journal *journal)
{
    if (journal->next.number || journal->poisoned || journal->read_only)
        return false;
    return open_next(journal) != 0;
}

static int make_next(struct journal *journal)
{
    int error = open_next(journal);

    if (error != -ENOENT && error != -EAGAIN)
        return error;
    error = segment_prepare(
        journal->files, journal->directory, journal->id, journal->next_number, journal->segment_bytes, 1);
    if (error)
        return error;
    return segment_open(journal->files, journal->directory, journal->id, journal->next_number, &journal->next);
}

static int make_room_in_list(struct journal *journal)
{
    size_t room = 2 * journal->segments_room + 16;
    struct segment *segments;

    if (journal->n_segments < journal->segments_room)
        return 0;
    segments = realloc(journal->segments, room * sizeof *segments);
    if (!segments)
        return -ENOMEM;
    journal->segments = segments;
    journal->segments_room = room;
    return 0;
}

/* Go on in the next segment. What can fail comes before what changes anything. */
static int roll(struct journal *journal)
{
    int error;

    if (journal->n_segments > 1 && end_of(last_segment(journal) - 1) > journal->synced)
        return -EAGAIN;
    error = journal_flush(journal);
    if (!error)
        error = make_room_in_list(journal);
    if (!error && !journal->next.number)
        error = make_next(journal);
    if (error)
        return error;
    journal_point(journal->files, "roll");
    if (journal->n_segments) {
        struct segment *last = last_segment(journal);

        if (last->fd >= 0)
            last->end = (uint32_t)journal->tail;
        last->last_sequence = journal->sequence;
    }
    journal->segments[journal->n_segments++] = journal->next;
    journal->next = (struct segment){.fd = -1};
    journal->tail = journal->flushed = journal->next_number << 32 | SEGMENT_FIRST_RECORD;
    journal->limit = journal->next_number << 32 | last_segment(journal)->bytes;
    journal->next_number++;
    if (!journal->syncing)
        close_synced(journal);
    return 0;
}

/* See that the pages up to `end` are in the map, and some more. */
static void prefault(struct journal *journal, struct segment *segment, uint64_t end)
{
    while (segment->prefaulted < end) {
        uint64_t from = segment->prefaulted, room = segment->bytes - from;

        if (room > JOURNAL_PREFAULT_BYTES)
            room = JOURNAL_PREFAULT_BYTES;
        journal->files->prefault(journal->files->context, segment->map + from, room);
        segment->prefaulted = from + room;
    }
}

/* Room for a record of so many bytes in memory, where they gather: NULL, and *error. */
static uint8_t *gather(struct journal *journal, uint64_t bytes, int *error)
{
    uint64_t largest = journal_record_bytes(journal_max_size(journal));

    if (!journal->gathered) {
        journal->gathered = malloc(JOURNAL_GATHER_BYTES > largest ? JOURNAL_GATHER_BYTES : largest);
        *error = -ENOMEM;
        if (!journal->gathered)
            return NULL;
    }
    *error = 0;
    if (journal->n_gathered && journal->n_gathered + bytes > JOURNAL_GATHER_BYTES)
        *error = journal_flush(journal);
    return *error ? NULL : journal->gathered + journal->n_gathered;
}

/*
 * Whether a record is better kept until the next flush. The page up to which all is synced is write-protected since: a
 * store into it costs a fault, and the next sync more. So who syncs after each record always writes by calls.
 */
static bool gathers_now(const struct journal *journal)
{
    return journal->syncing || journal->n_gathered || journal->gathers ||
           journal->tail / PAGE_BYTES == journal->synced / PAGE_BYTES;
}

int journal_append(struct journal *journal, uint16_t type, const void *body, uint32_t size, uint64_t *position)
{
    uint64_t bytes = journal_record_bytes(size);
    struct journal_header header;
    struct segment *last;
    uint8_t *to;
    int error;

    if (journal->poisoned)
        return journal->poisoned;
    if (journal->read_only)
        return -EROFS;
    if (size > journal_max_size(journal))
        return -EMSGSIZE;
    if (bytes > journal->limit - journal->tail) {
        error = roll(journal);
        if (error)
            return error;
        if (bytes > journal->limit - journal->tail)
            return -EMSGSIZE;
    }
    header = (struct journal_header){
        .size = size,
        .sequence = journal->sequence + 1,
        .synced_upto = journal->synced,
        .position = journal->tail,
        .type = type,
    };
    header.crc = journal_checksum(journal->seed, &header, body);
    last = last_segment(journal);
    if (gathers_now(journal)) {
        to = gather(journal, bytes, &error);
        if (!to)
            return error;
        journal->n_gathered += bytes;
    } else {
        uint64_t offset = (uint32_t)journal->tail;

        if (offset + bytes > last->prefaulted)
            prefault(journal, last, offset + bytes);
        to = last->map + offset;
    }
    journal_point(journal->files, "append.body");
    memset(to + bytes - 8, 0, 8); /* the padding is in it */
    if (size)
        memcpy(to + JOURNAL_HEADER_BYTES, body, size);
    journal_point(journal->files, "append.header");
    memcpy(to, &header, sizeof header);
    journal_point(journal->files, "append.done");
    journal->sequence++;
    *position = journal->tail;
    journal->tail += bytes;
    return 0;
}

int journal_flush(struct journal *journal)
{
    int error;

    if (journal->poisoned)
        return journal->poisoned;
    if (journal->n_gathered) {
        journal_point(journal->files, "flush.write");
        error = journal_write(
            journal->files, last_segment(journal)->fd, journal->gathered, journal->n_gathered,
            (uint32_t)journal->flushed);
        if (error)
            return poison(journal, error);
        journal_point(journal->files, "flush.done");
        journal->n_gathered = 0;
    }
    journal->flushed = journal->tail;
    return 0;
}

int journal_sync_begin(struct journal *journal, struct journal_sync *sync)
{
    int error = journal_flush(journal);

    *sync = (struct journal_sync){.upto = journal->tail};
    if (error)
        return error;
    if (journal->syncing)
        return -EALREADY;
    if (journal->tail == journal->synced || journal->n_segments == 0)
        return 0;
    last_segment(journal)->end = (uint32_t)journal->tail;
    for (size_t i = journal->n_segments > 1 ? journal->n_segments - 2 : 0; i < journal->n_segments; i++) {
        const struct segment *segment = &journal->segments[i];

        if (segment->fd >= 0 && end_of(segment) > journal->synced)
            sync->fds[sync->n_fds++] = segment->fd;
    }
    journal->syncing = sync->n_fds > 0;
    journal_point(journal->files, "sync.begun");
    return 0;
}

int journal_sync_end(struct journal *journal, const struct journal_sync *sync, int error)
{
    if (sync->n_fds == 0)
        return error;
    journal->syncing = false;
    journal_point(journal->files, "sync.end");
    if (error) {
        poison(journal, error);
        return error;
    }
    if (!journal->poisoned && sync->upto > journal->synced) {
        journal->synced = sync->upto;
        close_synced(journal);
    }
    return 0;
}

int journal_sync(struct journal *journal)
{
    struct journal_sync sync;
    int error = journal_sync_begin(journal, &sync);

    if (error)
        return error;
    for (unsigned i = 0; i < sync.n_fds && !error; i++)
        error = journal_sync_file(journal->files, sync.fds[i]);
    return journal_sync_end(journal, &sync, error);
}

int journal_retire(struct journal *journal, uint64_t position, unsigned keep)
{
    size_t n = 0;
    int error = 0;

    if (journal->read_only)
        return -EROFS;
    if (journal->poisoned)
        return journal->poisoned;
    while (n + 1 < journal->n_segments) {
        struct segment *segment = &journal->segments[n];
        uint64_t next = journal->segments[n + 1].number << 32 | SEGMENT_FIRST_RECORD;

        /* Of what stays, a record must be on disk: it says which sequence comes next. */
        if (next > position || next >= journal->synced || segment->fd >= 0)
            break;
        segment_close(journal->files, segment);
        error = segment_retire(journal->files, journal->directory, segment->number, keep);
        if (error && error != -ENOENT)
            break;
        n++;
    }
    if (n == 0)
        return error;
    journal->n_segments -= n;
    memmove(journal->segments, journal->segments + n, journal->n_segments * sizeof *journal->segments);
    journal_point(journal->files, "retire.sync_directory");
    if (!error || error == -ENOENT)
        error = journal_sync_directory(journal->files, journal->directory);
    journal_point(journal->files, "retire.done");
    return error ? error : (int)n;
}
