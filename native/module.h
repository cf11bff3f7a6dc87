/* What the files that bind the core to Python share. They alone include Python.h. SPDX-License-Identifier: MIT */
#ifndef AGENTD_MODULE_H
#define AGENTD_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <stdint.h>

#include "looking.h"
#include "mailbox.h"
#include "record.h"

struct module_state {
    PyTypeObject *record;
    PyTypeObject *incoming;
    PyTypeObject *engine;
    PyTypeObject *doorbells;
    PyTypeObject *block;
    PyTypeObject *borrowed;
    PyTypeObject *view;
};

extern struct PyModuleDef native_module;

/* The single place where −errno becomes an exception: OSError or its subclass for that number. */
PyObject *raise_errno(int64_t result);

/* Add a type of this module to it: a new reference, or NULL. */
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec);

/* Attach one end of a pair from the arguments that Channel and Incoming share; false with an exception set. */
int attach_from_args(PyObject *args, struct pair *pair, enum pair_end end, int *doorbell_fd, PyObject **more);

/* Wake whoever sleeps on the doorbell. One that is rung already stays so. */
void ring_doorbell(int doorbell_fd);

/* False, with an exception set, in a child of the process that attached. */
int check_own(uint32_t forks);

/* Everything a binding file adds. */
int add_channel(PyObject *module);
int add_incoming(PyObject *module);
int add_mailbox(PyObject *module);
int add_block(PyObject *module);
int add_borrowed(PyObject *module);
int add_engine(PyObject *module);
int add_doorbells(PyObject *module);
int add_journal(PyObject *module);

/* Why an engine, or doorbells over one, can't do it, as an exception: NULL. */
PyObject *raise_engine(int error);

struct uring;

/* What is inside an Engine, as long as that lives. */
struct uring *engine_uring(PyObject *engine);

struct doorbells;
struct later;
struct pool;

/* A channel as its doorbells see it. */
struct bell {
    struct pair *pair;
    const int *fd;
    struct bell *next;
    struct bell **at; /* what points at it among those that wait for the end of the burst; NULL: it does not wait */
};

/* The sender's end of a pair: Channel, in module_channel.c. */
struct channel {
    PyObject_HEAD struct pair pair;
    int doorbell_fd; /* of the receiver */
    /* The kernel may still ring it: never closed, or it would write into whatever has that number next. */
    char doorbell_is_lent;
    int closed;
    int ended; /* the receiver is gone, by other evidence than its gate */
    uint64_t sent;
    uint64_t read_to;            /* by the receiver, once it is closed */
    PyObject *encode;            /* what is neither bytes nor str becomes (content, bytes) */
    PyObject *refuse;            /* raises what an errno and a size mean */
    struct doorbells *doorbells; /* what it rings through, or NULL: by write(2) */
    struct bell bell;
    struct later *laters; /* module_later.c */
    uint32_t n_laters;
    Py_ssize_t max_inline_bytes; /* of a body that rides in the ring */
    struct pool *pool;           /* NULL where the pair has none */
    struct looking returns;      /* for the one block that the receiver has */
    uint32_t n_pins;             /* who uses its memory beyond a call: it stays mapped until they are done */
    PyObject *large;             /* sends bytes of at least async_bytes in its own way, or None */
    unsigned long long async_bytes;
    PyObject *grown; /* told when the pool comes to take more memory, or None */
};

/* The error as the caller's own kind of exception: NULL. */
PyObject *channel_refused(struct channel *channel, int error, Py_ssize_t size);

/* Whether it may send: 0, or -errno. */
int channel_may_send(const struct channel *channel);

/* One record, announced: its position, or -errno. */
int64_t channel_write_record(
    struct channel *channel, const struct record_header *header, uint64_t deadline_ns, const void *details,
    const void *body, Py_ssize_t body_bytes);

/* What send() and ask() give: the position, or NULL where it is -errno. */
PyObject *channel_position_or_refusal(struct channel *channel, int64_t position, Py_ssize_t size);

/* CLOCK_REALTIME, in ns. */
uint64_t wall_ns(void);

/* Nobody unmaps its memory between these two. */
void channel_pin(struct channel *channel);
void channel_unpin(struct channel *channel);

/* What is written is in the ring: whoever sleeps is to read it, now or at the end of a burst. */
void channel_announce(struct channel *channel, uint64_t now_ns);

/* One record from the arguments of ask(), to be committed later where that is given: its position, or NULL. */
PyObject *channel_write_asked(struct channel *channel, PyObject *args, struct ring_later *later);

/* Its methods that write records at once. */
PyObject *channel_send(struct channel *channel, PyObject *body);
PyObject *channel_ask(struct channel *channel, PyObject *args);

/* The receiver's end of a pair: Incoming, in module_incoming.c. */
struct incoming {
    PyObject_HEAD struct mailbox_entry entry; /* a mailbox that holds it finds the object by this member */
    int doorbell_fd;                          /* of the sender, who waits for verdicts */
    int closed;
    _Atomic int ended; /* nobody writes any more: take it out when it is empty */
    uint32_t n_held;   /* blocks of the sender's pool that were not given back: while there are any it stays mapped */
    struct borrowed *oldest, *newest;
    PyObject *holds; /* told when it holds one and held none, or None */
};

static inline struct incoming *incoming_of(struct mailbox_entry *entry)
{
    return (struct incoming *)(void *)((char *)entry - offsetof(struct incoming, entry));
}

/* Tell the sender what became of its record: 0; -EAGAIN when it does not read; or as ring_claim(). */
int incoming_settle(
    struct incoming *incoming, uint64_t position, enum record_state state, uint8_t content, const void *payload,
    uint32_t payload_bytes);

/* A message's record, copied: Record, in module_incoming.c. Its subclasses may add no members. */
struct record_object {
    PyObject_HEAD PyObject *source; /* the Incoming */
    PyObject *body;                 /* bytes, or what is borrowed of the pool until somebody reads it */
    PyObject *details;              /* bytes, or NULL */
    PyObject *decoded;              /* for the face's use */
    PyObject *window;               /* for the face's use */
    uint64_t position;
    uint64_t sent_ns;
    uint64_t deadline_ns;
    uint8_t content;
    uint8_t flags;
    char settled;
};

#endif
