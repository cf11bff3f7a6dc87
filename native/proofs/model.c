/* The machine: what each step does to memory and to what its thread has seen. What it models stands in model.h. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>

/* Accesses of 8 bytes in one run, by the clock of each thread. */
struct cell {
    uint64_t run;
    uint16_t reads[MODEL_MAX_THREADS], writes[MODEL_MAX_THREADS];
    uint16_t atomic_reads[MODEL_MAX_THREADS], atomic_writes[MODEL_MAX_THREADS];
};

struct thread machine_threads[MODEL_MAX_THREADS];
struct thread *machine_current;

static struct model_mutant mutant;
static struct model_site *sites;
static struct model_site *fence_site;
static struct place places[MAX_PLACES];
static unsigned n_places;
static struct view fenced; /* what all full fences so far had seen */
static uint64_t run;

static const uint8_t *watched;
static size_t watched_bytes;
static struct cell *cells;

static void join(uint16_t *to, const uint16_t *from, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (to[i] < from[i])
            to[i] = from[i];
}

static void learn(struct view *view, const struct view *other)
{
    join(view->seen, other->seen, n_places);
    join(view->clock, other->clock, MODEL_MAX_THREADS);
}

static uint64_t get(const volatile void *address, size_t bytes)
{
    return bytes == 8 ? *(const volatile uint64_t *)address : *(const volatile uint32_t *)address;
}

static void put(volatile void *address, size_t bytes, uint64_t value)
{
    if (bytes == 8)
        *(volatile uint64_t *)address = value;
    else
        *(volatile uint32_t *)address = (uint32_t)value;
}

_Noreturn void machine_is_too_small(const char *what)
{
    fprintf(stderr, "the model has too few %s\n", what);
    exit(EXIT_FAILURE);
}

static void register_site(struct model_site *site)
{
    struct model_site **at = &sites;

    while (*at && *at != site) {
        int order = strcmp((*at)->function, site->function);

        if (order > 0 || (order == 0 && (*at)->line > site->line))
            break;
        at = &(*at)->next;
    }
    if (*at == site)
        return;
    site->next = *at;
    *at = site;
}

static enum model_weakness weakness_of(struct model_site *site)
{
    if (!mutant.site)
        register_site(site);
    return mutant.site == site ? mutant.weakness : MODEL_SOUND;
}

struct model_site *model_sites(void)
{
    return sites;
}

bool model_applies(const struct model_site *site, enum model_weakness weakness)
{
    switch (weakness) {
    case MODEL_DROPPED:
        return site->kind == MODEL_STORE || site->kind == MODEL_FENCE;
    case MODEL_RELAXED:
        return site->kind != MODEL_FENCE && site->order != memory_order_relaxed;
    case MODEL_SPLIT:
        return site->kind == MODEL_CHANGE;
    default:
        return false;
    }
}

/* --- races --- */

void model_watch(const void *memory, size_t bytes)
{
    watched = memory;
    watched_bytes = bytes;
    free(cells);
    cells = calloc(bytes / 8, sizeof *cells);
    if (!cells)
        machine_is_too_small("bytes");
}

static void check_ordered(const uint16_t *clocks)
{
    for (unsigned t = 0; t < MODEL_MAX_THREADS; t++)
        if (clocks[t] > machine_current->now.clock[t])
            model_fail("a race on bytes that are not atomic");
}

static void access(const volatile void *address, bool writes, bool atomic)
{
    size_t offset = (size_t)((const volatile uint8_t *)address - (const volatile uint8_t *)watched);
    unsigned me = (unsigned)(machine_current - machine_threads);
    struct cell *cell;

    if (offset >= watched_bytes)
        return;
    cell = &cells[offset / 8];
    if (cell->run != run) {
        memset(cell, 0, sizeof *cell);
        cell->run = run;
    }
    check_ordered(cell->writes);
    if (writes)
        check_ordered(cell->reads);
    if (!atomic)
        check_ordered(cell->atomic_writes);
    if (!atomic && writes)
        check_ordered(cell->atomic_reads);
    if (atomic)
        (writes ? cell->atomic_writes : cell->atomic_reads)[me] = machine_current->now.clock[me];
    else
        (writes ? cell->writes : cell->reads)[me] = machine_current->now.clock[me];
}

void *model_copy(void *to, const void *from, size_t bytes)
{
    if (machine_current) {
        for (size_t i = 0; i < bytes; i++) {
            access((const uint8_t *)from + i, false, false);
            access((uint8_t *)to + i, true, false);
        }
    }
    return memcpy(to, from, bytes);
}

/* --- steps --- */

static unsigned place_of(volatile void *address, size_t bytes)
{
    struct place *place;

    for (unsigned i = 0; i < n_places; i++)
        if (places[i].address == address)
            return i;
    if (n_places == MAX_PLACES)
        machine_is_too_small("places");
    place = &places[n_places];
    place->address = address;
    place->n_values = 1;
    place->values[0] = (struct value){.bits = get(address, bytes)};
    return n_places++;
}

static struct value *newest(unsigned place)
{
    return &places[place].values[places[place].n_values - 1];
}

static void add_value(const struct step *step, uint64_t bits, const struct view *also)
{
    struct thread *thread = machine_current;
    struct place *place = &places[step->place];
    struct value *value = &place->values[place->n_values];

    if (place->n_values == MAX_VALUES)
        machine_is_too_small("values");
    thread->now.seen[step->place] = (uint16_t)place->n_values++;
    value->bits = bits;
    value->view = step->release ? thread->now : thread->released;
    if (also)
        learn(&value->view, also);
    put(step->address, step->bytes, bits);
    access(step->address, true, true);
}

static uint64_t see(const struct step *step, unsigned number)
{
    const struct value *value = &places[step->place].values[number];

    machine_current->now.seen[step->place] = (uint16_t)number;
    learn(&machine_current->to_acquire, &value->view);
    if (step->acquire)
        learn(&machine_current->now, &value->view);
    access(step->address, false, true);
    return value->bits;
}

static uint64_t change(const struct step *step, uint64_t (*what)(const struct step *, uint64_t))
{
    unsigned last = places[step->place].n_values - 1;
    struct view carried = places[step->place].values[last].view; /* a release goes on through the changes behind it */
    uint64_t was = see(step, last);

    add_value(step, what(step, was), &carried);
    return was;
}

static uint64_t masked(const struct step *step, uint64_t was)
{
    return (was & step->and) | step->value;
}

static uint64_t one_more(const struct step *step, uint64_t was)
{
    (void)step;
    return was + 1;
}

static uint64_t none(const struct step *step, uint64_t was)
{
    (void)step;
    (void)was;
    return 0;
}

static void full_fence(void)
{
    machine_current->now = machine_current->to_acquire;
    /* Not the clocks: that fences are in order makes no access that is not atomic ordered. */
    join(machine_current->now.seen, fenced.seen, n_places);
    join(fenced.seen, machine_current->now.seen, n_places);
    machine_current->released = machine_current->now;
}

static uint64_t perform(const struct step *step)
{
    switch (step->kind) {
    case LOAD:
    case AWAIT:
        return see(step, places[step->place].n_values - 1 - machine_current->choice);
    case STORE:
        add_value(step, step->value, NULL);
        return 0;
    case CHANGE:
        return change(step, masked);
    case RING:
        return change(step, one_more);
    case WAIT:
        return change(step, none);
    case FENCE:
        full_fence();
    }
    return 0;
}

/* Let the explorer choose who is next; when it is this thread's turn, do it. */
static uint64_t take(struct step step)
{
    struct thread *thread = machine_current, *next;
    uint64_t found;

    if (step.kind != FENCE)
        step.place = place_of(step.address, step.bytes);
    thread->step = step;
    next = explorer_next();
    if (next != thread)
        explorer_switch(thread, next);
    found = perform(&thread->step);
    thread->now.clock[thread - machine_threads]++;
    learn(&thread->to_acquire, &thread->now);
    return found;
}

void model_fail(const char *why)
{
    explorer_fail(machine_current, why);
}

static bool has_release(memory_order order)
{
    return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static bool has_acquire(memory_order order)
{
    return order == memory_order_acquire || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static struct step step_of(const struct model_site *site, enum step_kind kind, volatile void *address, size_t bytes)
{
    bool relaxed = mutant.site == site && mutant.weakness == MODEL_RELAXED;

    return (struct step){
        .kind = kind,
        .address = address,
        .bytes = bytes,
        .acquire = kind != STORE && !relaxed && has_acquire(site->order),
        .release = kind != LOAD && !relaxed && has_release(site->order),
    };
}

uint64_t model_load(struct model_site *site, const volatile void *place, size_t bytes)
{
    if (!machine_current)
        return get(place, bytes);
    weakness_of(site);
    return take(step_of(site, LOAD, (volatile void *)(uintptr_t)place, bytes));
}

void model_store(struct model_site *site, volatile void *place, size_t bytes, uint64_t value)
{
    struct step step = step_of(site, STORE, place, bytes);

    step.value = value;
    if (!machine_current)
        put(place, bytes, value);
    else if (weakness_of(site) != MODEL_DROPPED)
        take(step);
}

uint64_t model_change(struct model_site *site, volatile void *place, size_t bytes, uint64_t and, uint64_t or)
{
    struct step step = step_of(site, CHANGE, place, bytes), half;
    uint64_t was;

    step.and = and;
    step.value = or;
    if (machine_current && weakness_of(site) != MODEL_SPLIT)
        return take(step);
    if (!machine_current) {
        was = get(place, bytes);
        put(place, bytes, masked(&step, was));
        return was;
    }
    half = step_of(site, LOAD, place, bytes);
    was = take(half);
    half = step_of(site, STORE, place, bytes);
    half.value = masked(&step, was);
    take(half);
    return was;
}

void model_fence_site(struct model_site *site)
{
    fence_site = site;
}

void model_fence(memory_order order)
{
    (void)order;
    if (machine_current && weakness_of(fence_site) != MODEL_DROPPED)
        take((struct step){.kind = FENCE});
}

void model_ring(_Atomic uint32_t *bell)
{
    take((struct step){.kind = RING, .address = bell, .bytes = sizeof *bell, .release = true});
}

void model_wait(_Atomic uint32_t *bell)
{
    take((struct step){.kind = WAIT, .address = bell, .bytes = sizeof *bell, .acquire = true});
}

void model_await_change(const volatile void *place, size_t bytes)
{
    take((struct step){.kind = AWAIT, .address = (volatile void *)(uintptr_t)place, .bytes = bytes});
}

unsigned machine_choices(const struct thread *thread)
{
    const struct step *step = &thread->step;

    switch (step->kind) {
    case LOAD:
        return places[step->place].n_values - thread->now.seen[step->place];
    case AWAIT:
        return places[step->place].n_values - 1 - thread->now.seen[step->place];
    case WAIT:
        return newest(step->place)->bits > 0;
    default:
        return 1;
    }
}

bool machine_independent(const struct step *a, const struct step *b)
{
    if (a->kind == FENCE || b->kind == FENCE)
        return a->kind != b->kind;
    return a->place != b->place || ((a->kind == LOAD || a->kind == AWAIT) && (b->kind == LOAD || b->kind == AWAIT));
}

void machine_clear(struct model_mutant with)
{
    mutant = with;
    run++;
    n_places = 0;
    memset(&fenced, 0, sizeof fenced);
}
