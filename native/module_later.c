/*
 * Records that are claimed now and seen later: of large bodies that the kernel copies. Documented in
 * agentd/_native.pyi.
 *
 * A chain of the engine's stores the byte that commits one, and nobody tells the channel. So it looks for itself,
 * before it needs the answer: a record that was read, or whose kind is there, is committed.
 */
#include "module_later.h"

#include "module_doorbells.h"

enum { MAX_LATERS = 64 };

struct later {
    struct ring_later record;
    uint64_t position; /* as claim_later() gave it */
};

static bool is_committed(const struct channel *self, const struct later *later)
{
    /* In this order: once it is read, another record may stand there. */
    return pair_is_delivered(&self->pair, later->record.position) ||
           ring_is_committed(&self->pair.sender.ring, &later->record);
}

static void forget(struct channel *self, uint32_t i)
{
    self->laters[i] = self->laters[--self->n_laters];
}

static void forget_committed(struct channel *self)
{
    for (uint32_t i = self->n_laters; i-- > 0;)
        if (is_committed(self, &self->laters[i]))
            forget(self, i);
}

/* Room for one more: 0, -EAGAIN or -ENOMEM. */
static int make_room(struct channel *self)
{
    if (!self->laters)
        self->laters = PyMem_Calloc(MAX_LATERS, sizeof *self->laters);
    if (!self->laters)
        return -ENOMEM;
    if (self->n_laters == MAX_LATERS && !self->closed && pair_is_own(&self->pair))
        forget_committed(self);
    return self->n_laters == MAX_LATERS ? -EAGAIN : 0;
}

PyObject *channel_claim_later(struct channel *self, PyObject *args)
{
    int error = make_room(self);
    struct ring_later record;
    PyObject *position;
    uint64_t place;

    if (error == -ENOMEM)
        return PyErr_NoMemory();
    if (error)
        return channel_refused(self, error, 0);
    position = channel_write_asked(self, args, &record);
    if (!position)
        return NULL;
    self->laters[self->n_laters++] = (struct later){.record = record, .position = PyLong_AsUnsignedLongLong(position)};
    place = (uint64_t)(self->pair.sender.ring.data - self->pair.memory) +
            (record.position & self->pair.sender.ring.mask) + RING_KIND_PLACE;
    return Py_BuildValue("NKi", position, (unsigned long long)place, (int)record.kind);
}

/* Whether it was for this to commit it. */
static bool commit(struct channel *self, uint64_t position)
{
    for (uint32_t i = 0; i < self->n_laters; i++) {
        struct later later = self->laters[i];

        if (later.position != position)
            continue;
        forget(self, i);
        if (is_committed(self, &later))
            return false;
        ring_commit_now(&self->pair.sender.ring, &later.record);
        return true;
    }
    return false;
}

PyObject *channel_commit_now(struct channel *self, PyObject *position)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(position);
    int error = self->doorbells ? doorbells_check(self->doorbells) : 0;
    bool was_for_this;

    if (value == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    if (self->closed)
        Py_RETURN_FALSE;
    if (!check_own(self->pair.forks))
        return NULL;
    if (error)
        return raise_engine(error);
    was_for_this = commit(self, value);
    channel_announce(self, wall_ns()); /* the chain may have broken at its doorbell */
    return PyBool_FromLong(was_for_this);
}

PyObject *channel_get_later(struct channel *self, void *Py_UNUSED(unused))
{
    if (!self->closed && pair_is_own(&self->pair))
        forget_committed(self);
    return PyLong_FromUnsignedLong(self->n_laters);
}
