/* The Python module `bothends.trace.capture._bpf`. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "source.h"
#include "tls_type.h"

struct source_object {
    PyObject_HEAD
    struct source *source;
};

static PyObject *new_source(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"max_bytes", NULL};
    Py_ssize_t max_bytes = 256 << 20;
    char message[256];
    int error = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|n", names, &max_bytes))
        return NULL;
    struct source_object *self = (struct source_object *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    self->source = source_open(max_bytes, &error, message, sizeof message);
    Py_END_ALLOW_THREADS;
    if (!self->source) {
        PyObject *values = Py_BuildValue("(iss)", error, strerror(error), message);
        PyErr_SetObject(PyExc_OSError, values);
        Py_XDECREF(values);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void release(struct source_object *self)
{
    if (self->source)
        source_close(self->source);
    self->source = NULL;
}

static void free_source(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    release((struct source_object *)object);
    type->tp_free(object);
    Py_DECREF(type);
}

static struct source *source_of(PyObject *object)
{
    struct source *source = ((struct source_object *)object)->source;
    if (!source)
        PyErr_SetString(PyExc_ValueError, "the source is closed");
    return source;
}

static int program_number(PyObject *argument, int *number)
{
    long value = PyLong_AsLong(argument);
    if (value == -1 && PyErr_Occurred())
        return 0;
    if (value < -1 || value >= MAX_PROGRAMS) {
        PyErr_Format(PyExc_ValueError, "a program's number is below %d", MAX_PROGRAMS);
        return 0;
    }
    *number = value;
    return 1;
}

static PyObject *close_source(PyObject *self, PyObject *unused)
{
    release((struct source_object *)self);
    Py_RETURN_NONE;
}

static PyObject *get_descriptor(PyObject *self, PyObject *unused)
{
    struct source *source = source_of(self);
    return source ? PyLong_FromLong(source_descriptor(source)) : NULL;
}

static PyObject *spawn(PyObject *self, PyObject *argument)
{
    struct source *source = source_of(self);
    int number;
    if (!source || !program_number(argument, &number))
        return NULL;
    int result = source_spawn(source, number);
    if (result) {
        errno = -result;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *adopt(PyObject *self, PyObject *arguments)
{
    struct source *source = source_of(self);
    unsigned process;
    int number;
    if (!source || !PyArg_ParseTuple(arguments, "iI", &number, &process))
        return NULL;
    if (number < 0 || number >= MAX_PROGRAMS)
        return PyErr_Format(PyExc_ValueError, "a program's number is below %d", MAX_PROGRAMS);
    int result = source_adopt(source, number, process);
    if (result) {
        errno = -result;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *follow_port(PyObject *self, PyObject *arguments)
{
    struct source *source = source_of(self);
    unsigned port;
    int number;
    if (!source || !PyArg_ParseTuple(arguments, "iI", &number, &port))
        return NULL;
    if (number < 0 || number >= MAX_PROGRAMS)
        return PyErr_Format(PyExc_ValueError, "a program's number is below %d", MAX_PROGRAMS);
    source_follow_port(source, number, port);
    Py_RETURN_NONE;
}

static PyObject *release_program(PyObject *self, PyObject *argument)
{
    struct source *source = source_of(self);
    int number;
    if (!source || !program_number(argument, &number))
        return NULL;
    if (number >= 0)
        source_release(source, number);
    Py_RETURN_NONE;
}

static PyObject *read_lines(PyObject *self, PyObject *arguments)
{
    struct source *source = source_of(self);
    struct text text = {0};
    Py_ssize_t max_bytes;
    int number;
    u32 processes[MAX_ADOPTED];
    if (!source || !PyArg_ParseTuple(arguments, "in", &number, &max_bytes))
        return NULL;
    if (number < 0 || number >= MAX_PROGRAMS)
        return PyErr_Format(PyExc_ValueError, "a program's number is below %d", MAX_PROGRAMS);
    Py_BEGIN_ALLOW_THREADS;
    source_update(source);
    source_lines(source, number, &text, max_bytes);
    Py_END_ALLOW_THREADS;
    size_t count = source_adopted(source, number, processes, MAX_ADOPTED);
    PyObject *list = PyList_New(count);
    for (size_t at = 0; list && at < count; at++) {
        PyObject *process = PyLong_FromUnsignedLong(processes[at]);
        if (!process)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, at, process);
    }
    PyObject *result = NULL;
    if (text.failed)
        PyErr_NoMemory();
    else if (list)
        result = Py_BuildValue("(y#O)", text.data ? text.data : "", (Py_ssize_t)text.length, list);
    Py_XDECREF(list);
    text_free(&text);
    return result;
}

static PyObject *has_ended(PyObject *self, PyObject *argument)
{
    struct source *source = source_of(self);
    int number;
    if (!source || !program_number(argument, &number))
        return NULL;
    return PyBool_FromLong(source_has_ended(source, number));
}

static PyObject *is_alive(PyObject *self, PyObject *unused)
{
    struct source *source = source_of(self);
    return source ? PyBool_FromLong(source_is_alive(source)) : NULL;
}

static PyObject *get_horizon(PyObject *self, PyObject *unused)
{
    struct source *source = source_of(self);
    return source ? PyLong_FromUnsignedLongLong(source_horizon(source)) : NULL;
}

static PyObject *count_waiting(PyObject *self, PyObject *unused)
{
    struct source *source = source_of(self);
    return source ? PyLong_FromSize_t(source_waiting(source)) : NULL;
}

static PyObject *skip(PyObject *self, PyObject *unused)
{
    struct source *source = source_of(self);
    return source ? PyLong_FromUnsignedLongLong(source_skip(source)) : NULL;
}

static PyObject *count_lost(PyObject *self, PyObject *unused)
{
    struct source *source = source_of(self);
    if (!source)
        return NULL;
    return Py_BuildValue("(KKK)", (unsigned long long)source_lost(source),
                         (unsigned long long)source_lost_threads(source),
                         (unsigned long long)source_repeated(source));
}

static PyMethodDef methods[] = {
    {"close", close_source, METH_NOARGS, "Detach from the kernel. Idempotent."},
    {"fileno", get_descriptor, METH_NOARGS, "Return a descriptor that is readable when there are new records."},
    {"spawn", spawn, METH_O, "Let child processes of this thread belong to a program from now on; -1: to none."},
    {"adopt", adopt, METH_VARARGS, "Follow (program, pid): a process that runs already."},
    {"follow_port", follow_port, METH_VARARGS, "Follow (program, port): each process that connects to a port."},
    {"release", release_program, METH_O, "Follow a program no further."},
    {"read", read_lines, METH_VARARGS,
     "Return the next lines of (program, max_bytes), in the form of strace, and the pids that were added to it."},
    {"has_ended", has_ended, METH_O, "Return whether a program has exited and all its lines are read."},
    {"is_alive", is_alive, METH_NOARGS, "Return whether a thread of any program is running."},
    {"horizon", get_horizon, METH_NOARGS, "Return the time in nanoseconds before which all lines are read."},
    {"waiting", count_waiting, METH_NOARGS, "Return the number of records that are not read as lines yet."},
    {"skip", skip, METH_NOARGS, "Drop the records so far. Returns the time in nanoseconds."},
    {"count_lost", count_lost, METH_NOARGS,
     "Return how many records are missing, how many threads, and how many repeated calls."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, new_source},
    {Py_tp_dealloc, free_source},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Source(max_bytes=256 MiB): calls, from the kernel. Raises OSError if it cannot be had."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "bothends.trace.capture._bpf.Source",
    .basicsize = sizeof(struct source_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

static int add_types(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);
    int result = type ? PyModule_AddObjectRef(module, "Source", type) : -1;
    Py_XDECREF(type);
    return result ? result : add_tls_type(module);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_bpf",
    .m_doc = "System calls seen by eBPF programs in the kernel.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__bpf(void)
{
    return PyModuleDef_Init(&definition);
}
