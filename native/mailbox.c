/* The mailbox's list. How it is read stands in mailbox.h. */
#include "mailbox.h"

#include <stdlib.h>

void mailbox_init(struct mailbox *mailbox)
{
    *mailbox = (struct mailbox){0};
}

void mailbox_deinit(struct mailbox *mailbox)
{
    free(mailbox->entries);
    mailbox_init(mailbox);
}

int mailbox_add(struct mailbox *mailbox, struct mailbox_entry *entry)
{
    if (mailbox->n_entries == mailbox->n_allocated) {
        uint32_t n = mailbox->n_allocated ? 2 * mailbox->n_allocated : 8;
        struct mailbox_entry **larger = realloc(mailbox->entries, n * sizeof(struct mailbox_entry *));

        if (!larger)
            return -ENOMEM;
        mailbox->entries = larger;
        mailbox->n_allocated = n;
    }
    mailbox->entries[mailbox->n_entries++] = entry;
    return 0;
}

bool mailbox_remove(struct mailbox *mailbox, const struct mailbox_entry *entry)
{
    for (uint32_t i = 0; i < mailbox->n_entries; i++) {
        if (mailbox->entries[i] != entry)
            continue;
        mailbox->entries[i] = mailbox->entries[--mailbox->n_entries];
        mailbox->current = 0;
        mailbox->burst = 0;
        return true;
    }
    return false;
}

int mailbox_scan(struct mailbox *mailbox, struct mailbox_entry **entry, const uint8_t **body, uint32_t *size)
{
    uint32_t n = mailbox->n_entries, active = mailbox->current, i = active;
    bool had_its_burst = mailbox->burst >= MAILBOX_BURST;
    int found = 0;

    for (uint32_t looked = 1; looked < n && !found; looked++) {
        if (++i >= n)
            i = 0;
        found = mailbox_look(mailbox, i, entry, body, size);
        if (!found && !had_its_burst && looked % MAILBOX_SLICE == 0)
            found = mailbox_look(mailbox, active, entry, body, size);
    }
    if (found)
        return found;
    mailbox->burst = 0; /* the others had their turn */
    return had_its_burst && n > 0 ? mailbox_look(mailbox, active, entry, body, size) : 0;
}

void mailbox_arm(struct mailbox *mailbox)
{
    for (uint32_t i = 0; i < mailbox->n_entries; i++)
        pair_set_armed(&mailbox->entries[i]->pair);
    pair_armed();
}

void mailbox_disarm(struct mailbox *mailbox)
{
    for (uint32_t i = 0; i < mailbox->n_entries; i++)
        pair_disarm(&mailbox->entries[i]->pair);
}
