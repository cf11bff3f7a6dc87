/*
 * A machine that runs the ring's real code in every order its memory model allows. SPDX-License-Identifier: MIT
 *
 * Include it first, then the headers and sources to be proven: their atomic operations become steps of this machine,
 * and between two steps any other thread may run. The threads are coroutines, so a run is repeatable, and the explorer
 * tries each choice of each run: who is next, and which of the values that it may still see a load returns.
 *
 * The memory is weaker than that of any machine agentd runs on, x86 and ARM included: each place keeps all values it
 * ever had; a thread sees any of them that is not older than what it has seen, and learns what another has seen only
 * from a release that it acquires, or from a full fence after another's full fence. Bytes that are not atomic must be
 * ordered by that alone: an access that is not is a race, and a race is a failure.
 *
 * What it leaves out: a store that becomes visible before an earlier load has been done. That would matter for the
 * reads of a body before ring_release(), and there the race is found instead.
 *
 * Each operation in the source is a site. A mutant weakens one site, and must make a scenario fail.
 */
#ifndef AGENTD_MODEL_H
#define AGENTD_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MODEL_MAX_THREADS 3

enum model_kind { MODEL_LOAD, MODEL_STORE, MODEL_CHANGE, MODEL_FENCE };

enum model_weakness {
    MODEL_SOUND,
    MODEL_DROPPED, /* a store or a fence is not done at all */
    MODEL_RELAXED, /* an acquire or a release orders nothing */
    MODEL_SPLIT,   /* a change is a load and then a store */
    MODEL_N_WEAKNESSES,
};

struct model_site {
    const char *function;
    int line;
    enum model_kind kind;
    memory_order order;
    struct model_site *next; /* of those that were reached, by function and line */
};

struct model_scenario {
    const char *name;
    unsigned n_threads;
    void (*set_up)(void); /* alone, before each run; its operations are no steps */
    void (*threads[MODEL_MAX_THREADS])(void);
    const char *(*check)(void); /* alone, when all threads have ended: what is wrong, or NULL */
};

struct model_mutant {
    const struct model_site *site;
    enum model_weakness weakness;
};

struct model_result {
    uint64_t runs;       /* to the end; no two of them are the same but for the order of independent steps */
    uint64_t cut_short;  /* because an equal one was seen */
    uint64_t steps;      /* of all runs */
    const char *failure; /* NULL when none failed; the search ends at the first */
};

struct model_result model_explore(const struct model_scenario *scenario, struct model_mutant mutant);
/* All sites that any run reached. */
struct model_site *model_sites(void);
/* Whether that weakness is one for this site. */
bool model_applies(const struct model_site *site, enum model_weakness weakness);

/* Memory whose plain accesses are watched for races. */
void model_watch(const void *memory, size_t bytes);
/* From a thread: this run has failed. */
_Noreturn void model_fail(const char *why);
/* What a doorbell does in the kernel: it is counted, and one waits for it. */
void model_ring(_Atomic uint32_t *bell);
void model_wait(_Atomic uint32_t *bell);
/* Go on when the place has another value than was seen last: a loop that polls it, without its idle rounds. */
void model_await_change(const volatile void *place, size_t bytes);

uint64_t model_load(struct model_site *site, const volatile void *place, size_t bytes);
void model_store(struct model_site *site, volatile void *place, size_t bytes, uint64_t value);
/* value = (value & and) | or; what it was. */
uint64_t model_change(struct model_site *site, volatile void *place, size_t bytes, uint64_t and, uint64_t or);
void model_fence_site(struct model_site *site);
void model_fence(memory_order order);
void *model_copy(void *to, const void *from, size_t bytes);

#ifndef MODEL_ITSELF

#define MODEL_SITE(kind_, order_)                                                                                      \
    ({                                                                                                                 \
        static struct model_site site_;                                                                                \
        site_.function = __func__;                                                                                     \
        site_.line = __LINE__;                                                                                         \
        site_.kind = (kind_);                                                                                          \
        site_.order = (order_);                                                                                        \
        &site_;                                                                                                        \
    })
#define MODEL_TYPE(place) __typeof__((void)0, *(place))
/* The callers that have no use for it are not warned. */
#define MODEL_CHANGED(place, was)                                                                                      \
    ({                                                                                                                 \
        MODEL_TYPE(place) was_ = (MODEL_TYPE(place))(was);                                                             \
        was_;                                                                                                          \
    })

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and_explicit
#undef atomic_thread_fence
#define atomic_load_explicit(place, order)                                                                             \
    ((MODEL_TYPE(place))model_load(MODEL_SITE(MODEL_LOAD, order), place, sizeof *(place)))
#define atomic_store_explicit(place, value, order)                                                                     \
    model_store(MODEL_SITE(MODEL_STORE, order), place, sizeof *(place), value)
#define atomic_fetch_or_explicit(place, value, order)                                                                  \
    MODEL_CHANGED(place, model_change(MODEL_SITE(MODEL_CHANGE, order), place, sizeof *(place), UINT64_MAX, value))
#define atomic_fetch_and_explicit(place, value, order)                                                                 \
    MODEL_CHANGED(place, model_change(MODEL_SITE(MODEL_CHANGE, order), place, sizeof *(place), value, 0))
#define atomic_thread_fence(order) model_fence(order)

#include "../ordering.h"
/* A fence is a site where it is asked for, not where it is defined. */
#define ordering_full_fence() (model_fence_site(MODEL_SITE(MODEL_FENCE, memory_order_seq_cst)), ordering_full_fence())

#define memcpy(to, from, bytes) model_copy(to, from, bytes)

#endif
#endif
