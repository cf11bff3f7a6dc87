/* Mailbox: the pairs of one lane, read by one thread at a time. Documented in agentd/_native.pyi. */
#include "module_mailbox.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Edge-triggered: a ring is heard when epoll_wait() tells of it, and nobody reads the counter. */
static int watch(struct mailbox_object *self, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = fd};

    return epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static PyObject *mailbox_makes(struct mailbox_object *self, PyObject *record);

static PyObject *mailbox_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    struct mailbox_object *self = (struct mailbox_object *)type->tp_alloc(type, 0);
    PyObject *record, *finished, *stopped;

    if (!self)
        return NULL;
    self->epoll_fd = self->wake_fd = -1;
    self->forks = pair_forks;
    mailbox_init(&self->mailbox);
    if (!PyArg_ParseTuple(args, "OOOL:Mailbox", &record, &finished, &stopped, &self->spin_ns))
        goto failed;
    if (!mailbox_makes(self, record))
        goto failed;
    self->finished = Py_NewRef(finished);
    self->stopped = Py_NewRef(stopped);
    self->changes = PyList_New(0);
    if (!self->changes)
        goto failed;
    self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    self->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->epoll_fd < 0 || self->wake_fd < 0 || watch(self, self->wake_fd) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

int mailbox_is_open(struct mailbox_object *self)
{
    if (self->closed) {
        PyErr_SetString(PyExc_ValueError, "It is closed: the client has left");
        return 0;
    }
    return check_own(self->forks);
}

int mailbox_enter(struct mailbox_object *self)
{
    if (!mailbox_is_open(self))
        return 0;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "Another thread waits here already");
        return 0;
    }
    self->busy = 1;
    Py_INCREF(self);
    return 1;
}

static void let_go(struct mailbox_object *self)
{
    while (self->mailbox.n_entries > 0)
        mailbox_take_out(self, incoming_of(self->mailbox.entries[0]), 0);
    for (int i = 0; i < self->n_doorbells; i++)
        close(self->doorbells[i]);
    self->n_doorbells = 0;
    PyMem_Free(self->doorbells);
    self->doorbells = NULL;
    if (self->epoll_fd >= 0)
        close(self->epoll_fd);
    if (self->wake_fd >= 0)
        close(self->wake_fd);
    self->epoll_fd = self->wake_fd = -1;
}

void mailbox_leave(struct mailbox_object *self)
{
    if (self->closed)
        let_go(self);
    self->busy = 0;
    Py_DECREF(self);
}

/* The object behind an entry leaves the list: whoever had it in there gives up the reference. */
int mailbox_take_out(struct mailbox_object *self, struct incoming *incoming, int tell)
{
    PyObject *told;

    if (!mailbox_remove(&self->mailbox, &incoming->entry))
        return 0;
    told = tell ? PyObject_CallOneArg(self->finished, (PyObject *)incoming) : Py_NewRef(Py_None);
    Py_DECREF(incoming);
    Py_XDECREF(told);
    return told ? 0 : -1;
}

/* What other threads changed while this one was scanning. */
int mailbox_apply_changes(struct mailbox_object *self)
{
    PyObject *changes;

    if (!atomic_exchange_explicit(&self->changed, 0, memory_order_acquire))
        return 0;
    changes = self->changes;
    self->changes = PyList_New(0);
    if (!self->changes) {
        self->changes = changes;
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(changes); i++) {
        PyObject *change = PyList_GET_ITEM(changes, i);
        struct incoming *incoming = (struct incoming *)(void *)PyTuple_GET_ITEM(change, 0);

        if (PyTuple_GET_ITEM(change, 1) == Py_False) {
            mailbox_take_out(self, incoming, 0);
        } else if (mailbox_add(&self->mailbox, &incoming->entry) == 0) {
            Py_INCREF(incoming);
        } else {
            Py_DECREF(changes);
            PyErr_NoMemory();
            return -1;
        }
    }
    Py_DECREF(changes);
    return 0;
}

static PyObject *change(struct mailbox_object *self, PyObject *incoming, PyObject *in)
{
    struct module_state *state = PyModule_GetState(PyType_GetModuleByDef(Py_TYPE(self), &native_module));
    PyObject *change;

    if (!mailbox_is_open(self))
        return NULL;
    if (!PyObject_TypeCheck(incoming, state->incoming))
        return PyErr_Format(PyExc_TypeError, "an Incoming, not %s", Py_TYPE(incoming)->tp_name);
    change = PyTuple_Pack(2, incoming, in);
    if (!change || PyList_Append(self->changes, change) < 0) {
        Py_XDECREF(change);
        return NULL;
    }
    Py_DECREF(change);
    /* PAIRS WITH the acquire in mailbox_apply_changes(). */
    atomic_store_explicit(&self->changed, 1, memory_order_release);
    if (!self->busy && mailbox_apply_changes(self) < 0)
        return NULL;
    ring_doorbell(self->wake_fd); /* a sleeping reader has not armed the new one */
    Py_RETURN_NONE;
}

static PyObject *mailbox_add_incoming(struct mailbox_object *self, PyObject *incoming)
{
    return change(self, incoming, Py_True);
}

static PyObject *mailbox_remove_incoming(struct mailbox_object *self, PyObject *incoming)
{
    return change(self, incoming, Py_False);
}

static PyObject *mailbox_arm_all(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    int empty;

    if (!mailbox_enter(self))
        return NULL;
    empty = mailbox_arm_or_find(self);
    mailbox_leave(self);
    return empty < 0 ? NULL : PyBool_FromLong(empty);
}

static PyObject *mailbox_disarm_all(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    if (!mailbox_is_open(self))
        return NULL;
    mailbox_hush(self);
    Py_RETURN_NONE;
}

static PyObject *mailbox_sweep_out(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    int error;

    if (!mailbox_is_open(self))
        return NULL;
    if (self->busy) /* its reader does */
        Py_RETURN_NONE;
    if (!mailbox_enter(self))
        return NULL;
    error = mailbox_apply_changes(self) < 0 || mailbox_sweep(self) < 0;
    mailbox_leave(self);
    return error ? NULL : Py_NewRef(Py_None);
}

static PyObject *mailbox_add_doorbell(struct mailbox_object *self, PyObject *fd)
{
    long doorbell = PyLong_AsLong(fd);
    int *more;

    if ((doorbell == -1 && PyErr_Occurred()) || !mailbox_is_open(self))
        return NULL;
    more = PyMem_Realloc(self->doorbells, ((size_t)self->n_doorbells + 1) * sizeof *more);
    if (!more)
        return PyErr_NoMemory();
    self->doorbells = more;
    if (watch(self, (int)doorbell) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    self->doorbells[self->n_doorbells++] = (int)doorbell;
    Py_RETURN_NONE;
}

static PyObject *mailbox_remove_doorbell(struct mailbox_object *self, PyObject *fd)
{
    long doorbell = PyLong_AsLong(fd);

    if ((doorbell == -1 && PyErr_Occurred()) || !mailbox_is_open(self))
        return NULL;
    for (int i = 0; i < self->n_doorbells; i++) {
        if (self->doorbells[i] != doorbell)
            continue;
        /* Senders hold the same eventfd: closing ours alone would leave it in the epoll. */
        epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, (int)doorbell, NULL);
        close((int)doorbell);
        self->doorbells[i] = self->doorbells[--self->n_doorbells];
        break;
    }
    Py_RETURN_NONE;
}

static PyObject *mailbox_wake(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    if (!self->closed)
        ring_doorbell(self->wake_fd);
    Py_RETURN_NONE;
}

static PyObject *mailbox_interrupt(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    if (self->busy) {
        /* PAIRS WITH the exchange in wait_for_one(). */
        atomic_store_explicit(&self->interrupted, 1, memory_order_release);
        ring_doorbell(self->wake_fd);
    }
    Py_RETURN_NONE;
}

static PyObject *mailbox_makes(struct mailbox_object *self, PyObject *record)
{
    struct module_state *state = PyModule_GetState(PyType_GetModuleByDef(Py_TYPE(self), &native_module));

    if (!PyType_Check(record) || !PyType_IsSubtype((PyTypeObject *)record, state->record))
        return PyErr_Format(PyExc_TypeError, "a subclass of Record");
    Py_XSETREF(self->record, (PyTypeObject *)Py_NewRef(record));
    Py_RETURN_NONE;
}

static PyObject *mailbox_fileno(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    return mailbox_is_open(self) ? PyLong_FromLong(self->epoll_fd) : NULL;
}

static PyObject *mailbox_incomings(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    PyObject *list = PyList_New(0);

    if (list && mailbox_apply_changes(self) < 0)
        Py_CLEAR(list);
    for (uint32_t i = 0; list && i < self->mailbox.n_entries; i++)
        if (PyList_Append(list, (PyObject *)incoming_of(self->mailbox.entries[i])) < 0)
            Py_CLEAR(list);
    return list;
}

static int mailbox_clear(struct mailbox_object *self)
{
    while (self->mailbox.n_entries > 0)
        mailbox_take_out(self, incoming_of(self->mailbox.entries[0]), 0);
    Py_CLEAR(self->changes);
    Py_CLEAR(self->finished);
    Py_CLEAR(self->stopped);
    Py_CLEAR(self->record);
    return 0;
}

static PyObject *mailbox_close(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    if (self->closed)
        Py_RETURN_NONE;
    self->closed = 1;
    if (self->busy)
        return mailbox_interrupt(self, NULL);
    let_go(self);
    Py_RETURN_NONE;
}

static void mailbox_dealloc(struct mailbox_object *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_XDECREF(mailbox_close(self, NULL));
    mailbox_clear(self);
    mailbox_deinit(&self->mailbox);
    type->tp_free(self);
    Py_DECREF(type);
}

static int mailbox_traverse(struct mailbox_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->record);
    Py_VISIT(self->finished);
    Py_VISIT(self->stopped);
    Py_VISIT(self->changes);
    for (uint32_t i = 0; i < self->mailbox.n_entries; i++)
        Py_VISIT((PyObject *)incoming_of(self->mailbox.entries[i]));
    return 0;
}

static PyMethodDef mailbox_methods[] = {
    {"add", (PyCFunction)mailbox_add_incoming, METH_O, PyDoc_STR("Read this pair too.")},
    {"remove", (PyCFunction)mailbox_remove_incoming, METH_O, PyDoc_STR("Read it no more.")},
    {"receive", (PyCFunction)(void (*)(void))mailbox_receive, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("receive($self, timeout=None)\n--\n\nThe next record, or None when the time is over.")},
    {"receive_bytes", (PyCFunction)(void (*)(void))mailbox_receive_bytes, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("receive_bytes($self, timeout=None)\n--\n\nThe next record's body alone.")},
    {"drain", (PyCFunction)mailbox_drain, METH_O, PyDoc_STR("What is there, up to so many records.")},
    {"drain_bytes", (PyCFunction)mailbox_drain_bytes, METH_O, PyDoc_STR("Their bodies alone.")},
    {"take", (PyCFunction)mailbox_take_record, METH_NOARGS, PyDoc_STR("The next record, or None.")},
    {"has_mail", (PyCFunction)mailbox_has_mail, METH_NOARGS, PyDoc_STR("Whether there may be something to take.")},
    {"arm", (PyCFunction)mailbox_arm_all, METH_NOARGS, PyDoc_STR("Whether the caller may sleep on fileno().")},
    {"disarm", (PyCFunction)mailbox_disarm_all, METH_NOARGS, PyDoc_STR("Awake again.")},
    {"samples", (PyCFunction)mailbox_samples, METH_NOARGS, PyDoc_STR("How long some records took, since last asked.")},
    {"sweep", (PyCFunction)mailbox_sweep_out, METH_NOARGS, PyDoc_STR("Let go of what is over.")},
    {"add_doorbell", (PyCFunction)mailbox_add_doorbell, METH_O, PyDoc_STR("An eventfd that senders ring.")},
    {"remove_doorbell", (PyCFunction)mailbox_remove_doorbell, METH_O, PyDoc_STR("One that nobody rings any more.")},
    {"wake", (PyCFunction)mailbox_wake, METH_NOARGS, PyDoc_STR("Have who sleeps here look again.")},
    {"interrupt", (PyCFunction)mailbox_interrupt, METH_NOARGS, PyDoc_STR("Have who waits here come back.")},
    {"makes", (PyCFunction)mailbox_makes, METH_O, PyDoc_STR("What receive() makes from now on.")},
    {"fileno", (PyCFunction)mailbox_fileno, METH_NOARGS, PyDoc_STR("Readable when a doorbell was rung.")},
    {"incomings", (PyCFunction)mailbox_incomings, METH_NOARGS, PyDoc_STR("Every pair in it.")},
    {"close", (PyCFunction)mailbox_close, METH_NOARGS, PyDoc_STR("Let go of everything.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef mailbox_members[] = {
    {"changing", T_INT, offsetof(struct mailbox_object, changed), READONLY, PyDoc_STR("A change is to come.")},
    {"busy", T_INT, offsetof(struct mailbox_object, busy), READONLY, PyDoc_STR("Whether a thread reads here.")},
    {"shut", T_BOOL, offsetof(struct mailbox_object, shut), 0,
     PyDoc_STR("Whether receive() and drain() give nothing.")},
    {"sampled", T_INT, offsetof(struct mailbox_object, sampled), READONLY, PyDoc_STR("How many samples there are.")},
    {"n_taken", T_ULONGLONG, offsetof(struct mailbox_object, n_taken), READONLY, PyDoc_STR("How many records.")},
    {"closed", T_INT, offsetof(struct mailbox_object, closed), READONLY, PyDoc_STR("Whether it is closed.")},
    {"spin_ns", T_LONGLONG, offsetof(struct mailbox_object, spin_ns), 0,
     PyDoc_STR("How long it looks before it sleeps.")},
    {"without_look", T_UINT, offsetof(struct mailbox_object, looking.without), READONLY,
     PyDoc_STR("How many waits to come sleep at once.")},
    {NULL, 0, 0, 0, NULL},
};

/* Not const: a slot is a plain pointer. */
static char mailbox_doc[] = "The pairs of one lane, read by one thread at a time.";

static PyType_Slot mailbox_slots[] = {
    {Py_tp_new, mailbox_new},           {Py_tp_dealloc, mailbox_dealloc},
    {Py_tp_traverse, mailbox_traverse}, {Py_tp_clear, mailbox_clear},
    {Py_tp_methods, mailbox_methods},   {Py_tp_members, mailbox_members},
    {Py_tp_doc, mailbox_doc},           {0, NULL},
};

static PyType_Spec mailbox_spec = {
    .name = "agentd._native.Mailbox",
    .basicsize = sizeof(struct mailbox_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = mailbox_slots,
};

int add_mailbox(PyObject *module)
{
    PyTypeObject *type = add_type(module, &mailbox_spec);

    Py_XDECREF(type);
    return type ? 0 : -1;
}
