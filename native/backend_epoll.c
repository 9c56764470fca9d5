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
enum { BATCH = 256 };

int polling_open(Core *core)
{
    uint32_t generation, slot = slot_take(core, WAKING, core, &generation);

    core->epoll = epoll_create1(EPOLL_CLOEXEC);
    core->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (slot == UINT32_MAX || core->epoll < 0 || core->wake < 0
        || polling_watch(core, core->wake, EPOLLIN, slot, generation, false) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    core->awake = true;
    return 0;
}

/* Register a descriptor, or change what it is registered for (`again`). 0, or -1 with errno set. */
int polling_watch(Core *core, int fd, uint32_t events, uint32_t slot, uint32_t generation, bool again)
{
    struct epoll_event event = {.events = events, .data.u64 = tag_of(POLLING, generation, slot)};

    return epoll_ctl(core->epoll, again ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

/* An epoll set refers to files, not to descriptors: take each out before closing it, in case of a copy. */
void polling_forget(Core *core, int fd)
{
    if (core->forks == fork_count)
        (void)epoll_ctl(core->epoll, EPOLL_CTL_DEL, fd, NULL);
}

/* Send what is queued as far as it goes. */
static int send_queued(Connection *self)
{
    while (self->queue.unsent && !(self->flags & (DYING | DEAD))) {
        struct iovec vectors[VECTORS];
        struct msghdr message = {.msg_iov = vectors};
        ssize_t count;

        message.msg_iovlen = queue_vectors(&self->queue, vectors, VECTORS);
        if (message.msg_iovlen == 1)
            count = send(self->fd, vectors[0].iov_base, vectors[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        else
            count = sendmsg(self->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
                connection_lost(self, errno);
            return 0;
        }
        if (connection_sent(self, (size_t)count) < 0)
            return -1;
    }
    return 0;
}

/* Do what the connection's flags and queue want, and tell the kernel what to report. */
int polling_update(Connection *self)
{
    Core *core = self->core;
    uint32_t watched = self->flags & (WATCHES_IN | WATCHES_OUT), wanted = 0;
    bool known = self->flags & RECEIVES; /* here: it is registered */

    if (send_queued(self) < 0)
        return -1;
    if (self->flags & DYING) {
        if (known)
            polling_forget(core, self->fd);
        return connection_bury(self);
    }
    wanted |= connection_reads(self) ? WATCHES_IN : 0;
    wanted |= self->queue.unsent ? WATCHES_OUT : 0;
    if (known && wanted == watched)
        return 0;
    if (polling_watch(core, self->fd, (wanted & WATCHES_IN ? EPOLLIN : 0) | (wanted & WATCHES_OUT ? EPOLLOUT : 0),
                      self->slot, self->generation, known) < 0) {
        connection_lost(self, errno);
        return 0;
    }
    self->flags = (self->flags & ~(uint32_t)(WATCHES_IN | WATCHES_OUT)) | wanted | RECEIVES;
    return 0;
}

static int receive(Connection *self)
{
    ssize_t count = recv(self->fd, self->core->scratch, self->core->chunk, MSG_DONTWAIT);

    if (count > 0)
        return connection_heard(self, self->core->scratch, (size_t)count);
    if (count == 0)
        return connection_ended(self);
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        connection_lost(self, errno);
    return 0;
}

static int on_connection(Connection *self, uint32_t events)
{
    int outcome = 0;

    if (connection_reads(self) && events & ~(uint32_t)EPOLLOUT)
        outcome = receive(self);
    else if (events & (EPOLLERR | EPOLLHUP) && !self->queue.unsent) {
        int error = 0;
        socklen_t size = sizeof error;

        /* Neither read nor written now, and gone all the same. */
        (void)getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        connection_lost(self, error ? error : ECONNRESET);
    }
    if (outcome == 0 && events & ~(uint32_t)EPOLLIN && !(self->flags & DEAD))
        connection_soil(self);
    return outcome;
}

static int on_event(Core *core, const struct epoll_event *event)
{
    enum kind kind = FREE;
    void *holder = slot_holder(core, event->data.u64, &kind);
    eventfd_t count;
    int served;

    switch (kind) {
    case CONNECTION:
        return on_connection(holder, event->events);
    case LISTENING:
        return accept_all(core, holder);
    case WATCH:
        return watch_call(holder, event->events);
    case DESK:
        return desk_serve(holder, &served);
    case WAKING:
        (void)eventfd_read(core->wake, &count);
        return 0;
    case FREE:
        return 0;
    }
    return 0;
}

static int dispatch(Core *core, const struct epoll_event *events, int count)
{
    core->now = clock_now();
    for (int i = 0; i < count; i++)
        if (on_event(core, &events[i]) < 0 || !core_is_ours(core)
            || (core->ring == NULL && core_flush(core) < 0))
            return -1;
    return 0;
}

static int check(int count)
{
    if (count >= 0 || errno == EINTR)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Deal with what is ready now. */
int polling_turn(Core *core)
{
    struct epoll_event events[BATCH];
    int count = epoll_wait(core->epoll, events, BATCH, 0);

    return check(count) < 0 ? -1 : dispatch(core, events, count);
}

/* Whether a descriptor gets ready within the time that is spent on looking. */
static int look_busily(Core *core, struct epoll_event *events, double patience)
{
    double until = clock_now() + fmin(core->busy, patience);
    int count;

    do {
        int served = 0;

        if (desks_serve(core, &served) < 0)
            return -2;
        if (served)
            return 0;
        count = epoll_wait(core->epoll, events, BATCH, 0);
    } while (count == 0 && clock_now() < until);
    return count;
}

/* Wait until something is ready, `patience` seconds at the most, and deal with it. */
int polling_wait(Core *core, double patience)
{
    struct epoll_event events[BATCH];
    int count = epoll_wait(core->epoll, events, BATCH, 0);

    if (count == 0 && core->busy > 0 && patience > 0)
        count = look_busily(core, events, patience);
    if (count == -2)
        return -1;
    if (count == 0 && patience > 0) {
        /* Rounded up: woken too early it would find nothing due, and turn for nothing. */
        int milliseconds = patience > 1e6 ? (isfinite(patience) ? 1000000000 : -1) : (int)ceil(patience * 1e3);

        core->awake = false;
        Py_BEGIN_ALLOW_THREADS
        count = epoll_wait(core->epoll, events, BATCH, milliseconds);
        Py_END_ALLOW_THREADS
        core->awake = true;
    }
    return check(count) < 0 ? -1 : dispatch(core, events, count);
}
