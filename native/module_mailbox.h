/* The mailbox as its three binding files share it: the object (module_mailbox.c), what is made of records
 * (module_reading.c), and waiting for them (module_waiting.c). */
#ifndef AGENTD_MODULE_MAILBOX_H
#define AGENTD_MODULE_MAILBOX_H

#include "looking.h"
#include "module.h"

enum { MAILBOX_MAX_SAMPLES = 64 };
/* So many rung doorbells are heard at once; the others wake again. */
enum { MAILBOX_MAX_HEARD = 16 };

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
    int *doorbells;
    int n_doorbells;
    int busy;   /* a thread reads it: nobody else may touch the list, nor unmap what is in it */
    int closed; /* its reader, if it has one, lets go of everything on its way out */
    char shut;  /* receive() and drain() give nothing: their lane was given back */
    int sampled;
    long long spin_ns;
    struct looking looking;
    unsigned long long n_taken;
    uint64_t samples[MAILBOX_MAX_SAMPLES]; /* how long some took, in nanoseconds */
};

/* False, with an exception set, where it is closed or a child's. */
int mailbox_is_open(struct mailbox_object *self);

/* The caller reads it from here to there. False, with an exception set, where it can't. */
int mailbox_enter(struct mailbox_object *self);
void mailbox_leave(struct mailbox_object *self);

/* Take a pair out of the list, and perhaps tell `finished`; what other threads changed meanwhile. 0, or -1. */
int mailbox_take_out(struct mailbox_object *self, struct incoming *incoming, int tell);
int mailbox_apply_changes(struct mailbox_object *self);

/* Let go of those whose sender is gone and who are empty. 0, or -1. */
int mailbox_sweep(struct mailbox_object *self);

/* Armed and still empty: 1, and the caller may sleep; 0 when there is something to do; -1. And awake again. */
int mailbox_arm_or_find(struct mailbox_object *self);
void mailbox_hush(struct mailbox_object *self);

/* What a method makes of a record: the one of its type, or the body alone. */
typedef PyObject *
mailbox_copy(struct mailbox_object *self, struct incoming *incoming, const struct record *record, uint64_t position);
mailbox_copy mailbox_copy_record, mailbox_copy_body;

/* The next one, or NULL: with an exception set, or because there is none. */
PyObject *mailbox_take_one(struct mailbox_object *self, mailbox_copy *copy);

/* The methods that take mail. */
PyObject *mailbox_receive(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *mailbox_receive_bytes(struct mailbox_object *self, PyObject *const *args, Py_ssize_t n, PyObject *names);
PyObject *mailbox_drain(struct mailbox_object *self, PyObject *n);
PyObject *mailbox_drain_bytes(struct mailbox_object *self, PyObject *n);
PyObject *mailbox_has_mail(struct mailbox_object *self, PyObject *unused);
PyObject *mailbox_take_record(struct mailbox_object *self, PyObject *unused);
PyObject *mailbox_samples(struct mailbox_object *self, PyObject *unused);

#endif
