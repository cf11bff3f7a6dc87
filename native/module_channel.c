/* Channel: the sender's end of a pair, as Python sees it. What each method promises stands in agentd/_native.pyi. */
#include "module_later.h"
#include "module_pool.h"

#include <unistd.h>

/* With a pool, no body takes more of the ring than that part, nor is copied out of it that is larger: from there on it
 * pays to read it where it lies. */
enum { LARGEST_PART = 16, LARGEST_BYTES = 16 << 10 };

static int open_pool(struct channel *self)
{
    self->pool = PyMem_Malloc(sizeof *self->pool);
    if (!self->pool) {
        PyErr_NoMemory();
        return -1;
    }
    pool_open(self->pool, &self->pair); /* can't fail: there is one */
    self->max_inline_bytes = (Py_ssize_t)(self->pair.shape.ring_capacity / LARGEST_PART);
    if (self->max_inline_bytes > LARGEST_BYTES)
        self->max_inline_bytes = LARGEST_BYTES;
    return 0;
}

static PyObject *channel_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    struct channel *self = (struct channel *)type->tp_alloc(type, 0);
    PyObject *more;

    if (!self)
        return NULL;
    self->doorbell_fd = -1;
    self->bell = (struct bell){.pair = &self->pair, .fd = &self->doorbell_fd};
    self->closed = 1;
    if (attach_from_args(args, &self->pair, PAIR_SENDER, &self->doorbell_fd, &more) < 0)
        goto failed;
    self->closed = 0;
    self->max_inline_bytes =
        (Py_ssize_t)(ring_max_size(self->pair.shape.ring_capacity - 1) - sizeof(struct record_header));
    if (self->pair.pool_offset && open_pool(self) < 0) {
        Py_DECREF(more);
        goto failed;
    }
    if (!PyArg_ParseTuple(more, "OO;encode, refuse", &self->encode, &self->refuse)) {
        self->encode = self->refuse = NULL;
        Py_DECREF(more);
        goto failed;
    }
    Py_INCREF(self->encode);
    Py_INCREF(self->refuse);
    Py_DECREF(more);
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static PyObject *verdict_tuple(const uint8_t *bytes, uint32_t size)
{
    struct record_verdict verdict;

    memcpy(&verdict, bytes, sizeof verdict);
    return Py_BuildValue(
        "Kiiy#", (unsigned long long)verdict.position, verdict.state, verdict.content, bytes + sizeof verdict,
        (Py_ssize_t)(size - sizeof verdict));
}

static PyObject *channel_verdicts(struct channel *self, PyObject *Py_UNUSED(unused))
{
    PyObject *verdicts = PyList_New(0);
    const uint8_t *bytes;
    uint32_t size;
    int found = 0;

    if (!verdicts || self->closed || !pair_is_own(&self->pair))
        return verdicts;
    while ((found = ring_peek(&self->pair.sender.verdicts, &bytes, &size)) == 1) {
        PyObject *verdict;

        if (size < sizeof(struct record_verdict)) {
            found = -EPROTO;
            break;
        }
        verdict = verdict_tuple(bytes, size);
        if (!verdict || PyList_Append(verdicts, verdict) < 0) {
            Py_XDECREF(verdict);
            Py_DECREF(verdicts);
            return NULL;
        }
        Py_DECREF(verdict);
        ring_next(&self->pair.sender.verdicts, size);
    }
    ring_release(&self->pair.sender.verdicts);
    if (found < 0)
        self->ended = 1; /* a receiver that writes such things is none */
    return verdicts;
}

static PyObject *channel_is_delivered(struct channel *self, PyObject *position)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(position);

    if (value == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    if (self->closed)
        return PyBool_FromLong((int64_t)(self->read_to - value) > 0);
    if (!check_own(self->pair.forks))
        return NULL;
    return PyBool_FromLong(pair_is_delivered(&self->pair, value));
}

static PyObject *channel_ring_by(struct channel *self, PyObject *doorbells)
{
    struct module_state *state = PyModule_GetState(PyType_GetModuleByDef(Py_TYPE(self), &native_module));
    struct doorbells *before = self->doorbells;

    if (doorbells != Py_None && !PyObject_TypeCheck(doorbells, state->doorbells))
        return PyErr_Format(PyExc_TypeError, "ring_by() takes Doorbells or None, not %R", doorbells);
    self->doorbells = NULL;
    if (before && doorbells_forget(before, &self->bell))
        channel_announce(self, 0);
    if (before)
        self->doorbell_is_lent |= !doorbells_are_rung(before);
    self->doorbells = doorbells == Py_None ? NULL : (struct doorbells *)Py_NewRef(doorbells);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *channel_arm(struct channel *self, PyObject *Py_UNUSED(unused))
{
    if (!self->closed && pair_is_own(&self->pair))
        pair_arm(&self->pair);
    Py_RETURN_NONE;
}

static PyObject *channel_disarm(struct channel *self, PyObject *Py_UNUSED(unused))
{
    if (!self->closed && pair_is_own(&self->pair))
        pair_disarm(&self->pair);
    Py_RETURN_NONE;
}

static PyObject *channel_end(struct channel *self, PyObject *Py_UNUSED(unused))
{
    self->ended = 1;
    Py_RETURN_NONE;
}

static PyObject *channel_lock(struct channel *self, PyObject *Py_UNUSED(unused))
{
    int error = self->closed ? -ESHUTDOWN : pair_lock(&self->pair);

    return error ? raise_errno(error) : Py_NewRef(Py_None);
}

void channel_pin(struct channel *self)
{
    self->n_pins++;
}

void channel_unpin(struct channel *self)
{
    if (--self->n_pins == 0 && self->closed)
        pair_detach(&self->pair);
}

static PyObject *channel_close(struct channel *self, PyObject *Py_UNUSED(unused))
{
    if (self->closed)
        Py_RETURN_NONE;
    self->closed = 1;
    if (pair_is_own(&self->pair)) {
        pair_set_gate(&self->pair, PAIR_CLOSED, true);
        /* What a burst has not published is published by this. */
        if (pair_publish(&self->pair))
            ring_doorbell(self->doorbell_fd);
        self->read_to = atomic_load_explicit(&self->pair.receiver_page->position, memory_order_acquire);
    }
    if (self->doorbells) {
        doorbells_forget(self->doorbells, &self->bell);
        self->doorbell_is_lent |= !doorbells_are_rung(self->doorbells);
    }
    if (!self->n_pins)
        pair_detach(&self->pair);
    if (!self->doorbell_is_lent)
        close(self->doorbell_fd);
    self->doorbell_fd = -1;
    Py_RETURN_NONE;
}

static void channel_dealloc(struct channel *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_XDECREF(channel_close(self, NULL));
    PyMem_Free(self->pool);
    Py_CLEAR(self->large);
    Py_CLEAR(self->grown);
    Py_CLEAR(self->encode);
    Py_CLEAR(self->refuse);
    Py_CLEAR(self->doorbells);
    PyMem_Free(self->laters);
    type->tp_free(self);
    Py_DECREF(type);
}

static int channel_traverse(struct channel *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->encode);
    Py_VISIT(self->refuse);
    Py_VISIT(self->large);
    Py_VISIT(self->grown);
    return 0;
}

static int channel_clear(struct channel *self)
{
    Py_CLEAR(self->large);
    Py_CLEAR(self->grown);
    Py_CLEAR(self->encode);
    Py_CLEAR(self->refuse);
    return 0;
}

static PyObject *get_state(struct channel *self, void *Py_UNUSED(unused))
{
    int error = channel_may_send(self);

    return PyUnicode_FromString(error == 0 ? "open" : error == -EBUSY ? "paused" : "closed");
}

/* By its own gate: it takes nothing any more, whatever else is known of it. */
static PyObject *get_left(struct channel *self, void *Py_UNUSED(unused))
{
    return PyBool_FromLong(!self->closed && pair_is_own(&self->pair) && pair_peer(&self->pair) == -ESHUTDOWN);
}

static PyObject *get_taken(struct channel *self, void *Py_UNUSED(unused))
{
    if (self->closed)
        return raise_errno(-ESHUTDOWN);
    if (!check_own(self->pair.forks))
        return NULL;
    return PyLong_FromUnsignedLongLong(atomic_load_explicit(&self->pair.receiver_page->taken, memory_order_relaxed));
}

static PyObject *get_max_body(struct channel *self, void *Py_UNUSED(unused))
{
    uint64_t pool_bytes = self->pair.shape.pool_capacity;

    return pool_bytes ? PyLong_FromUnsignedLongLong(pool_bytes) : PyLong_FromSsize_t(self->max_inline_bytes);
}

static PyMethodDef channel_methods[] = {
    {"send", (PyCFunction)channel_send, METH_O, PyDoc_STR("Write one record; its position.")},
    {"ask", (PyCFunction)channel_ask, METH_VARARGS, PyDoc_STR("Write one record with all that it can have.")},
    {"claim_later", (PyCFunction)channel_claim_later, METH_VARARGS, PyDoc_STR("As ask(), but unseen until committed.")},
    {"commit_now", (PyCFunction)channel_commit_now, METH_O, PyDoc_STR("Have it seen.")},
    {"allocate", (PyCFunction)channel_allocate, METH_O, PyDoc_STR("A block of the pool, to fill and send.")},
    {"send_block", (PyCFunction)channel_send_block, METH_VARARGS, PyDoc_STR("Write one record whose body it is.")},
    {"trim", (PyCFunction)channel_trim, METH_O, PyDoc_STR("Give memory of the pool back that nothing lies in.")},
    {"verdicts", (PyCFunction)channel_verdicts, METH_NOARGS, PyDoc_STR("What became of records since last asked.")},
    {"is_delivered", (PyCFunction)channel_is_delivered, METH_O, PyDoc_STR("Whether it was taken.")},
    {"ring_by", (PyCFunction)channel_ring_by, METH_O, PyDoc_STR("Through what it rings.")},
    {"arm", (PyCFunction)channel_arm, METH_NOARGS, PyDoc_STR("The receiver is to ring.")},
    {"disarm", (PyCFunction)channel_disarm, METH_NOARGS, PyDoc_STR("It need not.")},
    {"end", (PyCFunction)channel_end, METH_NOARGS, PyDoc_STR("The receiver is gone.")},
    {"lock", (PyCFunction)channel_lock, METH_NOARGS, PyDoc_STR("Keep its memory from being swapped out.")},
    {"close", (PyCFunction)channel_close, METH_NOARGS, PyDoc_STR("Leave the pair.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef channel_members[] = {
    {"sent", T_ULONGLONG, offsetof(struct channel, sent), READONLY, PyDoc_STR("How many records.")},
    {"doorbell_fd", T_INT, offsetof(struct channel, doorbell_fd), READONLY,
     PyDoc_STR("The receiver's; -1 once closed.")},
    {"number", T_ULONGLONG, offsetof(struct channel, pair.shape.number), READONLY, PyDoc_STR("The pair's.")},
    {"max_inline_bytes", T_PYSSIZET, offsetof(struct channel, max_inline_bytes), READONLY,
     PyDoc_STR("The largest body that rides in the ring.")},
    {"large", T_OBJECT, offsetof(struct channel, large), 0, PyDoc_STR("Sends the largest bodies, or None.")},
    {"grown", T_OBJECT, offsetof(struct channel, grown), 0,
     PyDoc_STR("Told that the pool takes more memory, or None.")},
    {"async_bytes", T_ULONGLONG, offsetof(struct channel, async_bytes), 0, PyDoc_STR("From which size on it does.")},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef channel_getset[] = {
    {"state", (getter)get_state, NULL, PyDoc_STR("open, paused or closed, as the receiver says."), NULL},
    {"left", (getter)get_left, NULL, PyDoc_STR("Whether the receiver has closed its end."), NULL},
    {"taken", (getter)get_taken, NULL, PyDoc_STR("How many records the receiver says it has taken."), NULL},
    {"later", (getter)channel_get_later, NULL, PyDoc_STR("How many are claimed and not committed."), NULL},
    {"max_body_bytes", (getter)get_max_body, NULL, PyDoc_STR("The largest body."), NULL},
    {"lent", (getter)channel_get_lent, NULL, PyDoc_STR("How many blocks the receiver has."), NULL},
    {"touched_bytes", (getter)channel_get_touched, NULL, PyDoc_STR("How much of the pool may take memory."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* Not const: a slot is a plain pointer. */
static char channel_doc[] = "The sender's end of a pair.";

static PyType_Slot channel_slots[] = {
    {Py_tp_new, channel_new},       {Py_tp_dealloc, channel_dealloc}, {Py_tp_traverse, channel_traverse},
    {Py_tp_clear, channel_clear},   {Py_tp_methods, channel_methods}, {Py_tp_members, channel_members},
    {Py_tp_getset, channel_getset}, {Py_tp_doc, channel_doc},         {0, NULL},
};

static PyType_Spec channel_spec = {
    .name = "agentd._native.Channel",
    .basicsize = sizeof(struct channel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = channel_slots,
};

int add_channel(PyObject *module)
{
    PyTypeObject *type = add_type(module, &channel_spec);

    Py_XDECREF(type);
    return type ? 0 : -1;
}
