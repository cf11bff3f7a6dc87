/*
 * A mailbox: the receiver's ends of all pairs that lead to one lane of one session. SPDX-License-Identifier: MIT
 *
 * Private to its process; what is in it is the permission to send, and names the sender. One thread reads it at a time.
 * The pair that was active last is looked at first, and for at most MAILBOX_BURST records before the others have their
 * turn: no sender can starve another. The scan reads one word a pair.
 */
#ifndef AGENTD_MAILBOX_H
#define AGENTD_MAILBOX_H

#include "pair.h"

#define MAILBOX_BURST 64u
/* Between so many others, the one that was active last is looked at again: idle pairs cost its sender little. */
#define MAILBOX_SLICE 4u

/* One pair in it. The owner's own things follow in a struct of its own that begins with this one. */
struct mailbox_entry {
    struct pair pair;
    uint64_t taken; /* records read so far */
};

struct mailbox {
    struct mailbox_entry **entries;
    uint32_t n_entries;
    uint32_t n_allocated;
    uint32_t current; /* read last */
    uint32_t burst;   /* records of it in a row */
};

void mailbox_init(struct mailbox *mailbox);
/* Forgets its entries, which stay the caller's. */
void mailbox_deinit(struct mailbox *mailbox);

/* 0, or -ENOMEM. The entry must outlive its stay. */
int mailbox_add(struct mailbox *mailbox, struct mailbox_entry *entry);
/* Takes it out. False when it is not in there. */
bool mailbox_remove(struct mailbox *mailbox, const struct mailbox_entry *entry);

/* Whether this one has a record: as mailbox_peek(). */
static inline int
mailbox_look(struct mailbox *mailbox, uint32_t i, struct mailbox_entry **entry, const uint8_t **body, uint32_t *size)
{
    int found = ring_peek(&mailbox->entries[i]->pair.receiver.ring, body, size);

    if (found == 0)
        return 0;
    *entry = mailbox->entries[i];
    if (i != mailbox->current) {
        mailbox->current = i;
        mailbox->burst = 0;
    }
    return found;
}

/* mailbox_peek() when the pair that was active last has nothing, or has had its burst. */
int mailbox_scan(struct mailbox *mailbox, struct mailbox_entry **entry, const uint8_t **body, uint32_t *size);

/*
 * The next record of any pair, in place: 1, and whose it is; 0 when there is none; -EPROTO when the memory of `*entry`
 * is no ring any more: take that one out. Comes again until mailbox_next().
 */
static inline int
mailbox_peek(struct mailbox *mailbox, struct mailbox_entry **entry, const uint8_t **body, uint32_t *size)
{
    if (mailbox->burst < MAILBOX_BURST && mailbox->n_entries > 0) {
        int found = mailbox_look(mailbox, mailbox->current, entry, body, size);

        if (found)
            return found;
    }
    return mailbox_scan(mailbox, entry, body, size);
}

/* Go on behind the record that mailbox_peek() found; its memory is the reader's until mailbox_take(). */
static inline void mailbox_next(struct mailbox *mailbox, struct mailbox_entry *entry, uint32_t size)
{
    ring_next(&entry->pair.receiver.ring, size);
    entry->taken++;
    mailbox->burst++;
}

/* All that was read of this pair lies in the reader's own memory: it is delivered. */
static inline void mailbox_take(struct mailbox_entry *entry)
{
    pair_take(&entry->pair, entry->taken);
}

/* About to sleep: from here on each sender rings. The caller must mailbox_peek() once more before it does. */
void mailbox_arm(struct mailbox *mailbox);
/* Awake again. */
void mailbox_disarm(struct mailbox *mailbox);

#endif
