/* Large bodies as Python sees them: Block, which a sender fills (module_pool.c), and what a receiver has of one until
 * it gives it back (module_borrowed.c). SPDX-License-Identifier: MIT */
#ifndef AGENTD_MODULE_POOL_H
#define AGENTD_MODULE_POOL_H

#include "module_doorbells.h"
#include "pool.h"

/* Copies of so many bytes let other threads have the interpreter meanwhile. */
#define POOL_PATIENT_BYTES (256u << 10)

enum block_state {
    BLOCK_OURS,     /* to fill */
    BLOCK_PROMISED, /* somebody commits a record that refers to it, or abandons it */
    BLOCK_SENT,     /* the receiver's */
    BLOCK_DROPPED,  /* nobody's */
};

/* A block of a sender's pool. */
struct block {
    PyObject_HEAD struct channel *channel;
    struct record_reference reference;
    enum block_state state;
    uint32_t n_exports; /* buffers that somebody has of it */
};

/* A block that a receiver has: in the list of its Incoming, by age, until it is given back. */
struct borrowed {
    PyObject_HEAD struct incoming *source;
    struct borrowed *older, *newer;
    struct record_reference reference;
    int64_t since_ns; /* CLOCK_MONOTONIC */
    uint32_t n_users; /* views, and copies that are being made */
    char viewed;      /* somebody had a view of it */
    char settled;     /* its message is finished */
    char given_back;
};

/* A body too large for the ring, by way of the pool: the record's position, or -errno. May let go of the GIL. */
int64_t channel_write_large(
    struct channel *channel, const struct record_header *header, uint64_t deadline_ns, const void *details,
    const void *body, Py_ssize_t size);

/* Whether its owner sends that body in a way of its own. */
int channel_is_for_hook(const struct channel *channel, PyObject *body, Py_ssize_t size);
/* send() of bytes that do not ride in the ring. */
PyObject *channel_send_large(struct channel *channel, PyObject *body);

/* Whether it is a block, of this channel: 1; 0 when it is none; -1 with an exception set when it is another's. */
int channel_is_block(struct channel *channel, PyObject *object);
/* Send all of it, as bytes. */
PyObject *channel_send_whole(struct channel *channel, PyObject *block);

/* Methods of Channel, and its properties. */
PyObject *channel_allocate(struct channel *channel, PyObject *size);
PyObject *channel_send_block(struct channel *channel, PyObject *args);
PyObject *channel_trim(struct channel *channel, PyObject *keep_bytes);
PyObject *channel_get_lent(struct channel *channel, void *unused);
PyObject *channel_get_touched(struct channel *channel, void *unused);

/* What the record is of: a new reference, or NULL. */
struct borrowed *borrow(PyTypeObject *type, struct incoming *incoming, const struct record_reference *reference);
/* Its bytes, copied; it stays borrowed. */
PyObject *borrowed_copy(struct borrowed *borrowed);
/* Its message is finished, or is not after all. */
void borrowed_settle(struct borrowed *borrowed, char settled);

/* A view of bytes, or of what is borrowed. */
PyObject *view_of(PyTypeObject *type, PyObject *whole, int is_borrowed);

#endif
