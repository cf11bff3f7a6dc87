/*
 * Format 1, byte by byte, and a journal of that format that was written when it was made: every later version opens it.
 *
 *     test_journal_format DIRECTORY        open what is there, as it is and as a copy that is appended to
 *     test_journal_format make DIRECTORY   write such a journal
 */
#include "journal_tests.h"

enum { N_RECORDS = 100, N_SYNCED = 90 };

static uint64_t number_at(const uint8_t *bytes, unsigned size)
{
    uint64_t number = 0;

    while (size-- > 0)
        number = number << 8 | bytes[size];
    return number;
}

static void test_bytes(void)
{
    struct directory directory = make_directory();
    struct journal journal = open_journal(&directory, NULL);
    uint8_t header[64], second[64], records[104];
    uint64_t position;

    CHECK(journal_append(&journal, 0x1234, "abc", 3, &position) == 0);
    CHECK(journal_sync(&journal) == 0);
    CHECK(journal_append(&journal, 2, "defghijkl", 9, &position) == 0);
    CHECK(journal_flush(&journal) == 0);
    peek(&directory, 1, 0, header, sizeof header);
    peek(&directory, 1, 2048, second, sizeof second);
    CHECK(memcmp(header, second, sizeof header) == 0);
    CHECK(memcmp(header, "agentdJ1", 8) == 0);
    CHECK(number_at(header + 8, 4) == 1 && number_at(header + 12, 4) == 64);
    CHECK(number_at(header + 16, 8) == 1 && number_at(header + 24, 8) == SMALL_SEGMENT);
    CHECK(memcmp(header + 32, journal.id, 16) == 0 && number_at(header + 48, 8) > UINT64_C(1600000000) * 1000000000);
    CHECK(number_at(header + 56, 4) == crc32c_table(0, header, 56) && number_at(header + 60, 4) == 0);

    peek(&directory, 1, 4096, records, sizeof records);
    CHECK(number_at(records, 4) == crc32c_table(crc32c_table(0, journal.id, 16), records + 4, 39));
    CHECK(number_at(records + 4, 4) == 3 && number_at(records + 8, 8) == 1);
    CHECK(number_at(records + 16, 8) == FIRST_POSITION && number_at(records + 24, 8) == FIRST_POSITION);
    CHECK(number_at(records + 32, 2) == 0x1234 && number_at(records + 34, 6) == 0);
    CHECK(memcmp(records + 40, "abc\0\0\0\0\0", 8) == 0);
    CHECK(number_at(records + 48, 4) == crc32c_table(crc32c_table(0, journal.id, 16), records + 52, 45));
    CHECK(number_at(records + 52, 4) == 9 && number_at(records + 56, 8) == 2);
    CHECK(number_at(records + 64, 8) == FIRST_POSITION + 48 && number_at(records + 72, 8) == FIRST_POSITION + 48);
    CHECK(memcmp(records + 88, "defghijkl\0\0\0\0\0\0", 16) == 0);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* Two segments, the second not all synced, and its last record torn. */
static void make(const char *path)
{
    struct directory directory = {.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    struct journal journal;
    uint64_t last = 0;

    CHECK(directory.fd >= 0);
    journal = open_journal(&directory, NULL);
    append_many(&journal, N_SYNCED);
    CHECK(journal_sync(&journal) == 0);
    append_many(&journal, N_RECORDS - N_SYNCED);
    last = journal.tail;
    append_many(&journal, 1);
    CHECK(journal.n_segments == 2);
    CHECK(journal_close(&journal) == 0);
    scribble(&directory, last >> 32, (uint32_t)last + 60, "torn", 4);
}

static void copy_one(int fd, const char *name, void *context)
{
    const struct directory *copy = context;
    uint8_t bytes[SMALL_SEGMENT];
    int from = openat(fd, name, O_RDONLY | O_CLOEXEC), to;

    CHECK(from >= 0 && read(from, bytes, sizeof bytes) == sizeof bytes);
    to = openat(copy->fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(to >= 0 && write(to, bytes, sizeof bytes) == sizeof bytes);
    close(from);
    close(to);
}

static void test_old_journal(const char *path)
{
    struct directory directory = {.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)}, copy = make_directory();
    struct findings findings = {.n = {0}};
    struct journal_shape reading = {.read_only = true, .report = note_finding, .report_context = &findings};
    struct journal journal;

    CHECK(directory.fd >= 0);
    snprintf(directory.path, sizeof directory.path, "%s", path);
    CHECK(journal_open(&journal, directory.fd, &reading, &journal_files_kernel) == 0);
    CHECK(count_whole(&journal) == N_RECORDS && journal.n_segments == 2);
    CHECK(findings.n[JOURNAL_CUT] == 1 && findings.n[JOURNAL_SKIPPED] == 0);
    CHECK(journal_close(&journal) == 0);

    each_file(&directory, copy_one, &copy);
    journal = open_journal(&copy, &findings);
    CHECK(journal.sequence == N_RECORDS && findings.n[JOURNAL_CUT] == 1);
    append_many(&journal, 200);
    CHECK(journal_flush(&journal) == 0 && count_whole(&journal) == N_RECORDS + 200);
    CHECK(journal_close(&journal) == 0);
    close(directory.fd);
    remove_directory(&copy);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "make") == 0) {
        make(argv[2]);
        return 0;
    }
    CHECK(argc == 2);
    test_bytes();
    test_old_journal(argv[1]);
    return 0;
}
