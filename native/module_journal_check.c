/* What the journal's functions share: directories, reports, errors. And a look at one that nobody opens. */
#include "module_journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

PyObject *journal_raise(int error, const char *text, ...)
{
    PyObject *message, *args;
    va_list values;

    va_start(values, text);
    message = PyUnicode_FromFormatV(text, values);
    va_end(values);
    args = message ? Py_BuildValue("iN", -error, message) : NULL;
    if (args)
        PyErr_SetObject(PyExc_OSError, args); /* or the subclass of that errno */
    Py_XDECREF(args);
    return NULL;
}

PyObject *journal_raise_unopened(int error, PyObject *directory)
{
    const char *why = NULL;

    switch (-error) {
    case EWOULDBLOCK:
        why = "Another process has this journal open: there is one writer";
        break;
    case EILSEQ:
        why = "No segment of this journal has a header that can be read: nothing was touched, take a backup";
        break;
    case EPROTONOSUPPORT:
        why = "A later version of agentd wrote this journal: use that one";
        break;
    case EINVAL:
        why = "No such size of a segment (a multiple of 64 KiB, up to 2 GiB), or no such position to start from";
        break;
    default:
        errno = -error;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, directory);
    }
    PyObject *args = Py_BuildValue("isO", -error, why, directory);

    if (args)
        PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
    return NULL;
}

void journal_listener_leave(struct journal_listener *listener)
{
    listener->state = PyEval_SaveThread();
}

void journal_listener_back(struct journal_listener *listener)
{
    PyEval_RestoreThread(listener->state);
    listener->state = NULL;
}

void journal_tell(void *context, enum journal_finding finding, uint64_t position, uint64_t bytes)
{
    static const char *const names[] = {
        [JOURNAL_SKIPPED] = "skipped",
        [JOURNAL_CUT] = "cut",
        [JOURNAL_MISSING] = "missing",
        [JOURNAL_SET_ASIDE] = "set aside",
    };
    struct journal_listener *listener = context;
    int was_away = listener->state != NULL;
    PyObject *answer;

    if (!listener->report || listener->report == Py_None || listener->failed)
        return;
    if (was_away)
        journal_listener_back(listener);
    answer = PyObject_CallFunction(
        listener->report, "sKK", names[finding], (unsigned long long)position, (unsigned long long)bytes);
    listener->failed = !answer;
    Py_XDECREF(answer);
    if (was_away)
        journal_listener_leave(listener);
}

/* A directory that a crash of the machine could take back would take the journal with it. */
static int sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    int fd, error = -ENOMEM;

    if (!parent)
        return error;
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(parent);
    if (fd < 0)
        return -errno;
    error = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return error;
}

int journal_directory(PyObject *path, int make)
{
    PyObject *bytes;
    int fd = -1, error = 0;

    if (!PyUnicode_FSConverter(path, &bytes))
        return -1;
    if (make && mkdir(PyBytes_AS_STRING(bytes), 0700) == 0)
        error = sync_parent(PyBytes_AS_STRING(bytes));
    else if (make && errno != EEXIST)
        error = -errno;
    if (!error) {
        fd = open(PyBytes_AS_STRING(bytes), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            error = -errno;
    }
    Py_DECREF(bytes);
    if (error) {
        errno = -error;
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    }
    return fd;
}

PyObject *native_prepare_segment(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long number, bytes;
    PyObject *path, *result = NULL;
    Py_buffer id;
    int directory, error;

    if (!PyArg_ParseTuple(args, "Oy*KK:prepare_segment", &path, &id, &number, &bytes))
        return NULL;
    if (id.len != SEGMENT_ID_BYTES) {
        PyErr_Format(PyExc_ValueError, "an id has %u bytes", SEGMENT_ID_BYTES);
    } else if ((directory = journal_directory(path, 0)) >= 0) {
        Py_BEGIN_ALLOW_THREADS;
        error = segment_prepare(&journal_files_kernel, directory, id.buf, number, bytes, 0);
        close(directory);
        Py_END_ALLOW_THREADS;
        result = error ? raise_errno(error) : Py_NewRef(Py_None);
    }
    PyBuffer_Release(&id);
    return result;
}

/* A look at all of it. */

/* Records between two looks at whether somebody pressed Ctrl-C. */
#define RECORDS_BETWEEN_SIGNALS (1u << 16)

struct seen {
    uint64_t n_records, bytes, first, last, end;
    int64_t made_ns, written_ns;
};

struct look {
    struct journal_listener listener;
    struct journal journal;
    struct seen *seen; /* of each segment */
    PyObject *record;  /* record(position, sequence, type, body), or None */
    int directory;
};

/* Whether to go on. With the GIL. */
static int tell_record(struct look *look, const struct journal_record *record)
{
    PyObject *answer = PyObject_CallFunction(
        look->record, "KKiy#", (unsigned long long)record->position, (unsigned long long)record->sequence,
        (int)record->type, (const char *)record->body, (Py_ssize_t)record->size);
    int goes_on = answer ? PyObject_IsTrue(answer) : -1;

    Py_XDECREF(answer);
    look->listener.failed = goes_on < 0;
    return goes_on > 0;
}

static void note(struct look *look, const struct journal_record *record)
{
    size_t i = 0;

    while (look->journal.segments[i].number != record->position >> 32)
        i++;
    if (!look->seen[i].n_records++)
        look->seen[i].first = record->sequence;
    look->seen[i].last = record->sequence;
    look->seen[i].bytes += record->size;
    look->seen[i].end = record->position + journal_record_bytes(record->size);
}

static int has_signal(struct look *look)
{
    journal_listener_back(&look->listener);
    look->listener.failed = PyErr_CheckSignals() < 0;
    journal_listener_leave(&look->listener);
    return look->listener.failed;
}

/* 0 or -errno. Damage was told when the journal was opened. Without the GIL. */
static int walk(struct look *look, uint64_t position)
{
    struct journal_record record;
    uint64_t next, n = 0;
    int found;

    for (; (found = journal_read(&look->journal, position, &record, &next)) != 0; position = next) {
        if (found == -EILSEQ)
            continue;
        if (found < 0)
            return found;
        note(look, &record);
        if (look->record != Py_None) {
            int goes_on;

            journal_listener_back(&look->listener);
            goes_on = tell_record(look, &record);
            journal_listener_leave(&look->listener);
            if (!goes_on)
                return 0;
        } else if (++n % RECORDS_BETWEEN_SIGNALS == 0 && has_signal(look)) {
            return 0;
        }
    }
    return 0;
}

/* When each file was made, by itself, and written, by the filesystem. What can't be asked stays 0. */
static void note_times(struct look *look)
{
    for (size_t i = 0; i < look->journal.n_segments; i++) {
        struct segment_identity identity;
        char name[SEGMENT_NAME_BYTES];
        struct stat file;
        int fd;

        segment_name(name, look->journal.segments[i].number);
        fd = openat(look->directory, name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (segment_identify(&journal_files_kernel, fd, &identity) >= 0)
            look->seen[i].made_ns = (int64_t)identity.created_ns;
        if (fstat(fd, &file) == 0)
            look->seen[i].written_ns = file.st_mtim.tv_sec * INT64_C(1000000000) + file.st_mtim.tv_nsec;
        close(fd);
    }
}

static PyObject *segments_seen(const struct look *look)
{
    PyObject *list = PyList_New(0);

    for (size_t i = 0; list && i < look->journal.n_segments; i++) {
        const struct segment *segment = &look->journal.segments[i];
        const struct seen *seen = &look->seen[i];
        PyObject *item = Py_BuildValue(
            "KLLKKKKKK", (unsigned long long)segment->number, (long long)seen->made_ns, (long long)seen->written_ns,
            (unsigned long long)segment->bytes, (unsigned long long)seen->n_records, (unsigned long long)seen->bytes,
            (unsigned long long)seen->first, (unsigned long long)seen->last,
            (unsigned long long)(seen->end ? seen->end : segment->number << 32 | SEGMENT_FIRST_RECORD));

        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

PyObject *native_check_journal(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct look look = {.listener = {.report = Py_None}, .record = Py_None};
    struct journal_shape shape = {.read_only = true, .report = journal_tell, .report_context = &look.listener};
    unsigned long long position = 0;
    PyObject *path, *result = NULL;
    int error;

    if (!PyArg_ParseTuple(args, "O|OOK:check_journal", &path, &look.listener.report, &look.record, &position))
        return NULL;
    look.directory = journal_directory(path, 0);
    if (look.directory < 0)
        return NULL;
    shape.start = position;
    journal_listener_leave(&look.listener);
    error = journal_open(&look.journal, look.directory, &shape, &journal_files_kernel);
    if (!error) {
        look.seen = calloc(look.journal.n_segments + 1, sizeof *look.seen);
        error = !look.seen ? -ENOMEM : look.listener.failed ? 0 : walk(&look, position);
        if (!error)
            note_times(&look);
        journal_listener_back(&look.listener);
        if (!error && !look.listener.failed)
            result = segments_seen(&look);
        journal_close(&look.journal);
        free(look.seen);
    } else {
        journal_listener_back(&look.listener);
    }
    if (error && !look.listener.failed)
        journal_raise_unopened(error, path);
    close(look.directory);
    return result;
}
