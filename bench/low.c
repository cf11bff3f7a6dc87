/* The journal, without Python and without a daemon: native/journal on a real disk; low_core.py drives it.
 *
 * usage: low DIRECTORY. Each line on stdin, "WHAT MILLISECONDS", is answered by one line of JSON on stdout, an object:
 * calls that were each timed alone are "NAME": [[ns, how often], ...], bytes a second are "NAME": N.
 *
 * append   beside nothing: journal_append(), and memcpy and crc32c of the same bytes into ordinary memory, once into
 *          the same place again and again ("copy") and once into 64 MiB from end to end ("copy onwards"), as an append
 *          goes; "flush" is the journal_flush() after each 64
 * beside   eight appends and a flush each 64 µs, 125,000 records a second, and one fdatasync after the other in another
 *          thread; segments change meanwhile. "calls" has every call into the journal: appends, flushes, and what
 *          begins and ends a sync; "appends" has those alone
 * synced   append and fdatasync, and pwrite and fdatasync of a file that was written whole before, by turns of eight
 * read     journal_read() from end to end of what a read has just had in the cache, and memory's own checksum rate
 *
 * Segments are made ahead of need by another thread, as the daemon does it, and used again. What a sync waits for is
 * not within the time of an append, but of "beside" everything is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "crc32c.h"
#include "journal.h"
#include "patience.h"

#define NS_PER_MS 1000000u

enum { BODY = 1024, TYPE = 1, WARM = 64, ONWARDS = 64 << 20, BARE = 64 << 20, READ_RECORDS = 32768 };
enum { AT_ONCE = 8, PACE_NS = 64000, IN_TURN = 8, CHUNK_RECORDS = 16384 };
enum { FINE_NS = 1 << 20, N_RARE = 4096 };

struct tally {
    const char *name;
    uint32_t n_rare, often[FINE_NS];
    uint64_t rare[N_RARE];
};

static struct journal journal;
static struct tally first, second, third, fourth;
static uint8_t body[BODY], again[BODY];
static uint8_t *onwards;
static uint64_t last_position;
static int directory;
static volatile uint32_t checksum;

static void begin(struct tally *tally, const char *name)
{
    memset(tally, 0, sizeof *tally);
    tally->name = name;
}

static void count(struct tally *tally, uint64_t ns)
{
    if (ns < FINE_NS)
        tally->often[ns]++;
    else if (tally->n_rare < N_RARE)
        tally->rare[tally->n_rare++] = ns;
    else
        fail("hardly a call is undisturbed");
}

static void tell(const struct tally *tally, const char *behind)
{
    const char *comma = "";

    printf("\"%s\": [", tally->name);
    for (uint32_t ns = 0; ns < FINE_NS; ns++) {
        if (tally->often[ns]) {
            printf("%s[%u, %u]", comma, ns, tally->often[ns]);
            comma = ", ";
        }
    }
    for (uint32_t i = 0; i < tally->n_rare; i++, comma = ", ")
        printf("%s[%llu, 1]", comma, (unsigned long long)tally->rare[i]);
    printf("]%s", behind);
}

/* The next segment, made in another thread: told its number, 0 while it has nothing to do. */
static atomic_ullong wanted;

static void *prepare(void *unused)
{
    for (;;) {
        uint64_t number = atomic_load(&wanted);

        if (number) {
            check(
                segment_prepare(&journal_files_kernel, directory, journal.id, number, journal.segment_bytes, 0),
                "segment_prepare");
            atomic_store(&wanted, 0);
        }
        usleep(500);
    }
    return unused;
}

static void look_ahead(void)
{
    if (!atomic_load(&wanted) && journal_needs_prepare(&journal))
        atomic_store(&wanted, journal_next_number(&journal));
}

/* Everything is on disk, old segments are spares, and the next one is there. */
static void settle(void)
{
    struct patience patience = {0};

    check(journal_sync(&journal), "journal_sync");
    check(journal_retire(&journal, journal.tail, SEGMENT_SPARES), "journal_retire");
    for (look_ahead(); atomic_load(&wanted); wait_on(&patience))
        usleep(500);
    while (journal_needs_prepare(&journal)) {
        look_ahead();
        wait_on(&patience);
    }
}

static int append(void)
{
    memcpy(body, &journal.sequence, sizeof journal.sequence);
    return journal_append(&journal, TYPE, body, BODY, &last_position);
}

static uint64_t timed_append(struct tally *tally)
{
    uint64_t from = now_ns(), to;
    int result = append();

    to = now_ns();
    check(result, "journal_append");
    count(tally, to - from);
    return to;
}

static void timed_copy(struct tally *tally, uint8_t *to)
{
    uint64_t from;

    body[0]++;
    from = now_ns();
    memcpy(to, body, BODY);
    checksum = crc32c(0, body, BODY);
    count(tally, now_ns() - from);
}

static void measure_append(uint64_t span_ns)
{
    uint64_t until;

    begin(&first, "append");
    begin(&second, "copy");
    begin(&third, "copy onwards");
    begin(&fourth, "flush");
    settle();
    until = now_ns() + span_ns;
    for (uint32_t n = 0; n < CHUNK_RECORDS && now_ns() < until; n += WARM) {
        static size_t at;
        uint64_t from;

        for (int i = 0; i < WARM; i++)
            timed_append(&first);
        from = now_ns();
        check(journal_flush(&journal), "journal_flush");
        count(&fourth, now_ns() - from);
        look_ahead();
        for (int i = 0; i < WARM; i++)
            timed_copy(&second, again);
        for (int i = 0; i < WARM; i++, at = (at + BODY) % ONWARDS)
            timed_copy(&third, onwards + at);
    }
    tell(&first, ", ");
    tell(&second, ", ");
    tell(&third, ", ");
    tell(&fourth, "");
}

/* One fdatasync after the other: handed over and back by `state`. */
enum { IDLE, BEGUN, DONE };
static atomic_int state;
static struct journal_sync sync_in_flight;
static int sync_error;

static void *sync_on(void *unused)
{
    for (;;) {
        if (atomic_load(&state) != BEGUN) {
            usleep(1);
            continue;
        }
        sync_error = 0;
        for (unsigned i = 0; i < sync_in_flight.n_fds && !sync_error; i++)
            sync_error = fdatasync(sync_in_flight.fds[i]) ? -errno : 0;
        atomic_store(&state, DONE);
    }
    return unused;
}

/* Ends the sync that is done, begins the next. */
static void keep_syncing(bool last)
{
    uint64_t from = now_ns();

    if (atomic_load(&state) == DONE) {
        check(journal_sync_end(&journal, &sync_in_flight, sync_error), "journal_sync_end");
        atomic_store(&state, IDLE);
    }
    if (!last && atomic_load(&state) == IDLE) {
        check(journal_sync_begin(&journal, &sync_in_flight), "journal_sync_begin");
        if (sync_in_flight.n_fds)
            atomic_store(&state, BEGUN);
    }
    count(&first, now_ns() - from);
}

static void measure_beside(uint64_t span_ns)
{
    struct patience patience = {0};
    uint64_t due, until, segment, changes = 0, from;

    begin(&first, "calls");
    begin(&second, "appends");
    settle();
    segment = journal.tail >> 32;
    due = now_ns();
    until = due + span_ns;
    while (due < until) {
        for (int i = 0; i < AT_ONCE; i++) {
            uint64_t started = now_ns(), ended = timed_append(&second);

            count(&first, ended - started);
        }
        from = now_ns();
        check(journal_flush(&journal), "journal_flush");
        count(&first, now_ns() - from);
        keep_syncing(false);
        if (journal.tail >> 32 != segment) {
            segment = journal.tail >> 32;
            changes++;
        }
        look_ahead();
        check(journal_retire(&journal, journal.synced, SEGMENT_SPARES), "journal_retire");
        for (due += PACE_NS; now_ns() < due;)
            ;
        if (now_ns() > due + NS_PER_MS)
            due = now_ns(); /* what was missed is not made up for */
    }
    while (atomic_load(&state) != IDLE) {
        usleep(10);
        keep_syncing(true);
        wait_on(&patience);
    }
    tell(&first, ", ");
    tell(&second, ", ");
    printf("\"changes\": %llu", (unsigned long long)changes);
}

static void measure_synced(uint64_t span_ns)
{
    static int bare = -1;
    static uint64_t at;
    uint64_t from, until;

    if (bare < 0) {
        static uint8_t zeros[64 << 10];

        bare = openat(directory, "bare", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        check(bare, "open");
        for (uint64_t offset = 0; offset < BARE; offset += sizeof zeros)
            check((int)pwrite(bare, zeros, sizeof zeros, (off_t)offset), "pwrite");
        check(fsync(bare), "fsync");
    }
    begin(&first, "append");
    begin(&second, "pwrite");
    settle();
    until = now_ns() + span_ns;
    do {
        for (int i = 0; i < IN_TURN; i++) {
            from = now_ns();
            check(append(), "journal_append");
            check(journal_sync(&journal), "journal_sync");
            count(&first, now_ns() - from);
        }
        look_ahead();
        for (int i = 0; i < IN_TURN; i++, at = (at + BODY) % BARE) {
            from = now_ns();
            check((int)pwrite(bare, body, BODY, (off_t)at), "pwrite");
            check(fdatasync(bare), "fdatasync");
            count(&second, now_ns() - from);
        }
    } while (now_ns() < until);
    tell(&first, ", ");
    tell(&second, "");
}

static uint64_t read_on(uint64_t position, uint64_t until)
{
    struct journal_record record;
    uint64_t bytes = 0, number = 0, next;

    while (position < until) {
        check(journal_read(&journal, position, &record, &next) - 1, "journal_read");
        if (record.size != BODY || (number && record.sequence != number + 1))
            fail("another record than was appended");
        number = record.sequence;
        bytes += record.size;
        position = next;
    }
    return bytes;
}

static void measure_read(uint64_t span_ns)
{
    uint64_t start, from, until, bytes = 0, summed = 0;

    settle();
    start = journal.tail;
    for (int i = 0; i < READ_RECORDS; i++)
        check(append(), "journal_append");
    check(journal_flush(&journal), "journal_flush");
    read_on(start, journal.tail);
    from = now_ns();
    do
        bytes += read_on(start, journal.tail);
    while ((until = now_ns()) - from < span_ns);
    printf("\"read\": %.0f, ", (double)bytes * 1e9 / (double)(until - from));
    from = now_ns();
    do {
        for (int i = 0; i < READ_RECORDS; i++)
            checksum = crc32c(0, onwards + (size_t)i * BODY, BODY);
        summed += (uint64_t)READ_RECORDS * BODY;
    } while ((until = now_ns()) - from < span_ns);
    printf("\"checksum\": %.0f", (double)summed * 1e9 / (double)(until - from));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*measure)(uint64_t span_ns);
    } tasks[] = {
        {"append", measure_append}, {"beside", measure_beside}, {"synced", measure_synced}, {"read", measure_read}};
    struct journal_shape shape = {0};
    unsigned long span_ms;
    char line[64], name[32];
    pthread_t thread;

    if (argc != 2)
        return 2;
    directory = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(directory, "open");
    check(journal_open(&journal, directory, &shape, &journal_files_kernel), "journal_open");
    onwards = malloc(ONWARDS);
    if (!onwards)
        fail("no memory to copy into");
    memset(onwards, 1, ONWARDS);
    memset(body, 2, BODY);
    check(-pthread_create(&thread, NULL, prepare, NULL), "pthread_create");
    check(-pthread_create(&thread, NULL, sync_on, NULL), "pthread_create");
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%31s %lu", name, &span_ms) == 2) {
        size_t i = 0;

        while (i < sizeof tasks / sizeof tasks[0] && strcmp(tasks[i].name, name) != 0)
            i++;
        if (i == sizeof tasks / sizeof tasks[0])
            fail("no such measurement");
        printf("{");
        tasks[i].measure(span_ms * NS_PER_MS);
        printf("}\n");
        fflush(stdout);
    }
    return 0;
}
