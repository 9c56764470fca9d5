/* Accepting connections in C.
 *
 * By the rules of engines/admission.py, which decides in `admit` about single peers: an error of accept() belongs
 * to one connection (accept(2)). But at the descriptor limit (EMFILE) the connection stays in the accept queue, so
 * accepting pauses until one of our descriptors is closed, and is retried after a delay. At the connection limit
 * it pauses likewise, until a connection is closed.
 *
 * A listener that other processes accept from too is in the epoll set, even with io_uring. A connection that
 * completes an accept armed in a ring is assigned to that process, whether it is running or not: behind a
 * busy or stopped worker it would wait. epoll wakes only processes that are blocked in epoll_wait().
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ACCEPT_BATCH = 64,         /* connections accepted from one listener before other events are processed */
    FULL_PAUSE = 3600,         /* seconds until accepting is retried at the connection limit, if none is closed */
    FINAL_ACCEPT_BATCHES = 64, /* batches accepted when listening stops; bounded, as clients may keep connecting */
};

static PyObject *default_wants_pull; /* the property Conversation.wants_pull, which depends only on the type */

/* Remember the base class of conversations. 0, or -1 with an exception set. */
int listener_bind_class(PyObject *conversation_class)
{
    default_wants_pull = PyObject_GetAttrString(conversation_class, "wants_pull");
    return default_wants_pull == NULL ? -1 : 0;
}

/* Call getsockname() or getpeername(). Returns the size of the address, 0 if the connection is already reset. */
static socklen_t socket_name(int fd, int (*getname)(int, struct sockaddr *, socklen_t *),
                             struct sockaddr_storage *storage)
{
    socklen_t size = sizeof *storage;

    return getname(fd, (struct sockaddr *)storage, &size) < 0 ? 0 : size;
}

/* Return whether the conversation is a pull producer (`wants_pull`), or -1 with an exception set. Cached for the
 * type seen last, unless the type overrides the property. */
static int is_pull_producer(Core *core, PyObject *conversation)
{
    PyTypeObject *type = Py_TYPE(conversation);
    PyObject *property;
    int truth;

    if (type == core->last_type)
        return core->last_type_wants_pull;
    truth = take_truth(PyObject_GetAttr(conversation, names.wants_pull));
    property = truth < 0 ? NULL : PyObject_GetAttr((PyObject *)type, names.wants_pull);
    if (truth >= 0 && property == NULL)
        return -1;
    if (truth >= 0 && property == default_wants_pull) {
        Py_XSETREF(core->last_type, (PyTypeObject *)Py_NewRef(type));
        core->last_type_wants_pull = truth;
    }
    Py_XDECREF(property);
    return truth;
}

/* Report that accepting paused because of an errno, or resumed (0). 0, or -1 with an exception set. */
static int notify_accept_paused(Core *core, int error)
{
    core->accept_paused = error;
    if (core->on_accept_paused == NULL)
        return 0;
    return discard_result(PyObject_CallFunction(core->on_accept_paused, "i", error));
}

/* Report a connection whose conversation is opened, or could not be: then an exception is set, which stays. 0, or -1
 * with another exception set. */
static int notify_opened(Core *core, PyObject *peer, PyObject *log_peer, PyObject *local)
{
    PyObject *exception;
    int status;

    if (core->on_connection_opened == NULL && log_peer == NULL)
        return 0;
    exception = take_exception();
    status = log_peer == NULL ? 0 : traffic_log_opened(core, log_peer, core->last_connection_id, local);
    if (status == 0 && core->on_connection_opened != NULL)
        status = discard_result(PyObject_CallOneArg(core->on_connection_opened, peer));
    if (status < 0)
        Py_XDECREF(exception);
    else
        restore_exception(exception);
    return status;
}

/* Open and start a conversation on an accepted connection. Takes ownership of the descriptor. 0, or -1 with an
 * exception set. */
int listener_on_accept(Core *core, Listener *listener, int fd)
{
    PyObject *local = NULL, *peer = NULL, *log_peer = NULL, *conversation = NULL;
    Connection *connection = NULL;
    struct sockaddr_storage storage;
    socklen_t size;
    bool keeps_peer, in_python = core->admit != NULL || core->on_connection_opened != NULL;
    int status = -1, wants_pull = 0;

    if (core->accept_paused && notify_accept_paused(core, 0) < 0)
        goto end;
    if (listener->local == NULL) {
        size = socket_name(fd, getsockname, &storage);
        local = address_new((struct sockaddr *)&storage, size);
    } else {
        local = Py_NewRef(listener->local);
    }
    if (local == NULL)
        goto end;
    size = socket_name(fd, getpeername, &storage);
    peer = peer_new(address_new((struct sockaddr *)&storage, size), local, false, ++core->last_connection_id,
                    core->max_message_size);
    if (peer == NULL)
        goto end;
    if (core->admit != NULL && (status = take_truth(PyObject_CallOneArg(core->admit, peer))) <= 0)
        goto end;
    status = -1;
    if (core->log != NULL) {
        log_peer =
            traffic_log_peer(core, size ? (struct sockaddr *)&storage : NULL, peer, core->last_connection_id);
        if (log_peer == NULL)
            goto end;
    }
    conversation = PyObject_CallFunctionObjArgs(core->open_conversation, peer, core->push, NULL);
    wants_pull = conversation == NULL ? 0 : is_pull_producer(core, conversation);
    if (wants_pull <= 0 && notify_opened(core, peer, log_peer, local) < 0)
        goto end;
    if (conversation == NULL || wants_pull < 0) {
        if (core_report_service_error(core, peer) < 0)
            goto end;
        Py_CLEAR(conversation); /* the connection is closed */
    }
    if (wants_pull > 0) {
        status = discard_result(PyObject_CallFunction(core->on_pull_conversation, "iOO", fd, peer, conversation));
        fd = -1;
        goto end;
    }
    keeps_peer = in_python || log_peer != NULL;
    connection = connection_new(core, fd, conversation, keeps_peer ? peer : NULL, in_python ? IN_PYTHON : 0);
    if (connection == NULL)
        goto end;
    fd = -1;
    if (log_peer != NULL) {
        connection->log_peer = Py_NewRef(log_peer);
        connection->totals.number = core->last_connection_id;
    }
    if (!keeps_peer && core->on_service_error != NULL) {
        if (size <= sizeof connection->peer_address.address) {
            memcpy(&connection->peer_address.address, &storage, size);
            connection->peer_address.size = size;
            connection->peer_address.connection_id = core->last_connection_id;
            connection->peer_address.local = Py_NewRef(local);
        } else
            connection->peer = Py_NewRef(peer);
    }
    status = connection_start(connection);
end:
    if (fd >= 0)
        close(fd);
    Py_XDECREF(local);
    Py_XDECREF(peer);
    Py_XDECREF(log_peer);
    Py_XDECREF(conversation);
    Py_XDECREF(connection);
    return status;
}

/* Remove the listeners from the epoll set: it would keep reporting connections that cannot be accepted. */
static void listeners_disarm(Core *core)
{
    for (Listener *listener = core->listeners; listener != NULL; listener = listener->next) {
        if (!listener->by_epoll)
            continue;
        if (listener->armed)
            epoll_set_remove(core, listener->fd);
        listener->armed = false;
    }
}

/* Accept nothing for some seconds, or until one of our descriptors is closed. */
static void pause_accepting(Core *core, double seconds)
{
    core->accept_retry_at = core->now + seconds;
    listeners_disarm(core);
}

/* Process an errno of accept(). 0, or -1 with an exception set. */
int listener_on_error(Core *core, int error)
{
    switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        pause_accepting(core, core->accept_retry_delay);
        return core->accept_paused ? 0 : notify_accept_paused(core, error);
    case EBADF:
    case EINVAL:
    case ENOTSOCK: /* of the listener, and permanent: a retry would loop forever */
        return raise_errno(error);
    default:
        return 0; /* of this connection */
    }
}

/* Accept ACCEPT_BATCH connections at most. Returns 1 if more may be in the accept queue, 0 if not, -1 with an
 * exception set. */
int listener_accept_batch(Core *core, Listener *listener)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd;

        if (core->max_connections && core->connections >= (size_t)core->max_connections) {
            pause_accepting(core, FULL_PAUSE);
            return 0;
        }
        fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            if (listener_on_accept(core, listener, fd) < 0
                || (core->backend->flushes_after_event && core_flush_pending(core) < 0))
                return -1;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 0;
        } else if (listener_on_error(core, errno) < 0) {
            return -1;
        } else if (isfinite(core->accept_retry_at)) {
            return 0;
        }
    }
    return 1;
}

/* Put a listener into the epoll set, unless the backend accepts from it. 0, or -1 with errno set. */
static int listener_arm(Core *core, Listener *listener)
{
    if (!listener->by_epoll || listener->armed)
        return 0;
    /* EPOLLEXCLUSIVE: of several processes that wait for the listener, waking one is enough (epoll_ctl(2)). */
    if (epoll_set_register(core, listener->fd, EPOLLIN | EPOLLEXCLUSIVE, listener->slot, listener->generation,
                           false))
        return -1;
    listener->armed = true;
    return 0;
}

/* Resume accepting if it is paused. */
void listeners_rearm(Core *core)
{
    if (!isfinite(core->accept_retry_at))
        return;
    core->accept_retry_at = INFINITY;
    for (Listener *listener = core->listeners; listener != NULL; listener = listener->next)
        if (listener_arm(core, listener) < 0)
            core->accept_retry_at = core->now + core->accept_retry_delay;
}

PyObject *core_listen(Core *core, PyObject *args)
{
    Listener *listener;
    PyObject *local;
    int fd, shared;

    if (!PyArg_ParseTuple(args, "iOp:listen", &fd, &local, &shared))
        return NULL;
    listener = PyMem_Calloc(1, sizeof *listener);
    if (listener == NULL)
        return PyErr_NoMemory();
    listener->fd = fd;
    /* An accept armed in a ring would accept above the limit. */
    listener->by_epoll = shared || core->max_connections || !core->backend->accepts;
    listener->slot = slot_alloc(core, SLOT_LISTENER, listener, &listener->generation);
    if (listener->slot == UINT32_MAX || listener_arm(core, listener) < 0) {
        if (listener->slot == UINT32_MAX)
            errno = ENOMEM;
        else
            slot_free(core, listener->slot);
        PyMem_Free(listener);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    listener->local = local == Py_None ? NULL : Py_NewRef(local);
    listener->next = core->listeners;
    core->listeners = listener;
    Py_RETURN_NONE;
}

static void free_listener(Core *core, Listener *listener)
{
    core->listeners = listener->next;
    slot_free(core, listener->slot);
    Py_XDECREF(listener->local);
    PyMem_Free(listener);
}

/* Release all listeners of a core that is being closed. */
void listeners_free(Core *core)
{
    while (core->listeners != NULL)
        free_listener(core, core->listeners);
}

/* Accept the connections in the accept queues, then release all listeners. */
PyObject *core_stop_listening(Core *core, PyObject *Py_UNUSED(ignored))
{
    int status = core->backend->cancel_accepts(core);

    while (core->listeners != NULL) {
        Listener *listener = core->listeners;

        for (int i = 0; status >= 0 && i < FINAL_ACCEPT_BATCHES; i++)
            if ((status = listener_accept_batch(core, listener)) <= 0)
                break;
        if (listener->by_epoll && listener->armed)
            epoll_set_remove(core, listener->fd);
        free_listener(core, listener);
    }
    core->accept_retry_at = INFINITY;
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}
