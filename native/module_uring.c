/* Engine: an io_uring and the buffers that the kernel holds of it. Documented in agentd/_native.pyi. */
#include "module.h"

#include <limits.h>

#include "pair.h"
#include "uring.h"

/* Long enough for any disk to finish what can't be cancelled. */
#define STOP_MS 5000

struct engine {
    PyObject_HEAD struct uring uring;
    Py_buffer *held; /* of each slot, until its completion */
    struct uring_completion *completions;
};

PyObject *raise_engine(int error)
{
    switch (-error) {
    case EEXIST:
        PyErr_SetString(PyExc_RuntimeError, "An engine belongs to the thread that made it");
        return NULL;
    case ESTALE:
        PyErr_SetString(PyExc_RuntimeError, "A child process can't use its parent's engine: make another");
        return NULL;
    case EBADF:
        PyErr_SetString(PyExc_ValueError, "The engine is closed");
        return NULL;
    default:
        return raise_errno(error);
    }
}

static PyObject *raise_refusal(int error)
{
    PyObject *args = Py_BuildValue("is", -error, uring_refusal(error));

    if (args)
        PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
    return NULL;
}

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    /* Not const: the parser takes plain pointers. */
    static char entries[] = "entries", sqpoll_cpu[] = "sqpoll_cpu", deferred[] = "defer";
    static char *names[] = {entries, sqpoll_cpu, deferred, NULL};
    struct uring_shape shape = {.sqpoll_cpu = -1};
    PyObject *cpu = Py_None;
    struct engine *self;
    int defer = 0, error;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "I|Op:Engine", names, &shape.entries, &cpu, &defer))
        return NULL;
    shape.defer = defer;
    if (cpu != Py_None) {
        long core = PyLong_AsLong(cpu);

        if (core == -1 && PyErr_Occurred())
            return NULL;
        if (core < 0 || core > INT_MAX)
            return raise_refusal(-EINVAL);
        shape.sqpoll_cpu = (int)core;
    }
    self = (struct engine *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->uring.fd = -1;
    error = uring_open(&self->uring, &shape);
    if (error) {
        Py_DECREF(self);
        return raise_refusal(error);
    }
    self->held = PyMem_Calloc(self->uring.n_slots, sizeof *self->held);
    self->completions = PyMem_Calloc(self->uring.n_slots, sizeof *self->completions);
    if (!self->held || !self->completions) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static PyObject *queue(struct engine *self, const struct uring_request *request, Py_buffer *buffer)
{
    uint64_t token;
    int error = uring_queue(&self->uring, request, &token);

    if (error) {
        if (buffer)
            PyBuffer_Release(buffer);
        return raise_engine(error);
    }
    if (buffer)
        self->held[uring_slot_of(token)] = *buffer;
    return PyLong_FromUnsignedLongLong(token);
}

static PyObject *transfer(struct engine *self, PyObject *args, enum uring_kind kind)
{
    struct uring_request request = {.kind = kind};
    int link = 0, punt = 0;
    long long offset;
    PyObject *data;
    Py_buffer buffer;

    if (!PyArg_ParseTuple(args, "iOL|pp", &request.fd, &data, &offset, &link, &punt))
        return NULL;
    if (PyObject_GetBuffer(data, &buffer, kind == URING_READ ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return NULL;
    request.buffer = buffer.buf;
    request.length = (size_t)buffer.len;
    request.offset = offset;
    request.link = link;
    request.punt = punt;
    return queue(self, &request, &buffer);
}

static PyObject *engine_read(struct engine *self, PyObject *args)
{
    return transfer(self, args, URING_READ);
}

static PyObject *engine_write(struct engine *self, PyObject *args)
{
    return transfer(self, args, URING_WRITE);
}

static PyObject *engine_fsync(struct engine *self, PyObject *args)
{
    struct uring_request request = {.kind = URING_FSYNC};
    int data_only, link = 0;

    if (!PyArg_ParseTuple(args, "ip|p:fsync", &request.fd, &data_only, &link))
        return NULL;
    request.data_only = data_only;
    request.link = link;
    return queue(self, &request, NULL);
}

static PyObject *engine_poll(struct engine *self, PyObject *args)
{
    struct uring_request request = {.kind = URING_POLL};
    int link = 0;

    if (!PyArg_ParseTuple(args, "iI|p:poll", &request.fd, &request.events, &link))
        return NULL;
    request.link = link;
    return queue(self, &request, NULL);
}

static PyObject *engine_cancel(struct engine *self, PyObject *token)
{
    struct uring_request request = {.kind = URING_CANCEL, .target = PyLong_AsUnsignedLongLong(token)};

    return PyErr_Occurred() ? NULL : queue(self, &request, NULL);
}

static PyObject *engine_nop(struct engine *self, PyObject *Py_UNUSED(unused))
{
    struct uring_request request = {.kind = URING_NOP};

    return queue(self, &request, NULL);
}

static PyObject *engine_doorbell(struct engine *self, PyObject *fd)
{
    int bell = _PyLong_AsInt(fd), error;

    if (bell == -1 && PyErr_Occurred())
        return NULL;
    error = uring_queue_doorbell(&self->uring, bell);
    return error ? raise_engine(error) : Py_NewRef(Py_None);
}

static PyObject *engine_submit(struct engine *self, PyObject *Py_UNUSED(unused))
{
    int n = uring_submit(&self->uring);

    return n < 0 ? raise_engine(n) : PyLong_FromLong(n);
}

static void release(struct engine *self, uint32_t slot)
{
    if (self->held[slot].obj)
        PyBuffer_Release(&self->held[slot]);
}

/* Told: their buffers are the caller's again. */
static PyObject *tell(struct engine *self, uint32_t n)
{
    PyObject *list = PyList_New(n);

    for (uint32_t i = 0; i < n; i++) {
        struct uring_completion *completion = &self->completions[i];
        PyObject *pair = NULL;

        release(self, uring_slot_of(completion->token));
        if (list)
            pair = Py_BuildValue("Ki", (unsigned long long)completion->token, (int)completion->result);
        if (pair)
            PyList_SET_ITEM(list, i, pair);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *engine_reap(struct engine *self, PyObject *Py_UNUSED(unused))
{
    int n = uring_reap(&self->uring, self->completions, self->uring.n_slots);

    return n < 0 ? raise_engine(n) : tell(self, (uint32_t)n);
}

static int is_closed(struct engine *self)
{
    return self->uring.fd < 0;
}

/*
 * What the kernel may still write to is never given back: a leak is better than its write into somebody else's memory.
 * A child has copies, where nothing writes.
 */
static void let_go(struct engine *self)
{
    for (uint32_t slot = 0; self->held && slot < self->uring.n_slots; slot++)
        if (self->uring.forks != pair_forks || !uring_holds(&self->uring, slot))
            release(self, slot);
    uring_close(&self->uring);
}

static PyObject *engine_close(struct engine *self, PyObject *Py_UNUSED(unused))
{
    uint32_t n;
    int left;

    if (is_closed(self))
        return PyList_New(0);
    left = uring_check(&self->uring);
    if (left == -EEXIST)
        return raise_engine(left);
    Py_BEGIN_ALLOW_THREADS left = uring_stop(&self->uring, STOP_MS, self->completions, &n);
    Py_END_ALLOW_THREADS let_go(self);
    return left == -ESTALE ? PyList_New(0) : tell(self, n);
}

static void engine_dealloc(struct engine *self)
{
    PyTypeObject *type = Py_TYPE(self);
    uint32_t n;

    /* In another thread nothing can be cancelled: what is under way keeps its buffers for good. */
    if (!is_closed(self)) {
        if (self->completions && uring_check(&self->uring) == 0)
            uring_stop(&self->uring, STOP_MS, self->completions, &n);
        let_go(self);
    }
    PyMem_Free(self->held);
    PyMem_Free(self->completions);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *engine_fileno(struct engine *self, PyObject *Py_UNUSED(unused))
{
    return is_closed(self) ? raise_engine(-EBADF) : PyLong_FromLong(self->uring.fd);
}

static PyObject *by_kind(const uint64_t *counts)
{
    return Py_BuildValue(
        "{sKsKsKsKsKsKsK}", "nop", counts[URING_NOP], "read", counts[URING_READ], "write", counts[URING_WRITE], "fsync",
        counts[URING_FSYNC], "poll", counts[URING_POLL], "cancel", counts[URING_CANCEL], "doorbell",
        counts[URING_DOORBELL]);
}

static PyObject *engine_counts(struct engine *self, PyObject *Py_UNUSED(unused))
{
    const struct uring_counts *counts = &self->uring.counts;

    return Py_BuildValue(
        "{sNsNsNsKsKsKsIsI}", "submitted", by_kind(counts->submitted), "completed", by_kind(counts->completed),
        "failed", by_kind(counts->failed), "unexpected", counts->unexpected, "lost", counts->lost, "enters",
        counts->enters, "in_flight", self->uring.n_in_flight, "queued", uring_queued(&self->uring));
}

static PyObject *engine_room(struct engine *self, PyObject *Py_UNUSED(unused))
{
    int error = uring_check(&self->uring);

    return error ? raise_engine(error) : PyLong_FromUnsignedLong(uring_room(&self->uring));
}

static PyMethodDef engine_methods[] = {
    {"read", (PyCFunction)engine_read, METH_VARARGS, PyDoc_STR("Queue a read.")},
    {"write", (PyCFunction)engine_write, METH_VARARGS, PyDoc_STR("Queue a write.")},
    {"fsync", (PyCFunction)engine_fsync, METH_VARARGS, PyDoc_STR("Queue a sync of a file.")},
    {"poll", (PyCFunction)engine_poll, METH_VARARGS, PyDoc_STR("Queue a wait for a descriptor.")},
    {"cancel", (PyCFunction)engine_cancel, METH_O, PyDoc_STR("Queue the cancellation of another.")},
    {"doorbell", (PyCFunction)engine_doorbell, METH_O, PyDoc_STR("Queue the end of a chain: a doorbell.")},
    {"nop", (PyCFunction)engine_nop, METH_NOARGS, PyDoc_STR("Queue nothing.")},
    {"submit", (PyCFunction)engine_submit, METH_NOARGS, PyDoc_STR("Hand over what is queued.")},
    {"reap", (PyCFunction)engine_reap, METH_NOARGS, PyDoc_STR("What has completed.")},
    {"room", (PyCFunction)engine_room, METH_NOARGS, PyDoc_STR("How many can be queued.")},
    {"fileno", (PyCFunction)engine_fileno, METH_NOARGS, PyDoc_STR("Readable when something completed.")},
    {"counts", (PyCFunction)engine_counts, METH_NOARGS, PyDoc_STR("How many of each kind.")},
    {"close", (PyCFunction)engine_close, METH_NOARGS, PyDoc_STR("End every request.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *engine_get_restricted(struct engine *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->uring.restricted);
}

static PyGetSetDef engine_getset[] = {
    {"restricted", (getter)engine_get_restricted, NULL, PyDoc_STR("Whether the kernel holds it to what it does."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* Not const: a slot is a plain pointer. */
static char engine_doc[] = "An io_uring.";

static PyType_Slot engine_slots[] = {
    {Py_tp_new, engine_new},       {Py_tp_dealloc, engine_dealloc}, {Py_tp_methods, engine_methods},
    {Py_tp_getset, engine_getset}, {Py_tp_doc, engine_doc},         {0, NULL},
};

static PyType_Spec engine_spec = {
    .name = "agentd._native.Engine",
    .basicsize = sizeof(struct engine),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = engine_slots,
};

int add_engine(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    state->engine = add_type(module, &engine_spec);
    return state->engine ? 0 : -1;
}

struct uring *engine_uring(PyObject *engine)
{
    return &((struct engine *)engine)->uring;
}
