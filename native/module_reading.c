/* How a mailbox is read: copying records out, and waiting for them. */
#include "module_mailbox.h"
#include "module_pool.h"

#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* Scans with the GIL kept, before others may have it: a reply that comes at once is not worth a hand-over. */
enum { PATIENT_SCANS = 400, SCANS_A_LOOK = 64, SAMPLE_OF = 64 };

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* How long some of them took, for those who ask: the first, and one of 64. */
static void sample(struct mailbox_object *self, const struct record *record)
{
    int64_t took_ns;

    if (self->n_taken++ % SAMPLE_OF)
        return;
    took_ns = now_ns(CLOCK_REALTIME) - (int64_t)record->header.sent_ns;
    if (self->sampled < MAILBOX_MAX_SAMPLES)
        self->samples[self->sampled++] = took_ns > 0 ? (uint64_t)took_ns : 0;
}

PyObject *mailbox_samples(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    PyObject *list = PyList_New(self->sampled);

    for (Py_ssize_t i = 0; list && i < self->sampled; i++) {
        PyObject *took = PyLong_FromUnsignedLongLong(self->samples[i]);

        if (!took)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, took);
    }
    if (list)
        self->sampled = 0;
    return list;
}

/* What its sender's pool has, for as long as it is wanted. */
static struct borrowed *borrow_of(struct mailbox_object *self, struct incoming *incoming, const struct record *record)
{
    struct module_state *state = PyModule_GetState(PyType_GetModuleByDef(Py_TYPE(self), &native_module));

    return borrow(state->borrowed, incoming, &record->reference);
}

/* The body of one that is too large for the ring: bytes, in our own memory. */
static PyObject *copy_pooled(struct mailbox_object *self, struct incoming *incoming, const struct record *record)
{
    struct borrowed *borrowed = borrow_of(self, incoming, record);
    PyObject *body = borrowed ? borrowed_copy(borrowed) : NULL;

    Py_XDECREF(borrowed);
    return body;
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
    if (record->header.flags & RECORD_POOLED)
        made->body = (PyObject *)borrow_of(self, incoming, record);
    else
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
        if (record->header.flags & RECORD_POOLED)
            pool_return(&incoming->entry.pair, &record->reference);
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
        if (found < 0 || !record_parse(bytes, size, record) ||
            (record->header.flags & RECORD_POOLED && !pool_find(&entry->pair, record))) {
            (*incoming)->ended = 1;
            if (mailbox_take_out(self, *incoming, 1) < 0)
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
    PyObject *body = record->header.flags & RECORD_POOLED
                         ? copy_pooled(self, incoming, record)
                         : PyBytes_FromStringAndSize((const char *)record->body, (Py_ssize_t)record->body_bytes);

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
    sample(self, &record);
    return taken;
}

/* Those whose sender is gone and who are empty leave. */
int mailbox_sweep(struct mailbox_object *self)
{
    for (uint32_t i = self->mailbox.n_entries; i-- > 0;) {
        struct mailbox_entry *entry = self->mailbox.entries[i];
        struct incoming *incoming = incoming_of(entry);
        /* PAIRS WITH the releases in method_end() and pair_set_gate(): what it wrote last is seen below. */
        int ended =
            atomic_load_explicit(&incoming->ended, memory_order_acquire) || pair_peer(&entry->pair) == -ESHUTDOWN;
        const uint8_t *body;
        uint32_t size;

        if (ended && ring_peek(&entry->pair.receiver.ring, &body, &size) <= 0 &&
            mailbox_take_out(self, incoming, 1) < 0)
            return -1;
        if (i > self->mailbox.n_entries)
            i = self->mailbox.n_entries;
    }
    return 0;
}

void mailbox_hush(struct mailbox_object *self)
{
    struct epoll_event rung[MAILBOX_MAX_HEARD];

    mailbox_disarm(&self->mailbox);
    (void)!epoll_wait(self->epoll_fd, rung, MAILBOX_MAX_HEARD, 0);
}

/* Armed and still empty: 1, and the caller may sleep; 0 when there is something to do; -1. */
int mailbox_arm_or_find(struct mailbox_object *self)
{
    struct mailbox_entry *entry;
    const uint8_t *bytes;
    uint32_t size;

    if (mailbox_apply_changes(self) < 0)
        return -1;
    mailbox_arm(&self->mailbox);
    /* After that: a sender that leaves before it finds nobody armed, and rings no more. */
    if (mailbox_sweep(self) < 0) {
        mailbox_disarm(&self->mailbox);
        return -1;
    }
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

/* Whether there is something before that time: first with the GIL, then without. */
static bool look(struct mailbox_object *self, int64_t until_ns)
{
    PyThreadState *state;
    bool found = false;

    for (int i = 0; i < PATIENT_SCANS; i++)
        if (something_there(self))
            return true;
    state = PyEval_SaveThread();
    do {
        for (int i = 0; i < SCANS_A_LOOK && !found; i++)
            found = something_there(self);
    } while (!found && now_ns(CLOCK_MONOTONIC) < until_ns);
    PyEval_RestoreThread(state);
    return found;
}

/* A wait's first part, for at most `spin_ns` and while that pays. */
static void look_before_sleep(struct mailbox_object *self, int64_t until_ns)
{
    int64_t enough_ns;
    bool found;

    if (!self->spin_ns || !looking_pays(&self->looking))
        return;
    enough_ns = now_ns(CLOCK_MONOTONIC) + self->spin_ns;
    found = look(self, enough_ns < until_ns ? enough_ns : until_ns);
    if (found || enough_ns <= until_ns) /* else it was too short to say anything */
        looking_ended(&self->looking, found);
}

/* Sleep until a doorbell rings; 0, or -1 with an exception set. */
static int sleep_armed(struct mailbox_object *self, int64_t until_ns)
{
    struct epoll_event rung[MAILBOX_MAX_HEARD];
    int64_t left_ns = until_ns - now_ns(CLOCK_MONOTONIC);
    int timeout_ms = until_ns == INT64_MAX     ? -1
                     : left_ns <= 0            ? 0
                     : left_ns > 3600000000000 ? 3600000
                                               : (int)((left_ns + 999999) / 1000000);
    PyThreadState *state = PyEval_SaveThread();
    int woken = epoll_wait(self->epoll_fd, rung, MAILBOX_MAX_HEARD, timeout_ms), error = errno;

    PyEval_RestoreThread(state);
    if (woken < 0 && error != EINTR) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return PyErr_CheckSignals();
}

static PyObject *wait_for_one(struct mailbox_object *self, copy_function copy, int64_t until_ns)
{
    for (bool begun = false;; begun = true) {
        PyObject *taken;
        int empty;

        if (self->closed || self->shut)
            Py_RETURN_NONE;
        taken = take_one(self, copy);
        if (taken || PyErr_Occurred())
            return taken;
        if (!begun)
            look_before_sleep(self, until_ns);
        if (atomic_exchange_explicit(&self->interrupted, 0, memory_order_acquire))
            Py_RETURN_NONE;
        if (something_there(self)) {
            if (mailbox_apply_changes(self) < 0)
                return NULL;
            continue;
        }
        if (until_ns != INT64_MAX && now_ns(CLOCK_MONOTONIC) >= until_ns)
            Py_RETURN_NONE;
        empty = mailbox_arm_or_find(self);
        if (empty > 0)
            empty = sleep_armed(self, until_ns);
        /* A bell that rang too late to be heard here ends the next sleep for nothing, once. */
        mailbox_disarm(&self->mailbox);
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

    if (parse_timeout(args, n_args, names, &until_ns) < 0 || !mailbox_enter(self))
        return NULL;
    /* Who was interrupted a moment too late had something to take; it was not meant for this one. */
    atomic_store_explicit(&self->interrupted, 0, memory_order_relaxed);
    if (mailbox_apply_changes(self) == 0)
        taken = wait_for_one(self, copy, until_ns);
    mailbox_leave(self);
    return taken;
}

PyObject *mailbox_receive(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return receive(self, args, n, names, copy_record);
}

PyObject *mailbox_receive_bytes(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return receive(self, args, n, names, copy_body);
}

/* All that is there, up to n: they are delivered together. */
static PyObject *drain(struct mailbox_object *self, PyObject *n, copy_function copy)
{
    Py_ssize_t limit = PyLong_AsSsize_t(n);
    PyObject *taken;

    if ((limit == -1 && PyErr_Occurred()) || !mailbox_enter(self))
        return NULL;
    taken = PyList_New(0);
    if (!taken || mailbox_apply_changes(self) < 0)
        goto failed;
    while (PyList_GET_SIZE(taken) < limit && !self->shut) {
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
        sample(self, &record);
    }
    mailbox_leave(self);
    return taken;
failed:
    mailbox_leave(self);
    Py_XDECREF(taken);
    return NULL;
}

PyObject *mailbox_drain(struct mailbox_object *self, PyObject *n)
{
    return drain(self, n, copy_record);
}

PyObject *mailbox_drain_bytes(struct mailbox_object *self, PyObject *n)
{
    return drain(self, n, copy_body);
}

PyObject *mailbox_take_record(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    PyObject *taken;

    if (!mailbox_enter(self))
        return NULL;
    taken = mailbox_apply_changes(self) < 0 ? NULL : take_one(self, copy_record);
    mailbox_leave(self);
    return taken || PyErr_Occurred() ? taken : Py_NewRef(Py_None);
}
