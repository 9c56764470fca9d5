/* Moving bytes by io_uring.
 *
 * What the kernel does, and what follows:
 *
 * 1. One receive, or one accept, goes on giving completions (multishot) until one comes without F_MORE: then
 *    it is over, whatever the reason (no buffer, a full queue, an error), and is armed again if wanted.
 * 2. A multishot receive knows no backpressure. It is cancelled when too much is unsent; what has come by
 *    then is still delivered, so the bound on what is held is passed by a batch at the most.
 * 3. A request holds the file open. To close a connection its requests are cancelled, and the descriptor is
 *    closed when the last completion has come: or the peer would hear nothing of it.
 * 4. A request reads our bytes when the kernel likes. So one send a connection at a time, straight from the
 *    bytes object, whose reference is held until the completion; sends are handed in by the same call
 *    that waits.
 * 5. Descriptors of another kind are waited for by epoll (backend_epoll.c), and the epoll set by the ring.
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* The most that one send is given: its length has 32 bits, and its result 31. */
enum { MAX_SEND = 1 << 30 };

/* A request, making room by handing in those that wait; NULL where the kernel takes none now. */
static struct io_uring_sqe *get_sqe(Ring *ring, uint8_t operation, int fd, uint64_t user_data)
{
    struct io_uring_sqe *sqe = ring_get_sqe(ring, operation, fd, user_data);

    if (sqe == NULL) {
        (void)ring_enter(ring, 0, 0);
        sqe = ring_get_sqe(ring, operation, fd, user_data);
    }
    if (sqe != NULL)
        ring->inflight++;
    return sqe;
}

static bool submit_cancel(Ring *ring, uint64_t user_data)
{
    struct io_uring_sqe *sqe = get_sqe(ring, IORING_OP_ASYNC_CANCEL, -1, user_data_encode(OP_CANCEL, 0, 0));

    if (sqe != NULL)
        sqe->addr = user_data;
    return sqe != NULL;
}

static bool arm_recv(Connection *self, uint64_t user_data)
{
    struct io_uring_sqe *sqe = get_sqe(self->core->ring, IORING_OP_RECV, self->fd, user_data);

    if (sqe == NULL)
        return false;
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    self->flags |= RECV_ARMED;
    return true;
}

/* Send what is queued: one piece as it is, several by way of a list that stays until they are sent. */
static bool send_queued(Connection *self, uint64_t user_data)
{
    WriteQueue *queue = &self->queue;
    struct io_uring_sqe *sqe;

    if (queue->tail != NULL && self->send_vector == NULL)
        self->send_vector = PyMem_Malloc(sizeof *self->send_vector); /* without one: piece by piece */
    sqe = get_sqe(self->core->ring, IORING_OP_SEND, self->fd, user_data);
    if (sqe == NULL)
        return false;
    sqe->msg_flags = MSG_NOSIGNAL;
    if (queue->tail != NULL && self->send_vector != NULL) {
        SendVector *send_vector = self->send_vector;

        memset(&send_vector->message, 0, sizeof send_vector->message);
        send_vector->message.msg_iov = send_vector->iovecs;
        send_vector->message.msg_iovlen = write_queue_iovecs(queue, send_vector->iovecs, MAX_IOVECS);
        sqe->opcode = IORING_OP_SENDMSG;
        sqe->addr = (uintptr_t)&send_vector->message;
        sqe->len = 1;
    } else {
        size_t remaining = (size_t)PyBytes_GET_SIZE(queue->head) - queue->offset;

        sqe->addr = (uintptr_t)(PyBytes_AS_STRING(queue->head) + queue->offset);
        sqe->len = (unsigned)(remaining < MAX_SEND ? remaining : MAX_SEND);
    }
    self->flags |= SEND_INFLIGHT;
    return true;
}

void send_vector_free(Connection *self)
{
    PyMem_Free(self->send_vector);
    self->send_vector = NULL;
}

/* Close a descriptor with the next call, of which nothing is heard again; false if that can't be asked for. */
bool uring_close(Core *core, int fd)
{
    struct io_uring_sqe *sqe =
        ring_get_sqe(core->ring, IORING_OP_CLOSE, fd, user_data_encode(OP_CLOSE, 0, 0));

    if (sqe != NULL)
        sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    return sqe != NULL;
}

/* Ask the kernel for what the connection's flags and queue want. `again`: it takes no requests now. */
int uring_update(Connection *self, bool *sq_full)
{
    Ring *ring = self->core->ring;
    uint64_t recv_id = user_data_encode(OP_RECV, self->generation, self->slot);
    uint64_t send_id = user_data_encode(OP_SEND, self->generation, self->slot);
    bool wants_read = connection_wants_read(self), submitted = true;

    if ((self->flags & (RECV_ARMED | RECV_CANCEL_SENT)) == RECV_ARMED && !wants_read && !(self->flags & EOF_RECEIVED)) {
        submitted = submit_cancel(ring, recv_id);
        self->flags |= submitted ? RECV_CANCEL_SENT : 0;
    } else if (!(self->flags & RECV_ARMED) && wants_read)
        submitted = arm_recv(self, recv_id);
    if (self->flags & CLOSE_PENDING) {
        if ((self->flags & (SEND_INFLIGHT | SEND_CANCEL_SENT)) == SEND_INFLIGHT && submitted) {
            submitted = submit_cancel(ring, send_id);
            self->flags |= submitted ? SEND_CANCEL_SENT : 0;
        }
        if (!(self->flags & (RECV_ARMED | SEND_INFLIGHT)))
            return connection_close_now(self);
    } else if (self->queue.unsent && !(self->flags & SEND_INFLIGHT) && submitted)
        submitted = send_queued(self, send_id);
    if (!submitted) {
        *sq_full = true;
        connection_mark_pending(self);
    }
    return 0;
}

/* Have every listener accept that doesn't, unless accepting is strained. */
void uring_arm_listeners(Core *core)
{
    for (Listener *each = core->listeners; each != NULL; each = each->next) {
        struct io_uring_sqe *sqe;

        if (each->uses_epoll || each->armed || isfinite(core->accept_retry_at))
            continue;
        sqe = get_sqe(core->ring, IORING_OP_ACCEPT, each->fd,
                        user_data_encode(OP_ACCEPT, each->generation, each->slot));
        if (sqe == NULL)
            return;
        sqe->ioprio = IORING_ACCEPT_MULTISHOT;
        sqe->accept_flags = SOCK_CLOEXEC;
        each->armed = true;
    }
}

static int on_recv(Core *core, Connection *connection, const struct io_uring_cqe *cqe)
{
    unsigned buffer_index = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    int status = 0;

    if (!(cqe->flags & IORING_CQE_F_MORE)) {
        connection->flags &= ~(uint32_t)(RECV_ARMED | RECV_CANCEL_SENT);
        connection_mark_pending(connection);
    }
    if (cqe->res > 0)
        status = connection_on_read(connection, ring_buffer(core->ring, buffer_index), (size_t)cqe->res);
    else if (cqe->res == 0)
        status = connection_on_eof(connection);
    else if (cqe->res == -ENOBUFS)
        core->rearmed_receives++;
    else if (cqe->res != -ECANCELED && cqe->res != -EINTR && cqe->res != -EAGAIN)
        connection_on_error(connection, -cqe->res);
    return status;
}

static int on_send(Connection *connection, int result)
{
    connection->flags &= ~(uint32_t)(SEND_INFLIGHT | SEND_CANCEL_SENT);
    connection_mark_pending(connection);
    if (connection->flags & CLOSE_PENDING)
        return 0;
    if (result >= 0)
        return connection_on_written(connection, (size_t)result);
    if (result != -ECANCELED && result != -EINTR && result != -EAGAIN)
        connection_on_error(connection, -result);
    return 0;
}

static int on_accept(Core *core, Listener *listener, const struct io_uring_cqe *cqe)
{
    if (!(cqe->flags & IORING_CQE_F_MORE))
        listener->armed = false;
    if (cqe->res >= 0)
        return listener_on_accept(core, listener, cqe->res);
    return cqe->res == -ECANCELED ? 0 : listener_on_error(core, listener, -cqe->res);
}

/* One request fewer is under way, if this completion is its last. */
static void uring_complete_one(Ring *ring, const struct io_uring_cqe *cqe)
{
    if (!(cqe->flags & IORING_CQE_F_MORE) && cqe->user_data >> 56 != OP_CLOSE)
        ring->inflight--;
}

static int on_cqe(Core *core, const struct io_uring_cqe *cqe)
{
    enum slot_kind slot_kind = SLOT_FREE;
    void *object = slot_lookup(core, cqe->user_data, &slot_kind);
    int status = 0;

    uring_complete_one(core->ring, cqe);
    switch ((enum operation)(cqe->user_data >> 56)) {
    case OP_RECV:
        if (slot_kind == SLOT_CONNECTION)
            status = on_recv(core, object, cqe);
        if (cqe->flags & IORING_CQE_F_BUFFER)
            ring_recycle_buffer(core->ring, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        return status;
    case OP_SEND:
        return slot_kind == SLOT_CONNECTION ? on_send(object, cqe->res) : 0;
    case OP_ACCEPT:
        return slot_kind == SLOT_LISTENER ? on_accept(core, object, cqe) : 0;
    case OP_POLL:
        core->epoll_poll_armed = false;
        return epoll_poll_once(core);
    case OP_CANCEL:
    case OP_CLOSE:
        break;
    }
    return 0;
}

static bool arm_epoll_poll(Core *core)
{
    struct io_uring_sqe *sqe = get_sqe(core->ring, IORING_OP_POLL_ADD, core->epoll_fd, user_data_encode(OP_POLL, 0, 0));

    if (sqe != NULL)
        sqe->poll32_events = POLLIN;
    return sqe != NULL;
}

/* Tell the processor that we are waiting in a loop. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static int uring_check(int error)
{
    /* EBUSY and EAGAIN: completions must be taken first, or memory is short; both pass. */
    if (!error || error == ETIME || error == EINTR || error == EBUSY || error == EAGAIN)
        return 0;
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Deal with all completions that are there. */
static int uring_drain_cq(Core *core)
{
    struct io_uring_cqe cqe;

    while (ring_pop_cqe(core->ring, &cqe))
        if (on_cqe(core, &cqe) < 0 || !loop_check_owner_process(core))
            return -1;
    return 0;
}

/* Wait for completions, `patience` seconds at the most, and deal with them. */
int uring_wait(Core *core, double timeout)
{
    Ring *ring = core->ring;
    int error = 0;

    uring_arm_listeners(core);
    if (!core->epoll_poll_armed)
        core->epoll_poll_armed = arm_epoll_poll(core);
    if (ring->sq_next != __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) || ring_needs_enter(ring))
        error = ring_enter(ring, 0, 0);
    if (uring_check(error) < 0)
        return -1;
    if (!ring_has_completion(ring) && core->busy_poll > 0 && timeout > 0) {
        double deadline = clock_now() + fmin(core->busy_poll, timeout);

        do {
            if (ring_needs_enter(ring))
                error = ring_enter(ring, 0, 0);
            else
                cpu_relax();
        } while (!error && !ring_has_completion(ring) && clock_now() < deadline);
        if (uring_check(error) < 0)
            return -1;
    }
    if (!ring_has_completion(ring) && timeout > 0) {
        core->awake = false;
        Py_BEGIN_ALLOW_THREADS
        error = ring_enter(ring, 1, timeout);
        Py_END_ALLOW_THREADS
        core->awake = true;
        if (uring_check(error) < 0)
            return -1;
    }
    core->now = clock_now();
    return uring_drain_cq(core);
}

/* Have no listener accept any more; who was accepted meanwhile is welcome. */
int uring_cancel_accepts(Core *core)
{
    Listener *each;
    int status = 0;

    for (each = core->listeners; each != NULL; each = each->next)
        if (each->armed && !each->uses_epoll)
            while (!submit_cancel(core->ring, user_data_encode(OP_ACCEPT, each->generation, each->slot)) && status == 0)
                status = uring_drain_cq(core);
    for (each = core->listeners; each != NULL && status == 0; each = each->next) {
        while (each->armed && !each->uses_epoll && status == 0) {
            int error = ring_enter(core->ring, 1, INFINITY);

            status = uring_check(error);
            if (status == 0)
                status = uring_drain_cq(core);
        }
    }
    return status;
}

/* Before the end: cancel everything, and wait until the kernel has let go of our memory and descriptors,
 * which a child after fork may hold open too. */
void uring_cancel_all(Core *core)
{
    Ring *ring = core->ring;
    struct io_uring_sqe *sqe = NULL;
    struct io_uring_cqe cqe;

    while (sqe == NULL) {
        sqe = get_sqe(ring, IORING_OP_ASYNC_CANCEL, -1, user_data_encode(OP_CANCEL, 0, 0));
        while (sqe == NULL && ring_pop_cqe(ring, &cqe))
            uring_complete_one(ring, &cqe);
    }
    sqe->cancel_flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
    while (ring->inflight) {
        int error = ring_enter(ring, 1, INFINITY);

        if (error && error != EINTR && error != EBUSY && error != EAGAIN)
            break;
        while (ring_pop_cqe(ring, &cqe)) {
            uring_complete_one(ring, &cqe);
            if (cqe.user_data >> 56 == OP_ACCEPT && cqe.res >= 0)
                close(cqe.res);
        }
    }
}
