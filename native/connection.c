/* Connection: one connection, whichever backend moves its bytes.
 *
 * There are two kinds, distinguished by the flag PROTOCOL:
 *
 * 1. Without: the handler is a conversation (services/base.py), called from here, and `state` has its state
 *    (connection_state.h). This is engines/connection_state.py in C, for connections that are at most counted
 *    and logged.
 * 2. With: the handler is an asyncio protocol, and the connection is its transport. The protocol keeps the
 *    state in Python (engines/asyncio.py); this file only moves its bytes.
 *
 * A change of state, flags or queue marks the connection as pending (connection_mark_pending);
 * core_flush_pending() then has the backend act on it.
 */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <unistd.h>

static void connection_update(Connection *self);

typedef struct {
    bool exists;
    unsigned char state, action;
} Transition;

static Transition transitions[STATE_COUNT][INPUT_COUNT];

/* Take the table of states, a dictionary: (state, input) to (state, action). 0, or -1 with an exception set. */
int connection_bind_transitions(PyObject *table)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;

    while (PyDict_Next(table, &position, &key, &value)) {
        unsigned state, input, next, action;

        if (!PyArg_ParseTuple(key, "II", &state, &input) || !PyArg_ParseTuple(value, "II", &next, &action))
            return -1;
        if (state >= STATE_COUNT || input >= INPUT_COUNT || next >= STATE_COUNT || action > ACTION_RESET) {
            PyErr_SetString(PyExc_ValueError, "a transition has an unknown state, input or action");
            return -1;
        }
        transitions[state][input] =
            (Transition){.exists = true, .state = (unsigned char)next, .action = (unsigned char)action};
    }
    return 0;
}

/* Call a method and discard its result. 0, or -1 with an exception set. */
static int call_method(PyObject *self, PyObject *name, PyObject *argument)
{
    return discard_result(argument == NULL ? PyObject_CallMethodNoArgs(self, name)
                                           : PyObject_CallMethodOneArg(self, name, argument));
}

/* Make a connection, which takes ownership of the descriptor. On failure returns NULL with an exception set, and the
 * descriptor is still the caller's. */
Connection *connection_new(Core *core, int fd, PyObject *handler, PyObject *peer, uint32_t flags)
{
    Connection *self = PyObject_New(Connection, &ConnectionType);

    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->core = core;
    self->handler = Py_XNewRef(handler);
    self->peer = Py_XNewRef(peer);
    self->fd = fd;
    self->flags = flags;
    self->high_water = core->write_high_water > UINT32_MAX ? UINT32_MAX : (uint32_t)core->write_high_water;
    self->low_water = self->high_water / 2;
    self->timeout_start = self->last_received = self->last_activity = core->now;
    self->slot = slot_alloc(core, SLOT_CONNECTION, self, &self->generation);
    if (self->slot == UINT32_MAX) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    Py_INCREF(self); /* the slot's reference, until connection_close_now() */
    core->connections++;
    if (!(flags & PROTOCOL)) {
        double limit = fmin(core->idle_timeout, core->max_lifetime);

        core->conversations++;
        core_count_up(core, COUNT_ACCEPTED, 1);
        core->next_timeout_check = fmin(core->next_timeout_check, core->now + limit);
    }
    connection_mark_pending(self);
    return self;
}

/* Have the backend act on the connection's flags and queue before the loop waits again. */
void connection_mark_pending(Connection *self)
{
    if (self->flags & (PENDING | CLOSED) || self->core->closing)
        return;
    self->flags |= PENDING;
    core_append_pending(self->core, self);
}

/* Change the state as the table says, and do what it says with the socket. */
static void connection_step(Connection *self, enum connection_input input)
{
    Transition transition = transitions[self->state][input];

    assert(transition.exists);
    if (!transition.exists)
        return; /* a bug of the caller */
    self->state = transition.state;
    switch ((enum connection_action)transition.action) {
    case ACTION_NONE:
        break;
    case ACTION_SHUTDOWN:
        if (shutdown(self->fd, SHUT_WR) < 0)
            connection_on_error(self, errno);
        break;
    case ACTION_CLOSE:
        connection_begin_close(self, false);
        break;
    case ACTION_RESET:
        connection_begin_close(self, true);
        break;
    }
}

/* End the connection now. The reason of a complete conversation, which only lingers, stays. */
static void connection_end(Connection *self, enum connection_input input, enum close_reason reason)
{
    if (self->state != STATE_LINGERING)
        self->reason = reason;
    connection_step(self, input);
}

/* The conversation sends nothing more. */
static void connection_finish(Connection *self)
{
    if (self->state <= STATE_STOPPED)
        connection_step(self, INPUT_FINISHED);
}

/* Report the exception that is set, as core_report_service_error() does. */
static int connection_report_error(Core *core, Connection *self)
{
    PyObject *peer = Py_XNewRef(self->peer);
    int status;

    if (peer == NULL && self->peer_address.local != NULL) {
        PyObject *exception = take_exception();

        peer = peer_from_address(&self->peer_address, core->max_message_size);
        restore_exception(exception); /* in place of a MemoryError of the line above */
    }
    status = core_report_service_error(core, peer);
    Py_XDECREF(peer);
    return status;
}

/* Handle an exception raised by the service: it ends this conversation only. */
static int connection_on_service_error(Connection *self)
{
    self->reason = CLOSED_FAILED;
    connection_finish(self);
    return connection_report_error(self->core, self);
}

/* Report the conversation's `failure`: the error of one that ended with a last reply. */
static int report_failure(Connection *self)
{
    PyObject *failure;

    if (self->core->on_service_error == NULL || (self->peer == NULL && self->peer_address.local == NULL))
        return 0;
    failure = PyObject_GetAttr(self->handler, names.failure);
    if (failure == NULL)
        return connection_on_service_error(self);
    if (failure != Py_None)
        PyErr_SetObject((PyObject *)Py_TYPE(failure), failure);
    Py_DECREF(failure);
    return PyErr_Occurred() ? connection_on_service_error(self) : 0;
}

/* Queue what a method of the conversation returned. Steals the reference; NULL means it raised. */
static int queue_reply(Connection *self, PyObject *reply)
{
    int status;

    if (reply == NULL)
        return connection_on_service_error(self);
    if (!PyBytes_CheckExact(reply)) {
        Py_SETREF(reply, PyBytes_FromObject(reply)); /* a bytearray could change while it is sent */
        if (reply == NULL)
            return connection_on_service_error(self);
    }
    status = PyBytes_GET_SIZE(reply) ? write_queue_append(&self->queue, reply) : 0;
    Py_DECREF(reply);
    return status;
}

/* Check whether the conversation is done. Called after every method except the last. */
static int check_done(Connection *self)
{
    int done = take_truth(PyObject_GetAttr(self->handler, names.done));

    if (done < 0)
        return connection_on_service_error(self);
    if (!done)
        return 0;
    if (self->state == STATE_OPEN)
        self->reason = CLOSED_BY_SERVICE;
    connection_finish(self);
    return report_failure(self);
}

/* Process what start() or receive() returned. */
static int handle_reply(Connection *self, PyObject *reply)
{
    if (queue_reply(self, reply) < 0 || (self->state <= STATE_STOPPED && check_done(self) < 0))
        return -1;
    connection_update(self);
    return 0;
}

/* Start the conversation. */
int connection_start(Connection *self)
{
    if (self->handler == NULL) { /* opening the conversation failed */
        self->reason = CLOSED_FAILED;
        connection_finish(self);
        connection_update(self);
        return 0;
    }
    return handle_reply(self, PyObject_CallMethodNoArgs(self->handler, names.start));
}

/* Call a method with received bytes, which are copied before any Python code runs. Returns its result, or NULL with
 * an exception set. */
static PyObject *call_with_bytes(Connection *self, PyObject *method, const char *data, size_t size)
{
    PyObject *data_bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size), *result;

    result = data_bytes == NULL ? NULL : PyObject_CallMethodOneArg(self->handler, method, data_bytes);
    Py_XDECREF(data_bytes);
    return result;
}

/* Process received bytes, at least one. */
int connection_on_read(Connection *self, const char *data, size_t size)
{
    int by_line;

    if (self->flags & (CLOSE_PENDING | CLOSED))
        return 0;
    self->last_received = self->core->now;
    if (self->state != STATE_OPEN)
        return 0;
    self->last_activity = self->core->now;
    self->core->chunks++;
    if (self->flags & PROTOCOL)
        return discard_result(call_with_bytes(self, names.data_received, data, size));
    core_count_up(self->core, COUNT_READS, 1);
    core_count_up(self->core, COUNT_RECEIVED, size);
    if (self->peer != NULL)
        self->totals.received += size;
    if (self->log_peer != NULL && traffic_log_received(self, data, size) < 0)
        return -1;
    by_line = lines_can_answer(self, data, size);
    if (by_line < 0)
        return connection_on_service_error(self);
    return handle_reply(self, by_line ? lines_answer(self, data, size)
                                      : call_with_bytes(self, names.receive, data, size));
}

/* Call the last method of the conversation: `end` after the peer's EOF, `close` if the server closes. */
static int finish_conversation(Connection *self, PyObject *method)
{
    if (self->state <= STATE_STOPPED) {
        if (queue_reply(self, PyObject_CallMethodNoArgs(self->handler, method)) < 0
            || (self->state <= STATE_STOPPED && report_failure(self) < 0))
            return -1;
        connection_finish(self);
    }
    connection_update(self);
    return 0;
}

/* Process the peer's EOF. */
int connection_on_eof(Connection *self)
{
    if (self->flags & (EOF_RECEIVED | CLOSE_PENDING | CLOSED))
        return 0;
    self->flags |= EOF_RECEIVED;
    self->last_received = self->core->now;
    connection_mark_pending(self);
    if (self->flags & PROTOCOL)
        return call_method(self->handler, names.eof_received, NULL);
    if (self->state != STATE_LINGERING) {
        self->last_activity = self->core->now;
        if (self->log_peer != NULL && !(self->flags & LOG_NO_EOF) && traffic_log_ended(self) < 0)
            return -1;
    }
    connection_step(self, INPUT_PEER_EOF);
    return self->state == STATE_CLOSED ? 0 : finish_conversation(self, names.end);
}

/* Count and log the first `size` bytes of the queue, which the kernel has accepted. 0, or -1 with an exception
 * set. */
int connection_count_sent(Connection *self, size_t size)
{
    if (self->flags & PROTOCOL)
        return 0;
    core_count_up(self->core, COUNT_WRITES, 1);
    core_count_up(self->core, COUNT_SENT, size);
    if (self->peer != NULL)
        self->totals.sent += size;
    return self->log_peer == NULL ? 0 : traffic_log_sent(self, size);
}

/* Process the sending of `size` bytes of the queue. */
int connection_on_written(Connection *self, size_t size)
{
    int status = connection_count_sent(self, size);

    write_queue_consume(&self->queue, size);
    self->last_activity = self->core->now;
    if (status == 0 && self->flags & WRITE_PAUSED && self->queue.unsent <= self->low_water) {
        self->flags &= ~(uint32_t)WRITE_PAUSED;
        status = call_method(self->handler, names.resume_writing, NULL);
    }
    connection_update(self);
    return status;
}

/* From now on only the linger timeout applies. */
static void start_linger_timeout(Connection *self)
{
    self->flags |= LINGER_TIMEOUT;
    self->timeout_start = self->core->now;
    self->core->next_timeout_check =
        fmin(self->core->next_timeout_check, self->timeout_start + self->core->linger_timeout);
}

/* Move to the next state if the flags and the queue allow it: shut down, close, pause or resume reading. */
static void connection_update(Connection *self)
{
    uint32_t flags = self->flags;
    bool empty = self->queue.unsent == 0;

    if (flags & (CLOSE_PENDING | CLOSED))
        return;
    connection_mark_pending(self);
    if (flags & PROTOCOL) {
        if (empty && flags & CLOSE_WHEN_FLUSHED)
            connection_begin_close(self, false);
        else if (empty && flags & WR_SHUTDOWN_PENDING && !(flags & WR_SHUTDOWN)) {
            self->flags |= WR_SHUTDOWN;
            if (shutdown(self->fd, SHUT_WR) < 0)
                connection_on_error(self, errno);
        }
        return;
    }
    if (empty && (self->state == STATE_FLUSHING || self->state == STATE_CLOSING)) {
        connection_step(self, INPUT_FLUSHED);
        start_linger_timeout(self);
    } else if (self->queue.unsent > self->high_water)
        self->flags |= READ_PAUSED; /* then the peer's sends block: backpressure */
    else if (self->queue.unsent <= self->low_water)
        self->flags &= ~(uint32_t)READ_PAUSED;
}

/* Begin closing: the descriptor is closed once no request is in flight. `reset`: discard unsent bytes and send
 * RST. */
void connection_begin_close(Connection *self, bool reset)
{
    if (self->flags & CLOSED)
        return;
    self->flags |= CLOSE_PENDING | (reset ? RESET_ON_CLOSE : 0);
    connection_mark_pending(self);
}

/* Process an error of the socket, an errno: the connection is lost. */
void connection_on_error(Connection *self, int error)
{
    if (self->flags & (CLOSE_PENDING | CLOSED))
        return;
    self->error = error;
    if (self->flags & PROTOCOL)
        connection_begin_close(self, false);
    else
        connection_end(self, INPUT_LOST, CLOSED_BY_RESET);
}

/* End the connection now. */
void connection_abort(Connection *self)
{
    if (self->flags & (CLOSE_PENDING | CLOSED))
        return;
    if (self->flags & PROTOCOL)
        connection_begin_close(self, true);
    else
        connection_end(self, INPUT_CUT, CLOSED_ABORTED);
}

static PyObject *make_oserror(int error)
{
    if (!error)
        return Py_NewRef(Py_None);
    return PyObject_CallFunction(PyExc_OSError, "is", error, strerror(error));
}

static void release_peer(Connection *self)
{
    if (self->peer == NULL)
        Py_CLEAR(self->peer_address.local);
    Py_CLEAR(self->peer);
    self->peer_address.local = NULL;
    Py_CLEAR(self->log_peer);
    Py_CLEAR(self->line_function);
}

/* Close the descriptor and call the handler's last method. No request may be in flight. 0, or -1 with an
 * exception set. */
int connection_close_now(Connection *self)
{
    Core *core = self->core;
    PyObject *handler = self->handler;
    int status = 0;
    bool at_once;

    if (self->flags & PENDING)
        return 0; /* it will be called again from the list */
    if (self->flags & RESET_ON_CLOSE) {
        const struct linger linger_0 = {.l_onoff = 1, .l_linger = 0};

        /* With linger 0, close() sends RST (socket(7), tcp(7)). Fails for UNIX sockets, where a plain close()
         * has the same effect. */
        (void)setsockopt(self->fd, SOL_SOCKET, SO_LINGER, &linger_0, sizeof linger_0);
    }
    /* A handler that is notified, or an accept that failed with EMFILE, needs the descriptor free already. */
    at_once = self->flags & (PROTOCOL | RESET_ON_CLOSE | IN_PYTHON) || isfinite(core->accept_retry_at);
    core->backend->close_fd(core, self->fd, at_once);
    self->fd = -1;
    if (isfinite(core->accept_retry_at))
        core->accept_retry_at = core->now; /* a descriptor is free: accept again in the next iteration */
    self->flags |= CLOSED;
    self->handler = NULL;
    self->core = NULL;
    slot_free(core, self->slot);
    write_queue_clear(&self->queue);
    PyMem_Free(self->backend_data);
    self->backend_data = NULL;
    core->connections--;
    if (self->flags & PROTOCOL) {
        PyObject *error = make_oserror(self->error);

        status = error == NULL ? -1 : call_method(handler, names.connection_lost, error);
        Py_XDECREF(error);
    } else {
        core->conversations--;
        if (handler != NULL)
            status = call_method(handler, names.closed, NULL);
        if (status < 0) {
            self->reason = CLOSED_FAILED;
            status = connection_report_error(core, self);
        }
        core_count_up(core, COUNT_CLOSED + self->reason, 1);
        if (status == 0 && self->log_peer != NULL)
            status = traffic_log_closed(core, self);
        if (status == 0 && self->flags & IN_PYTHON)
            status = discard_result(PyObject_CallFunction(
                core->on_connection_closed, "OiKK", self->peer, (int)self->reason,
                (unsigned long long)self->totals.received, (unsigned long long)self->totals.sent));
    }
    Py_XDECREF(handler);
    release_peer(self);
    Py_DECREF(self); /* the slot's reference */
    return status;
}

/* In a child after fork: close the child's copy of the descriptor. The connection belongs to the parent, so the
 * handler is not called. */
void connection_detach_in_child(Connection *self)
{
    close(self->fd);
    self->fd = -1;
    self->flags |= CLOSED;
    self->core = NULL;
    Py_DECREF(self); /* the slot's reference */
}

/* Read nothing more, because of `reason`, and let the conversation send its last answer. */
static int stop_conversation(Connection *self, enum close_reason reason)
{
    if (self->state == STATE_OPEN)
        self->reason = reason;
    self->flags |= LOG_NO_EOF;
    connection_step(self, INPUT_STOP);
    return finish_conversation(self, names.close);
}

/* End the conversation if a timeout has expired; otherwise lower `next_timeout_check` to the earliest one. */
int connection_check_timeouts(Connection *self)
{
    Core *core = self->core;
    double idle_deadline, life_deadline, deadline;
    enum close_reason reason;

    if (self->flags & CLOSE_PENDING)
        return 0;
    idle_deadline = self->last_activity + core->idle_timeout;
    life_deadline = self->timeout_start + core->max_lifetime;
    reason = idle_deadline <= life_deadline ? CLOSED_IDLE : CLOSED_LIFE;
    deadline = self->flags & LINGER_TIMEOUT ? self->timeout_start + core->linger_timeout
                                            : fmin(idle_deadline, life_deadline);
    if (core->now < deadline) {
        core->next_timeout_check = fmin(core->next_timeout_check, deadline);
        return 0;
    }
    if (self->state == STATE_LINGERING)
        connection_step(self, INPUT_LINGER_EXPIRED);
    else if (self->flags & LINGER_TIMEOUT)
        connection_step(self, INPUT_CUT); /* the peer does not read */
    else if (self->queue.unsent)
        connection_end(self, INPUT_CUT, reason);
    else {
        start_linger_timeout(self);
        return stop_conversation(self, reason);
    }
    return 0;
}

/* While the server drains: finish the conversation if it is idle. All data received before `last_check` has been
 * processed. */
int connection_drain(Connection *self, double last_check)
{
    if (self->flags & CLOSE_PENDING || last_check - self->last_received < self->core->drain_idle)
        return 0;
    if (self->state == STATE_LINGERING)
        connection_step(self, INPUT_LINGER_EXPIRED);
    return self->state > STATE_STOPPED || self->queue.unsent ? 0 : stop_conversation(self, CLOSED_DRAINED);
}

/* Methods of an asyncio transport ------------------------------------------------------------------ */

/* Tell the protocol when its queue is above the high-water mark, as asyncio does. 0, or -1 with an exception set. */
static int maybe_pause_writing(Connection *self)
{
    if (self->queue.unsent <= self->high_water || self->flags & WRITE_PAUSED)
        return 0;
    self->flags |= WRITE_PAUSED;
    return call_method(self->handler, names.pause_writing, NULL);
}

static PyObject *transport_write(Connection *self, PyObject *data)
{
    PyObject *bytes;
    int status;

    if (self->flags & (CLOSE_PENDING | CLOSED | WR_SHUTDOWN_PENDING | CLOSE_WHEN_FLUSHED))
        Py_RETURN_NONE; /* a push may cross the close */
    bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL)
        return NULL;
    status = PyBytes_GET_SIZE(bytes) ? write_queue_append(&self->queue, bytes) : 0;
    Py_DECREF(bytes);
    if (status < 0)
        return NULL;
    connection_update(self);
    if (maybe_pause_writing(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Set flags, and do what they ask for. */
static PyObject *set_flags(Connection *self, uint32_t flags)
{
    self->flags |= flags;
    connection_update(self);
    Py_RETURN_NONE;
}

static PyObject *transport_write_eof(Connection *self, PyObject *Py_UNUSED(ignored))
{
    return set_flags(self, WR_SHUTDOWN_PENDING);
}

static PyObject *transport_close(Connection *self, PyObject *Py_UNUSED(ignored))
{
    return set_flags(self, CLOSE_WHEN_FLUSHED | READ_PAUSED);
}

static PyObject *transport_abort(Connection *self, PyObject *Py_UNUSED(ignored))
{
    connection_begin_close(self, true);
    Py_RETURN_NONE;
}

static PyObject *transport_is_closing(Connection *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->flags & (CLOSE_PENDING | CLOSED | CLOSE_WHEN_FLUSHED));
}

static PyObject *transport_pause_reading(Connection *self, PyObject *Py_UNUSED(ignored))
{
    return set_flags(self, READ_PAUSED);
}

static PyObject *transport_resume_reading(Connection *self, PyObject *Py_UNUSED(ignored))
{
    if (!(self->flags & CLOSE_WHEN_FLUSHED)) {
        self->flags &= ~(uint32_t)READ_PAUSED;
        connection_update(self);
    }
    Py_RETURN_NONE;
}

static PyObject *transport_get_write_buffer_size(Connection *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(self->queue.unsent);
}

static PyObject *transport_set_write_buffer_limits(Connection *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"high", "low", NULL};
    Py_ssize_t high_water, low_water = -1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|n:set_write_buffer_limits", keywords, &high_water,
                                     &low_water))
        return NULL;
    self->high_water = high_water < 0 ? 0 : high_water > UINT32_MAX ? UINT32_MAX : (uint32_t)high_water;
    self->low_water = low_water < 0 || low_water > self->high_water ? self->high_water / 2 : (uint32_t)low_water;
    if (!(self->flags & (CLOSE_PENDING | CLOSED)) && maybe_pause_writing(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void dealloc(Connection *self)
{
    /* An open connection is referenced by its slot: this one is closed, or its construction failed. */
    if (self->fd >= 0 && self->slot != UINT32_MAX)
        close(self->fd);
    write_queue_clear(&self->queue);
    PyMem_Free(self->backend_data);
    Py_XDECREF(self->handler);
    release_peer(self);
    PyObject_Free(self);
}

static PyMethodDef methods[] = {
    {"write", (PyCFunction)transport_write, METH_O, "See asyncio.Transport."},
    {"write_eof", (PyCFunction)transport_write_eof, METH_NOARGS, "See asyncio.Transport."},
    {"close", (PyCFunction)transport_close, METH_NOARGS, "See asyncio.Transport."},
    {"abort", (PyCFunction)transport_abort, METH_NOARGS, "See asyncio.Transport. The peer receives RST."},
    {"is_closing", (PyCFunction)transport_is_closing, METH_NOARGS, "See asyncio.Transport."},
    {"pause_reading", (PyCFunction)transport_pause_reading, METH_NOARGS, "See asyncio.Transport."},
    {"resume_reading", (PyCFunction)transport_resume_reading, METH_NOARGS, "See asyncio.Transport."},
    {"get_write_buffer_size", (PyCFunction)transport_get_write_buffer_size, METH_NOARGS, "See asyncio.Transport."},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))transport_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS, "See asyncio.Transport."},
    {NULL},
};

PyTypeObject ConnectionType = {
    .ob_base = {PyObject_HEAD_INIT(NULL) 0},
    .tp_name = "bothends.engines._native.Connection",
    .tp_doc = "A connection of a Core: an asyncio transport for its protocol.",
    .tp_basicsize = sizeof(Connection),
    .tp_dealloc = (destructor)dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_methods = methods,
};
