/* Whole segments that are missing, have a header that is none, or are not of this journal. */
#include "journal_tests.h"

/* Many segments, all synced but the last few records. */
static struct directory many_segments(uint64_t *n, uint64_t *tail)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);

    append_many(&journal, 500);
    CHECK(journal_sync(&journal) == 0);
    append_many(&journal, 3);
    *n = journal.sequence;
    *tail = journal.tail;
    CHECK(journal.n_segments > 5);
    CHECK(journal_close(&journal) == 0);
    return directory;
}

static void test_missing_segment(void)
{
    uint64_t n, tail;
    struct directory directory = many_segments(&n, &tail);
    struct findings findings;
    struct journal journal;
    unsigned n_damages;

    CHECK(unlinkat(directory.fd, "0000000000000003.segment", 0) == 0);
    for (unsigned again = 0; again < 2; again++) {
        journal = open_journal(&directory, &findings);
        CHECK(findings.n[JOURNAL_MISSING] == 1 && findings.position[JOURNAL_MISSING] == UINT64_C(3) << 32);
        CHECK(findings.n[JOURNAL_CUT] == 0 && journal.sequence == n && journal.tail == tail);
        CHECK(count_good(&journal, &n_damages) > 300 && n_damages == 1);
        CHECK(journal_close(&journal) == 0);
    }
    remove_directory(&directory);
}

/* Every bit of one copy of a segment's header: it is told, and nothing is lost. Of both: only its records count. */
static void test_flipped_bits_of_a_segment_header(void)
{
    uint64_t n, tail;
    struct directory directory = many_segments(&n, &tail);
    struct findings findings;
    struct journal journal;
    unsigned n_damages;

    for (unsigned bit = 0; bit < 64 * 8; bit++) {
        uint64_t number = 1 + bit % 6, at = bit % 2 ? SEGMENT_SECOND_HEADER * UINT64_C(8) : 0;

        flip_bit(&directory, number, at + bit);
        journal = open_journal(&directory, &findings);
        CHECK(findings.n[JOURNAL_CUT] == 0 && findings.n[JOURNAL_SET_ASIDE] == 0);
        CHECK(findings.n[JOURNAL_SKIPPED] == 1 && findings.position[JOURNAL_SKIPPED] == number << 32);
        CHECK(count_whole(&journal) == n && journal.sequence == n && journal.tail == tail);
        CHECK(journal_close(&journal) == 0);
        flip_bit(&directory, number, at + bit);
    }
    for (unsigned number = 1; number <= 6; number++) {
        flip_bit(&directory, number, 100);
        flip_bit(&directory, number, SEGMENT_SECOND_HEADER * 8 + 200);
        journal = open_journal(&directory, &findings);
        CHECK(findings.n[JOURNAL_CUT] == 0 && findings.n[JOURNAL_SET_ASIDE] == 0);
        CHECK(journal.sequence == n && count_good(&journal, &n_damages) == n);
        CHECK(journal_close(&journal) == 0);
        flip_bit(&directory, number, 100);
        flip_bit(&directory, number, SEGMENT_SECOND_HEADER * 8 + 200);
    }
    remove_directory(&directory);
}

/* The last segment's header is no header: its records are read, and what comes next goes to another. */
static void test_last_header_is_bad(void)
{
    uint64_t n, tail, position;
    struct directory directory = many_segments(&n, &tail);
    struct findings findings;
    struct journal journal;

    flip_bit(&directory, tail >> 32, 100);
    flip_bit(&directory, tail >> 32, SEGMENT_SECOND_HEADER * 8 + 200);
    journal = open_journal(&directory, &findings);
    CHECK(journal.sequence == n && journal_next_number(&journal) == (tail >> 32) + 1);
    CHECK(append_next(&journal, &position) == 0 && position >> 32 == (tail >> 32) + 1);
    CHECK(journal_flush(&journal) == 0 && count_whole(&journal) == n + 1);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(&directory, &findings);
    CHECK(findings.n[JOURNAL_CUT] == 0 && journal.sequence == n + 1);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* Files with the names of segments that are none. Behind the last record: out of the way. Of another journal: stop. */
static void test_strange_files(void)
{
    uint64_t n, tail;
    struct directory directory = many_segments(&n, &tail), other = make_directory();
    struct findings findings;
    struct journal journal;
    char name[SEGMENT_NAME_BYTES];
    int fd;

    segment_name(name, (tail >> 32) + 1);
    fd = openat(directory.fd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, "what is this?", 13) == 13);
    close(fd);
    journal = open_journal(&directory, &findings);
    CHECK(findings.n[JOURNAL_SET_ASIDE] == 1 && !has_file(&directory, name));
    snprintf(name, sizeof name, "%016" PRIx64 ".broken", (tail >> 32) + 1);
    CHECK(has_file(&directory, name));
    CHECK(count_whole(&journal) == n);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(&directory, &findings);
    check_nothing_found(&findings);
    CHECK(journal_close(&journal) == 0);

    CHECK(
        segment_prepare(&journal_files_kernel, other.fd, (const uint8_t *)"0123456789abcdef", 20, SMALL_SEGMENT, 0) ==
        0);
    segment_name(name, 20);
    CHECK(renameat(other.fd, name, directory.fd, name) == 0);
    CHECK(try_open(&journal, &directory, 0, NULL, &journal_files_kernel) == -EILSEQ);
    CHECK(unlinkat(directory.fd, name, 0) == 0);
    journal = open_journal(&directory, &findings);
    CHECK(count_whole(&journal) == n);
    CHECK(journal_close(&journal) == 0);
    for (unsigned i = 1; i <= tail >> 32; i++) {
        flip_bit(&directory, i, 100);
        flip_bit(&directory, i, SEGMENT_SECOND_HEADER * 8 + 100);
    }
    CHECK(try_open(&journal, &directory, 0, NULL, &journal_files_kernel) == -EILSEQ); /* whose are they? */
    for (unsigned i = 1; i <= tail >> 32; i++)
        flip_bit(&directory, i, 100);
    journal = open_journal(&directory, &findings);
    CHECK(count_whole(&journal) == n);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
    remove_directory(&other);
}

/* Everything the start speaks of is gone: no position is used again. */
static void test_all_is_gone(void)
{
    uint64_t n, tail, position;
    struct directory directory = many_segments(&n, &tail);
    struct findings findings;
    struct journal journal;

    CHECK(unlinkat(directory.fd, "0000000000000006.segment", 0) == 0 || errno == ENOENT);
    for (uint64_t number = tail >> 32; number > 3; number--) {
        char name[SEGMENT_NAME_BYTES];

        segment_name(name, number);
        CHECK(unlinkat(directory.fd, name, 0) == 0 || number == 6);
    }
    CHECK(try_open(&journal, &directory, tail, &findings, &journal_files_kernel) == 0);
    CHECK(findings.n[JOURNAL_MISSING] >= 1 && findings.n[JOURNAL_CUT] == 0);
    CHECK(append_next(&journal, &position) == 0 && position > tail);
    CHECK(journal_close(&journal) == 0);
    empty_directory(&directory);
    CHECK(try_open(&journal, &directory, tail, &findings, &journal_files_kernel) == 0);
    CHECK(findings.n[JOURNAL_MISSING] == 1);
    CHECK(append_next(&journal, &position) == 0 && position > tail);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* Which bytes of its only map the disk was asked for. */
struct asked {
    const uint8_t *map;
    bool bytes[3 * SMALL_SEGMENT];
    unsigned n_bytes;
};

static int map_noted(void *context, int fd, uint64_t bytes, bool writable, uint8_t **map)
{
    struct asked *asked = context;
    int error = journal_files_kernel.map(NULL, fd, bytes, writable, map);

    if (!writable) /* not the last segment's */
        asked->map = *map;
    return error;
}

static void note_needed(void *context, uint8_t *map, uint64_t bytes)
{
    struct asked *asked = context;
    size_t from = (size_t)(map - asked->map);

    CHECK((uintptr_t)map % 4096 == 0 && from + bytes <= SMALL_SEGMENT);
    for (size_t i = from; i < from + bytes; i++) {
        asked->n_bytes += !asked->bytes[i];
        asked->bytes[i] = true;
    }
}

/* What is expected is asked for whole, and not much more is. */
static void test_expects(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct asked *asked = calloc(1, sizeof *asked);
    struct journal_files files = journal_files_kernel;
    uint64_t positions[5], tail;

    CHECK(asked != NULL);
    files.context = asked;
    files.map = map_noted;
    files.will_need = note_needed;
    CHECK(append_sized(&journal, 20000, &positions[0]) == 0);
    CHECK(append_sized(&journal, 20000, &positions[1]) == 0); /* nobody expects it */
    CHECK(append_sized(&journal, 100, &positions[1]) == 0);
    CHECK(append_sized(&journal, 20000, &tail) == 0);
    CHECK(journal_sync(&journal) == 0);
    CHECK(append_sized(&journal, 20000, &tail) == 0 && tail >> 32 == 2);
    CHECK(journal_sync(&journal) == 0);
    tail = journal.tail;
    CHECK(journal_close(&journal) == 0);

    CHECK(try_open(&journal, &directory, tail, NULL, &files) == 0);
    positions[2] = positions[1] + 8;        /* no record */
    positions[3] = UINT64_C(7) << 32;       /* no segment */
    positions[4] = (UINT64_C(1) << 32) - 8; /* not even a number */
    journal_expect(&journal, positions, 5);
    CHECK(asked->map != NULL);
    for (unsigned i = 0; i < 20000 + JOURNAL_HEADER_BYTES; i++)
        CHECK(asked->bytes[(uint32_t)positions[0] + i]);
    for (unsigned i = 0; i < 100 + JOURNAL_HEADER_BYTES; i++)
        CHECK(asked->bytes[(uint32_t)positions[1] + i]);
    CHECK(asked->n_bytes <= (6 + 2) * 4096);
    journal_expect(&journal, NULL, 0);
    CHECK(journal_close(&journal) == 0);
    free(asked);
    remove_directory(&directory);
}

int main(void)
{
    test_missing_segment();
    test_flipped_bits_of_a_segment_header();
    test_last_header_is_bad();
    test_strange_files();
    test_all_is_gone();
    test_expects();
    return 0;
}
