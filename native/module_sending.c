/* How a channel writes records: send() and ask(). Documented in agentd/_native.pyi. */
#include "module_doorbells.h"
#include "module_pool.h"

#include <time.h>

PyObject *channel_refused(struct channel *self, int error, Py_ssize_t size)
{
    PyObject *raised = PyObject_CallFunction(self->refuse, "in", -error, size);

    Py_XDECREF(raised);
    if (raised)
        raise_errno(error);
    return NULL;
}

static inline int may_send(const struct channel *self)
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

/*
 * What the ring does not take. Apart, and with a header of its own, for the sake of what it does: one that nobody else
 * may look at stays in registers.
 */
static __attribute__((noinline)) int64_t write_elsewhere(
    struct channel *self, struct record_header header, uint64_t deadline_ns, const void *details, const void *body,
    Py_ssize_t body_bytes)
{
    if (!self->pool || header.flags & RECORD_POOLED)
        return -EMSGSIZE;
    return channel_write_large(self, &header, deadline_ns, details, body, body_bytes);
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
    if (body_bytes > self->max_inline_bytes && (!later || body_bytes > (Py_ssize_t)RING_MAX_CAPACITY))
        return later ? -EMSGSIZE : write_elsewhere(self, *header, deadline_ns, details, body, body_bytes);
    error = ring_claim(ring, overhead + (uint32_t)body_bytes, &room);
    if (error == -EAGAIN && self->doorbells)
        doorbells_full(self->doorbells);
    if (error == -EMSGSIZE) /* for its details */
        return later ? -EMSGSIZE : write_elsewhere(self, *header, deadline_ns, details, body, body_bytes);
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

int channel_may_send(const struct channel *self)
{
    return may_send(self);
}

int64_t channel_write_record(
    struct channel *self, const struct record_header *header, uint64_t deadline_ns, const void *details,
    const void *body, Py_ssize_t body_bytes)
{
    return write_record(self, header, deadline_ns, details, body, body_bytes, NULL);
}

PyObject *channel_position_or_refusal(struct channel *self, int64_t position, Py_ssize_t size)
{
    if (position == -EEXIST) /* nothing that the other end or a limit has to do with */
        return PyErr_Format(
            PyExc_RuntimeError,
            "A high channel belongs to the thread that opened it, with its io_uring: connect anew in another thread");
    return position < 0 ? channel_refused(self, (int)position, size) : PyLong_FromLongLong(position);
}

static PyObject *send_plain(struct channel *self, uint8_t content, const void *body, Py_ssize_t size)
{
    struct record_header header = {.content = content, .sent_ns = wall_ns()};

    return channel_position_or_refusal(self, write_record(self, &header, 0, "", body, size, NULL), size);
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

PyObject *channel_send(struct channel *self, PyObject *body)
{
    const char *text;
    Py_ssize_t size;

    if (PyBytes_CheckExact(body)) {
        size = PyBytes_GET_SIZE(body);
        if (size > self->max_inline_bytes)
            return channel_send_large(self, body);
        return send_plain(self, RECORD_BYTES, PyBytes_AS_STRING(body), size);
    }
    if (PyUnicode_CheckExact(body) && (text = PyUnicode_AsUTF8AndSize(body, &size)))
        return send_plain(self, RECORD_TEXT, text, size);
    if (PyErr_Occurred())
        PyErr_Clear(); /* a lone surrogate: encode() says so in its own words */
    switch (channel_is_block(self, body)) {
    case 1:
        return channel_send_whole(self, body);
    case -1:
        return NULL;
    }
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
    /* Who commits later may have a reference, of a block of this channel; nobody else makes one. */
    if (flags & RECORD_POOLED && (!later || body.len != sizeof(struct record_reference)))
        flags = (unsigned char)~RECORD_FLAGS;
    if (content >= RECORD_N_CONTENTS || flags & ~RECORD_FLAGS || details.len > UINT16_MAX) {
        result = PyErr_Format(PyExc_ValueError, "no such content, flags or details");
    } else {
        struct record_header header = {
            .content = content,
            .flags = (uint8_t)((flags & ~RECORD_DEADLINE) | (deadline_ns ? RECORD_DEADLINE : 0)),
            .details_bytes = (uint16_t)details.len,
            .sent_ns = wall_ns(),
        };

        if (!later && channel_is_for_hook(self, PyTuple_GET_ITEM(args, 0), body.len))
            result = PyObject_CallFunction(
                self->large, "OBBOK", PyTuple_GET_ITEM(args, 0), content, header.flags, PyTuple_GET_ITEM(args, 3),
                deadline_ns);
        else
            result = channel_position_or_refusal(
                self, write_record(self, &header, deadline_ns, details.buf, body.buf, body.len, later), body.len);
    }
    PyBuffer_Release(&body);
    PyBuffer_Release(&details);
    return result;
}

PyObject *channel_ask(struct channel *self, PyObject *args)
{
    return channel_write_asked(self, args, NULL);
}
