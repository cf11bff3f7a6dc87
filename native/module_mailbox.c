/* Mailbox: the pairs of one lane, read by one thread at a time. Documented in agentd/_native.pyi. */
#include "module.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Scans with the GIL kept, before others may have it: a reply that comes at once is not worth a hand-over. */
enum { PATIENT_SCANS = 400, SCANS_A_LOOK = 64, MAX_DOORBELLS = 16 };

struct mailbox_object {
    PyObject_HEAD struct mailbox mailbox;
    PyTypeObject *record; /* what receive() makes */
    PyObject *finished;   /* called with each Incoming that was taken out because its sender is gone or broken */
    PyObject *stopped;    /* called with a record that asks to stop */
    PyObject *changes;    /* Incomings to add, and to remove: (incoming, bool) */
    _Atomic int changed;
    _Atomic int interrupted; /* whoever waits is to come back without a record */
    uint32_t forks;
    int epoll_fd;
    int wake_fd;
    int doorbells[MAX_DOORBELLS];
    int n_doorbells;
    int busy; /* a thread is in receive() */
    int closed;
    long long spin_ns;
};

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int watch(struct mailbox_object *self, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

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

static int is_open(struct mailbox_object *self)
{
    if (self->closed) {
        PyErr_SetString(PyExc_ValueError, "This mailbox is closed");
        return 0;
    }
    return check_own(self->forks);
}

/* The object behind an entry leaves the list: whoever had it in there gives up the reference. */
static int take_out(struct mailbox_object *self, struct incoming *incoming, int tell)
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
static int apply_changes(struct mailbox_object *self)
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
            take_out(self, incoming, 0);
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

    if (!is_open(self))
        return NULL;
    if (!PyObject_TypeCheck(incoming, state->incoming))
        return PyErr_Format(PyExc_TypeError, "an Incoming, not %s", Py_TYPE(incoming)->tp_name);
    change = PyTuple_Pack(2, incoming, in);
    if (!change || PyList_Append(self->changes, change) < 0) {
        Py_XDECREF(change);
        return NULL;
    }
    Py_DECREF(change);
    /* PAIRS WITH the acquire in apply_changes(). */
    atomic_store_explicit(&self->changed, 1, memory_order_release);
    if (!self->busy && apply_changes(self) < 0)
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

/* A record, copied: a new reference; NULL without an exception for one that is of no more use. */
static PyObject *
copy_record(struct mailbox_object *self, struct incoming *incoming, const struct record *record, uint64_t position)
{
    struct record_object *made = (struct record_object *)self->record->tp_alloc(self->record, 0);

    if (!made)
        return NULL;
    made->source = Py_NewRef((PyObject *)incoming);
    made->position = position;
    made->sent_ns = record->header.sent_ns;
    made->deadline_ns = record->deadline_ns;
    made->content = record->header.content;
    made->flags = record->header.flags;
    made->body = PyBytes_FromStringAndSize((const char *)record->body, (Py_ssize_t)record->body_bytes);
    if (made->body && record->header.details_bytes)
        made->details = PyBytes_FromStringAndSize((const char *)record->details, record->header.details_bytes);
    if (!made->body || (record->header.details_bytes && !made->details)) {
        Py_DECREF(made);
        return NULL;
    }
    return (PyObject *)made;
}

/* Not for the application: too late, or for its library. 1 when it was that, -1 with an exception set. */
static int
is_not_for_it(struct mailbox_object *self, struct incoming *incoming, const struct record *record, uint64_t position)
{
    PyObject *copied, *told;

    if (record->deadline_ns && (uint64_t)now_ns(CLOCK_BOOTTIME) >= record->deadline_ns) {
        if (record->header.flags & RECORD_ASKED)
            incoming_settle(incoming, position, RECORD_EXPIRED, 0, "", 0);
        return 1;
    }
    if (!(record->header.flags & RECORD_STOP))
        return 0;
    copied = copy_record(self, incoming, record, position);
    told = copied ? PyObject_CallOneArg(self->stopped, copied) : NULL;
    Py_XDECREF(copied);
    Py_XDECREF(told);
    return told ? 1 : -1;
}

/*
 * The next record for the application, in place: 1 and its parts, all still in shared memory; 0 when there is none;
 * -1 with an exception set. It is delivered as soon as the caller has copied it and calls mailbox_take().
 */
static int
next_record(struct mailbox_object *self, struct incoming **incoming, struct record *record, uint64_t *position)
{
    for (;;) {
        struct mailbox_entry *entry = NULL;
        const uint8_t *bytes;
        uint32_t size;
        int found = mailbox_peek(&self->mailbox, &entry, &bytes, &size);

        if (found == 0)
            return 0;
        *incoming = incoming_of(entry);
        if (found < 0 || !record_parse(bytes, size, record)) {
            (*incoming)->ended = 1;
            if (take_out(self, *incoming, 1) < 0)
                return -1;
            continue;
        }
        *position = entry->pair.receiver.ring.position;
        mailbox_next(&self->mailbox, entry, size);
        if (!(record->deadline_ns || record->header.flags & RECORD_STOP))
            return 1;
        found = is_not_for_it(self, *incoming, record, *position);
        if (found == 0)
            return 1;
        mailbox_take(entry);
        if (found < 0)
            return -1;
    }
}

/* What a receive makes of a record. */
typedef PyObject *(*copy_function)(
    struct mailbox_object *self, struct incoming *incoming, const struct record *record, uint64_t position);

static PyObject *
copy_body(struct mailbox_object *self, struct incoming *incoming, const struct record *record, uint64_t position)
{
    PyObject *body = PyBytes_FromStringAndSize((const char *)record->body, (Py_ssize_t)record->body_bytes);

    (void)self;
    /* Nobody can ack what has no name. */
    if (body && record->header.flags & RECORD_ASKED)
        incoming_settle(incoming, position, RECORD_ACKED, 0, "", 0);
    return body;
}

/* The next one, or NULL: with an exception set, or because there is none. */
static PyObject *take_one(struct mailbox_object *self, copy_function copy)
{
    struct incoming *incoming;
    struct record record;
    uint64_t position;
    PyObject *taken;

    if (next_record(self, &incoming, &record, &position) <= 0)
        return NULL;
    taken = copy(self, incoming, &record, position);
    mailbox_take(&incoming->entry);
    return taken;
}

/* Those whose sender is gone and who are empty leave. */
static int sweep(struct mailbox_object *self)
{
    for (uint32_t i = self->mailbox.n_entries; i-- > 0;) {
        struct mailbox_entry *entry = self->mailbox.entries[i];
        struct incoming *incoming = incoming_of(entry);
        /* PAIRS WITH the releases in method_end() and pair_set_gate(): what it wrote last is seen below. */
        int ended =
            atomic_load_explicit(&incoming->ended, memory_order_acquire) || pair_peer(&entry->pair) == -ESHUTDOWN;
        const uint8_t *body;
        uint32_t size;

        if (ended && ring_peek(&entry->pair.receiver.ring, &body, &size) <= 0 && take_out(self, incoming, 1) < 0)
            return -1;
        if (i > self->mailbox.n_entries)
            i = self->mailbox.n_entries;
    }
    return 0;
}

static void hush(struct mailbox_object *self)
{
    uint64_t rung;

    mailbox_disarm(&self->mailbox);
    for (int i = 0; i < self->n_doorbells; i++)
        (void)!read(self->doorbells[i], &rung, sizeof rung);
    (void)!read(self->wake_fd, &rung, sizeof rung);
}

/* Armed and still empty: 1, and the caller may sleep; 0 when there is something to do; -1. */
static int arm(struct mailbox_object *self)
{
    struct mailbox_entry *entry;
    const uint8_t *bytes;
    uint32_t size;

    if (apply_changes(self) < 0 || sweep(self) < 0)
        return -1;
    mailbox_arm(&self->mailbox);
    if (mailbox_peek(&self->mailbox, &entry, &bytes, &size) == 0 && !self->changed)
        return 1;
    mailbox_disarm(&self->mailbox);
    return 0;
}

static int something_there(struct mailbox_object *self)
{
    struct mailbox_entry *entry;
    const uint8_t *bytes;
    uint32_t size;

    return mailbox_peek(&self->mailbox, &entry, &bytes, &size) != 0 ||
           atomic_load_explicit(&self->changed, memory_order_relaxed) ||
           atomic_load_explicit(&self->interrupted, memory_order_relaxed);
}

/* Look for at most `spin_ns`, first with the GIL, then without. */
static void spin(struct mailbox_object *self, int64_t until_ns)
{
    for (int i = 0; i < PATIENT_SCANS; i++)
        if (something_there(self))
            return;
    Py_BEGIN_ALLOW_THREADS do
    {
        for (int i = 0; i < SCANS_A_LOOK; i++)
            if (something_there(self)) {
                until_ns = INT64_MIN;
                break;
            }
    }
    while (now_ns(CLOCK_MONOTONIC) < until_ns)
        ;
    Py_END_ALLOW_THREADS
}

/* Sleep until a doorbell rings; 0, or -1 with an exception set. */
static int sleep_armed(struct mailbox_object *self, int64_t until_ns)
{
    struct epoll_event event;
    int64_t left_ns = until_ns - now_ns(CLOCK_MONOTONIC);
    int timeout_ms = until_ns == INT64_MAX     ? -1
                     : left_ns <= 0            ? 0
                     : left_ns > 3600000000000 ? 3600000
                                               : (int)((left_ns + 999999) / 1000000);
    int woken;

    Py_BEGIN_ALLOW_THREADS woken = epoll_wait(self->epoll_fd, &event, 1, timeout_ms);
    Py_END_ALLOW_THREADS if (woken < 0 && errno != EINTR)
    {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return PyErr_CheckSignals();
}

static PyObject *wait_for_one(struct mailbox_object *self, copy_function copy, int64_t until_ns)
{
    for (;;) {
        PyObject *taken = take_one(self, copy);
        int64_t spin_until_ns;
        int empty;

        if (taken || PyErr_Occurred())
            return taken;
        if (self->spin_ns) {
            spin_until_ns = now_ns(CLOCK_MONOTONIC) + self->spin_ns;
            spin(self, spin_until_ns < until_ns ? spin_until_ns : until_ns);
        }
        if (atomic_exchange_explicit(&self->interrupted, 0, memory_order_acquire))
            Py_RETURN_NONE;
        if (something_there(self)) {
            if (apply_changes(self) < 0)
                return NULL;
            continue;
        }
        if (until_ns != INT64_MAX && now_ns(CLOCK_MONOTONIC) >= until_ns)
            Py_RETURN_NONE;
        empty = arm(self);
        if (empty > 0)
            empty = sleep_armed(self, until_ns);
        hush(self);
        if (empty < 0)
            return NULL;
    }
}

static int parse_timeout(PyObject *const *args, Py_ssize_t n_args, PyObject *names, int64_t *until_ns)
{
    Py_ssize_t n_names = names ? PyTuple_GET_SIZE(names) : 0;
    double timeout_s;

    *until_ns = INT64_MAX;
    if (n_args + n_names > 1 ||
        (n_names && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "timeout") != 0)) {
        PyErr_SetString(PyExc_TypeError, "the one argument is timeout");
        return -1;
    }
    if (n_args + n_names == 0 || args[0] == Py_None)
        return 0;
    timeout_s = PyFloat_AsDouble(args[0]);
    if (timeout_s == -1.0 && PyErr_Occurred())
        return -1;
    if (timeout_s < 1e9)
        *until_ns = now_ns(CLOCK_MONOTONIC) + (timeout_s > 0 ? (int64_t)(timeout_s * 1e9) : 0);
    return 0;
}

static PyObject *
receive(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n_args, PyObject *names, copy_function copy)
{
    PyObject *taken = NULL;
    int64_t until_ns;

    if (parse_timeout(args, n_args, names, &until_ns) < 0 || !is_open(self))
        return NULL;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "Another thread waits here already");
        return NULL;
    }
    self->busy = 1;
    Py_INCREF(self);
    if (apply_changes(self) == 0)
        taken = wait_for_one(self, copy, until_ns);
    self->busy = 0;
    Py_DECREF(self);
    return taken;
}

static PyObject *mailbox_receive(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return receive(self, args, n, names, copy_record);
}

static PyObject *
mailbox_receive_bytes(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return receive(self, args, n, names, copy_body);
}

/* All that is there, up to n: they are delivered together. */
static PyObject *drain(struct mailbox_object *self, PyObject *n, copy_function copy)
{
    Py_ssize_t limit = PyLong_AsSsize_t(n);
    PyObject *taken;

    if ((limit == -1 && PyErr_Occurred()) || !is_open(self))
        return NULL;
    if (self->busy)
        return PyErr_Format(PyExc_RuntimeError, "Another thread waits here already");
    taken = PyList_New(0);
    if (!taken || apply_changes(self) < 0)
        goto failed;
    while (PyList_GET_SIZE(taken) < limit) {
        struct incoming *incoming;
        struct record record;
        uint64_t position;
        PyObject *one;
        int found = next_record(self, &incoming, &record, &position);

        if (found < 0)
            goto failed;
        if (found == 0)
            break;
        one = copy(self, incoming, &record, position);
        if (!one || PyList_Append(taken, one) < 0) {
            Py_XDECREF(one);
            goto failed;
        }
        Py_DECREF(one);
        mailbox_take(&incoming->entry);
    }
    return taken;
failed:
    Py_XDECREF(taken);
    return NULL;
}

static PyObject *mailbox_drain(struct mailbox_object *self, PyObject *n)
{
    return drain(self, n, copy_record);
}

static PyObject *mailbox_drain_bytes(struct mailbox_object *self, PyObject *n)
{
    return drain(self, n, copy_body);
}

static PyObject *mailbox_take_record(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    PyObject *taken;

    if (!is_open(self))
        return NULL;
    if (self->busy)
        return PyErr_Format(PyExc_RuntimeError, "Another thread waits here already");
    taken = apply_changes(self) < 0 ? NULL : take_one(self, copy_record);
    return taken || PyErr_Occurred() ? taken : Py_NewRef(Py_None);
}

static PyObject *mailbox_arm_all(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    int empty = is_open(self) ? arm(self) : -1;

    return empty < 0 ? NULL : PyBool_FromLong(empty);
}

static PyObject *mailbox_disarm_all(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    if (!is_open(self))
        return NULL;
    hush(self);
    Py_RETURN_NONE;
}

static PyObject *mailbox_add_doorbell(struct mailbox_object *self, PyObject *fd)
{
    long doorbell = PyLong_AsLong(fd);

    if ((doorbell == -1 && PyErr_Occurred()) || !is_open(self))
        return NULL;
    if (self->n_doorbells == MAX_DOORBELLS) { /* agentd came back that often: the oldest has no sender left */
        close(self->doorbells[0]);
        memmove(self->doorbells, self->doorbells + 1, (MAX_DOORBELLS - 1) * sizeof *self->doorbells);
        self->n_doorbells--;
    }
    if (watch(self, (int)doorbell) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    self->doorbells[self->n_doorbells++] = (int)doorbell;
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
    return is_open(self) ? PyLong_FromLong(self->epoll_fd) : NULL;
}

static PyObject *mailbox_incomings(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    PyObject *list = PyList_New(0);

    if (list && apply_changes(self) < 0)
        Py_CLEAR(list);
    for (uint32_t i = 0; list && i < self->mailbox.n_entries; i++)
        if (PyList_Append(list, (PyObject *)incoming_of(self->mailbox.entries[i])) < 0)
            Py_CLEAR(list);
    return list;
}

static int mailbox_clear(struct mailbox_object *self)
{
    while (self->mailbox.n_entries > 0)
        take_out(self, incoming_of(self->mailbox.entries[0]), 0);
    Py_CLEAR(self->changes);
    Py_CLEAR(self->finished);
    Py_CLEAR(self->stopped);
    Py_CLEAR(self->record);
    return 0;
}

static PyObject *mailbox_close(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    if (self->busy)
        return PyErr_Format(PyExc_RuntimeError, "A thread waits here: wake it first");
    if (self->closed)
        Py_RETURN_NONE;
    self->closed = 1;
    while (self->mailbox.n_entries > 0)
        take_out(self, incoming_of(self->mailbox.entries[0]), 0);
    for (int i = 0; i < self->n_doorbells; i++)
        close(self->doorbells[i]);
    self->n_doorbells = 0;
    if (self->epoll_fd >= 0)
        close(self->epoll_fd);
    if (self->wake_fd >= 0)
        close(self->wake_fd);
    self->epoll_fd = self->wake_fd = -1;
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
    {"arm", (PyCFunction)mailbox_arm_all, METH_NOARGS, PyDoc_STR("Whether the caller may sleep on fileno().")},
    {"disarm", (PyCFunction)mailbox_disarm_all, METH_NOARGS, PyDoc_STR("Awake again.")},
    {"add_doorbell", (PyCFunction)mailbox_add_doorbell, METH_O, PyDoc_STR("An eventfd that senders ring.")},
    {"wake", (PyCFunction)mailbox_wake, METH_NOARGS, PyDoc_STR("Have who sleeps here look again.")},
    {"interrupt", (PyCFunction)mailbox_interrupt, METH_NOARGS, PyDoc_STR("Have who waits here come back.")},
    {"makes", (PyCFunction)mailbox_makes, METH_O, PyDoc_STR("What receive() makes from now on.")},
    {"fileno", (PyCFunction)mailbox_fileno, METH_NOARGS, PyDoc_STR("Readable when a doorbell was rung.")},
    {"incomings", (PyCFunction)mailbox_incomings, METH_NOARGS, PyDoc_STR("Every pair in it.")},
    {"close", (PyCFunction)mailbox_close, METH_NOARGS, PyDoc_STR("Let go of everything.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef mailbox_members[] = {
    {"busy", T_INT, offsetof(struct mailbox_object, busy), READONLY, PyDoc_STR("Whether a thread waits here.")},
    {"closed", T_INT, offsetof(struct mailbox_object, closed), READONLY, PyDoc_STR("Whether it is closed.")},
    {"spin_ns", T_LONGLONG, offsetof(struct mailbox_object, spin_ns), 0,
     PyDoc_STR("How long it looks before it sleeps.")},
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
