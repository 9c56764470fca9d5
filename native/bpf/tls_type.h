/* The Python type for plaintext of libssl. */
#ifndef BOTHENDS_BPF_TLS_TYPE_H
#define BOTHENDS_BPF_TLS_TYPE_H

#include <Python.h>

/* Add the type `TlsProbes` to a module. Returns -1 with an exception set if it cannot. */
int add_tls_type(PyObject *module);

#endif
