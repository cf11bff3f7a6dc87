/* Journal: its records, read. Documented in agentd/_native.pyi. */
#include "module_journal.h"

/* A scan goes through so many records at a time. */
#define SCAN_RECORDS 256

static const struct segment *segment_at(const struct journal *journal, uint64_t position)
{
    for (size_t i = 0; i < journal->n_segments; i++)
        if (journal->segments[i].number == position >> 32)
            return &journal->segments[i];
    return NULL;
}

/* Whether reading the record there takes long: it is large, or has to come from a file that is not mapped yet. */
static int takes_long(const struct journal *journal, uint64_t position)
{
    const struct segment *segment = segment_at(journal, position);
    uint64_t offset = position & UINT32_MAX;
    struct journal_header header;

    if (!segment || !segment->map || offset + sizeof header > segment->bytes)
        return 1;
    memcpy(&header, segment->map + offset, sizeof header);
    return header.size >= JOURNAL_PATIENT_BYTES;
}

/* Our own copy of what lies in the map. Whoever calls is in the journal, so that it stays mapped. */
static PyObject *copy_body(struct journal_object *self, const struct journal_record *record)
{
    PyObject *body;

    if (record->size < JOURNAL_PATIENT_BYTES)
        return PyBytes_FromStringAndSize((const char *)record->body, (Py_ssize_t)record->size);
    body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)record->size);
    if (body) {
        PyThreadState *state = journal_go_away(self);

        memcpy(PyBytes_AS_STRING(body), record->body, record->size);
        journal_come_back(self, state);
    }
    return body;
}

PyObject *journal_object_read(struct journal_object *self, PyObject *arg)
{
    uint64_t position = PyLong_AsUnsignedLongLong(arg), next = position;
    struct journal_record record;
    PyObject *body;
    int found;

    if (position == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    if (!journal_enter(self))
        return NULL;
    if (takes_long(&self->journal, position)) {
        PyThreadState *state = journal_go_away(self);

        found = journal_read(&self->journal, position, &record, &next);
        journal_come_back(self, state);
    } else {
        found = journal_read(&self->journal, position, &record, &next);
    }
    if (found == 0)
        Py_RETURN_NONE;
    if (found == -EILSEQ)
        return journal_raise(
            found, "There is damage here: the next record that can be read is at %llu", (unsigned long long)next);
    if (found < 0)
        return raise_errno(found);
    body = copy_body(self, &record);
    return body ? Py_BuildValue("iNK", (int)record.type, body, (unsigned long long)next) : NULL;
}

PyObject *journal_object_expect(struct journal_object *self, PyObject *arg)
{
    PyObject *list = PySequence_Fast(arg, "positions: a list");
    Py_ssize_t n = list ? PySequence_Fast_GET_SIZE(list) : 0;
    uint64_t *positions;
    PyThreadState *state;

    if (!list)
        return NULL;
    positions = PyMem_New(uint64_t, (size_t)n);
    if (!positions) {
        Py_DECREF(list);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < n && !PyErr_Occurred(); i++)
        positions[i] = PyLong_AsUnsignedLongLong(PySequence_Fast_GET_ITEM(list, i));
    Py_DECREF(list);
    if (PyErr_Occurred() || !journal_enter(self)) {
        PyMem_Free(positions);
        return NULL;
    }
    state = journal_go_away(self);
    journal_expect(&self->journal, positions, (size_t)n);
    journal_come_back(self, state);
    PyMem_Free(positions);
    Py_RETURN_NONE;
}

/* What was skipped on the way, to whoever wanted to know: 0, or -1 where that raised. */
static int tell_skipped(struct journal_object *self, uint64_t position, uint64_t next)
{
    const struct segment *segment = segment_at(&self->journal, position);
    struct journal_listener listener = {.report = self->report};
    uint64_t bytes;

    if (!segment)
        bytes = self->journal.segment_bytes;
    else if (next >> 32 == position >> 32)
        bytes = next - position;
    else
        bytes = segment->bytes - (position & UINT32_MAX);
    journal_tell(&listener, segment ? JOURNAL_SKIPPED : JOURNAL_MISSING, position, bytes);
    return listener.failed ? -1 : 0;
}

/* The next few records from *position on, which moves: how many, or -errno; -EILSEQ where the first place is damaged.
 */
static int read_some(struct journal *journal, uint64_t *position, struct journal_record *records, int most)
{
    uint64_t next;
    int n = 0;

    while (n < most) {
        int found = journal_read(journal, *position, &records[n], &next);

        if (found < 0 && n)
            return n; /* the next call says it */
        if (found < 0) {
            *position = found == -EILSEQ ? next : *position;
            return found;
        }
        if (found == 0)
            break;
        n++;
        *position = next;
    }
    return n;
}

/* The records stay mapped meanwhile: whoever calls has the journal, also against what a collection of garbage runs. */
static int add_records(struct journal_object *self, PyObject *list, const struct journal_record *records, int n)
{
    for (int i = 0; i < n; i++) {
        PyObject *body = copy_body(self, &records[i]), *item;

        if (!body)
            return -1;
        item = Py_BuildValue("KiN", (unsigned long long)records[i].position, (int)records[i].type, body);
        if (!item || PyList_Append(list, item) < 0) {
            Py_XDECREF(item);
            return -1;
        }
        Py_DECREF(item);
    }
    return 0;
}

PyObject *journal_object_scan(struct journal_object *self, PyObject *args)
{
    struct journal_record records[SCAN_RECORDS];
    unsigned long long from;
    uint64_t position;
    Py_ssize_t count;
    PyObject *list;
    int n;

    if (!PyArg_ParseTuple(args, "Kn:scan", &from, &count))
        return NULL;
    position = from;
    list = PyList_New(0);
    while (list && PyList_GET_SIZE(list) < count) {
        Py_ssize_t left = count - PyList_GET_SIZE(list);
        uint64_t at = position;
        PyThreadState *state;

        if (!journal_enter(self)) /* `report` may have closed it */
            goto failed;
        state = journal_go_away(self);
        n = read_some(&self->journal, &position, records, left < SCAN_RECORDS ? (int)left : SCAN_RECORDS);
        journal_come_back(self, state);
        if (n == 0)
            break;
        if (n == -EILSEQ) {
            if (tell_skipped(self, at, position) < 0)
                goto failed;
        } else if (n < 0) {
            raise_errno(n);
            goto failed;
        } else {
            self->busy++;
            n = add_records(self, list, records, n);
            self->busy--;
            if (n < 0)
                goto failed;
        }
    }
    return list;
failed:
    Py_DECREF(list);
    return NULL;
}
