/* How a mailbox is waited for: by looking, and asleep. What is made of a record is module_reading.c's. */
#include "clock.h"
#include "module_mailbox.h"

#include <sys/epoll.h>

/* Scans with the GIL kept, before others may have it: a reply that comes at once is not worth a hand-over. */
enum { PATIENT_SCANS = 400, SCANS_A_LOOK = 64 };

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

static bool may_take(struct mailbox_object *self)
{
    struct mailbox_entry *entry;
    const uint8_t *bytes;
    uint32_t size;

    return mailbox_peek(&self->mailbox, &entry, &bytes, &size) != 0 ||
           atomic_load_explicit(&self->changed, memory_order_relaxed);
}

static bool something_there(struct mailbox_object *self)
{
    return may_take(self) || atomic_load_explicit(&self->interrupted, memory_order_relaxed);
}

PyObject *mailbox_has_mail(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    bool found;

    if (!mailbox_enter(self))
        return NULL;
    found = may_take(self);
    mailbox_leave(self);
    return PyBool_FromLong(found);
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
    } while (!found && clock_monotonic_ns() < until_ns);
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
    enough_ns = clock_monotonic_ns() + self->spin_ns;
    found = look(self, enough_ns < until_ns ? enough_ns : until_ns);
    if (found || enough_ns <= until_ns) /* else it was too short to say anything */
        looking_ended(&self->looking, found);
}

/* Sleep until a doorbell rings; 0, or -1 with an exception set. */
static int sleep_armed(struct mailbox_object *self, int64_t until_ns)
{
    struct epoll_event rung[MAILBOX_MAX_HEARD];
    int64_t left_ns = until_ns - clock_monotonic_ns();
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

static PyObject *wait_for_one(struct mailbox_object *self, mailbox_copy *copy, int64_t until_ns)
{
    for (bool begun = false;; begun = true) {
        PyObject *taken;
        int empty;

        if (self->closed || self->shut)
            Py_RETURN_NONE;
        taken = mailbox_take_one(self, copy);
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
        if (until_ns != INT64_MAX && clock_monotonic_ns() >= until_ns)
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
        *until_ns = clock_monotonic_ns() + (timeout_s > 0 ? (int64_t)(timeout_s * 1e9) : 0);
    return 0;
}

static PyObject *
receive(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n_args, PyObject *names, mailbox_copy *copy)
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
    return receive(self, args, n, names, mailbox_copy_record);
}

PyObject *mailbox_receive_bytes(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return receive(self, args, n, names, mailbox_copy_body);
}
