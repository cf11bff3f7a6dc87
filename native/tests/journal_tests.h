/* What the tests of the journal share: a directory of their own, records that tell their number.
 * SPDX-License-Identifier: MIT */
#ifndef AGENTD_JOURNAL_TESTS_H
#define AGENTD_JOURNAL_TESTS_H

#include "../journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

#define SMALL_SEGMENT (64u << 10)
#define FIRST_POSITION (UINT64_C(1) << 32 | SEGMENT_FIRST_RECORD)

struct directory {
    char path[512];
    int fd;
};

/* In $TMPDIR, or in memory: most tests open thousands of journals, and what they look at does not need a disk. */
static inline struct directory make_directory(void)
{
    const char *parent = getenv("TMPDIR");
    struct directory made;

    if (!parent)
        parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(made.path, sizeof made.path, "%s/agentd-journal-XXXXXX", parent);
    CHECK(mkdtemp(made.path) != NULL);
    made.fd = open(made.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(made.fd >= 0);
    return made;
}

/* Calls `each` with every name in it. */
static inline void
each_file(const struct directory *directory, void (*each)(int fd, const char *name, void *context), void *context)
{
    DIR *stream = opendir(directory->path);
    struct dirent *entry;

    CHECK(stream != NULL);
    while ((entry = readdir(stream)))
        if (entry->d_name[0] != '.')
            each(directory->fd, entry->d_name, context);
    closedir(stream);
}

static inline void remove_one(int fd, const char *name, void *context)
{
    (void)context;
    CHECK(unlinkat(fd, name, 0) == 0);
}

static inline void empty_directory(const struct directory *directory)
{
    each_file(directory, remove_one, NULL);
}

static inline void remove_directory(struct directory *directory)
{
    empty_directory(directory);
    close(directory->fd);
    CHECK(rmdir(directory->path) == 0);
}

static inline bool has_file(const struct directory *directory, const char *name)
{
    return faccessat(directory->fd, name, F_OK, 0) == 0;
}

static inline void count_segment(int fd, const char *name, void *context)
{
    unsigned *n = context;

    (void)fd;
    *n += strlen(name) > 8 && strcmp(name + strlen(name) - 8, ".segment") == 0;
}

static inline unsigned n_segment_files(const struct directory *directory)
{
    unsigned n = 0;

    each_file(directory, count_segment, &n);
    return n;
}

/* What recovery told. */
struct findings {
    unsigned n[4];
    uint64_t position[4]; /* of the last of each kind */
    uint64_t bytes[4];
};

static inline void note_finding(void *context, enum journal_finding finding, uint64_t position, uint64_t bytes)
{
    struct findings *findings = context;

    findings->n[finding]++;
    findings->position[finding] = position;
    findings->bytes[finding] = bytes;
}

static inline int try_open(
    struct journal *journal, const struct directory *directory, uint64_t start, struct findings *findings,
    const struct journal_files *files)
{
    struct journal_shape shape = {
        .segment_bytes = SMALL_SEGMENT,
        .start = start,
        .report = findings ? note_finding : NULL,
        .report_context = findings,
    };

    if (findings)
        *findings = (struct findings){.n = {0}};
    return journal_open(journal, directory->fd, &shape, files);
}

static inline struct journal open_journal(const struct directory *directory, struct findings *findings)
{
    struct journal journal;

    CHECK(try_open(&journal, directory, 0, findings, &journal_files_kernel) == 0);
    return journal;
}

static inline void check_nothing_found(const struct findings *findings)
{
    for (unsigned i = 0; i < 4; i++)
        CHECK(findings->n[i] == 0);
}

/* The size of the record with that sequence, and its type and body: so that any record can be checked alone. */
static inline uint32_t size_of(uint64_t sequence)
{
    return (uint32_t)(sequence * 2654435761u >> 7) % 1500;
}

static inline void fill_body(uint8_t *body, uint32_t size, uint64_t sequence)
{
    for (uint32_t i = 0; i < size; i++)
        body[i] = (uint8_t)(sequence * 31 + i);
}

static inline int append_sized(struct journal *journal, uint32_t size, uint64_t *position)
{
    uint8_t body[24 << 10];
    uint64_t sequence = journal->sequence + 1;

    CHECK(size <= sizeof body);
    fill_body(body, size, sequence);
    return journal_append(journal, (uint16_t)sequence, body, size, position);
}

/* The next record, of its own size. */
static inline int append_next(struct journal *journal, uint64_t *position)
{
    return append_sized(journal, size_of(journal->sequence + 1), position);
}

/* Append so many, with a sync wherever one is asked for. */
static inline void append_many(struct journal *journal, unsigned n)
{
    uint64_t position;

    while (n > 0) {
        int error = append_next(journal, &position);

        CHECK(error == 0 || error == -EAGAIN);
        if (error)
            CHECK(journal_sync(journal) == 0);
        else
            n--;
    }
}

static inline void check_record(const struct journal_record *record)
{
    uint8_t body[24 << 10];

    CHECK(record->type == (uint16_t)record->sequence);
    CHECK(record->size <= sizeof body);
    fill_body(body, record->size, record->sequence);
    CHECK(memcmp(record->body, body, record->size) == 0);
}

/* Read everything; the sequences rise by one. Of the first and the last record; 0 and 0 when there is none. */
static inline void check_whole(struct journal *journal, uint64_t *first, uint64_t *last)
{
    uint64_t position = journal_first(journal), next;
    struct journal_record record;
    int result;

    *first = *last = 0;
    while ((result = journal_read(journal, position, &record, &next)) > 0) {
        check_record(&record);
        CHECK(record.position >= position && next > record.position);
        if (*first == 0)
            *first = record.sequence;
        else
            CHECK(record.sequence == *last + 1);
        *last = record.sequence;
        position = next;
    }
    CHECK(result == 0);
    CHECK(*last == 0 || position == journal->flushed);
}

/* The sequence of the last one that is read, when nothing before it is missing. */
static inline uint64_t count_whole(struct journal *journal)
{
    uint64_t first, last;

    check_whole(journal, &first, &last);
    CHECK(first <= 1);
    return last;
}

/* Read everything, over damage: how many records, and how many times there was damage. */
static inline unsigned count_good(struct journal *journal, unsigned *n_damages)
{
    uint64_t position = journal_first(journal), next;
    struct journal_record record;
    unsigned n = 0;
    int result;

    *n_damages = 0;
    while ((result = journal_read(journal, position, &record, &next)) != 0) {
        CHECK(result == 1 || result == -EILSEQ);
        CHECK(next > position);
        if (result > 0) {
            check_record(&record);
            n++;
        } else {
            ++*n_damages;
        }
        position = next;
    }
    return n;
}

/* Change bytes of a file behind the journal's back. */
static inline void
scribble(const struct directory *directory, uint64_t number, uint64_t offset, const void *bytes, size_t size)
{
    char name[SEGMENT_NAME_BYTES];
    int fd;

    segment_name(name, number);
    fd = openat(directory->fd, name, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pwrite(fd, bytes, size, (off_t)offset) == (ssize_t)size);
    close(fd);
}

static inline void peek(const struct directory *directory, uint64_t number, uint64_t offset, void *bytes, size_t size)
{
    char name[SEGMENT_NAME_BYTES];
    int fd;

    segment_name(name, number);
    fd = openat(directory->fd, name, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pread(fd, bytes, size, (off_t)offset) == (ssize_t)size);
    close(fd);
}

static inline void flip_bit(const struct directory *directory, uint64_t number, uint64_t bit)
{
    uint8_t byte;

    peek(directory, number, bit / 8, &byte, 1);
    byte ^= (uint8_t)(1u << bit % 8);
    scribble(directory, number, bit / 8, &byte, 1);
}

#endif
