/*
 * Segments as files. What each promises stands in segment.h, what lies in them in journal.h.
 *
 * How one is made: under the name of its maker, whole and synced; then it gets its final name as a second one, which
 * can't replace anything; then the directory is synced; then the maker's name goes. So who finds the final name alone
 * finds a segment that no crash takes away, and a maker's name beside it says that this is not yet so.
 */
#define _GNU_SOURCE
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT 1u

struct header {
    char magic[8];
    uint32_t format;
    uint32_t header_bytes;
    uint64_t number;
    uint64_t bytes;
    uint8_t id[SEGMENT_ID_BYTES];
    uint64_t created_ns;
    uint32_t crc;
    uint32_t zero;
};

_Static_assert(sizeof(struct header) == 64, "it is the format");
_Static_assert(SEGMENT_SECOND_HEADER + sizeof(struct header) <= SEGMENT_FIRST_RECORD, "both stand before the records");

static const char magic[8] = {'a', 'g', 'e', 'n', 't', 'd', 'J', '1'};
static const char *const maker_suffixes[2] = {".preparing", ".preparing-now"};
static const char *const spare_names[SEGMENT_SPARES] = {"spare-0", "spare-1"};

bool segment_bytes_are_valid(uint64_t bytes)
{
    return bytes >= SEGMENT_MIN_BYTES && bytes <= SEGMENT_MAX_BYTES && bytes % SEGMENT_GRAIN == 0;
}

void segment_name(char *name, uint64_t number)
{
    snprintf(name, SEGMENT_NAME_BYTES, "%016" PRIx64 ".segment", number);
}

static void maker_name(char *name, uint64_t number, unsigned maker)
{
    snprintf(name, SEGMENT_NAME_BYTES, "%016" PRIx64 "%s", number, maker_suffixes[maker]);
}

static uint32_t header_crc(const struct header *header)
{
    return crc32c(0, header, offsetof(struct header, crc));
}

static bool header_is_valid(const struct header *header)
{
    return memcmp(header->magic, magic, sizeof magic) == 0 && header->crc == header_crc(header) &&
           (header->format != FORMAT || (header->header_bytes == sizeof *header && header->zero == 0));
}

int segment_identify(const struct journal_files *files, int fd, struct segment_identity *identity)
{
    struct header copies[2];
    const struct header *header;
    bool valid[2];
    int64_t size = files->size(files->context, fd);
    int error;

    if (size < 0)
        return (int)size;
    if (size < SEGMENT_FIRST_RECORD)
        return -EILSEQ;
    error = journal_read_file(files, fd, &copies[0], sizeof copies[0], 0);
    if (!error)
        error = journal_read_file(files, fd, &copies[1], sizeof copies[1], SEGMENT_SECOND_HEADER);
    if (error)
        return error;
    valid[0] = header_is_valid(&copies[0]);
    valid[1] = header_is_valid(&copies[1]);
    if (!valid[0] && !valid[1])
        return -EILSEQ;
    header = &copies[valid[0] ? 0 : 1];
    if (header->format != FORMAT)
        return -EPROTONOSUPPORT;
    if (header->bytes != (uint64_t)size || !segment_bytes_are_valid(header->bytes))
        return -EILSEQ;
    *identity =
        (struct segment_identity){.number = header->number, .bytes = header->bytes, .created_ns = header->created_ns};
    memcpy(identity->id, header->id, sizeof identity->id);
    return valid[0] && valid[1] ? 0 : 1;
}

static int write_header(
    const struct journal_files *files, int fd, const uint8_t id[SEGMENT_ID_BYTES], uint64_t number, uint64_t bytes)
{
    struct header header = {
        .format = FORMAT,
        .header_bytes = sizeof header,
        .number = number,
        .bytes = bytes,
        .created_ns = files->now_ns(files->context),
    };
    int error;

    memcpy(header.magic, magic, sizeof magic);
    memcpy(header.id, id, sizeof header.id);
    header.crc = header_crc(&header);
    error = journal_write(files, fd, &header, sizeof header, 0);
    if (!error)
        error = journal_write(files, fd, &header, sizeof header, SEGMENT_SECOND_HEADER);
    return error;
}

static int write_zeros(const struct journal_files *files, int fd, uint64_t bytes)
{
    void *zeros = calloc(1, JOURNAL_ZEROING_BYTES);
    int error = zeros ? journal_allocate(files, fd, bytes) : -ENOMEM;

    for (uint64_t offset = 0; !error && offset < bytes; offset += JOURNAL_ZEROING_BYTES) {
        journal_point(files, "prepare.zeros");
        error = journal_write(files, fd, zeros, JOURNAL_ZEROING_BYTES, offset);
    }
    free(zeros);
    return error;
}

/*
 * A spare of the right size, under the maker's name, or -ENOENT. Before it is written to, the disk must know that it is
 * no segment any more: else a crash finds the old name before a new header.
 */
static int take_spare(const struct journal_files *files, int directory, const char *name, uint64_t bytes)
{
    int fd, error;

    for (unsigned i = 0; i < SEGMENT_SPARES; i++) {
        if (files->rename(files->context, directory, spare_names[i], name) < 0)
            continue;
        journal_point(files, "prepare.spare_taken");
        fd = journal_open_file(files, directory, name, O_RDWR);
        if (fd < 0)
            return fd;
        if (files->size(files->context, fd) != (int64_t)bytes) { /* made for other settings */
            files->close(files->context, fd);
            files->unlink(files->context, directory, name);
            continue;
        }
        error = journal_sync_directory(files, directory);
        if (!error)
            return fd;
        files->close(files->context, fd);
        return error;
    }
    return -ENOENT;
}

/* The file under the maker's name: whole, synced, and nobody's yet. */
static int make_file(
    const struct journal_files *files, int directory, const char *name, const uint8_t id[SEGMENT_ID_BYTES],
    uint64_t number, uint64_t bytes)
{
    int fd, error = 0;

    files->unlink(files->context, directory, name); /* of an attempt that failed; its other name keeps the file */
    fd = take_spare(files, directory, name, bytes);
    if (fd == -ENOENT) {
        fd = journal_open_file(files, directory, name, O_RDWR | O_CREAT | O_EXCL);
        if (fd < 0)
            return fd;
        journal_point(files, "prepare.created");
        error = write_zeros(files, fd, bytes);
    }
    if (fd < 0)
        return fd;
    journal_point(files, "prepare.header");
    if (!error)
        error = write_header(files, fd, id, number, bytes);
    journal_point(files, "prepare.sync");
    if (!error)
        error = journal_sync_file(files, fd);
    files->close(files->context, fd);
    return error;
}

int segment_prepare(
    const struct journal_files *files, int directory, const uint8_t id[SEGMENT_ID_BYTES], uint64_t number,
    uint64_t bytes, unsigned maker)
{
    char name[SEGMENT_NAME_BYTES], own_name[SEGMENT_NAME_BYTES];
    int fd, error;

    if (!segment_bytes_are_valid(bytes) || number == 0 || number > SEGMENT_MAX_NUMBER || maker > 1)
        return -EINVAL;
    segment_name(name, number);
    maker_name(own_name, number, maker);
    fd = journal_open_file(files, directory, name, O_RDONLY);
    if (fd >= 0) {
        /* Another made it, or we did and could not sync its name: written into the directory again, it is again. */
        files->close(files->context, fd);
        error = files->link(files->context, directory, name, own_name);
        if (error == -EEXIST)
            error = 0;
    } else if (fd == -ENOENT) {
        error = make_file(files, directory, own_name, id, number, bytes);
        if (!error) {
            journal_point(files, "prepare.link");
            error = files->link(files->context, directory, own_name, name);
        }
        if (error == -EEXIST) /* another was faster */
            error = 0;
        else if (error)
            files->unlink(files->context, directory, own_name);
    } else {
        error = fd;
    }
    if (error)
        return error;
    journal_point(files, "prepare.sync_directory");
    error = journal_sync_directory(files, directory);
    if (error) /* own_name stays: it says that the other name may not last */
        return error;
    journal_point(files, "prepare.unlink");
    files->unlink(files->context, directory, own_name);
    journal_point(files, "prepare.done");
    return 0;
}

int segment_is_ready(const struct journal_files *files, int directory, uint64_t number)
{
    char name[SEGMENT_NAME_BYTES];
    int fd;

    maker_name(name, number, 0);
    fd = journal_open_file(files, directory, name, O_RDONLY);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    files->close(files->context, fd);
    return -EAGAIN;
}

int segment_map(const struct journal_files *files, int directory, struct segment *segment)
{
    char name[SEGMENT_NAME_BYTES];
    int fd, error = 0;
    int64_t size;

    if (segment->bytes < SEGMENT_FIRST_RECORD + JOURNAL_HEADER_BYTES)
        return -EILSEQ; /* it holds nothing */
    segment_name(name, segment->number);
    fd = journal_open_file(files, directory, name, O_RDONLY);
    if (fd < 0)
        return fd;
    size = files->size(files->context, fd);
    if (size < 0 || (uint64_t)size < segment->bytes) /* reading behind its end would be SIGBUS */
        error = size < 0 ? (int)size : -EILSEQ;
    if (!error)
        error = files->map(files->context, fd, segment->bytes, false, &segment->map);
    files->close(files->context, fd);
    segment->writable = false;
    return error;
}

int segment_open(
    const struct journal_files *files, int directory, const uint8_t id[SEGMENT_ID_BYTES], uint64_t number,
    struct segment *segment)
{
    char name[SEGMENT_NAME_BYTES];
    struct segment_identity identity;
    int fd, result;

    segment_name(name, number);
    fd = journal_open_file(files, directory, name, O_RDWR);
    if (fd < 0)
        return fd;
    result = segment_identify(files, fd, &identity);
    if (result >= 0 && (identity.number != number || memcmp(identity.id, id, SEGMENT_ID_BYTES) != 0))
        result = -EILSEQ;
    *segment = (struct segment){.number = number, .fd = fd, .writable = true};
    if (result >= 0) {
        segment->bytes = identity.bytes;
        result = files->map(files->context, fd, segment->bytes, true, &segment->map);
    }
    if (result < 0) {
        files->close(files->context, fd);
        *segment = (struct segment){.fd = -1};
        return result;
    }
    return 0;
}

void segment_close(const struct journal_files *files, struct segment *segment)
{
    if (segment->map)
        files->unmap(files->context, segment->map, segment->bytes);
    if (segment->fd >= 0)
        files->close(files->context, segment->fd);
    segment->map = NULL;
    segment->fd = -1;
}

int segment_retire(const struct journal_files *files, int directory, uint64_t number, unsigned keep)
{
    char name[SEGMENT_NAME_BYTES];

    segment_name(name, number);
    journal_point(files, "retire.unlink");
    if (keep == 0)
        return files->unlink(files->context, directory, name);
    /* In one step, so that who takes the spare has the file alone. A spare that waits there already goes instead. */
    return files->rename(
        files->context, directory, name, spare_names[number % (keep < SEGMENT_SPARES ? keep : SEGMENT_SPARES)]);
}

struct cleaning {
    const struct journal_files *files;
    int directory;
};

static int remove_if_unfinished(void *context, const char *name)
{
    const struct cleaning *cleaning = context;
    size_t length = strlen(name);

    for (unsigned i = 0; i < 2; i++) {
        size_t suffix = strlen(maker_suffixes[i]);

        if (length > suffix && strcmp(name + length - suffix, maker_suffixes[i]) == 0)
            cleaning->files->unlink(cleaning->files->context, cleaning->directory, name);
    }
    return 0;
}

int segment_clean(const struct journal_files *files, int directory)
{
    struct cleaning cleaning = {.files = files, .directory = directory};

    return files->list(files->context, directory, remove_if_unfinished, &cleaning);
}

const struct journal_header *
segment_record(const struct segment *segment, uint64_t offset, uint64_t limit, uint32_t seed)
{
    const struct journal_header *header = (const struct journal_header *)(const void *)(segment->map + offset);

    if (offset % 8 != 0 || offset < SEGMENT_FIRST_RECORD || offset > limit || limit - offset < JOURNAL_HEADER_BYTES)
        return NULL;
    if (!journal_header_fits(header, segment->number << 32 | offset, limit - offset))
        return NULL;
    return header->crc == journal_checksum(seed, header, header + 1) ? header : NULL;
}

uint64_t segment_search(const struct segment *segment, uint64_t offset, uint64_t limit, uint32_t seed)
{
    for (; offset + JOURNAL_HEADER_BYTES <= limit; offset += 8) {
        const struct journal_header *header = (const struct journal_header *)(const void *)(segment->map + offset);

        /* Of all places hardly one holds its own position. */
        if (header->position == (segment->number << 32 | offset) && segment_record(segment, offset, limit, seed))
            return offset;
    }
    return limit;
}
