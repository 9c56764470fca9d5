/* The type Core: its loop, its timeouts, its construction and closing.
 *
 * Each iteration flushes the pending connections, polls without blocking, and only if nothing is ready releases
 * the GIL and waits. Another thread that wants the GIL gets it at the next call of a conversation, or here. A
 * loop that released the GIL in every iteration would have to wait for it in every iteration: 45,000 requests
 * per second instead of 126,000 beside one busy thread.
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <structmember.h>
#include <unistd.h>

/* Minimum interval between checks of the timeouts, in seconds: below human perception (timers.py has the same
 * value). */
static const double TIMEOUT_TICK = 0.02;

/* A timeout may be noticed late by this fraction of itself: checking 10,000 connections takes a millisecond,
 * and millisecond precision is useless for a timeout of a minute. */
static const double TIMEOUT_SLACK = 1.0 / 64;

/* The loop ----------------------------------------------------------------------------------------- */

/* Return the next connection with a conversation whose slot is `slot` or later; NULL if there is none. `slot` becomes
 * the one after it. */
static Connection *next_conversation(const Core *core, uint32_t *slot)
{
    while (*slot < core->slot_count) {
        const Slot *each = &core->slots[(*slot)++];
        Connection *connection = each->object;

        if (each->kind == SLOT_CONNECTION && !(connection->flags & PROTOCOL))
            return connection;
    }
    return NULL;
}

static int check_timeouts(Core *core)
{
    Connection *connection;
    double shortest = fmin(fmin(core->idle_timeout, core->max_lifetime), core->linger_timeout);
    double earliest = core->now + fmax(TIMEOUT_TICK, shortest * TIMEOUT_SLACK);

    core->next_timeout_check = INFINITY;
    for (uint32_t slot = 0; (connection = next_conversation(core, &slot)) != NULL;)
        if (connection_check_timeouts(connection) < 0)
            return -1;
    core->next_timeout_check = fmax(core->next_timeout_check, earliest);
    return core_flush_pending(core);
}

static int run_iteration(Core *core, double deadline)
{
    double timeout;

    if (core_check_owner_process(core) < 0 || PyErr_CheckSignals() < 0 || core_flush_pending(core) < 0)
        return -1;
    if (core->stop_requested)
        return 0;
    timeout = fmin(fmin(deadline, core->next_timeout_check), core->accept_retry_at) - core->now;
    timeout = core->pending != NULL ? 0 : fmax(0, timeout);
    core->iterations++;
    if (core->backend->wait(core, timeout) < 0)
        return -1;
    core->now = clock_now();
    if (core->now >= core->accept_retry_at)
        listeners_rearm(core);
    if (core->now >= core->next_timeout_check && check_timeouts(core) < 0)
        return -1;
    return traffic_log_check_age(core);
}

/* Raise if the core has been closed or belongs to the parent process. 0, or -1 with an exception set. */
static int check_usable(Core *core)
{
    if (core->epoll_fd >= 0 && !core->closing)
        return core_check_owner_process(core);
    PyErr_SetString(PyExc_RuntimeError, "this core is closed");
    return -1;
}

PyDoc_STRVAR(run_doc, "run(timeout)\n\nServe for `timeout` seconds (None: no limit), or until `stop` is called.");
static PyObject *core_run(Core *core, PyObject *timeout)
{
    double deadline = INFINITY;
    int status = 0;

    if (check_usable(core) < 0)
        return NULL;
    if (core->running) {
        PyErr_SetString(PyExc_RuntimeError, "this core is already running");
        return NULL;
    }
    core->now = clock_now();
    if (timeout != Py_None) {
        deadline = core->now + PyFloat_AsDouble(timeout);
        if (PyErr_Occurred())
            return NULL;
    }
    core->running = true;
    do {
        status = run_iteration(core, deadline);
    } while (status == 0 && !core->stop_requested && core->now < deadline);
    core->running = core->stop_requested = false;
    if (status < 0)
        return NULL;
    if (traffic_log_flush(core) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stop_doc, "stop()\n\nMake `run` return after the current iteration. Callable from any thread.");
static PyObject *core_stop(Core *core, PyObject *Py_UNUSED(ignored))
{
    core->stop_requested = true;
    core_wake(core);
    Py_RETURN_NONE;
}

/* Connections -------------------------------------------------------------------------------------- */

PyDoc_STRVAR(attach_protocol_doc,
             "attach_protocol(fd, protocol) -> Connection\n\nMove the bytes of a stream socket for "
             "an asyncio protocol. The core owns the descriptor from now on.");
static PyObject *core_attach_protocol(Core *core, PyObject *args)
{
    PyObject *protocol;
    int fd;

    if (!PyArg_ParseTuple(args, "iO:attach_protocol", &fd, &protocol) || check_usable(core) < 0)
        return NULL;
    return (PyObject *)connection_new(core, fd, protocol, NULL, PROTOCOL);
}

/* Log the beginning of a connection that was accepted in Python. 0, or -1 with an exception set. */
static int log_opened(Connection *self)
{
    Core *core = self->core;
    PyObject *number = PyObject_GetAttrString(self->peer, "connection");
    PyObject *local = PyObject_GetAttrString(self->peer, "local");

    if (number != NULL && local != NULL) {
        self->totals.number = PyLong_AsUnsignedLongLong(number);
        if (!PyErr_Occurred())
            self->log_peer = traffic_log_peer(core, NULL, self->peer, self->totals.number);
        if (self->log_peer != NULL)
            (void)traffic_log_opened(core, self->log_peer, self->totals.number, local);
    }
    Py_XDECREF(number);
    Py_XDECREF(local);
    return PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(
    start_conversation_doc,
    "start_conversation(fd, conversation, peer)\n\nRun a conversation on a stream socket, log its beginning, and call "
    "on_connection_closed(peer, reason, received, sent) at its end: `reason` is an index of `CLOSE_REASONS`."
    " The core owns the descriptor from now on. With None for the "
    "conversation (opening it failed), the connection is closed.");
static PyObject *core_start_conversation(Core *core, PyObject *args)
{
    PyObject *conversation, *peer;
    Connection *connection;
    int fd, status;

    if (!PyArg_ParseTuple(args, "iOO:start_conversation", &fd, &conversation, &peer) || check_usable(core) < 0)
        return NULL;
    connection = connection_new(core, fd, conversation == Py_None ? NULL : conversation, peer, IN_PYTHON);
    if (connection == NULL)
        return NULL;
    status = core->log == NULL ? 0 : log_opened(connection);
    if (status == 0)
        status = connection_start(connection);
    Py_DECREF(connection);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(drain_doc, "drain(last_check)\n\nFinish the conversations that are idle. All data received before "
                        "`last_check` (the time of the previous call) must have been processed.");
static PyObject *core_drain(Core *core, PyObject *last_check)
{
    double seconds = PyFloat_AsDouble(last_check);
    Connection *connection;

    if (PyErr_Occurred())
        return NULL;
    core->now = clock_now();
    for (uint32_t slot = 0; (connection = next_conversation(core, &slot)) != NULL;)
        if (connection_drain(connection, seconds) < 0)
            return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(abort_doc, "abort()\n\nEnd all conversations: with RST, unless our FIN is sent.");
static PyObject *core_abort(Core *core, PyObject *Py_UNUSED(ignored))
{
    Connection *connection;

    core->now = clock_now();
    for (uint32_t slot = 0; (connection = next_conversation(core, &slot)) != NULL;)
        connection_abort(connection);
    Py_RETURN_NONE;
}

/* Construction and closing --------------------------------------------------------------------------- */

#define OPTION(name, type, field) {name, type, offsetof(Core, field), 0, NULL}

/* The keyword arguments of Core(), and the fields they set: with T_OBJECT, NULL for None; T_UINT has a default. */
static PyMemberDef options[] = {
    OPTION("io_uring", T_BOOL, use_uring),
    OPTION("write_high_water", T_PYSSIZET, write_high_water),
    OPTION("read_size", T_PYSSIZET, read_size),
    OPTION("idle_timeout", T_DOUBLE, idle_timeout),
    OPTION("max_lifetime", T_DOUBLE, max_lifetime),
    OPTION("linger_timeout", T_DOUBLE, linger_timeout),
    OPTION("drain_idle", T_DOUBLE, drain_idle),
    OPTION("accept_retry_delay", T_DOUBLE, accept_retry_delay),
    OPTION("busy_poll", T_DOUBLE, busy_poll),
    OPTION("max_connections", T_PYSSIZET, max_connections),
    OPTION("max_message_size", T_OBJECT_EX, max_message_size),
    OPTION("admit", T_OBJECT, admit),
    OPTION("open_conversation", T_OBJECT_EX, open_conversation),
    OPTION("push", T_OBJECT_EX, push),
    OPTION("answer_datagram", T_OBJECT_EX, answer_datagram),
    OPTION("on_connection_opened", T_OBJECT, on_connection_opened),
    OPTION("on_connection_closed", T_OBJECT_EX, on_connection_closed),
    OPTION("on_pull_conversation", T_OBJECT_EX, on_pull_conversation),
    OPTION("on_service_error", T_OBJECT, on_service_error),
    OPTION("on_accept_paused", T_OBJECT, on_accept_paused),
    OPTION("on_datagram_dropped", T_OBJECT, on_datagram_dropped),
    OPTION("submissions", T_UINT, ring_sizes.submissions),
    OPTION("completions", T_UINT, ring_sizes.completions),
    OPTION("buffers", T_UINT, ring_sizes.buffers),
    OPTION("buffer_size", T_UINT, ring_sizes.buffer_size),
};

enum { OPTION_COUNT = sizeof options / sizeof *options };

/* Set the fields of `options` from the keyword arguments. 0, or -1 with an exception set. */
static int set_options(Core *core, PyObject *keywords)
{
    Py_ssize_t known = 0;

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(options[i].name), *value;

        if (name == NULL)
            return -1;
        value = keywords == NULL ? NULL : PyDict_GetItemWithError(keywords, name);
        Py_DECREF(name);
        if (value == NULL && PyErr_Occurred())
            return -1;
        if (value == NULL && options[i].type != T_UINT) {
            PyErr_Format(PyExc_TypeError, "Core() needs the argument %s", options[i].name);
            return -1;
        }
        if (value == NULL)
            continue;
        known++;
        if (PyMember_SetOne((char *)core, &options[i], value) < 0)
            return -1;
        if (options[i].type == T_OBJECT && value == Py_None)
            Py_CLEAR(*(PyObject **)((char *)core + options[i].offset));
    }
    if (keywords != NULL && known != PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Core() got an unknown argument");
        return -1;
    }
    return 0;
}

static int check_ring_sizes(const RingSizes *sizes)
{
    if (sizes->buffers < 2 || sizes->buffers > 32768 || sizes->buffers & (sizes->buffers - 1)) {
        PyErr_SetString(PyExc_ValueError, "buffers must be a power of two from 2 to 32,768");
        return -1;
    }
    if (!sizes->submissions || !sizes->completions || !sizes->buffer_size) {
        PyErr_SetString(PyExc_ValueError, "none of submissions, completions and buffer_size may be 0");
        return -1;
    }
    return 0;
}

static int core_init(Core *core, PyObject *args, PyObject *keywords)
{
    if (core->epoll_fd >= 0) {
        PyErr_SetString(PyExc_RuntimeError, "this core is already initialized");
        return -1;
    }
    if (!PyArg_ParseTuple(args, ":Core")) /* keywords only */
        return -1;
    /* Queues that stay in the CPU's first-level cache and hold a busy iteration of 1,000 connections. */
    core->ring_sizes = (RingSizes){.submissions = 256, .completions = 2048, .buffers = 256, .buffer_size = 16384};
    if (set_options(core, keywords) < 0 || check_ring_sizes(&core->ring_sizes) < 0)
        return -1;
    core->write_high_water = core->write_high_water < 0 ? 0 : core->write_high_water;
    core->read_size = core->read_size < 1 ? 1 : core->read_size;
    core->fork_generation = current_fork_generation;
    core->now = clock_now();
    core->recv_buffer = PyMem_Malloc((size_t)core->read_size);
    if (core->recv_buffer == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    core->backend = &epoll_backend;
    if (epoll_set_open(core) < 0)
        return -1;
    return core->use_uring ? uring_backend_open(core) : 0;
}

static PyObject *core_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(keywords))
{
    Core *core = (Core *)type->tp_alloc(type, 0);

    if (core == NULL)
        return NULL;
    core->epoll_fd = core->wakeup_fd = -1;
    core->first_free = UINT32_MAX;
    core->pending_end = &core->pending;
    counters_init(core);
    core->next_timeout_check = core->accept_retry_at = INFINITY;
    return (PyObject *)core;
}

/* Release the buffers, which nothing uses once the core is closed. */
static void release_memory(Core *core)
{
    PyMem_Free(core->watch_by_fd);
    core->watch_by_fd = NULL;
    core->watch_by_fd_size = 0;
    PyMem_Free(core->recv_buffer);
    core->recv_buffer = NULL;
    PyMem_Free(core->answers);
    core->answers = NULL;
    core->answers_size = 0;
    counters_release(core);
    traffic_log_release(core);
}

PyDoc_STRVAR(close_doc, "close()\n\nReset all connections and release all resources. Idempotent. In a child after "
                        "fork: release the child's copies.");
static PyObject *core_close(Core *core, PyObject *Py_UNUSED(ignored))
{
    bool is_owner = core->fork_generation == current_fork_generation;

    if (core->running && is_owner) {
        PyErr_SetString(PyExc_RuntimeError, "this core is running");
        return NULL;
    }
    if (core->epoll_fd < 0 || core->closing)
        Py_RETURN_NONE;
    core->closing = true;
    for (uint32_t i = 0; is_owner && i < core->slot_count; i++)
        if (core->slots[i].kind == SLOT_CONNECTION)
            connection_abort(core->slots[i].object);
    core->backend->close(core, is_owner);
    /* No request of the kernel refers to a connection any more. */
    for (uint32_t i = 0; i < core->slot_count; i++) {
        if (core->slots[i].kind == SLOT_CONNECTION) {
            Connection *connection = core->slots[i].object;

            connection->flags &= ~(uint32_t)PENDING;
            if (!is_owner)
                connection_detach_in_child(connection);
            else if (connection_close_now(connection) < 0)
                PyErr_WriteUnraisable((PyObject *)core);
        } else if (core->slots[i].kind == SLOT_WATCH)
            watch_discard(core->slots[i].object);
    }
    if (is_owner && traffic_log_flush(core) < 0)
        PyErr_WriteUnraisable((PyObject *)core);
    listeners_free(core);
    while (core->datagram_servers != NULL)
        datagram_server_free(core, core->datagram_servers);
    core->pending = NULL;
    core->pending_end = &core->pending;
    PyMem_Free(core->slots);
    core->slots = NULL;
    core->slot_count = 0;
    core->first_free = UINT32_MAX;
    close(core->epoll_fd);
    close(core->wakeup_fd);
    core->epoll_fd = core->wakeup_fd = -1;
    release_memory(core);
    core->closing = false;
    Py_RETURN_NONE;
}

/* Visit what the core keeps alive: the engine's callbacks, which usually refer to the core, the handlers of its
 * connections, and the callbacks of watches. A connection is not tracked itself, because most never are part of
 * a cycle, and a header for the garbage collector is a tenth of its size: the core visits for it. */
static int core_traverse(Core *core, visitproc visit, void *arg)
{
    int status = 0;

    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (options[i].type == T_OBJECT || options[i].type == T_OBJECT_EX)
            Py_VISIT(*(PyObject **)((char *)core + options[i].offset));
    Py_VISIT(core->last_type);
    for (uint32_t i = 0; status == 0 && i < core->slot_count; i++) {
        if (core->slots[i].kind == SLOT_CONNECTION) {
            Connection *connection = core->slots[i].object;

            Py_VISIT(connection->handler);
        } else if (core->slots[i].kind == SLOT_WATCH)
            status = watch_traverse(core->slots[i].object, visit, arg);
    }
    status = status ? status : traffic_log_traverse(core, visit, arg);
    return status ? status : datagram_servers_traverse(core, visit, arg);
}

static int core_clear(Core *core)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (options[i].type == T_OBJECT || options[i].type == T_OBJECT_EX)
            Py_CLEAR(*(PyObject **)((char *)core + options[i].offset));
    Py_CLEAR(core->last_type);
    traffic_log_release(core);
    return 0;
}

/* Close a core that is still open, while its callbacks exist: closing calls them. */
static void core_finalize(Core *core)
{
    PyObject *exception = take_exception();

    if (discard_result(core_close(core, NULL)) < 0)
        PyErr_WriteUnraisable((PyObject *)core);
    restore_exception(exception);
}

static void core_dealloc(Core *core)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)core) < 0)
        return; /* resurrected */
    PyObject_GC_UnTrack(core);
    (void)core_clear(core);
    release_memory(core);
    Py_TYPE(core)->tp_free(core);
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)core_run, METH_O, run_doc},
    {"stop", (PyCFunction)core_stop, METH_NOARGS, stop_doc},
    {"attach_protocol", (PyCFunction)core_attach_protocol, METH_VARARGS, attach_protocol_doc},
    {"start_conversation", (PyCFunction)core_start_conversation, METH_VARARGS, start_conversation_doc},
    {"drain", (PyCFunction)core_drain, METH_O, drain_doc},
    {"abort", (PyCFunction)core_abort, METH_NOARGS, abort_doc},
    {"listen", (PyCFunction)core_listen, METH_VARARGS,
     "listen(fd, local, shared)\n\nAccept every connection of a listening socket. `local`: our Address there, or "
     "None if it differs between connections. `shared`: other processes accept from the socket too."},
    {"stop_listening", (PyCFunction)core_stop_listening, METH_NOARGS,
     "stop_listening()\n\nAccept the connections that are in the accept queues, then no more."},
    {"count", (PyCFunction)core_count, METH_VARARGS,
     "count(words, offsets)\n\nCount from now on in a writable buffer of 64-bit words, until close(). `offsets`: a "
     "tuple with the word of each of `COUNTERS`."},
    {"log_traffic", (PyCFunction)(void (*)(void))core_log_traffic, METH_VARARGS | METH_KEYWORDS,
     "log_traffic(...)\n\nLog connections and messages of conversations that run here, until close(). See "
     "LineFormat in events.py: `templates` are those of an IPv4 address, opened, received, sent, ended, and closed "
     "for each of CLOSE_REASONS."},
    {"flush_log", (PyCFunction)core_flush_log, METH_NOARGS,
     "flush_log()\n\nWrite the records that are collected. Callable from any thread."},
    {"watch", (PyCFunction)core_watch, METH_VARARGS,
     "watch(fd, callback, events, shared)\n\nCall callback(events) whenever the descriptor is ready for `events` "
     "(poll(2)'s bits). `shared`: other processes wait for it too, and waking one of them is enough."},
    {"unwatch", (PyCFunction)core_unwatch, METH_VARARGS,
     "unwatch(fd)\n\nStop watching a descriptor. Call before closing it. Does nothing if it is not watched."},
    {"add_datagram_socket", (PyCFunction)core_add_datagram_socket, METH_VARARGS,
     "add_datagram_socket(fd, local, reject, max_size, wildcard, is_inet)\n\nAnswer the datagrams of a socket. "
     "reject(peer), or None: if it returns anything but None, the datagram is not answered. `max_size`: in bytes; "
     "longer datagrams are dropped. `wildcard`: the socket is bound to all interfaces and has IP_PKTINFO set."},
    {"remove_datagram_socket", (PyCFunction)core_remove_datagram_socket, METH_VARARGS,
     "remove_datagram_socket(fd)\n\nAnswer the datagrams in the socket's receive buffer, then no more. Call before "
     "closing it."},
    {"close", (PyCFunction)core_close, METH_NOARGS, close_doc},
    {NULL},
};

static PyMemberDef members[] = {
    {"open_conversation", T_OBJECT_EX, offsetof(Core, open_conversation), 0,
     "Opens a conversation: open_conversation(peer, push)."},
    {"answer_datagram", T_OBJECT_EX, offsetof(Core, answer_datagram), 0,
     "Answers a datagram: answer_datagram(data, peer)."},
    {"connections", T_PYSSIZET, offsetof(Core, connections), READONLY, "Number of open connections."},
    {"conversations", T_PYSSIZET, offsetof(Core, conversations), READONLY,
     "Number of open connections with a conversation."},
    {"now", T_DOUBLE, offsetof(Core, now), READONLY, "Seconds of CLOCK_MONOTONIC, as of this iteration."},
    {"iterations", T_ULONGLONG, offsetof(Core, iterations), READONLY, "Number of iterations of the loop."},
    {"chunks", T_ULONGLONG, offsetof(Core, chunks), READONLY, "Number of chunks received."},
    {"rearmed_receives", T_ULONGLONG, offsetof(Core, rearmed_receives), READONLY,
     "Number of receives that ended because no buffer was free (ENOBUFS)."},
    {NULL},
};

PyTypeObject CoreType = {
    .ob_base = {PyObject_HEAD_INIT(NULL) 0},
    .tp_name = "bothends.engines._native.Core",
    .tp_doc = "Accepts, receives, sends and closes, with io_uring or epoll, and calls Python for each chunk. See "
              "engines/native.py.",
    .tp_basicsize = sizeof(Core),
    .tp_new = core_new,
    .tp_init = (initproc)core_init,
    .tp_dealloc = (destructor)core_dealloc,
    .tp_traverse = (traverseproc)core_traverse,
    .tp_clear = (inquiry)core_clear,
    .tp_finalize = (destructor)core_finalize,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_methods = methods,
    .tp_members = members,
};
