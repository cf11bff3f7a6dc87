/* The ring's slow paths. What each word means, and why it is safe, stands in ring.h. */
#include "ring.h"

/*
 * The places of the words are part of the format that two builds of agentd must agree on; so are their sizes, and that
 * an atomic word is nothing but the word.
 */
_Static_assert(sizeof(_Atomic uint64_t) == RING_WORD_BYTES, "a commit word is 8 bytes");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a word that needs a lock can't be shared between processes");
_Static_assert(RING_PADDING <= UINT8_MAX, "a kind is stored as one byte");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "size and kind change place on a big-endian machine");

static bool shape_is_valid(const void *data, uint64_t capacity, uint64_t position)
{
    return capacity >= RING_MIN_CAPACITY && capacity <= RING_MAX_CAPACITY && (capacity & (capacity - 1)) == 0 &&
           (uintptr_t)data % RING_WORD_BYTES == 0 && position % RING_WORD_BYTES == 0;
}

int ring_open_writer(
    struct ring_writer *writer, void *data, uint64_t capacity, const _Atomic uint64_t *reader_position,
    uint64_t position)
{
    if (!shape_is_valid(data, capacity, position))
        return -EINVAL;
    *writer = (struct ring_writer){
        .data = data,
        .reader_position = reader_position,
        .mask = capacity - 1,
        .position = position,
        .claimed = position,
        .room_to = position + capacity,
    };
    return 0;
}

int ring_open_reader(
    struct ring_reader *reader, const void *data, uint64_t capacity, _Atomic uint64_t *reader_position,
    uint64_t position)
{
    if (!shape_is_valid(data, capacity, position))
        return -EINVAL;
    *reader = (struct ring_reader){
        .data = data,
        .reader_position = reader_position,
        .mask = capacity - 1,
        .position = position,
    };
    return 0;
}

uint64_t ring_commit_later(struct ring_writer *writer, uint32_t size, struct ring_later *later)
{
    uint64_t mask = writer->mask, start = writer->position, claimed = writer->claimed;
    uint64_t end = claimed + ring_record_bytes(size);
    uint32_t first = size;

    /* Relaxed, all of it: what the reader sees of this it sees by the store of the kind. */
    atomic_store_explicit(ring_word_at(writer->data, end & mask), 0, memory_order_relaxed);
    *later = (struct ring_later){.position = start, .kind = RING_RECORD};
    if (claimed != start) {
        atomic_store_explicit(
            ring_word_at(writer->data, claimed & mask), ring_word(size, RING_RECORD), memory_order_relaxed);
        later->kind = RING_PADDING;
        first = (uint32_t)(claimed - start);
    }
    atomic_store_explicit(ring_word_at(writer->data, start & mask), ring_word(first, RING_NONE), memory_order_relaxed);
    writer->position = writer->claimed = end;
    return claimed;
}

void ring_commit_now(struct ring_writer *writer, const struct ring_later *later)
{
    /* PAIRS WITH the acquire in ring_peek(): who sees the kind sees the record, and what was done before. */
    atomic_fetch_or_explicit(
        ring_word_at(writer->data, later->position & writer->mask), ring_word(0, later->kind), memory_order_release);
}

bool ring_is_committed(const struct ring_writer *writer, const struct ring_later *later)
{
    /* The kind orders nothing here: it is the writer's own record. */
    uint64_t word =
        atomic_load_explicit(ring_word_at(writer->data, later->position & writer->mask), memory_order_relaxed);

    return word >> 32 != RING_NONE;
}

int ring_find_room(struct ring_writer *writer, uint64_t end)
{
    uint64_t capacity = writer->mask + 1;
    /* PAIRS WITH the release in ring_release(). */
    uint64_t read_to = atomic_load_explicit(writer->reader_position, memory_order_acquire);
    uint64_t seen = writer->room_to - capacity;

    /* An honest reader is between what it said last and what was written, at the start of a record. */
    if (read_to - seen > writer->position - seen || read_to % RING_WORD_BYTES != 0)
        return -EPROTO;
    writer->room_to = read_to + capacity;
    return writer->room_to - writer->position < end - writer->position ? -EAGAIN : 0;
}

int ring_peek_rare(struct ring_reader *reader, uint64_t word, const uint8_t **body, uint32_t *size)
{
    uint64_t place = reader->position & reader->mask;

    /* Padding covers the rest to the last byte, and only ever comes before a record that did not fit. */
    if (place == 0 || word != ring_word((uint32_t)(reader->mask + 1 - place), RING_PADDING))
        return -EPROTO;
    reader->position += reader->mask + 1 - place;
    return ring_peek(reader, body, size);
}
