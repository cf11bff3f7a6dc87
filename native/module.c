/*
 * agentd._native: its functions, and the module itself. The module_*.c files alone know Python; they convert arguments
 * and results, and what each function promises its caller is written in agentd/_native.pyi.
 */
#include "module.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "clock.h"
#include "crc32c.h"
#include "module_journal.h"
#include "probe.h"

PyObject *raise_errno(int64_t result)
{
    errno = (int)-result;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *native_boottime_ns(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    int64_t now_ns = clock_boottime_ns();

    return now_ns < 0 ? raise_errno(now_ns) : PyLong_FromLongLong(now_ns);
}

static PyObject *native_monotonic_ns(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    int64_t now_ns = clock_monotonic_ns();

    return now_ns < 0 ? raise_errno(now_ns) : PyLong_FromLongLong(now_ns);
}

static PyObject *native_crc32c(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    unsigned long initial = 0;
    Py_buffer buffer;
    uint32_t crc;

    if (n_args < 1 || n_args > 2)
        return PyErr_Format(PyExc_TypeError, "crc32c() takes 1 or 2 arguments, not %zd", n_args);
    if (n_args == 2) {
        initial = PyLong_AsUnsignedLong(args[1]);
        if (initial == (unsigned long)-1 && PyErr_Occurred())
            return NULL;
        if (initial > UINT32_MAX)
            return PyErr_Format(PyExc_OverflowError, "initial must fit in 32 bits");
    }
    if (PyObject_GetBuffer(args[0], &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    crc = crc32c((uint32_t)initial, buffer.buf, (size_t)buffer.len);
    PyBuffer_Release(&buffer);
    return PyLong_FromUnsignedLong(crc);
}

static PyObject *native_io_uring_errno(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(-probe_io_uring());
}

static PyObject *native_create_pair(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long number, ring_bytes, verdict_bytes, pool_bytes;
    int lane, huge_pages, fd, error;
    struct pair_shape shape;

    if (!PyArg_ParseTuple(
            args, "iKKKKp:create_pair", &lane, &number, &ring_bytes, &verdict_bytes, &pool_bytes, &huge_pages))
        return NULL;
    shape = (struct pair_shape){
        .lane = (enum pair_lane)lane,
        .number = number,
        .ring_capacity = ring_bytes,
        .verdict_capacity = verdict_bytes,
        .pool_capacity = pool_bytes,
    };
    error = pair_create(&shape, huge_pages, &fd);
    return error ? raise_errno(error) : PyLong_FromLong(fd);
}

static PyObject *native_message_id(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long number, position;

    if (!PyArg_ParseTuple(args, "KK:message_id", &number, &position))
        return NULL;
    return PyLong_FromUnsignedLongLong(record_id(number, position));
}

static PyObject *native_release_spare_memory(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
#ifdef __GLIBC__
    return PyBool_FromLong(malloc_trim(0));
#else
    Py_RETURN_FALSE;
#endif
}

PyDoc_STRVAR(boottime_ns_doc, "boottime_ns($module, /)\n--\n\nNanoseconds since boot, time asleep included.");
PyDoc_STRVAR(
    monotonic_ns_doc,
    "monotonic_ns($module, /)\n--\n\nNanoseconds on a clock that stands still while the machine sleeps.");
PyDoc_STRVAR(
    crc32c_doc,
    "crc32c($module, data, initial=0, /)\n--\n\nThe CRC-32C of data, continuing from the checksum initial.");

PyDoc_STRVAR(
    io_uring_errno_doc,
    "io_uring_errno($module, /)\n--\n\n0 where an io_uring can be made, else the errno of the attempt.");

static PyMethodDef native_methods[] = {
    {"boottime_ns", native_boottime_ns, METH_NOARGS, boottime_ns_doc},
    {"monotonic_ns", native_monotonic_ns, METH_NOARGS, monotonic_ns_doc},
    {"io_uring_errno", native_io_uring_errno, METH_NOARGS, io_uring_errno_doc},
    {"release_spare_memory", native_release_spare_memory, METH_NOARGS, PyDoc_STR("Give freed memory to the kernel.")},
    {"crc32c", (PyCFunction)(void (*)(void))native_crc32c, METH_FASTCALL, crc32c_doc},
    {"create_pair", native_create_pair, METH_VARARGS, PyDoc_STR("The memfd of a fresh pair.")},
    {"message_id", native_message_id, METH_VARARGS, PyDoc_STR("The id of a direct message.")},
    {"prepare_segment", native_prepare_segment, METH_VARARGS, PyDoc_STR("Make a segment of a journal ready.")},
    {"check_journal", native_check_journal, METH_VARARGS, PyDoc_STR("Look at every record of a journal.")},
    {NULL, NULL, 0, NULL},
};

PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);

    if (type && PyModule_AddType(module, type) < 0)
        Py_CLEAR(type);
    return type;
}

static int native_exec(PyObject *module)
{
    static int (*const add[])(PyObject *) = {
        add_channel, add_incoming, add_mailbox, add_engine, add_doorbells, add_block, add_borrowed, add_journal,
    };

    for (size_t i = 0; i < sizeof add / sizeof *add; i++)
        if (add[i](module) < 0)
            return -1;
    return 0;
}

static int native_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);

    Py_VISIT(state->record);
    Py_VISIT(state->incoming);
    Py_VISIT(state->engine);
    Py_VISIT(state->doorbells);
    Py_VISIT(state->block);
    Py_VISIT(state->borrowed);
    Py_VISIT(state->view);
    return 0;
}

static int native_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    Py_CLEAR(state->record);
    Py_CLEAR(state->incoming);
    Py_CLEAR(state->engine);
    Py_CLEAR(state->doorbells);
    Py_CLEAR(state->block);
    Py_CLEAR(state->borrowed);
    Py_CLEAR(state->view);
    return 0;
}

static PyModuleDef_Slot native_slots[] = {
    {Py_mod_exec, native_exec},
#if defined(Py_mod_multiple_interpreters)
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if defined(Py_mod_gil)
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "agentd._native",
    .m_doc = PyDoc_STR("agentd's C core. The full documentation is in agentd/_native.pyi."),
    .m_size = sizeof(struct module_state),
    .m_traverse = native_traverse,
    .m_clear = native_clear,
    .m_methods = native_methods,
    .m_slots = native_slots,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&native_module);
}
