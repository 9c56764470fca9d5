/* Many recv() or send() calls with one system call: io_uring used only for batching.
 *
 * All operations are non-blocking (MSG_DONTWAIT), so each completes, or fails with EAGAIN, before
 * io_uring_enter(2) returns: nothing stays in flight, and no buffer is used after the call. If io_uring is
 * missing or forbidden (kernel.io_uring_disabled, seccomp), batch_open() returns NULL, and the loop makes one
 * system call per operation.
 */
#include "generator.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct Batch {
    int ring;
    uint32_t *sq_tail, *cq_head, *cq_tail;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    void *rings;
    size_t rings_size;
    uint32_t queued;
};

Batch *batch_open(void)
{
    struct io_uring_params parameters = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    Batch *batch = PyMem_RawCalloc(1, sizeof *batch);
    uint32_t *array;
    char *rings;

    if (batch == NULL)
        return NULL;
    batch->ring = (int)syscall(SYS_io_uring_setup, BATCH_SIZE, &parameters);
    if (batch->ring < 0 || !(parameters.features & IORING_FEAT_SINGLE_MMAP)) {
        if (batch->ring >= 0)
            close(batch->ring);
        PyMem_RawFree(batch);
        return NULL;
    }
    batch->rings_size = parameters.cq_off.cqes + parameters.cq_entries * sizeof *batch->cqes;
    if (batch->rings_size < parameters.sq_off.array + parameters.sq_entries * sizeof *array)
        batch->rings_size = parameters.sq_off.array + parameters.sq_entries * sizeof *array;
    batch->rings = mmap(NULL, batch->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, batch->ring,
                        IORING_OFF_SQ_RING);
    batch->sqes = mmap(NULL, BATCH_SIZE * sizeof *batch->sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       batch->ring, IORING_OFF_SQES);
    if (batch->rings == MAP_FAILED || batch->sqes == MAP_FAILED) {
        batch_close(batch);
        return NULL;
    }
    rings = batch->rings;
    batch->sq_tail = (uint32_t *)(rings + parameters.sq_off.tail);
    batch->cq_head = (uint32_t *)(rings + parameters.cq_off.head);
    batch->cq_tail = (uint32_t *)(rings + parameters.cq_off.tail);
    batch->cqes = (struct io_uring_cqe *)(rings + parameters.cq_off.cqes);
    array = (uint32_t *)(rings + parameters.sq_off.array);
    for (uint32_t i = 0; i < BATCH_SIZE; i++)
        array[i] = i;
    return batch;
}

void batch_close(Batch *batch)
{
    if (batch == NULL)
        return;
    if (batch->rings != NULL && batch->rings != MAP_FAILED)
        munmap(batch->rings, batch->rings_size);
    if (batch->sqes != NULL && batch->sqes != MAP_FAILED)
        munmap(batch->sqes, BATCH_SIZE * sizeof *batch->sqes);
    close(batch->ring);
    PyMem_RawFree(batch);
}

/* Queue an operation, BATCH_SIZE at most before batch_run(). Results are in the order of the operations. */
static void batch_queue(Batch *batch, int operation, int fd, const void *data, size_t size, int flags)
{
    struct io_uring_sqe *sqe = batch->sqes + ((*batch->sq_tail + batch->queued) & (BATCH_SIZE - 1));

    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = (uint8_t)operation;
    sqe->fd = fd;
    sqe->addr = (uintptr_t)data;
    sqe->len = (uint32_t)size;
    sqe->msg_flags = (uint32_t)flags;
    sqe->user_data = batch->queued++;
}

void batch_recv(Batch *batch, int fd, void *data, size_t size)
{
    batch_queue(batch, IORING_OP_RECV, fd, data, size, MSG_DONTWAIT);
}

void batch_send(Batch *batch, int fd, const void *data, size_t size)
{
    batch_queue(batch, IORING_OP_SEND, fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Run the queued operations. Each result is the return value of the call, or -errno. Returns -1 with errno set if
 * io_uring_enter() fails. */
int batch_run(Batch *batch, int32_t *results)
{
    uint32_t remaining = batch->queued, unsubmitted = remaining;

    __atomic_store_n(batch->sq_tail, *batch->sq_tail + remaining, __ATOMIC_RELEASE);
    batch->queued = 0;
    while (remaining) {
        int submitted = (int)syscall(SYS_io_uring_enter, batch->ring, unsubmitted, remaining,
                                     IORING_ENTER_GETEVENTS, NULL, (size_t)0);
        uint32_t head = *batch->cq_head, tail;

        if (submitted < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY)
            return -1;
        if (submitted > 0)
            unsubmitted -= (uint32_t)submitted;
        tail = __atomic_load_n(batch->cq_tail, __ATOMIC_ACQUIRE);
        for (; head != tail; head++, remaining--) {
            /* The completion queue is twice as long as the submission queue (io_uring_setup(2)). */
            const struct io_uring_cqe *cqe = batch->cqes + (head & (2 * BATCH_SIZE - 1));

            results[cqe->user_data] = cqe->res;
        }
        __atomic_store_n(batch->cq_head, head, __ATOMIC_RELEASE);
    }
    return 0;
}
