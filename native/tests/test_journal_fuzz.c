/*
 * Recovery of anything: three segments of a journal, edited by the bytes of the input, of which some make records that
 * are valid and say what is not so. It is opened or refused; nothing is read that is not there; what it holds then is
 * in order, does not change when it is opened again, and more can be appended to it.
 *
 *     test_journal_fuzz [runs]     inputs by chance; with WITH_LIBFUZZER it is libFuzzer's target
 */
#include "journal_tests.h"

enum { N_SEGMENTS = 3 };

struct base {
    uint8_t segments[N_SEGMENTS][SMALL_SEGMENT];
    uint8_t id[SEGMENT_ID_BYTES];
    uint64_t tail;
    bool forged; /* it holds records that no journal writes */
};

static struct base make_base(struct directory *directory)
{
    struct base base;
    struct journal journal = open_journal(directory, NULL);

    append_many(&journal, 60);
    CHECK(journal_sync(&journal) == 0);
    while (journal.tail >> 32 < N_SEGMENTS)
        append_many(&journal, 1);
    append_many(&journal, 10);
    base.forged = false;
    memcpy(base.id, journal.id, sizeof base.id);
    base.tail = journal.tail;
    CHECK(journal.tail >> 32 == N_SEGMENTS);
    CHECK(journal_close(&journal) == 0);
    for (unsigned i = 0; i < N_SEGMENTS; i++)
        peek(directory, i + 1, 0, base.segments[i], SMALL_SEGMENT);
    return base;
}

struct input {
    const uint8_t *bytes;
    size_t size;
};

static uint64_t take(struct input *input, unsigned size)
{
    uint64_t number = 0;

    while (size-- > 0) {
        number = number << 8 | (input->size ? *input->bytes : 0);
        input->bytes += input->size > 0;
        input->size -= input->size > 0;
    }
    return number;
}

/* A record whose checksum is right, of which the input says the rest. */
static void forge(struct base *base, struct input *input, unsigned segment, uint32_t offset)
{
    uint32_t room = SMALL_SEGMENT - offset;
    struct journal_header header = {
        .size = (uint32_t)take(input, 2) % (room - JOURNAL_HEADER_BYTES + 1),
        .sequence = take(input, 1) + (take(input, 1) & 1 ? UINT64_C(1) << 60 : 0),
        .synced_upto = (take(input, 1) % 4) << 32 | take(input, 2),
        .position = (segment + UINT64_C(1)) << 32 | offset,
        .type = (uint16_t)take(input, 1),
    };
    uint8_t *to = base->segments[segment] + offset;

    base->forged = true;
    header.crc = journal_checksum(crc32c(0, base->id, sizeof base->id), &header, to + JOURNAL_HEADER_BYTES);
    memcpy(to, &header, sizeof header);
}

/* One edit of the files' bytes; or how long a file is. */
static void edit(struct base *base, struct input *input, uint32_t *sizes)
{
    unsigned kind = (unsigned)take(input, 1) % 7, segment = (unsigned)take(input, 1) % N_SEGMENTS;
    uint32_t offset = (uint32_t)take(input, 2), n = (uint32_t)take(input, 1), from;
    uint8_t *bytes = base->segments[segment];

    switch (kind) {
    case 0: /* bytes of the input */
        for (; n > 0 && offset < SMALL_SEGMENT; n--)
            bytes[offset++] = (uint8_t)take(input, 1);
        break;
    case 1: /* a bit */
        bytes[offset] ^= (uint8_t)(1u << n % 8);
        break;
    case 2: /* blocks are lost */
        offset -= offset % 512;
        n = 512 * (n % 16 + 1);
        memset(bytes + offset, 0, n < SMALL_SEGMENT - offset ? n : SMALL_SEGMENT - offset);
        break;
    case 3: /* blocks come from somewhere else */
        from = (uint32_t)take(input, 2);
        n = 64 * (n % 64 + 1);
        n = n < SMALL_SEGMENT - offset ? n : SMALL_SEGMENT - offset;
        n = n < SMALL_SEGMENT - from ? n : SMALL_SEGMENT - from;
        memmove(bytes + offset, base->segments[take(input, 1) % N_SEGMENTS] + from, n);
        break;
    case 4: /* the file is shorter, or gone */
        sizes[segment] = n % 4 == 0 ? UINT32_MAX : offset;
        break;
    default:
        offset -= offset % 8;
        if (offset >= SEGMENT_FIRST_RECORD && offset <= SMALL_SEGMENT - JOURNAL_HEADER_BYTES)
            forge(base, input, segment, offset);
        break;
    }
}

static void write_files(const struct directory *directory, const struct base *base, const uint32_t *sizes)
{
    empty_directory(directory);
    for (unsigned i = 0; i < N_SEGMENTS; i++) {
        char name[SEGMENT_NAME_BYTES];
        int fd;

        if (sizes[i] == UINT32_MAX)
            continue;
        segment_name(name, i + 1);
        fd = openat(directory->fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        CHECK(fd >= 0 && write(fd, base->segments[i], sizes[i]) == (ssize_t)sizes[i]);
        close(fd);
    }
}

/* Read all there is: how many records, the last one's sequence, and a checksum of all. */
struct content {
    uint64_t n, last;
    uint32_t crc;
};

static struct content read_all(struct journal *journal)
{
    uint64_t position = journal_first(journal), next;
    struct journal_record record;
    struct content content = {.n = 0};
    int result;

    while ((result = journal_read(journal, position, &record, &next)) != 0) {
        CHECK(result == 1 || result == -EILSEQ);
        CHECK(next > position);
        position = next;
        if (result < 0)
            continue;
        content.n++;
        content.last = record.sequence;
        content.crc = crc32c(content.crc, record.body, record.size);
        content.crc = crc32c(content.crc, &record.position, sizeof record.position);
    }
    return content;
}

static void try_input(const struct directory *directory, const struct base *original, struct input input)
{
    static struct base base;
    uint32_t sizes[N_SEGMENTS] = {SMALL_SEGMENT, SMALL_SEGMENT, SMALL_SEGMENT};
    struct findings findings;
    struct journal journal;
    struct content before, after;
    uint64_t start, position;
    int error;

    base = *original;
    start = take(&input, 1);
    start = start % 4 == 0
                ? (start % 3 + 1) << 32 |
                      (SEGMENT_FIRST_RECORD + take(&input, 2) % (SMALL_SEGMENT - SEGMENT_FIRST_RECORD) / 8 * 8)
                : 0;
    while (input.size > 0)
        edit(&base, &input, sizes);
    write_files(directory, &base, sizes);
    error = try_open(&journal, directory, start, &findings, &journal_files_kernel);
    CHECK(error == 0 || error == -EILSEQ || error == -EPROTONOSUPPORT);
    if (error)
        return;
    CHECK(journal.tail >= start && journal.synced == journal.tail);
    before = read_all(&journal);
    CHECK(before.last <= journal.sequence);
    CHECK(journal_close(&journal) == 0);
    CHECK(try_open(&journal, directory, start, &findings, &journal_files_kernel) == 0);
    after = read_all(&journal);
    if (!base.forged) {
        CHECK(findings.n[JOURNAL_CUT] == 0 && findings.n[JOURNAL_SET_ASIDE] == 0);
        CHECK(before.n == after.n && before.last == after.last && before.crc == after.crc);
    }
    for (unsigned i = 0; i < 3; i++)
        CHECK(append_sized(&journal, 100, &position) == 0);
    CHECK(journal_sync(&journal) == 0);
    CHECK(journal_close(&journal) == 0);
    CHECK(try_open(&journal, directory, start, &findings, &journal_files_kernel) == 0);
    after = read_all(&journal);
    if (!base.forged) {
        CHECK(findings.n[JOURNAL_CUT] == 0);
        CHECK(after.n == before.n + 3 && after.last == journal.sequence);
    }
    CHECK(journal_close(&journal) == 0);
}

#if defined(WITH_LIBFUZZER)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct directory directory;
    static struct base base;

    if (!directory.fd) {
        directory = make_directory();
        base = make_base(&directory);
    }
    try_input(&directory, &base, (struct input){.bytes = bytes, .size = size});
    return 0;
}

#else

int main(int argc, char **argv)
{
    struct directory directory = make_directory();
    struct base base = make_base(&directory);
    uint64_t random = 1, runs = argc > 1 ? strtoull(argv[1], NULL, 10) : 1500;

    for (uint64_t run = 0; run < runs; run++) {
        uint8_t bytes[128];
        size_t size;

        for (unsigned i = 0; i < sizeof bytes; i++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            bytes[i] = (uint8_t)(random >> 33);
        }
        size = bytes[0] % sizeof bytes;
        try_input(&directory, &base, (struct input){.bytes = bytes + 1, .size = size});
    }
    remove_directory(&directory);
    return 0;
}

#endif
