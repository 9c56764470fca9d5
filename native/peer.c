/* Address and Peer objects, constructed in C.
 *
 * Each connection needs an Address and a Peer. Both are frozen dataclasses with slots, whose __init__ takes a
 * microsecond: longer than accept(). So their slots are set directly. For the case that the service raises
 * later, only the socket address is stored (PeerAddress), and a new Peer is made from it.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <structmember.h>
#include <sys/un.h>

enum { MAX_FIELDS = 5 };

/* A dataclass with slots, and the offsets of its fields in an instance. */
typedef struct {
    PyTypeObject *type;
    size_t count;
    Py_ssize_t offset[MAX_FIELDS];
} DataclassLayout;

static DataclassLayout address_layout = {.count = 3}, peer_layout = {.count = 5};
static PyObject *inet, *inet6, *unix_family, *vsock, *none, *empty, *zero;

/* Look up the offsets of a dataclass's fields. 0, or -1 with an exception set. */
static int bind_dataclass(DataclassLayout *layout, PyObject *class, const char *const *fields)
{
    if (!PyType_Check(class))
        goto wrong;
    for (size_t i = 0; i < layout->count; i++) {
        PyObject *field = PyObject_GetAttrString(class, fields[i]);

        if (field == NULL)
            return -1;
        layout->offset[i] =
            Py_IS_TYPE(field, &PyMemberDescr_Type) ? ((PyMemberDescrObject *)field)->d_member->offset : -1;
        Py_DECREF(field);
        if (layout->offset[i] < 0)
            goto wrong;
    }
    layout->type = (PyTypeObject *)Py_NewRef(class);
    return 0;
wrong:
    PyErr_SetString(PyExc_TypeError, "expected a dataclass with slots");
    return -1;
}

/* Look up the layouts of the classes Address and Peer. 0, or -1 with an exception set. */
int peer_bind_classes(PyObject *address_class, PyObject *peer_class)
{
    static const char *const address_fields[] = {"family", "host", "port"};
    static const char *const peer_fields[] = {"address", "local", "message_oriented", "connection",
                                              "max_message_size"};

    inet = PyUnicode_InternFromString("inet");
    inet6 = PyUnicode_InternFromString("inet6");
    unix_family = PyUnicode_InternFromString("unix");
    vsock = PyUnicode_InternFromString("vsock");
    none = PyUnicode_InternFromString("none");
    empty = PyUnicode_InternFromString("");
    zero = PyLong_FromLong(0);
    if (!inet || !inet6 || !unix_family || !vsock || !none || !empty || !zero)
        return -1;
    if (bind_dataclass(&address_layout, address_class, address_fields) < 0)
        return -1;
    return bind_dataclass(&peer_layout, peer_class, peer_fields);
}

/* Make an instance with these field values. Steals the references. If one is NULL, an exception is set and the
 * result is NULL. */
static PyObject *new_instance(const DataclassLayout *layout, PyObject *const *values)
{
    PyObject *instance = NULL;
    bool complete = true;

    for (size_t i = 0; i < layout->count; i++)
        complete = complete && values[i] != NULL;
    if (complete)
        instance = layout->type->tp_alloc(layout->type, 0);
    for (size_t i = 0; i < layout->count; i++) {
        if (instance == NULL)
            Py_XDECREF(values[i]);
        else
            *(PyObject **)((char *)instance + layout->offset[i]) = values[i];
    }
    return instance;
}

/* Return an IPv4 address as a string. Caches the last one: many connections often come from one host. */
static PyObject *ipv4_string(struct in_addr address)
{
    static PyObject *cached;
    static struct in_addr cached_address;
    char text[INET_ADDRSTRLEN];

    if (cached == NULL || cached_address.s_addr != address.s_addr) {
        PyObject *text_object = PyUnicode_FromString(inet_ntop(AF_INET, &address, text, sizeof text));

        if (text_object == NULL)
            return NULL;
        Py_XSETREF(cached, text_object);
        cached_address = address;
    }
    return Py_NewRef(cached);
}

/* Return an IPv6 address, with its zone if it has one, as a string. */
static PyObject *ipv6_string(const struct sockaddr_in6 *address, socklen_t size)
{
    char text[INET6_ADDRSTRLEN + 1 + 64];

    /* The zone is part of a link-local address (RFC 4007, section 11). */
    if (address->sin6_scope_id
        && getnameinfo((const struct sockaddr *)address, size, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
        return PyUnicode_FromString(text);
    return PyUnicode_FromString(inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text));
}

/* Return the path of a UNIX socket; @ and the name for an abstract one, "" for an unnamed one (unix(7)). */
static PyObject *unix_name(const struct sockaddr_un *address, socklen_t size)
{
    size_t length =
        size > offsetof(struct sockaddr_un, sun_path) ? size - offsetof(struct sockaddr_un, sun_path) : 0;
    PyObject *name, *complete;

    if (length == 0)
        return Py_NewRef(empty);
    if (address->sun_path[0])
        return PyUnicode_DecodeFSDefaultAndSize(address->sun_path, (Py_ssize_t)strnlen(address->sun_path, length));
    name = PyUnicode_DecodeUTF8(address->sun_path + 1, (Py_ssize_t)length - 1, "surrogateescape");
    complete = name == NULL ? NULL : PyUnicode_FromFormat("@%U", name);
    Py_XDECREF(name);
    return complete;
}

/* Make an Address of a socket address, as Address.of does (endpoints/address.py). */
PyObject *address_new(const struct sockaddr *sockaddr, socklen_t size)
{
    PyObject *values[3] = {none, empty, zero};

    if (size >= sizeof(struct sockaddr_in) && sockaddr->sa_family == AF_INET) {
        const struct sockaddr_in *address = (const void *)sockaddr;

        values[0] = inet;
        values[1] = ipv4_string(address->sin_addr);
        values[2] = PyLong_FromLong(ntohs(address->sin_port));
    } else if (size >= sizeof(struct sockaddr_in6) && sockaddr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *address = (const void *)sockaddr;

        if (IN6_IS_ADDR_V4MAPPED(&address->sin6_addr)) {
            struct in_addr mapped;

            memcpy(&mapped, &address->sin6_addr.s6_addr[12], sizeof mapped);
            values[0] = inet;
            values[1] = ipv4_string(mapped);
        } else {
            values[0] = inet6;
            values[1] = ipv6_string(address, size);
        }
        values[2] = PyLong_FromLong(ntohs(address->sin6_port));
    } else if (size >= sizeof(sa_family_t) && sockaddr->sa_family == AF_UNIX) {
        values[0] = unix_family;
        values[1] = unix_name((const void *)sockaddr, size);
        Py_INCREF(zero);
    } else if (size >= sizeof(struct sockaddr_vm) && sockaddr->sa_family == AF_VSOCK) {
        const struct sockaddr_vm *address = (const void *)sockaddr;

        values[0] = vsock;
        values[1] = PyUnicode_FromFormat("%u", address->svm_cid);
        values[2] = PyLong_FromUnsignedLong(address->svm_port);
    } else {
        Py_INCREF(empty);
        Py_INCREF(zero);
    }
    Py_INCREF(values[0]);
    return new_instance(&address_layout, values);
}

/* Make a Peer. Steals the reference to the address. */
PyObject *peer_new(PyObject *address, PyObject *local, bool message_oriented, uint64_t connection_id,
                   PyObject *max_message_size)
{
    PyObject *values[5] = {address, Py_XNewRef(local), PyBool_FromLong(message_oriented),
                           PyLong_FromUnsignedLongLong(connection_id), Py_NewRef(max_message_size)};

    return new_instance(&peer_layout, values);
}

/* Make a Peer from a stored socket address. */
PyObject *peer_from_address(const PeerAddress *peer_address, PyObject *max_message_size)
{
    PyObject *address = address_new((const struct sockaddr *)&peer_address->address, peer_address->size);

    return peer_new(address, peer_address->local, false, peer_address->connection_id, max_message_size);
}
