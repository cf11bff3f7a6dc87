/*
 * Two processes that send each other all that a pair carries, and check it. SPDX-License-Identifier: MIT
 *
 * Records of any size, now one by one and now in batches; some are answered by a verdict. Each end sleeps when it has
 * nothing to do, so a wake-up that is lost shows.
 */
#ifndef AGENTD_TRAFFIC_H
#define AGENTD_TRAFFIC_H

#include "ends.h"

/* Shared by both ends and their parent. */
struct traffic {
    struct pair_shape shape;
    uint64_t position; /* where both rings begin */
    bool may_break;    /* somebody punches holes: -EPROTO and silence are fine, what was not sent is not */
    /* How many records; it may be lowered under way by `stop`, and the sender then says to how many. */
    _Atomic uint64_t n_records;
    _Atomic uint32_t stop;
    _Atomic uint32_t n_begun; /* ends that have attached; nothing is disturbed before */
    /* What came of it. */
    _Atomic uint64_t n_received, n_verdicts, n_sleeps, n_holes;
    _Atomic uint32_t n_broken; /* ends that got -EPROTO */
};

/* What a parent does meanwhile: called again and again until both have ended. */
typedef void traffic_disturber(struct traffic *traffic, const pid_t ends[2], int fd);

/* In memory that forks share; all zeros. */
struct traffic *traffic_create(void);
/* Both ends run to their end, in processes of their own, or this process fails. For each run it is filled anew. */
void traffic_run(struct traffic *traffic, traffic_disturber *disturb);

#endif
