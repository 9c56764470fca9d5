/* The module bothends.trace._pipeline: the parts of the pipeline of a trace that take the most time. Each has a
 * counterpart in Python, which is used where this module is not built; tests compare the two. */
#ifndef BOTHENDS_TRACE_PIPELINE_H
#define BOTHENDS_TRACE_PIPELINE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

extern PyType_Spec timeline_spec;

PyObject *parse_lines(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

/* Where an object of a Python class with __slots__ has its attributes. */
enum { MAX_SLOTS = 24 };
struct layout {
    PyTypeObject *type; /* NULL: not known yet */
    int count;
    Py_ssize_t offsets[MAX_SLOTS];
};

/* Find the attributes of a class. Returns -1 with an exception if it lacks one. */
int find_layout(struct layout *layout, PyObject *type, const char *const *names, int count);
/* Return a new object of it, without attributes. */
PyObject *new_object(const struct layout *layout);
/* Set an attribute; takes over the reference. */
void set_slot(const struct layout *layout, PyObject *object, int at, PyObject *value);

#endif
