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

static int call(PyObject *self, PyObject *name, PyObject *argument);

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
    self->high = core->unsent;
    self->began = self->heard = self->moved = core->now;
    self->slot = slot_take(core, CONNECTION, self, &self->generation);
    if (self->slot == UINT32_MAX) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    Py_INCREF(self); /* the slot's, until it is buried */
    core->connections++;
    if (!(flags & MANAGED)) {
        double limit = fmin(core->idle, core->life);

        core->conversations++;
        core->sweep_at = fmin(core->sweep_at, core->now + limit);
    }
    connection_soil(self);
    return self;
}

/* Have the loop look at it before it waits again. */
void connection_soil(Connection *self)
{
    Core *core = self->core;

    if (self->flags & (DIRTY | DEAD) || core->closing)
        return;
    self->flags |= DIRTY;
    self->next_dirty = NULL;
    *core->dirty_end = self;
    core->dirty_end = &self->next_dirty;
    core_wake(core);
}

/* Tell of the exception that is set, and clear it, if it is one that a service may raise. */
static bool forgiven(Core *core, Connection *self)
{
    PyObject *peer = Py_XNewRef(self->peer), *type, *value, *trace;
    bool outcome;

    if (peer == NULL && self->origin.local != NULL) {
        PyErr_Fetch(&type, &value, &trace);
        peer = origin_peer(&self->origin, core->longest);
        PyErr_Restore(type, value, trace); /* in place of another, where there was no memory */
    }
    outcome = forgive(core, peer);
    Py_XDECREF(peer);
    return outcome;
}

/* What an exception of the service means: the end of this conversation, and of nothing else. */
static int failed(Connection *self)
{
    self->flags |= OVER;
    return forgiven(self->core, self) ? 0 : -1;
}

/* A conversation that ends for an error but has something left to say keeps the error in `failure`. */
static int tell_failure(Connection *self)
{
    PyObject *failure;

    if (self->core->failed == NULL || (self->peer == NULL && self->origin.local == NULL))
        return 0;
    failure = PyObject_GetAttr(self->handler, names.failure);
    if (failure == NULL)
        return failed(self);
    if (failure != Py_None)
        PyErr_SetObject((PyObject *)Py_TYPE(failure), failure);
    Py_DECREF(failure);
    return PyErr_Occurred() ? failed(self) : 0;
}

/* What a conversation returned is to be sent. Takes the reference; NULL for an exception. */
static int say(Connection *self, PyObject *said)
{
    int outcome;

    if (said == NULL)
        return failed(self);
    if (!PyBytes_CheckExact(said)) {
        Py_SETREF(said, PyBytes_FromObject(said)); /* a bytearray, say, which may change under the kernel */
        if (said == NULL)
            return failed(self);
    }
    outcome = PyBytes_GET_SIZE(said) ? queue_put(&self->queue, said) : 0;
    Py_DECREF(said);
    return outcome;
}

/* Whether the conversation is done is asked after every call but the last. */
static int look_if_done(Connection *self)
{
    PyObject *done = PyObject_GetAttr(self->handler, names.done);
    int truth = done == NULL ? -1 : done == Py_False ? 0 : PyObject_IsTrue(done);

    Py_XDECREF(done);
    if (truth < 0)
        return failed(self);
    if (!truth)
        return 0;
    self->flags |= OVER;
    return tell_failure(self);
}

static int converse(Connection *self, PyObject *said)
{
    if (say(self, said) < 0 || (!(self->flags & OVER) && look_if_done(self) < 0))
        return -1;
    connection_settle(self);
    return 0;
}

/* The connection is there: let a plain conversation begin. */
int connection_start(Connection *self)
{
    if (self->handler == NULL) { /* opening it failed */
        self->flags |= OVER;
        connection_settle(self);
        return 0;
    }
    return converse(self, PyObject_CallMethodNoArgs(self->handler, names.start));
}

/* Bytes have come, at least one. They are copied before anything is called. */
int connection_heard(Connection *self, const char *data, size_t size)
{
    PyObject *chunk, *said;

    if (self->flags & (DYING | DEAD))
        return 0;
    self->heard = self->core->now;
    if (self->flags & SHUT && !(self->flags & MANAGED))
        return 0;
    self->moved = self->core->now;
    if (self->flags & OVER)
        return 0;
    chunk = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (chunk == NULL)
        return -1;
    self->core->chunks++;
    if (self->flags & MANAGED) {
        int outcome = call(self->handler, names.data_received, chunk);

        Py_DECREF(chunk);
        return outcome;
    }
    said = PyObject_CallMethodOneArg(self->handler, names.receive, chunk);
    Py_DECREF(chunk);
    return converse(self, said);
}

/* The last word of a plain conversation: `end` where the peer ends it, `leave` where we do. */
static int finish(Connection *self, PyObject *how)
{
    if (!(self->flags & OVER)) {
        self->flags |= OVER;
        if (say(self, PyObject_CallMethodNoArgs(self->handler, how)) < 0 || tell_failure(self) < 0)
            return -1;
    }
    connection_settle(self);
    return 0;
}

/* The peer has finished sending. */
int connection_ended(Connection *self)
{
    if (self->flags & (ENDED | DYING | DEAD))
        return 0;
    self->flags |= ENDED;
    self->heard = self->core->now;
    connection_soil(self);
    if (self->flags & MANAGED)
        return call(self->handler, names.eof_received, NULL);
    self->moved = self->core->now;
    if (self->flags & SHUT) {
        connection_kill(self, false);
        return 0;
    }
    return finish(self, names.end);
}

/* The system has taken bytes of ours. */
int connection_sent(Connection *self, size_t size)
{
    int outcome = 0;

    queue_advance(&self->queue, size);
    self->moved = self->core->now;
    if (self->flags & FULL && self->queue.unsent <= self->high / 4) {
        self->flags &= ~(uint32_t)FULL;
        outcome = call(self->handler, names.resume_writing, NULL);
    }
    connection_settle(self);
    return outcome;
}

/* After every step: read on or not, shut down, or close. */
void connection_settle(Connection *self)
{
    uint32_t flags = self->flags;
    bool empty = self->queue.unsent == 0;

    if (flags & (DYING | DEAD))
        return;
    connection_soil(self);
    if (flags & MANAGED) {
        if (empty && flags & CLOSING)
            connection_kill(self, false);
        else if (empty && flags & SHUTTING && !(flags & SHUT)) {
            self->flags |= SHUT;
            if (shutdown(self->fd, SHUT_WR) < 0)
                connection_lost(self, errno);
        }
        return;
    }
    if (empty && flags & OVER && !(flags & SHUT)) {
        if (flags & ENDED)
            connection_kill(self, false);
        else if (shutdown(self->fd, SHUT_WR) < 0)
            connection_lost(self, errno);
        else {
            self->flags |= SHUT;
            self->flags &= ~(uint32_t)PAUSED;
            self->moved = self->core->now;
            self->core->sweep_at = fmin(self->core->sweep_at, self->moved + self->core->linger);
        }
    } else if (self->queue.unsent > self->high)
        self->flags |= PAUSED; /* its own sends block in turn: the pressure reaches whoever causes it */
    else if (self->queue.unsent <= self->high / 2)
        self->flags &= ~(uint32_t)PAUSED;
}

/* Close it when the kernel has let go of it. `abandon`: drop what is unsent, and say so by RST. */
void connection_kill(Connection *self, bool abandon)
{
    if (self->flags & DEAD)
        return;
    self->flags |= DYING | (abandon ? ABANDONED : 0);
    connection_soil(self);
}

/* The system says that the peer, or the way to it, is gone. */
void connection_lost(Connection *self, int error)
{
    if (!(self->flags & (DYING | DEAD)))
        self->error = error;
    connection_kill(self, false);
}

static PyObject *as_exception(int error)
{
    if (!error)
        return Py_NewRef(Py_None);
    return PyObject_CallFunction(PyExc_OSError, "is", error, strerror(error));
}

/* Nothing of the kernel's refers to it any more: close it, and tell. */
int connection_bury(Connection *self)
{
    Core *core = self->core;
    PyObject *handler = self->handler;
    int outcome = 0;

    if (self->flags & DIRTY)
        return 0; /* it is still on the list, and comes here again by it */
    if (self->flags & ABANDONED) {
        const struct linger none = {.l_onoff = 1, .l_linger = 0};

        /* Fails for UNIX sockets, where a plain close does the same. */
        (void)setsockopt(self->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    /* Whoever is told by `gone`, or waits for a descriptor, is to find it given back. */
    if (core->ring == NULL || core->closing || self->flags & (MANAGED | ABANDONED | COUNTED)
        || isfinite(core->retry_at) || !uring_close(core, self->fd))
        close(self->fd);
    self->fd = -1;
    self->flags |= DEAD;
    self->handler = NULL;
    self->core = NULL;
    slot_release(core, self->slot);
    queue_clear(&self->queue);
    gather_free(self);
    core->connections--;
    if (self->flags & MANAGED) {
        PyObject *error = as_exception(self->error);

        outcome = error == NULL ? -1 : call(handler, names.connection_lost, error);
        Py_XDECREF(error);
    } else {
        core->conversations--;
        if (handler != NULL)
            outcome = call(handler, names.closed, NULL);
        if (outcome < 0 && forgiven(core, self))
            outcome = 0;
        if (outcome == 0 && self->flags & COUNTED) {
            PyObject *result = PyObject_CallOneArg(core->gone, self->peer);

            outcome = result == NULL ? -1 : 0;
            Py_XDECREF(result);
        }
    }
    accepting_retry(core); /* whoever waits for a descriptor can have this one */
    Py_XDECREF(handler);
    Py_CLEAR(self->peer);
    Py_CLEAR(self->origin.local);
    Py_DECREF(self); /* the slot's */
    return outcome;
}

/* In a child after fork: give back its copy, and say nothing: the connection is its parent's. */
void connection_disown(Connection *self)
{
    close(self->fd);
    self->fd = -1;
    self->flags |= DEAD;
    self->core = NULL;
    Py_DECREF(self); /* the slot's */
}

/* Look at the time limits of a plain conversation, and at when to look again (core->sweep_at). */
int connection_expire(Connection *self)
{
    Core *core = self->core;
    double due;

    if (self->flags & DYING)
        return 0;
    due = self->flags & SHUT ? self->moved + core->linger
                             : fmin(self->moved + core->idle, self->began + core->life);
    if (core->now < due) {
        core->sweep_at = fmin(core->sweep_at, due);
        return 0;
    }
    if (self->flags & SHUT)
        connection_kill(self, false);
    else if (self->queue.unsent) /* no last word to who doesn't read */
        connection_kill(self, true);
    else
        return finish(self, names.leave);
    return 0;
}

/* The server is leaving: finish this talk if it has come to rest. What came before `looked` was heard. */
int connection_drain(Connection *self, double looked)
{
    if (self->flags & (SHUT | DYING) || looked - self->heard < self->core->quiet)
        return 0;
    return self->queue.unsent ? 0 : finish(self, names.leave);
}

/* Call a method for what it does; 0, or -1 with its exception set. */
static int call(PyObject *self, PyObject *name, PyObject *argument)
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
    int outcome;

    if (self->flags & (DYING | DEAD | SHUTTING | CLOSING))
        Py_RETURN_NONE; /* who writes to others can't know who has just left */
    bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL)
        return NULL;
    outcome = PyBytes_GET_SIZE(bytes) ? queue_put(&self->queue, bytes) : 0;
    Py_DECREF(bytes);
    if (outcome < 0)
        return NULL;
    connection_settle(self);
    if (self->queue.unsent > self->high && !(self->flags & FULL)) {
        self->flags |= FULL;
        if (call(self->handler, names.pause_writing, NULL) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *transport_write_eof(Connection *self, PyObject *Py_UNUSED(ignored))
{
    if (!(self->flags & (DYING | DEAD))) {
        self->flags |= SHUTTING;
        connection_settle(self);
    }
    Py_RETURN_NONE;
}

static PyObject *transport_close(Connection *self, PyObject *Py_UNUSED(ignored))
{
    if (!(self->flags & (DYING | DEAD))) {
        self->flags |= CLOSING | PAUSED;
        connection_settle(self);
    }
    Py_RETURN_NONE;
}

static PyObject *transport_abort(Connection *self, PyObject *Py_UNUSED(ignored))
{
    connection_kill(self, true);
    Py_RETURN_NONE;
}

static PyObject *transport_is_closing(Connection *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->flags & (DYING | DEAD | CLOSING));
}

static PyObject *transport_pause_reading(Connection *self, PyObject *Py_UNUSED(ignored))
{
    self->flags |= PAUSED;
    connection_settle(self);
    Py_RETURN_NONE;
}

static PyObject *transport_resume_reading(Connection *self, PyObject *Py_UNUSED(ignored))
{
    if (!(self->flags & CLOSING)) {
        self->flags &= ~(uint32_t)PAUSED;
        connection_settle(self);
    }
    Py_RETURN_NONE;
}

static PyObject *transport_get_write_buffer_size(Connection *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(self->queue.unsent);
}

static PyObject *transport_set_write_buffer_limits(Connection *self, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"high", NULL};
    Py_ssize_t high;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "n:set_write_buffer_limits", keys, &high))
        return NULL;
    self->high = high < 0 ? 0 : (size_t)high;
    Py_RETURN_NONE;
}

static void dealloc(Connection *self)
{
    /* A connection that is alive is its slot's too: so this one is dead, or was never quite made. */
    if (self->fd >= 0 && self->slot != UINT32_MAX)
        close(self->fd);
    queue_clear(&self->queue);
    gather_free(self);
    Py_XDECREF(self->handler);
    Py_XDECREF(self->peer);
    Py_XDECREF(self->origin.local);
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
