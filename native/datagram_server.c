/* Answering datagrams, many with one system call.
 *
 * What the kernel does, and what follows:
 *
 * 1. recvmmsg() receives up to 64 queued datagrams, and sendmmsg() sends all replies, with one call each: with
 *    64 datagrams in the queue, that is a thirtieth of the calls.
 * 2. UDP_SEGMENT (generic segmentation offload, udp(7)): datagrams of one size to one peer pass through the
 *    network stack as one, and are split at its end; the last may be shorter. They arrive as if sent one by
 *    one. It fails with EINVAL if a segment exceeds the path MTU; then they are sent one by one.
 * 3. A socket bound to all interfaces has no address of its own. The address a datagram was sent to comes with
 *    it (IP_PKTINFO, IPV6_PKTINFO) and is the source of the reply: sockets/datagrams.py has the reasons.
 * 4. A reply that cannot be sent at once is dropped: any datagram may be lost anyway.
 * 5. Two services that answer any datagram answer each other forever. services/loop_guard.py says how that is
 *    detected and ended; this is the same in C.
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
    /* Datagrams received from one socket before other events are processed (datagrams.py has the same value). */
    DATAGRAM_BATCH = 64,
    /* Batches answered when a socket is removed; bounded, as clients may keep sending. */
    FINAL_DATAGRAM_BATCHES = 64,
    /* The kernel accepts 64 segments (UDP_MAX_SEGMENTS) and 65,507 bytes at most. */
    MAX_GSO_SEGMENTS = 64,
    MAX_GSO_BYTES = 65000,
    /* Entries of the cache of Peer objects: a direct-mapped table, in which a new entry evicts the old one. */
    PEER_CACHE_SIZE = 1024,
    CONTROL_SIZE = 128, /* bytes for ancillary data */
    /* The values of loop_guard.py. */
    LOOP_MATCHES = 4096,
    LOOP_MAX_MATCHES = 1 << 20,
    LOOP_DROPS = 512,
    LOOP_SLOTS = 256,
    LOOP_MATCH_SCORE = 32,
};

/* What is known of a peer that may send back our replies. */
typedef struct {
    uint32_t matches, score, drops_left;
    double last;               /* time of the last datagram that matched or was dropped, seconds */
    uint32_t sent[LOOP_SLOTS]; /* hashes of the last replies, 0 for none */
} LoopGuard;

typedef struct {
    struct sockaddr_storage address;
    socklen_t size;
    PyObject *peer;
    PyObject *log_peer; /* how the log writes its address; NULL if datagrams are not logged */
    LoopGuard loop;
} CachedPeer;

/* A reply, and the local address to send it from. */
typedef struct {
    PyObject *bytes;
    const struct sockaddr_storage *address;
    socklen_t size;
    struct cmsghdr *source; /* IP_PKTINFO or IPV6_PKTINFO with the local address, or NULL */
    PyObject *log_peer;     /* as in CachedPeer */
    bool is_sent;
} Reply;

struct DatagramServer {
    DatagramServer *next;
    Core *core;
    PyObject *reject; /* reject(peer): unless it returns None, the datagram is not answered; or NULL */
    PyObject *local;
    uint32_t slot, generation;
    int fd;
    bool wildcard, gso;
    size_t max_datagram, stride;
    char *buffers; /* DATAGRAM_BATCH buffers of `stride` bytes */
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

/* Peers and addresses ------------------------------------------------------------------------------- */

static size_t cache_index(const struct sockaddr_storage *address, socklen_t size)
{
    const unsigned char *bytes = (const unsigned char *)address;
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (socklen_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return (hash ^ hash >> 16) % PEER_CACHE_SIZE;
}

/* Return the entry of a sender, or NULL if the cache has none. */
static CachedPeer *find_cached(DatagramServer *server, const struct sockaddr_storage *address, socklen_t size)
{
    CachedPeer *cached = &server->peer_cache[cache_index(address, size)];

    return cached->peer != NULL && cached->size == size && !memcmp(&cached->address, address, size) ? cached
                                                                                                    : NULL;
}

/* Return the entry of a sender, which is made if the cache has none; NULL with an exception set. */
static CachedPeer *cache_sender(DatagramServer *server, const struct sockaddr_storage *address, socklen_t size)
{
    CachedPeer *cached = find_cached(server, address, size);
    PyObject *sender;

    if (cached != NULL)
        return cached;
    sender = address_new((const struct sockaddr *)address, size);
    if (sender == NULL)
        return NULL;
    cached = &server->peer_cache[cache_index(address, size)];
    Py_CLEAR(cached->log_peer);
    Py_XSETREF(cached->peer, peer_new(sender, server->local, true, 0, Py_None));
    if (cached->peer != NULL && traffic_log_takes_datagrams(server->core)) {
        cached->log_peer = traffic_log_peer(server->core, (const struct sockaddr *)address, cached->peer, 0);
        if (cached->log_peer == NULL)
            Py_CLEAR(cached->peer);
    }
    if (cached->peer == NULL)
        return NULL;
    cached->size = size;
    memcpy(&cached->address, address, size);
    memset(&cached->loop, 0, sizeof cached->loop);
    cached->loop.matches = LOOP_MATCHES;
    return cached;
}

/* Loops ------------------------------------------------------------------------------------------ */

static const double LOOP_PAUSE = 0.1; /* seconds */

/* Return a hash other than 0: a multiplication for every eight bytes. */
static uint32_t content_hash(const char *bytes, size_t size)
{
    uint64_t hash = 0x9E3779B97F4A7C15u ^ size, word;

    for (; size >= sizeof word; bytes += sizeof word, size -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, bytes, size);
    hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
    return (uint32_t)(hash ^ hash >> 32) | 1u << 31;
}

/* Whether a datagram must not be answered, because it belongs to a loop. */
static bool loop_check(LoopGuard *guard, const char *bytes, size_t size)
{
    uint32_t hash;
    double now;
    bool dropped;

    if (guard->drops_left) {
        now = clock_now();
        guard->drops_left = now - guard->last < LOOP_PAUSE ? guard->drops_left - 1 : 0;
        dropped = now - guard->last < LOOP_PAUSE;
        guard->last = now;
        return dropped;
    }
    hash = content_hash(bytes, size);
    if (guard->sent[hash % LOOP_SLOTS] != hash) {
        guard->score -= guard->score > 0;
        return false;
    }
    now = clock_now();
    guard->score = LOOP_MATCH_SCORE + (now - guard->last < LOOP_PAUSE ? guard->score : 0);
    guard->last = now;
    if (guard->score < guard->matches * LOOP_MATCH_SCORE)
        return false;
    guard->score = 0;
    guard->matches = guard->matches * 2 < LOOP_MAX_MATCHES ? guard->matches * 2 : LOOP_MAX_MATCHES;
    guard->drops_left = LOOP_DROPS - 1;
    return true;
}

static void loop_sent(LoopGuard *guard, PyObject *reply)
{
    uint32_t hash = content_hash(PyBytes_AS_STRING(reply), (size_t)PyBytes_GET_SIZE(reply));

    guard->sent[hash % LOOP_SLOTS] = hash;
}

/* Find the packet info of a received datagram and change it in place into that of the reply. NULL if the kernel
 * shall choose the source address. */
static struct cmsghdr *reply_pktinfo(struct msghdr *received_msg)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(received_msg); header != NULL;
         header = CMSG_NXTHDR(received_msg, header)) {
        if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;

            memcpy(&info, CMSG_DATA(header), sizeof info);
            info.ipi_ifindex = 0; /* the routing table chooses the interface */
            info.ipi_addr.s_addr = 0;
            memcpy(CMSG_DATA(header), &info, sizeof info);
            return header;
        }
        if (header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;

            memcpy(&info, CMSG_DATA(header), sizeof info);
            if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
                return NULL; /* not a valid source address */
            if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
                info.ipi6_ifindex = 0;
            memcpy(CMSG_DATA(header), &info, sizeof info);
            return header;
        }
    }
    return NULL;
}

/* Report a datagram without a reply. `number`: the size limit or an errno. 0, or -1 with an exception set. */
static int report_dropped(DatagramServer *server, PyObject *peer, enum drop_reason reason, long number)
{
    if (server->core->on_datagram_dropped == NULL)
        return 0;
    return discard_result(PyObject_CallFunction(server->core->on_datagram_dropped, "Oil", peer, reason, number));
}

static int report_reply_dropped(DatagramServer *server, const Reply *reply, int error)
{
    CachedPeer *cached = cache_sender(server, reply->address, reply->size);
    PyObject *peer;
    int status;

    if (cached == NULL)
        return -1;
    peer = Py_NewRef(cached->peer);
    status = report_dropped(server, peer, SEND_FAILED, error);
    Py_DECREF(peer);
    return status;
}

/* Sending ----------------------------------------------------------------------------------------- */

static bool same_route(const Reply *a, const Reply *b)
{
    return a->size == b->size && !memcmp(a->address, b->address, a->size)
           && (a->source == NULL) == (b->source == NULL)
           && (a->source == NULL || !memcmp(a->source, b->source, a->source->cmsg_len));
}

/* Count the replies, from `first` on, that can be sent as segments of one message: all of one size, except a
 * shorter last one, and to one peer. */
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

/* Describe `count` replies as one message, with its ancillary data in `control`. */
static void fill_msghdr(struct msghdr *message, const Reply *reply, struct iovec *iov, size_t count, char *control)
{
    size_t used = 0;

    *message = (struct msghdr){
        .msg_name = (void *)reply->address, .msg_namelen = reply->size, .msg_iov = iov, .msg_iovlen = count};
    if (reply->source != NULL) {
        used = CMSG_ALIGN(reply->source->cmsg_len);
        memcpy(control, reply->source, reply->source->cmsg_len);
    }
    if (count > 1) {
        struct cmsghdr *segment = (struct cmsghdr *)(control + used);
        uint16_t size = (uint16_t)iov[0].iov_len;

        *segment = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof size), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT};
        memcpy(CMSG_DATA(segment), &size, sizeof size);
        used += CMSG_SPACE(sizeof size);
    }
    message->msg_control = used ? control : NULL;
    message->msg_controllen = used;
}

static void mark_sent(DatagramServer *server, Reply *replies, size_t number)
{
    core_count_up(server->core, COUNT_DATAGRAMS_SENT, number);
    for (size_t i = 0; i < number; i++) {
        core_count_up(server->core, COUNT_DATAGRAM_BYTES_SENT, (size_t)PyBytes_GET_SIZE(replies[i].bytes));
        replies[i].is_sent = true;
    }
}

static int log_sent(DatagramServer *server, const Reply *reply)
{
    return traffic_log_datagram_sent(server->core, reply->log_peer, PyBytes_AS_STRING(reply->bytes),
                                     (size_t)PyBytes_GET_SIZE(reply->bytes));
}

/* Send a reply as a message of its own. Returns 0 or an errno. */
static int send_alone(DatagramServer *server, Reply *reply)
{
    struct iovec iov = {PyBytes_AS_STRING(reply->bytes), (size_t)PyBytes_GET_SIZE(reply->bytes)};
    _Alignas(struct cmsghdr) char control[CONTROL_SIZE];
    struct msghdr message;

    fill_msghdr(&message, reply, &iov, 1, control);
    if (sendmsg(server->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return errno;
    mark_sent(server, reply, 1);
    return 0;
}

/* Process the errno of a message with `count` replies that sendmmsg() rejected: send them one by one. */
static int send_individually(DatagramServer *server, size_t first, size_t count, int error)
{
    if (count > 1 && (error == EIO || error == ENOPROTOOPT || error == EOPNOTSUPP))
        server->gso = false; /* the kernel or the device lacks it */
    for (size_t i = first; i < first + count; i++) {
        Reply *reply = &server->replies[i];

        if (count > 1)
            error = send_alone(server, reply);
        /* EINVAL, EADDRNOTAVAIL: not a valid source address, because the datagram was sent to a broadcast one. */
        if (reply->source != NULL && (error == EINVAL || error == EADDRNOTAVAIL)) {
            reply->source = NULL;
            error = send_alone(server, reply);
        }
        if (error && report_reply_dropped(server, reply, error) < 0)
            return -1;
    }
    return 0;
}

/* Send all replies of a batch. 0, or -1 with an exception set. */
static int send_replies(DatagramServer *server)
{
    size_t first_reply_of[DATAGRAM_BATCH], message_count = 0;
    int status = 0;

    for (size_t i = 0; i < server->reply_count; message_count++) {
        size_t run = gso_run(server, i);

        for (size_t j = i; j < i + run; j++)
            server->send_iov[j] = (struct iovec){PyBytes_AS_STRING(server->replies[j].bytes),
                                                 (size_t)PyBytes_GET_SIZE(server->replies[j].bytes)};
        fill_msghdr(&server->send_msgs[message_count].msg_hdr, &server->replies[i], &server->send_iov[i], run,
                    server->send_control[message_count]);
        first_reply_of[message_count] = i;
        i += run;
    }
    for (size_t sent = 0; sent < message_count;) {
        int taken = sendmmsg(server->fd, server->send_msgs + sent, (unsigned)(message_count - sent),
                             MSG_DONTWAIT | MSG_NOSIGNAL);

        if (taken < 0) {
            if (send_individually(server, first_reply_of[sent], server->send_msgs[sent].msg_hdr.msg_iovlen, errno))
                status = -1;
            sent++;
            continue;
        }
        for (; taken > 0; taken--, sent++)
            mark_sent(server, &server->replies[first_reply_of[sent]], server->send_msgs[sent].msg_hdr.msg_iovlen);
    }
    for (size_t i = 0; i < server->reply_count; i++) {
        Reply *reply = &server->replies[i];

        if (status == 0 && reply->is_sent && reply->log_peer != NULL)
            status = log_sent(server, reply);
        Py_DECREF(reply->bytes);
        Py_XDECREF(reply->log_peer);
    }
    server->reply_count = 0;
    return status;
}

/* Answering --------------------------------------------------------------------------------------- */

/* Ask the engine whether a peer's datagram must not be answered. 0 or 1, or -1 with an exception set. */
static int is_rejected(DatagramServer *server, PyObject *peer)
{
    PyObject *result;
    int rejected;

    if (server->reject == NULL)
        return 0;
    result = PyObject_CallOneArg(server->reject, peer);
    rejected = result == NULL ? -1 : result != Py_None;
    Py_XDECREF(result);
    return rejected;
}

/* Queue the reply to a datagram. Its sender is logged as `log_peer`, if at all. */
static void queue_reply(DatagramServer *server, size_t index, PyObject *reply, PyObject *log_peer)
{
    struct msghdr *message = &server->recv_msgs[index].msg_hdr;
    /* Not the one of before: the service's code may have replaced the entry of the sender. */
    CachedPeer *cached = find_cached(server, &server->senders[index], message->msg_namelen);

    server->replies[server->reply_count++] = (Reply){
        .bytes = Py_NewRef(reply),
        .address = &server->senders[index],
        .size = message->msg_namelen,
        .source = server->wildcard ? reply_pktinfo(message) : NULL,
        .log_peer = Py_XNewRef(log_peer),
    };
    if (cached != NULL)
        loop_sent(&cached->loop, reply);
}

/* Call the service for one datagram and queue its reply. 0, or -1 with an exception set that is not the service's
 * (KeyboardInterrupt). */
static int answer_one(DatagramServer *server, size_t index)
{
    const struct mmsghdr *received = &server->recv_msgs[index];
    const struct sockaddr_storage *sender = &server->senders[index];
    socklen_t sender_size = received->msg_hdr.msg_namelen;
    const char *bytes = server->recv_iov[index].iov_base;
    CachedPeer *cached = cache_sender(server, sender, sender_size);
    PyObject *peer, *log_peer, *data, *reply = NULL;
    int status = 0, rejected;

    if (cached == NULL)
        return -1;
    peer = Py_NewRef(cached->peer); /* the cache may drop both during the calls */
    log_peer = Py_XNewRef(cached->log_peer);
    core_count_up(server->core, COUNT_DATAGRAMS_RECEIVED, 1);
    core_count_up(server->core, COUNT_DATAGRAM_BYTES_RECEIVED, received->msg_len);
    if (log_peer != NULL && traffic_log_datagram_received(server->core, log_peer, bytes, received->msg_len) < 0) {
        status = -1;
        goto end;
    }
    if (received->msg_hdr.msg_flags & MSG_TRUNC) {
        status = report_dropped(server, peer, TOO_LARGE, (long)server->max_datagram);
        goto end;
    }
    if (loop_check(&cached->loop, bytes, received->msg_len)) {
        status = report_dropped(server, peer, LOOP, 0);
        goto end;
    }
    rejected = is_rejected(server, peer);
    if (rejected) {
        status = rejected < 0 ? -1 : 0;
        goto end;
    }
    data = PyBytes_FromStringAndSize(bytes, received->msg_len);
    reply = data == NULL ? NULL : PyObject_CallFunctionObjArgs(server->core->answer_datagram, data, peer, NULL);
    Py_XDECREF(data);
    if (reply != NULL && reply != Py_None && !PyBytes_CheckExact(reply))
        Py_SETREF(reply, PyBytes_FromObject(reply));
    if (reply == NULL)
        status = core_report_service_error(server->core, peer);
    else if (reply != Py_None && sender_size <= sizeof(sa_family_t))
        status = report_dropped(server, peer, NO_SOURCE_ADDRESS, 0); /* an unbound UNIX socket */
    else if (reply != Py_None)
        queue_reply(server, index, reply, log_peer);
end:
    Py_XDECREF(reply);
    Py_XDECREF(log_peer);
    Py_DECREF(peer);
    return status;
}

/* Point the headers for recvmmsg() to the buffers. */
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

/* Answer the datagrams in the receive buffer, DATAGRAM_BATCH at most; `received` is set to their number. 0, or -1
 * with an exception set. */
int datagram_server_poll(DatagramServer *server, int *received)
{
    int count = recvmmsg(server->fd, server->recv_msgs, DATAGRAM_BATCH, MSG_DONTWAIT, NULL), status = 0;

    *received = count < 0 ? 0 : count;
    if (count < 0) {
        /* EAGAIN, or the ICMP error of an earlier reply (udp(7)), which concerns no datagram in the buffer. */
        *received = errno != EAGAIN && errno != EWOULDBLOCK;
        return 0;
    }
    for (int i = 0; i < count && status == 0; i++)
        status = answer_one(server, (size_t)i);
    if (server->reply_count) {
        PyObject *exception = take_exception();

        if (send_replies(server) < 0) {
            status = -1; /* its exception replaces an earlier one */
            Py_XDECREF(exception);
        } else
            restore_exception(exception);
    }
    for (int i = 0; i < count; i++) {
        struct msghdr *received_msg = &server->recv_msgs[i].msg_hdr;

        received_msg->msg_namelen = sizeof server->senders[i];
        received_msg->msg_controllen = server->wildcard ? CONTROL_SIZE : 0;
    }
    return status;
}

/* Do the same for all sockets; adds to `received`. */
int datagram_servers_poll(Core *core, int *received)
{
    for (DatagramServer *server = core->datagram_servers; server != NULL; server = server->next) {
        int count;

        if (datagram_server_poll(server, &count) < 0)
            return -1;
        *received += count;
    }
    return 0;
}

/* Visit the callback, for the garbage collector. */
int datagram_servers_traverse(Core *core, visitproc visit, void *arg)
{
    for (DatagramServer *server = core->datagram_servers; server != NULL; server = server->next)
        Py_VISIT(server->reject);
    return 0;
}

/* Adding and removing sockets ----------------------------------------------------------------------- */

static void release_datagram_server(DatagramServer *server)
{
    for (size_t i = 0; i < PEER_CACHE_SIZE; i++) {
        Py_XDECREF(server->peer_cache[i].peer);
        Py_XDECREF(server->peer_cache[i].log_peer);
    }
    Py_XDECREF(server->reject);
    Py_XDECREF(server->local);
    munmap(server->buffers, server->stride * DATAGRAM_BATCH);
    PyMem_Free(server);
}

void datagram_server_free(Core *core, DatagramServer *server)
{
    DatagramServer **link = &core->datagram_servers;

    while (*link != server)
        link = &(*link)->next;
    *link = server->next;
    slot_free(core, server->slot);
    release_datagram_server(server);
}

PyObject *core_add_datagram_socket(Core *core, PyObject *args)
{
    PyObject *reject, *local;
    Py_ssize_t max_datagram;
    int fd, wildcard, is_inet;
    DatagramServer *server;

    if (!PyArg_ParseTuple(args, "iOOnpp:add_datagram_socket", &fd, &local, &reject, &max_datagram, &wildcard,
                          &is_inet))
        return NULL;
    server = PyMem_Calloc(1, sizeof *server);
    if (server == NULL)
        return PyErr_NoMemory();
    server->core = core;
    server->fd = fd;
    server->wildcard = wildcard;
    server->gso = is_inet;
    server->max_datagram = (size_t)max_datagram;
    /* Not a power of two: the first bytes of all buffers would compete for the same few cache sets. */
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
    if (server->slot == UINT32_MAX) {
        release_datagram_server(server);
        return PyErr_NoMemory();
    }
    server->next = core->datagram_servers;
    core->datagram_servers = server;
    if (epoll_set_register(core, fd, EPOLLIN | EPOLLEXCLUSIVE, server->slot, server->generation, false) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        datagram_server_free(core, server);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *core_remove_datagram_socket(Core *core, PyObject *args)
{
    DatagramServer *server;
    int fd, received = 1, status = 0;

    if (!PyArg_ParseTuple(args, "i:remove_datagram_socket", &fd))
        return NULL;
    for (server = core->datagram_servers; server != NULL && server->fd != fd; server = server->next)
        ;
    if (server == NULL)
        Py_RETURN_NONE;
    for (int i = 0; i < FINAL_DATAGRAM_BATCHES && received && status == 0; i++)
        status = datagram_server_poll(server, &received);
    epoll_set_remove(core, fd);
    datagram_server_free(core, server);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}
