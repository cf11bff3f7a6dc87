/* The one full fence of the core, and what ThreadSanitizer needs instead of it. SPDX-License-Identifier: MIT */
#ifndef AGENTD_ORDERING_H
#define AGENTD_ORDERING_H

#include <stdatomic.h>

/*
 * Orders every load and store before it against every load and store after it, a store against a later load too: the
 * one order that neither acquire nor release gives. ThreadSanitizer does not know fences (gcc refuses to build them
 * with it), so there it is a read-modify-write of a word of the caller's own, which it takes for as strong.
 */
static inline void ordering_full_fence(void)
{
#if defined(__SANITIZE_THREAD__)
    static _Thread_local atomic_uint word;

    atomic_fetch_add_explicit(&word, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

#endif
