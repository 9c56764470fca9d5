/* Connections, what is sent on them, and what comes: python.py in C, as far as it concerns one peer.
 *
 * A connection that ends or breaks is opened again, more and more slowly while nothing is answered. In a closed
 * loop an answer makes room for the next request, which is sent at once; in an open loop it makes the peer free
 * for the next request that is due.
 */
#include "generator.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24 /* linux/in.h */
#endif

#define LONGEST_PAUSE 500000000LL

enum { MESSAGES = 64 };

static int ready(Run *run, Peer *peer);

/* Connections ---------------------------------------------------------------------------------------- */

static int interest(Run *run, Peer *peer, bool out)
{
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = peer};

    if (peer->wants_out == out)
        return 0;
    peer->wants_out = out;
    return epoll_ctl(run->epoll, EPOLL_CTL_MOD, peer->descriptor, &event);
}

static void drop(Peer *peer)
{
    if (peer->descriptor >= 0)
        close(peer->descriptor); /* which takes it out of epoll */
    peer->descriptor = -1;
    peer->state = CLOSED;
    peer->due = -1;
}

static void sleep_a_while(Run *run, Peer *peer)
{
    peer->retry = now_ns() + peer->pause;
    peer->pause = peer->pause * 2 < LONGEST_PAUSE ? peer->pause * 2 : LONGEST_PAUSE;
    run->asleep++;
}

void refused(Run *run, Peer *peer, int error)
{
    run->faults[error == ETIMEDOUT ? SILENT : REFUSED]++;
    run->last_refusal = error;
    drop(peer);
    sleep_a_while(run, peer);
}

/* With `reconnect`: the connection is over, and so is its request. */
int begin_again(Run *run, Peer *peer, int64_t now)
{
    peer->since = now;
    if (!run->sending || now >= run->stop)
        return 0;
    if (run->times == NULL)
        return dial(run, peer, now, now);
    set_free(run, peer);
    return 0;
}

/* A connection that was open is over: reset (or worse), or closed by the server (error 0). */
int ended(Run *run, Peer *peer, int error)
{
    bool answered = peer->answered;

    if (error) {
        run->faults[RESET]++;
        run->last_refusal = error;
    }
    ledger_end(run, peer);
    drop(peer);
    if (run->reconnect && answered)
        return begin_again(run, peer, now_ns());
    sleep_a_while(run, peer);
    return 0;
}

static void datagram_refused(Run *run, int error)
{
    run->faults[REFUSED]++;
    run->last_refusal = error;
}

static int open_socket(Run *run)
{
    int on = 1, descriptor = socket(run->family, run->type | SOCK_NONBLOCK | SOCK_CLOEXEC, run->protocol);

    if (descriptor < 0)
        return -1;
    if (run->nodelay)
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (run->receive_buffer)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &run->receive_buffer, sizeof run->receive_buffer);
    if (run->family == AF_UNIX && run->type == SOCK_DGRAM) {
        sa_family_t unnamed = AF_UNIX; /* the kernel picks a name: without one it couldn't be answered */

        bind(descriptor, (struct sockaddr *)&unnamed, sizeof unnamed);
    }
    if (run->source_count) {
        struct sockaddr_in source = {.sin_family = AF_INET};

        source.sin_addr.s_addr = run->sources[run->source++ % run->source_count];
        setsockopt(descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        bind(descriptor, (struct sockaddr *)&source, sizeof source);
    }
    return descriptor;
}

/* Begin to connect; with `reconnect`, for the request that is due then. */
int dial(Run *run, Peer *peer, int64_t now, int64_t due)
{
    struct epoll_event event = {.data.ptr = peer};
    int answer;

    ledger_begin(peer);
    peer->since = now;
    peer->due = due;
    peer->descriptor = open_socket(run);
    if (peer->descriptor < 0) {
        refused(run, peer, errno);
        return 0;
    }
    peer->state = CONNECTING;
    answer = connect(peer->descriptor, (struct sockaddr *)&run->address, run->address_size);
    if (answer < 0 && errno != EINPROGRESS) {
        /* AF_UNIX: the listener's queue is full, and nothing tells when it isn't; it is tried again. */
        refused(run, peer, errno == EAGAIN ? ETIMEDOUT : errno);
        return 0;
    }
    event.events = answer == 0 ? EPOLLIN : EPOLLOUT;
    peer->wants_out = answer != 0;
    if (epoll_ctl(run->epoll, EPOLL_CTL_ADD, peer->descriptor, &event) < 0) {
        refused(run, peer, errno);
        return 0;
    }
    return answer == 0 ? ready(run, peer) : 0;
}

static int connected(Run *run, Peer *peer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    int error = 0;
    socklen_t size = sizeof error;

    getsockopt(peer->descriptor, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        refused(run, peer, error);
        return 0;
    }
    peer->wants_out = false;
    epoll_ctl(run->epoll, EPOLL_CTL_MOD, peer->descriptor, &event);
    return ready(run, peer);
}

/* Requests ------------------------------------------------------------------------------------------- */

static int64_t bytes_of(const Run *run, int64_t number)
{
    const int64_t *offsets = run->sends.offsets + number % run->length;

    return offsets[1] - offsets[0];
}

/* Note that so many bytes of the unsent requests have left. */
static void sent(Run *run, Peer *peer, int64_t bytes)
{
    peer->cut += bytes;
    while (peer->unsent < peer->next && peer->cut >= bytes_of(run, peer->unsent)) {
        peer->cut -= bytes_of(run, peer->unsent);
        peer->unsent++;
    }
}

/* Datagrams: many with one system call. What sendmmsg(2) gives, with errno. */
static int64_t send_many(Run *run, Peer *peer)
{
    struct mmsghdr messages[MESSAGES];
    struct iovec parts[MESSAGES];
    unsigned count = 0;

    for (int64_t number = peer->unsent; number < peer->next && count < MESSAGES; number++, count++) {
        int64_t place = number % run->length;

        parts[count].iov_base = (void *)(run->sends.bytes + run->sends.offsets[place]);
        parts[count].iov_len = (size_t)bytes_of(run, number);
        messages[count].msg_hdr = (struct msghdr){.msg_iov = parts + count, .msg_iovlen = 1};
    }
    return sendmmsg(peer->descriptor, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* What one send() of a stream can take: the unsent requests that lie one after the other. */
static const char *unsent_bytes(const Run *run, const Peer *peer, size_t *size)
{
    int64_t place = peer->unsent % run->length, upto = place + (peer->next - peer->unsent);
    int64_t from = run->sends.offsets[place] + peer->cut;

    upto = upto < run->length ? upto : run->length;
    *size = (size_t)(run->sends.offsets[upto] - from);
    return run->sends.bytes + from;
}

static int flush(Run *run, Peer *peer)
{
    if (run->gathering && !peer->is_queued && !peer->wants_out && peer->unsent < peer->next) {
        peer->is_queued = true;
        run->senders[run->sender_count++] = peer;
    }
    if (peer->is_queued)
        return 0;
    while (peer->unsent < peer->next) {
        int64_t done;

        if (run->boundaries) {
            done = send_many(run, peer);
            if (done > 0)
                peer->unsent += done;
        } else {
            size_t size;
            const char *data = unsent_bytes(run, peer, &size);

            done = send(peer->descriptor, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (done > 0)
                sent(run, peer, done);
        }
        if (done >= 0)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS)
            return interest(run, peer, true);
        if (run->type == SOCK_DGRAM) {
            datagram_refused(run, errno); /* it tells of an earlier one; this one was not sent */
            peer->unsent++;
            continue;
        }
        return ended(run, peer, errno);
    }
    return interest(run, peer, false);
}

int ask(Run *run, Peer *peer, int64_t count, int64_t due, int64_t now)
{
    while (count-- > 0)
        ledger_add(run, peer, due, now);
    return flush(run, peer);
}

/* So many requests of a peer are no longer open. */
int freed(Run *run, Peer *peer, int64_t count, int64_t now)
{
    if (run->reconnect) {
        if (peer->count)
            return 0;
        if (peer->left > 0 && run->sending) {
            peer->left--;
            return ask(run, peer, 1, now, now);
        }
        peer->pause = FIRST_PAUSE;
        drop(peer);
        return begin_again(run, peer, now);
    }
    if (!run->sending)
        return 0;
    if (run->times == NULL)
        return now < run->stop ? ask(run, peer, count, now, now) : 0;
    if (!peer->is_free) {
        peer->since = now;
        set_free(run, peer);
    }
    return 0;
}

/* It is connected. */
static int ready(Run *run, Peer *peer)
{
    int64_t now;

    run->made++;
    peer->state = READY;
    if (peer->due >= 0) { /* latency counts from before the connecting; it was begun, so it is finished */
        int64_t due = peer->due;

        peer->due = -1;
        peer->left = run->each - 1;
        return ask(run, peer, 1, due, peer->since);
    }
    if (!run->sending)
        return 0;
    now = now_ns();
    if (run->times == NULL)
        return ask(run, peer, run->depth, now, now);
    peer->since = now;
    set_free(run, peer);
    return 0;
}

/* What comes ----------------------------------------------------------------------------------------- */

/* After something came: is there room for more requests, or is the stream of no more use? */
static int heard(Run *run, Peer *peer, uint32_t before, int64_t now)
{
    if (peer->broken)
        return ended(run, peer, 0);
    if (peer->count == before)
        return 0;
    peer->answered = true;
    peer->pause = FIRST_PAUSE;
    return freed(run, peer, before - peer->count, now);
}

/* What recv() gave: a size, or -errno. */
static int received(Run *run, Peer *peer, const char *data, int64_t size, int64_t now)
{
    uint32_t before = peer->count;

    if (size < 0)
        return size == -EAGAIN || size == -EINTR ? 0 : ended(run, peer, (int)-size);
    if (size == 0)
        return ended(run, peer, 0);
    ledger_receive(run, peer, data, size, now);
    return heard(run, peer, before, now);
}

static int readable_stream(Run *run, Peer *peer)
{
    ssize_t size = recv(peer->descriptor, run->buffer, BUFFER, MSG_DONTWAIT);

    return received(run, peer, run->buffer, size < 0 ? -errno : size, now_ns());
}

static int broken_batch(Run *run)
{
    take_gil(run);
    PyErr_SetFromErrno(PyExc_OSError);
    give_gil(run);
    return -1;
}

/* Send what has been gathered. What is left over, or can't be sent, is seen to by `flush`. */
static int send_gathered(Run *run)
{
    int32_t results[BATCH];
    Peer *asked[BATCH];
    uint32_t next = 0;

    while (next < run->sender_count) {
        uint32_t count = 0;

        for (; next < run->sender_count && count < BATCH; next++) {
            Peer *peer = run->senders[next];
            size_t size;

            peer->is_queued = false;
            if (peer->state == READY && peer->unsent < peer->next) {
                const char *data = unsent_bytes(run, peer, &size);

                asked[count++] = peer;
                batch_send(run->batch, peer->descriptor, data, size);
            }
        }
        if (batch_run(run->batch, results) < 0)
            return broken_batch(run);
        for (uint32_t i = 0; i < count; i++) {
            if (results[i] > 0)
                sent(run, asked[i], results[i]);
            if (asked[i]->unsent < asked[i]->next && flush(run, asked[i]) < 0)
                return -1;
        }
    }
    run->sender_count = 0;
    return 0;
}

/* Events on connections that are open streams: what came is received by one system call for all, and what is
 * to be sent because of it by another. The rest of the events is left where it is. */
int happened_together(Run *run, struct epoll_event *events, int count)
{
    int32_t results[BATCH];
    Peer *readable[BATCH];
    uint32_t ready = 0;
    int64_t now;

    for (int i = 0; i < count; i++) {
        Peer *peer = events[i].data.ptr;

        if (peer->state != READY || (events[i].events & EPOLLOUT) || (ready + 1) * run->slot > BUFFER)
            continue;
        batch_receive(run->batch, peer->descriptor, run->buffer + ready * run->slot, run->slot);
        readable[ready++] = peer;
        events[i].events = 0;
    }
    if (ready == 0)
        return 0;
    if (batch_run(run->batch, results) < 0)
        return broken_batch(run);
    now = now_ns();
    run->gathering = true;
    for (uint32_t i = 0; i < ready; i++)
        if (received(run, readable[i], run->buffer + i * run->slot, results[i], now) < 0)
            return -1;
    run->gathering = false;
    return send_gathered(run);
}

static int readable_messages(Run *run, Peer *peer)
{
    struct mmsghdr messages[MESSAGES];
    struct iovec parts[MESSAGES];
    /* A byte more than the longest: what is longer than anything expected is seen to be. */
    int64_t room = run->longest + 1 > SMALL ? run->longest + 1 : SMALL;
    int64_t most = BUFFER / room < 1 ? 1 : BUFFER / room;
    uint32_t before = peer->count;
    int64_t now;
    int count;

    most = most > MESSAGES ? MESSAGES : most;
    most = most > run->depth ? run->depth : most;
    for (int64_t i = 0; i < most; i++) {
        parts[i] = (struct iovec){run->buffer + i * room, (size_t)room};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = parts + i, .msg_iovlen = 1};
    }
    count = recvmmsg(peer->descriptor, messages, (unsigned)most, MSG_DONTWAIT, NULL);
    if (count < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return 0;
        if (run->type != SOCK_DGRAM)
            return ended(run, peer, errno);
        datagram_refused(run, errno);
        return 0;
    }
    now = now_ns();
    for (int i = 0; i < count; i++) {
        if (messages[i].msg_len == 0 && run->type == SOCK_SEQPACKET)
            return ended(run, peer, 0);
        ledger_receive(run, peer, parts[i].iov_base, messages[i].msg_len, now);
    }
    return heard(run, peer, before, now);
}

int happened(Run *run, Peer *peer, uint32_t events)
{
    if (peer->state == CONNECTING)
        return connected(run, peer);
    if (peer->state == READY && (events & EPOLLOUT) && flush(run, peer) < 0)
        return -1;
    if (peer->state != READY || !(events & ~(uint32_t)EPOLLOUT))
        return 0;
    return run->boundaries ? readable_messages(run, peer) : readable_stream(run, peer);
}
