/* The sender's side of a pool: bodies copied into it, and Block, a place in it to fill. See agentd/_native.pyi. */
#include "module_pool.h"

#include "clock.h"

/* Of a body that stays in a core's cache, and so many of which are copied in a few ns. */
enum { CACHED_BYTES = 1 << 20, BYTES_A_NS = 64 };

/* Writable, with or without the GIL: 0, or why it can't be. */
static int populate(struct channel *channel, const struct record_reference *reference, const void *body)
{
    struct pool *pool = channel->pool;
    int error;

    if (reference->size < POOL_PATIENT_BYTES) {
        error = pool_populate(pool, reference);
        if (!error && body)
            memcpy(pool_block(pool, reference), body, reference->size);
    } else {
        PyThreadState *state;

        channel_pin(channel);
        state = PyEval_SaveThread();
        error = pool_populate(pool, reference);
        if (!error && body)
            memcpy(pool_block(pool, reference), body, reference->size);
        PyEval_RestoreThread(state);
        channel_unpin(channel);
    }
    if (!error)
        pool_is_populated(pool, reference);
    return error;
}

/* Whether the ring has room for the record of a block: it would be a pity to learn that after the copy. */
static int check_ring_room(struct channel *channel, const struct record_header *header)
{
    struct ring_writer *ring = &channel->pair.sender.ring;
    uint8_t *room;
    int error = ring_claim(
        ring, record_overhead(header->flags, header->details_bytes) + (uint32_t)sizeof(struct record_reference), &room);

    ring_abort(ring);
    return error;
}

/* The record of a block that is filled: its position, or -errno and the block is the caller's still. */
static int64_t write_reference(
    struct channel *channel, const struct record_header *header, uint64_t deadline_ns, const void *details,
    const struct record_reference *reference)
{
    struct record_header pooled = *header;
    int64_t position;

    pooled.flags |= RECORD_POOLED;
    position = channel_write_record(channel, &pooled, deadline_ns, details, reference, sizeof *reference);
    if (position >= 0)
        /* The receiver may have given it back by now: that is seen when somebody next asks for a block. */
        pool_hand_over(channel->pool, reference);
    return position;
}

/* Where the receiver is about to give back the only block that it has, the next body goes there: what was written last
 * is in this core's cache, and another block is not. That saves a third of a copy, so it is worth a fifth of one. */
static void await_return(struct channel *channel, uint64_t size)
{
    struct pool *pool = channel->pool;

    if (size < POOL_PATIENT_BYTES || size > CACHED_BYTES)
        return;
    pool_collect(pool);
    if (pool->n_out == 1 && looking_pays(&channel->returns))
        looking_ended(&channel->returns, pool_await_returns(pool, clock_monotonic_ns() + (int64_t)(size / BYTES_A_NS)));
}

/* A block, and whoever gives memory back is told when the pool takes more than before. */
static int allocate(struct channel *channel, uint64_t size, struct record_reference *reference)
{
    uint32_t touched = channel->pool->touched;
    int error;

    await_return(channel, size);
    error = pool_allocate(channel->pool, size, reference);

    if (error == -EAGAIN && channel->doorbells)
        doorbells_full(channel->doorbells);
    if (channel->pool->touched > touched && channel->grown && channel->grown != Py_None) {
        PyObject *told = PyObject_CallNoArgs(channel->grown);

        if (!told)
            PyErr_WriteUnraisable(channel->grown);
        Py_XDECREF(told);
    }
    return error;
}

int64_t channel_write_large(
    struct channel *channel, const struct record_header *header, uint64_t deadline_ns, const void *details,
    const void *body, Py_ssize_t size)
{
    struct record_reference reference;
    int64_t position = check_ring_room(channel, header);

    if (!position)
        position = allocate(channel, (uint64_t)size, &reference);
    if (position)
        return position;
    position = populate(channel, &reference, body);
    if (!position)
        position = write_reference(channel, header, deadline_ns, details, &reference);
    if (position < 0)
        pool_take_back(channel->pool, &reference);
    return position;
}

int channel_is_for_hook(const struct channel *channel, PyObject *body, Py_ssize_t size)
{
    return size > channel->max_inline_bytes && channel->pool && channel->large && channel->large != Py_None &&
           (unsigned long long)size >= channel->async_bytes && PyBytes_CheckExact(body);
}

PyObject *channel_send_large(struct channel *channel, PyObject *body)
{
    Py_ssize_t size = PyBytes_GET_SIZE(body);
    struct record_header header = {.content = RECORD_BYTES, .sent_ns = wall_ns()};
    int64_t position;

    if (channel_is_for_hook(channel, body, size))
        return PyObject_CallFunction(channel->large, "OiiyK", body, RECORD_BYTES, 0, "", 0ULL);
    position = channel_write_record(channel, &header, 0, "", PyBytes_AS_STRING(body), size);
    return channel_position_or_refusal(channel, position, size);
}

static struct module_state *state_of(PyTypeObject *type)
{
    return PyModule_GetState(PyType_GetModuleByDef(type, &native_module));
}

PyObject *channel_allocate(struct channel *self, PyObject *size)
{
    Py_ssize_t bytes = PyLong_AsSsize_t(size);
    PyTypeObject *type = state_of(Py_TYPE(self))->block;
    struct block *block;
    int error;

    if (bytes < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "a size can't be negative");
    block = (struct block *)type->tp_alloc(type, 0);
    if (!block)
        return NULL;
    block->channel = (struct channel *)Py_NewRef((PyObject *)self);
    block->state = BLOCK_DROPPED;
    error = channel_may_send(self);
    if (!error)
        error = self->pool ? allocate(self, (uint64_t)bytes, &block->reference) : -EMSGSIZE;
    if (error) {
        Py_DECREF(block);
        return channel_refused(self, error, bytes);
    }
    block->state = BLOCK_OURS;
    return (PyObject *)block;
}

int channel_is_block(struct channel *self, PyObject *object)
{
    if (!PyObject_TypeCheck(object, state_of(Py_TYPE(self))->block))
        return 0;
    if (((struct block *)object)->channel == self)
        return 1;
    PyErr_SetString(PyExc_ValueError, "The block is another channel's: fill one of this channel's");
    return -1;
}

static PyObject *send_block(
    struct channel *self, struct block *block, struct record_header header, uint64_t deadline_ns, Py_buffer *details,
    Py_ssize_t size)
{
    struct record_reference reference = block->reference;
    int64_t position;

    if (block->state != BLOCK_OURS)
        return PyErr_Format(PyExc_ValueError, "The block was sent or given up already: fill another");
    if (size < 0 || (uint64_t)size > reference.size)
        return PyErr_Format(PyExc_ValueError, "%zd bytes of a block of %llu", size, (unsigned long long)reference.size);
    reference.size = (uint64_t)size;
    header.sent_ns = wall_ns();
    position = channel_may_send(self);
    if (!position)
        position = write_reference(self, &header, deadline_ns, details ? details->buf : "", &reference);
    if (position >= 0)
        block->state = BLOCK_SENT;
    return channel_position_or_refusal(self, position, size);
}

PyObject *channel_send_whole(struct channel *self, PyObject *block)
{
    struct block *whole = (struct block *)block;

    return send_block(
        self, whole, (struct record_header){.content = RECORD_BYTES}, 0, NULL, (Py_ssize_t)whole->reference.size);
}

PyObject *channel_send_block(struct channel *self, PyObject *args)
{
    unsigned char content, flags;
    unsigned long long deadline_ns;
    PyObject *object, *size = Py_None, *result = NULL;
    Py_ssize_t bytes;
    Py_buffer details;
    int ours;

    if (!PyArg_ParseTuple(args, "Obby*K|O:send_block", &object, &content, &flags, &details, &deadline_ns, &size))
        return NULL;
    ours = channel_is_block(self, object);
    if (ours == 0)
        PyErr_Format(PyExc_TypeError, "a Block, not %s", Py_TYPE(object)->tp_name);
    if (ours <= 0)
        goto done;
    bytes = size == Py_None ? (Py_ssize_t)((struct block *)object)->reference.size : PyLong_AsSsize_t(size);
    if (bytes == -1 && PyErr_Occurred())
        goto done;
    if (content >= RECORD_N_CONTENTS || flags & ~(RECORD_FLAGS & ~RECORD_POOLED) || details.len > UINT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "no such content, flags or details");
        goto done;
    }
    result = send_block(
        self, (struct block *)object,
        (struct record_header){
            .content = content,
            .flags = (uint8_t)((flags & ~RECORD_DEADLINE) | (deadline_ns ? RECORD_DEADLINE : 0)),
            .details_bytes = (uint16_t)details.len,
        },
        deadline_ns, &details, bytes);
done:
    PyBuffer_Release(&details);
    return result;
}

/* Whether the pool's words may be looked at. */
static int is_usable(const struct channel *self)
{
    return self->pool && !self->closed && pair_is_own(&self->pair);
}

PyObject *channel_trim(struct channel *self, PyObject *keep_bytes)
{
    unsigned long long keep = PyLong_AsUnsignedLongLong(keep_bytes);
    int64_t given;

    if (keep == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    given = is_usable(self) ? pool_trim(self->pool, keep) : 0;
    return given < 0 ? raise_errno(given) : PyLong_FromLongLong(given);
}

PyObject *channel_get_lent(struct channel *self, void *Py_UNUSED(unused))
{
    if (!is_usable(self))
        return PyLong_FromLong(0);
    pool_collect(self->pool);
    return PyLong_FromUnsignedLong(self->pool->n_out);
}

PyObject *channel_get_touched(struct channel *self, void *Py_UNUSED(unused))
{
    return PyLong_FromUnsignedLongLong(is_usable(self) ? (uint64_t)self->pool->touched * POOL_PAGE_BYTES : 0);
}

/* Block. */

static void drop_if_unused(struct block *self)
{
    if (self->state == BLOCK_DROPPED && !self->n_exports)
        pool_take_back(self->channel->pool, &self->reference);
}

static PyObject *block_abandon(struct block *self, PyObject *Py_UNUSED(unused))
{
    if (self->state == BLOCK_SENT)
        return PyErr_Format(PyExc_ValueError, "The block was sent: it comes back when its receiver has read it");
    if (self->state != BLOCK_DROPPED) {
        self->state = BLOCK_DROPPED;
        drop_if_unused(self); /* else when the last buffer of it is gone */
    }
    Py_RETURN_NONE;
}

static PyObject *block_exit(struct block *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n_args))
{
    return self->state == BLOCK_OURS ? block_abandon(self, NULL) : Py_NewRef(Py_None);
}

static PyObject *block_enter(struct block *self, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef((PyObject *)self);
}

static PyObject *block_reference(struct block *self, PyObject *args)
{
    struct record_reference reference = self->reference;
    unsigned long long size = reference.size;

    if (!PyArg_ParseTuple(args, "|K:reference", &size))
        return NULL;
    if (self->state != BLOCK_OURS || self->channel->closed)
        return PyErr_Format(PyExc_ValueError, "The block was sent or given up already, or its channel is closed");
    if (size > reference.size)
        return PyErr_Format(
            PyExc_ValueError, "%llu bytes of a block of %llu", size, (unsigned long long)reference.size);
    reference.size = size;
    pool_hand_over(self->channel->pool, &reference);
    self->state = BLOCK_PROMISED;
    return PyBytes_FromStringAndSize((const char *)&reference, sizeof reference);
}

static int block_getbuffer(struct block *self, Py_buffer *view, int flags)
{
    struct channel *channel = self->channel;
    int error;

    view->obj = NULL;
    if (self->state != BLOCK_OURS) {
        PyErr_SetString(PyExc_BufferError, "The block was sent or given up: it is not to be written any more");
        return -1;
    }
    if (!check_own(channel->pair.forks))
        return -1;
    error = channel->closed ? -ESHUTDOWN : populate(channel, &self->reference, NULL);
    if (!error && (channel->closed || self->state != BLOCK_OURS)) /* meanwhile */
        error = -ESHUTDOWN;
    if (error) {
        channel_refused(channel, error, (Py_ssize_t)self->reference.size);
        return -1;
    }
    if (PyBuffer_FillInfo(
            view, (PyObject *)self, pool_block(channel->pool, &self->reference), (Py_ssize_t)self->reference.size, 0,
            flags) < 0)
        return -1;
    self->n_exports++;
    channel_pin(channel);
    return 0;
}

static void block_releasebuffer(struct block *self, Py_buffer *Py_UNUSED(view))
{
    self->n_exports--;
    drop_if_unused(self);
    channel_unpin(self->channel);
}

static PyObject *get_buffer(PyObject *self, void *Py_UNUSED(unused))
{
    return PyMemoryView_FromObject(self);
}

static Py_ssize_t block_length(struct block *self)
{
    return (Py_ssize_t)self->reference.size;
}

static int block_traverse(struct block *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->channel);
    return 0;
}

/* What was never sent is free again; what a promise was made of comes back from the receiver. */
static void block_dealloc(struct block *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->state == BLOCK_OURS)
        pool_take_back(self->channel->pool, &self->reference);
    Py_DECREF(self->channel);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef block_methods[] = {
    {"reference", (PyCFunction)block_reference, METH_VARARGS, PyDoc_STR("What a record that is written later has.")},
    {"abandon", (PyCFunction)block_abandon, METH_NOARGS, PyDoc_STR("It will not be sent.")},
    {"__enter__", (PyCFunction)block_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))block_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef block_members[] = {
    {"slot", T_UINT, offsetof(struct block, reference.slot), READONLY, PyDoc_STR("Its place among the pool's.")},
    {"generation", T_ULONGLONG, offsetof(struct block, reference.generation), READONLY, PyDoc_STR("Its own.")},
    {"offset", T_ULONGLONG, offsetof(struct block, reference.offset), READONLY, PyDoc_STR("In the pair's memory.")},
    {"size", T_ULONGLONG, offsetof(struct block, reference.size), READONLY, PyDoc_STR("In bytes.")},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef block_getset[] = {
    {"buffer", get_buffer, NULL, PyDoc_STR("Its memory, to fill."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* Not const: a slot is a plain pointer. */
static char block_doc[] = "A place in the pool for one body.";

static PyType_Slot block_slots[] = {
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_traverse, block_traverse},
    {Py_tp_methods, block_methods},
    {Py_tp_members, block_members},
    {Py_tp_getset, block_getset},
    {Py_tp_doc, block_doc},
    {Py_sq_length, block_length},
    {Py_bf_getbuffer, block_getbuffer},
    {Py_bf_releasebuffer, block_releasebuffer},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "agentd._native.Block",
    .basicsize = sizeof(struct block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};

int add_block(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    state->block = add_type(module, &block_spec);
    return state->block ? 0 : -1;
}
