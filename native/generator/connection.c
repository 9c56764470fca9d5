/* Connections: connecting, sending requests, receiving answers. The counterpart of generators/python.py.
 *
 * A closed or broken connection is opened again, with exponential backoff while no answer is received. In a
 * closed loop, an answer makes room for the next request, which is sent at once; in an open loop, it makes the
 * connection idle, until the next request is due.
 */
#include "generator.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24 /* linux/in.h */
#endif

#define MAX_RECONNECT_DELAY 500000000LL /* 0.5 s */

/* MAX_CIPHERTEXT: bytes that are encrypted before they are sent, up to a record more, or received at once. */
enum { MESSAGE_BATCH = 64, MAX_CIPHERTEXT = 64 * 1024 };

static int on_connected(Run *run, Connection *connection);

/* Connections ---------------------------------------------------------------------------------------- */

static int set_write_interest(Run *run, Connection *connection, bool out)
{
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = connection};

    if (connection->wants_write == out)
        return 0;
    connection->wants_write = out;
    return epoll_ctl(run->epoll, EPOLL_CTL_MOD, connection->fd, &event);
}

/* Before the connection is closed: tell a peer that has not closed it. */
void send_close_notify(Connection *connection)
{
    const char *data;
    size_t size;

    if (connection->tls == NULL || connection->state != CONNECTED)
        return;
    tls_close_notify(connection->tls);
    size = tls_unsent(connection->tls, &data);
    send(connection->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL); /* without room the peer sees EOF only */
}

static void close_connection(Connection *connection)
{
    tls_free(connection->tls);
    connection->tls = NULL;
    if (connection->fd >= 0)
        close(connection->fd); /* and removes it from the epoll set */
    connection->fd = -1;
    connection->state = CLOSED;
    connection->due = -1;
}

static void schedule_reconnect(Run *run, Connection *connection)
{
    connection->reconnect_at = now_ns() + connection->reconnect_delay;
    connection->reconnect_delay = connection->reconnect_delay * 2 < MAX_RECONNECT_DELAY
                                      ? connection->reconnect_delay * 2
                                      : MAX_RECONNECT_DELAY;
    run->reconnecting++;
}

/* Keep why TLS has failed. Returns EPROTO. */
static int tls_error(Run *run, const Connection *connection)
{
    tls_reason(connection->tls, run->tls_reason);
    return EPROTO;
}

/* The fault that a failed connect or handshake is, by its errno. */
static enum fault fault_of_connect(int error)
{
    switch (error) {
    case ETIMEDOUT:
        return FAULT_SILENT;
    case EADDRNOTAVAIL: /* no local port is free: not the server's fault */
        return FAULT_OUT_OF_PORTS;
    default:
        return FAULT_REFUSED;
    }
}

/* Process a failed connect or handshake, an errno. */
void on_connect_failed(Run *run, Connection *connection, int error)
{
    run->faults[fault_of_connect(error)]++;
    run->last_error = error;
    close_connection(connection);
    schedule_reconnect(run, connection);
}

/* With `reconnect`: all requests of a connection are answered; open the next one. */
int restart_conversation(Run *run, Connection *connection, int64_t now)
{
    connection->idle_since = now;
    if (!run->sending || now >= run->stop)
        return 0;
    if (run->times == NULL)
        return connect_peer(run, connection, now, now);
    mark_idle(run, connection);
    return 0;
}

/* Process the end of an established connection: an errno, or 0 if the server closed it. */
int on_closed(Run *run, Connection *connection, int error)
{
    bool answered = connection->answered;

    if (error) {
        run->faults[FAULT_RESET]++;
        run->last_error = error;
    }
    tracker_close(run, connection);
    close_connection(connection);
    if (run->reconnect && answered)
        return restart_conversation(run, connection, now_ns());
    schedule_reconnect(run, connection);
    return 0;
}

/* Process a response after which the server closes the connection: open the next one at once. Pipelined requests
 * behind it are not answered (RFC 9112, section 9.3.2): a closed loop sends others instead. */
static int on_closed_by_response(Run *run, Connection *connection, int64_t now)
{
    if (run->times != NULL)
        run->faults[FAULT_LOST] += connection->pending_count;
    connection->pending_count = 0;
    connection->reconnect_delay = MIN_RECONNECT_DELAY;
    close_connection(connection);
    if (run->reconnect)
        return restart_conversation(run, connection, now);
    if (!run->sending || now >= run->stop)
        return 0;
    return connect_peer(run, connection, now, run->times == NULL ? now : -1);
}

static void on_datagram_error(Run *run, int error)
{
    run->faults[FAULT_REFUSED]++;
    run->last_error = error;
}

static int open_socket(Run *run)
{
    int on = 1, fd = socket(run->family, run->type | SOCK_NONBLOCK | SOCK_CLOEXEC, run->protocol);

    if (fd < 0)
        return -1;
    if (run->nodelay)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (run->receive_buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &run->receive_buffer, sizeof run->receive_buffer);
    if (run->family == AF_UNIX && run->type == SOCK_DGRAM) {
        sa_family_t unnamed = AF_UNIX; /* autobind (unix(7)): an unnamed socket could not be answered */

        bind(fd, (struct sockaddr *)&unnamed, sizeof unnamed);
    }
    if (run->source_count) {
        struct sockaddr_in source = {.sin_family = AF_INET};

        source.sin_addr.s_addr = run->sources[run->source++ % run->source_count];
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        bind(fd, (struct sockaddr *)&source, sizeof source);
    }
    return fd;
}

/* Start a non-blocking connect; with `reconnect`, for the request that is due at `due`. */
int connect_peer(Run *run, Connection *connection, int64_t now, int64_t due)
{
    struct epoll_event event = {.data.ptr = connection};
    int status;

    tracker_reset(connection);
    connection->idle_since = now;
    connection->due = due;
    connection->fd = open_socket(run);
    if (connection->fd < 0) {
        on_connect_failed(run, connection, errno);
        return 0;
    }
    connection->state = CONNECTING;
    status = connect(connection->fd, (struct sockaddr *)&run->address, run->address_size);
    if (status < 0 && errno != EINPROGRESS) {
        /* AF_UNIX: EAGAIN means a full accept queue (connect(2)), and no event reports when it is not: retry. */
        on_connect_failed(run, connection, errno == EAGAIN ? ETIMEDOUT : errno);
        return 0;
    }
    event.events = status == 0 ? EPOLLIN : EPOLLOUT;
    connection->wants_write = status != 0;
    if (epoll_ctl(run->epoll, EPOLL_CTL_ADD, connection->fd, &event) < 0) {
        on_connect_failed(run, connection, errno);
        return 0;
    }
    return status == 0 ? on_connected(run, connection) : 0;
}

static int on_connect_completed(Run *run, Connection *connection)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    int error = 0;
    socklen_t size = sizeof error;

    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        on_connect_failed(run, connection, error);
        return 0;
    }
    connection->wants_write = false;
    epoll_ctl(run->epoll, EPOLL_CTL_MOD, connection->fd, &event);
    return on_connected(run, connection);
}

/* Requests ------------------------------------------------------------------------------------------- */

static int64_t request_size(const Run *run, int64_t number)
{
    const int64_t *offsets = run->requests.offsets + number % run->length;

    return offsets[1] - offsets[0];
}

/* Advance past `bytes` sent bytes. */
static void mark_sent(Run *run, Connection *connection, int64_t bytes)
{
    connection->write_offset += bytes;
    while (connection->first_unsent < connection->next_request
           && connection->write_offset >= request_size(run, connection->first_unsent)) {
        connection->write_offset -= request_size(run, connection->first_unsent);
        connection->first_unsent++;
    }
}

/* Send the unsent requests as datagrams, many with one system call. Returns the result of sendmmsg(2). */
static int64_t send_datagrams(Run *run, Connection *connection)
{
    struct mmsghdr messages[MESSAGE_BATCH];
    struct iovec iov[MESSAGE_BATCH];
    unsigned count = 0;

    for (int64_t number = connection->first_unsent; number < connection->next_request && count < MESSAGE_BATCH;
         number++, count++) {
        int64_t index = number % run->length;

        iov[count].iov_base = (void *)(run->requests.bytes + run->requests.offsets[index]);
        iov[count].iov_len = (size_t)request_size(run, number);
        messages[count].msg_hdr = (struct msghdr){.msg_iov = iov + count, .msg_iovlen = 1};
    }
    return sendmmsg(connection->fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Return the unsent requests up to the end of the ring. */
static const char *next_plaintext(const Run *run, const Connection *connection, size_t *size)
{
    int64_t index = connection->first_unsent % run->length,
            end = index + (connection->next_request - connection->first_unsent);
    int64_t start = run->requests.offsets[index] + connection->write_offset;

    end = end < run->length ? end : run->length;
    *size = (size_t)(run->requests.offsets[end] - start);
    return run->requests.bytes + start;
}

/* Whether there is something to send. */
static bool has_unsent(const Connection *connection)
{
    return connection->first_unsent < connection->next_request
           || (connection->tls != NULL && tls_unsent(connection->tls, NULL) > 0);
}

/* Return the data of the next send() on a stream, which has_unsent(). NULL if encrypting it has failed. */
static const char *next_write(Run *run, Connection *connection, size_t *size)
{
    const char *data;

    if (connection->tls == NULL)
        return next_plaintext(run, connection, size);
    *size = tls_unsent(connection->tls, &data);
    for (; *size < MAX_CIPHERTEXT && connection->first_unsent < connection->next_request;
         *size = tls_unsent(connection->tls, &data)) {
        size_t plain;
        const char *plaintext = next_plaintext(run, connection, &plain);

        plain = plain < TLS_RECORD ? plain : TLS_RECORD;
        if (!tls_write(connection->tls, plaintext, (int64_t)plain))
            return NULL;
        mark_sent(run, connection, (int64_t)plain);
    }
    return data;
}

/* After `bytes` of next_write() were sent. */
static void mark_written(Run *run, Connection *connection, int64_t bytes)
{
    if (connection->tls != NULL)
        tls_sent(connection->tls, (size_t)bytes);
    else
        mark_sent(run, connection, bytes);
}

/* Send the unsent requests, or collect them for the batch. */
static int flush_writes(Run *run, Connection *connection)
{
    if (run->batching_sends && !connection->in_send_batch && !connection->wants_write && has_unsent(connection)) {
        connection->in_send_batch = true;
        run->send_batch[run->send_batch_count++] = connection;
    }
    if (connection->in_send_batch)
        return 0;
    while (has_unsent(connection)) {
        int64_t done;

        if (run->message_oriented) {
            done = send_datagrams(run, connection);
            if (done > 0)
                connection->first_unsent += done;
        } else {
            size_t size;
            const char *data = next_write(run, connection, &size);

            if (data == NULL)
                return on_closed(run, connection, tls_error(run, connection));
            done = send(connection->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (done > 0)
                mark_written(run, connection, done);
        }
        if (done >= 0)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS)
            return set_write_interest(run, connection, true);
        if (run->type == SOCK_DGRAM) {
            on_datagram_error(run, errno); /* the error of an earlier datagram (udp(7)); this one was not sent */
            connection->first_unsent++;
            continue;
        }
        return on_closed(run, connection, errno);
    }
    return set_write_interest(run, connection, false);
}

/* Send requests that are due at `due`, now. `sent` is the start of their uncorrected latency. */
int send_requests(Run *run, Connection *connection, int64_t count, int64_t due, int64_t sent, int64_t now)
{
    while (count-- > 0)
        tracker_add(run, connection, due, sent, now);
    return flush_writes(run, connection);
}

/* Send the next requests after `count` of them were answered or have expired. */
int on_slots_freed(Run *run, Connection *connection, int64_t count, int64_t now)
{
    if (run->reconnect) {
        if (connection->pending_count)
            return 0;
        if (connection->remaining > 0 && run->sending) {
            connection->remaining--;
            return send_requests(run, connection, 1, now, now, now);
        }
        connection->reconnect_delay = MIN_RECONNECT_DELAY;
        send_close_notify(connection);
        close_connection(connection);
        return restart_conversation(run, connection, now);
    }
    if (!run->sending)
        return 0;
    if (run->times == NULL)
        return now < run->stop ? send_requests(run, connection, count, now, now, now) : 0;
    if (!connection->idle) {
        connection->idle_since = now;
        mark_idle(run, connection);
    }
    return 0;
}

/* Send the first requests on a new connection. */
static int on_open(Run *run, Connection *connection)
{
    int64_t now;

    connection->state = CONNECTED;
    if (connection->due >= 0) { /* its latency includes the connect; sent even if sending has stopped */
        int64_t due = connection->due;

        connection->due = -1;
        connection->remaining = run->requests_per_connection - 1;
        now = now_ns();
        if (send_requests(run, connection, 1, due, connection->idle_since, now) < 0)
            return -1;
        if (run->reconnect || run->depth == 1 || !run->sending || connection->state != CONNECTED)
            return 0;
        return send_requests(run, connection, run->depth - 1, now, now, now);
    }
    if (!run->sending)
        return 0;
    now = now_ns();
    if (run->times == NULL)
        return send_requests(run, connection, run->depth, now, now, now);
    connection->idle_since = now;
    mark_idle(run, connection);
    return 0;
}

/* Handshakes ------------------------------------------------------------------------------------------ */

/* Send what the handshake has to send. Returns 0 or an errno. */
static int send_handshake(Run *run, Connection *connection)
{
    const char *data;
    size_t size;

    while ((size = tls_unsent(connection->tls, &data)) > 0) {
        ssize_t done = send(connection->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (done < 0 && errno != EAGAIN)
            return errno;
        if (done < 0) {
            set_write_interest(run, connection, true);
            return 0;
        }
        tls_sent(connection->tls, (size_t)done);
    }
    set_write_interest(run, connection, false);
    return 0;
}

/* Go on with a handshake, whose duration counts as that of the connect. */
static int continue_handshake(Run *run, Connection *connection)
{
    int result = tls_handshake(connection->tls);
    int error = result == TLS_FAILED ? tls_error(run, connection) : 0;
    int send_error = send_handshake(run, connection); /* after a failure: the alert */

    if (error || send_error) {
        on_connect_failed(run, connection, error ? error : send_error);
        return 0;
    }
    return result == TLS_ENDED ? on_open(run, connection) : 0;
}

static int on_connected(Run *run, Connection *connection)
{
    run->connections_made++;
    if (run->tls == NULL)
        return on_open(run, connection);
    connection->state = HANDSHAKING;
    connection->tls = tls_new(run->tls);
    if (connection->tls == NULL) {
        on_connect_failed(run, connection, ENOMEM);
        return 0;
    }
    return continue_handshake(run, connection);
}

/* Answers -------------------------------------------------------------------------------------------- */

/* After received data: send the next requests, or close the connection if it is desynced. */
static int after_read(Run *run, Connection *connection, uint32_t pending_before, int64_t now)
{
    if (connection->desynced)
        return on_closed(run, connection, 0);
    if (connection->closing)
        return on_closed_by_response(run, connection, now);
    if (connection->pending_count == pending_before)
        return 0;
    connection->answered = true;
    connection->reconnect_delay = MIN_RECONNECT_DELAY;
    return on_slots_freed(run, connection, pending_before - connection->pending_count, now);
}

/* Process the server's EOF. */
static int on_eof(Run *run, Connection *connection, int64_t now)
{
    if (run->http != NULL)
        http_end(run, connection, now);
    return connection->closing ? on_closed_by_response(run, connection, now) : on_closed(run, connection, 0);
}

/* Process received data of TLS. */
static int on_ciphertext(Run *run, Connection *connection, const char *data, int64_t size, int64_t now)
{
    uint32_t pending_before;
    int64_t count;
    int error;

    if (!tls_feed(connection->tls, data, size))
        return on_closed(run, connection, ENOMEM);
    if (connection->state == HANDSHAKING && continue_handshake(run, connection) < 0)
        return -1;
    if (connection->state != CONNECTED)
        return 0;
    pending_before = connection->pending_count;
    while ((count = tls_read(connection->tls, run->plaintext, TLS_RECORD)) > 0) {
        tracker_receive(run, connection, run->plaintext, count, now);
        if (connection->desynced || connection->closing)
            return after_read(run, connection, pending_before, now);
    }
    error = count == TLS_FAILED ? tls_error(run, connection) : 0; /* before the next call of OpenSSL */
    if (after_read(run, connection, pending_before, now) < 0)
        return -1;
    if (connection->state != CONNECTED)
        return 0;
    if (count != TLS_WAIT)
        return error ? on_closed(run, connection, error) : on_eof(run, connection, now);
    return has_unsent(connection) ? flush_writes(run, connection) : 0; /* OpenSSL's answer to a key update */
}

/* Process the result of a recv(): a size, or -errno. */
static int on_received(Run *run, Connection *connection, const char *data, int64_t size, int64_t now)
{
    uint32_t pending_before = connection->pending_count;

    if (size == -EAGAIN || size == -EINTR)
        return 0;
    if (connection->state == HANDSHAKING && size <= 0) {
        snprintf(run->tls_reason, TLS_REASON_SIZE, "UNEXPECTED_EOF_WHILE_READING");
        on_connect_failed(run, connection, size < 0 ? (int)-size : EPROTO);
        return 0;
    }
    if (size < 0)
        return on_closed(run, connection, (int)-size);
    if (size == 0)
        return on_eof(run, connection, now);
    if (connection->tls != NULL)
        return on_ciphertext(run, connection, data, size, now);
    tracker_receive(run, connection, data, size, now);
    return after_read(run, connection, pending_before, now);
}

static int read_stream(Run *run, Connection *connection)
{
    size_t capacity = run->tls != NULL ? MAX_CIPHERTEXT : BUFFER_SIZE; /* OpenSSL keeps buffers as large */
    ssize_t size = recv(connection->fd, run->buffer, capacity, MSG_DONTWAIT);

    return on_received(run, connection, run->buffer, size < 0 ? -errno : size, now_ns());
}

static int raise_batch_error(Run *run)
{
    acquire_gil(run);
    PyErr_SetFromErrno(PyExc_OSError);
    release_gil(run);
    return -1;
}

/* Send all collected requests with one system call per batch. flush_writes() handles partial sends and errors. */
static int send_batched(Run *run)
{
    int32_t results[BATCH_SIZE];
    Connection *batched[BATCH_SIZE];
    uint32_t next = 0;

    while (next < run->send_batch_count) {
        uint32_t count = 0;

        for (; next < run->send_batch_count && count < BATCH_SIZE; next++) {
            Connection *connection = run->send_batch[next];
            size_t size;

            connection->in_send_batch = false;
            if (connection->state == CONNECTED && has_unsent(connection)) {
                const char *data = next_write(run, connection, &size);

                if (data == NULL) {
                    if (on_closed(run, connection, tls_error(run, connection)) < 0)
                        return -1;
                    continue;
                }
                batched[count++] = connection;
                batch_send(run->batch, connection->fd, data, size);
            }
        }
        if (batch_run(run->batch, results) < 0)
            return raise_batch_error(run);
        for (uint32_t i = 0; i < count; i++) {
            if (results[i] > 0)
                mark_written(run, batched[i], results[i]);
            if (has_unsent(batched[i]) && flush_writes(run, batched[i]) < 0)
                return -1;
        }
    }
    run->send_batch_count = 0;
    return 0;
}

/* Process readable established streams: one system call receives from all of them, another sends the requests that
 * follow. Their events are set to 0; the other events are left for on_event(). */
int on_events_batched(Run *run, struct epoll_event *events, int count)
{
    int32_t results[BATCH_SIZE];
    Connection *readable[BATCH_SIZE];
    uint32_t ready = 0;
    int64_t now;

    for (int i = 0; i < count; i++) {
        Connection *connection = events[i].data.ptr;

        if (connection->state != CONNECTED || (events[i].events & EPOLLOUT)
            || (ready + 1) * run->recv_slot_size > BUFFER_SIZE)
            continue;
        batch_recv(run->batch, connection->fd, run->buffer + ready * run->recv_slot_size, run->recv_slot_size);
        readable[ready++] = connection;
        events[i].events = 0;
    }
    if (ready == 0)
        return 0;
    if (batch_run(run->batch, results) < 0)
        return raise_batch_error(run);
    now = now_ns();
    run->batching_sends = true;
    for (uint32_t i = 0; i < ready; i++)
        if (on_received(run, readable[i], run->buffer + i * run->recv_slot_size, results[i], now) < 0)
            return -1;
    run->batching_sends = false;
    return send_batched(run);
}

static int read_messages(Run *run, Connection *connection)
{
    struct mmsghdr messages[MESSAGE_BATCH];
    struct iovec iov[MESSAGE_BATCH];
    /* One byte more than the longest answer, to detect longer ones. */
    int64_t slot_size = run->max_answer + 1 > MIN_RECV_SLOT ? run->max_answer + 1 : MIN_RECV_SLOT;
    int64_t max = BUFFER_SIZE / slot_size < 1 ? 1 : BUFFER_SIZE / slot_size;
    uint32_t pending_before = connection->pending_count;
    int64_t now;
    int count;

    max = max > MESSAGE_BATCH ? MESSAGE_BATCH : max;
    max = max > run->depth ? run->depth : max;
    for (int64_t i = 0; i < max; i++) {
        iov[i] = (struct iovec){run->buffer + i * slot_size, (size_t)slot_size};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = iov + i, .msg_iovlen = 1};
    }
    count = recvmmsg(connection->fd, messages, (unsigned)max, MSG_DONTWAIT, NULL);
    if (count < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return 0;
        if (run->type != SOCK_DGRAM)
            return on_closed(run, connection, errno);
        on_datagram_error(run, errno);
        return 0;
    }
    now = now_ns();
    for (int i = 0; i < count; i++) {
        if (messages[i].msg_len == 0 && run->type == SOCK_SEQPACKET)
            return on_closed(run, connection, 0);
        tracker_receive(run, connection, iov[i].iov_base, messages[i].msg_len, now);
    }
    return after_read(run, connection, pending_before, now);
}

int on_event(Run *run, Connection *connection, uint32_t events)
{
    if (connection->state == CONNECTING)
        return on_connect_completed(run, connection);
    if (connection->state == HANDSHAKING && (events & EPOLLOUT)) {
        int error = send_handshake(run, connection);

        if (error) {
            on_connect_failed(run, connection, error);
            return 0;
        }
    }
    if (connection->state == HANDSHAKING && (events & ~(uint32_t)EPOLLOUT))
        return read_stream(run, connection);
    if (connection->state == CONNECTED && (events & EPOLLOUT) && flush_writes(run, connection) < 0)
        return -1;
    if (connection->state != CONNECTED || !(events & ~(uint32_t)EPOLLOUT))
        return 0;
    return run->message_oriented ? read_messages(run, connection) : read_stream(run, connection);
}
