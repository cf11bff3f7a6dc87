/*
 * agentd._native: the one file of the core that knows Python. It converts arguments and results, nothing else; what
 * each function promises its caller is written in agentd/_native.pyi. The module has no state. The GIL is kept
 * throughout: no function here blocks.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>

#include "clock.h"
#include "crc32c.h"
#include "probe.h"

/* The single place where −errno becomes an exception: OSError or its subclass for that number. */
static PyObject *raise_errno(int64_t result)
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
    {"crc32c", (PyCFunction)(void (*)(void))native_crc32c, METH_FASTCALL, crc32c_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot native_slots[] = {
#if defined(Py_mod_multiple_interpreters)
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if defined(Py_mod_gil)
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "agentd._native",
    .m_doc = PyDoc_STR("agentd's C core. The full documentation is in agentd/_native.pyi."),
    .m_size = 0,
    .m_methods = native_methods,
    .m_slots = native_slots,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&native_module);
}
