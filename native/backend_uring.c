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
enum { LARGEST_SEND = 1 << 30 };

/* A request, making room by handing in those that wait; NULL where the kernel takes none now. */
static struct io_uring_sqe *request(Ring *ring, uint8_t operation, int fd, uint64_t tag)
{
    struct io_uring_sqe *entry = ring_request(ring, operation, fd, tag);

    if (entry == NULL) {
        (void)ring_enter(ring, 0, 0);
        entry = ring_request(ring, operation, fd, tag);
    }
    if (entry != NULL)
        ring->under_way++;
    return entry;
}

static bool cancel(Ring *ring, uint64_t tag)
{
    struct io_uring_sqe *entry = request(ring, IORING_OP_ASYNC_CANCEL, -1, tag_of(CANCELLING, 0, 0));

    if (entry != NULL)
        entry->addr = tag;
    return entry != NULL;
}

static bool receive(Connection *self, uint64_t tag)
{
    struct io_uring_sqe *entry = request(self->core->ring, IORING_OP_RECV, self->fd, tag);

    if (entry == NULL)
        return false;
    entry->ioprio = IORING_RECV_MULTISHOT;
    entry->flags = IOSQE_BUFFER_SELECT;
    entry->buf_group = BUFFER_GROUP;
    self->flags |= RECEIVES;
    return true;
}

/* Send what is queued: one piece as it is, several by way of a list that stays until they are sent. */
static bool send_queued(Connection *self, uint64_t tag)
{
    Queue *queue = &self->queue;
    struct io_uring_sqe *entry;

    if (queue->rest != NULL && self->gather == NULL)
        self->gather = PyMem_Malloc(sizeof *self->gather); /* without one: piece by piece */
    entry = request(self->core->ring, IORING_OP_SEND, self->fd, tag);
    if (entry == NULL)
        return false;
    entry->msg_flags = MSG_NOSIGNAL;
    if (queue->rest != NULL && self->gather != NULL) {
        Gather *gather = self->gather;

        memset(&gather->message, 0, sizeof gather->message);
        gather->message.msg_iov = gather->vectors;
        gather->message.msg_iovlen = queue_vectors(queue, gather->vectors, VECTORS);
        entry->opcode = IORING_OP_SENDMSG;
        entry->addr = (uintptr_t)&gather->message;
        entry->len = 1;
    } else {
        size_t left = (size_t)PyBytes_GET_SIZE(queue->first) - queue->taken;

        entry->addr = (uintptr_t)(PyBytes_AS_STRING(queue->first) + queue->taken);
        entry->len = (unsigned)(left < LARGEST_SEND ? left : LARGEST_SEND);
    }
    self->flags |= SENDS;
    return true;
}

void gather_free(Connection *self)
{
    PyMem_Free(self->gather);
    self->gather = NULL;
}

/* Close a descriptor with the next call, of which nothing is heard again; false if that can't be asked for. */
bool uring_close(Core *core, int fd)
{
    struct io_uring_sqe *entry =
        ring_request(core->ring, IORING_OP_CLOSE, fd, tag_of(CLOSING_DOWN, 0, 0));

    if (entry != NULL)
        entry->flags = IOSQE_CQE_SKIP_SUCCESS;
    return entry != NULL;
}

/* Ask the kernel for what the connection's flags and queue want. `again`: it takes no requests now. */
int uring_update(Connection *self, bool *again)
{
    Ring *ring = self->core->ring;
    uint64_t receiving = tag_of(RECEIVING, self->generation, self->slot);
    uint64_t sending = tag_of(SENDING, self->generation, self->slot);
    bool reads = connection_reads(self), asked = true;

    if ((self->flags & (RECEIVES | RECALLED)) == RECEIVES && !reads && !(self->flags & ENDED)) {
        asked = cancel(ring, receiving);
        self->flags |= asked ? RECALLED : 0;
    } else if (!(self->flags & RECEIVES) && reads)
        asked = receive(self, receiving);
    if (self->flags & DYING) {
        if ((self->flags & (SENDS | RECALLED_SEND)) == SENDS && asked) {
            asked = cancel(ring, sending);
            self->flags |= asked ? RECALLED_SEND : 0;
        }
        if (!(self->flags & (RECEIVES | SENDS)))
            return connection_bury(self);
    } else if (self->queue.unsent && !(self->flags & SENDS) && asked)
        asked = send_queued(self, sending);
    if (!asked) {
        *again = true;
        connection_soil(self);
    }
    return 0;
}

/* Have every listener accept that doesn't, unless accepting is strained. */
void uring_arm_listeners(Core *core)
{
    for (Listening *each = core->listening; each != NULL; each = each->next) {
        struct io_uring_sqe *entry;

        if (each->polled || each->armed || isfinite(core->retry_at))
            continue;
        entry = request(core->ring, IORING_OP_ACCEPT, each->fd,
                        tag_of(ACCEPTING, each->generation, each->slot));
        if (entry == NULL)
            return;
        entry->ioprio = IORING_ACCEPT_MULTISHOT;
        entry->accept_flags = SOCK_CLOEXEC;
        each->armed = true;
    }
}

static int on_received(Core *core, Connection *connection, const struct io_uring_cqe *done)
{
    unsigned number = done->flags >> IORING_CQE_BUFFER_SHIFT;
    int outcome = 0;

    if (!(done->flags & IORING_CQE_F_MORE)) {
        connection->flags &= ~(uint32_t)(RECEIVES | RECALLED);
        connection_soil(connection);
    }
    if (done->res > 0)
        outcome = connection_heard(connection, ring_buffer(core->ring, number), (size_t)done->res);
    else if (done->res == 0)
        outcome = connection_ended(connection);
    else if (done->res == -ENOBUFS)
        core->rearmed++;
    else if (done->res != -ECANCELED && done->res != -EINTR && done->res != -EAGAIN)
        connection_lost(connection, -done->res);
    return outcome;
}

static int on_sent(Connection *connection, int result)
{
    connection->flags &= ~(uint32_t)(SENDS | RECALLED_SEND);
    connection_soil(connection);
    if (connection->flags & DYING)
        return 0;
    if (result >= 0)
        return connection_sent(connection, (size_t)result);
    if (result != -ECANCELED && result != -EINTR && result != -EAGAIN)
        connection_lost(connection, -result);
    return 0;
}

static int on_accepted(Core *core, Listening *listening, const struct io_uring_cqe *done)
{
    if (!(done->flags & IORING_CQE_F_MORE))
        listening->armed = false;
    if (done->res >= 0)
        return accepted(core, listening, done->res);
    return done->res == -ECANCELED ? 0 : accept_failed(core, listening, -done->res);
}

/* One request fewer is under way, if this completion is its last. */
static void count_out(Ring *ring, const struct io_uring_cqe *done)
{
    if (!(done->flags & IORING_CQE_F_MORE) && done->user_data >> 56 != CLOSING_DOWN)
        ring->under_way--;
}

static int on_completion(Core *core, const struct io_uring_cqe *done)
{
    enum kind kind = FREE;
    void *holder = slot_holder(core, done->user_data, &kind);
    int outcome = 0;

    count_out(core->ring, done);
    switch ((enum operation)(done->user_data >> 56)) {
    case RECEIVING:
        if (kind == CONNECTION)
            outcome = on_received(core, holder, done);
        if (done->flags & IORING_CQE_F_BUFFER)
            ring_give_back(core->ring, done->flags >> IORING_CQE_BUFFER_SHIFT);
        return outcome;
    case SENDING:
        return kind == CONNECTION ? on_sent(holder, done->res) : 0;
    case ACCEPTING:
        return kind == LISTENING ? on_accepted(core, holder, done) : 0;
    case POLLING:
        core->poll_armed = false;
        return polling_turn(core);
    case CANCELLING:
    case CLOSING_DOWN:
        break;
    }
    return 0;
}

static bool arm_poll(Core *core)
{
    struct io_uring_sqe *entry = request(core->ring, IORING_OP_POLL_ADD, core->epoll, tag_of(POLLING, 0, 0));

    if (entry != NULL)
        entry->poll32_events = POLLIN;
    return entry != NULL;
}

/* Tell the processor that we are waiting in a loop. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static int check(int error)
{
    /* EBUSY and EAGAIN: completions must be taken first, or memory is short; both pass. */
    if (!error || error == ETIME || error == EINTR || error == EBUSY || error == EAGAIN)
        return 0;
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Deal with all completions that are there. */
static int take_all(Core *core)
{
    struct io_uring_cqe done;

    while (ring_next(core->ring, &done))
        if (on_completion(core, &done) < 0 || !core_is_ours(core))
            return -1;
    return 0;
}

/* Wait for completions, `patience` seconds at the most, and deal with them. */
int uring_wait(Core *core, double patience)
{
    Ring *ring = core->ring;
    int error = 0;

    uring_arm_listeners(core);
    if (!core->poll_armed)
        core->poll_armed = arm_poll(core);
    if (ring->sq_next != __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) || ring_has_news(ring))
        error = ring_enter(ring, 0, 0);
    if (check(error) < 0)
        return -1;
    if (!ring_has_completion(ring) && core->busy > 0 && patience > 0) {
        double until = clock_now() + fmin(core->busy, patience);

        do {
            if (ring_has_news(ring))
                error = ring_enter(ring, 0, 0);
            else
                relax();
        } while (!error && !ring_has_completion(ring) && clock_now() < until);
        if (check(error) < 0)
            return -1;
    }
    if (!ring_has_completion(ring) && patience > 0) {
        core->awake = false;
        Py_BEGIN_ALLOW_THREADS
        error = ring_enter(ring, 1, patience);
        Py_END_ALLOW_THREADS
        core->awake = true;
        if (check(error) < 0)
            return -1;
    }
    core->now = clock_now();
    return take_all(core);
}

/* Have no listener accept any more; who was accepted meanwhile is welcome. */
int uring_deafen(Core *core)
{
    Listening *each;
    int outcome = 0;

    for (each = core->listening; each != NULL; each = each->next)
        if (each->armed && !each->polled)
            while (!cancel(core->ring, tag_of(ACCEPTING, each->generation, each->slot)) && outcome == 0)
                outcome = take_all(core);
    for (each = core->listening; each != NULL && outcome == 0; each = each->next) {
        while (each->armed && !each->polled && outcome == 0) {
            int error = ring_enter(core->ring, 1, INFINITY);

            outcome = check(error);
            if (outcome == 0)
                outcome = take_all(core);
        }
    }
    return outcome;
}

/* Before the end: cancel everything, and wait until the kernel has let go of our memory and descriptors,
 * which a child after fork may hold open too. */
void uring_quiesce(Core *core)
{
    Ring *ring = core->ring;
    struct io_uring_sqe *entry = NULL;
    struct io_uring_cqe done;

    while (entry == NULL) {
        entry = request(ring, IORING_OP_ASYNC_CANCEL, -1, tag_of(CANCELLING, 0, 0));
        while (entry == NULL && ring_next(ring, &done))
            count_out(ring, &done);
    }
    entry->cancel_flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
    while (ring->under_way) {
        int error = ring_enter(ring, 1, INFINITY);

        if (error && error != EINTR && error != EBUSY && error != EAGAIN)
            break;
        while (ring_next(ring, &done)) {
            count_out(ring, &done);
            if (done.user_data >> 56 == ACCEPTING && done.res >= 0)
                close(done.res);
        }
    }
}
