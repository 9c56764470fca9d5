/* io_uring's system calls: setup, submission, completion. Independent of Python and of the core.
 *
 * What the kernel does (io_uring(7), io_uring_setup(2)), and what follows:
 *
 * 1. With IORING_SETUP_DEFER_TASKRUN, a request that becomes ready is completed only when the ring's one task
 *    (SINGLE_ISSUER) asks for completions. So arrivals are processed in batches, and nothing interrupts Python
 *    in between. It also means that completions must be asked for with IORING_ENTER_GETEVENTS, even if the
 *    call does not wait.
 * 2. IORING_SETUP_TASKRUN_FLAG sets a bit in shared memory when there are completions to ask for: busy polling
 *    reads one word and makes no system call until then. The bit may be stale, because it is set after the
 *    work is queued, when that may be done already. So it is a reason to enter the kernel, but none to skip
 *    waiting.
 * 3. A receive with a buffer group takes a buffer when its data is there, not before: 10,000 idle connections
 *    hold none. The program returns a buffer it has emptied at the tail of a shared ring.
 * 4. Buffers are used in turn, so each of them is touched. With a stride that is not a power of two their first
 *    lines, all that a small message occupies, do not compete for the same few cache sets. (Since Linux 6.12
 *    several receives can share a buffer. But then a message at the end of one is split there, for no reason
 *    visible to the sender or the service.)
 * 5. The completion queue loses no entry (IORING_FEAT_NODROP): the kernel stores those that do not fit and
 *    delivers them when there is room and completions are asked for.
 */
#include "ring.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    /* DEFER_TASKRUN is the newest feature used here (Linux 6.1), and io_uring_setup() rejects unknown flags:
     * if it succeeds, the older features are there too. */
    SETUP_FLAGS = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG
        | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL,
    REQUIRED_FEATURES = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG,
};

/* Bytes between two buffers: three cache lines, so that their starts fall into different cache sets (fact 4). */
enum { BUFFER_PADDING = 192 };

static int setup(unsigned entries, struct io_uring_params *params)
{
    return (int)syscall(__NR_io_uring_setup, entries, params);
}

/* Return 0 if a ring with our flags can be made here, otherwise the errno of the failure. */
int ring_probe(void)
{
    struct io_uring_params params = {.flags = SETUP_FLAGS, .cq_entries = 8};
    int fd = setup(4, &params);

    if (fd < 0)
        return errno;
    close(fd);
    return (params.features & REQUIRED_FEATURES) == REQUIRED_FEATURES ? 0 : EINVAL;
}

/* Map the queues and the submission entries. 0 or an errno. */
static int map_queues(Ring *ring, const struct io_uring_params *params)
{
    size_t sq = params->sq_off.array + params->sq_entries * sizeof(unsigned);
    size_t cq = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    unsigned *array;
    char *queue_memory;

    ring->queue_memory_size = sq > cq ? sq : cq;
    queue_memory = mmap(NULL, ring->queue_memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
                        IORING_OFF_SQ_RING);
    if (queue_memory == MAP_FAILED)
        return errno;
    ring->queue_memory = queue_memory;
    ring->sqe_memory_size = params->sq_entries * sizeof(struct io_uring_sqe);
    ring->sqe_memory = mmap(NULL, ring->sqe_memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                            ring->fd, IORING_OFF_SQES);
    if (ring->sqe_memory == MAP_FAILED) {
        ring->sqe_memory = NULL;
        return errno;
    }
    ring->sqes = ring->sqe_memory;
    ring->sq_head = (unsigned *)(queue_memory + params->sq_off.head);
    ring->sq_tail = (unsigned *)(queue_memory + params->sq_off.tail);
    ring->sq_flags = (unsigned *)(queue_memory + params->sq_off.flags);
    ring->sq_mask = *(unsigned *)(queue_memory + params->sq_off.ring_mask);
    ring->sq_entries = params->sq_entries;
    ring->cq_head = (unsigned *)(queue_memory + params->cq_off.head);
    ring->cq_tail = (unsigned *)(queue_memory + params->cq_off.tail);
    ring->cq_mask = *(unsigned *)(queue_memory + params->cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(queue_memory + params->cq_off.cqes);
    array = (unsigned *)(queue_memory + params->sq_off.array);
    for (unsigned i = 0; i < params->sq_entries; i++)
        array[i] = i; /* slot i of the queue is always entry i */
    return 0;
}

/* Register the buffer group. 0 or an errno. */
static int provide_buffers(Ring *ring)
{
    const RingSizes *sizes = &ring->sizes;
    struct io_uring_buf_reg sqe = {.ring_entries = sizes->buffers, .bgid = BUFFER_GROUP};
    void *memory;

    /* MAP_SHARED: after a fork, copy-on-write would separate our page from the kernel's. */
    ring->buffer_ring_size = sizes->buffers * sizeof(struct io_uring_buf);
    memory = mmap(NULL, ring->buffer_ring_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return errno;
    ring->buffer_ring = memory;
    ring->buffers_size = (size_t)sizes->buffers * (sizes->buffer_size + BUFFER_PADDING);
    memory =
        mmap(NULL, ring->buffers_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return errno;
    ring->buffers = memory;
    sqe.ring_addr = (uintptr_t)ring->buffer_ring;
    if (syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_PBUF_RING, &sqe, 1) < 0)
        return errno;
    for (unsigned i = 0; i < sizes->buffers; i++)
        ring_recycle_buffer(ring, i);
    return 0;
}

/* Make a ring. 0 or an errno. Only the calling thread may use it (SINGLE_ISSUER). */
int ring_open(Ring *ring, const RingSizes *sizes)
{
    struct io_uring_params params = {.flags = SETUP_FLAGS, .cq_entries = sizes->completions};
    int error;

    memset(ring, 0, sizeof *ring);
    ring->sizes = *sizes;
    ring->fd = setup(sizes->submissions, &params);
    if (ring->fd < 0)
        return errno;
    error = (params.features & REQUIRED_FEATURES) == REQUIRED_FEATURES ? 0 : EINVAL;
    if (!error)
        error = map_queues(ring, &params);
    if (!error)
        error = provide_buffers(ring);
    if (error)
        ring_close(ring);
    return error;
}

void ring_close(Ring *ring)
{
    /* The descriptor first: closing it ends the requests that may write to the buffers. */
    if (ring->fd >= 0)
        close(ring->fd);
    ring->fd = -1;
    if (ring->queue_memory)
        munmap(ring->queue_memory, ring->queue_memory_size);
    if (ring->sqe_memory)
        munmap(ring->sqe_memory, ring->sqe_memory_size);
    if (ring->buffers)
        munmap(ring->buffers, ring->buffers_size);
    if (ring->buffer_ring)
        munmap(ring->buffer_ring, ring->buffer_ring_size);
    ring->queue_memory = ring->sqe_memory = NULL;
    ring->buffers = NULL;
    ring->buffer_ring = NULL;
}

/* Return a cleared submission entry, which the next ring_enter() submits; NULL if the queue is full. */
struct io_uring_sqe *ring_get_sqe(Ring *ring, uint8_t opcode, int fd, uint64_t user_data)
{
    struct io_uring_sqe *sqe;

    if (ring->sq_next - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) >= ring->sq_entries)
        return NULL;
    sqe = &ring->sqes[ring->sq_next++ & ring->sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcode;
    sqe->fd = fd;
    sqe->user_data = user_data;
    return sqe;
}

/* Submit the queued entries and wait for `min_complete` completions, `timeout` seconds at most (INFINITY: no
 * limit). 0 or an errno: ETIME after the timeout, EINTR for a signal. */
int ring_enter(Ring *ring, unsigned min_complete, double timeout)
{
    struct __kernel_timespec timespec;
    struct io_uring_getevents_arg argument = {.sigmask_sz = _NSIG / 8};
    unsigned to_submit;

    __atomic_store_n(ring->sq_tail, ring->sq_next, __ATOMIC_RELEASE);
    to_submit = ring->sq_next - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
    if (min_complete && isfinite(timeout)) {
        timespec.tv_sec = (long long)timeout;
        timespec.tv_nsec = (long long)((timeout - (double)timespec.tv_sec) * 1e9);
        argument.ts = (uintptr_t)&timespec;
    }
    if (syscall(__NR_io_uring_enter, ring->fd, to_submit, min_complete,
                IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof argument)
        < 0)
        return errno;
    return 0;
}

/* Remove one completion from the queue. Returns false if it is empty. */
bool ring_pop_cqe(Ring *ring, struct io_uring_cqe *cqe)
{
    unsigned head = *ring->cq_head;

    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
        return false;
    *cqe = ring->cqes[head & ring->cq_mask];
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    return true;
}

/* Whether entries wait for submission. */
bool ring_has_unsubmitted(const Ring *ring)
{
    return ring->sq_next != __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
}

/* Whether the completion queue has an entry. */
bool ring_has_completion(const Ring *ring)
{
    return *ring->cq_head != __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE);
}

/* Whether completions are in the queue, or to be asked for (fact 2). Makes no system call. */
bool ring_needs_enter(const Ring *ring)
{
    return ring_has_completion(ring)
           || __atomic_load_n(ring->sq_flags, __ATOMIC_RELAXED) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

/* Return the buffer of a receive, by the index in its completion's flags. */
char *ring_buffer(Ring *ring, unsigned index)
{
    return ring->buffers + (size_t)index * (ring->sizes.buffer_size + BUFFER_PADDING);
}

/* Return a buffer to the kernel. */
void ring_recycle_buffer(Ring *ring, unsigned index)
{
    /* Not by the member `bufs`: compilers disagree about a flexible array in a union. */
    struct io_uring_buf *entry =
        (struct io_uring_buf *)ring->buffer_ring + (ring->buffer_ring_tail & (ring->sizes.buffers - 1));

    entry->addr = (uintptr_t)ring_buffer(ring, index);
    entry->len = ring->sizes.buffer_size;
    entry->bid = (uint16_t)index;
    ring->buffer_ring_tail++;
    __atomic_store_n(&ring->buffer_ring->tail, ring->buffer_ring_tail, __ATOMIC_RELEASE);
}
