/* Counting connections, reads, writes and datagrams where they happen.
 *
 * The words belong to the server's metrics (metrics.py): memory that all its processes share, in which each process
 * writes to words of its own. So counting sends and calls nothing, the counts of a killed process stay, and a
 * request for the metrics reads the words.
 */
#include "internal.h"

static const char *const counter_texts[COUNTERS] = {
    [COUNT_ACCEPTED] = "accepted",
    [COUNT_READS] = "reads",
    [COUNT_RECEIVED] = "received_bytes",
    [COUNT_WRITES] = "writes",
    [COUNT_SENT] = "sent_bytes",
    [COUNT_DATAGRAMS_RECEIVED] = "datagrams_received",
    [COUNT_DATAGRAM_BYTES_RECEIVED] = "datagram_bytes_received",
    [COUNT_DATAGRAMS_SENT] = "datagrams_sent",
    [COUNT_DATAGRAM_BYTES_SENT] = "datagram_bytes_sent",
    [COUNT_CLOSED + CLOSED_BY_PEER] = "closed peer",
    [COUNT_CLOSED + CLOSED_BY_SERVICE] = "closed service",
    [COUNT_CLOSED + CLOSED_BY_RESET] = "closed reset",
    [COUNT_CLOSED + CLOSED_IDLE] = "closed idle",
    [COUNT_CLOSED + CLOSED_LIFE] = "closed life",
    [COUNT_CLOSED + CLOSED_FAILED] = "closed failed",
    [COUNT_CLOSED + CLOSED_DRAINED] = "closed drained",
    [COUNT_CLOSED + CLOSED_ABORTED] = "closed aborted",
};

/* Return the names of the counters, in order: a tuple, or NULL with an exception set. */
PyObject *counter_names(void)
{
    PyObject *tuple = PyTuple_New(COUNTERS);

    for (Py_ssize_t i = 0; tuple != NULL && i < COUNTERS; i++) {
        PyObject *name = PyUnicode_FromString(counter_texts[i]);

        if (name == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, name);
    }
    return tuple;
}

/* Count nothing. */
void counters_init(Core *core)
{
    for (size_t i = 0; i < COUNTERS; i++)
        core->counters[i] = &core->uncounted;
}

/* Release the words. */
void counters_release(Core *core)
{
    counters_init(core);
    if (core->counted.obj != NULL)
        PyBuffer_Release(&core->counted);
}

PyObject *core_count(Core *core, PyObject *args)
{
    PyObject *words, *offsets;
    uint64_t *counters[COUNTERS];

    if (!PyArg_ParseTuple(args, "OO!:count", &words, &PyTuple_Type, &offsets))
        return NULL;
    if (core->counted.obj != NULL || PyTuple_GET_SIZE(offsets) != COUNTERS) {
        PyErr_SetString(PyExc_ValueError, "count() takes an offset for each counter, once");
        return NULL;
    }
    if (PyObject_GetBuffer(words, &core->counted, PyBUF_WRITABLE) < 0)
        return NULL;
    for (Py_ssize_t i = 0; i < COUNTERS; i++) {
        size_t offset = PyLong_AsSize_t(PyTuple_GET_ITEM(offsets, i));

        if (offset >= (size_t)core->counted.len / sizeof(uint64_t)) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "an offset is outside the words");
            PyBuffer_Release(&core->counted);
            return NULL;
        }
        counters[i] = (uint64_t *)core->counted.buf + offset;
    }
    memcpy(core->counters, counters, sizeof counters);
    Py_RETURN_NONE;
}
