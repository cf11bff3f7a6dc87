/* The journal as one who uses it sees it: append, flush, roll, sync, read, retire, open again. */
#include "journal_tests.h"

static void test_empty(void)
{
    struct directory directory = make_directory();
    struct findings findings;
    struct journal journal = open_journal(&directory, &findings);
    struct journal_record record;
    uint64_t next;

    check_nothing_found(&findings);
    CHECK(journal.tail == FIRST_POSITION && journal.synced == FIRST_POSITION);
    CHECK(journal_first(&journal) == FIRST_POSITION);
    CHECK(journal_read(&journal, 0, &record, &next) == 0);
    CHECK(journal_sync(&journal) == 0 && journal_flush(&journal) == 0);
    CHECK(journal_close(&journal) == 0);
    CHECK(n_segment_files(&directory) == 0);
    remove_directory(&directory);
}

static void test_one_record(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct journal_record record;
    uint64_t position, next;

    CHECK(journal_append(&journal, 7, "abc", 3, &position) == 0);
    CHECK(position == FIRST_POSITION && journal.tail == FIRST_POSITION + 48);
    CHECK(journal_read(&journal, position, &record, &next) == 0 && next == position); /* not flushed */
    CHECK(journal_flush(&journal) == 0);
    CHECK(journal_read(&journal, position, &record, &next) == 1);
    CHECK(record.position == position && record.sequence == 1 && record.type == 7 && record.size == 3);
    CHECK(memcmp(record.body, "abc", 3) == 0 && next == journal.tail);
    CHECK(journal_read(&journal, next, &record, &next) == 0);
    CHECK(journal_read(&journal, position + 4, &record, &next) == -EINVAL);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(&directory, NULL);
    CHECK(journal.sequence == 1 && journal.tail == FIRST_POSITION + 48 && journal.synced == journal.tail);
    CHECK(journal_read(&journal, 0, &record, &next) == 1 && record.type == 7);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* Many segments, opened again in between. Everything is read back, from the start and from each record. */
static void test_many_segments(bool gathers)
{
    struct directory directory = make_directory();
    struct journal_shape shape = {.segment_bytes = SMALL_SEGMENT, .gathers = gathers};
    struct journal journal;
    struct journal_record record;
    uint64_t next;

    for (unsigned round = 1; round <= 5; round++) {
        CHECK(journal_open(&journal, directory.fd, &shape, &journal_files_kernel) == 0);
        CHECK(journal.sequence == 200 * (round - 1));
        append_many(&journal, 200);
        CHECK(journal_flush(&journal) == 0);
        CHECK(count_whole(&journal) == 200 * round);
        CHECK(journal_close(&journal) == 0);
    }
    CHECK(n_segment_files(&directory) > 8);
    CHECK(journal_open(&journal, directory.fd, &shape, &journal_files_kernel) == 0);
    for (uint64_t position = journal_first(&journal), n = 1; n <= 1000; n++, position = next) {
        CHECK(journal_read(&journal, position, &record, &next) == 1);
        CHECK(record.sequence == n);
    }
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

static void test_limits(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct journal_shape shape = {.segment_bytes = SMALL_SEGMENT + 8};
    uint8_t *body = calloc(1, SMALL_SEGMENT);
    uint64_t position;

    CHECK(body != NULL);
    CHECK(journal_append(&journal, 1, body, journal_max_size(&journal) + 1, &position) == -EMSGSIZE);
    CHECK(journal_append(&journal, 1, body, UINT32_MAX, &position) == -EMSGSIZE);
    CHECK(journal.tail == FIRST_POSITION);
    for (unsigned i = 0; i < 7; i++) {
        int error = journal_append(&journal, 1, body, journal_max_size(&journal), &position);

        if (error == -EAGAIN)
            CHECK(journal_sync(&journal) == 0);
        else
            CHECK(error == 0);
    }
    CHECK(journal_append(&journal, 1, NULL, 0, &position) == 0);
    CHECK(journal_close(&journal) == 0);
    CHECK(journal_open(&journal, directory.fd, &shape, &journal_files_kernel) == -EINVAL);
    shape = (struct journal_shape){.segment_bytes = SMALL_SEGMENT, .start = 4096};
    CHECK(journal_open(&journal, directory.fd, &shape, &journal_files_kernel) == -EINVAL);
    free(body);
    remove_directory(&directory);
}

/* n is synced before n + 2 is opened; what was refused can be appended after the sync. */
static void test_roll_waits_for_sync(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    uint64_t position, tail;
    int error;

    while ((error = append_next(&journal, &position)) == 0)
        CHECK(position >> 32 <= 2);
    CHECK(error == -EAGAIN && journal.tail >> 32 == 2 && journal.synced == FIRST_POSITION);
    tail = journal.tail;
    CHECK(append_next(&journal, &position) == -EAGAIN && journal.tail == tail);
    CHECK(n_segment_files(&directory) == 2);
    CHECK(journal_sync(&journal) == 0 && journal.synced == tail);
    CHECK(append_next(&journal, &position) == 0 && position >> 32 == 3);
    CHECK(journal_flush(&journal) == 0);
    CHECK(count_whole(&journal) == journal.sequence);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* While a sync is in flight nothing is stored into a map, and what comes in is read after the next flush. */
static void test_gathers_beside_a_sync(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct journal_sync sync, second;
    struct journal_record record;
    uint64_t position, next, upto;
    uint8_t found[8];

    append_many(&journal, 3);
    CHECK(journal_sync_begin(&journal, &sync) == 0);
    CHECK(sync.n_fds == 1 && sync.upto == journal.tail);
    CHECK(journal_sync_begin(&journal, &second) == -EALREADY);
    upto = sync.upto;
    CHECK(append_next(&journal, &position) == 0 && position == upto);
    peek(&directory, 1, (uint32_t)position, found, sizeof found);
    CHECK(memcmp(found, "\0\0\0\0\0\0\0\0", 8) == 0);
    CHECK(journal_read(&journal, position, &record, &next) == 0);
    CHECK(journal_flush(&journal) == 0);
    CHECK(journal_read(&journal, position, &record, &next) == 1 && record.sequence == 4);
    CHECK(append_next(&journal, &position) == 0);
    CHECK(journal_sync_end(&journal, &sync, 0) == 0 && journal.synced == upto);
    CHECK(append_next(&journal, &position) == 0); /* behind one that waits: it waits too */
    CHECK(journal_read(&journal, position, &record, &next) == 0);
    CHECK(journal_sync_begin(&journal, &sync) == 0 && sync.upto == journal.tail);
    CHECK(journal_read(&journal, position, &record, &next) == 1 && record.sequence == 6);
    /* Over the end of the segment, twice. */
    while (journal.tail >> 32 == 1)
        CHECK(append_next(&journal, &position) == 0);
    CHECK(fcntl(sync.fds[0], F_GETFD) >= 0);
    CHECK(journal_sync_end(&journal, &sync, 0) == 0);
    CHECK(journal_sync_begin(&journal, &sync) == 0 && sync.n_fds == 2);
    CHECK(journal_sync_end(&journal, &sync, 0) == 0);
    append_many(&journal, 100);
    CHECK(journal_flush(&journal) == 0);
    CHECK(count_whole(&journal) == journal.sequence);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(&directory, NULL);
    CHECK(count_whole(&journal) == journal.sequence);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* More than is gathered, in one sync. */
static void test_gathers_much(void)
{
    struct directory directory = make_directory();
    struct journal_shape shape = {.segment_bytes = 16u << 20};
    struct journal journal;
    struct journal_sync sync;
    uint64_t position;

    CHECK(journal_open(&journal, directory.fd, &shape, &journal_files_kernel) == 0);
    append_many(&journal, 1);
    CHECK(journal_sync_begin(&journal, &sync) == 0);
    for (unsigned i = 0; i < 400; i++) {
        CHECK(append_sized(&journal, 20u << 10, &position) == 0);
        CHECK(journal.n_gathered <= JOURNAL_GATHER_BYTES);
    }
    CHECK(journal_sync_end(&journal, &sync, 0) == 0);
    CHECK(journal_flush(&journal) == 0);
    CHECK(count_whole(&journal) == 401);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

static void test_poison(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct journal_record record;
    struct journal_sync sync;
    uint64_t position, next;

    append_many(&journal, 5);
    CHECK(journal_sync(&journal) == 0);
    append_many(&journal, 5);
    CHECK(journal_sync_begin(&journal, &sync) == 0);
    CHECK(journal_sync_end(&journal, &sync, -EIO) == -EIO);
    CHECK(journal.poisoned == -EIO && journal.synced < journal.tail);
    CHECK(append_next(&journal, &position) == -EIO && journal_flush(&journal) == -EIO);
    CHECK(journal_sync_begin(&journal, &sync) == -EIO && journal_sync(&journal) == -EIO);
    CHECK(journal_retire(&journal, journal.tail, 0) == -EIO);
    CHECK(!journal_needs_prepare(&journal));
    CHECK(journal_read(&journal, 0, &record, &next) == 1); /* what was there can still be read */
    CHECK(journal_close(&journal) == -EIO);
    journal = open_journal(&directory, NULL);
    CHECK(journal.poisoned == 0 && count_whole(&journal) == 10);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

static void test_one_writer(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL), second;
    struct journal_shape reading = {.read_only = true};
    uint64_t position;

    append_many(&journal, 3);
    CHECK(journal_flush(&journal) == 0);
    CHECK(try_open(&second, &directory, 0, NULL, &journal_files_kernel) == -EWOULDBLOCK);
    CHECK(journal_open(&second, directory.fd, &reading, &journal_files_kernel) == 0);
    CHECK(count_whole(&second) == 3);
    CHECK(journal_append(&second, 1, "", 0, &position) == -EROFS && journal_retire(&second, 0, 0) == -EROFS);
    CHECK(journal_close(&second) == 0);
    CHECK(journal_close(&journal) == 0);
    second = open_journal(&directory, NULL);
    CHECK(journal_close(&second) == 0);
    remove_directory(&directory);
}

/* A start is where nothing before is looked at: not for records, and damage there is not told. */
static void test_start(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct findings findings;
    uint64_t start;

    append_many(&journal, 400);
    CHECK(journal_sync(&journal) == 0);
    start = journal.tail;
    append_many(&journal, 10);
    CHECK(journal_close(&journal) == 0);
    scribble(&directory, 1, 5000, "damage", 6);
    CHECK(try_open(&journal, &directory, start, &findings, &journal_files_kernel) == 0);
    check_nothing_found(&findings);
    CHECK(journal.sequence == 410);
    append_many(&journal, 10);
    start = journal.tail;
    CHECK(journal_close(&journal) == 0);
    CHECK(try_open(&journal, &directory, start, &findings, &journal_files_kernel) == 0); /* nothing is behind it */
    check_nothing_found(&findings);
    CHECK(journal.sequence == 420 && journal.tail == start);
    CHECK(journal_close(&journal) == 0);
    CHECK(try_open(&journal, &directory, 0, &findings, &journal_files_kernel) == 0);
    CHECK(findings.n[JOURNAL_SKIPPED] == 1 && findings.position[JOURNAL_SKIPPED] >> 32 == 1);
    CHECK(journal.sequence == 420);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

static void test_prepared_ahead(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    uint64_t position;

    for (uint64_t number = 1; number <= 4; number++) {
        CHECK(journal_needs_prepare(&journal) && journal_next_number(&journal) == number);
        for (unsigned again = 0; again < 2; again++) /* the second time it is there */
            CHECK(segment_prepare(&journal_files_kernel, directory.fd, journal.id, number, SMALL_SEGMENT, 0) == 0);
        CHECK(!journal_needs_prepare(&journal));
        do
            CHECK(append_next(&journal, &position) == 0);
        while (position >> 32 < number);
        CHECK(journal_sync(&journal) == 0);
    }
    CHECK(segment_prepare(&journal_files_kernel, directory.fd, journal.id, 5, SMALL_SEGMENT, 0) == 0);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(&directory, NULL); /* one that is empty behind the last one is nothing to speak of */
    CHECK(count_whole(&journal) == journal.sequence && n_segment_files(&directory) == 5);
    CHECK(!journal_needs_prepare(&journal));
    append_many(&journal, 200);
    CHECK(journal_flush(&journal) == 0 && count_whole(&journal) == journal.sequence);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* One that its maker has not finished is not used: the writer makes sure of it itself. */
static void test_unfinished_next(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);

    append_many(&journal, 1);
    CHECK(segment_prepare(&journal_files_kernel, directory.fd, journal.id, 2, SMALL_SEGMENT, 0) == 0);
    CHECK(linkat(directory.fd, "0000000000000002.segment", directory.fd, "0000000000000002.preparing", 0) == 0);
    CHECK(journal_needs_prepare(&journal));
    append_many(&journal, 200);
    CHECK(journal_flush(&journal) == 0 && count_whole(&journal) == 201);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(&directory, NULL);
    CHECK(!has_file(&directory, "0000000000000002.preparing"));
    CHECK(count_whole(&journal) == 201);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* Retired segments are used again, and nothing of what was in them is ever read. */
static void test_retire_and_recycle(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct findings findings;
    uint64_t first, last;

    for (unsigned round = 0; round < 6; round++) {
        int n;

        append_many(&journal, 400);
        CHECK(journal_sync(&journal) == 0);
        CHECK(journal_retire(&journal, journal_first(&journal), SEGMENT_SPARES) == 0);
        n = journal_retire(&journal, journal.tail, SEGMENT_SPARES);
        CHECK(n > 2 && journal.n_segments == 1);
        CHECK(n_segment_files(&directory) == 1 && has_file(&directory, "spare-0") && has_file(&directory, "spare-1"));
        CHECK(
            segment_prepare(
                &journal_files_kernel, directory.fd, journal.id, journal_next_number(&journal), SMALL_SEGMENT, 0) == 0);
        CHECK(!has_file(&directory, "spare-0"));
        check_whole(&journal, &first, &last);
        CHECK(last == journal.sequence);
        CHECK(journal_close(&journal) == 0);
        journal = open_journal(&directory, &findings);
        check_nothing_found(&findings);
        CHECK(journal.sequence == 400 * (round + 1));
    }
    CHECK(journal_retire(&journal, UINT64_MAX, 0) == 0); /* the last one with records stays */
    append_many(&journal, 200);
    CHECK(journal_flush(&journal) == 0);
    check_whole(&journal, &first, &last);
    CHECK(last == 2600);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* A segment without a record on disk behind it stays: else the sequence would begin anew. */
static void test_retire_keeps_the_sequence(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    uint64_t position;

    do
        CHECK(append_next(&journal, &position) == 0);
    while (position >> 32 == 1);
    CHECK(journal_retire(&journal, UINT64_MAX, 0) == 0);
    CHECK(journal_sync(&journal) == 0);
    CHECK(journal_retire(&journal, UINT64_MAX, 0) == 1);
    CHECK(journal_first(&journal) >> 32 == 2);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* Of segments that lie before the start nothing is known when the journal opens: they are read all the same. */
static void test_reads_before_the_start(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    unsigned n_damages;
    uint64_t start;

    append_many(&journal, 500);
    CHECK(journal_sync(&journal) == 0);
    start = journal.tail;
    CHECK(journal_close(&journal) == 0);
    CHECK(try_open(&journal, &directory, start, NULL, &journal_files_kernel) == 0);
    CHECK(count_whole(&journal) == 500);
    CHECK(journal_close(&journal) == 0);
    scribble(&directory, 2, 20000, "damage", 6);
    CHECK(try_open(&journal, &directory, start, NULL, &journal_files_kernel) == 0);
    CHECK(count_good(&journal, &n_damages) == 499 && n_damages == 1);
    CHECK(journal_close(&journal) == 0);
    CHECK(unlinkat(directory.fd, "0000000000000003.segment", 0) == 0);
    CHECK(try_open(&journal, &directory, start, NULL, &journal_files_kernel) == 0);
    CHECK(count_good(&journal, &n_damages) < 499 && n_damages == 2);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

int main(void)
{
    setenv("TMPDIR", "/tmp", 0); /* a disk, where there is one */
    test_empty();
    test_one_record();
    test_many_segments(false);
    test_many_segments(true);
    test_limits();
    test_roll_waits_for_sync();
    test_gathers_beside_a_sync();
    test_gathers_much();
    test_poison();
    test_one_writer();
    test_start();
    test_prepared_ahead();
    test_unfinished_next();
    test_retire_and_recycle();
    test_retire_keeps_the_sequence();
    test_reads_before_the_start();
    return 0;
}
