/* The epoll backend.
 *
 * Level-triggered: epoll reports a descriptor for as long as it is ready. So one recv() per iteration is
 * enough, no peer can monopolize the loop, and events left over after an exception are reported again. A
 * reply is sent as soon as the conversation returns it; only what send() does not accept waits for EPOLLOUT.
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Events per epoll_wait(): more than are ready at once on any but a very busy server. */
enum { EVENT_BATCH = 256 };

/* Send the queue until it is empty or the socket's send buffer is full. */
static int send_queued(Connection *self)
{
    while (self->queue.unsent && !(self->flags & (CLOSE_PENDING | CLOSED))) {
        struct iovec iovecs[MAX_IOVECS];
        struct msghdr message = {.msg_iov = iovecs};
        ssize_t count;

        message.msg_iovlen = write_queue_iovecs(&self->queue, iovecs, MAX_IOVECS);
        if (message.msg_iovlen == 1)
            count = send(self->fd, iovecs[0].iov_base, iovecs[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        else
            count = sendmsg(self->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
                connection_on_error(self, errno);
            return 0;
        }
        if (connection_on_written(self, (size_t)count) < 0)
            return -1;
    }
    return 0;
}

static int epoll_update(Connection *self, bool *Py_UNUSED(is_full))
{
    Core *core = self->core;
    uint32_t current = self->flags & (EPOLL_WANTS_IN | EPOLL_WANTS_OUT), wanted = 0, events;
    bool registered = self->flags & EPOLL_REGISTERED;

    if (send_queued(self) < 0)
        return -1;
    if (self->flags & CLOSE_PENDING) {
        if (registered)
            epoll_set_remove(core, self->fd);
        return connection_close_now(self);
    }
    wanted |= connection_wants_read(self) ? EPOLL_WANTS_IN : 0;
    wanted |= self->queue.unsent ? EPOLL_WANTS_OUT : 0;
    if (registered && wanted == current)
        return 0;
    events = (wanted & EPOLL_WANTS_IN ? EPOLLIN : 0) | (wanted & EPOLL_WANTS_OUT ? EPOLLOUT : 0);
    if (epoll_set_register(core, self->fd, events, self->slot, self->generation, registered) < 0) {
        connection_on_error(self, errno);
        return 0;
    }
    self->flags = (self->flags & ~(uint32_t)(EPOLL_WANTS_IN | EPOLL_WANTS_OUT)) | wanted | EPOLL_REGISTERED;
    return 0;
}

static int receive(Connection *self)
{
    ssize_t count = recv(self->fd, self->core->recv_buffer, (size_t)self->core->read_size, MSG_DONTWAIT);

    if (count > 0)
        return connection_on_read(self, self->core->recv_buffer, (size_t)count);
    if (count == 0)
        return connection_on_eof(self);
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        connection_on_error(self, errno);
    return 0;
}

static int on_connection_event(Connection *self, uint32_t events)
{
    int status = 0;

    if (connection_wants_read(self) && events & ~(uint32_t)EPOLLOUT)
        status = receive(self);
    else if (events & (EPOLLERR | EPOLLHUP) && !self->queue.unsent) {
        int error = 0;
        socklen_t size = sizeof error;

        /* EPOLLERR or EPOLLHUP while neither reading nor writing: the connection is broken. */
        (void)getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        connection_on_error(self, error ? error : ECONNRESET);
    }
    if (status == 0 && events & ~(uint32_t)EPOLLIN && !(self->flags & CLOSED))
        connection_mark_pending(self);
    return status;
}

static int on_event(Core *core, const struct epoll_event *event)
{
    enum slot_kind kind = SLOT_FREE;
    void *object = slot_lookup(core, event->data.u64, &kind);
    eventfd_t count;
    int received;

    switch (kind) {
    case SLOT_CONNECTION:
        return on_connection_event(object, event->events);
    case SLOT_LISTENER:
        return listener_accept_batch(core, object);
    case SLOT_WATCH:
        return watch_on_event(object, event->events);
    case SLOT_DATAGRAM_SERVER:
        return datagram_server_poll(object, &received);
    case SLOT_WAKEUP:
        (void)eventfd_read(core->wakeup_fd, &count);
        return 0;
    case SLOT_FREE:
        return 0;
    }
    return 0;
}

/* Process the events of an epoll_wait(), or raise its errno if `count` is negative. */
static int process_events(Core *core, const struct epoll_event *events, int count)
{
    if (count < 0 && errno != EINTR)
        return raise_errno(errno);
    core->now = clock_now();
    for (int i = 0; i < count; i++)
        if (on_event(core, &events[i]) < 0 || core_check_owner_process(core) < 0
            || (core->backend->flushes_after_event && core_flush_pending(core) < 0))
            return -1;
    return 0;
}

/* Process the events that are ready, without waiting. 0, or -1 with an exception set. */
int epoll_poll_once(Core *core)
{
    struct epoll_event events[EVENT_BATCH];
    int count = epoll_wait(core->epoll_fd, events, EVENT_BATCH, 0);

    return process_events(core, events, count);
}

/* Poll without blocking until something is ready, `busy_poll` seconds at most. `count` is set to the result of the
 * last epoll_wait(), 0 if datagrams were answered instead. 0, or -1 with an exception set. */
static int epoll_busy_poll(Core *core, struct epoll_event *events, double timeout, int *count)
{
    double deadline = clock_now() + fmin(core->busy_poll, timeout);

    do {
        int received = 0;

        *count = 0;
        if (datagram_servers_poll(core, &received) < 0)
            return -1;
        if (received)
            return 0;
        *count = epoll_wait(core->epoll_fd, events, EVENT_BATCH, 0);
    } while (*count == 0 && clock_now() < deadline);
    return 0;
}

static int epoll_wait_and_process(Core *core, double timeout)
{
    struct epoll_event events[EVENT_BATCH];
    int count = epoll_wait(core->epoll_fd, events, EVENT_BATCH, 0);

    if (count == 0 && timeout > 0 && traffic_log_flush(core) < 0)
        return -1;
    if (count == 0 && core->busy_poll > 0 && timeout > 0 && epoll_busy_poll(core, events, timeout, &count) < 0)
        return -1;
    if (count == 0 && timeout > 0) {
        /* Rounded up: a wakeup before the deadline would find no timer due and cost an iteration. */
        int milliseconds = timeout > 1e6 ? (isfinite(timeout) ? 1000000000 : -1) : (int)ceil(timeout * 1e3);

        core->blocked = true;
        Py_BEGIN_ALLOW_THREADS
        count = epoll_wait(core->epoll_fd, events, EVENT_BATCH, milliseconds);
        Py_END_ALLOW_THREADS
        core->blocked = false;
    }
    return process_events(core, events, count);
}

static void epoll_close_fd(Core *Py_UNUSED(core), int fd, bool Py_UNUSED(at_once))
{
    close(fd);
}

static int epoll_cancel_accepts(Core *Py_UNUSED(core))
{
    return 0; /* it has no accept requests */
}

static void epoll_close(Core *Py_UNUSED(core), bool Py_UNUSED(is_owner))
{
    /* The epoll set belongs to the core, not to this backend. */
}

const Backend epoll_backend = {
    .accepts = false,
    .flushes_after_event = true,
    .update = epoll_update,
    .wait = epoll_wait_and_process,
    .close_fd = epoll_close_fd,
    .cancel_accepts = epoll_cancel_accepts,
    .close = epoll_close,
};
