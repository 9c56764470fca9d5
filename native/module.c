/* The module bothends.engines._native: the Python interface of the C core, used by engines/native.py. */
#include "internal.h"

#include <pthread.h>

struct names names;

static int intern_names(void)
{
    const struct {
        PyObject **variable;
        const char *text;
    } table[] = {
        {&names.receive, "receive"},
        {&names.done, "done"},
        {&names.start, "start"},
        {&names.end, "end"},
        {&names.close, "close"},
        {&names.closed, "closed"},
        {&names.wants_pull, "wants_pull"},
        {&names.failure, "failure"},
        {&names.line_function, "line_function"},
        {&names.line_limit, "line_limit"},
        {&names.check_answer, "check_answer"},
        {&names.fail, "fail"},
        {&names.data_received, "data_received"},
        {&names.eof_received, "eof_received"},
        {&names.pause_writing, "pause_writing"},
        {&names.resume_writing, "resume_writing"},
        {&names.connection_lost, "connection_lost"},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        *table[i].variable = PyUnicode_InternFromString(table[i].text);
        if (*table[i].variable == NULL)
            return -1;
    }
    return 0;
}

static PyObject *bind_python(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *address, *peer, *conversation, *transitions;

    if (!PyArg_ParseTuple(args, "OOOO!:bind", &address, &peer, &conversation, &PyDict_Type, &transitions)
        || peer_bind_classes(address, peer) < 0 || listener_bind_class(conversation) < 0
        || lines_bind_class(conversation) < 0 || connection_bind_transitions(transitions) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *probe(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(ring_probe());
}

static PyMethodDef functions[] = {
    {"bind", bind_python, METH_VARARGS,
     "bind(Address, Peer, Conversation, transitions)\n\nLook up the layouts of the classes that C code instantiates, and "
     "take the table of a connection's states, TRANSITIONS of engines/connection_state.py. Call once, before making a "
     "Core."},
    {"probe", probe, METH_NOARGS,
     "probe() -> int\n\nReturn 0 if io_uring is usable here, otherwise the errno of the failure."},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bothends.engines._native",
    .m_doc =
        "The C core of the engine `native`. Use it through engines/native.py.\n\nNeeds the GIL: a free-threaded "
        "Python enables it when it imports this module. With PYTHON_GIL=0, use another engine.",
    .m_size = -1,
    .m_methods = functions,
};

static void count_fork(void)
{
    current_fork_generation++;
}

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module, *counters, *reasons;

    if (pthread_atfork(NULL, NULL, count_fork)) {
        PyErr_NoMemory();
        return NULL;
    }
    if (intern_names() < 0 || PyType_Ready(&CoreType) < 0 || PyType_Ready(&ConnectionType) < 0)
        return NULL;
    module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    counters = counter_names(0);
    reasons = counter_names(COUNT_CLOSED);
    if (counters == NULL || reasons == NULL || PyModule_AddObjectRef(module, "COUNTERS", counters) < 0
        || PyModule_AddObjectRef(module, "CLOSE_REASONS", reasons) < 0
        || PyModule_AddObjectRef(module, "Core", (PyObject *)&CoreType) < 0
        || PyModule_AddObjectRef(module, "Connection", (PyObject *)&ConnectionType) < 0)
        Py_CLEAR(module);
    Py_XDECREF(counters);
    Py_XDECREF(reasons);
    return module;
}
