/* Bulk transfers; see bulk.c. */
#ifndef BOTHENDS_GENERATOR_BULK_H
#define BOTHENDS_GENERATOR_BULK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern const char transfer_doc[];
PyObject *transfer(PyObject *module, PyObject *arguments, PyObject *names);

#endif
