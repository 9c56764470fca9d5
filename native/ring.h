/* The part of io_uring's interface that the core needs, without liburing. See ring.c. */
#ifndef BOTHENDS_RING_H
#define BOTHENDS_RING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

typedef struct {
    unsigned submissions; /* entries of the submission queue */
    unsigned completions; /* entries of the completion queue */
    unsigned buffers;     /* number of receive buffers, a power of two */
    unsigned buffer_size; /* bytes of each buffer */
} RingSizes;

typedef struct {
    int fd;
    unsigned *sq_head, *sq_tail, *sq_flags, sq_mask, sq_entries, sq_next;
    struct io_uring_sqe *sqes;
    unsigned *cq_head, *cq_tail, cq_mask;
    struct io_uring_cqe *cqes;
    void *queue_memory, *sqe_memory;
    size_t queue_memory_size, sqe_memory_size;
    struct io_uring_buf_ring *buffer_ring;
    size_t buffer_ring_size;
    char *buffers;
    size_t buffers_size;
    uint16_t buffer_ring_tail;
    RingSizes sizes;
    unsigned long inflight; /* requests without their last completion */
} Ring;

enum { BUFFER_GROUP = 0 };

int ring_open(Ring *ring, const RingSizes *sizes);
void ring_close(Ring *ring);
struct io_uring_sqe *ring_get_sqe(Ring *ring, uint8_t opcode, int fd, uint64_t user_data);
int ring_enter(Ring *ring, unsigned min_complete, double timeout);
bool ring_pop_cqe(Ring *ring, struct io_uring_cqe *cqe);
bool ring_has_unsubmitted(const Ring *ring);
bool ring_has_completion(const Ring *ring);
bool ring_needs_enter(const Ring *ring);
char *ring_buffer(Ring *ring, unsigned index);
void ring_recycle_buffer(Ring *ring, unsigned index);
int ring_probe(void);

#endif
