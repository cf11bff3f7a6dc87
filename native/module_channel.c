/* Channel: the sender's end of a pair, as Python sees it. What each method promises stands in agentd/_native.pyi. */
#include "module_doorbells.h"
#include "module_later.h"

#include <time.h>
#include <unistd.h>

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

PyObject *channel_refused(struct channel *self, int error, Py_ssize_t size)
{
    PyObject *raised = PyObject_CallFunction(self->refuse, "in", -error, size);

    Py_XDECREF(raised);
    if (raised)
        raise_errno(error);
    return NULL;
}

static int may_send(const struct channel *self)
{
    if (self->closed || self->ended)
        return -ESHUTDOWN;
    if (!pair_is_own(&self->pair))
        return -ESTALE;
    return pair_peer(&self->pair);
}

uint64_t wall_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void channel_announce(struct channel *self, uint64_t now_ns)
{
    if (self->doorbells)
        doorbells_sent(self->doorbells, &self->bell, now_ns);
    else if (pair_publish(&self->pair))
        ring_doorbell(self->doorbell_fd);
}

/* One record: its position, or -errno. With `later` it is not committed yet. */
static inline int64_t write_record(
    struct channel *self, const struct record_header *header, uint64_t deadline_ns, const void *details,
    const void *body, Py_ssize_t body_bytes, struct ring_later *later)
{
    struct ring_writer *ring = &self->pair.sender.ring;
    uint32_t overhead = record_overhead(header->flags, header->details_bytes);
    uint8_t *room;
    uint64_t position;
    int error = may_send(self);

    if (!error && self->doorbells)
        error = doorbells_check(self->doorbells);
    if (error)
        return error;
    if (body_bytes > (Py_ssize_t)RING_MAX_CAPACITY)
        return -EMSGSIZE;
    error = ring_claim(ring, overhead + (uint32_t)body_bytes, &room);
    if (error == -EAGAIN && self->doorbells)
        doorbells_full(self->doorbells);
    if (error)
        return error;
    room = record_write(room, header, deadline_ns, details);
    memcpy(room, body, (size_t)body_bytes);
    self->sent++;
    if (later) {
        position = ring_commit_later(ring, overhead + (uint32_t)body_bytes, later);
    } else {
        position = ring_commit(ring, overhead + (uint32_t)body_bytes);
        channel_announce(self, header->sent_ns);
    }
    return (int64_t)(position & INT64_MAX);
}

static PyObject *position_or_refusal(struct channel *self, int64_t position, Py_ssize_t size)
{
    if (position == -EEXIST) /* nothing that the other end or a limit has to do with */
        return raise_engine(-EEXIST);
    return position < 0 ? channel_refused(self, (int)position, size) : PyLong_FromLongLong(position);
}

static PyObject *send_plain(struct channel *self, uint8_t content, const void *body, Py_ssize_t size)
{
    struct record_header header = {.content = content, .sent_ns = wall_ns()};

    return position_or_refusal(self, write_record(self, &header, 0, "", body, size, NULL), size);
}

static PyObject *send_encoded(struct channel *self, PyObject *body)
{
    PyObject *encoded = PyObject_CallOneArg(self->encode, body), *result = NULL;
    unsigned char content;
    Py_buffer buffer;

    if (!encoded)
        return NULL;
    if (PyArg_ParseTuple(encoded, "by*;encode", &content, &buffer)) {
        result = send_plain(self, content, buffer.buf, buffer.len);
        PyBuffer_Release(&buffer);
    }
    Py_DECREF(encoded);
    return result;
}

static PyObject *channel_send(struct channel *self, PyObject *body)
{
    const char *text;
    Py_ssize_t size;

    if (PyBytes_CheckExact(body))
        return send_plain(self, RECORD_BYTES, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body));
    if (PyUnicode_CheckExact(body) && (text = PyUnicode_AsUTF8AndSize(body, &size)))
        return send_plain(self, RECORD_TEXT, text, size);
    if (PyErr_Occurred())
        PyErr_Clear(); /* a lone surrogate: encode() says so in its own words */
    return send_encoded(self, body);
}

PyObject *channel_write_asked(struct channel *self, PyObject *args, struct ring_later *later)
{
    unsigned char content, flags;
    unsigned long long deadline_ns;
    Py_buffer body, details;
    PyObject *result;

    if (!PyArg_ParseTuple(args, "y*bby*K", &body, &content, &flags, &details, &deadline_ns))
        return NULL;
    if (content >= RECORD_N_CONTENTS || flags & ~RECORD_FLAGS || details.len > UINT16_MAX) {
        result = PyErr_Format(PyExc_ValueError, "no such content, flags or details");
    } else {
        struct record_header header = {
            .content = content,
            .flags = (uint8_t)((flags & ~RECORD_DEADLINE) | (deadline_ns ? RECORD_DEADLINE : 0)),
            .details_bytes = (uint16_t)details.len,
            .sent_ns = wall_ns(),
        };

        result = position_or_refusal(
            self, write_record(self, &header, deadline_ns, details.buf, body.buf, body.len, later), body.len);
    }
    PyBuffer_Release(&body);
    PyBuffer_Release(&details);
    return result;
}

static PyObject *channel_ask(struct channel *self, PyObject *args)
{
    return channel_write_asked(self, args, NULL);
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
    return 0;
}

static int channel_clear(struct channel *self)
{
    Py_CLEAR(self->encode);
    Py_CLEAR(self->refuse);
    return 0;
}

static PyObject *get_state(struct channel *self, void *Py_UNUSED(unused))
{
    int error = may_send(self);

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
    return PyLong_FromUnsignedLong(
        ring_max_size(self->pair.shape.ring_capacity - 1) - (unsigned long)sizeof(struct record_header));
}

static PyMethodDef channel_methods[] = {
    {"send", (PyCFunction)channel_send, METH_O, PyDoc_STR("Write one record; its position.")},
    {"ask", (PyCFunction)channel_ask, METH_VARARGS, PyDoc_STR("Write one record with all that it can have.")},
    {"claim_later", (PyCFunction)channel_claim_later, METH_VARARGS, PyDoc_STR("As ask(), but unseen until committed.")},
    {"commit_now", (PyCFunction)channel_commit_now, METH_O, PyDoc_STR("Have it seen.")},
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
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef channel_getset[] = {
    {"state", (getter)get_state, NULL, PyDoc_STR("open, paused or closed, as the receiver says."), NULL},
    {"left", (getter)get_left, NULL, PyDoc_STR("Whether the receiver has closed its end."), NULL},
    {"taken", (getter)get_taken, NULL, PyDoc_STR("How many records the receiver says it has taken."), NULL},
    {"later", (getter)channel_get_later, NULL, PyDoc_STR("How many are claimed and not committed."), NULL},
    {"max_body_bytes", (getter)get_max_body, NULL, PyDoc_STR("The largest body."), NULL},
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
