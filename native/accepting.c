/* Listeners, and who it is that comes in.
 *
 * For listeners on which nothing is to be decided: no limit of connections, nobody denied, nobody who
 * observes. Those on which something is, Python accepts from (engines/reception.py), which knows the same facts:
 * an error of accept() belongs to the connection, and at the descriptor limit (EMFILE) the connection
 * stays in the queue, so we ask no more until a descriptor of ours is given back, or for a moment.
 *
 * Where other processes accept from the same listener, it is waited for by epoll even beside a ring. An accept
 * that is armed in a ring is woken for a newcomer, and nobody else is, whether its process gets to run or not:
 * behind a worker that is busy, or stopped, a lone newcomer would wait. A process that waits for an epoll set
 * is passed over when it isn't waiting.
 *
 * An Address and a Peer are made for each connection. Both are frozen dataclasses with slots, whose
 * __init__ costs a microsecond: more than accept() does. So they are filled here, slot by slot. Nor are they
 * kept for the day on which the service raises, but made anew from what they were made of.
 */
#include "core.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <structmember.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

/* Connections taken from one listener before others have their turn (reception.py says the same). */
enum { BATCH = 64, LAST_ROUNDS = 64 };

/* A dataclass, and where in an instance its fields lie. */
enum { MOST_FIELDS = 5 };
typedef struct {
    PyTypeObject *type;
    size_t count;
    Py_ssize_t offset[MOST_FIELDS];
} Record;

static Record address_record = {.count = 3}, peer_record = {.count = 5};
static PyObject *inet, *inet6, *local_family, *vsock, *none, *nothing, *zero;
static PyObject *plain_pulls; /* Conversation.pulls, which asks nothing but the type */

static int learn(Record *record, PyObject *class, const char *const *fields)
{
    if (!PyType_Check(class))
        goto wrong;
    for (size_t i = 0; i < record->count; i++) {
        PyObject *field = PyObject_GetAttrString(class, fields[i]);

        if (field == NULL)
            return -1;
        record->offset[i] = Py_IS_TYPE(field, &PyMemberDescr_Type)
            ? ((PyMemberDescrObject *)field)->d_member->offset : -1;
        Py_DECREF(field);
        if (record->offset[i] < 0)
            goto wrong;
    }
    record->type = (PyTypeObject *)Py_NewRef(class);
    return 0;
wrong:
    PyErr_SetString(PyExc_TypeError, "a dataclass with slots is needed");
    return -1;
}

/* Learn how the classes are laid out that are filled here. */
int accepting_prepare(PyObject *address_class, PyObject *peer_class, PyObject *conversation_class)
{
    static const char *const address_fields[] = {"family", "host", "port"};
    static const char *const peer_fields[] = {"address", "local", "boundaries", "connection", "longest"};

    inet = PyUnicode_InternFromString("inet");
    inet6 = PyUnicode_InternFromString("inet6");
    local_family = PyUnicode_InternFromString("unix");
    vsock = PyUnicode_InternFromString("vsock");
    none = PyUnicode_InternFromString("none");
    nothing = PyUnicode_InternFromString("");
    zero = PyLong_FromLong(0);
    if (!inet || !inet6 || !local_family || !vsock || !none || !nothing || !zero)
        return -1;
    plain_pulls = PyObject_GetAttrString(conversation_class, "pulls");
    if (plain_pulls == NULL)
        return -1;
    return learn(&address_record, address_class, address_fields) < 0
        || learn(&peer_record, peer_class, peer_fields) < 0 ? -1 : 0;
}

/* A filled instance. Takes the references, of which a NULL is an exception that is set. */
static PyObject *fill(const Record *record, PyObject *const *values)
{
    PyObject *made = NULL;
    bool whole = true;

    for (size_t i = 0; i < record->count; i++)
        whole = whole && values[i] != NULL;
    if (whole)
        made = record->type->tp_alloc(record->type, 0);
    for (size_t i = 0; i < record->count; i++) {
        if (made == NULL)
            Py_XDECREF(values[i]);
        else
            *(PyObject **)((char *)made + record->offset[i]) = values[i];
    }
    return made;
}

/* The text of an IPv4 address; the last one is kept, as a crowd often comes from one host. */
static PyObject *text_of(struct in_addr address)
{
    static PyObject *last;
    static struct in_addr last_address;
    char text[INET_ADDRSTRLEN];

    if (last == NULL || last_address.s_addr != address.s_addr) {
        PyObject *fresh = PyUnicode_FromString(inet_ntop(AF_INET, &address, text, sizeof text));

        if (fresh == NULL)
            return NULL;
        Py_XSETREF(last, fresh);
        last_address = address;
    }
    return Py_NewRef(last);
}

static PyObject *text_of6(const struct sockaddr_in6 *address, socklen_t size)
{
    char text[INET6_ADDRSTRLEN + 1 + 64];

    /* A link-local address is one per interface: its zone belongs to it (RFC 4007, section 11). */
    if (address->sin6_scope_id
        && getnameinfo((const struct sockaddr *)address, size, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
        return PyUnicode_FromString(text);
    return PyUnicode_FromString(inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text));
}

static PyObject *name_of(const struct sockaddr_un *address, socklen_t size)
{
    size_t length = size > offsetof(struct sockaddr_un, sun_path) ? size - offsetof(struct sockaddr_un, sun_path) : 0;
    PyObject *name, *whole;

    if (length == 0)
        return Py_NewRef(nothing);
    if (address->sun_path[0])
        return PyUnicode_DecodeFSDefaultAndSize(address->sun_path, (Py_ssize_t)strnlen(address->sun_path, length));
    name = PyUnicode_DecodeUTF8(address->sun_path + 1, (Py_ssize_t)length - 1, "surrogateescape");
    whole = name == NULL ? NULL : PyUnicode_FromFormat("@%U", name);
    Py_XDECREF(name);
    return whole;
}

/* As Address.of (endpoints/address.py). */
PyObject *address_of(const struct sockaddr *sockaddr, socklen_t size)
{
    PyObject *values[3] = {none, nothing, zero};

    if (size >= sizeof(struct sockaddr_in) && sockaddr->sa_family == AF_INET) {
        const struct sockaddr_in *address = (const void *)sockaddr;

        values[0] = inet;
        values[1] = text_of(address->sin_addr);
        values[2] = PyLong_FromLong(ntohs(address->sin_port));
    } else if (size >= sizeof(struct sockaddr_in6) && sockaddr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *address = (const void *)sockaddr;

        if (IN6_IS_ADDR_V4MAPPED(&address->sin6_addr)) {
            struct in_addr mapped;

            memcpy(&mapped, &address->sin6_addr.s6_addr[12], sizeof mapped);
            values[0] = inet;
            values[1] = text_of(mapped);
        } else {
            values[0] = inet6;
            values[1] = text_of6(address, size);
        }
        values[2] = PyLong_FromLong(ntohs(address->sin6_port));
    } else if (size >= sizeof(sa_family_t) && sockaddr->sa_family == AF_UNIX) {
        values[0] = local_family;
        values[1] = name_of((const void *)sockaddr, size);
        Py_INCREF(zero);
    } else if (size >= sizeof(struct sockaddr_vm) && sockaddr->sa_family == AF_VSOCK) {
        const struct sockaddr_vm *address = (const void *)sockaddr;

        values[0] = vsock;
        values[1] = PyUnicode_FromFormat("%u", address->svm_cid);
        values[2] = PyLong_FromUnsignedLong(address->svm_port);
    } else {
        Py_INCREF(nothing);
        Py_INCREF(zero);
    }
    Py_INCREF(values[0]);
    return fill(&address_record, values);
}

/* A Peer; a reference to the address is taken over. */
PyObject *peer_of(PyObject *address, PyObject *local, bool boundaries, uint64_t number, PyObject *longest)
{
    PyObject *values[5] = {address, Py_XNewRef(local), PyBool_FromLong(boundaries),
                           PyLong_FromUnsignedLongLong(number), Py_NewRef(longest)};

    return fill(&peer_record, values);
}

/* A Peer anew. */
PyObject *origin_peer(const Origin *origin, PyObject *longest)
{
    PyObject *address = address_of((const struct sockaddr *)&origin->address, origin->size);

    return peer_of(address, origin->local, false, origin->number, longest);
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
