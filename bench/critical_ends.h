/* The two ends of critical.c and the ways a message goes between them. SPDX-License-Identifier: MIT */
#ifndef BENCH_CRITICAL_ENDS_H
#define BENCH_CRITICAL_ENDS_H

#include "mailbox.h"
#include "patience.h"
#include "record.h"

enum { SMALL = 64, LARGE = 4096, BATCH = 32, IDLE = 63, CROWD = IDLE + 1 };

/* FLOOR: two words and nothing else. RING: raw records of one pair. RECORD: record.h's header, through the mailbox. */
enum way { FLOOR, RING, RECORD };
enum kind { TRIPS, FLOW, ENQUEUE, MEMCPY };

/* One measurement. */
struct task {
    const char *name;
    enum kind kind;
    enum way way;
    uint32_t size;
    uint32_t batch; /* records to one publish; 0: no fence and no gate at all */
    bool crowded;   /* 63 idle pairs beside it in the mailbox */
};

/* What begins every body. */
struct head {
    uint64_t sequence;
    uint64_t last; /* whether the chunk ends here */
};

/* One end of a conversation: a pair to send by, a mailbox to receive from. */
struct end {
    struct pair out;
    struct mailbox mailbox;
    struct mailbox_entry entries[CROWD];
    struct mailbox_entry *in; /* the pair that the other end uses */
};

/* The bare words, far enough from each other that no prefetcher couples them. */
struct words {
    _Alignas(PAIR_LINE_BYTES) _Atomic uint64_t there;
    _Alignas(PAIR_LINE_BYTES) _Atomic uint64_t back;
};

static struct words *words;
static uint64_t sequence; /* of the last message of this conversation; both ends count */

/* The pair is awake on both ends: a bell that would have to be rung is an error of the core. */
static inline void publish(struct pair *pair)
{
    if (pair_publish(pair))
        fail("a doorbell for an end that never slept");
}

/* 0, or -EAGAIN. The header is what the library writes for plain bytes; the clock is the caller's. */
static inline int put(struct pair *pair, enum way way, const void *body, uint32_t size, uint64_t sent_ns)
{
    struct record_header header = {.content = RECORD_BYTES, .sent_ns = sent_ns};
    uint64_t position;
    uint8_t *room;
    int error;

    if (way == RING)
        return ring_write(&pair->sender.ring, body, size, &position);
    error = pair_peer(pair);
    if (error)
        return error;
    error = ring_claim(&pair->sender.ring, record_overhead(0, 0) + size, &room);
    if (error)
        return error;
    memcpy(record_write(room, &header, 0, ""), body, size);
    ring_commit(&pair->sender.ring, record_overhead(0, 0) + size);
    return 0;
}

static inline void put_now(const struct task *task, struct pair *pair, const void *body, uint64_t sent_ns)
{
    struct patience patience = {0};
    int error;

    while ((error = put(pair, task->way, body, task->size, sent_ns)) == -EAGAIN) {
        if (task->batch)
            publish(pair); /* what waits in an unfinished batch */
        wait_on(&patience);
    }
    if (error)
        fail("a record was refused");
}

/* The next record's body, copied into memory of one's own: 1, or 0 when there is none. Not yet given back. */
static inline int get(struct end *end, enum way way, void *body, uint32_t size)
{
    struct mailbox_entry *entry = end->in;
    struct record record;
    const uint8_t *bytes;
    uint32_t found_size;
    int found;

    if (way == RING) {
        found = ring_peek(&entry->pair.receiver.ring, &bytes, &found_size);
        if (found <= 0)
            return found;
        if (found_size != size)
            fail("a record of another size");
        memcpy(body, bytes, size);
        ring_next(&entry->pair.receiver.ring, found_size);
        entry->taken++;
        return 1;
    }
    found = mailbox_peek(&end->mailbox, &entry, &bytes, &found_size);
    if (found <= 0)
        return found;
    if (!record_parse(bytes, found_size, &record) || record.body_bytes != size || entry != end->in)
        fail("a record that was not sent");
    memcpy(body, record.body, size);
    mailbox_next(&end->mailbox, entry, found_size);
    return 1;
}

static inline void get_now(struct end *end, enum way way, void *body, uint32_t size)
{
    struct patience patience = {0};
    int found;

    while ((found = get(end, way, body, size)) == 0)
        wait_on(&patience);
    check(found, "the ring is broken");
    if (((const struct head *)body)->sequence != ++sequence)
        fail("a message is missing, or came twice");
}

static inline void await_word(_Atomic uint64_t *word, uint64_t wanted)
{
    struct patience patience = {0};

    while (atomic_load_explicit(word, memory_order_acquire) != wanted)
        wait_on(&patience);
}

static _Alignas(PAIR_LINE_BYTES) uint8_t sent[LARGE], got[LARGE];

/* There and back once. */
static inline void trip(const struct task *task, struct end *end, bool last, uint64_t sent_ns)
{
    struct head *head = (void *)sent;

    head->sequence = ++sequence;
    head->last = last;
    if (task->way == FLOOR) {
        atomic_store_explicit(&words->there, sequence << 1 | last, memory_order_release);
        await_word(&words->back, sequence);
        return;
    }
    sequence--; /* get_now() counts this message when its echo is here */
    put_now(task, &end->out, sent, sent_ns);
    publish(&end->out);
    get_now(end, task->way, got, task->size);
    mailbox_take(end->in);
}

static void echo_words(void)
{
    for (uint64_t word = 0; !(word & 1);) {
        struct patience patience = {0};

        sequence++;
        while ((word = atomic_load_explicit(&words->there, memory_order_acquire)) >> 1 != sequence)
            wait_on(&patience);
        atomic_store_explicit(&words->back, sequence, memory_order_release);
    }
}

static void echo(const struct task *task, struct end *end)
{
    do {
        get_now(end, task->way, got, task->size);
        mailbox_take(end->in);
        put_now(task, &end->out, got, 0);
        publish(&end->out);
    } while (!((const struct head *)(void *)got)->last);
}

static void drain(const struct task *task, struct end *end)
{
    const struct head *head = (const void *)got;
    struct patience patience = {0};
    uint32_t at_once = task->batch ? task->batch : BATCH, untaken = 0; /* given back in the sender's rhythm */
    int found;

    do {
        found = get(end, task->way, got, task->size);
        check(found, "the ring is broken");
        if (found && head->sequence != ++sequence)
            fail("a message is missing, or came twice");
        untaken += (uint32_t)found;
        if (untaken == at_once || (untaken && (!found || head->last))) {
            mailbox_take(end->in);
            untaken = 0;
        }
        if (!found)
            wait_on(&patience);
        else
            patience = (struct patience){0};
    } while (!found || !head->last);
}

#endif
