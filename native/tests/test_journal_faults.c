/*
 * The Nth system call fails, for every N: with an error, once or three times in a row, or by doing only half. Nothing
 * that was promised is lost, what was refused was not done, and it goes on when the fault is over.
 */
#include "journal_workload.h"

enum fault_kind { FAILS, HALF };

struct faults {
    enum fault_kind kind;
    int error;
    unsigned from, to; /* of the calls, counted from 1 */
    unsigned n_calls;
    unsigned n_failed;
    bool only_syncs; /* count only these */
};

/* Whether this call has its turn; and what it answers. */
static bool fails(void *context, int *answer)
{
    struct faults *faults = context;

    if (faults->only_syncs)
        return false;
    faults->n_calls++;
    if (faults->kind != FAILS || faults->n_calls < faults->from || faults->n_calls >= faults->to)
        return false;
    faults->n_failed++;
    *answer = faults->error;
    return true;
}

static size_t less(void *context, size_t size)
{
    struct faults *faults = context;

    if (faults->kind != HALF || faults->n_calls < faults->from || faults->n_calls >= faults->to || size < 2)
        return size;
    faults->n_failed++;
    return size / 2;
}

#define KERNEL journal_files_kernel

static int faulty_open(void *context, int directory, const char *name, int flags)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.open(NULL, directory, name, flags);
}

static ssize_t faulty_pread(void *context, int fd, void *bytes, size_t size, uint64_t offset)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.pread(NULL, fd, bytes, less(context, size), offset);
}

static ssize_t faulty_pwrite(void *context, int fd, const void *bytes, size_t size, uint64_t offset)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.pwrite(NULL, fd, bytes, less(context, size), offset);
}

static int faulty_fdatasync(void *context, int fd)
{
    struct faults *faults = context;
    int answer;

    if (faults->only_syncs && ++faults->n_calls >= faults->from && faults->n_calls < faults->to) {
        faults->n_failed++;
        return faults->error;
    }
    if (faults->only_syncs)
        return KERNEL.fdatasync(NULL, fd);
    return fails(context, &answer) ? answer : KERNEL.fdatasync(NULL, fd);
}

static int faulty_sync_directory(void *context, int directory)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.sync_directory(NULL, directory);
}

static int faulty_allocate(void *context, int fd, uint64_t bytes)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.allocate(NULL, fd, bytes);
}

static int64_t faulty_size(void *context, int fd)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.size(NULL, fd);
}

static int faulty_link(void *context, int directory, const char *from, const char *to)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.link(NULL, directory, from, to);
}

static int faulty_rename(void *context, int directory, const char *from, const char *to)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.rename(NULL, directory, from, to);
}

static int faulty_unlink(void *context, int directory, const char *name)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.unlink(NULL, directory, name);
}

static int faulty_map(void *context, int fd, uint64_t bytes, bool writable, uint8_t **map)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.map(NULL, fd, bytes, writable, map);
}

static int faulty_lock(void *context, int directory)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.lock(NULL, directory);
}

static int
faulty_list(void *context, int directory, int (*seen)(void *seen_context, const char *name), void *seen_context)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.list(NULL, directory, seen, seen_context);
}

static int faulty_random(void *context, void *bytes, size_t size)
{
    int answer;

    return fails(context, &answer) ? answer : KERNEL.random(NULL, bytes, size);
}

static struct journal_files with_faults(struct faults *faults)
{
    struct journal_files files = KERNEL;

    files.context = faults;
    files.open = faulty_open;
    files.pread = faulty_pread;
    files.pwrite = faulty_pwrite;
    files.fdatasync = faulty_fdatasync;
    files.sync_directory = faulty_sync_directory;
    files.allocate = faulty_allocate;
    files.size = faulty_size;
    files.link = faulty_link;
    files.rename = faulty_rename;
    files.unlink = faulty_unlink;
    files.map = faulty_map;
    files.lock = faulty_lock;
    files.list = faulty_list;
    files.random = faulty_random;
    return files;
}

static unsigned n_open_files(void)
{
    DIR *stream = opendir("/proc/self/fd");
    unsigned n = 0;

    CHECK(stream != NULL);
    while (readdir(stream))
        n++;
    closedir(stream);
    return n;
}

/* The whole use of a journal: false when it was over before the fault's turn came. */
static bool use_with(struct faults faults, unsigned *n_failed)
{
    struct directory directory = make_directory();
    struct journal_files files = with_faults(&faults);
    struct promises promises = {.flushed = 0};
    struct user user = {.directory = &directory, .files = &files, .promises = &promises};
    unsigned before = n_open_files();

    use_journal(&user);
    check_promises(&directory, &promises, promises.flushed);
    CHECK(promises.flushed == promises.appended); /* all that was refused was tried again */
    CHECK(n_open_files() == before);
    remove_directory(&directory);
    *n_failed += faults.n_failed;
    return faults.n_calls >= faults.from;
}

static unsigned sweep(enum fault_kind kind, int error, unsigned calls, bool only_syncs)
{
    struct faults faults = {.kind = kind, .error = error, .from = 1, .to = 1 + calls, .only_syncs = only_syncs};
    unsigned n_failed = 0;

    while (use_with(faults, &n_failed)) {
        faults.from++;
        faults.to++;
    }
    return n_failed;
}

/* A full disk: nothing more can be made, until there is room again. */
static void test_full_disk(void)
{
    struct faults faults = {.error = -ENOSPC, .from = 1, .to = 1};
    struct directory directory = make_directory();
    struct journal_files files = with_faults(&faults);
    struct journal journal;
    uint64_t position, n;

    CHECK(try_open(&journal, &directory, 0, NULL, &files) == 0);
    append_many(&journal, 10);
    files.allocate = KERNEL.allocate;
    files.pwrite = KERNEL.pwrite;
    CHECK(journal_sync(&journal) == 0);
    files.allocate = faulty_allocate;
    faults.from = 0;
    faults.to = UINT32_MAX;
    while (journal.limit - journal.tail > 2000)
        CHECK(append_next(&journal, &position) == 0);
    n = journal.sequence;
    files.open = KERNEL.open;
    for (unsigned i = 0; i < 10; i++)
        CHECK(append_sized(&journal, 2000, &position) == -ENOSPC);
    CHECK(journal.sequence == n && journal.poisoned == 0 && n_segment_files(&directory) == 1);
    CHECK(append_sized(&journal, 0, &position) == 0); /* for a small one there is room */
    CHECK(journal_flush(&journal) == 0);
    faults.to = 0;
    CHECK(append_sized(&journal, 2000, &position) == 0 && position >> 32 == 2);
    CHECK(journal_sync(&journal) == 0 && journal.sequence == n + 2);
    CHECK(count_whole(&journal) == 0 + n + 2);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

/* The kernel may have thrown away what it could not write: that the next write succeeds says nothing. */
static void test_failed_write_poisons(void)
{
    struct faults faults = {.error = -EIO, .from = 1, .to = 1};
    struct directory directory = make_directory();
    struct journal_files files = with_faults(&faults);
    struct journal journal;
    struct journal_sync sync;
    uint64_t position;

    CHECK(try_open(&journal, &directory, 0, NULL, &files) == 0);
    append_many(&journal, 10);
    CHECK(journal_sync_begin(&journal, &sync) == 0);
    CHECK(append_next(&journal, &position) == 0);
    faults.from = 0;
    faults.to = UINT32_MAX;
    CHECK(journal_flush(&journal) == -EIO && journal.poisoned == -EIO);
    faults.to = 0;
    CHECK(journal_flush(&journal) == -EIO && append_next(&journal, &position) == -EIO);
    CHECK(journal_sync_end(&journal, &sync, 0) == 0 && journal.synced == FIRST_POSITION);
    CHECK(journal_close(&journal) == -EIO);
    journal = open_journal(&directory, NULL);
    CHECK(count_whole(&journal) == 10);
    CHECK(journal_close(&journal) == 0);
    remove_directory(&directory);
}

int main(void)
{
    unsigned n;

    test_full_disk();
    test_failed_write_poisons();
    n = sweep(FAILS, -EIO, 1, true);
    CHECK(n > 20);
    printf("%u syncs, each failed once\n", n);
    n = sweep(FAILS, -EINTR, 1, false);
    printf("%u calls, each interrupted once\n", n);
    n = sweep(HALF, 0, 1, false);
    CHECK(n > 50);
    printf("%u calls, each cut short once\n", n);
    n = sweep(FAILS, -EIO, 1, false);
    CHECK(n > 200);
    printf("%u calls, each failed with EIO once\n", n);
    n = sweep(FAILS, -ENOSPC, 1, false);
    printf("%u calls, each failed with ENOSPC once\n", n);
    n = sweep(FAILS, -ENOSPC, 3, false);
    printf("%u calls in runs of three, each failed with ENOSPC\n", n);
    return 0;
}
