/* Doorbells as a channel uses them. SPDX-License-Identifier: MIT */
#ifndef AGENTD_MODULE_DOORBELLS_H
#define AGENTD_MODULE_DOORBELLS_H

#include "module.h"

/* 0, or why nothing may be sent here: -EEXIST in another thread than the engine's, -ESTALE in a child. */
int doorbells_check(const struct doorbells *self);

/* A record was committed in that channel: it is announced, now or with the others of the burst. */
void doorbells_sent(struct doorbells *self, struct bell *bell, uint64_t now_ns);

/* A ring has no room: whoever is to make some must hear of what is in it. */
void doorbells_full(struct doorbells *self);

/* It leaves: true when it has records that are not published, which is its own to do now. */
bool doorbells_forget(struct doorbells *self, struct bell *bell);

/* Whether descriptors that were rung may be closed. */
bool doorbells_are_rung(struct doorbells *self);

#endif
