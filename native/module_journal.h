/* The journal as Python sees it: Journal (module_journal.c, module_journal_reading.c), and what looks at one that the
 * daemon may have open (module_journal_check.c). SPDX-License-Identifier: MIT */
#ifndef AGENTD_MODULE_JOURNAL_H
#define AGENTD_MODULE_JOURNAL_H

#include "journal.h"
#include "module.h"

/* Copies of so many bytes let other threads have the interpreter meanwhile. */
#define JOURNAL_PATIENT_BYTES (256u << 10)

enum journal_sync_state {
    SYNC_NONE,
    SYNC_EMPTY,     /* begun, and there was nothing to do: nothing to end */
    SYNC_UNDER_WAY, /* somebody has the descriptors */
};

struct journal_object {
    PyObject_HEAD struct journal journal;
    uint32_t forks;
    char is_open;
    uint32_t busy; /* a thread is in it, perhaps without the GIL */
    enum journal_sync_state sync_state;
    struct journal_sync sync;
    PyObject *report;
};

/* Whether it may be used, by this thread and now: false with an exception set. */
int journal_enter(const struct journal_object *self);

/* Without the GIL until journal_come_back(); no other thread gets in meanwhile. */
PyThreadState *journal_go_away(struct journal_object *self);
void journal_come_back(struct journal_object *self, PyThreadState *state);

/* Methods of Journal. */
PyObject *journal_object_read(struct journal_object *self, PyObject *position);
PyObject *journal_object_expect(struct journal_object *self, PyObject *positions);
PyObject *journal_object_scan(struct journal_object *self, PyObject *args);

/* Who is told what a journal finds while it is opened, which happens without the GIL. */
struct journal_listener {
    PyObject *report;     /* report(what, position, bytes), or None */
    PyThreadState *state; /* of the thread that opens it, while it has not the GIL; else NULL */
    int failed;           /* it raised: nothing more is told, and the exception is set */
};

/* A journal_report; its context is a listener. */
void journal_tell(void *listener, enum journal_finding finding, uint64_t position, uint64_t bytes);

/* Without the GIL until journal_listener_back(), except in journal_tell(). */
void journal_listener_leave(struct journal_listener *listener);
void journal_listener_back(struct journal_listener *listener);

/* The directory, made if it is not there and that is asked for: a descriptor, or -1 with an exception set. */
int journal_directory(PyObject *path, int make);

/* Why a journal in that directory can't be opened, as an exception: NULL. */
PyObject *journal_raise_unopened(int error, PyObject *directory);

/* An OSError with that text, made as by PyUnicode_FromFormat(): NULL. */
PyObject *journal_raise(int error, const char *text, ...);

/* Functions of the module. */
PyObject *native_prepare_segment(PyObject *module, PyObject *args);
PyObject *native_check_journal(PyObject *module, PyObject *args);

#endif
