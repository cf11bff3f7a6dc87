/* What recovery finds: torn at each sector, every bit of a header flipped, damage before what was synced. */
#include "journal_tests.h"

#include <sys/mman.h>

enum { SECTOR = 512 };

/* Three records that are synced and three that are not; where the fourth begins, and where all end. */
static struct directory six_records(uint32_t size, uint64_t *fourth, uint64_t *end)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    uint64_t position;

    for (unsigned i = 0; i < 6; i++) {
        if (i == 3) {
            CHECK(journal_sync(&journal) == 0);
            *fourth = journal.tail;
        }
        CHECK(append_sized(&journal, size, &position) == 0);
    }
    *end = journal.tail;
    CHECK(journal_close(&journal) == 0);
    return directory;
}

static void check_prefix(const struct directory *directory, uint64_t n, struct findings *findings)
{
    struct journal journal = open_journal(directory, findings);
    struct findings again;

    CHECK(count_whole(&journal) == n && journal.sequence == n);
    CHECK(findings->n[JOURNAL_SKIPPED] == 0 && findings->n[JOURNAL_MISSING] == 0);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(directory, &again); /* what was cut is cut */
    check_nothing_found(&again);
    append_many(&journal, 100);
    CHECK(journal_flush(&journal) == 0 && count_whole(&journal) == n + 100);
    CHECK(journal_close(&journal) == 0);
}

/* The last three records end at any sector: zeros from there on, or what an earlier use of the file left. */
static void test_torn_at_each_sector(bool recycled)
{
    uint8_t *rest = malloc(SMALL_SEGMENT);
    uint64_t fourth, end;

    CHECK(rest != NULL);
    memset(rest, recycled ? 0xA5 : 0, SMALL_SEGMENT);
    for (uint64_t cut = SEGMENT_FIRST_RECORD;; cut += SECTOR) {
        struct directory directory = six_records(5000, &fourth, &end);
        struct findings findings;
        uint64_t n;

        if (cut >= (uint32_t)end) {
            remove_directory(&directory);
            break;
        }
        if (cut < (uint32_t)fourth) {
            remove_directory(&directory);
            continue;
        }
        scribble(&directory, 1, cut, rest, SMALL_SEGMENT - cut);
        n = 3 + (cut - (uint32_t)fourth) / 5040;
        check_prefix(&directory, n, &findings);
        CHECK(findings.n[JOURNAL_CUT] == 1); /* part of a record is in place, or its first bytes are */
        remove_directory(&directory);
    }
    free(rest);
}

/* Any one sector of what was not synced is lost: what is before it is kept, whatever is valid behind it is cut. */
static void test_lost_sector(void)
{
    static const uint8_t zeros[SECTOR];
    uint64_t fourth, end;

    for (unsigned i = 0; i < 30; i++) {
        struct directory directory = six_records(5000, &fourth, &end);
        uint64_t sector = ((uint32_t)fourth / SECTOR + 1 + i) * SECTOR, n = 3 + (sector - (uint32_t)fourth) / 5040;
        struct findings findings;

        if (sector >= (uint32_t)end) {
            remove_directory(&directory);
            break;
        }
        scribble(&directory, 1, sector, zeros, SECTOR);
        /* One that was not lost before may end in this sector. */
        check_prefix(&directory, n, &findings);
        CHECK(findings.n[JOURNAL_CUT] == 1 && findings.position[JOURNAL_CUT] == fourth + (n - 3) * 5040);
        remove_directory(&directory);
    }
}

/* Every bit of a record's header, and some of its body: of the last, of one before it, of one that was synced. */
static void test_flipped_bits_of_a_record(void)
{
    uint64_t fourth, end;

    for (uint64_t bit = 0; bit < 60 * 8; bit++) {
        struct directory directory = six_records(100, &fourth, &end);
        struct findings findings;

        flip_bit(&directory, 1, (uint32_t)(end - 144) * UINT64_C(8) + bit);
        check_prefix(&directory, 5, &findings);
        remove_directory(&directory);

        directory = six_records(100, &fourth, &end);
        flip_bit(&directory, 1, (uint32_t)fourth * UINT64_C(8) + bit);
        check_prefix(&directory, 3, &findings);
        CHECK(findings.n[JOURNAL_CUT] == 1 && findings.position[JOURNAL_CUT] == fourth);
        CHECK(findings.bytes[JOURNAL_CUT] == end - fourth);
        remove_directory(&directory);

        for (unsigned damaged = 1; damaged <= 3; damaged++) {
            struct journal journal;
            unsigned n_damages;

            directory = six_records(100, &fourth, &end);
            flip_bit(&directory, 1, (uint32_t)(fourth - damaged * 144) * UINT64_C(8) + bit);
            journal = open_journal(&directory, &findings);
            CHECK(findings.n[JOURNAL_SKIPPED] == 1 && findings.n[JOURNAL_CUT] == 0);
            CHECK(findings.position[JOURNAL_SKIPPED] == fourth - damaged * 144);
            CHECK(findings.bytes[JOURNAL_SKIPPED] == 144);
            CHECK(journal.sequence == 6 && journal.tail == end);
            CHECK(count_good(&journal, &n_damages) == 5 && n_damages == 1);
            CHECK(journal_close(&journal) == 0);
            remove_directory(&directory);
        }
    }
}

/* The start says that it was on disk, and nothing behind it does. */
static void test_damage_before_the_start(void)
{
    uint64_t fourth, end;
    struct directory directory = six_records(100, &fourth, &end);
    struct findings findings;
    struct journal journal;
    unsigned n_damages;

    scribble(&directory, 1, (uint32_t)(end - 100), "damage", 6);
    CHECK(try_open(&journal, &directory, end, &findings, &journal_files_kernel) == 0);
    CHECK(findings.n[JOURNAL_SKIPPED] == 1 && findings.position[JOURNAL_SKIPPED] == end - 144);
    CHECK(findings.n[JOURNAL_CUT] == 0);
    CHECK(journal.tail == end);
    append_many(&journal, 10);
    CHECK(journal_sync(&journal) == 0);
    CHECK(count_good(&journal, &n_damages) == 15 && n_damages == 1);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(&directory, &findings);
    CHECK(findings.n[JOURNAL_SKIPPED] == 1 && findings.n[JOURNAL_CUT] == 0); /* the ten know what was synced */
    CHECK(journal.sequence == 15 && journal.tail > end); /* the sixth was not known to have been one */
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* The file of the last segment was used before, and what it held is in place, byte for byte. */
static void test_recycled_segment(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct findings findings;
    uint64_t first, last, position;

    append_many(&journal, 400);
    CHECK(journal_sync(&journal) == 0);
    CHECK(journal_retire(&journal, journal.tail, SEGMENT_SPARES) > 0);
    while (journal.tail >> 32 < 9) {
        int error = append_next(&journal, &position);

        if (error == -EAGAIN)
            CHECK(journal_sync(&journal) == 0);
        else
            CHECK(error == 0);
        if (journal.tail >> 32 > 6)
            CHECK(journal_sync(&journal) == 0 && journal_retire(&journal, journal.tail, SEGMENT_SPARES) >= 0);
    }
    last = journal.sequence;
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(&directory, &findings);
    check_nothing_found(&findings);
    CHECK(journal.sequence == last);
    check_whole(&journal, &first, &last);
    CHECK(last == journal.sequence);
    /* Its last record is torn over what was there. */
    position = journal.tail;
    append_many(&journal, 1);
    CHECK(journal_close(&journal) == 0);
    flip_bit(&directory, position >> 32, (uint32_t)position * UINT64_C(8) + 100);
    journal = open_journal(&directory, &findings);
    CHECK(findings.n[JOURNAL_CUT] == 1 && findings.n[JOURNAL_SKIPPED] == 0 && journal.tail == position);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* A body that holds records, of this journal and places, is no place to find records in. */
static void test_records_in_a_body(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct findings findings;
    struct journal_record record;
    uint8_t copy[8192];
    uint64_t position, next;

    append_many(&journal, 20);
    CHECK(journal_flush(&journal) == 0);
    peek(&directory, 1, SEGMENT_FIRST_RECORD, copy, sizeof copy);
    CHECK(journal_append(&journal, 1, copy, sizeof copy, &position) == 0);
    CHECK(journal_flush(&journal) == 0);
    CHECK(journal_read(&journal, position + JOURNAL_HEADER_BYTES, &record, &next) == -EILSEQ);
    CHECK(journal_close(&journal) == 0);
    flip_bit(&directory, 1, (uint32_t)position * UINT64_C(8));
    journal = open_journal(&directory, &findings);
    CHECK(findings.n[JOURNAL_CUT] == 1 && journal.sequence == 20 && count_whole(&journal) == 20);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* What was cut is kept for people, from the first byte to the last valid record, over the end of a segment too. */
static void test_copy_of_what_was_cut(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    struct findings findings;
    uint64_t position, tail, cut;
    char name[SEGMENT_NAME_BYTES];
    uint8_t first[8], found[8];
    struct stat copy;
    int fd;

    append_many(&journal, 3);
    CHECK(journal_sync(&journal) == 0);
    cut = journal.tail;
    do
        CHECK(append_next(&journal, &position) == 0);
    while (position >> 32 == 1);
    append_many(&journal, 5);
    tail = journal.tail;
    CHECK(journal_close(&journal) == 0);
    flip_bit(&directory, 1, (uint32_t)cut * UINT64_C(8));
    peek(&directory, 1, (uint32_t)cut, first, sizeof first);
    {
        struct journal_shape reading = {.read_only = true, .report = note_finding, .report_context = &findings};

        findings = (struct findings){.n = {0}};
        CHECK(journal_open(&journal, directory.fd, &reading, &journal_files_kernel) == 0);
        CHECK(findings.n[JOURNAL_CUT] == 1 && count_whole(&journal) == 3);
        CHECK(journal_close(&journal) == 0);
        CHECK(n_segment_files(&directory) == 2); /* only told */
    }
    check_prefix(&directory, 3, &findings);
    snprintf(name, sizeof name, "broken-%016" PRIx64, cut);
    fd = openat(directory.fd, name, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &copy) == 0);
    CHECK((uint64_t)copy.st_size == findings.bytes[JOURNAL_CUT]);
    CHECK((uint64_t)copy.st_size > (uint32_t)tail - SEGMENT_FIRST_RECORD);
    CHECK(pread(fd, found, sizeof found, 0) == sizeof found && memcmp(first, found, sizeof found) == 0);
    close(fd);
    remove_directory(&directory);
}

/*
 * Damage before what was synced, and behind it an end that is cut, with the record that told one from the other: what
 * is between them is kept, also the next time.
 */
static void test_damage_stays_damage(void)
{
    uint64_t fourth, end;
    struct directory directory = six_records(100, &fourth, &end);
    struct findings findings;
    struct journal journal;
    unsigned n_damages;

    flip_bit(&directory, 1, (uint32_t)(fourth - 288) * UINT64_C(8)); /* the second, which was synced */
    flip_bit(&directory, 1, (uint32_t)fourth * UINT64_C(8));         /* the fourth, which was not */
    for (unsigned again = 0; again < 3; again++) {
        journal = open_journal(&directory, &findings);
        CHECK(findings.n[JOURNAL_SKIPPED] == 1 && findings.position[JOURNAL_SKIPPED] == fourth - 288);
        CHECK(findings.n[JOURNAL_CUT] == (again == 0));
        CHECK(count_good(&journal, &n_damages) == 2 && n_damages == 1);
        CHECK(journal.sequence == 4 && journal.tail == fourth + JOURNAL_HEADER_BYTES); /* the witness */
        CHECK(journal_close(&journal) == 0);
    }
    remove_directory(&directory);
}

int main(void)
{
    test_damage_stays_damage();
    test_torn_at_each_sector(false);
    test_torn_at_each_sector(true);
    test_lost_sector();
    test_flipped_bits_of_a_record();
    test_damage_before_the_start();
    test_recycled_segment();
    test_records_in_a_body();
    test_copy_of_what_was_cut();
    return 0;
}
