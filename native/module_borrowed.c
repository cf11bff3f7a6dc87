/* The receiver's side of a pool: what it has of a sender's blocks, and View, to read one where it lies. */
#include "module_pool.h"

#include "clock.h"

/* In the list of its Incoming by age: the oldest is the one that holds up its sender the longest. */
static void list(struct borrowed *self)
{
    struct incoming *source = self->source;

    self->older = source->newest;
    if (source->newest)
        source->newest->newer = self;
    else
        source->oldest = self;
    source->newest = self;
    source->n_held++;
}

static void unlist(struct borrowed *self)
{
    struct incoming *source = self->source;

    if (self->older)
        self->older->newer = self->newer;
    else
        source->oldest = self->newer;
    if (self->newer)
        self->newer->older = self->older;
    else
        source->newest = self->older;
    source->n_held--;
}

/* Once: what the sender overwrites from here on, nobody of us reads. */
static void give_back(struct borrowed *self)
{
    struct pair *pair = &self->source->entry.pair;

    if (self->given_back)
        return;
    self->given_back = 1;
    unlist(self);
    if (pair_is_own(pair)) /* a child has no such memory */
        pool_return(pair, &self->reference);
    if (!self->source->n_held && self->source->closed)
        pair_detach(pair);
}

static void tell_that_it_holds(struct incoming *source)
{
    PyObject *told;

    if (source->n_held != 1 || !source->holds || source->holds == Py_None)
        return;
    told = PyObject_CallNoArgs(source->holds);
    if (!told)
        PyErr_WriteUnraisable(source->holds);
    Py_XDECREF(told);
}

struct borrowed *borrow(PyTypeObject *type, struct incoming *incoming, const struct record_reference *reference)
{
    struct borrowed *self = (struct borrowed *)type->tp_alloc(type, 0);

    if (!self) {
        pool_return(&incoming->entry.pair, reference);
        return NULL;
    }
    self->source = (struct incoming *)Py_NewRef((PyObject *)incoming);
    self->reference = *reference;
    self->since_ns = clock_monotonic_ns();
    list(self);
    tell_that_it_holds(incoming);
    return self;
}

/* Whether it may be looked at; else an exception is set. */
static int check_readable(const struct borrowed *self)
{
    if (!check_own(self->source->entry.pair.forks))
        return 0;
    if (self->given_back)
        PyErr_SetString(
            PyExc_ValueError,
            "The body was given back when its view was released and the message finished: read .body before that");
    return !self->given_back;
}

static const uint8_t *bytes_of(const struct borrowed *self)
{
    return self->source->entry.pair.memory + self->reference.offset;
}

PyObject *borrowed_copy(struct borrowed *self)
{
    size_t size = (size_t)self->reference.size;
    const uint8_t *bytes = bytes_of(self);
    PyObject *copy;

    if (!check_readable(self))
        return NULL;
    copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!copy)
        return NULL;
    if (size < POOL_PATIENT_BYTES) {
        memcpy(PyBytes_AS_STRING(copy), bytes, size);
    } else {
        PyThreadState *state;

        self->n_users++; /* it is not given back meanwhile, and so it stays mapped */
        state = PyEval_SaveThread();
        memcpy(PyBytes_AS_STRING(copy), bytes, size);
        PyEval_RestoreThread(state);
        self->n_users--;
    }
    return copy;
}

static void give_back_if_done(struct borrowed *self)
{
    /* Who finished a message without a look at it may look yet; who took a view has seen it. */
    if (self->viewed && self->settled && !self->n_users)
        give_back(self);
}

void borrowed_settle(struct borrowed *self, char settled)
{
    self->settled = settled;
    give_back_if_done(self);
}

static void borrowed_dealloc(struct borrowed *self)
{
    PyTypeObject *type = Py_TYPE(self);

    give_back(self);
    Py_DECREF(self->source);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot borrowed_slots[] = {{Py_tp_dealloc, borrowed_dealloc}, {0, NULL}};

static PyType_Spec borrowed_spec = {
    .name = "agentd._native.Borrowed",
    .basicsize = sizeof(struct borrowed),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = borrowed_slots,
};

struct view {
    PyObject_HEAD PyObject *whole; /* bytes, or what is borrowed; NULL once nothing is read any more */
    PyObject *entered;             /* the memoryview that `with` gave */
    uint32_t n_exports;
    char is_borrowed;
    char released;
};

PyObject *view_of(PyTypeObject *type, PyObject *whole, int is_borrowed)
{
    struct view *self;

    if (is_borrowed && !check_readable((struct borrowed *)whole))
        return NULL;
    self = (struct view *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->whole = Py_NewRef(whole);
    self->is_borrowed = (char)is_borrowed;
    if (is_borrowed) {
        ((struct borrowed *)whole)->n_users++;
        ((struct borrowed *)whole)->viewed = 1;
    }
    return (PyObject *)self;
}

static void let_go_if_done(struct view *self)
{
    PyObject *whole = self->whole;

    if (!self->released || self->n_exports || !whole)
        return;
    self->whole = NULL;
    if (self->is_borrowed) {
        ((struct borrowed *)whole)->n_users--;
        give_back_if_done((struct borrowed *)whole);
    }
    Py_DECREF(whole);
}

/* A slice or an array that somebody still has keeps it, until that is gone too. */
static PyObject *view_release(struct view *self, PyObject *Py_UNUSED(unused))
{
    PyObject *entered = self->entered;

    self->released = 1;
    self->entered = NULL;
    if (entered) {
        PyObject *released = PyObject_CallMethod(entered, "release", NULL);

        Py_DECREF(entered);
        if (!released && !PyErr_ExceptionMatches(PyExc_BufferError))
            return NULL;
        PyErr_Clear();
        Py_XDECREF(released);
    }
    let_go_if_done(self);
    Py_RETURN_NONE;
}

static PyObject *view_enter(struct view *self, PyObject *Py_UNUSED(unused))
{
    if (!self->entered)
        self->entered = PyMemoryView_FromObject((PyObject *)self);
    return Py_XNewRef(self->entered);
}

static PyObject *view_exit(struct view *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n_args))
{
    return view_release(self, NULL);
}

static int view_getbuffer(struct view *self, Py_buffer *view, int flags)
{
    void *bytes;
    Py_ssize_t size;

    view->obj = NULL;
    if (self->released) {
        PyErr_SetString(PyExc_ValueError, "The view was released");
        return -1;
    }
    if (self->is_borrowed) {
        const struct borrowed *borrowed = (const struct borrowed *)self->whole;

        if (!check_own(borrowed->source->entry.pair.forks))
            return -1;
        bytes = borrowed->source->entry.pair.memory + borrowed->reference.offset;
        size = (Py_ssize_t)borrowed->reference.size;
    } else {
        bytes = PyBytes_AS_STRING(self->whole);
        size = PyBytes_GET_SIZE(self->whole);
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, bytes, size, 1, flags) < 0)
        return -1;
    self->n_exports++;
    return 0;
}

static void view_releasebuffer(struct view *self, Py_buffer *Py_UNUSED(view))
{
    self->n_exports--;
    let_go_if_done(self);
}

static Py_ssize_t view_length(struct view *self)
{
    if (!self->whole)
        return 0;
    return self->is_borrowed ? (Py_ssize_t)((struct borrowed *)self->whole)->reference.size
                             : PyBytes_GET_SIZE(self->whole);
}

/* The memoryview refers back to it. */
static int view_traverse(struct view *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->entered);
    return 0;
}

static int view_clear(struct view *self)
{
    Py_CLEAR(self->entered);
    return 0;
}

static void view_dealloc(struct view *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    self->released = 1;
    Py_CLEAR(self->entered);
    let_go_if_done(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef view_methods[] = {
    {"release", (PyCFunction)view_release, METH_NOARGS, PyDoc_STR("Nobody reads it any more.")},
    {"__enter__", (PyCFunction)view_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))view_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

/* Not const: a slot is a plain pointer. */
static char view_doc[] = "A body where it lies, to read.";

static PyType_Slot view_slots[] = {
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_traverse, view_traverse},
    {Py_tp_clear, view_clear},
    {Py_tp_methods, view_methods},
    {Py_tp_doc, view_doc},
    {Py_sq_length, view_length},
    {Py_bf_getbuffer, view_getbuffer},
    {Py_bf_releasebuffer, view_releasebuffer},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "agentd._native.View",
    .basicsize = sizeof(struct view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};

int add_borrowed(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    /* Of no name in Python: nobody but a record ever has one. */
    state->borrowed = (PyTypeObject *)PyType_FromModuleAndSpec(module, &borrowed_spec, NULL);
    if (!state->borrowed)
        return -1;
    state->view = add_type(module, &view_spec);
    return state->view ? 0 : -1;
}
