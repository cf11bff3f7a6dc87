/*
 * A ring of records in shared memory, from one writer to one reader. SPDX-License-Identifier: MIT
 *
 * The two ends are processes that do not trust each other. What they share:
 *
 *     position of the reader   written by the reader: everything before it may be overwritten
 *     data                     `capacity` bytes, a power of two, written by the writer
 *
 * Positions are 64-bit counts of bytes since the ring was made; they only grow, and position & (capacity - 1) is the
 * place in `data`. Each record, 8-byte aligned:
 *
 *      0        4        8                    8 + size, rounded up to 8
 *     +--------+--------+--------------------+
 *     | size   | kind   | body               |  next record
 *     +--------+--------+--------------------+
 *      \_ commit word _/
 *
 * The commit word is the whole protocol: kind 0 says that nothing is here yet. The writer first writes the body, then
 * zeroes the word behind it, where the next record will begin, and then stores the record's own word (release); so a
 * reader that sees the word (acquire) sees the body, and behind it a zero or a newer record, never what an earlier lap
 * left there. A record does not wrap: what is left at the end is covered by a record of kind padding, whose size is
 * exactly that rest. Memory that is all zeros holds no record, and any word that could not have been written in this
 * place by these rules is refused: the other end is broken or hostile, and the ring is of no more use.
 *
 * A record may be committed later, when something else has been done, by whoever has done it: the kernel, which copies
 * a large body elsewhere and then writes one byte. All of the record is in place then but the kind of the word at which
 * the reader looks first, the padding's where there is padding; and that kind is one byte, the word's fifth, which one
 * store of a byte makes known. Other records may be committed behind it, later ones too, in any order; the reader comes
 * to none of them before it, so the order is that in which they were claimed.
 *
 * Nothing here waits, allocates, makes a system call or reads the clock. A full ring is an answer (-EAGAIN).
 */
#ifndef AGENTD_RING_H
#define AGENTD_RING_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RING_WORD_BYTES 8u
#define RING_LINE_BYTES 64u
/* Of the one byte of a word that a kind takes. */
#define RING_KIND_PLACE 4u
#define RING_MIN_CAPACITY 1024u
#define RING_MAX_CAPACITY (1u << 30)
/* One way of 64 B where a bare line takes 143 ns (an Intel Xeon): 157 ns, 167 with a header; with 1 163 and 195. */
#define RING_LOOKS_A_PREFETCH 4u
/* The largest record, its word included, is this part of the ring: one record can't hold up the rest for long. */
#define RING_LARGEST_PART 8u

enum ring_kind { RING_NONE = 0, RING_RECORD = 1, RING_PADDING = 2 };

/* The writer's end. All of it is private to the writer; nothing of it lies in shared memory. */
struct ring_writer {
    uint8_t *data;
    const _Atomic uint64_t *reader_position; /* in shared memory, the reader's to write */
    uint64_t mask;
    uint64_t position; /* where the next record begins: all before it is committed */
    uint64_t claimed;  /* where the claimed body lies; the position itself while nothing is claimed */
    uint64_t room_to;  /* everything before it may be written: the last reader_position seen, plus the capacity */
};

/* The reader's end, private to the reader. */
struct ring_reader {
    const uint8_t *data;
    _Atomic uint64_t *reader_position; /* in shared memory, and nobody else's to write */
    uint64_t mask;
    uint64_t position; /* of the next record to read: what was read before it may still be in use */
    uint32_t looks;    /* that found nothing */
};

/*
 * Both ends begin at the same `position`, a multiple of 8: 0 for a fresh ring, whose data is all zeros. -EINVAL when
 * capacity is no power of two between the limits, or data or position is not aligned. Any later start is a ring that
 * was emptied at that position and zeroed.
 */
int ring_open_writer(
    struct ring_writer *writer, void *data, uint64_t capacity, const _Atomic uint64_t *reader_position,
    uint64_t position);
int ring_open_reader(
    struct ring_reader *reader, const void *data, uint64_t capacity, _Atomic uint64_t *reader_position,
    uint64_t position);

/* The largest body that a ring of that capacity takes. */
static inline uint32_t ring_max_size(uint64_t mask)
{
    return (uint32_t)((mask + 1) / RING_LARGEST_PART - RING_WORD_BYTES);
}

static inline uint64_t ring_word(uint32_t size, enum ring_kind kind)
{
    return (uint64_t)kind << 32 | size;
}

static inline uint64_t ring_record_bytes(uint64_t size)
{
    return (RING_WORD_BYTES + size + 7) & ~UINT64_C(7);
}

/* Data is 8-byte aligned and so is every place a word is at. */
static inline _Atomic uint64_t *ring_word_at(uint8_t *data, uint64_t place)
{
    return (_Atomic uint64_t *)(void *)(data + place);
}

/*
 * Whether the writer may write up to `end`; looks at the reader's position when what it last saw is not enough.
 * -EPROTO when the reader claims to have read what was never written, or to have gone back.
 */
int ring_find_room(struct ring_writer *writer, uint64_t end);

/*
 * Room for a record of `size` bytes: `*body` is where to write them. At most one is claimed at a time; a second claim
 * replaces the first. 0; -EAGAIN when the ring is full; -EMSGSIZE when no ring of this capacity takes it; -EPROTO.
 */
static inline int ring_claim(struct ring_writer *writer, uint32_t size, uint8_t **body)
{
    uint64_t mask = writer->mask;
    uint64_t position = writer->position;
    uint64_t need = ring_record_bytes(size);
    uint64_t rest = mask + 1 - (position & mask);
    int error;

    if (size > ring_max_size(mask))
        return -EMSGSIZE;
    if (need > rest)
        need += rest; /* padding first */
    else
        rest = 0;
    /* The word behind the record is zeroed with it. */
    if (writer->room_to - position < need + RING_WORD_BYTES) {
        error = ring_find_room(writer, position + need + RING_WORD_BYTES);
        if (error)
            return error;
    }
    writer->claimed = position + rest;
    *body = writer->data + ((position + rest) & mask) + RING_WORD_BYTES;
    return 0;
}

/* Make the claimed record one that the reader sees; `size` may be less than was claimed. Its position. */
static inline uint64_t ring_commit(struct ring_writer *writer, uint32_t size)
{
    uint64_t mask = writer->mask;
    uint64_t start = writer->position;
    uint64_t claimed = writer->claimed;
    uint64_t end = claimed + ring_record_bytes(size);

    atomic_store_explicit(ring_word_at(writer->data, end & mask), 0, memory_order_relaxed);
    /* PAIRS WITH the acquire in ring_peek(): who sees the word sees the body and the zero behind it. */
    atomic_store_explicit(
        ring_word_at(writer->data, claimed & mask), ring_word(size, RING_RECORD), memory_order_release);
    if (claimed != start)
        /* PAIRS WITH the acquire in ring_peek(). Last, so that who skips the padding finds the record. */
        atomic_store_explicit(
            ring_word_at(writer->data, start & mask), ring_word((uint32_t)(claimed - start), RING_PADDING),
            memory_order_release);
    writer->position = writer->claimed = end;
    return claimed;
}

/* Where a record that is committed later waits: what is missing there is the kind of the word at `position`. */
struct ring_later {
    uint64_t position;
    enum ring_kind kind;
};

/*
 * As ring_commit(), but no reader sees the record, or any behind it, before the kind is stored: by ring_commit_now(),
 * or by who writes it as the byte at RING_KIND_PLACE of the word, and before it all that the record speaks of. Once:
 * the place is another record's soon after.
 */
uint64_t ring_commit_later(struct ring_writer *writer, uint32_t size, struct ring_later *later);
void ring_commit_now(struct ring_writer *writer, const struct ring_later *later);

/* Whether that kind is stored by now. Only while the record is not known to be read. */
bool ring_is_committed(const struct ring_writer *writer, const struct ring_later *later);

/* Think better of a claim. */
static inline void ring_abort(struct ring_writer *writer)
{
    writer->claimed = writer->position;
}

/*
 * Copy a record in: claim, write, commit. `*position` is the record's. As ring_claim().
 */
static inline int ring_write(struct ring_writer *writer, const void *body, uint32_t size, uint64_t *position)
{
    uint8_t *room;
    int error = ring_claim(writer, size, &room);

    if (error)
        return error;
    memcpy(room, body, size);
    *position = ring_commit(writer, size);
    return 0;
}

/* What is not simple: padding, and what can't be. As ring_peek(), for the word that it read. */
int ring_peek_rare(struct ring_reader *reader, uint64_t word, const uint8_t **body, uint32_t *size);

/*
 * The next record, in place: 1, and `*body` has `*size` bytes that the writer may still scribble over, so copy before
 * you parse; 0 when there is none; -EPROTO when the memory is no ring any more. Reads on at the same record until
 * ring_next().
 */
static inline int ring_peek(struct ring_reader *reader, const uint8_t **body, uint32_t *size)
{
    uint64_t place = reader->position & reader->mask;
    /* PAIRS WITH the releases in ring_commit() and ring_commit_now(). Read once: what is checked is what is used. */
    uint64_t word =
        atomic_load_explicit((const _Atomic uint64_t *)(const void *)(reader->data + place), memory_order_acquire);
    uint32_t bytes = (uint32_t)word;

    if (word >> 32 == RING_NONE) {
        /*
         * Who looks again and again asks for the line behind the word too: most records reach into it, and the two
         * then cross from the writer's core together, not one after the other. Not at every look: that would take the
         * line out of the writer's hands while it writes the body, and each time it would have to ask for it anew.
         */
        if (reader->looks++ % RING_LOOKS_A_PREFETCH == 0)
            __builtin_prefetch(reader->data + ((place + RING_LINE_BYTES) & reader->mask));
        return 0;
    }
    if (word >> 32 != RING_RECORD || bytes > ring_max_size(reader->mask) ||
        ring_record_bytes(bytes) > reader->mask + 1 - place)
        return ring_peek_rare(reader, word, body, size);
    *body = reader->data + place + RING_WORD_BYTES;
    *size = bytes;
    return 1;
}

/* Go on behind a record of `size` bytes. Its memory stays the reader's until ring_release(). */
static inline void ring_next(struct ring_reader *reader, uint32_t size)
{
    reader->position += ring_record_bytes(size);
}

/* Give back all that was read: the writer may overwrite it. */
static inline void ring_release(struct ring_reader *reader)
{
    /* PAIRS WITH the acquire in ring_find_room(): what the writer overwrites has been read. */
    atomic_store_explicit(reader->reader_position, reader->position, memory_order_release);
}

#endif
