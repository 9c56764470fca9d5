/* Connection: one conversation's state, whatever moves its bytes.
 *
 *     reading --peer's EOF or service done--> saying --all said--> shut (lingering) --peer's EOF--> dead
 *        +----------------- reset, limit, abort: from any state --> dying ----------------------------+
 *
 * There are two kinds, told apart by MANAGED:
 *
 * 1. Plain: the handler is a conversation (services/base.py), which is called from here, and the states
 *    above are kept here: what engines/nonblocking.py does, for when nobody observes.
 * 2. Managed: the handler is a protocol, and this is its transport, both in asyncio's sense: the states are
 *    kept by the protocol in Python (engines/asyncio.py, Talk), and here are only the bytes.
 *
 * How bytes are moved is not known here: `connection_soil` has the loop look at the connection when the
 * stack is flat, and backend_uring.c or backend_epoll.c does what its flags and its queue ask for.
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

static int call_method(PyObject *self, PyObject *name, PyObject *argument);

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
    self->high_water = core->unsent;
    self->started_at = self->last_received = self->last_activity = core->now;
    self->slot = slot_alloc(core, SLOT_CONNECTION, self, &self->generation);
    if (self->slot == UINT32_MAX) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    Py_INCREF(self); /* the slot's, until it is buried */
    core->connections++;
    if (!(flags & PROTOCOL)) {
        double limit = fmin(core->idle_timeout, core->max_lifetime);

        core->conversations++;
        core->next_timeout_check = fmin(core->next_timeout_check, core->now + limit);
    }
    connection_mark_pending(self);
    return self;
}

/* Have the loop look at it before it waits again. */
void connection_mark_pending(Connection *self)
{
    Core *core = self->core;

    if (self->flags & (PENDING | CLOSED) || core->closing)
        return;
    self->flags |= PENDING;
    self->next_pending = NULL;
    *core->pending_end = self;
    core->pending_end = &self->next_pending;
    loop_wake(core);
}

/* Tell of the exception that is set, and clear it, if it is one that a service may raise. */
static bool connection_report_error(Core *core, Connection *self)
{
    PyObject *peer = Py_XNewRef(self->peer), *type, *value, *traceback;
    bool status;

    if (peer == NULL && self->peer_address.local != NULL) {
        PyErr_Fetch(&type, &value, &traceback);
        peer = peer_from_address(&self->peer_address, core->max_message_size);
        PyErr_Restore(type, value, traceback); /* in place of another, where there was no memory */
    }
    status = report_service_error(core, peer);
    Py_XDECREF(peer);
    return status;
}

/* What an exception of the service means: the end of this conversation, and of nothing else. */
static int connection_on_service_error(Connection *self)
{
    self->flags |= DONE;
    return connection_report_error(self->core, self) ? 0 : -1;
}

/* A conversation that ends for an error but has something left to say keeps the error in `failure`. */
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

/* What a conversation returned is to be sent. Takes the reference; NULL for an exception. */
static int queue_reply(Connection *self, PyObject *reply)
{
    int status;

    if (reply == NULL)
        return connection_on_service_error(self);
    if (!PyBytes_CheckExact(reply)) {
        Py_SETREF(reply, PyBytes_FromObject(reply)); /* a bytearray, say, which may change under the kernel */
        if (reply == NULL)
            return connection_on_service_error(self);
    }
    status = PyBytes_GET_SIZE(reply) ? write_queue_append(&self->queue, reply) : 0;
    Py_DECREF(reply);
    return status;
}

/* Whether the conversation is done is asked after every call but the last. */
static int check_done(Connection *self)
{
    PyObject *done = PyObject_GetAttr(self->handler, names.done);
    int truth = done == NULL ? -1 : done == Py_False ? 0 : PyObject_IsTrue(done);

    Py_XDECREF(done);
    if (truth < 0)
        return connection_on_service_error(self);
    if (!truth)
        return 0;
    self->flags |= DONE;
    return report_failure(self);
}

static int handle_reply(Connection *self, PyObject *reply)
{
    if (queue_reply(self, reply) < 0 || (!(self->flags & DONE) && check_done(self) < 0))
        return -1;
    connection_update(self);
    return 0;
}

/* The connection is there: let a plain conversation begin. */
int connection_start(Connection *self)
{
    if (self->handler == NULL) { /* opening it failed */
        self->flags |= DONE;
        connection_update(self);
        return 0;
    }
    return handle_reply(self, PyObject_CallMethodNoArgs(self->handler, names.start));
}

/* Bytes have come, at least one. They are copied before anything is called. */
int connection_on_read(Connection *self, const char *data, size_t size)
{
    PyObject *data_bytes, *reply;

    if (self->flags & (CLOSE_PENDING | CLOSED))
        return 0;
    self->last_received = self->core->now;
    if (self->flags & WR_SHUTDOWN && !(self->flags & PROTOCOL))
        return 0;
    self->last_activity = self->core->now;
    if (self->flags & DONE)
        return 0;
    data_bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (data_bytes == NULL)
        return -1;
    self->core->chunks++;
    if (self->flags & PROTOCOL) {
        int status = call_method(self->handler, names.data_received, data_bytes);

        Py_DECREF(data_bytes);
        return status;
    }
    reply = PyObject_CallMethodOneArg(self->handler, names.receive, data_bytes);
    Py_DECREF(data_bytes);
    return handle_reply(self, reply);
}

/* The last word of a plain conversation: `end` where the peer ends it, `leave` where we do. */
static int finish_conversation(Connection *self, PyObject *method)
{
    if (!(self->flags & DONE)) {
        self->flags |= DONE;
        if (queue_reply(self, PyObject_CallMethodNoArgs(self->handler, method)) < 0 || report_failure(self) < 0)
            return -1;
    }
    connection_update(self);
    return 0;
}

/* The peer has finished sending. */
int connection_on_eof(Connection *self)
{
    if (self->flags & (EOF_RECEIVED | CLOSE_PENDING | CLOSED))
        return 0;
    self->flags |= EOF_RECEIVED;
    self->last_received = self->core->now;
    connection_mark_pending(self);
    if (self->flags & PROTOCOL)
        return call_method(self->handler, names.eof_received, NULL);
    self->last_activity = self->core->now;
    if (self->flags & WR_SHUTDOWN) {
        connection_begin_close(self, false);
        return 0;
    }
    return finish_conversation(self, names.end);
}

/* The system has taken bytes of ours. */
int connection_on_written(Connection *self, size_t size)
{
    int status = 0;

    write_queue_consume(&self->queue, size);
    self->last_activity = self->core->now;
    if (self->flags & WRITE_PAUSED && self->queue.unsent <= self->high_water / 4) {
        self->flags &= ~(uint32_t)WRITE_PAUSED;
        status = call_method(self->handler, names.resume_writing, NULL);
    }
    connection_update(self);
    return status;
}

/* After every step: read on or not, shut down, or close. */
void connection_update(Connection *self)
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
    if (empty && flags & DONE && !(flags & WR_SHUTDOWN)) {
        if (flags & EOF_RECEIVED)
            connection_begin_close(self, false);
        else if (shutdown(self->fd, SHUT_WR) < 0)
            connection_on_error(self, errno);
        else {
            self->flags |= WR_SHUTDOWN;
            self->flags &= ~(uint32_t)READ_PAUSED;
            self->last_activity = self->core->now;
            self->core->next_timeout_check = fmin(self->core->next_timeout_check, self->last_activity + self->core->linger_timeout);
        }
    } else if (self->queue.unsent > self->high_water)
        self->flags |= READ_PAUSED; /* its own sends block in turn: the pressure reaches whoever causes it */
    else if (self->queue.unsent <= self->high_water / 2)
        self->flags &= ~(uint32_t)READ_PAUSED;
}

/* Close it when the kernel has let go of it. `abandon`: drop what is unsent, and say so by RST. */
void connection_begin_close(Connection *self, bool reset)
{
    if (self->flags & CLOSED)
        return;
    self->flags |= CLOSE_PENDING | (reset ? RESET_ON_CLOSE : 0);
    connection_mark_pending(self);
}

/* The system says that the peer, or the way to it, is gone. */
void connection_on_error(Connection *self, int error)
{
    if (!(self->flags & (CLOSE_PENDING | CLOSED)))
        self->error = error;
    connection_begin_close(self, false);
}

static PyObject *make_oserror(int error)
{
    if (!error)
        return Py_NewRef(Py_None);
    return PyObject_CallFunction(PyExc_OSError, "is", error, strerror(error));
}

/* Nothing of the kernel's refers to it any more: close it, and tell. */
int connection_close_now(Connection *self)
{
    Core *core = self->core;
    PyObject *handler = self->handler;
    int status = 0;

    if (self->flags & PENDING)
        return 0; /* it is still on the list, and comes here again by it */
    if (self->flags & RESET_ON_CLOSE) {
        const struct linger linger_0 = {.l_onoff = 1, .l_linger = 0};

        /* Fails for UNIX sockets, where a plain close does the same. */
        (void)setsockopt(self->fd, SOL_SOCKET, SO_LINGER, &linger_0, sizeof linger_0);
    }
    /* Whoever is told by `gone`, or waits for a descriptor, is to find it given back. */
    if (core->ring == NULL || core->closing || self->flags & (PROTOCOL | RESET_ON_CLOSE | IN_PYTHON)
        || isfinite(core->accept_retry_at) || !uring_close(core, self->fd))
        close(self->fd);
    self->fd = -1;
    self->flags |= CLOSED;
    self->handler = NULL;
    self->core = NULL;
    slot_free(core, self->slot);
    write_queue_clear(&self->queue);
    send_vector_free(self);
    core->connections--;
    if (self->flags & PROTOCOL) {
        PyObject *error = make_oserror(self->error);

        status = error == NULL ? -1 : call_method(handler, names.connection_lost, error);
        Py_XDECREF(error);
    } else {
        core->conversations--;
        if (handler != NULL)
            status = call_method(handler, names.closed, NULL);
        if (status < 0 && connection_report_error(core, self))
            status = 0;
        if (status == 0 && self->flags & IN_PYTHON) {
            PyObject *result = PyObject_CallOneArg(core->on_connection_closed, self->peer);

            status = result == NULL ? -1 : 0;
            Py_XDECREF(result);
        }
    }
    listeners_rearm(core); /* whoever waits for a descriptor can have this one */
    Py_XDECREF(handler);
    Py_CLEAR(self->peer);
    Py_CLEAR(self->peer_address.local);
    Py_DECREF(self); /* the slot's */
    return status;
}

/* In a child after fork: give back its copy, and say nothing: the connection is its parent's. */
void connection_detach_in_child(Connection *self)
{
    close(self->fd);
    self->fd = -1;
    self->flags |= CLOSED;
    self->core = NULL;
    Py_DECREF(self); /* the slot's */
}

/* Look at the time limits of a plain conversation, and at when to look again (core->sweep_at). */
int connection_check_timeouts(Connection *self)
{
    Core *core = self->core;
    double deadline;

    if (self->flags & CLOSE_PENDING)
        return 0;
    deadline = self->flags & WR_SHUTDOWN ? self->last_activity + core->linger_timeout
                             : fmin(self->last_activity + core->idle_timeout, self->started_at + core->max_lifetime);
    if (core->now < deadline) {
        core->next_timeout_check = fmin(core->next_timeout_check, deadline);
        return 0;
    }
    if (self->flags & WR_SHUTDOWN)
        connection_begin_close(self, false);
    else if (self->queue.unsent) /* no last word to who doesn't read */
        connection_begin_close(self, true);
    else
        return finish_conversation(self, names.leave);
    return 0;
}

/* The server is leaving: finish this talk if it has come to rest. What came before `looked` was heard. */
int connection_drain(Connection *self, double last_check)
{
    if (self->flags & (WR_SHUTDOWN | CLOSE_PENDING) || last_check - self->last_received < self->core->drain_idle)
        return 0;
    return self->queue.unsent ? 0 : finish_conversation(self, names.leave);
}

/* Call a method for what it does; 0, or -1 with its exception set. */
static int call_method(PyObject *self, PyObject *name, PyObject *argument)
{
    PyObject *result = argument == NULL ? PyObject_CallMethodNoArgs(self, name)
                                        : PyObject_CallMethodOneArg(self, name, argument);

    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

/* The transport's face ------------------------------------------------------------------------- */

static PyObject *transport_write(Connection *self, PyObject *data)
{
    PyObject *bytes;
    int status;

    if (self->flags & (CLOSE_PENDING | CLOSED | WR_SHUTDOWN_PENDING | CLOSE_WHEN_FLUSHED))
        Py_RETURN_NONE; /* who writes to others can't know who has just left */
    bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL)
        return NULL;
    status = PyBytes_GET_SIZE(bytes) ? write_queue_append(&self->queue, bytes) : 0;
    Py_DECREF(bytes);
    if (status < 0)
        return NULL;
    connection_update(self);
    if (self->queue.unsent > self->high_water && !(self->flags & WRITE_PAUSED)) {
        self->flags |= WRITE_PAUSED;
        if (call_method(self->handler, names.pause_writing, NULL) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *transport_write_eof(Connection *self, PyObject *Py_UNUSED(ignored))
{
    if (!(self->flags & (CLOSE_PENDING | CLOSED))) {
        self->flags |= WR_SHUTDOWN_PENDING;
        connection_update(self);
    }
    Py_RETURN_NONE;
}

static PyObject *transport_close(Connection *self, PyObject *Py_UNUSED(ignored))
{
    if (!(self->flags & (CLOSE_PENDING | CLOSED))) {
        self->flags |= CLOSE_WHEN_FLUSHED | READ_PAUSED;
        connection_update(self);
    }
    Py_RETURN_NONE;
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
    self->flags |= READ_PAUSED;
    connection_update(self);
    Py_RETURN_NONE;
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
    static char *keywords[] = {"high", NULL};
    Py_ssize_t high_water;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n:set_write_buffer_limits", keywords, &high_water))
        return NULL;
    self->high_water = high_water < 0 ? 0 : (size_t)high_water;
    Py_RETURN_NONE;
}

static void dealloc(Connection *self)
{
    /* A connection that is alive is its slot's too: so this one is dead, or was never quite made. */
    if (self->fd >= 0 && self->slot != UINT32_MAX)
        close(self->fd);
    write_queue_clear(&self->queue);
    send_vector_free(self);
    Py_XDECREF(self->handler);
    Py_XDECREF(self->peer);
    Py_XDECREF(self->peer_address.local);
    PyObject_Free(self);
}

static PyMethodDef methods[] = {
    {"write", (PyCFunction)transport_write, METH_O, "See asyncio.Transport."},
    {"write_eof", (PyCFunction)transport_write_eof, METH_NOARGS, "See asyncio.Transport."},
    {"close", (PyCFunction)transport_close, METH_NOARGS, "See asyncio.Transport."},
    {"abort", (PyCFunction)transport_abort, METH_NOARGS, "See asyncio.Transport; the peer gets RST."},
    {"is_closing", (PyCFunction)transport_is_closing, METH_NOARGS, "See asyncio.Transport."},
    {"pause_reading", (PyCFunction)transport_pause_reading, METH_NOARGS, "See asyncio.Transport."},
    {"resume_reading", (PyCFunction)transport_resume_reading, METH_NOARGS, "See asyncio.Transport."},
    {"get_write_buffer_size", (PyCFunction)transport_get_write_buffer_size, METH_NOARGS,
     "See asyncio.Transport."},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))transport_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS, "See asyncio.Transport."},
    {NULL},
};

PyTypeObject ConnectionType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "bothends.engines._native.Connection",
    .tp_doc = "One connection that a core drives: to its protocol, an asyncio transport.",
    .tp_basicsize = sizeof(Connection),
    .tp_dealloc = (destructor)dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_methods = methods,
};
