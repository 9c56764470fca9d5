/* The module bothends.bench._generator: the function `run`, used by generators/native.py, and the settings of TLS. */
#include "generator.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Read the address and options for the connections from a connected socket. */
static int read_target_socket(Run *run, int like)
{
    socklen_t size = sizeof(int);

    if (like < 0)
        return -1;
    run->address_size = sizeof run->address;
    if (getsockopt(like, SOL_SOCKET, SO_DOMAIN, &run->family, &size) < 0
        || getsockopt(like, SOL_SOCKET, SO_TYPE, &run->type, &size) < 0
        || getsockopt(like, SOL_SOCKET, SO_PROTOCOL, &run->protocol, &size) < 0
        || getpeername(like, (struct sockaddr *)&run->address, &run->address_size) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (run->type == SOCK_STREAM && (run->family == AF_INET || run->family == AF_INET6)) {
        size = sizeof run->nodelay;
        if (getsockopt(like, IPPROTO_TCP, TCP_NODELAY, &run->nodelay, &size) < 0)
            run->nodelay = 0;
    }
    return 0;
}

/* Close it as its class does, with TLS by a close_notify. */
static int close_target_socket(PyObject *like)
{
    PyObject *result = PyObject_CallMethod(like, "close", NULL);

    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int allocate(Run *run)
{
    int64_t duration = run->stop - run->start;

    run->second_count = duration / SECOND + 1;
    run->seconds = PyMem_RawCalloc((size_t)run->second_count, sizeof *run->seconds);
    run->uncorrected = PyMem_RawCalloc(1, sizeof *run->uncorrected);
    run->corrected = PyMem_RawCalloc(1, sizeof *run->corrected);
    run->lateness = PyMem_RawCalloc(1, sizeof *run->lateness);
    run->wait = PyMem_RawCalloc(1, sizeof *run->wait);
    run->first_byte = PyMem_RawCalloc(1, sizeof *run->first_byte);
    run->transfer = PyMem_RawCalloc(1, sizeof *run->transfer);
    run->heat = PyMem_RawCalloc(HEAT_COLUMNS * HEAT_ROWS, sizeof *run->heat);
    run->connections = PyMem_RawCalloc(run->connection_count, sizeof *run->connections);
    run->idle_connections = PyMem_RawCalloc(run->connection_count, sizeof *run->idle_connections);
    run->buffer = PyMem_RawMalloc(BUFFER_SIZE);
    run->plaintext = run->tls != NULL ? PyMem_RawMalloc(TLS_RECORD) : NULL;
    run->send_batch = PyMem_RawCalloc(run->connection_count, sizeof *run->send_batch);
    if (!run->seconds || !run->uncorrected || !run->corrected || !run->lateness || !run->wait || !run->first_byte
        || !run->transfer || !run->heat || !run->connections || !run->idle_connections || !run->buffer
        || !run->send_batch || (run->tls != NULL && !run->plaintext))
        return -1;
    for (uint32_t i = 0; i < run->connection_count; i++) {
        run->connections[i].fd = -1;
        run->connections[i].due = -1;
        run->connections[i].reconnect_delay = MIN_RECONNECT_DELAY;
        run->connections[i].pending = PyMem_RawCalloc(run->depth, sizeof(Pending));
        if (run->connections[i].pending == NULL)
            return -1;
        if (run->http != NULL && (run->connections[i].http = http_reader_new()) == NULL)
            return -1;
    }
    return 0;
}

static void free_run(Run *run)
{
    for (uint32_t i = 0; run->connections != NULL && i < run->connection_count; i++) {
        send_close_notify(run->connections + i);
        tls_free(run->connections[i].tls);
        if (run->connections[i].fd >= 0)
            close(run->connections[i].fd);
        PyMem_RawFree(run->connections[i].pending);
        http_reader_free(run->connections[i].http);
        PyMem_RawFree(run->connections[i].partial);
        PyMem_RawFree(run->connections[i].expired);
    }
    if (run->epoll >= 0)
        close(run->epoll);
    if (run->has_chunk)
        PyBuffer_Release(&run->times_chunk);
    batch_close(run->batch);
    http_check_free(run->http);
    PyMem_RawFree(run->send_batch);
    PyMem_RawFree(run->connections);
    PyMem_RawFree(run->idle_connections);
    PyMem_RawFree(run->buffer);
    PyMem_RawFree(run->plaintext);
    PyMem_RawFree(run->seconds);
    PyMem_RawFree(run->uncorrected);
    PyMem_RawFree(run->corrected);
    PyMem_RawFree(run->lateness);
    PyMem_RawFree(run->wait);
    PyMem_RawFree(run->first_byte);
    PyMem_RawFree(run->transfer);
    PyMem_RawFree(run->heat);
}

static PyObject *int_list(const int64_t *numbers, int64_t count)
{
    PyObject *list = PyList_New(count);

    for (int64_t i = 0; list != NULL && i < count; i++) {
        PyObject *number = PyLong_FromLongLong(numbers[i]);

        if (number == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, number);
    }
    return list;
}

/* Return (count by status, count by reason of malformed responses, connections closed by responses), or None. */
static PyObject *http_result(const Run *run)
{
    PyObject *statuses, *malformed;

    if (run->http == NULL)
        return Py_NewRef(Py_None);
    statuses = int_list(http_statuses(run->http), HTTP_STATUSES);
    malformed = int_list(http_malformed(run->http), MALFORMED_COUNT);
    if (statuses == NULL || malformed == NULL) {
        Py_XDECREF(statuses);
        Py_XDECREF(malformed);
        return NULL;
    }
    return Py_BuildValue("(NNL)", statuses, malformed, (long long)http_closes(run->http));
}

static PyObject *build_result(const Run *run)
{
    PyObject *faults = int_list(run->faults, FAULT_COUNT), *seconds = int_list(run->seconds, run->second_count);

    if (faults == NULL || seconds == NULL) {
        Py_XDECREF(faults);
        Py_XDECREF(seconds);
        return NULL;
    }
    return Py_BuildValue(
        "{s:N,s:N,s:y#,s:y#,s:y#,s:y#,s:y#,s:y#,s:y#,s:L,s:L,s:L,s:L,s:d,s:d,s:d,s:L,s:i,s:z,s:N}", "faults",
        faults, "each_second", seconds, "uncorrected", (const char *)run->uncorrected,
        (Py_ssize_t)sizeof(Histogram), "corrected", (const char *)run->corrected, (Py_ssize_t)sizeof(Histogram),
        "lateness", (const char *)run->lateness, (Py_ssize_t)sizeof(Histogram), "wait", (const char *)run->wait,
        (Py_ssize_t)sizeof(Histogram), "first_byte", (const char *)run->first_byte, (Py_ssize_t)sizeof(Histogram),
        "transfer", (const char *)run->transfer, (Py_ssize_t)sizeof(Histogram), "heat", (const char *)run->heat,
        (Py_ssize_t)(HEAT_COLUMNS * HEAT_ROWS * sizeof *run->heat), "completed", (long long)run->completed,
        "bytes_received", (long long)run->bytes, "unsent", (long long)run->unsent_dues, "connections_made",
        (long long)run->connections_made, "cpu", run->cpu, "run_queue_wait", run->run_queue_wait, "wall",
        run->wall, "last_answer", (long long)(run->last_answer - run->begin_at), "unresponsive_errno",
        run->unresponsive ? run->last_error : 0, "tls_reason", run->last_error == EPROTO ? run->tls_reason : NULL,
        "http", http_result(run));
}

static int validate(const Run *run, const Py_buffer *buffers, const Py_buffer *sends, const Py_buffer *answers)
{
    int64_t count = buffers[0].len / (Py_ssize_t)sizeof(int64_t);

    if (run->length < 1 || count != run->length + 1 || buffers[1].len != buffers[0].len
        || run->requests.offsets[run->length] != sends->len || run->answers.offsets[run->length] != answers->len) {
        PyErr_SetString(PyExc_ValueError, "the offsets do not match the messages");
        return -1;
    }
    for (int64_t i = 0; i < run->length; i++) {
        if (run->requests.offsets[i] >= run->requests.offsets[i + 1]
            || (run->http == NULL && run->answers.offsets[i] >= run->answers.offsets[i + 1])) {
            PyErr_SetString(PyExc_ValueError, "a message is empty");
            return -1;
        }
    }
    if (run->connection_count < 1 || run->depth < 1 || run->depth > 65536 || run->stop <= run->start) {
        PyErr_SetString(PyExc_ValueError,
                        "connections, depth and duration must be positive, depth 65,536 at most");
        return -1;
    }
    return 0;
}

/* Read the argument `http`: None, or (a byte for each status: whether it is expected; whether responses have no
 * body; the expected body or None; its length or -1). */
static int read_http(Run *run, PyObject *given)
{
    const char *allowed, *body;
    Py_ssize_t allowed_size, body_size;
    int no_body;
    long long length;

    if (given == Py_None)
        return 0;
    if (!PyArg_ParseTuple(given, "y#pz#L", &allowed, &allowed_size, &no_body, &body, &body_size, &length))
        return -1;
    if (allowed_size != HTTP_STATUSES || (body != NULL && body_size != length)) {
        PyErr_SetString(PyExc_ValueError, "http: statuses or length do not match");
        return -1;
    }
    run->http = http_check_new(allowed, no_body, body, length);
    if (run->http == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(
    run_doc,
    "run(*, like, sends, send_offsets, answers, answer_offsets, end, numbers, reconnect,\n"
    "    requests_per_connection, connections, depth, begin, warmup, duration, timeout, unresponsive_after,\n"
    "    receive_buffer, sources, times, batch, http, tls, on_progress, on_measurement_start, on_measurement_end) -> dict\n\n"
    "Drive a target: connect to the peer of the socket `like`, which is closed first. Times are in\n"
    "nanoseconds; `begin` 0 means as soon as all connections are established. `tls`: of tls_context(), or None.\n"
    "See bothends.bench.generators.native.");

static PyObject *run(PyObject *module, PyObject *arguments, PyObject *names)
{
    static char *keywords[] = {"like",
                               "sends",
                               "send_offsets",
                               "answers",
                               "answer_offsets",
                               "end",
                               "numbers",
                               "reconnect",
                               "requests_per_connection",
                               "connections",
                               "depth",
                               "begin",
                               "warmup",
                               "duration",
                               "timeout",
                               "unresponsive_after",
                               "receive_buffer",
                               "sources",
                               "times",
                               "batch",
                               "http",
                               "tls",
                               "on_progress",
                               "on_measurement_start",
                               "on_measurement_end",
                               NULL};
    Run *run = PyMem_Calloc(1, sizeof *run);
    Py_buffer offsets[2], sends, answers, sources;
    long long requests_per_connection, begin, warmup, duration, timeout, unresponsive_after;
    int numbers, reconnect, batch, failed;
    PyObject *result = NULL, *like, *http, *tls;

    if (run == NULL)
        return PyErr_NoMemory();
    run->epoll = -1;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "$Oy*y*y*y*ippLIILLLLLiy*OpOOOOO", keywords, &like, &sends,
                                     &offsets[0], &answers, &offsets[1], &run->end_byte, &numbers, &reconnect,
                                     &requests_per_connection, &run->connection_count, &run->depth, &begin,
                                     &warmup, &duration, &timeout, &unresponsive_after, &run->receive_buffer,
                                     &sources, &run->times, &batch, &http, &tls, &run->on_progress,
                                     &run->on_measurement_start, &run->on_measurement_end)) {
        PyMem_Free(run);
        return NULL;
    }
    run->numbered = numbers;
    run->reconnect = reconnect;
    run->allow_batch = batch;
    run->requests_per_connection = requests_per_connection;
    run->begin_at = begin;
    run->start = warmup;
    run->stop = warmup + duration;
    run->timeout = timeout;
    run->unresponsive_after = unresponsive_after;
    run->times = run->times == Py_None ? NULL : run->times;
    run->requests = (Messages){sends.buf, offsets[0].buf};
    run->answers = (Messages){answers.buf, offsets[1].buf};
    run->length = offsets[0].len / (Py_ssize_t)sizeof(int64_t) - 1;
    run->sources = sources.buf;
    run->source_count = sources.len / (Py_ssize_t)sizeof(uint32_t);
    failed = read_target_socket(run, PyObject_AsFileDescriptor(like)) < 0 || close_target_socket(like) < 0;
    run->tls = tls_context_of(tls);
    if (failed || PyErr_Occurred() || read_http(run, http) < 0 || validate(run, offsets, &sends, &answers) < 0)
        goto done;
    run->message_oriented = run->type != SOCK_STREAM;
    for (int64_t i = 0; i < run->length; i++)
        if (run->answers.offsets[i + 1] - run->answers.offsets[i] > run->max_answer)
            run->max_answer = run->answers.offsets[i + 1] - run->answers.offsets[i];
    if (run->http != NULL)
        run->max_answer = http_expected_size(run->http);
    if (allocate(run) < 0) {
        PyErr_NoMemory();
        goto done;
    }
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (run->epoll < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto done;
    }
    if (run_generator(run) == 0)
        result = build_result(run);
done:
    free_run(run);
    PyMem_Free(run);
    PyBuffer_Release(&sends);
    PyBuffer_Release(&answers);
    PyBuffer_Release(&offsets[0]);
    PyBuffer_Release(&offsets[1]);
    PyBuffer_Release(&sources);
    return result;
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))run, METH_VARARGS | METH_KEYWORDS, run_doc},
    {"tls_context", (PyCFunction)(void (*)(void))tls_context, METH_VARARGS | METH_KEYWORDS, tls_context_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "bothends.bench._generator", .m_size = 0,
                                        .m_methods = methods};

PyMODINIT_FUNC PyInit__generator(void)
{
    return PyModule_Create(&definition);
}
