/*
 * Attaching to and using memory that could be anything: a target for libFuzzer, and a mutator of its own without it.
 *
 *     prove_fuzz [long]
 *
 * An input is a program. It makes a memfd, nearly a pair as a rule, and then has an honest end attach to it, read,
 * write and look while words of the memory change. What it may not do is leave the ring; guard.c and AddressSanitizer
 * notice.
 */
#define _GNU_SOURCE
#include "guard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ends.h"

static const struct pair_shape shape = {
    .lane = PAIR_HIGH, .number = 11, .ring_capacity = RING_MIN_CAPACITY, .verdict_capacity = RING_MIN_CAPACITY};

enum { MEMFD_BYTES = 2, MAX_STEPS = 64 };

/* One step of an input. */
struct step {
    uint8_t what;
    uint8_t unit; /* of `place`: 8 bytes from the beginning, or from where the end will look next */
    uint16_t place;
    uint32_t low, high;
};

enum what { CHANGE, WORD, READ, WRITE, TAKE, GATES, N_WHATS };

static uint64_t n_inputs, n_attached, n_read, n_parsed, n_written, n_refused;

/* What the memory of the input is: size, seals, and where its header is changed. */
static int make_memfd(uint8_t kind, uint8_t header_at)
{
    uint64_t total = pair_total_bytes(&shape);
    uint8_t header[sizeof(struct pair_header)];
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    int fd, sound;

    if (kind % 8) { /* sound so far */
        CHECK(pair_create(&shape, false, &fd) == 0);
        if (header_at < sizeof header) {
            CHECK(pread(fd, header, 1, header_at) == 1);
            header[0] ^= kind;
            CHECK(pwrite(fd, header, 1, header_at) == 1);
        }
        return fd;
    }
    fd = memfd_create("fuzz", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pair_create(&shape, false, &sound) == 0);
    CHECK(pread(sound, header, sizeof header, 0) == sizeof header);
    close(sound);
    CHECK(pwrite(fd, header, sizeof header, 0) == sizeof header);
    CHECK(ftruncate(fd, (off_t)(kind & 8 ? total : header_at * UINT64_C(512))) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, kind & 16 ? seals : header_at & seals) == 0);
    return fd;
}

static struct ring_reader *reader_of(struct pair *pair)
{
    return pair->end == PAIR_SENDER ? &pair->sender.verdicts : &pair->receiver.ring;
}

static struct ring_writer *writer_of(struct pair *pair)
{
    return pair->end == PAIR_SENDER ? &pair->sender.ring : &pair->receiver.verdicts;
}

static void change(struct pair *pair, uint8_t *memory, const struct step *step)
{
    const struct ring_reader *reader = reader_of(pair);
    uint64_t place = step->place * UINT64_C(8) % pair->total_bytes, word = (uint64_t)step->high << 32 | step->low;

    if (step->unit % 2)
        place = (uint64_t)(reader->data - pair->memory) + ((reader->position + step->place % 8 * 8) & reader->mask);
    if (step->what % N_WHATS == WORD)
        word = ring_word(step->low % 160, step->high % 3);
    memcpy(memory + place, &word, sizeof word);
}

static bool read_any(struct pair *pair)
{
    struct ring_reader *reader = reader_of(pair);
    const uint8_t *body;
    uint8_t *copy;
    uint32_t size;
    int found = ring_peek(reader, &body, &size);

    CHECK(found == 0 || found == 1 || found == -EPROTO);
    if (found != 1)
        return found == 0;
    copy = guard_read(reader, body, size);
    n_parsed += guard_parse(copy, size) > 0;
    free(copy);
    ring_next(reader, size);
    n_read++;
    return true;
}

static bool write_any(struct pair *pair, const struct step *step)
{
    struct ring_writer *writer = writer_of(pair);
    uint8_t *body;
    int error = ring_claim(writer, step->unit % 2 ? step->low : step->low % 128, &body);

    CHECK(error == 0 || error == -EAGAIN || error == -EMSGSIZE || error == -EPROTO);
    if (error)
        return error != -EPROTO;
    guard_write(writer, body, step->unit % 2 ? step->low : step->low % 128, (uint8_t)step->high);
    if (step->what & 128) {
        struct ring_later later;

        ring_commit_later(writer, step->low % 128 / 2, &later);
        if (step->what & 64) /* else nothing behind it is ever seen */
            ring_commit_now(writer, &later);
    } else {
        ring_commit(writer, step->low % 128 / 2);
    }
    n_written++;
    return true;
}

/* False when the pair was found to be broken. */
static bool perform(struct pair *pair, uint8_t *memory, const struct step *step)
{
    switch (step->what % N_WHATS) {
    case READ:
        return read_any(pair);
    case WRITE:
        return write_any(pair, step);
    case TAKE:
        if (pair->end == PAIR_RECEIVER)
            pair_take(pair, step->low);
        else
            ring_release(&pair->sender.verdicts);
        return true;
    case GATES:
        pair_peer(pair);
        pair_publish(pair);
        pair_arm(pair);
        pair_disarm(pair);
        pair_is_delivered(pair, step->low);
        return true;
    default:
        change(pair, memory, step);
        return true;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    struct pair pair;
    int fd, error;

    if (bytes < MEMFD_BYTES)
        return 0;
    n_inputs++;
    fd = make_memfd(input[0], input[1]);
    error = pair_attach(&pair, fd, &shape, input[0] & 64 ? PAIR_SENDER : PAIR_RECEIVER);
    n_refused += error != 0;
    if (!error) {
        uint8_t *memory = mmap(NULL, pair.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        CHECK(memory != MAP_FAILED);
        n_attached++;
        for (size_t at = MEMFD_BYTES; at + sizeof(struct step) <= bytes; at += sizeof(struct step)) {
            struct step step;

            memcpy(&step, input + at, sizeof step);
            if (!perform(&pair, memory, &step))
                break;
        }
        munmap(memory, pair.total_bytes);
        pair_detach(&pair);
    }
    close(fd);
    return 0;
}

#if !defined(WITH_LIBFUZZER)

int main(int argc, char **argv)
{
    time_t end = time(NULL) + (argc > 1 && strcmp(argv[1], "long") == 0 ? 60 : 1) + 1;
    uint64_t random = (uint64_t)time(NULL) << 32;

    while (time(NULL) < end || !n_read || !n_parsed || !n_refused || !n_written) {
        uint8_t input[MEMFD_BYTES + MAX_STEPS * sizeof(struct step)];
        size_t bytes = mixed(random++) % sizeof input;

        for (size_t i = 0; i < bytes; i++)
            input[i] = (uint8_t)mixed(random++);
        if (mixed(random++) % 4)
            input[1] |= 128; /* the header stays as it is */
        for (size_t at = MEMFD_BYTES; at + 2 * sizeof(struct step) <= bytes; at += 2 * sizeof(struct step)) {
            struct step word = {.what = WORD, .unit = 1, .low = (uint32_t)mixed(random), .high = 1};

            if (mixed(random++) % 4 == 0)
                continue;
            memcpy(input + at, &word, sizeof word); /* a word that passes, and then it is read */
            input[at + sizeof word] = READ;
        }
        LLVMFuzzerTestOneInput(input, bytes);
    }
    printf(
        "%llu inputs: %llu refused, %llu attached; %llu records read, %llu of them parsed, %llu written\n",
        (unsigned long long)n_inputs, (unsigned long long)n_refused, (unsigned long long)n_attached,
        (unsigned long long)n_read, (unsigned long long)n_parsed, (unsigned long long)n_written);
    return EXIT_SUCCESS;
}

#endif
