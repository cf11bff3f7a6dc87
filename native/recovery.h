/*
 * What a journal still holds after a crash. SPDX-License-Identifier: MIT
 *
 * The records are read one after the other, by pread, from the segment of the start on. At the first place where there
 * is no valid record, and which is no lawful end of a segment, every later place of this segment and those behind it is
 * tried. Valid is a record whose position is where it lies, whose checksum is right, and whose sequence is greater than
 * that of the last good one.
 *   - One of them says, in its synced_upto, that the bad place was on disk, or the start says so: it is damage. It is
 *     reported and left alone, and reading goes on with the first of them.
 *   - None does: here the end begins that was never synced, whatever is valid in it. From here to the last valid record
 *     everything is copied to broken-POSITION and removed, and that is synced, before anything is appended.
 * So what remains is a prefix of what was appended, but for damage that is reported, and has all that was synced.
 *
 * Cutting may remove the very record that told damage from the end; then a record of the journal's own takes its place,
 * before anything is removed, so that the next recovery does not cut from there.
 *
 * A segment that is missing between others is damage. It can't come of a crash: names are on disk before records are.
 *
 * What was found behind the last place that is known to be on disk is written once more, and synced: a page that the
 * kernel failed to write looks as if it had been. Interrupted anywhere, it begins again from the same or a later state.
 */
#ifndef AGENTD_RECOVERY_H
#define AGENTD_RECOVERY_H

#include "journal.h"

/*
 * Of a journal whose files, directory and segments (their numbers, ascending, at least one) are known: fill in id,
 * seed, the segments up to the last with records, sequence, tail, flushed, synced and next_number, and bring the
 * directory in order unless the journal is read-only. 0 or -errno: then nothing is lost, and it can be tried again.
 */
int recovery_run(struct journal *journal, const struct journal_shape *shape);

#endif
