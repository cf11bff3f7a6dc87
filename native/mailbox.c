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
