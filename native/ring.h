/* io_uring's system calls, as much of them as the core needs, with no library. See ring.c. */
#ifndef BOTHENDS_RING_H
#define BOTHENDS_RING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

typedef struct {
    unsigned submissions; /* entries in the submission queue */
    unsigned completions; /* and in the completion queue */
    unsigned buffers;     /* receive buffers: a power of two */
    unsigned buffer_size; /* bytes of each */
} RingSizes;

typedef struct {
    int fd;
    unsigned *sq_head, *sq_tail, *sq_flags, sq_mask, sq_entries, sq_next;
    struct io_uring_sqe *sqes;
    unsigned *cq_head, *cq_tail, cq_mask;
    struct io_uring_cqe *cqes;
    void *queues, *entries;
    size_t queues_size, entries_size;
    struct io_uring_buf_ring *free_buffers;
    size_t free_buffers_size;
    char *buffers;
    size_t buffers_size;
    uint16_t buffer_tail;
    RingSizes sizes;
    unsigned long under_way; /* requests whose last completion has not come */
} Ring;

/* Several pieces of output that one request sends: what it points to must stay until it is done. */
enum { VECTORS = 64 };
typedef struct {
    struct msghdr message;
    struct iovec vectors[VECTORS];
} Gather;

enum { BUFFER_GROUP = 0 };

int ring_open(Ring *ring, const RingSizes *sizes);
void ring_close(Ring *ring);
struct io_uring_sqe *ring_request(Ring *ring, uint8_t operation, int fd, uint64_t tag);
int ring_enter(Ring *ring, unsigned wanted, double patience);
bool ring_next(Ring *ring, struct io_uring_cqe *completion);
bool ring_has_completion(const Ring *ring);
bool ring_has_news(const Ring *ring);
char *ring_buffer(Ring *ring, unsigned number);
void ring_give_back(Ring *ring, unsigned number);
int ring_probe(void);

#endif
