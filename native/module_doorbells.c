/*
 * Doorbells: what the channels of one sender ring through. Documented in agentd/_native.pyi.
 *
 * Outside a burst a channel publishes each record by itself. In a burst it puts itself on the list, and the flush
 * publishes each channel once, a full fence and a look at its gate, and rings all whose receivers sleep together.
 *
 * What the choice between write(2) and the engine rests on, measured on Linux 6.18 against sleepers on another core:
 * one doorbell through the engine costs its sender 1.11 times what write(2) does, 8 cost 1.04 times, 32 as much; so one
 * alone is rung by write(2). A thread of the kernel rings for nothing while it is awake; to wake it costs as much as to
 * ring, and its receivers wake later.
 *
 * The list points into channels and owns none: each takes itself out when it closes.
 */
#include "module_doorbells.h"

#include <limits.h>

#include "uring.h"

/* A burst is published after so many records, or with the first that comes this much later than its first. */
#define BURST_RECORDS 64u
#define BURST_NS 1000000u

enum flush_reason { FLUSH_RECORDS, FLUSH_TIME, FLUSH_END, FLUSH_FULL, FLUSH_ASKED, N_FLUSH_REASONS };

struct doorbells {
    PyObject_HEAD PyObject *engine; /* or NULL */
    struct uring *uring;            /* the engine's, or NULL */
    struct bell *waiting;
    struct bell **last; /* where the next one is put */
    uint32_t forks;
    uint32_t depth; /* of bursts in bursts */
    uint32_t n_records;
    uint32_t sqpoll_burst;
    uint64_t began_ns; /* when the first of n_records was written */
    uint64_t by_write, by_engine, submissions, bursts;
    uint64_t flushes[N_FLUSH_REASONS];
};

int doorbells_check(const struct doorbells *self)
{
    int error = self->uring ? uring_check(self->uring) : 0;

    if (self->forks != pair_forks)
        return -ESTALE;
    return error == -EEXIST ? error : 0; /* without an engine, or with one that is closed or broken, by write(2) */
}

static bool is_for_engine(const struct doorbells *self, uint32_t n, bool in_burst)
{
    if (!self->uring)
        return false;
    if (uring_has_thread(self->uring))
        return n >= self->sqpoll_burst || !uring_sleeps(self->uring);
    return in_burst;
}

static void ring(struct doorbells *self, const int *fds, uint32_t n, bool in_burst)
{
    uint32_t rang = n > 0 && is_for_engine(self, n, in_burst) ? uring_ring(self->uring, fds, n) : 0;

    self->by_engine += rang;
    self->submissions += rang > 0;
    for (; rang < n; rang++) {
        ring_doorbell(fds[rang]);
        self->by_write++;
    }
}

bool doorbells_forget(struct doorbells *self, struct bell *bell)
{
    if (!bell->at)
        return false;
    *bell->at = bell->next;
    if (bell->next)
        bell->next->at = bell->at;
    else
        self->last = bell->at;
    bell->at = NULL;
    return true;
}

static void flush(struct doorbells *self, enum flush_reason reason)
{
    int fds[BURST_RECORDS];
    uint32_t n = 0;

    if (!self->n_records)
        return;
    self->flushes[reason]++;
    self->n_records = 0;
    while (self->waiting) {
        struct bell *bell = self->waiting;

        doorbells_forget(self, bell);
        if (pair_publish(bell->pair))
            fds[n++] = *bell->fd; /* there are no more channels than records */
    }
    ring(self, fds, n, true);
}

void doorbells_sent(struct doorbells *self, struct bell *bell, uint64_t now_ns)
{
    if (!self->depth) {
        if (pair_publish(bell->pair))
            ring(self, bell->fd, 1, false);
        return;
    }
    if (!bell->at) {
        bell->next = NULL;
        bell->at = self->last;
        *self->last = bell;
        self->last = &bell->next;
    }
    if (self->n_records++ == 0)
        self->began_ns = now_ns;
    if (self->n_records >= BURST_RECORDS)
        flush(self, FLUSH_RECORDS);
    else if (now_ns - self->began_ns >= BURST_NS) /* also when the clock was set back */
        flush(self, FLUSH_TIME);
}

void doorbells_full(struct doorbells *self)
{
    flush(self, FLUSH_FULL);
}

bool doorbells_are_rung(struct doorbells *self)
{
    return !self->uring || uring_await_taken(self->uring);
}

static PyObject *doorbells_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    struct module_state *state = PyModule_GetState(PyType_GetModuleByDef(type, &native_module));
    /* Not const: the parser takes plain pointers. */
    static char engine_name[] = "engine", burst_name[] = "sqpoll_burst";
    static char *names[] = {engine_name, burst_name, NULL};
    unsigned sqpoll_burst = 8;
    struct doorbells *self;
    PyObject *engine;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|I:Doorbells", names, &engine, &sqpoll_burst))
        return NULL;
    if (engine != Py_None && !PyObject_TypeCheck(engine, state->engine))
        return PyErr_Format(PyExc_TypeError, "Doorbells() takes an Engine or None, not %R", engine);
    self = (struct doorbells *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    pair_watch_forks();
    self->forks = pair_forks;
    self->last = &self->waiting;
    self->sqpoll_burst = sqpoll_burst;
    if (engine != Py_None) {
        self->engine = Py_NewRef(engine);
        self->uring = engine_uring(engine);
    }
    return (PyObject *)self;
}

/* Every channel that waits holds a reference: here none does. */
static void doorbells_dealloc(struct doorbells *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_CLEAR(self->engine);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *doorbells_begin(struct doorbells *self, PyObject *Py_UNUSED(unused))
{
    int error = doorbells_check(self);

    if (error)
        return raise_engine(error);
    if (self->depth == UINT32_MAX)
        return PyErr_Format(PyExc_OverflowError, "bursts too deep in each other");
    self->bursts += self->depth++ == 0;
    Py_RETURN_NONE;
}

static PyObject *doorbells_end(struct doorbells *self, PyObject *Py_UNUSED(unused))
{
    int error = doorbells_check(self);

    if (error)
        return raise_engine(error);
    if (!self->depth)
        return PyErr_Format(PyExc_ValueError, "no burst has begun");
    if (--self->depth == 0)
        flush(self, FLUSH_END);
    Py_RETURN_NONE;
}

static PyObject *doorbells_flush(struct doorbells *self, PyObject *Py_UNUSED(unused))
{
    int error = doorbells_check(self);

    if (error)
        return raise_engine(error);
    flush(self, FLUSH_ASKED);
    Py_RETURN_NONE;
}

static PyObject *doorbells_counts(struct doorbells *self, PyObject *Py_UNUSED(unused))
{
    return Py_BuildValue(
        "{sKsKsKsKs{sKsKsKsKsK}}", "by_write", self->by_write, "by_engine", self->by_engine, "submissions",
        self->submissions, "bursts", self->bursts, "flushes", "records", self->flushes[FLUSH_RECORDS], "time",
        self->flushes[FLUSH_TIME], "end", self->flushes[FLUSH_END], "full", self->flushes[FLUSH_FULL], "asked",
        self->flushes[FLUSH_ASKED]);
}

static PyMethodDef doorbells_methods[] = {
    {"begin", (PyCFunction)doorbells_begin, METH_NOARGS, PyDoc_STR("What is sent is gathered from now on.")},
    {"end", (PyCFunction)doorbells_end, METH_NOARGS, PyDoc_STR("And leaves.")},
    {"flush", (PyCFunction)doorbells_flush, METH_NOARGS, PyDoc_STR("What was gathered so far leaves.")},
    {"counts", (PyCFunction)doorbells_counts, METH_NOARGS, PyDoc_STR("What was rung, and how.")},
    {NULL, NULL, 0, NULL},
};

/* Not const: a slot is a plain pointer. */
static char doorbells_doc[] = "What a sender's channels ring through.";

static PyType_Slot doorbells_slots[] = {
    {Py_tp_new, doorbells_new},
    {Py_tp_dealloc, doorbells_dealloc},
    {Py_tp_methods, doorbells_methods},
    {Py_tp_doc, doorbells_doc},
    {0, NULL},
};

static PyType_Spec doorbells_spec = {
    .name = "agentd._native.Doorbells",
    .basicsize = sizeof(struct doorbells),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = doorbells_slots,
};

int add_doorbells(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    state->doorbells = add_type(module, &doorbells_spec);
    return state->doorbells ? 0 : -1;
}
