/*
 * One long use of a journal that comes to every step there is, for the tests in which something goes wrong on the way.
 * SPDX-License-Identifier: MIT
 */
#ifndef AGENTD_JOURNAL_WORKLOAD_H
#define AGENTD_JOURNAL_WORKLOAD_H

#include "journal_tests.h"

/* What was promised so far. In memory that outlives the process which promises. */
struct promises {
    uint64_t flushed;  /* records up to this sequence are kept when the process dies */
    uint64_t synced;   /* when the machine does */
    uint64_t retired;  /* records up to this one may be gone */
    uint64_t appended; /* there are no more */
};

struct user {
    const struct directory *directory;
    const struct journal_files *files;
    struct promises *promises;
    struct journal journal;
    bool open;
    unsigned n_errors; /* that an operation answered, and that were not called for */
};

/* So often an operation is tried again that failed: who injects faults stops at some time. */
enum { TRIES = 50 };

static inline void user_close(struct user *user)
{
    if (user->open && journal_close(&user->journal) == 0)
        user->promises->flushed = user->journal.sequence;
    user->open = false;
}

static inline void user_open(struct user *user)
{
    int error = -1;

    for (unsigned tries = 0; error && tries < TRIES; tries++) {
        error = try_open(&user->journal, user->directory, 0, NULL, user->files);
        user->n_errors += error != 0;
    }
    CHECK(error == 0);
    user->open = true;
    CHECK(user->journal.sequence >= user->promises->flushed);
}

/* After an error: only what is poisoned has to be opened anew. */
static inline void user_heal(struct user *user)
{
    user->n_errors++;
    if (user->journal.poisoned) {
        journal_close(&user->journal);
        user_open(user);
        user->promises->appended = user->journal.sequence; /* what only gathered was never there */
    }
}

static inline void user_sync(struct user *user)
{
    for (unsigned tries = 0; tries < TRIES; tries++) {
        uint64_t sequence = user->journal.sequence;

        if (journal_sync(&user->journal) == 0) {
            user->promises->synced = user->promises->flushed = sequence;
            return;
        }
        user_heal(user);
    }
    CHECK(!"it can be synced again");
}

static inline void user_flush(struct user *user)
{
    uint64_t sequence = user->journal.sequence;

    if (journal_flush(&user->journal) == 0)
        user->promises->flushed = sequence;
    else
        user_heal(user);
}

static inline void user_append(struct user *user, unsigned n)
{
    for (unsigned tries = 0; n > 0;) {
        uint64_t tail = user->journal.tail, sequence = user->journal.sequence, position;
        int error;

        user->promises->appended = sequence + 1;
        error = append_next(&user->journal, &position);
        if (error == 0) {
            n--;
            continue;
        }
        CHECK(user->journal.tail == tail && user->journal.sequence == sequence);
        CHECK(tries++ < TRIES);
        if (error == -EAGAIN)
            user_sync(user);
        else
            user_heal(user);
    }
}

/* Some records come in while a sync is in flight. */
static inline void user_sync_beside(struct user *user, unsigned n)
{
    struct journal_sync sync;
    uint64_t sequence = user->journal.sequence;
    int error = journal_sync_begin(&user->journal, &sync);

    if (error) {
        user_heal(user);
        return;
    }
    user->promises->flushed = sequence;
    for (unsigned i = 0; i < n; i++) {
        uint64_t position;

        user->promises->appended = user->journal.sequence + 1;
        if (append_next(&user->journal, &position) != 0)
            break;
        if (i % 2)
            user_flush(user);
        if (!user->open || user->journal.poisoned || !user->journal.syncing)
            return; /* it was opened anew: the sync is another journal's */
    }
    for (unsigned i = 0; i < sync.n_fds && !error; i++)
        error = journal_sync_file(user->files, sync.fds[i]);
    if (journal_sync_end(&user->journal, &sync, error) == 0)
        user->promises->synced = sequence;
    else
        user_heal(user);
}

static inline void user_prepare(struct user *user)
{
    if (journal_needs_prepare(&user->journal) && segment_prepare(
                                                     user->files, user->directory->fd, user->journal.id,
                                                     journal_next_number(&user->journal), SMALL_SEGMENT, 0) != 0)
        user->n_errors++;
}

static inline void user_retire(struct user *user, unsigned keep)
{
    struct journal_record record;
    uint64_t next;

    if (user->journal.n_segments < 2)
        return;
    user->promises->retired = user->promises->synced;
    if (journal_retire(&user->journal, user->journal.synced, keep) < 0)
        user->n_errors++;
    if (journal_read(&user->journal, 0, &record, &next) == 1)
        user->promises->retired = record.sequence - 1;
}

/* Records that nobody synced, over the end of a segment, of which one in the middle is lost. */
static inline void user_loses_some(struct user *user)
{
    uint64_t cut, number;

    user_sync(user);
    cut = user->journal.tail;
    number = cut >> 32;
    while (user->journal.tail >> 32 == number && user->journal.limit - user->journal.tail > 2000)
        user_append(user, 1);
    user_append(user, 5);
    user->promises->flushed = user->promises->synced;
    /* A journal that healed on the way has synced all it had. */
    if (user->journal.synced == cut && user->journal.tail > cut) {
        journal_close(&user->journal);
        user->open = false;
        flip_bit(user->directory, cut >> 32, (uint32_t)cut * UINT64_C(8) + 3);
        user->promises->flushed = user->promises->synced;
        user_open(user);
        CHECK(user->journal.sequence == user->promises->synced);
    }
}

static inline void use_journal(struct user *user)
{
    user_open(user);
    for (unsigned round = 0; round < 4; round++) {
        user_append(user, 20);
        user_flush(user);
        user_sync_beside(user, 6);
        if (round % 2)
            user_prepare(user);
        user_append(user, 80);
        user_sync(user);
        user_sync_beside(user, 60);
        user_append(user, 1);
        user_sync(user);
        user_retire(user, round % 3);
        if (round == 2)
            user_loses_some(user);
        user_close(user);
        user_open(user);
    }
    user_close(user);
}

/* All that was promised is there, nothing else is, and it goes on. */
static inline void check_promises(const struct directory *directory, const struct promises *promises, uint64_t kept)
{
    struct findings findings;
    struct journal journal = open_journal(directory, &findings);
    uint64_t first, last, before;

    CHECK(findings.n[JOURNAL_SKIPPED] == 0 && findings.n[JOURNAL_MISSING] == 0 && findings.n[JOURNAL_SET_ASIDE] == 0);
    check_whole(&journal, &first, &last);
    CHECK(last == journal.sequence || last == 0);
    CHECK(last >= kept && last <= promises->appended);
    CHECK(first <= promises->retired + 1);
    before = journal.sequence;
    append_many(&journal, 3);
    CHECK(journal_close(&journal) == 0);
    journal = open_journal(directory, &findings);
    check_nothing_found(&findings);
    check_whole(&journal, &first, &last);
    CHECK(last == before + 3);
    CHECK(journal_close(&journal) == 0);
}

#endif
