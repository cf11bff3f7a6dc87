/* Incoming and Record: the receiver's end of a pair, and what came from it. Documented in agentd/_native.pyi. */
#include "module_pool.h"

#include <unistd.h>

int attach_from_args(PyObject *args, struct pair *pair, enum pair_end end, int *doorbell_fd, PyObject **more)
{
    PyObject *own = PyTuple_GetSlice(args, 0, 7);
    unsigned long long number, ring_bytes, verdict_bytes, pool_bytes;
    int memory_fd, lane, doorbell, error;
    struct pair_shape shape;

    if (!own)
        return -1;
    error = PyArg_ParseTuple(
        own, "iiKKKKi;memory_fd, lane, number, ring_bytes, verdict_bytes, pool_bytes, doorbell_fd", &memory_fd, &lane,
        &number, &ring_bytes, &verdict_bytes, &pool_bytes, &doorbell);
    Py_DECREF(own);
    if (!error)
        return -1;
    shape = (struct pair_shape){
        .lane = (enum pair_lane)lane,
        .number = number,
        .ring_capacity = ring_bytes,
        .verdict_capacity = verdict_bytes,
        .pool_capacity = pool_bytes,
    };
    *more = PyTuple_GetSlice(args, 7, PyTuple_GET_SIZE(args));
    if (!*more)
        return -1;
    error = pair_attach(pair, memory_fd, &shape, end);
    if (error) {
        Py_CLEAR(*more);
        raise_errno(error);
        return -1;
    }
    *doorbell_fd = doorbell;
    return 0;
}

void ring_doorbell(int doorbell_fd)
{
    static const uint64_t one = 1;

    /* EAGAIN: the count is at its highest, so it is rung. A closed one belongs to nobody who waits. */
    if (doorbell_fd >= 0 && write(doorbell_fd, &one, sizeof one) < 0)
        return;
}

int check_own(uint32_t forks)
{
    if (forks == pair_forks)
        return 1;
    PyErr_SetString(
        PyExc_RuntimeError, "A child process can't use its parent's direct lanes: connect anew in the child");
    return 0;
}

static PyObject *incoming_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    struct incoming *self = (struct incoming *)type->tp_alloc(type, 0);
    PyObject *more;

    if (!self)
        return NULL;
    self->closed = 1;
    self->doorbell_fd = -1;
    if (attach_from_args(args, &self->entry.pair, PAIR_RECEIVER, &self->doorbell_fd, &more) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    Py_DECREF(more); /* a subclass's own */
    self->closed = 0;
    return (PyObject *)self;
}

/* Replies, and what is said of files on the way, may not take the room that is kept for the verdicts of all records
 * that may be outstanding. */
static int check_reply_room(struct ring_writer *ring, uint32_t size)
{
    return ring_find_room(ring, ring->position + 2 * ring_record_bytes(size) + (ring->mask + 1) / 2);
}

int incoming_settle(
    struct incoming *incoming, uint64_t position, enum record_state state, uint8_t content, const void *payload,
    uint32_t payload_bytes)
{
    struct record_verdict verdict = {.position = position, .state = (uint8_t)state, .content = content};
    struct ring_writer *ring = &incoming->entry.pair.receiver.verdicts;
    uint32_t size = (uint32_t)sizeof verdict + payload_bytes;
    uint8_t *room;
    int error = 0;

    if (incoming->closed || incoming->ended)
        return -ESHUTDOWN;
    if (!pair_is_own(&incoming->entry.pair))
        return -ESTALE;
    if (state >= RECORD_REPLIED && size <= ring_max_size(ring->mask))
        error = check_reply_room(ring, size);
    if (!error)
        error = ring_claim(ring, size, &room);
    if (error)
        return error;
    memcpy(room, &verdict, sizeof verdict);
    memcpy(room + sizeof verdict, payload, payload_bytes);
    ring_commit(ring, size);
    if (pair_publish(&incoming->entry.pair))
        ring_doorbell(incoming->doorbell_fd);
    return 0;
}

static PyObject *method_settle(struct incoming *self, PyObject *args)
{
    unsigned long long position;
    unsigned char state, content;
    Py_buffer payload;
    int error;

    if (!PyArg_ParseTuple(args, "Kbby*:settle", &position, &state, &content, &payload))
        return NULL;
    if (state == 0 || state >= RECORD_N_STATES || content >= RECORD_N_CONTENTS)
        error = -EINVAL;
    else if (payload.len > (Py_ssize_t)RING_MAX_CAPACITY)
        error = -EMSGSIZE;
    else
        error = incoming_settle(self, position, (enum record_state)state, content, payload.buf, (uint32_t)payload.len);
    PyBuffer_Release(&payload);
    return error ? raise_errno(error) : Py_NewRef(Py_None);
}

static PyObject *method_pause(struct incoming *self, PyObject *on)
{
    int paused = PyObject_IsTrue(on);

    if (paused < 0)
        return NULL;
    if (!self->closed && pair_is_own(&self->entry.pair))
        pair_set_gate(&self->entry.pair, PAIR_PAUSED, paused);
    Py_RETURN_NONE;
}

static PyObject *method_end(struct incoming *self, PyObject *Py_UNUSED(unused))
{
    atomic_store_explicit(&self->ended, 1, memory_order_release);
    Py_RETURN_NONE;
}

static PyObject *method_lock(struct incoming *self, PyObject *Py_UNUSED(unused))
{
    int error = self->closed ? -ESHUTDOWN : pair_lock(&self->entry.pair);

    return error ? raise_errno(error) : Py_NewRef(Py_None);
}

/* Take nothing more. A mailbox holds what is in it, so this comes after Mailbox.remove(). */
static PyObject *method_close(struct incoming *self, PyObject *Py_UNUSED(unused))
{
    if (self->closed)
        Py_RETURN_NONE;
    self->closed = 1;
    if (pair_is_own(&self->entry.pair)) {
        pair_set_gate(&self->entry.pair, PAIR_CLOSED, true);
        if (pair_publish(&self->entry.pair))
            ring_doorbell(self->doorbell_fd);
    }
    if (!self->n_held) /* else whoever gives back the last */
        pair_detach(&self->entry.pair);
    close(self->doorbell_fd);
    Py_RETURN_NONE;
}

static void incoming_dealloc(struct incoming *self)
{
    PyTypeObject *type = Py_TYPE(self);

    if (PyType_HasFeature(type, Py_TPFLAGS_HAVE_GC))
        PyObject_GC_UnTrack(self);
    Py_XDECREF(method_close(self, NULL));
    Py_CLEAR(self->holds);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef incoming_methods[] = {
    {"settle", (PyCFunction)method_settle, METH_VARARGS, PyDoc_STR("Tell the sender what became of its record.")},
    {"pause", (PyCFunction)method_pause, METH_O, PyDoc_STR("Whether the sender may send nothing for now.")},
    {"end", (PyCFunction)method_end, METH_NOARGS, PyDoc_STR("The sender is gone.")},
    {"lock", (PyCFunction)method_lock, METH_NOARGS, PyDoc_STR("Keep its memory from being swapped out.")},
    {"close", (PyCFunction)method_close, METH_NOARGS, PyDoc_STR("Leave the pair.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_held_since(struct incoming *self, void *Py_UNUSED(unused))
{
    return PyLong_FromLongLong(self->oldest ? self->oldest->since_ns : 0);
}

static PyGetSetDef incoming_getset[] = {
    {"held_since_ns", (getter)get_held_since, NULL, PyDoc_STR("Since when the oldest is."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef incoming_members[] = {
    {"holds", T_OBJECT, offsetof(struct incoming, holds), 0, PyDoc_STR("Told that it holds one again, or None.")},
    {"held", T_UINT, offsetof(struct incoming, n_held), READONLY, PyDoc_STR("Blocks that were not given back.")},
    {"taken", T_ULONGLONG, offsetof(struct incoming, entry.taken), READONLY, PyDoc_STR("How many records.")},
    {"number", T_ULONGLONG, offsetof(struct incoming, entry.pair.shape.number), READONLY, PyDoc_STR("The pair's.")},
    {NULL, 0, 0, 0, NULL},
};

/* Not const: a slot is a plain pointer. */
static char incoming_doc[] = "The receiver's end of a pair.";

static PyType_Slot incoming_slots[] = {
    {Py_tp_new, incoming_new},
    {Py_tp_dealloc, incoming_dealloc},
    {Py_tp_methods, incoming_methods},
    {Py_tp_members, incoming_members},
    {Py_tp_doc, incoming_doc},
    {Py_tp_getset, incoming_getset},
    {0, NULL},
};

static PyType_Spec incoming_spec = {
    .name = "agentd._native.Incoming",
    .basicsize = sizeof(struct incoming),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = incoming_slots,
};

static void record_dealloc(struct record_object *self)
{
    PyTypeObject *type = Py_TYPE(self);

    if (PyType_HasFeature(type, Py_TPFLAGS_HAVE_GC))
        PyObject_GC_UnTrack(self);
    Py_XDECREF(self->source);
    Py_XDECREF(self->body);
    Py_XDECREF(self->details);
    Py_XDECREF(self->decoded);
    Py_XDECREF(self->window);
    type->tp_free(self);
    Py_DECREF(type);
}

static int is_borrowed(const struct record_object *self)
{
    return self->body && !PyBytes_CheckExact(self->body);
}

/* What is borrowed is copied at the first look, and given back. */
static PyObject *get_body(struct record_object *self, void *Py_UNUSED(unused))
{
    PyObject *borrowed = self->body, *copy;

    if (!is_borrowed(self))
        return Py_NewRef(borrowed ? borrowed : Py_None);
    Py_INCREF(borrowed);
    copy = borrowed_copy((struct borrowed *)borrowed);
    if (copy && self->body == borrowed)
        Py_SETREF(self->body, Py_NewRef(copy));
    Py_DECREF(borrowed);
    return copy;
}

static PyObject *get_size(struct record_object *self, void *Py_UNUSED(unused))
{
    if (is_borrowed(self))
        return PyLong_FromUnsignedLongLong(((struct borrowed *)self->body)->reference.size);
    return PyLong_FromSsize_t(self->body ? PyBytes_GET_SIZE(self->body) : 0);
}

static PyObject *record_view(struct record_object *self, PyObject *Py_UNUSED(unused))
{
    struct module_state *state = PyModule_GetState(PyType_GetModuleByDef(Py_TYPE(self), &native_module));

    return view_of(state->view, self->body, is_borrowed(self));
}

static PyObject *get_settled(struct record_object *self, void *Py_UNUSED(unused))
{
    return PyBool_FromLong(self->settled);
}

static int set_settled(struct record_object *self, PyObject *value, void *Py_UNUSED(unused))
{
    int settled = value ? PyObject_IsTrue(value) : 0;

    if (settled < 0)
        return -1;
    self->settled = (char)settled;
    if (is_borrowed(self))
        borrowed_settle((struct borrowed *)self->body, self->settled);
    return 0;
}

static PyObject *get_number(struct record_object *self, void *Py_UNUSED(unused))
{
    const struct incoming *source = (const struct incoming *)(void *)self->source;

    if (!source)
        return PyErr_Format(PyExc_AttributeError, "it came from nowhere");
    return PyLong_FromUnsignedLongLong(record_id(source->entry.pair.shape.number, self->position));
}

static PyMemberDef record_members[] = {
    {"source", T_OBJECT, offsetof(struct record_object, source), READONLY, PyDoc_STR("Whose it is.")},
    {"details_bytes", T_OBJECT, offsetof(struct record_object, details), READONLY, PyDoc_STR("msgpack, or None.")},
    {"decoded", T_OBJECT_EX, offsetof(struct record_object, decoded), 0, PyDoc_STR("The face's.")},
    {"window", T_OBJECT, offsetof(struct record_object, window), 0, PyDoc_STR("The face's.")},
    {"position", T_ULONGLONG, offsetof(struct record_object, position), READONLY, PyDoc_STR("In the ring.")},
    {"sent_ns", T_ULONGLONG, offsetof(struct record_object, sent_ns), READONLY, PyDoc_STR("CLOCK_REALTIME.")},
    {"deadline_ns", T_ULONGLONG, offsetof(struct record_object, deadline_ns), READONLY, PyDoc_STR("CLOCK_BOOTTIME.")},
    {"content_code", T_UBYTE, offsetof(struct record_object, content), READONLY, PyDoc_STR("What the bytes are.")},
    {"flags", T_UBYTE, offsetof(struct record_object, flags), READONLY, PyDoc_STR("What the sender asked.")},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef record_getset[] = {
    {"body", (getter)get_body, NULL, PyDoc_STR("The bytes."), NULL},
    {"size", (getter)get_size, NULL, PyDoc_STR("How many bytes that is."), NULL},
    {"settled", (getter)get_settled, (setter)set_settled, PyDoc_STR("The face's."), NULL},
    {"number", (getter)get_number, NULL, PyDoc_STR("The message's id."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef record_methods[] = {
    {"view", (PyCFunction)record_view, METH_NOARGS, PyDoc_STR("The bytes where they lie, to read.")},
    {NULL, NULL, 0, NULL},
};

/* Not const: a slot is a plain pointer. */
static char record_doc[] = "A message's record, copied out of the ring.";

static PyType_Slot record_slots[] = {
    {Py_tp_dealloc, record_dealloc}, {Py_tp_members, record_members}, {Py_tp_getset, record_getset},
    {Py_tp_methods, record_methods}, {Py_tp_doc, record_doc},         {0, NULL},
};

static PyType_Spec record_spec = {
    .name = "agentd._native.Record",
    .basicsize = sizeof(struct record_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = record_slots,
};

int add_incoming(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    state->incoming = add_type(module, &incoming_spec);
    if (!state->incoming)
        return -1;
    state->record = add_type(module, &record_spec);
    return state->record ? 0 : -1;
}
