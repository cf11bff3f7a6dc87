/* What recovery does about the end that it found. SPDX-License-Identifier: MIT */
#ifndef AGENTD_RECOVERY_CUT_H
#define AGENTD_RECOVERY_CUT_H

#include "journal.h"
#include "scan.h"

struct recovery_end {
    struct scan_place place; /* behind the last good record */
    uint64_t sequence;       /* of that record */
    uint64_t synced;         /* everything before this position is known to be on disk */
    bool needs_witness;      /* no record before the place says so of damage that was skipped */
};

/*
 * Copy what is behind the end to broken-POSITION and remove it, set files aside that are no segments, see that all
 * before the end is on disk, and forget the segments behind it. A journal that is read-only only reports. The order is
 * such that, interrupted anywhere, recovery finds the same end again. A witness moves place and sequence. 0 or -errno.
 */
int recovery_cut(
    struct journal *journal, const struct journal_shape *shape, struct scan *scan, struct recovery_end *end);

#endif
