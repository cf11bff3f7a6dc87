/* Journal: the records on disk, for their one writer. Documented in agentd/_native.pyi. */
#include "module_journal.h"

#include <unistd.h>

#include "pair.h"

static PyObject *object_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    /* Not const: the parser takes plain pointers. */
    static char directory[] = "directory", segment_bytes[] = "segment_bytes", start[] = "start", report[] = "report";
    static char *names[] = {directory, segment_bytes, start, report, NULL};
    unsigned long long bytes = JOURNAL_DEFAULT_SEGMENT_BYTES, position = 0;
    struct journal_listener listener = {.report = Py_None};
    struct journal_shape shape = {.report = journal_tell, .report_context = &listener};
    struct journal_object *self;
    PyObject *path;
    int at, error;

    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "O|KKO:Journal", names, &path, &bytes, &position, &listener.report))
        return NULL;
    self = (struct journal_object *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->report = Py_NewRef(listener.report);
    pair_watch_forks();
    self->forks = pair_forks;
    at = journal_directory(path, 1);
    if (at < 0) {
        Py_DECREF(self);
        return NULL;
    }
    shape.segment_bytes = bytes;
    shape.start = position;
    journal_listener_leave(&listener);
    error = journal_open(&self->journal, at, &shape, &journal_files_kernel);
    close(at); /* it has its own */
    journal_listener_back(&listener);
    self->is_open = !error;
    if (error && !listener.failed)
        journal_raise_unopened(error, path);
    if (error || listener.failed) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Whether it may be used, by this thread and now: false with an exception set. */
int journal_enter(const struct journal_object *self)
{
    if (self->forks != pair_forks)
        PyErr_SetString(PyExc_RuntimeError, "A child process can't use its parent's journal: there is one writer");
    else if (!self->is_open)
        PyErr_SetString(PyExc_ValueError, "The journal is closed");
    else if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "Another thread is in this journal: use it from one at a time");
    else
        return 1;
    return 0;
}

/* Without the GIL until journal_come_back(); no other thread gets in meanwhile. */
PyThreadState *journal_go_away(struct journal_object *self)
{
    self->busy++;
    return PyEval_SaveThread();
}

void journal_come_back(struct journal_object *self, PyThreadState *state)
{
    PyEval_RestoreThread(state);
    self->busy--;
}

static PyObject *raise_poisoned(int error)
{
    return journal_raise(error, "The journal is poisoned by: %s. Open it anew", strerror(-error));
}

static PyObject *refuse(const struct journal_object *self, int error, Py_ssize_t size)
{
    if (self->journal.poisoned && error == self->journal.poisoned)
        return raise_poisoned(error);
    switch (-error) {
    case EAGAIN:
        return journal_raise(error, "Sync first: the segment before the last is full and not synced");
    case EMSGSIZE:
        return journal_raise(
            error, "A body of %zd bytes: a record of this journal has %zd at most", size,
            (Py_ssize_t)journal_max_size(&self->journal));
    case EALREADY:
        return journal_raise(error, "A sync is under way: end it first");
    default:
        return raise_errno(error);
    }
}

static PyObject *object_append(struct journal_object *self, PyObject *const *args, Py_ssize_t n_args)
{
    uint64_t position = 0;
    Py_buffer body;
    long type;
    int error;

    if (n_args != 2)
        return PyErr_Format(PyExc_TypeError, "append() takes 2 arguments, not %zd", n_args);
    type = PyLong_AsLong(args[0]);
    if (type == -1 && PyErr_Occurred())
        return NULL;
    if (type < 0 || type > UINT16_MAX)
        return PyErr_Format(PyExc_ValueError, "a type has 16 bits");
    if (PyObject_GetBuffer(args[1], &body, PyBUF_SIMPLE) < 0)
        return NULL;
    if (!journal_enter(self)) {
        PyBuffer_Release(&body);
        return NULL;
    }
    error = body.len > UINT32_MAX
                ? -EMSGSIZE
                : journal_append(&self->journal, (uint16_t)type, body.buf, (uint32_t)body.len, &position);
    PyBuffer_Release(&body);
    return error ? refuse(self, error, body.len) : PyLong_FromUnsignedLongLong(position);
}

static PyObject *object_flush(struct journal_object *self, PyObject *Py_UNUSED(unused))
{
    int error;

    if (!journal_enter(self))
        return NULL;
    error = journal_flush(&self->journal);
    return error ? refuse(self, error, 0) : Py_NewRef(Py_None);
}

static PyObject *object_begin_sync(struct journal_object *self, PyObject *Py_UNUSED(unused))
{
    struct journal_sync sync;
    PyObject *fds;
    int error;

    if (!journal_enter(self))
        return NULL;
    error = journal_sync_begin(&self->journal, &sync);
    if (error)
        return refuse(self, error, 0);
    self->sync = sync;
    self->sync_state = sync.n_fds ? SYNC_UNDER_WAY : SYNC_EMPTY;
    fds = PyList_New(0);
    for (unsigned i = 0; fds && i < sync.n_fds; i++) {
        PyObject *fd = PyLong_FromLong(sync.fds[i]);

        if (!fd || PyList_Append(fds, fd) < 0)
            Py_CLEAR(fds);
        Py_XDECREF(fd);
    }
    return fds ? Py_BuildValue("KN", (unsigned long long)sync.upto, fds) : NULL;
}

static PyObject *object_end_sync(struct journal_object *self, PyObject *const *args, Py_ssize_t n_args)
{
    enum journal_sync_state state = self->sync_state;
    long error = 0;

    if (n_args > 1)
        return PyErr_Format(PyExc_TypeError, "end_sync() takes at most 1 argument, not %zd", n_args);
    if (n_args == 1) {
        error = PyLong_AsLong(args[0]);
        if (error == -1 && PyErr_Occurred())
            return NULL;
    }
    if (error < 0 || error > 4095)
        return PyErr_Format(PyExc_ValueError, "an errno, or 0, not %ld", error);
    if (!journal_enter(self))
        return NULL;
    if (state == SYNC_NONE)
        return PyErr_Format(PyExc_ValueError, "No sync was begun");
    self->sync_state = SYNC_NONE;
    if (state == SYNC_UNDER_WAY)
        journal_sync_end(&self->journal, &self->sync, (int)-error); /* which the caller knows already */
    Py_RETURN_NONE;
}

static PyObject *object_retire(struct journal_object *self, PyObject *args)
{
    unsigned long long position;
    unsigned int keep = SEGMENT_SPARES;
    PyThreadState *state;
    int n;

    if (!PyArg_ParseTuple(args, "K|I:retire", &position, &keep))
        return NULL;
    if (!journal_enter(self))
        return NULL;
    state = journal_go_away(self);
    n = journal_retire(&self->journal, position, keep < SEGMENT_SPARES ? keep : SEGMENT_SPARES);
    journal_come_back(self, state);
    return n < 0 ? refuse(self, n, 0) : PyLong_FromLong(n);
}

/* What a child has of its parent's is copies: it gives up the memory, and writes nothing. */
static int let_go(struct journal_object *self)
{
    int error;

    if (self->forks != pair_forks)
        self->journal.n_gathered = 0;
    error = journal_close(&self->journal);
    self->is_open = 0;
    return error;
}

static PyObject *object_close(struct journal_object *self, PyObject *Py_UNUSED(unused))
{
    int error;

    if (!self->is_open)
        Py_RETURN_NONE;
    if (!journal_enter(self))
        return NULL;
    if (self->sync_state == SYNC_UNDER_WAY)
        return refuse(self, -EALREADY, 0);
    error = let_go(self);
    return error ? raise_poisoned(error) : Py_NewRef(Py_None);
}

static PyObject *object_enter(struct journal_object *self, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef((PyObject *)self);
}

/* An error of the block is worth more than one of closing. */
static PyObject *object_close_at_end(struct journal_object *self, PyObject *Py_UNUSED(args))
{
    if (self->sync_state == SYNC_UNDER_WAY)
        Py_RETURN_NONE; /* the descriptors are somebody's still: they go with the journal itself */
    return object_close(self, NULL);
}

static void object_dealloc(struct journal_object *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->is_open)
        let_go(self);
    Py_XDECREF(self->report);
    type->tp_free(self);
    Py_DECREF(type);
}

static int object_traverse(struct journal_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->report);
    return 0;
}

static int object_clear(struct journal_object *self)
{
    Py_CLEAR(self->report);
    return 0;
}

#define NUMBER(name, value)                                                                                            \
    static PyObject *get_##name(struct journal_object *self, void *Py_UNUSED(unused))                                  \
    {                                                                                                                  \
        return journal_enter(self) ? PyLong_FromUnsignedLongLong(value) : NULL;                                        \
    }

NUMBER(first, journal_first(&self->journal))
NUMBER(tail, self->journal.tail)
NUMBER(room, self->journal.limit - self->journal.tail)
NUMBER(synced, self->journal.synced)
NUMBER(sequence, self->journal.sequence)
NUMBER(segments, self->journal.n_segments)
NUMBER(segment_bytes, self->journal.segment_bytes)
NUMBER(max_body_bytes, journal_max_size(&self->journal))
NUMBER(poisoned, (unsigned long long)-self->journal.poisoned)
NUMBER(next_number, journal_next_number(&self->journal))

static PyObject *get_needs_prepare(struct journal_object *self, void *Py_UNUSED(unused))
{
    return journal_enter(self) ? PyBool_FromLong(journal_needs_prepare(&self->journal)) : NULL;
}

static PyObject *get_id(struct journal_object *self, void *Py_UNUSED(unused))
{
    return journal_enter(self) ? PyBytes_FromStringAndSize((const char *)self->journal.id, SEGMENT_ID_BYTES) : NULL;
}

static PyMethodDef methods[] = {
    {"append", (PyCFunction)(void (*)(void))object_append, METH_FASTCALL, PyDoc_STR("Append a record.")},
    {"flush", (PyCFunction)object_flush, METH_NOARGS, PyDoc_STR("What was appended can be read.")},
    {"begin_sync", (PyCFunction)object_begin_sync, METH_NOARGS, PyDoc_STR("What to sync.")},
    {"end_sync", (PyCFunction)(void (*)(void))object_end_sync, METH_FASTCALL, PyDoc_STR("It is synced, or not.")},
    {"read", (PyCFunction)journal_object_read, METH_O, PyDoc_STR("The record at a position.")},
    {"expect", (PyCFunction)journal_object_expect, METH_O, PyDoc_STR("Have records read ahead.")},
    {"scan", (PyCFunction)journal_object_scan, METH_VARARGS, PyDoc_STR("The records from a position on.")},
    {"retire", (PyCFunction)object_retire, METH_VARARGS, PyDoc_STR("Forget what lies before a position.")},
    {"close", (PyCFunction)object_close, METH_NOARGS, PyDoc_STR("Flush, and let go of it.")},
    {"__enter__", (PyCFunction)object_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)object_close_at_end, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"first", (getter)get_first, NULL, PyDoc_STR("Where its first record is."), NULL},
    {"tail", (getter)get_tail, NULL, PyDoc_STR("Where the next record goes."), NULL},
    {"room", (getter)get_room, NULL, PyDoc_STR("Bytes left in its last segment."), NULL},
    {"synced", (getter)get_synced, NULL, PyDoc_STR("What lies before it is on disk."), NULL},
    {"sequence", (getter)get_sequence, NULL, PyDoc_STR("Of the last record."), NULL},
    {"segments", (getter)get_segments, NULL, PyDoc_STR("How many there are."), NULL},
    {"segment_bytes", (getter)get_segment_bytes, NULL, PyDoc_STR("Of each that is made from now on."), NULL},
    {"max_body_bytes", (getter)get_max_body_bytes, NULL, PyDoc_STR("Of one record."), NULL},
    {"poisoned", (getter)get_poisoned, NULL, PyDoc_STR("The errno of what poisoned it, or 0."), NULL},
    {"needs_prepare", (getter)get_needs_prepare, NULL, PyDoc_STR("Whether the next segment is not ready."), NULL},
    {"next_number", (getter)get_next_number, NULL, PyDoc_STR("Of the next segment."), NULL},
    {"id", (getter)get_id, NULL, PyDoc_STR("Sixteen bytes, in each segment."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* Not const: a slot is a plain pointer. */
static char doc[] = "The records on disk.";

static PyType_Slot slots[] = {
    {Py_tp_new, object_new},
    {Py_tp_dealloc, object_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_traverse, object_traverse},
    {Py_tp_clear, object_clear},
    {Py_tp_doc, doc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "agentd._native.Journal",
    .basicsize = sizeof(struct journal_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int add_journal(PyObject *module)
{
    PyTypeObject *type = add_type(module, &spec);

    Py_XDECREF(type); /* the module's own reference stays */
    return type ? 0 : -1;
}
