/* Answering datagrams, many with one system call.
 *
 * What the kernel does, and what follows:
 *
 * 1. recvmmsg() takes what waits, and sendmmsg() hands over all answers, with one call each: at 64 waiting
 *    datagrams a thirtieth of the calls.
 * 2. UDP_SEGMENT (generic segmentation offload, udp(7)): several datagrams of one size to one peer go through
 *    the stack as one, and are cut apart at its end; the last may be shorter. They arrive as they would have.
 *    It fails (EINVAL) where a piece is larger than the way takes, and then they go one by one.
 * 3. A socket on every interface has no address of its own. The one that was asked comes with each datagram
 *    (IP_PKTINFO, IPV6_PKTINFO), and goes back with the answer: sockets/datagrams.py has the reasons.
 * 4. Where an answer can't be sent at once it is dropped: a datagram may be lost anywhere.
 */
#include "internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/un.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
    /* Datagrams taken from one socket before the loop looks at the others (datagrams.py says the same). */
    DATAGRAM_BATCH = 64,
    FINAL_BATCHES = 64,
    /* The kernel cuts no more than 64 datagrams, or 65,507 bytes, out of one (UDP_MAX_SEGMENTS). */
    MAX_GSO_SEGMENTS = 64,
    MAX_GSO_BYTES = 65000,
    /* Peers whose Peer is kept: a table without chains, in which a newcomer takes the place of another. */
    PEER_CACHE_SIZE = 1024,
    CONTROL_SIZE = 128, /* for ancillary data */
};

typedef struct {
    struct sockaddr_storage address;
    socklen_t size;
    PyObject *peer;
} CachedPeer;

/* What is to be sent, and from which of our addresses. */
typedef struct {
    PyObject *bytes;
    const struct sockaddr_storage *address;
    socklen_t size;
    struct cmsghdr *source; /* the ancillary data of the question, turned round; or NULL */
} Reply;

struct DatagramServer {
    DatagramServer *next;
    Core *core;
    PyObject *reject; /* refuse(peer): anything but None, and it is not answered; or NULL */
    PyObject *local;
    uint32_t slot, generation;
    int fd;
    bool is_inet, wildcard, gso;
    size_t max_datagram, stride;
    char *buffers; /* BATCH buffers */
    struct mmsghdr recv_msgs[DATAGRAM_BATCH];
    struct iovec recv_iov[DATAGRAM_BATCH];
    struct sockaddr_storage senders[DATAGRAM_BATCH];
    _Alignas(struct cmsghdr) char recv_control[DATAGRAM_BATCH][CONTROL_SIZE];
    Reply replies[DATAGRAM_BATCH];
    size_t reply_count;
    struct mmsghdr send_msgs[DATAGRAM_BATCH];
    struct iovec send_iov[DATAGRAM_BATCH];
    _Alignas(struct cmsghdr) char send_control[DATAGRAM_BATCH][CONTROL_SIZE];
    CachedPeer peer_cache[PEER_CACHE_SIZE];
};

/* Who this is ------------------------------------------------------------------------------------- */

static size_t cache_index(const struct sockaddr_storage *address, socklen_t size)
{
    const unsigned char *bytes = (const unsigned char *)address;
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (socklen_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return (hash ^ hash >> 16) % PEER_CACHE_SIZE;
}

/* The Peer of a sender: a borrowed reference, or NULL with an exception set. */
static PyObject *sender_peer(DatagramServer *server, const struct sockaddr_storage *address, socklen_t size)
{
    CachedPeer *peer_cache = &server->peer_cache[cache_index(address, size)];
    PyObject *sender;

    if (peer_cache->peer != NULL && peer_cache->size == size && !memcmp(&peer_cache->address, address, size))
        return peer_cache->peer;
    sender = address_new((const struct sockaddr *)address, size);
    if (sender == NULL)
        return NULL;
    Py_XSETREF(peer_cache->peer, peer_new(sender, server->local, true, 0, Py_None));
    peer_cache->size = size;
    memcpy(&peer_cache->address, address, size);
    return peer_cache->peer;
}

/* From where to answer: the ancillary data that says where a datagram was sent to, turned round in place. */
static struct cmsghdr *reply_pktinfo(struct msghdr *received_msg)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(received_msg); each != NULL; each = CMSG_NXTHDR(received_msg, each)) {
        if (each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;

            memcpy(&info, CMSG_DATA(each), sizeof info);
            info.ipi_ifindex = 0; /* the way is the routing table's affair */
            info.ipi_addr.s_addr = 0;
            memcpy(CMSG_DATA(each), &info, sizeof info);
            return each;
        }
        if (each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;

            memcpy(&info, CMSG_DATA(each), sizeof info);
            if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
                return NULL; /* not an address to send from */
            if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
                info.ipi6_ifindex = 0;
            memcpy(CMSG_DATA(each), &info, sizeof info);
            return each;
        }
    }
    return NULL;
}

/* A datagram gets no answer: tell whoever wants to know. */
static int report_dropped(DatagramServer *server, PyObject *peer, enum drop_reason drop_reason, long index)
{
    PyObject *result;

    if (server->core->on_datagram_dropped == NULL)
        return 0;
    result = PyObject_CallFunction(server->core->on_datagram_dropped, "Oil", peer, drop_reason, index);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int report_reply_dropped(DatagramServer *server, const Reply *answer_one, int error)
{
    PyObject *peer = sender_peer(server, answer_one->address, answer_one->size);
    int status = peer == NULL ? -1 : 0;

    if (peer != NULL) {
        Py_INCREF(peer);
        status = report_dropped(server, peer, SEND_FAILED, error);
        Py_DECREF(peer);
    }
    return status;
}

/* Sending ----------------------------------------------------------------------------------------- */

static bool same_route(const Reply *a, const Reply *b)
{
    return a->size == b->size && !memcmp(a->address, b->address, a->size)
        && (a->source == NULL) == (b->source == NULL)
        && (a->source == NULL || !memcmp(a->source, b->source, a->source->cmsg_len));
}

/* How many answers from this one on can go as one: of one size, but for the last, and to one peer. */
static size_t gso_run(const DatagramServer *server, size_t first)
{
    const Reply *first_reply = &server->replies[first];
    size_t size = (size_t)PyBytes_GET_SIZE(first_reply->bytes), total = size, count = 1;

    if (!server->gso || !size)
        return 1;
    while (first + count < server->reply_count && count < MAX_GSO_SEGMENTS) {
        const Reply *next = &server->replies[first + count];
        size_t next_size = (size_t)PyBytes_GET_SIZE(next->bytes);

        if (!next_size || next_size > size || total + next_size > MAX_GSO_BYTES || !same_route(first_reply, next))
            break;
        total += next_size;
        count++;
        if (next_size < size)
            break;
    }
    return count;
}

static void fill_msghdr(struct msghdr *message, const Reply *answer_one, struct iovec *send_iov, size_t count,
                            char *buffers)
{
    size_t used = 0;

    *message = (struct msghdr){.msg_name = (void *)answer_one->address, .msg_namelen = answer_one->size,
                               .msg_iov = send_iov, .msg_iovlen = count};
    if (answer_one->source != NULL) {
        used = CMSG_ALIGN(answer_one->source->cmsg_len);
        memcpy(buffers, answer_one->source, answer_one->source->cmsg_len);
    }
    if (count > 1) {
        struct cmsghdr *segment = (struct cmsghdr *)(buffers + used);
        uint16_t size = (uint16_t)send_iov[0].iov_len;

        *segment = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof size), .cmsg_level = IPPROTO_UDP,
                                    .cmsg_type = UDP_SEGMENT};
        memcpy(CMSG_DATA(segment), &size, sizeof size);
        used += CMSG_SPACE(sizeof size);
    }
    message->msg_control = used ? buffers : NULL;
    message->msg_controllen = used;
}

/* One answer that did not go for this reason: as it can be sent, or not at all. */
static int retry_reply(DatagramServer *server, const Reply *answer_one, int error)
{
    struct iovec piece = {PyBytes_AS_STRING(answer_one->bytes), (size_t)PyBytes_GET_SIZE(answer_one->bytes)};
    _Alignas(struct cmsghdr) char buffers[CONTROL_SIZE];
    struct msghdr message;

    /* EINVAL, EADDRNOTAVAIL: an address that nothing can be sent from, as the question was a broadcast. */
    if (answer_one->source != NULL && (error == EINVAL || error == EADDRNOTAVAIL)) {
        Reply without_source = *answer_one;

        without_source.source = NULL;
        fill_msghdr(&message, &without_source, &piece, 1, buffers);
        if (sendmsg(server->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        error = errno;
    }
    return report_reply_dropped(server, answer_one, error);
}

/* A message of one answer or several did not go with the others. */
static int send_individually(DatagramServer *server, size_t first, size_t count, int error)
{
    if (count == 1)
        return retry_reply(server, &server->replies[first], error);
    if (error == EIO || error == ENOPROTOOPT || error == EOPNOTSUPP)
        server->gso = false; /* the kernel, or the device, can't */
    for (size_t i = first; i < first + count; i++) {
        struct msghdr a;
        _Alignas(struct cmsghdr) char buffers[CONTROL_SIZE];

        fill_msghdr(&a, &server->replies[i], &server->send_iov[i], 1, buffers);
        if (sendmsg(server->fd, &a, MSG_DONTWAIT | MSG_NOSIGNAL) < 0
            && retry_reply(server, &server->replies[i], errno) < 0)
            return -1;
    }
    return 0;
}

/* Hand over all answers of a batch. */
static int send_replies(DatagramServer *server)
{
    size_t first_replies[DATAGRAM_BATCH], message_count = 0;
    int status = 0;

    for (size_t i = 0; i < server->reply_count; message_count++) {
        size_t run = gso_run(server, i);

        for (size_t j = i; j < i + run; j++)
            server->send_iov[j] = (struct iovec){PyBytes_AS_STRING(server->replies[j].bytes),
                                             (size_t)PyBytes_GET_SIZE(server->replies[j].bytes)};
        fill_msghdr(&server->send_msgs[message_count].msg_hdr, &server->replies[i], &server->send_iov[i], run,
                        server->send_control[message_count]);
        first_replies[message_count] = i;
        i += run;
    }
    for (size_t sent = 0; sent < message_count;) {
        int count = sendmmsg(server->fd, server->send_msgs + sent, (unsigned)(message_count - sent),
                             MSG_DONTWAIT | MSG_NOSIGNAL);

        if (count < 0) {
            if (send_individually(server, first_replies[sent], server->send_msgs[sent].msg_hdr.msg_iovlen, errno) < 0)
                status = -1;
            count = 1;
        }
        sent += (size_t)count;
    }
    for (size_t i = 0; i < server->reply_count; i++)
        Py_DECREF(server->replies[i].bytes);
    server->reply_count = 0;
    return status;
}

/* Answering --------------------------------------------------------------------------------------- */

static bool is_rejected(DatagramServer *server, PyObject *peer)
{
    PyObject *result;
    bool rejected;

    if (server->reject == NULL)
        return false;
    result = PyObject_CallOneArg(server->reject, peer);
    rejected = result != Py_None;
    Py_XDECREF(result);
    return rejected;
}

/* Ask the service about one datagram; 0, or -1 for an exception that isn't the service's own. */
static int answer_one(DatagramServer *server, size_t index)
{
    struct mmsghdr *received_msg = &server->recv_msgs[index];
    PyObject *peer, *data, *reply = NULL;
    Reply *slot_reply;
    int status = 0;

    peer = sender_peer(server, &server->senders[index], received_msg->msg_hdr.msg_namelen);
    if (peer == NULL)
        return -1;
    Py_INCREF(peer); /* whatever is called may answer others */
    if (received_msg->msg_hdr.msg_flags & MSG_TRUNC) {
        status = report_dropped(server, peer, TOO_LARGE, (long)server->max_datagram);
        goto end;
    }
    if (is_rejected(server, peer)) {
        status = PyErr_Occurred() ? -1 : 0;
        goto end;
    }
    data = PyBytes_FromStringAndSize(server->recv_iov[index].iov_base, received_msg->msg_len);
    reply = data == NULL ? NULL : PyObject_CallFunctionObjArgs(server->core->answer_datagram, data, peer, NULL);
    Py_XDECREF(data);
    if (reply != NULL && reply != Py_None && !PyBytes_CheckExact(reply))
        Py_SETREF(reply, PyBytes_FromObject(reply));
    if (reply == NULL) {
        status = report_service_error(server->core, peer) ? 0 : -1;
    } else if (reply != Py_None && received_msg->msg_hdr.msg_namelen <= sizeof(sa_family_t)) {
        status = report_dropped(server, peer, NO_SOURCE_ADDRESS, 0); /* a UNIX socket that did not bind has no name */
    } else if (reply != Py_None) {
        slot_reply = &server->replies[server->reply_count++];
        slot_reply->bytes = Py_NewRef(reply);
        slot_reply->address = &server->senders[index];
        slot_reply->size = received_msg->msg_hdr.msg_namelen;
        slot_reply->source = server->wildcard ? reply_pktinfo(&received_msg->msg_hdr) : NULL;
    }
end:
    Py_XDECREF(reply);
    Py_DECREF(peer);
    return status;
}

static void init_msghdrs(DatagramServer *server)
{
    for (size_t i = 0; i < DATAGRAM_BATCH; i++) {
        server->recv_iov[i] = (struct iovec){server->buffers + i * server->stride, server->max_datagram};
        server->recv_msgs[i].msg_hdr = (struct msghdr){
            .msg_name = &server->senders[i],
            .msg_namelen = sizeof server->senders[i],
            .msg_iov = &server->recv_iov[i],
            .msg_iovlen = 1,
            .msg_control = server->wildcard ? server->recv_control[i] : NULL,
            .msg_controllen = server->wildcard ? CONTROL_SIZE : 0,
        };
    }
}

/* Answer what waits, BATCH at most; `served` says how many there were. */
int datagram_server_poll(DatagramServer *server, int *received)
{
    int count = recvmmsg(server->fd, server->recv_msgs, DATAGRAM_BATCH, MSG_DONTWAIT, NULL), status = 0;

    *received = count < 0 ? 0 : count;
    if (count < 0) {
        /* Nothing there; or an ICMP error of an answer sent earlier, reported now (udp(7)): nobody's loss. */
        *received = errno != EAGAIN && errno != EWOULDBLOCK;
        return 0;
    }
    for (int i = 0; i < count && status == 0; i++)
        status = answer_one(server, (size_t)i);
    if (server->reply_count) {
        PyObject *type, *value, *traceback;

        PyErr_Fetch(&type, &value, &traceback);
        if (send_replies(server) < 0) {
            status = -1; /* and this exception, if there is another one */
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
        } else
            PyErr_Restore(type, value, traceback);
    }
    for (int i = 0; i < count; i++) {
        struct msghdr *received_msg = &server->recv_msgs[i].msg_hdr;

        received_msg->msg_namelen = sizeof server->senders[i];
        received_msg->msg_controllen = server->wildcard ? CONTROL_SIZE : 0;
    }
    return status;
}

int datagram_servers_poll(Core *core, int *received)
{
    for (DatagramServer *each = core->datagram_servers; each != NULL; each = each->next) {
        int count;

        if (datagram_server_poll(each, &count) < 0)
            return -1;
        *received += count;
    }
    return 0;
}

/* Making and ending ------------------------------------------------------------------------------- */

void datagram_server_free(Core *core, DatagramServer *server)
{
    DatagramServer **link = &core->datagram_servers;

    while (*link != server)
        link = &(*link)->next;
    *link = server->next;
    slot_free(core, server->slot);
    for (size_t i = 0; i < PEER_CACHE_SIZE; i++)
        Py_XDECREF(server->peer_cache[i].peer);
    Py_XDECREF(server->reject);
    Py_XDECREF(server->local);
    munmap(server->buffers, server->stride * DATAGRAM_BATCH);
    PyMem_Free(server);
}

PyObject *datagram_server_add(Core *core, PyObject *args)
{
    PyObject *reject, *local;
    Py_ssize_t max_datagram;
    int fd, wildcard, is_inet;
    DatagramServer *server;

    if (!PyArg_ParseTuple(args, "iOOnpp:answer", &fd, &local, &reject, &max_datagram, &wildcard, &is_inet))
        return NULL;
    server = PyMem_Calloc(1, sizeof *server);
    if (server == NULL)
        return PyErr_NoMemory();
    server->core = core;
    server->fd = fd;
    server->wildcard = wildcard;
    server->is_inet = server->gso = is_inet;
    server->max_datagram = (size_t)max_datagram;
    /* Not a power of two: all first bytes would have their places in the same few cache lines. */
    server->stride = (server->max_datagram + 4096 + 127) & ~(size_t)63;
    server->buffers = mmap(NULL, server->stride * DATAGRAM_BATCH, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (server->buffers == MAP_FAILED) {
        PyMem_Free(server);
        return PyErr_NoMemory();
    }
    init_msghdrs(server);
    server->local = Py_NewRef(local);
    server->reject = reject == Py_None ? NULL : Py_NewRef(reject);
    server->slot = slot_alloc(core, SLOT_DATAGRAM_SERVER, server, &server->generation);
    server->next = core->datagram_servers;
    core->datagram_servers = server;
    if (epoll_register(core, fd, EPOLLIN | EPOLLEXCLUSIVE, server->slot, server->generation, false) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        datagram_server_free(core, server);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *datagram_server_remove(Core *core, PyObject *args)
{
    DatagramServer *server;
    int fd, received = 1, status = 0;

    if (!PyArg_ParseTuple(args, "i:mute", &fd))
        return NULL;
    for (server = core->datagram_servers; server != NULL && server->fd != fd; server = server->next)
        ;
    if (server == NULL)
        Py_RETURN_NONE;
    for (int i = 0; i < FINAL_BATCHES && received && status == 0; i++)
        status = datagram_server_poll(server, &received);
    epoll_del(core, fd);
    datagram_server_free(core, server);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}
