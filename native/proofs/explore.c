/* The explorer: a depth-first search through all runs, each of which is begun anew. What it is for stands in model.h.
 */
#include "machine.h"

#include <stdlib.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)0)
#endif

enum { MAX_STEPS = 400, STACK_BYTES = 128 << 10 };

/* A step that was taken, and what else is to be tried in its stead. */
struct node {
    uint8_t runnable, asleep;
    uint8_t thread;
    unsigned choice, n_choices;
};

static const struct model_scenario *scenario;
static struct model_result result;
static ucontext_t explorer;
static struct node path[MAX_STEPS];
static unsigned path_length, depth;
static unsigned asleep; /* threads whose next step was tried before, and all that was done since is independent of it */

void explorer_switch(struct thread *from, struct thread *to)
{
    machine_current = to;
    swapcontext(from ? &from->context : &explorer, to ? &to->context : &explorer);
}

void explorer_fail(struct thread *from, const char *why)
{
    result.failure = why;
    explorer_switch(from, NULL);
    abort();
}

/* All have to come to their first step before any is taken. */
static bool starting;

static void begin(void)
{
    struct thread *thread = machine_current;

    thread->run();
    thread->ended = true;
    explorer_switch(thread, explorer_next());
}

static void start(unsigned t)
{
    struct thread *thread = &machine_threads[t];
    void *stack = thread->stack ? thread->stack : malloc(STACK_BYTES);

    if (!stack)
        machine_is_too_small("bytes");
    *thread = (struct thread){.stack = stack, .run = scenario->threads[t]};
    thread->now.clock[t] = 1;
    thread->to_acquire.clock[t] = 1;
    ASAN_UNPOISON_MEMORY_REGION(stack, STACK_BYTES); /* a run that failed has left its frames */
    getcontext(&thread->context);
    thread->context.uc_stack.ss_sp = stack;
    thread->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&thread->context, begin, 0);
    explorer_switch(NULL, thread);
}

static unsigned lowest(unsigned set)
{
    return (unsigned)__builtin_ctz(set);
}

/* What may run now; all have ended when `*left` is none. */
static unsigned runnable_threads(unsigned *left)
{
    unsigned runnable = 0;

    *left = 0;
    for (unsigned t = 0; t < scenario->n_threads; t++) {
        if (machine_threads[t].ended)
            continue;
        *left |= 1u << t;
        if (machine_choices(&machine_threads[t]))
            runnable |= 1u << t;
    }
    return runnable;
}

/* Along the path as far as it goes, and by the first choice from there. */
struct thread *explorer_next(void)
{
    unsigned left, runnable, still_asleep = 0;
    struct node *node = &path[depth];

    if (starting)
        return NULL;
    runnable = runnable_threads(&left);
    if (!runnable) {
        result.runs++;
        if (left)
            result.failure = "asleep for ever";
        return NULL;
    }
    if (depth == MAX_STEPS) {
        result.failure = "it does not end";
        return NULL;
    }
    if (depth == path_length) {
        if (!(runnable & ~asleep)) {
            result.cut_short++;
            return NULL;
        }
        *node = (struct node){
            .runnable = (uint8_t)runnable, .asleep = (uint8_t)asleep, .thread = (uint8_t)lowest(runnable & ~asleep)};
        path_length++;
    }
    if (!node->n_choices)
        node->n_choices = machine_choices(&machine_threads[node->thread]);
    for (unsigned t = 0; t < scenario->n_threads; t++)
        if (node->asleep & 1u << t &&
            machine_independent(&machine_threads[t].step, &machine_threads[node->thread].step))
            still_asleep |= 1u << t;
    asleep = still_asleep;
    machine_threads[node->thread].choice = node->choice;
    result.steps++;
    depth++;
    return &machine_threads[node->thread];
}

static void run_once(struct model_mutant mutant)
{
    uint64_t runs = result.runs;
    struct thread *first;

    machine_clear(mutant);
    scenario->set_up();
    depth = asleep = 0;
    starting = true;
    for (unsigned t = 0; t < scenario->n_threads; t++)
        start(t);
    starting = false;
    first = result.failure ? NULL : explorer_next();
    if (first)
        explorer_switch(NULL, first);
    if (result.runs != runs && !result.failure)
        result.failure = scenario->check();
}

/* To the next path that was not tried. False when there is none. */
static bool next_path(void)
{
    for (; path_length; path_length--) {
        struct node *node = &path[path_length - 1];
        unsigned others;

        if (++node->choice < node->n_choices)
            return true;
        node->asleep |= (uint8_t)(1u << node->thread);
        others = node->runnable & ~(unsigned)node->asleep;
        if (others) {
            node->thread = (uint8_t)lowest(others);
            node->choice = node->n_choices = 0;
            return true;
        }
    }
    return false;
}

struct model_result model_explore(const struct model_scenario *explored, struct model_mutant with)
{
    scenario = explored;
    result = (struct model_result){0};
    path_length = 0;
    do
        run_once(with);
    while (!result.failure && next_path());
    return result;
}
