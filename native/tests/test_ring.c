/* The ring: its bytes, its ends, every wrap, positions near 2^32 and 2^63, a hostile other end, two threads at once. */
#include "../ring.h"

#include <pthread.h>
#include <sched.h>

#include "check.h"

#define CAPACITY RING_MIN_CAPACITY
#define LARGEST (CAPACITY / RING_LARGEST_PART - RING_WORD_BYTES)

struct shared {
    _Alignas(128) _Atomic uint64_t reader_position;
    _Alignas(128) uint8_t data[CAPACITY];
};

struct ends {
    struct shared *shared;
    struct ring_writer writer;
    struct ring_reader reader;
};

static struct ends open_at(struct shared *shared, uint64_t position)
{
    struct ends ends = {.shared = shared};

    memset(shared->data, 0, sizeof shared->data);
    atomic_store(&shared->reader_position, position);
    CHECK(ring_open_writer(&ends.writer, shared->data, CAPACITY, &shared->reader_position, position) == 0);
    CHECK(ring_open_reader(&ends.reader, shared->data, CAPACITY, &shared->reader_position, position) == 0);
    return ends;
}

static uint64_t word_at(const struct shared *shared, uint64_t place)
{
    uint64_t word;

    memcpy(&word, shared->data + place, sizeof word);
    return word;
}

/* A body that tells its number in every byte. */
static void fill(uint8_t *body, uint32_t size, uint64_t number)
{
    for (uint32_t i = 0; i < size; i++)
        body[i] = (uint8_t)(number * 31 + i);
}

static void write_numbered(struct ends *ends, uint32_t size, uint64_t number)
{
    uint8_t body[LARGEST];
    uint64_t position;

    fill(body, size, number);
    CHECK(ring_write(&ends->writer, body, size, &position) == 0);
}

static void read_numbered(struct ends *ends, uint32_t size, uint64_t number)
{
    uint8_t expected[LARGEST];
    const uint8_t *body;
    uint32_t found;

    fill(expected, size, number);
    CHECK(ring_peek(&ends->reader, &body, &found) == 1);
    CHECK(found == size);
    CHECK(memcmp(body, expected, size) == 0);
    ring_next(&ends->reader, found);
    ring_release(&ends->reader);
}

static void check_empty(struct ends *ends)
{
    const uint8_t *body;
    uint32_t size;

    CHECK(ring_peek(&ends->reader, &body, &size) == 0);
}

static void test_shapes(struct shared *shared)
{
    struct ring_writer writer;
    struct ring_reader reader;
    uint64_t wrong[] = {0,         8, RING_MIN_CAPACITY / 2, RING_MIN_CAPACITY + 8, RING_MAX_CAPACITY * UINT64_C(2),
                        UINT64_MAX};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(ring_open_writer(&writer, shared->data, wrong[i], &shared->reader_position, 0) == -EINVAL);
        CHECK(ring_open_reader(&reader, shared->data, wrong[i], &shared->reader_position, 0) == -EINVAL);
    }
    CHECK(ring_open_writer(&writer, shared->data + 4, CAPACITY, &shared->reader_position, 0) == -EINVAL);
    CHECK(ring_open_reader(&reader, shared->data, CAPACITY, &shared->reader_position, 4) == -EINVAL);
}

/* The format, byte by byte: another language's reader depends on it. */
static void test_bytes(struct shared *shared)
{
    struct ends ends = open_at(shared, 0);
    static const uint8_t expected[32] = {
        3, 0, 0, 0, 1, 0, 0, 0, 'a', 'b', 'c', 0, 0, 0, 0, 0, /* size 3, kind record, body, filled up to 8 */
        0, 0, 0, 0, 1, 0, 0, 0, 0,   0,   0,   0, 0, 0, 0, 0, /* size 0, kind record; the zero behind it */
    };
    uint64_t position;

    CHECK(ring_write(&ends.writer, "abc", 3, &position) == 0 && position == 0);
    CHECK(ring_write(&ends.writer, "", 0, &position) == 0 && position == 16);
    CHECK(memcmp(shared->data, expected, sizeof expected) == 0);
}

static void test_claim_is_unseen_until_commit(struct shared *shared)
{
    struct ends ends = open_at(shared, 0);
    uint8_t *body;

    CHECK(ring_claim(&ends.writer, 40, &body) == 0);
    memset(body, 'x', 40);
    check_empty(&ends);
    ring_abort(&ends.writer);
    write_numbered(&ends, 8, 1);
    CHECK(ring_claim(&ends.writer, 40, &body) == 0);
    fill(body, 5, 2);
    ring_commit(&ends.writer, 5); /* less than was claimed */
    read_numbered(&ends, 8, 1);
    read_numbered(&ends, 5, 2);
    check_empty(&ends);
}

/* What an earlier lap left behind is never read: only the word behind each record need be zero. */
static void test_old_laps_are_not_read(struct shared *shared)
{
    struct ends ends = open_at(shared, 0);

    memset(shared->data + 8, 0xFF, sizeof shared->data - 8);
    for (uint64_t number = 0; number < 1000; number++) {
        check_empty(&ends);
        write_numbered(&ends, (uint32_t)(number * 7 % LARGEST), number);
        read_numbered(&ends, (uint32_t)(number * 7 % LARGEST), number);
    }
}

static void test_sizes(struct shared *shared)
{
    struct ends ends = open_at(shared, 0);
    uint8_t *body;

    CHECK(ring_max_size(ends.writer.mask) == LARGEST);
    write_numbered(&ends, LARGEST, 1);
    read_numbered(&ends, LARGEST, 1);
    CHECK(ring_claim(&ends.writer, LARGEST + 1, &body) == -EMSGSIZE);
    CHECK(ring_claim(&ends.writer, UINT32_MAX, &body) == -EMSGSIZE);
    check_empty(&ends);
}

/* Full is an answer, and one freed record makes room for one. */
static void test_full(struct shared *shared, uint64_t position, uint32_t size)
{
    struct ends ends = open_at(shared, position);
    uint64_t written = 0, read = 0;
    uint8_t *body;

    for (int round = 0; round < 200; round++) {
        while (ring_claim(&ends.writer, size, &body) == 0) {
            fill(body, size, written++);
            ring_commit(&ends.writer, size);
            CHECK(ends.writer.position - ends.reader.position <= CAPACITY - RING_WORD_BYTES);
        }
        CHECK(ring_claim(&ends.writer, size, &body) == -EAGAIN);
        CHECK(written - read >= 3); /* a largest record is an eighth: never is the ring full with fewer */
        for (uint64_t some = (written - read) / 2 + 1; some > 0; some--)
            read_numbered(&ends, size, read++);
    }
    while (read < written)
        read_numbered(&ends, size, read++);
    check_empty(&ends);
}

static void test_padding(struct shared *shared)
{
    struct ends ends = open_at(shared, CAPACITY - 32);

    memset(shared->data, 0xFF, 8); /* what the last lap left there */
    write_numbered(&ends, 40, 7);
    CHECK(word_at(shared, CAPACITY - 32) == ring_word(32, RING_PADDING));
    CHECK(word_at(shared, 0) == ring_word(40, RING_RECORD));
    CHECK(word_at(shared, 48) == 0);
    read_numbered(&ends, 40, 7);
    CHECK(atomic_load(&shared->reader_position) == CAPACITY + 48);
    /* A record that fits to the last byte takes no padding; the word behind it is that of the next lap. */
    ends = open_at(shared, CAPACITY - 32);
    memset(shared->data, 0xFF, 8);
    write_numbered(&ends, 24, 8);
    CHECK(word_at(shared, CAPACITY - 32) == ring_word(24, RING_RECORD));
    CHECK(word_at(shared, 0) == 0);
    read_numbered(&ends, 24, 8);
    check_empty(&ends);
}

static struct ring_later write_later(struct ends *ends, uint32_t size, uint64_t number)
{
    struct ring_later later;
    uint8_t *body;

    CHECK(ring_claim(&ends->writer, size, &body) == 0);
    fill(body, size, number);
    ring_commit_later(&ends->writer, size, &later);
    CHECK(!ring_is_committed(&ends->writer, &later));
    return later;
}

/* As the kernel does: one byte, and nothing known of the ring. */
static void write_byte(struct shared *shared, const struct ring_later *later)
{
    shared->data[(later->position & (CAPACITY - 1)) + RING_KIND_PLACE] = (uint8_t)later->kind;
}

/* Unseen with all behind it until its byte is there, wherever it lies and whoever writes that. */
static void test_later(struct shared *shared, uint64_t position, uint32_t size, bool by_byte)
{
    struct ends ends = open_at(shared, position);
    struct ring_later first, third, fourth;

    memset(shared->data, 0xFF, sizeof shared->data);
    memset(shared->data + (position & (CAPACITY - 1)), 0, RING_WORD_BYTES);
    first = write_later(&ends, size, 1);
    CHECK(first.position == position);
    CHECK(word_at(shared, position & (CAPACITY - 1)) >> 32 == 0);
    check_empty(&ends);
    write_numbered(&ends, 40, 2);
    third = write_later(&ends, size, 3);
    fourth = write_later(&ends, 8, 4);
    write_numbered(&ends, 0, 5);
    check_empty(&ends);
    ring_commit_now(&ends.writer, &fourth); /* in any order */
    CHECK(ring_is_committed(&ends.writer, &fourth));
    check_empty(&ends);
    if (by_byte)
        write_byte(shared, &first);
    else
        ring_commit_now(&ends.writer, &first);
    CHECK(ring_is_committed(&ends.writer, &first));
    read_numbered(&ends, size, 1);
    read_numbered(&ends, 40, 2);
    check_empty(&ends);
    if (by_byte)
        write_byte(shared, &third);
    else
        ring_commit_now(&ends.writer, &third);
    read_numbered(&ends, size, 3);
    read_numbered(&ends, 8, 4);
    read_numbered(&ends, 0, 5);
    check_empty(&ends);
}

static void test_bytes_of_later(struct shared *shared)
{
    struct ends ends = open_at(shared, 0);
    struct ring_later later = write_later(&ends, 3, 0);

    CHECK(word_at(shared, 0) == 3 && later.position == 0 && later.kind == RING_RECORD);
    ring_commit_now(&ends.writer, &later);
    CHECK(word_at(shared, 0) == ring_word(3, RING_RECORD));
    ends = open_at(shared, CAPACITY - 32);
    later = write_later(&ends, 40, 0);
    CHECK(word_at(shared, CAPACITY - 32) == 32 && word_at(shared, 0) == ring_word(40, RING_RECORD));
    CHECK(later.position == CAPACITY - 32 && later.kind == RING_PADDING);
    write_byte(shared, &later);
    CHECK(word_at(shared, CAPACITY - 32) == ring_word(32, RING_PADDING));
    read_numbered(&ends, 40, 0);
}

/* A full ring stays full until what waits at its head is committed. */
static void test_full_of_later(struct shared *shared)
{
    struct ends ends = open_at(shared, 0);
    struct ring_later laters[RING_LARGEST_PART];
    unsigned n = 0;
    uint8_t *body;

    while (ring_claim(&ends.writer, LARGEST, &body) == 0) {
        fill(body, LARGEST, n);
        ring_commit_later(&ends.writer, LARGEST, &laters[n++]);
    }
    CHECK(n == RING_LARGEST_PART - 1);
    for (unsigned i = n; i-- > 1;)
        ring_commit_now(&ends.writer, &laters[i]);
    check_empty(&ends);
    CHECK(ring_claim(&ends.writer, LARGEST, &body) == -EAGAIN);
    ring_commit_now(&ends.writer, &laters[0]);
    for (unsigned i = 0; i < n; i++)
        read_numbered(&ends, LARGEST, i);
    check_empty(&ends);
    write_numbered(&ends, LARGEST, n);
}

/* Whatever word stands there, the reader reads a record within its bounds, or says that this is no ring. */
static void test_hostile_writer(struct shared *shared)
{
    static const uint64_t words[] = {
        UINT64_C(3) << 32,                 /* a kind that is not */
        UINT64_MAX,                        /* everything */
        UINT64_C(1) << 63,                 /* a kind beyond the enum */
        UINT64_C(1) << 32 | (LARGEST + 1), /* a record over the limit */
        UINT64_C(1) << 32 | UINT32_MAX,    /* and far over it */
        UINT64_C(2) << 32,                 /* padding of nothing: would be read for ever */
        UINT64_C(2) << 32 | 8,             /* padding that does not reach the end */
        UINT64_C(2) << 32 | CAPACITY,      /* or goes beyond it */
    };
    const uint8_t *body;
    uint32_t size;

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct ends ends = open_at(shared, CAPACITY / 2);

        memcpy(shared->data + CAPACITY / 2, &words[i], sizeof words[i]);
        CHECK(ring_peek(&ends.reader, &body, &size) == -EPROTO);
    }
    for (uint64_t place = CAPACITY - 64; place < CAPACITY; place += 8) { /* a record that would leave the ring */
        struct ends ends = open_at(shared, place);
        uint64_t word = ring_word((uint32_t)(CAPACITY - place), RING_RECORD);

        memcpy(shared->data + place, &word, sizeof word);
        CHECK(ring_peek(&ends.reader, &body, &size) == -EPROTO);
    }
    for (int padding = 0; padding < 2; padding++) { /* padding at the beginning, alone and behind padding */
        struct ends ends = open_at(shared, padding ? CAPACITY - 8 : 0);
        uint64_t first = ring_word(CAPACITY, RING_PADDING), last = ring_word(8, RING_PADDING);

        memcpy(shared->data, &first, sizeof first);
        memcpy(shared->data + CAPACITY - 8, &last, sizeof last);
        CHECK(ring_peek(&ends.reader, &body, &size) == -EPROTO);
    }
}

/* The writer never writes where an honest reader may still read, whatever a dishonest one claims. */
static void test_hostile_reader(struct shared *shared)
{
    static const uint64_t start = CAPACITY * UINT64_C(5);
    static const uint64_t lies[] = {
        0, start - 8, start + CAPACITY, UINT64_MAX, start + 4, start + (UINT64_C(1) << 63),
    };

    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct ends ends = open_at(shared, start);
        uint8_t *body;
        int error;

        while ((error = ring_claim(&ends.writer, LARGEST, &body)) == 0)
            ring_commit(&ends.writer, LARGEST);
        CHECK(error == -EAGAIN);
        atomic_store(&shared->reader_position, lies[i]);
        CHECK(ring_claim(&ends.writer, LARGEST, &body) == -EPROTO);
        CHECK(ring_claim(&ends.writer, LARGEST, &body) == -EPROTO);
    }
}

enum { STRESS_RECORDS = 300000 };

static void *write_all(void *argument)
{
    struct ends *ends = argument;
    uint8_t body[LARGEST];
    uint64_t position;
    int error;

    for (uint64_t number = 0; number < STRESS_RECORDS; number++) {
        uint32_t size = (uint32_t)(number * 13 % LARGEST);

        fill(body, size, number);
        while ((error = ring_write(&ends->writer, body, size, &position)) == -EAGAIN)
            sched_yield();
        CHECK(error == 0);
    }
    return NULL;
}

/* A writer and a reader at full speed, releasing now each record, now several; begun just below a 32-bit wrap. */
static void test_two_threads(struct shared *shared)
{
    struct ends ends = open_at(shared, (UINT64_C(1) << 32) - 64);
    struct ends writing = ends;
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, write_all, &writing) == 0);
    for (uint64_t number = 0; number < STRESS_RECORDS;) {
        uint8_t expected[LARGEST];
        const uint8_t *body;
        uint32_t size;
        int found = ring_peek(&ends.reader, &body, &size);

        CHECK(found >= 0);
        if (found == 0) {
            ring_release(&ends.reader);
            sched_yield();
            continue;
        }
        CHECK(size == number * 13 % LARGEST);
        fill(expected, size, number);
        CHECK(memcmp(body, expected, size) == 0);
        ring_next(&ends.reader, size);
        if (++number % 3 == 0)
            ring_release(&ends.reader);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    check_empty(&ends);
}

int main(void)
{
    static struct shared shared;
    static const uint64_t starts[] = {
        0, CAPACITY - 8, (UINT64_C(1) << 32) - 40, (UINT64_C(1) << 63) - 40, -(uint64_t)CAPACITY * 3 - 40};

    test_shapes(&shared);
    test_bytes(&shared);
    test_claim_is_unseen_until_commit(&shared);
    test_old_laps_are_not_read(&shared);
    test_sizes(&shared);
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        for (uint32_t size = 0; size <= LARGEST; size++)
            test_full(&shared, starts[i], size);
    test_padding(&shared);
    test_bytes_of_later(&shared);
    test_full_of_later(&shared);
    for (uint64_t place = 0; place < CAPACITY; place += 8)
        for (uint32_t size = 0; size <= LARGEST; size += 5)
            test_later(&shared, starts[place / 8 % 5] / CAPACITY * CAPACITY + place, size, place % 16);
    test_hostile_writer(&shared);
    test_hostile_reader(&shared);
    test_two_threads(&shared);
    return EXIT_SUCCESS;
}
