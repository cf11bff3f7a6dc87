/* Windows of a file, one at a time. What is promised stands in scan.h. */
#define _GNU_SOURCE
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

/* As much of a body is summed at a time. */
#define PIECE_BYTES (64u << 10)

_Static_assert(PIECE_BYTES + 8 <= SCAN_WINDOW_BYTES, "a piece fits a window, wherever it begins");

int scan_start(
    struct scan *scan, const struct journal_files *files, int directory, uint32_t seed, const struct segment *segments,
    size_t n_segments)
{
    *scan = (struct scan){
        .files = files,
        .directory = directory,
        .seed = seed,
        .segments = segments,
        .n_segments = n_segments,
        .fd = -1,
        .window = malloc(SCAN_WINDOW_BYTES),
    };
    return scan->window ? 0 : -ENOMEM;
}

static void close_file(struct scan *scan)
{
    if (scan->fd >= 0)
        scan->files->close(scan->files->context, scan->fd);
    scan->fd = -1;
    scan->n_bytes = 0;
}

void scan_end(struct scan *scan)
{
    close_file(scan);
    free(scan->window);
    scan->window = NULL;
}

int scan_bytes(struct scan *scan, struct scan_place place, uint64_t size, const uint8_t **bytes)
{
    const struct segment *segment = &scan->segments[place.segment];
    uint64_t room;
    int error;

    if (scan->fd < 0 || scan->open != place.segment) {
        char name[SEGMENT_NAME_BYTES];

        close_file(scan);
        segment_name(name, segment->number);
        scan->fd = journal_open_file(scan->files, scan->directory, name, O_RDONLY);
        if (scan->fd < 0)
            return scan->fd;
        scan->open = place.segment;
    }
    if (place.offset < scan->from || place.offset + size > scan->from + scan->n_bytes || scan->n_bytes == 0) {
        scan->n_bytes = 0;
        room = segment->bytes - place.offset;
        if (room > SCAN_WINDOW_BYTES)
            room = SCAN_WINDOW_BYTES;
        error = journal_read_file(scan->files, scan->fd, scan->window, room, place.offset);
        if (error)
            return error;
        scan->from = place.offset;
        scan->n_bytes = room;
    }
    *bytes = scan->window + (place.offset - scan->from);
    return 0;
}

int scan_record(struct scan *scan, struct scan_place place, uint64_t sequence, struct journal_header *header)
{
    uint64_t end = scan->segments[place.segment].bytes, left;
    const uint8_t *bytes;
    uint32_t crc;
    int error;

    if (place.offset + JOURNAL_HEADER_BYTES > end)
        return 0;
    error = scan_bytes(scan, place, JOURNAL_HEADER_BYTES, &bytes);
    if (error)
        return error;
    memcpy(header, bytes, sizeof *header);
    if (!journal_header_fits(header, scan_position(scan, place), end - place.offset) || header->sequence <= sequence)
        return 0;
    crc = crc32c(scan->seed, &header->size, JOURNAL_HEADER_BYTES - sizeof header->crc);
    place.offset += JOURNAL_HEADER_BYTES;
    for (left = header->size; left > 0;) {
        uint64_t piece = left < PIECE_BYTES ? left : PIECE_BYTES;

        error = scan_bytes(scan, place, piece, &bytes);
        if (error)
            return error;
        crc = crc32c(crc, bytes, piece);
        place.offset += piece;
        left -= piece;
    }
    return crc == header->crc;
}

/* Offset of the first place in the window at or behind `offset` that holds its own position, or where to read on. */
static uint64_t skip_in_window(const struct scan *scan, uint64_t number, uint64_t offset)
{
    uint64_t end = scan->from + scan->n_bytes;

    for (; offset + JOURNAL_HEADER_BYTES <= end; offset += 8) {
        uint64_t word;

        memcpy(&word, scan->window + (offset - scan->from) + offsetof(struct journal_header, position), sizeof word);
        if (word == (number << 32 | offset))
            break;
    }
    return offset;
}

int scan_candidate(struct scan *scan, struct scan_place *place, size_t end)
{
    for (; place->segment < end; place->segment++, place->offset = SEGMENT_FIRST_RECORD) {
        const struct segment *segment = &scan->segments[place->segment];

        while (place->offset + JOURNAL_HEADER_BYTES <= segment->bytes) {
            const uint8_t *bytes;
            int error = scan_bytes(scan, *place, JOURNAL_HEADER_BYTES, &bytes);
            uint64_t found;

            if (error)
                return error;
            found = skip_in_window(scan, segment->number, place->offset);
            if (found == place->offset)
                return 1;
            place->offset = found; /* what it needs may lie behind the window */
        }
    }
    return 0;
}

int scan_search(
    struct scan *scan, struct scan_place *place, size_t end, uint64_t sequence, struct journal_header *header)
{
    int result;

    for (; (result = scan_candidate(scan, place, end)) > 0; place->offset += 8) {
        result = scan_record(scan, *place, sequence, header);
        if (result)
            break;
    }
    return result;
}
