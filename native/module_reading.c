/* How a mailbox is read: records are made of what is in its rings. Waiting for them is module_waiting.c. */
#include "module_mailbox.h"
#include "module_pool.h"

#include <time.h>

enum { SAMPLE_OF = 64 };

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
PyObject *mailbox_copy_record(
    struct mailbox_object *self, struct incoming *incoming, const struct record *record, uint64_t position)
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
    copied = mailbox_copy_record(self, incoming, record, position);
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

PyObject *mailbox_copy_body(
    struct mailbox_object *self, struct incoming *incoming, const struct record *record, uint64_t position)
{
    PyObject *body = record->header.flags & RECORD_POOLED
                         ? copy_pooled(self, incoming, record)
                         : PyBytes_FromStringAndSize((const char *)record->body, (Py_ssize_t)record->body_bytes);

    /* Nobody can ack what has no name. */
    if (body && record->header.flags & RECORD_ASKED)
        incoming_settle(incoming, position, RECORD_ACKED, 0, "", 0);
    return body;
}

PyObject *mailbox_take_one(struct mailbox_object *self, mailbox_copy *copy)
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

/* All that is there, up to n: they are delivered together. */
static PyObject *drain(struct mailbox_object *self, PyObject *n, mailbox_copy *copy)
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
    return drain(self, n, mailbox_copy_record);
}

PyObject *mailbox_drain_bytes(struct mailbox_object *self, PyObject *n)
{
    return drain(self, n, mailbox_copy_body);
}

PyObject *mailbox_take_record(struct mailbox_object *self, PyObject *Py_UNUSED(unused))
{
    PyObject *taken;

    if (!mailbox_enter(self))
        return NULL;
    taken = mailbox_apply_changes(self) < 0 ? NULL : mailbox_take_one(self, mailbox_copy_record);
    mailbox_leave(self);
    return taken || PyErr_Occurred() ? taken : Py_NewRef(Py_None);
}
