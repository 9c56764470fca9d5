/* Core: the loop, its slots, and its time limits.
 *
 * A turn: look at whoever is dirty, see without waiting what has come, and only if nothing has, release the
 * GIL and wait. Another thread that wants the GIL gets it at the next call of a conversation, or here; a
 * loop that gave it away at every turn would wait for it at every turn (126,000 requests a second against
 * 45,000, beside one busy thread).
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <structmember.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* How often time limits are looked at, at most: below what a person notices (timers.py says the same). */
static const double TIMEOUT_TICK = 0.02;

/* A limit may pass by a 64th of itself before it is noticed: at 10,000 connections a look at all of them
 * costs a millisecond, and nobody waits for a minute to end on the millisecond. */
static const double TIMEOUT_SLACK = 1.0 / 64;

unsigned current_fork_generation;

double clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

bool report_service_error(Core *core, PyObject *peer)
{
    PyObject *type, *value, *traceback, *result;

    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Fetch(&type, &value, &traceback);
    if (core->on_service_error == NULL || peer == NULL)
        result = Py_NewRef(Py_None);
    else {
        PyErr_NormalizeException(&type, &value, &traceback);
        if (traceback != NULL)
            PyException_SetTraceback(value, traceback);
        result = PyObject_CallFunctionObjArgs(core->on_service_error, peer, value, NULL);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    Py_XDECREF(result);
    return result != NULL;
}

/* Slots -------------------------------------------------------------------------------------------- */

/* A free slot for this; its number, or UINT32_MAX where there is no memory. */
uint32_t slot_alloc(Core *core, enum slot_kind slot_kind, void *object, uint32_t *generation)
{
    uint32_t index = core->first_free;

    if (index == UINT32_MAX) {
        uint32_t count = core->slot_count ? core->slot_count * 2 : 64;
        Slot *slots = PyMem_Realloc(core->slots, count * sizeof *slots);

        if (slots == NULL)
            return UINT32_MAX;
        for (uint32_t i = core->slot_count; i < count; i++)
            slots[i] = (Slot){.next_free = i + 1 < count ? i + 1 : UINT32_MAX};
        index = core->slot_count;
        core->slots = slots;
        core->slot_count = count;
    }
    core->first_free = core->slots[index].next_free;
    core->slots[index].slot_kind = slot_kind;
    core->slots[index].object = object;
    *generation = core->slots[index].generation;
    return index;
}

void slot_free(Core *core, uint32_t index)
{
    Slot *slot = &core->slots[index];

    slot->generation = (slot->generation + 1) % GENERATIONS;
    slot->slot_kind = SLOT_FREE;
    slot->object = NULL;
    slot->next_free = core->first_free;
    core->first_free = index;
}

/* Who a report is about, or NULL if it is gone. */
void *slot_lookup(Core *core, uint64_t user_data, enum slot_kind *slot_kind)
{
    uint32_t index = (uint32_t)user_data;
    Slot *slot = index < core->slot_count ? &core->slots[index] : NULL;

    if (slot == NULL || slot->slot_kind == SLOT_FREE || slot->generation != ((user_data >> 32) & (GENERATIONS - 1)))
        return NULL;
    *slot_kind = slot->slot_kind;
    return slot->object;
}

/* The loop ----------------------------------------------------------------------------------------- */

/* False, with an exception set, in a child after fork: the rings and the epoll set are its parent's too. */
bool loop_check_owner_process(const Core *core)
{
    if (core->fork_generation == current_fork_generation)
        return true;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, "this core is another process's (fork)");
    return false;
}

/* There is something to do: let the loop not wait, if it does. */
void loop_wake(Core *core)
{
    if (core->awake || core->fork_generation != current_fork_generation)
        return;
    core->awake = true;
    (void)eventfd_write(core->wakeup_fd, 1);
}

/* Do what the flags and queues of all dirty connections ask for. */
int loop_flush_pending(Core *core)
{
    bool again = false;

    while (core->pending != NULL && !again) {
        Connection *connection = core->pending;
        int status;

        core->pending = connection->next_pending;
        if (core->pending == NULL)
            core->pending_end = &core->pending;
        connection->flags &= ~(uint32_t)PENDING;
        if (core->ring != NULL)
            status = uring_update(connection, &again);
        else
            status = epoll_backend_update(connection);
        if (status < 0)
            return -1;
    }
    return 0;
}

static int check_timeouts(Core *core)
{
    double earliest = core->now + fmax(TIMEOUT_TICK, fmin(fmin(core->idle_timeout, core->max_lifetime), core->linger_timeout) * TIMEOUT_SLACK);

    core->next_timeout_check = INFINITY;
    for (uint32_t i = 0; i < core->slot_count; i++) {
        Connection *connection = core->slots[i].object;

        if (core->slots[i].slot_kind != SLOT_CONNECTION || connection->flags & PROTOCOL)
            continue;
        if (connection_check_timeouts(connection) < 0)
            return -1;
    }
    core->next_timeout_check = fmax(core->next_timeout_check, earliest);
    return loop_flush_pending(core);
}

static int run_iteration(Core *core, double deadline)
{
    double timeout;

    if (!loop_check_owner_process(core) || PyErr_CheckSignals() < 0 || loop_flush_pending(core) < 0)
        return -1;
    if (core->stop_requested)
        return 0;
    timeout = fmin(fmin(deadline, core->next_timeout_check), core->accept_retry_at) - core->now;
    timeout = core->pending != NULL ? 0 : fmax(0, timeout);
    core->iterations++;
    if ((core->ring != NULL ? uring_wait(core, timeout) : epoll_backend_wait(core, timeout)) < 0)
        return -1;
    core->now = clock_now();
    if (core->now >= core->accept_retry_at)
        listeners_rearm(core);
    return core->now >= core->next_timeout_check ? check_timeouts(core) : 0;
}

static bool check_usable(Core *core)
{
    if (core->epoll_fd >= 0 && !core->closing)
        return loop_check_owner_process(core);
    PyErr_SetString(PyExc_RuntimeError, "this core is closed");
    return false;
}

PyDoc_STRVAR(run_doc, "run(patience)\n\nServe for `patience` seconds (None: for ever), or until "
                      "`interrupt` is called.");
static PyObject *core_run(Core *core, PyObject *timeout)
{
    double deadline = INFINITY;
    int status = 0;

    if (!check_usable(core))
        return NULL;
    if (core->running) {
        PyErr_SetString(PyExc_RuntimeError, "this core runs already");
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
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stop_doc, "interrupt()\n\nLet `run` come back after this turn. From any thread.");
static PyObject *core_stop(Core *core, PyObject *Py_UNUSED(ignored))
{
    core->stop_requested = true;
    loop_wake(core);
    Py_RETURN_NONE;
}

/* Connections -------------------------------------------------------------------------------------- */

PyDoc_STRVAR(attach_protocol_doc, "adopt(fd, protocol) -> Connection\n\nDrive a stream socket for an asyncio protocol. "
                        "The descriptor is the core's from now on.");
static PyObject *core_attach_protocol(Core *core, PyObject *args)
{
    PyObject *protocol;
    int fd;

    if (!PyArg_ParseTuple(args, "iO:adopt", &fd, &protocol) || !check_usable(core))
        return NULL;
    return (PyObject *)connection_new(core, fd, protocol, NULL, PROTOCOL);
}

PyDoc_STRVAR(start_conversation_doc, "converse(fd, conversation, peer)\n\nHold a conversation on a stream socket; "
                           "`gone(peer)` is called at its end. The descriptor is the core's from now on. "
                           "No conversation (None): opening it failed, and the peer is let go.");
static PyObject *core_start_conversation(Core *core, PyObject *args)
{
    PyObject *conversation, *peer;
    Connection *connection;
    int fd, status;

    if (!PyArg_ParseTuple(args, "iOO:converse", &fd, &conversation, &peer) || !check_usable(core))
        return NULL;
    connection = connection_new(core, fd, conversation == Py_None ? NULL : conversation, peer, IN_PYTHON);
    if (connection == NULL)
        return NULL;
    status = connection_start(connection);
    Py_DECREF(connection);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Call something for each connection that is no protocol's. */
static PyObject *for_each_conversation(Core *core, int (*function)(Connection *, double), double when)
{
    core->now = clock_now();
    for (uint32_t i = 0; i < core->slot_count; i++) {
        Connection *connection = core->slots[i].object;

        if (core->slots[i].slot_kind != SLOT_CONNECTION || connection->flags & PROTOCOL)
            continue;
        if (function(connection, when) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(drain_doc, "drain(looked)\n\nFinish the conversations that have come to rest, if all that came before "
                        "`looked` has been heard.");
static PyObject *core_drain(Core *core, PyObject *last_check)
{
    double when = PyFloat_AsDouble(last_check);

    return PyErr_Occurred() ? NULL : for_each_conversation(core, connection_drain, when);
}

static int abort_conversation(Connection *connection, double Py_UNUSED(when))
{
    connection_begin_close(connection, true);
    return 0;
}

PyDoc_STRVAR(abort_doc, "abort()\n\nCut off all conversations.");
static PyObject *core_abort(Core *core, PyObject *Py_UNUSED(ignored))
{
    return for_each_conversation(core, abort_conversation, 0);
}

/* Life --------------------------------------------------------------------------------------------- */

static int check_ring_sizes(const RingSizes *sizes)
{
    if (sizes->buffers < 2 || sizes->buffers > 32768 || sizes->buffers & (sizes->buffers - 1)) {
        PyErr_SetString(PyExc_ValueError, "buffers: a power of two, 2 to 32,768");
        return -1;
    }
    if (!sizes->submissions || !sizes->completions || !sizes->buffer_size) {
        PyErr_SetString(PyExc_ValueError, "no size may be 0");
        return -1;
    }
    return 0;
}

static int core_init(Core *core, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"io_uring", "unsent", "chunk", "idle", "life", "linger", "quiet", "strain_pause",
                           "busy", "longest", "opener", "post", "answerer", "gone", "pulling", "failed", "strained",
                           "dropped", "submissions", "completions",
                           "buffers", "buffer_size", NULL};
    PyObject *open_conversation, *push, *answer_datagram, *on_connection_closed, *on_pull_conversation, *max_message_size, *on_service_error, *on_accept_paused, *on_datagram_dropped;
    /* Queues that stay in a processor's nearest cache, and hold what a busy turn of a thousand makes. */
    RingSizes sizes = {.submissions = 256, .completions = 2048, .buffers = 256, .buffer_size = 16384};
    Py_ssize_t unsent, read_size;
    int use_uring, error;

    if (core->epoll_fd >= 0) {
        PyErr_SetString(PyExc_RuntimeError, "a core is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "pnnddddddOOOOOOOOO|IIII:Core", keys, &use_uring, &unsent,
                                     &read_size, &core->idle_timeout, &core->max_lifetime, &core->linger_timeout, &core->drain_idle,
                                     &core->accept_retry_delay, &core->busy_poll, &max_message_size, &open_conversation, &push, &answer_datagram, &on_connection_closed, &on_pull_conversation, &on_service_error, &on_accept_paused, &on_datagram_dropped,
                                     &sizes.submissions, &sizes.completions, &sizes.buffers,
                                     &sizes.buffer_size)
        || check_ring_sizes(&sizes) < 0)
        return -1;
    core->unsent = unsent < 0 ? 0 : (size_t)unsent;
    core->read_size = read_size < 1 ? 1 : (size_t)read_size;
    core->max_message_size = Py_NewRef(max_message_size);
    core->open_conversation = Py_NewRef(open_conversation);
    core->push = Py_NewRef(push);
    core->answer_datagram = Py_NewRef(answer_datagram);
    core->on_connection_closed = Py_NewRef(on_connection_closed);
    core->on_pull_conversation = Py_NewRef(on_pull_conversation);
    core->on_service_error = on_service_error == Py_None ? NULL : Py_NewRef(on_service_error);
    core->on_accept_paused = on_accept_paused == Py_None ? NULL : Py_NewRef(on_accept_paused);
    core->on_datagram_dropped = on_datagram_dropped == Py_None ? NULL : Py_NewRef(on_datagram_dropped);
    core->fork_generation = current_fork_generation;
    core->now = clock_now();
    core->recv_buffer = PyMem_Malloc(core->read_size);
    if (core->recv_buffer == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (epoll_open(core) < 0)
        return -1;
    if (!use_uring)
        return 0;
    core->ring = PyMem_Calloc(1, sizeof *core->ring);
    if (core->ring == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (sizes.buffer_size > core->read_size)
        sizes.buffer_size = (unsigned)core->read_size;
    error = ring_open(core->ring, &sizes);
    if (error) {
        PyMem_Free(core->ring);
        core->ring = NULL;
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static PyObject *core_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(keywords))
{
    Core *core = (Core *)type->tp_alloc(type, 0);

    if (core == NULL)
        return NULL;
    core->epoll_fd = core->wakeup_fd = -1;
    core->first_free = UINT32_MAX;
    core->pending_end = &core->pending;
    core->next_timeout_check = core->accept_retry_at = INFINITY;
    return (PyObject *)core;
}

PyDoc_STRVAR(close_doc, "close()\n\nCut off whatever is left, and give everything back. Idempotent. In a child "
                        "after fork: give back the child's copies.");
static PyObject *core_close(Core *core, PyObject *Py_UNUSED(ignored))
{
    bool is_owner = core->fork_generation == current_fork_generation;

    if (core->running && is_owner) {
        PyErr_SetString(PyExc_RuntimeError, "this core runs");
        return NULL;
    }
    if (core->epoll_fd < 0 || core->closing)
        Py_RETURN_NONE;
    core->closing = true;
    for (uint32_t i = 0; is_owner && i < core->slot_count; i++)
        if (core->slots[i].slot_kind == SLOT_CONNECTION)
            connection_begin_close(core->slots[i].object, true);
    if (core->ring != NULL) {
        if (is_owner)
            uring_cancel_all(core);
        ring_close(core->ring);
        PyMem_Free(core->ring);
        core->ring = NULL;
    }
    /* Nothing of the kernel's refers to a connection any more. */
    for (uint32_t i = 0; i < core->slot_count; i++) {
        Connection *connection = core->slots[i].object;

        if (core->slots[i].slot_kind == SLOT_CONNECTION) {
            connection->flags &= ~(uint32_t)(RECV_ARMED | SEND_INFLIGHT | PENDING);
            if (!is_owner)
                connection_detach_in_child(connection);
            else if (connection_close_now(connection) < 0)
                PyErr_WriteUnraisable((PyObject *)core);
        } else if (core->slots[i].slot_kind == SLOT_WATCH) {
            Watch *watch = core->slots[i].object;

            Py_DECREF(watch->callback);
            PyMem_Free(watch);
        }
    }
    while (core->listeners != NULL) {
        Listener *next = core->listeners->next;

        Py_XDECREF(core->listeners->local);
        PyMem_Free(core->listeners);
        core->listeners = next;
    }
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
    core->closing = false;
    Py_RETURN_NONE;
}

static void core_dealloc(Core *core)
{
    PyObject *result = core_close(core, NULL);

    if (result == NULL)
        PyErr_WriteUnraisable((PyObject *)core);
    Py_XDECREF(result);
    PyMem_Free(core->watch_by_fd);
    PyMem_Free(core->recv_buffer);
    Py_XDECREF(core->max_message_size);
    Py_XDECREF(core->open_conversation);
    Py_XDECREF(core->push);
    Py_XDECREF(core->answer_datagram);
    Py_XDECREF(core->on_connection_closed);
    Py_XDECREF(core->on_pull_conversation);
    Py_XDECREF(core->on_service_error);
    Py_XDECREF(core->on_accept_paused);
    Py_XDECREF(core->on_datagram_dropped);
    Py_XDECREF((PyObject *)core->last_type);
    Py_TYPE(core)->tp_free(core);
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)core_run, METH_O, run_doc},
    {"interrupt", (PyCFunction)core_stop, METH_NOARGS, stop_doc},
    {"adopt", (PyCFunction)core_attach_protocol, METH_VARARGS, attach_protocol_doc},
    {"converse", (PyCFunction)core_start_conversation, METH_VARARGS, start_conversation_doc},
    {"drain", (PyCFunction)core_drain, METH_O, drain_doc},
    {"abort", (PyCFunction)core_abort, METH_NOARGS, abort_doc},
    {"listen", (PyCFunction)core_listen, METH_VARARGS,
     "listen(fd, local, shared)\n\nWelcome everybody at this listener. `local`: our Address there, or None "
     "where each connection has its own. `shared`: other processes accept from it as well."},
    {"deafen", (PyCFunction)loop_stop_listening, METH_NOARGS,
     "deafen()\n\nWelcome nobody any more; who waits in a queue already still comes in."},
    {"watch", (PyCFunction)core_watch, METH_VARARGS,
     "watch(fd, callback, events, shared)\n\nCall callback(events) whenever the descriptor is ready for "
     "`events` (poll()'s bits). `shared`: other processes wait for the same, and one is enough."},
    {"unwatch", (PyCFunction)core_unwatch, METH_VARARGS,
     "unwatch(fd)\n\nWait for it no more. Before it is closed. Harmless if it isn't waited for."},
    {"answer", (PyCFunction)datagram_server_add, METH_VARARGS,
     "answer(fd, local, refuse, largest, wildcard, internet)\n\nAnswer what arrives at a datagram socket. "
     "refuse(peer), or None: whatever it gives but None keeps a datagram from being answered."},
    {"mute", (PyCFunction)datagram_server_remove, METH_VARARGS,
     "mute(fd)\n\nAnswer what waits there already, and then no more. Before it is closed."},
    {"close", (PyCFunction)core_close, METH_NOARGS, close_doc},
    {NULL},
};

static PyMemberDef members[] = {
    {"opener", T_OBJECT_EX, offsetof(Core, open_conversation), 0, "Opens a conversation: opener(peer, post)."},
    {"answerer", T_OBJECT_EX, offsetof(Core, answer_datagram), 0, "Answers a datagram: answerer(data, peer)."},
    {"connections", T_PYSSIZET, offsetof(Core, connections), READONLY, "How many are open."},
    {"conversations", T_PYSSIZET, offsetof(Core, conversations), READONLY, "Those that are no protocol's."},
    {"now", T_DOUBLE, offsetof(Core, now), READONLY, "Seconds, as of this turn (CLOCK_MONOTONIC)."},
    {"turns", T_ULONGLONG, offsetof(Core, iterations), READONLY, "How often it has waited."},
    {"chunks", T_ULONGLONG, offsetof(Core, chunks), READONLY, "How many chunks have come."},
    {"rearmed", T_ULONGLONG, offsetof(Core, rearmed_receives), READONLY,
     "How often a receive ended because no buffer, or no completion, was left."},
    {NULL},
};

PyTypeObject CoreType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "bothends.engines._native.Core",
    .tp_doc = "Accepts, receives, sends and closes, by io_uring or by epoll, and calls Python in between. "
              "See engines/native.py.",
    .tp_basicsize = sizeof(Core),
    .tp_new = core_new,
    .tp_init = (initproc)core_init,
    .tp_dealloc = (destructor)core_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = methods,
    .tp_members = members,
};
