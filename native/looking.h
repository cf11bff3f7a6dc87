/*
 * Whether a reader that finds nothing looks on for a while before it sleeps. SPDX-License-Identifier: MIT
 *
 * To wake who sleeps costs its sender a system call and both of them the time until it runs: a look is worth as much.
 * But a reader that looks holds a core, which its sender may need: a process that was given one core looks in vain each
 * time, and no system call says whether others have that core too. So it is told by what comes of it: after looks in
 * vain 0, 1, 3, 7 and at most 255 waits go without before the next; one that finds something makes all as at first.
 */
#ifndef AGENTD_LOOKING_H
#define AGENTD_LOOKING_H

#include <stdbool.h>
#include <stdint.h>

#define LOOKING_MOST_WITHOUT 255u

struct looking {
    uint32_t next;    /* so many waits go without, should the next look be in vain */
    uint32_t without; /* waits still to come that do not begin with a look */
};

/* A wait begins: whether by looking. */
static inline bool looking_pays(struct looking *looking)
{
    if (looking->without == 0)
        return true;
    looking->without--;
    return false;
}

/* What came of that look. */
static inline void looking_ended(struct looking *looking, bool found)
{
    if (found) {
        looking->next = 0;
        return;
    }
    looking->without = looking->next;
    if (looking->next < LOOKING_MOST_WITHOUT)
        looking->next = 2 * looking->next + 1;
}

#endif
