/* The module bothends.trace._pipeline: see pipeline.h. */
#include "pipeline.h"

#include <structmember.h>

int find_layout(struct layout *layout, PyObject *type, const char *const *names, int count)
{
    if (layout->type == (PyTypeObject *)type)
        return 0;
    if (!PyType_Check(type) || count > MAX_SLOTS) {
        PyErr_SetString(PyExc_TypeError, "a class is needed");
        return -1;
    }
    for (int at = 0; at < count; at++) {
        PyObject *found = PyObject_GetAttrString(type, names[at]);
        if (!found)
            return -1;
        int is_slot = Py_IS_TYPE(found, &PyMemberDescr_Type);
        if (is_slot)
            layout->offsets[at] = ((PyMemberDescrObject *)found)->d_member->offset;
        Py_DECREF(found);
        if (!is_slot) {
            PyErr_Format(PyExc_TypeError, "%s has no slot %s", ((PyTypeObject *)type)->tp_name, names[at]);
            return -1;
        }
    }
    Py_INCREF(type);
    Py_XDECREF((PyObject *)layout->type);
    layout->type = (PyTypeObject *)type;
    layout->count = count;
    return 0;
}

PyObject *new_object(const struct layout *layout)
{
    return layout->type->tp_alloc(layout->type, 0);
}

void set_slot(const struct layout *layout, PyObject *object, int at, PyObject *value)
{
    *(PyObject **)((char *)object + layout->offsets[at]) = value;
}

static PyMethodDef methods[] = {
    {"parse_lines", (PyCFunction)(void (*)(void))parse_lines, METH_FASTCALL,
     "parse_lines(data, moved, names) -> list: each line of strace as an object of the class `moved` if it is a usual "
     "send or receive, and as bytes otherwise."},
    {NULL, NULL, 0, NULL},
};

static int add_types(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&timeline_spec);
    int result = type ? PyModule_AddObjectRef(module, "Timeline", type) : -1;
    Py_XDECREF(type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_pipeline",   .m_doc = "Parts of the pipeline of a trace.",
    .m_methods = methods,  .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__pipeline(void)
{
    return PyModuleDef_Init(&definition);
}
