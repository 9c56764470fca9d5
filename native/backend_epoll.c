/* Moving bytes by epoll, and waiting for any other descriptor: latches, listeners that Python accepts from,
 * datagram sockets, sockets of other kinds.
 *
 * Level-triggered: what is ready is reported as long as it is, so one chunk a turn is right, a batch that an
 * exception cuts short is reported again, and no peer keeps the loop to itself. An answer is sent as soon as
 * the conversation has given it; only what the system doesn't take waits for writability.
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Reports taken by one epoll_wait(): more than are ready at once on any but a very busy server. */
enum { EVENT_BATCH = 256 };

/* Returned instead of a count of events: Python code raised. */
enum { EXCEPTION_SET = -2 };

int epoll_open(Core *core)
{
    uint32_t generation, slot = slot_alloc(core, SLOT_WAKEUP, core, &generation);

    core->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    core->wakeup_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (slot == UINT32_MAX || core->epoll_fd < 0 || core->wakeup_fd < 0
        || epoll_register(core, core->wakeup_fd, EPOLLIN, slot, generation, false) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    core->awake = true;
    return 0;
}

/* Register a descriptor, or change what it is registered for (`again`). 0, or -1 with errno set. */
int epoll_register(Core *core, int fd, uint32_t events, uint32_t slot, uint32_t generation, bool modify)
{
    struct epoll_event event = {.events = events, .data.u64 = user_data_encode(OP_POLL, generation, slot)};

    return epoll_ctl(core->epoll_fd, modify ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

/* An epoll set refers to files, not to descriptors: take each out before closing it, in case of a copy. */
void epoll_del(Core *core, int fd)
{
    if (core->fork_generation == current_fork_generation)
        (void)epoll_ctl(core->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* Send what is queued as far as it goes. */
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

/* Do what the connection's flags and queue want, and tell the kernel what to report. */
int epoll_backend_update(Connection *self)
{
    Core *core = self->core;
    uint32_t current = self->flags & (EPOLL_WANTS_IN | EPOLL_WANTS_OUT), wanted = 0;
    bool registered = self->flags & EPOLL_REGISTERED;

    if (send_queued(self) < 0)
        return -1;
    if (self->flags & CLOSE_PENDING) {
        if (registered)
            epoll_del(core, self->fd);
        return connection_close_now(self);
    }
    wanted |= connection_wants_read(self) ? EPOLL_WANTS_IN : 0;
    wanted |= self->queue.unsent ? EPOLL_WANTS_OUT : 0;
    if (registered && wanted == current)
        return 0;
    if (epoll_register(core, self->fd, (wanted & EPOLL_WANTS_IN ? EPOLLIN : 0) | (wanted & EPOLL_WANTS_OUT ? EPOLLOUT : 0),
                      self->slot, self->generation, registered) < 0) {
        connection_on_error(self, errno);
        return 0;
    }
    self->flags = (self->flags & ~(uint32_t)(EPOLL_WANTS_IN | EPOLL_WANTS_OUT)) | wanted | EPOLL_REGISTERED;
    return 0;
}

static int receive(Connection *self)
{
    ssize_t count = recv(self->fd, self->core->recv_buffer, self->core->read_size, MSG_DONTWAIT);

    if (count > 0)
        return connection_on_read(self, self->core->recv_buffer, (size_t)count);
    if (count == 0)
        return connection_on_eof(self);
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        connection_on_error(self, errno);
    return 0;
}

static int on_connection(Connection *self, uint32_t events)
{
    int status = 0;

    if (connection_wants_read(self) && events & ~(uint32_t)EPOLLOUT)
        status = receive(self);
    else if (events & (EPOLLERR | EPOLLHUP) && !self->queue.unsent) {
        int error = 0;
        socklen_t size = sizeof error;

        /* Neither read nor written now, and gone all the same. */
        (void)getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        connection_on_error(self, error ? error : ECONNRESET);
    }
    if (status == 0 && events & ~(uint32_t)EPOLLIN && !(self->flags & CLOSED))
        connection_mark_pending(self);
    return status;
}

static int on_event(Core *core, const struct epoll_event *event)
{
    enum slot_kind slot_kind = SLOT_FREE;
    void *object = slot_lookup(core, event->data.u64, &slot_kind);
    eventfd_t count;
    int received;

    switch (slot_kind) {
    case SLOT_CONNECTION:
        return on_connection(object, event->events);
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

static int dispatch(Core *core, const struct epoll_event *events, int count)
{
    core->now = clock_now();
    for (int i = 0; i < count; i++)
        if (on_event(core, &events[i]) < 0 || !loop_check_owner_process(core)
            || (core->ring == NULL && loop_flush_pending(core) < 0))
            return -1;
    return 0;
}

static int epoll_check(int count)
{
    if (count >= 0 || errno == EINTR)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Deal with what is ready now. */
int epoll_poll_once(Core *core)
{
    struct epoll_event events[EVENT_BATCH];
    int count = epoll_wait(core->epoll_fd, events, EVENT_BATCH, 0);

    return epoll_check(count) < 0 ? -1 : dispatch(core, events, count);
}

/* Whether a descriptor gets ready within the time that is spent on looking. */
static int epoll_busy_poll(Core *core, struct epoll_event *events, double timeout)
{
    double deadline = clock_now() + fmin(core->busy_poll, timeout);
    int count;

    do {
        int received = 0;

        if (datagram_servers_poll(core, &received) < 0)
            return EXCEPTION_SET;
        if (received)
            return 0;
        count = epoll_wait(core->epoll_fd, events, EVENT_BATCH, 0);
    } while (count == 0 && clock_now() < deadline);
    return count;
}

/* Wait until something is ready, `patience` seconds at the most, and deal with it. */
int epoll_backend_wait(Core *core, double timeout)
{
    struct epoll_event events[EVENT_BATCH];
    int count = epoll_wait(core->epoll_fd, events, EVENT_BATCH, 0);

    if (count == 0 && core->busy_poll > 0 && timeout > 0)
        count = epoll_busy_poll(core, events, timeout);
    if (count == EXCEPTION_SET)
        return -1;
    if (count == 0 && timeout > 0) {
        /* Rounded up: woken too early it would find nothing due, and turn for nothing. */
        int milliseconds = timeout > 1e6 ? (isfinite(timeout) ? 1000000000 : -1) : (int)ceil(timeout * 1e3);

        core->awake = false;
        Py_BEGIN_ALLOW_THREADS
        count = epoll_wait(core->epoll_fd, events, EVENT_BATCH, milliseconds);
        Py_END_ALLOW_THREADS
        core->awake = true;
    }
    return epoll_check(count) < 0 ? -1 : dispatch(core, events, count);
}
