/* Between the machine of model.h and its explorer. SPDX-License-Identifier: MIT */
#ifndef AGENTD_MACHINE_H
#define AGENTD_MACHINE_H

#define MODEL_ITSELF
#include "model.h"

#include <ucontext.h>

enum { MAX_PLACES = 40, MAX_VALUES = 48 };

/* How much a thread has seen of each place and, for races, of what each thread did. */
struct view {
    uint16_t seen[MAX_PLACES];
    uint16_t clock[MODEL_MAX_THREADS];
};

struct value {
    uint64_t bits;
    struct view view; /* what is learnt by who acquires it */
};

struct place {
    const volatile void *address;
    unsigned n_values;
    struct value values[MAX_VALUES];
};

/* What a thread does next. */
enum step_kind { LOAD, STORE, CHANGE, FENCE, RING, WAIT, AWAIT };

struct step {
    /* What a thread does next. */
    enum step_kind kind;
    unsigned place;
    size_t bytes;
    volatile void *address;
    uint64_t value, and;
    bool acquire, release;
};

struct thread {
    ucontext_t context;
    void *stack;
    void (*run)(void);
    bool ended;
    struct step step; /* the next one */
    unsigned choice;  /* of the values that a load may return: 0 is the newest */
    /* Seen; would be seen after an acquiring fence; was seen at the last releasing fence. */
    struct view now, to_acquire, released;
};

extern struct thread machine_threads[MODEL_MAX_THREADS];
extern struct thread *machine_current; /* whose step it is; NULL: nothing is a step */

_Noreturn void machine_is_too_small(const char *what);
/* Before each run: all values and all that was seen are forgotten. */
void machine_clear(struct model_mutant mutant);
/* How many values the thread's next step may return; 0 while it can't be taken. */
unsigned machine_choices(const struct thread *thread);
/* Whether the order of the two steps makes no difference. */
bool machine_independent(const struct step *a, const struct step *b);

/* The explorer's: the thread whose step is next, NULL when the run is over; and how to get there. */
struct thread *explorer_next(void);
void explorer_switch(struct thread *from, struct thread *to);
_Noreturn void explorer_fail(struct thread *from, const char *why);

#endif
