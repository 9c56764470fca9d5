/* The io_uring backend.
 *
 * What the kernel does (io_uring_enter(2), io_uring_prep_recv_multishot(3)), and what follows:
 *
 * 1. A multishot receive or accept gives completions until one comes without IORING_CQE_F_MORE. Then the
 *    request is over, whatever the reason (no buffer, a full completion queue, an error), and is armed again
 *    if still wanted.
 * 2. A multishot receive has no backpressure. It is cancelled when too many bytes are unsent. Data received
 *    before the cancellation takes effect is still delivered, so the limit is exceeded by one batch at most.
 * 3. A request holds a reference to the open file: close() alone would not send a FIN. So the requests of a
 *    connection are cancelled, and the descriptor is closed after the last completion.
 * 4. The kernel reads the bytes of a send at any time before its completion. So each connection has one send
 *    in flight, which reads directly from the bytes object; the queue holds a reference until the completion.
 *    Sends are submitted by the io_uring_enter() that waits.
 * 5. All other descriptors are in the epoll set (epoll_set.c), and the ring polls the set's descriptor.
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* The maximum size of a send: its length has 32 bits, its result 31. */
enum { MAX_SEND = 1 << 30 };

/* The message of an IORING_OP_SENDMSG, which must stay in place until the completion. */
typedef struct {
    struct msghdr message;
    struct iovec iovecs[MAX_IOVECS];
} SendVector;

/* Get a submission entry, submitting the queued ones first if the queue is full. NULL if the kernel accepts
 * none now. */
static struct io_uring_sqe *get_sqe(Ring *ring, uint8_t opcode, int fd, uint64_t user_data)
{
    struct io_uring_sqe *sqe = ring_get_sqe(ring, opcode, fd, user_data);

    if (sqe == NULL) {
        (void)ring_enter(ring, 0, 0);
        sqe = ring_get_sqe(ring, opcode, fd, user_data);
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

/* Submit a send of the queue: a single chunk as it is, several as a vector. Without memory for the vector, one
 * chunk at a time. */
static bool submit_send(Connection *self, uint64_t user_data)
{
    WriteQueue *queue = &self->queue;
    struct io_uring_sqe *sqe;

    if (queue->tail != NULL && self->backend_data == NULL)
        self->backend_data = PyMem_Malloc(sizeof(SendVector));
    sqe = get_sqe(self->core->ring, IORING_OP_SEND, self->fd, user_data);
    if (sqe == NULL)
        return false;
    sqe->msg_flags = MSG_NOSIGNAL;
    if (queue->tail != NULL && self->backend_data != NULL) {
        SendVector *vector = self->backend_data;

        memset(&vector->message, 0, sizeof vector->message);
        vector->message.msg_iov = vector->iovecs;
        vector->message.msg_iovlen = write_queue_iovecs(queue, vector->iovecs, MAX_IOVECS);
        sqe->opcode = IORING_OP_SENDMSG;
        sqe->addr = (uintptr_t)&vector->message;
        sqe->len = 1;
    } else {
        size_t remaining = (size_t)PyBytes_GET_SIZE(queue->head) - queue->offset;

        sqe->addr = (uintptr_t)(PyBytes_AS_STRING(queue->head) + queue->offset);
        sqe->len = (unsigned)(remaining < MAX_SEND ? remaining : MAX_SEND);
    }
    self->flags |= SEND_INFLIGHT;
    return true;
}

static int uring_update(Connection *self, bool *is_full)
{
    Ring *ring = self->core->ring;
    uint64_t recv_id = user_data_encode(OP_RECV, self->generation, self->slot);
    uint64_t send_id = user_data_encode(OP_SEND, self->generation, self->slot);
    bool wants_read = connection_wants_read(self), submitted = true;

    if ((self->flags & (RECV_ARMED | RECV_CANCEL_SENT)) == RECV_ARMED && !wants_read
        && !(self->flags & EOF_RECEIVED)) {
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
        submitted = submit_send(self, send_id);
    if (!submitted) {
        *is_full = true;
        connection_mark_pending(self);
    }
    return 0;
}

/* Close a descriptor by the next io_uring_enter(), without a completion; by close() if the submission queue is
 * full or the core is being closed. */
static void uring_close_fd(Core *core, int fd, bool at_once)
{
    struct io_uring_sqe *sqe = NULL;

    if (!at_once && !core->closing)
        sqe = ring_get_sqe(core->ring, IORING_OP_CLOSE, fd, user_data_encode(OP_CLOSE, 0, 0));
    if (sqe != NULL)
        sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    else
        close(fd);
}

/* Arm an accept on each listener that has none, unless accepting is paused. */
static void arm_accepts(Core *core)
{
    for (Listener *listener = core->listeners; listener != NULL; listener = listener->next) {
        struct io_uring_sqe *sqe;

        if (listener->by_epoll || listener->armed || isfinite(core->accept_retry_at))
            continue;
        sqe = get_sqe(core->ring, IORING_OP_ACCEPT, listener->fd,
                      user_data_encode(OP_ACCEPT, listener->generation, listener->slot));
        if (sqe == NULL)
            return;
        sqe->ioprio = IORING_ACCEPT_MULTISHOT;
        sqe->accept_flags = SOCK_CLOEXEC;
        listener->armed = true;
    }
}

static int on_recv(Core *core, Connection *connection, const struct io_uring_cqe *cqe)
{
    unsigned buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

    if (!(cqe->flags & IORING_CQE_F_MORE)) {
        connection->flags &= ~(uint32_t)(RECV_ARMED | RECV_CANCEL_SENT);
        connection_mark_pending(connection);
    }
    if (cqe->res > 0)
        return connection_on_read(connection, ring_buffer(core->ring, buffer), (size_t)cqe->res);
    if (cqe->res == 0)
        return connection_on_eof(connection);
    if (cqe->res == -ENOBUFS)
        core->rearmed_receives++;
    else if (cqe->res != -ECANCELED && cqe->res != -EINTR && cqe->res != -EAGAIN)
        connection_on_error(connection, -cqe->res);
    return 0;
}

static int on_send(Connection *connection, int result)
{
    connection->flags &= ~(uint32_t)(SEND_INFLIGHT | SEND_CANCEL_SENT);
    connection_mark_pending(connection);
    if (connection->flags & CLOSE_PENDING) /* a result: it was sent before it was cancelled */
        return result > 0 ? connection_count_sent(connection, (size_t)result) : 0;
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
    return cqe->res == -ECANCELED ? 0 : listener_on_error(core, -cqe->res);
}

/* Count a request as complete if this is its last completion. */
static void complete_one(Ring *ring, const struct io_uring_cqe *cqe)
{
    if (!(cqe->flags & IORING_CQE_F_MORE) && cqe->user_data >> 56 != OP_CLOSE)
        ring->inflight--;
}

static int on_completion(Core *core, const struct io_uring_cqe *cqe)
{
    enum slot_kind kind = SLOT_FREE;
    void *object = slot_lookup(core, cqe->user_data, &kind);
    int status = 0;

    complete_one(core->ring, cqe);
    switch ((enum operation)(cqe->user_data >> 56)) {
    case OP_RECV:
        if (kind == SLOT_CONNECTION)
            status = on_recv(core, object, cqe);
        if (cqe->flags & IORING_CQE_F_BUFFER)
            ring_recycle_buffer(core->ring, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        return status;
    case OP_SEND:
        return kind == SLOT_CONNECTION ? on_send(object, cqe->res) : 0;
    case OP_ACCEPT:
        return kind == SLOT_LISTENER ? on_accept(core, object, cqe) : 0;
    case OP_POLL:
        core->epoll_poll_armed = false;
        return epoll_poll_once(core);
    case OP_CANCEL:
    case OP_CLOSE:
        break;
    }
    return 0;
}

/* Poll the epoll set's descriptor, once. */
static bool arm_epoll_poll(Core *core)
{
    struct io_uring_sqe *sqe =
        get_sqe(core->ring, IORING_OP_POLL_ADD, core->epoll_fd, user_data_encode(OP_POLL, 0, 0));

    if (sqe != NULL)
        sqe->poll32_events = POLLIN;
    return sqe != NULL;
}

/* Hint to the CPU that this is a spin-wait loop. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Raise an errno of io_uring_enter(), unless it is transient. */
static int check_enter(int error)
{
    /* EBUSY: completions must be taken first; EAGAIN: memory is short (io_uring_enter(2)). Both pass. */
    if (!error || error == ETIME || error == EINTR || error == EBUSY || error == EAGAIN)
        return 0;
    return raise_errno(error);
}

/* Process all completions in the queue. */
static int drain_completions(Core *core)
{
    struct io_uring_cqe cqe;

    while (ring_pop_cqe(core->ring, &cqe))
        if (on_completion(core, &cqe) < 0 || core_check_owner_process(core) < 0)
            return -1;
    return 0;
}

static int uring_wait(Core *core, double timeout)
{
    Ring *ring = core->ring;
    int error = 0;

    arm_accepts(core);
    if (!core->epoll_poll_armed)
        core->epoll_poll_armed = arm_epoll_poll(core);
    if (ring_has_unsubmitted(ring) || ring_needs_enter(ring))
        error = ring_enter(ring, 0, 0);
    if (check_enter(error) < 0)
        return -1;
    if (!ring_has_completion(ring) && timeout > 0 && traffic_log_flush(core) < 0)
        return -1;
    if (!ring_has_completion(ring) && core->busy_poll > 0 && timeout > 0) {
        double deadline = clock_now() + fmin(core->busy_poll, timeout);

        do {
            if (ring_needs_enter(ring))
                error = ring_enter(ring, 0, 0);
            else
                cpu_relax();
        } while (!error && !ring_has_completion(ring) && clock_now() < deadline);
        if (check_enter(error) < 0)
            return -1;
    }
    if (!ring_has_completion(ring) && timeout > 0) {
        core->blocked = true;
        Py_BEGIN_ALLOW_THREADS
        error = ring_enter(ring, 1, timeout);
        Py_END_ALLOW_THREADS
        core->blocked = false;
        if (check_enter(error) < 0)
            return -1;
    }
    core->now = clock_now();
    return drain_completions(core);
}

static int uring_cancel_accepts(Core *core)
{
    Listener *listener;
    int status = 0;

    for (listener = core->listeners; listener != NULL; listener = listener->next)
        if (listener->armed && !listener->by_epoll)
            while (!submit_cancel(core->ring, user_data_encode(OP_ACCEPT, listener->generation, listener->slot))
                   && status == 0)
                status = drain_completions(core);
    for (listener = core->listeners; listener != NULL && status == 0; listener = listener->next) {
        while (listener->armed && !listener->by_epoll && status == 0) {
            status = check_enter(ring_enter(core->ring, 1, INFINITY));
            if (status == 0)
                status = drain_completions(core);
        }
    }
    return status;
}

/* Cancel all requests and wait for their completions: closing the ring's descriptor is not enough, because a
 * forked child may hold a copy of it. Afterwards the kernel uses none of our buffers and descriptors. */
static void cancel_all(Ring *ring)
{
    struct io_uring_sqe *sqe = NULL;
    struct io_uring_cqe cqe;

    while (sqe == NULL) {
        sqe = get_sqe(ring, IORING_OP_ASYNC_CANCEL, -1, user_data_encode(OP_CANCEL, 0, 0));
        while (sqe == NULL && ring_pop_cqe(ring, &cqe))
            complete_one(ring, &cqe);
    }
    sqe->cancel_flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
    while (ring->inflight) {
        int error = ring_enter(ring, 1, INFINITY);

        if (error && error != EINTR && error != EBUSY && error != EAGAIN)
            break;
        while (ring_pop_cqe(ring, &cqe)) {
            complete_one(ring, &cqe);
            if (cqe.user_data >> 56 == OP_ACCEPT && cqe.res >= 0)
                close(cqe.res);
        }
    }
}

static void uring_close(Core *core, bool is_owner)
{
    if (core->ring == NULL)
        return;
    if (is_owner)
        cancel_all(core->ring);
    ring_close(core->ring);
    PyMem_Free(core->ring);
    core->ring = NULL;
}

const Backend uring_backend = {
    .accepts = true,
    .flushes_after_event = false,
    .update = uring_update,
    .wait = uring_wait,
    .close_fd = uring_close_fd,
    .cancel_accepts = uring_cancel_accepts,
    .close = uring_close,
};

int uring_backend_open(Core *core)
{
    RingSizes sizes = core->ring_sizes;
    Ring *ring = PyMem_Calloc(1, sizeof *ring);
    int error;

    if (ring == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (sizes.buffer_size > core->read_size)
        sizes.buffer_size = (unsigned)core->read_size;
    error = ring_open(ring, &sizes);
    if (error) {
        PyMem_Free(ring);
        return raise_errno(error);
    }
    core->ring = ring;
    core->backend = &uring_backend;
    return 0;
}
