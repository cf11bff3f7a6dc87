/* What the files that bind the core to Python share. They alone include Python.h. SPDX-License-Identifier: MIT */
#ifndef AGENTD_MODULE_H
#define AGENTD_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <stdint.h>

#include "mailbox.h"
#include "record.h"

struct module_state {
    PyTypeObject *record;
    PyTypeObject *incoming;
    PyTypeObject *engine;
    PyTypeObject *doorbells;
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
int add_engine(PyObject *module);
int add_doorbells(PyObject *module);

/* Why an engine, or doorbells over one, can't do it, as an exception: NULL. */
PyObject *raise_engine(int error);

struct uring;

/* What is inside an Engine, as long as that lives. */
struct uring *engine_uring(PyObject *engine);

/* The receiver's end of a pair: Incoming, in module_incoming.c. */
struct incoming {
    PyObject_HEAD struct mailbox_entry entry; /* a mailbox that holds it finds the object by this member */
    int doorbell_fd;                          /* of the sender, who waits for verdicts */
    int closed;
    _Atomic int ended; /* nobody writes any more: take it out when it is empty */
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
    PyObject *body;
    PyObject *details; /* bytes, or NULL */
    PyObject *decoded; /* for the face's use */
    PyObject *window;  /* for the face's use */
    uint64_t position;
    uint64_t sent_ns;
    uint64_t deadline_ns;
    uint8_t content;
    uint8_t flags;
    char settled;
};

#endif
