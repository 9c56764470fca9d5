/* Listeners, and who it is that comes in.
 *
 * For listeners on which nothing is to be decided: no limit of connections, nobody denied, nobody who
 * observes. Those on which something is, Python accepts from (engines/admission.py), which knows the same facts:
 * an error of accept() belongs to the connection, and at the descriptor limit (EMFILE) the connection
 * stays in the queue, so we ask no more until a descriptor of ours is given back, or for a moment.
 *
 * Where other processes accept from the same listener, it is waited for by epoll even beside a ring. An accept
 * that is armed in a ring is woken for a newcomer, and nobody else is, whether its process gets to run or not:
 * behind a worker that is busy, or stopped, a lone newcomer would wait. A process that waits for an epoll set
 * is passed over when it isn't waiting.
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Connections taken from one listener before others have their turn (reception.py says the same). */
enum { ACCEPT_BATCH = 64, FINAL_BATCHES = 64 };

static PyObject *default_pulls; /* Conversation.pulls, which asks nothing but the type */

int listener_bind_class(PyObject *conversation_class)
{
    default_pulls = PyObject_GetAttrString(conversation_class, "wants_pull");
    return default_pulls == NULL ? -1 : 0;
}

/* Either end of a connection: how much of the room it takes, 0 where it is gone already. */
static socklen_t socket_name(int fd, int (*ask)(int, struct sockaddr *, socklen_t *), struct sockaddr_storage *storage)
{
    socklen_t size = sizeof *storage;

    return ask(fd, (struct sockaddr *)storage, &size) < 0 ? 0 : size;
}

/* Whether a conversation wants `more()` called: a question to its type, which is not asked anew for each. */
static int is_pull_producer(Core *core, PyObject *conversation)
{
    PyTypeObject *type = Py_TYPE(conversation);
    PyObject *pulls, *property;
    int truth;

    if (type == core->last_type)
        return core->last_type_pulls;
    pulls = PyObject_GetAttr(conversation, names.pulls);
    truth = pulls == NULL ? -1 : PyObject_IsTrue(pulls);
    Py_XDECREF(pulls);
    property = PyObject_GetAttr((PyObject *)type, names.pulls);
    if (truth >= 0 && property == default_pulls) {
        Py_XSETREF(core->last_type, (PyTypeObject *)Py_NewRef(type));
        core->last_type_pulls = truth;
    }
    Py_XDECREF(property);
    return truth;
}

/* Accepting has stopped for this errno; 0: it goes on. */
static int notify_accept_paused(Core *core, int error)
{
    PyObject *result;

    core->accept_paused = error;
    if (core->on_accept_paused == NULL)
        return 0;
    result = PyObject_CallFunction(core->on_accept_paused, "i", error);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Somebody has come in: open a conversation, and let it begin. */
int listener_on_accept(Core *core, Listener *listener, int fd)
{
    PyObject *local = NULL, *peer = NULL, *conversation = NULL;
    Connection *connection = NULL;
    struct sockaddr_storage storage;
    socklen_t size;
    int status = -1, pulls = 0;

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
    peer = peer_new(address_new((struct sockaddr *)&storage, size), local, false, ++core->last_connection_id, core->max_message_size);
    if (peer == NULL)
        goto end;
    conversation = PyObject_CallFunctionObjArgs(core->open_conversation, peer, core->push, NULL);
    pulls = conversation == NULL ? 0 : is_pull_producer(core, conversation);
    if ((conversation == NULL || pulls < 0) && !report_service_error(core, peer))
        goto end;
    if (pulls > 0) {
        PyObject *result = PyObject_CallFunction(core->on_pull_conversation, "iOO", fd, peer, conversation);

        status = result == NULL ? -1 : 0;
        Py_XDECREF(result);
        fd = -1;
        goto end;
    }
    connection = connection_new(core, fd, conversation, NULL, 0);
    if (connection == NULL)
        goto end;
    fd = -1;
    if (core->on_service_error != NULL && size <= sizeof connection->peer_address.address) {
        memcpy(&connection->peer_address.address, &storage, size);
        connection->peer_address.size = size;
        connection->peer_address.connection_id = core->last_connection_id;
        connection->peer_address.local = Py_NewRef(local);
    } else if (core->on_service_error != NULL) {
        connection->peer = Py_NewRef(peer);
    }
    status = connection_start(connection);
end:
    if (fd >= 0)
        close(fd);
    Py_XDECREF(local);
    Py_XDECREF(peer);
    Py_XDECREF(conversation);
    Py_XDECREF(connection);
    return status;
}

/* Stop asking for newcomers where epoll would go on reporting them. */
static void listeners_disarm(Core *core)
{
    for (Listener *each = core->listeners; each != NULL; each = each->next) {
        if (!each->uses_epoll)
            continue;
        if (each->armed)
            epoll_del(core, each->fd);
        each->armed = false;
    }
}

/* accept() failed. */
int listener_on_error(Core *core, Listener *listener, int error)
{
    switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        core->accept_retry_at = core->now + core->accept_retry_delay;
        listeners_disarm(core);
        return core->accept_paused ? 0 : notify_accept_paused(core, error);
    case EBADF:
    case EINVAL:
    case ENOTSOCK: /* of the listener, and for good: asking again would be asking for ever */
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        (void)listener;
        return -1;
    default:
        return 0; /* the connection's own */
    }
}

/* Take who waits at a listener, a batch of them at the most. */
int listener_accept_batch(Core *core, Listener *listener)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            if (listener_on_accept(core, listener, fd) < 0 || (core->ring == NULL && loop_flush_pending(core) < 0))
                return -1;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 0;
        } else if (listener_on_error(core, listener, errno) < 0) {
            return -1;
        } else if (isfinite(core->accept_retry_at)) {
            return 0;
        }
    }
    return 1; /* there may be more */
}

static int listener_arm(Core *core, Listener *listener)
{
    if (!listener->uses_epoll || listener->armed)
        return 0;
    /* Of several processes that wait for one listener, one is enough. */
    if (epoll_register(core, listener->fd, EPOLLIN | EPOLLEXCLUSIVE, listener->slot, listener->generation,
                      false) < 0)
        return -1;
    listener->armed = true;
    return 0;
}

/* If accepting was strained: try again. */
void listeners_rearm(Core *core)
{
    if (!isfinite(core->accept_retry_at))
        return;
    core->accept_retry_at = INFINITY;
    for (Listener *each = core->listeners; each != NULL; each = each->next)
        if (listener_arm(core, each) < 0)
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
    listener->uses_epoll = shared || core->ring == NULL;
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

/* Take who waits already, then let go of all listeners. */
PyObject *loop_stop_listening(Core *core, PyObject *Py_UNUSED(ignored))
{
    int status = core->ring == NULL ? 0 : uring_cancel_accepts(core);

    while (core->listeners != NULL) {
        Listener *listener = core->listeners;

        for (int i = 0; status >= 0 && i < FINAL_BATCHES; i++)
            if ((status = listener_accept_batch(core, listener)) <= 0)
                break;
        if (listener->uses_epoll && listener->armed)
            epoll_del(core, listener->fd);
        core->listeners = listener->next;
        slot_free(core, listener->slot);
        Py_XDECREF(listener->local);
        PyMem_Free(listener);
    }
    core->accept_retry_at = INFINITY;
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}
