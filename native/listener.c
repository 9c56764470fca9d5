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
enum { BATCH = 64, LAST_ROUNDS = 64 };

static PyObject *plain_pulls; /* Conversation.pulls, which asks nothing but the type */

int listener_prepare(PyObject *conversation_class)
{
    plain_pulls = PyObject_GetAttrString(conversation_class, "pulls");
    return plain_pulls == NULL ? -1 : 0;
}

/* Either end of a connection: how much of the room it takes, 0 where it is gone already. */
static socklen_t end_of(int fd, int (*ask)(int, struct sockaddr *, socklen_t *), struct sockaddr_storage *room)
{
    socklen_t size = sizeof *room;

    return ask(fd, (struct sockaddr *)room, &size) < 0 ? 0 : size;
}

/* Whether a conversation wants `more()` called: a question to its type, which is not asked anew for each. */
static int asks_for_more(Core *core, PyObject *conversation)
{
    PyTypeObject *type = Py_TYPE(conversation);
    PyObject *pulls, *property;
    int truth;

    if (type == core->known_type)
        return core->known_pulls;
    pulls = PyObject_GetAttr(conversation, names.pulls);
    truth = pulls == NULL ? -1 : PyObject_IsTrue(pulls);
    Py_XDECREF(pulls);
    property = PyObject_GetAttr((PyObject *)type, names.pulls);
    if (truth >= 0 && property == plain_pulls) {
        Py_XSETREF(core->known_type, (PyTypeObject *)Py_NewRef(type));
        core->known_pulls = truth;
    }
    Py_XDECREF(property);
    return truth;
}

/* Accepting has stopped for this errno; 0: it goes on. */
static int tell_strain(Core *core, int error)
{
    PyObject *result;

    core->is_strained = error;
    if (core->strained == NULL)
        return 0;
    result = PyObject_CallFunction(core->strained, "i", error);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Somebody has come in: open a conversation, and let it begin. */
int accepted(Core *core, Listening *listening, int fd)
{
    PyObject *local = NULL, *peer = NULL, *conversation = NULL;
    Connection *connection = NULL;
    struct sockaddr_storage room;
    socklen_t size;
    int outcome = -1, pulls = 0;

    if (core->is_strained && tell_strain(core, 0) < 0)
        goto end;
    if (listening->local == NULL) {
        size = end_of(fd, getsockname, &room);
        local = address_of((struct sockaddr *)&room, size);
    } else {
        local = Py_NewRef(listening->local);
    }
    if (local == NULL)
        goto end;
    size = end_of(fd, getpeername, &room);
    peer = peer_of(address_of((struct sockaddr *)&room, size), local, false, ++core->number, core->longest);
    if (peer == NULL)
        goto end;
    conversation = PyObject_CallFunctionObjArgs(core->opener, peer, core->post, NULL);
    pulls = conversation == NULL ? 0 : asks_for_more(core, conversation);
    if ((conversation == NULL || pulls < 0) && !forgive(core, peer))
        goto end;
    if (pulls > 0) {
        PyObject *result = PyObject_CallFunction(core->pulling, "iOO", fd, peer, conversation);

        outcome = result == NULL ? -1 : 0;
        Py_XDECREF(result);
        fd = -1;
        goto end;
    }
    connection = connection_new(core, fd, conversation, NULL, 0);
    if (connection == NULL)
        goto end;
    fd = -1;
    if (core->failed != NULL && size <= sizeof connection->origin.address) {
        memcpy(&connection->origin.address, &room, size);
        connection->origin.size = size;
        connection->origin.number = core->number;
        connection->origin.local = Py_NewRef(local);
    } else if (core->failed != NULL) {
        connection->peer = Py_NewRef(peer);
    }
    outcome = connection_start(connection);
end:
    if (fd >= 0)
        close(fd);
    Py_XDECREF(local);
    Py_XDECREF(peer);
    Py_XDECREF(conversation);
    Py_XDECREF(connection);
    return outcome;
}

/* Stop asking for newcomers where epoll would go on reporting them. */
static void look_away(Core *core)
{
    for (Listening *each = core->listening; each != NULL; each = each->next) {
        if (!each->polled)
            continue;
        if (each->armed)
            polling_forget(core, each->fd);
        each->armed = false;
    }
}

/* accept() failed. */
int accept_failed(Core *core, Listening *listening, int error)
{
    switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        core->retry_at = core->now + core->strain_pause;
        look_away(core);
        return core->is_strained ? 0 : tell_strain(core, error);
    case EBADF:
    case EINVAL:
    case ENOTSOCK: /* of the listener, and for good: asking again would be asking for ever */
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        (void)listening;
        return -1;
    default:
        return 0; /* the connection's own */
    }
}

/* Take who waits at a listener, a batch of them at the most. */
int accept_all(Core *core, Listening *listening)
{
    for (int i = 0; i < BATCH; i++) {
        int fd = accept4(listening->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            if (accepted(core, listening, fd) < 0 || (core->ring == NULL && core_flush(core) < 0))
                return -1;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 0;
        } else if (accept_failed(core, listening, errno) < 0) {
            return -1;
        } else if (isfinite(core->retry_at)) {
            return 0;
        }
    }
    return 1; /* there may be more */
}

static int look(Core *core, Listening *listening)
{
    if (!listening->polled || listening->armed)
        return 0;
    /* Of several processes that wait for one listener, one is enough. */
    if (polling_watch(core, listening->fd, EPOLLIN | EPOLLEXCLUSIVE, listening->slot, listening->generation,
                      false) < 0)
        return -1;
    listening->armed = true;
    return 0;
}

/* If accepting was strained: try again. */
void accepting_retry(Core *core)
{
    if (!isfinite(core->retry_at))
        return;
    core->retry_at = INFINITY;
    for (Listening *each = core->listening; each != NULL; each = each->next)
        if (look(core, each) < 0)
            core->retry_at = core->now + core->strain_pause;
}

PyObject *core_listen(Core *core, PyObject *args)
{
    Listening *listening;
    PyObject *local;
    int fd, shared;

    if (!PyArg_ParseTuple(args, "iOp:listen", &fd, &local, &shared))
        return NULL;
    listening = PyMem_Calloc(1, sizeof *listening);
    if (listening == NULL)
        return PyErr_NoMemory();
    listening->fd = fd;
    listening->polled = shared || core->ring == NULL;
    listening->slot = slot_take(core, LISTENING, listening, &listening->generation);
    if (listening->slot == UINT32_MAX || look(core, listening) < 0) {
        if (listening->slot == UINT32_MAX)
            errno = ENOMEM;
        else
            slot_release(core, listening->slot);
        PyMem_Free(listening);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    listening->local = local == Py_None ? NULL : Py_NewRef(local);
    listening->next = core->listening;
    core->listening = listening;
    Py_RETURN_NONE;
}

/* Take who waits already, then let go of all listeners. */
PyObject *core_deafen(Core *core, PyObject *Py_UNUSED(ignored))
{
    int outcome = core->ring == NULL ? 0 : uring_deafen(core);

    while (core->listening != NULL) {
        Listening *listening = core->listening;

        for (int i = 0; outcome >= 0 && i < LAST_ROUNDS; i++)
            if ((outcome = accept_all(core, listening)) <= 0)
                break;
        if (listening->polled && listening->armed)
            polling_forget(core, listening->fd);
        core->listening = listening->next;
        slot_release(core, listening->slot);
        Py_XDECREF(listening->local);
        PyMem_Free(listening);
    }
    core->retry_at = INFINITY;
    if (outcome < 0)
        return NULL;
    Py_RETURN_NONE;
}
