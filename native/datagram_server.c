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
    BATCH = 64,
    LAST_ROUNDS = 64,
    /* The kernel cuts no more than 64 datagrams, or 65,507 bytes, out of one (UDP_MAX_SEGMENTS). */
    MOST_SEGMENTS = 64,
    MOST_SEGMENTED = 65000,
    /* Peers whose Peer is kept: a table without chains, in which a newcomer takes the place of another. */
    KNOWN = 1024,
    ROOM = 128, /* for ancillary data */
};

typedef struct {
    struct sockaddr_storage address;
    socklen_t size;
    PyObject *peer;
} Known;

/* What is to be sent, and from which of our addresses. */
typedef struct {
    PyObject *bytes;
    const struct sockaddr_storage *address;
    socklen_t size;
    struct cmsghdr *from; /* the ancillary data of the question, turned round; or NULL */
} Answer;

struct Desk {
    Desk *next;
    Core *core;
    PyObject *refuse; /* refuse(peer): anything but None, and it is not answered; or NULL */
    PyObject *local;
    uint32_t slot, generation;
    int fd;
    bool internet, wildcard, segments;
    size_t largest, stride;
    char *room; /* BATCH buffers */
    struct mmsghdr questions[BATCH];
    struct iovec where[BATCH];
    struct sockaddr_storage senders[BATCH];
    _Alignas(struct cmsghdr) char asked[BATCH][ROOM];
    Answer answers[BATCH];
    size_t answered;
    struct mmsghdr outgoing[BATCH];
    struct iovec pieces[BATCH];
    _Alignas(struct cmsghdr) char with[BATCH][ROOM];
    Known known[KNOWN];
};

/* Who this is ------------------------------------------------------------------------------------- */

static size_t place_of(const struct sockaddr_storage *address, socklen_t size)
{
    const unsigned char *bytes = (const unsigned char *)address;
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (socklen_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return (hash ^ hash >> 16) % KNOWN;
}

/* The Peer of a sender: a borrowed reference, or NULL with an exception set. */
static PyObject *peer_for(Desk *desk, const struct sockaddr_storage *address, socklen_t size)
{
    Known *known = &desk->known[place_of(address, size)];
    PyObject *sender;

    if (known->peer != NULL && known->size == size && !memcmp(&known->address, address, size))
        return known->peer;
    sender = address_of((const struct sockaddr *)address, size);
    if (sender == NULL)
        return NULL;
    Py_XSETREF(known->peer, peer_of(sender, desk->local, true, 0, Py_None));
    known->size = size;
    memcpy(&known->address, address, size);
    return known->peer;
}

/* From where to answer: the ancillary data that says where a datagram was sent to, turned round in place. */
static struct cmsghdr *turned_round(struct msghdr *question)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(question); each != NULL; each = CMSG_NXTHDR(question, each)) {
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
static int drop(Desk *desk, PyObject *peer, enum reason reason, long number)
{
    PyObject *result;

    if (desk->core->dropped == NULL)
        return 0;
    result = PyObject_CallFunction(desk->core->dropped, "Oil", peer, reason, number);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int drop_answer(Desk *desk, const Answer *answer, int error)
{
    PyObject *peer = peer_for(desk, answer->address, answer->size);
    int outcome = peer == NULL ? -1 : 0;

    if (peer != NULL) {
        Py_INCREF(peer);
        outcome = drop(desk, peer, UNSENT, error);
        Py_DECREF(peer);
    }
    return outcome;
}

/* Sending ----------------------------------------------------------------------------------------- */

static bool is_same_way(const Answer *one, const Answer *other)
{
    return one->size == other->size && !memcmp(one->address, other->address, one->size)
        && (one->from == NULL) == (other->from == NULL)
        && (one->from == NULL || !memcmp(one->from, other->from, one->from->cmsg_len));
}

/* How many answers from this one on can go as one: of one size, but for the last, and to one peer. */
static size_t run_of(const Desk *desk, size_t first)
{
    const Answer *start = &desk->answers[first];
    size_t size = (size_t)PyBytes_GET_SIZE(start->bytes), total = size, count = 1;

    if (!desk->segments || !size)
        return 1;
    while (first + count < desk->answered && count < MOST_SEGMENTS) {
        const Answer *next = &desk->answers[first + count];
        size_t own = (size_t)PyBytes_GET_SIZE(next->bytes);

        if (!own || own > size || total + own > MOST_SEGMENTED || !is_same_way(start, next))
            break;
        total += own;
        count++;
        if (own < size)
            break;
    }
    return count;
}

static void address_message(struct msghdr *message, const Answer *answer, struct iovec *pieces, size_t count,
                            char *room)
{
    size_t used = 0;

    *message = (struct msghdr){.msg_name = (void *)answer->address, .msg_namelen = answer->size,
                               .msg_iov = pieces, .msg_iovlen = count};
    if (answer->from != NULL) {
        used = CMSG_ALIGN(answer->from->cmsg_len);
        memcpy(room, answer->from, answer->from->cmsg_len);
    }
    if (count > 1) {
        struct cmsghdr *segment = (struct cmsghdr *)(room + used);
        uint16_t size = (uint16_t)pieces[0].iov_len;

        *segment = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof size), .cmsg_level = IPPROTO_UDP,
                                    .cmsg_type = UDP_SEGMENT};
        memcpy(CMSG_DATA(segment), &size, sizeof size);
        used += CMSG_SPACE(sizeof size);
    }
    message->msg_control = used ? room : NULL;
    message->msg_controllen = used;
}

/* One answer that did not go for this reason: as it can be sent, or not at all. */
static int send_alone(Desk *desk, const Answer *answer, int error)
{
    struct iovec piece = {PyBytes_AS_STRING(answer->bytes), (size_t)PyBytes_GET_SIZE(answer->bytes)};
    _Alignas(struct cmsghdr) char room[ROOM];
    struct msghdr message;

    /* EINVAL, EADDRNOTAVAIL: an address that nothing can be sent from, as the question was a broadcast. */
    if (answer->from != NULL && (error == EINVAL || error == EADDRNOTAVAIL)) {
        Answer bare = *answer;

        bare.from = NULL;
        address_message(&message, &bare, &piece, 1, room);
        if (sendmsg(desk->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        error = errno;
    }
    return drop_answer(desk, answer, error);
}

/* A message of one answer or several did not go with the others. */
static int send_apart(Desk *desk, size_t first, size_t count, int error)
{
    if (count == 1)
        return send_alone(desk, &desk->answers[first], error);
    if (error == EIO || error == ENOPROTOOPT || error == EOPNOTSUPP)
        desk->segments = false; /* the kernel, or the device, can't */
    for (size_t i = first; i < first + count; i++) {
        struct msghdr one;
        _Alignas(struct cmsghdr) char room[ROOM];

        address_message(&one, &desk->answers[i], &desk->pieces[i], 1, room);
        if (sendmsg(desk->fd, &one, MSG_DONTWAIT | MSG_NOSIGNAL) < 0
            && send_alone(desk, &desk->answers[i], errno) < 0)
            return -1;
    }
    return 0;
}

/* Hand over all answers of a batch. */
static int send_answers(Desk *desk)
{
    size_t firsts[BATCH], messages = 0;
    int outcome = 0;

    for (size_t i = 0; i < desk->answered; messages++) {
        size_t run = run_of(desk, i);

        for (size_t j = i; j < i + run; j++)
            desk->pieces[j] = (struct iovec){PyBytes_AS_STRING(desk->answers[j].bytes),
                                             (size_t)PyBytes_GET_SIZE(desk->answers[j].bytes)};
        address_message(&desk->outgoing[messages].msg_hdr, &desk->answers[i], &desk->pieces[i], run,
                        desk->with[messages]);
        firsts[messages] = i;
        i += run;
    }
    for (size_t sent = 0; sent < messages;) {
        int count = sendmmsg(desk->fd, desk->outgoing + sent, (unsigned)(messages - sent),
                             MSG_DONTWAIT | MSG_NOSIGNAL);

        if (count < 0) {
            if (send_apart(desk, firsts[sent], desk->outgoing[sent].msg_hdr.msg_iovlen, errno) < 0)
                outcome = -1;
            count = 1;
        }
        sent += (size_t)count;
    }
    for (size_t i = 0; i < desk->answered; i++)
        Py_DECREF(desk->answers[i].bytes);
    desk->answered = 0;
    return outcome;
}

/* Answering --------------------------------------------------------------------------------------- */

static bool is_refused(Desk *desk, PyObject *peer)
{
    PyObject *refusal;
    bool refused;

    if (desk->refuse == NULL)
        return false;
    refusal = PyObject_CallOneArg(desk->refuse, peer);
    refused = refusal != Py_None;
    Py_XDECREF(refusal);
    return refused;
}

/* Ask the service about one datagram; 0, or -1 for an exception that isn't the service's own. */
static int answer(Desk *desk, size_t number)
{
    struct mmsghdr *question = &desk->questions[number];
    PyObject *peer, *data, *said = NULL;
    Answer *place;
    int outcome = 0;

    peer = peer_for(desk, &desk->senders[number], question->msg_hdr.msg_namelen);
    if (peer == NULL)
        return -1;
    Py_INCREF(peer); /* whatever is called may answer others */
    if (question->msg_hdr.msg_flags & MSG_TRUNC) {
        outcome = drop(desk, peer, TOO_LARGE, (long)desk->largest);
        goto end;
    }
    if (is_refused(desk, peer)) {
        outcome = PyErr_Occurred() ? -1 : 0;
        goto end;
    }
    data = PyBytes_FromStringAndSize(desk->where[number].iov_base, question->msg_len);
    said = data == NULL ? NULL : PyObject_CallFunctionObjArgs(desk->core->answerer, data, peer, NULL);
    Py_XDECREF(data);
    if (said != NULL && said != Py_None && !PyBytes_CheckExact(said))
        Py_SETREF(said, PyBytes_FromObject(said));
    if (said == NULL) {
        outcome = forgive(desk->core, peer) ? 0 : -1;
    } else if (said != Py_None && question->msg_hdr.msg_namelen <= sizeof(sa_family_t)) {
        outcome = drop(desk, peer, NAMELESS, 0); /* a UNIX socket that did not bind has no name */
    } else if (said != Py_None) {
        place = &desk->answers[desk->answered++];
        place->bytes = Py_NewRef(said);
        place->address = &desk->senders[number];
        place->size = question->msg_hdr.msg_namelen;
        place->from = desk->wildcard ? turned_round(&question->msg_hdr) : NULL;
    }
end:
    Py_XDECREF(said);
    Py_DECREF(peer);
    return outcome;
}

static void lay_out(Desk *desk)
{
    for (size_t i = 0; i < BATCH; i++) {
        desk->where[i] = (struct iovec){desk->room + i * desk->stride, desk->largest};
        desk->questions[i].msg_hdr = (struct msghdr){
            .msg_name = &desk->senders[i],
            .msg_namelen = sizeof desk->senders[i],
            .msg_iov = &desk->where[i],
            .msg_iovlen = 1,
            .msg_control = desk->wildcard ? desk->asked[i] : NULL,
            .msg_controllen = desk->wildcard ? ROOM : 0,
        };
    }
}

/* Answer what waits, BATCH at most; `served` says how many there were. */
int desk_serve(Desk *desk, int *served)
{
    int count = recvmmsg(desk->fd, desk->questions, BATCH, MSG_DONTWAIT, NULL), outcome = 0;

    *served = count < 0 ? 0 : count;
    if (count < 0) {
        /* Nothing there; or an ICMP error of an answer sent earlier, reported now (udp(7)): nobody's loss. */
        *served = errno != EAGAIN && errno != EWOULDBLOCK;
        return 0;
    }
    for (int i = 0; i < count && outcome == 0; i++)
        outcome = answer(desk, (size_t)i);
    if (desk->answered) {
        PyObject *type, *value, *trace;

        PyErr_Fetch(&type, &value, &trace);
        if (send_answers(desk) < 0) {
            outcome = -1; /* and this exception, if there is another one */
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(trace);
        } else
            PyErr_Restore(type, value, trace);
    }
    for (int i = 0; i < count; i++) {
        struct msghdr *question = &desk->questions[i].msg_hdr;

        question->msg_namelen = sizeof desk->senders[i];
        question->msg_controllen = desk->wildcard ? ROOM : 0;
    }
    return outcome;
}

int desks_serve(Core *core, int *served)
{
    for (Desk *each = core->desks; each != NULL; each = each->next) {
        int count;

        if (desk_serve(each, &count) < 0)
            return -1;
        *served += count;
    }
    return 0;
}

/* Making and ending ------------------------------------------------------------------------------- */

void desk_free(Core *core, Desk *desk)
{
    Desk **link = &core->desks;

    while (*link != desk)
        link = &(*link)->next;
    *link = desk->next;
    slot_release(core, desk->slot);
    for (size_t i = 0; i < KNOWN; i++)
        Py_XDECREF(desk->known[i].peer);
    Py_XDECREF(desk->refuse);
    Py_XDECREF(desk->local);
    munmap(desk->room, desk->stride * BATCH);
    PyMem_Free(desk);
}

PyObject *core_answer(Core *core, PyObject *args)
{
    PyObject *refuse, *local;
    Py_ssize_t largest;
    int fd, wildcard, internet;
    Desk *desk;

    if (!PyArg_ParseTuple(args, "iOOnpp:answer", &fd, &local, &refuse, &largest, &wildcard, &internet))
        return NULL;
    desk = PyMem_Calloc(1, sizeof *desk);
    if (desk == NULL)
        return PyErr_NoMemory();
    desk->core = core;
    desk->fd = fd;
    desk->wildcard = wildcard;
    desk->internet = desk->segments = internet;
    desk->largest = (size_t)largest;
    /* Not a power of two: all first bytes would have their places in the same few cache lines. */
    desk->stride = (desk->largest + 4096 + 127) & ~(size_t)63;
    desk->room = mmap(NULL, desk->stride * BATCH, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (desk->room == MAP_FAILED) {
        PyMem_Free(desk);
        return PyErr_NoMemory();
    }
    lay_out(desk);
    desk->local = Py_NewRef(local);
    desk->refuse = refuse == Py_None ? NULL : Py_NewRef(refuse);
    desk->slot = slot_take(core, DESK, desk, &desk->generation);
    desk->next = core->desks;
    core->desks = desk;
    if (polling_watch(core, fd, EPOLLIN | EPOLLEXCLUSIVE, desk->slot, desk->generation, false) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        desk_free(core, desk);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *core_mute(Core *core, PyObject *args)
{
    Desk *desk;
    int fd, served = 1, outcome = 0;

    if (!PyArg_ParseTuple(args, "i:mute", &fd))
        return NULL;
    for (desk = core->desks; desk != NULL && desk->fd != fd; desk = desk->next)
        ;
    if (desk == NULL)
        Py_RETURN_NONE;
    for (int i = 0; i < LAST_ROUNDS && served && outcome == 0; i++)
        outcome = desk_serve(desk, &served);
    polling_forget(core, fd);
    desk_free(core, desk);
    if (outcome < 0)
        return NULL;
    Py_RETURN_NONE;
}
