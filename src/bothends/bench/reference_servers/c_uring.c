/* An io_uring server in C, the reference for measurements: multishot accept and receive into a ring of provided
 * buffers, sends submitted by the call that waits, one issuer with deferred task work. TCP only. It needs the
 * kernel's headers and no library.
 *
 * cc -O2 -o c_uring c_uring.c; ./c_uring tcp
 *
 * See io_uring(7), io_uring_setup(2), io_uring_enter(2). Needs Linux 6.1 or newer.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENTRIES = 4096, BUFFERS = 4096, SIZE = 4096 };
enum { ACCEPT, RECEIVE, SEND };

static int ring, listener;
static unsigned *sq_head, *sq_tail, *cq_head, *cq_tail;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static struct io_uring_buf_ring *provided;
static char *buffers;
static unsigned pending;     /* entries not yet submitted */
static uint16_t buffer_tail; /* tail of the ring of buffers */

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t user_data(unsigned operation, unsigned buffer, int sock)
{
    return (uint64_t)operation << 56 | (uint64_t)buffer << 32 | (unsigned)sock;
}

static void enter(unsigned wait)
{
    int done = (int)syscall(SYS_io_uring_enter, ring, pending, wait, IORING_ENTER_GETEVENTS, NULL, (size_t)0);

    if (done < 0 && errno != EINTR && errno != EBUSY && errno != EAGAIN)
        fail("io_uring_enter");
    if (done > 0)
        pending -= (unsigned)done;
}

static struct io_uring_sqe *get_sqe(unsigned operation, int sock, uint64_t data)
{
    struct io_uring_sqe *sqe;

    while (*sq_tail - __atomic_load_n(sq_head, __ATOMIC_ACQUIRE) >= ENTRIES)
        enter(0);
    sqe = sqes + (*sq_tail & (ENTRIES - 1));
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = (uint8_t)operation;
    sqe->fd = sock;
    sqe->user_data = data;
    __atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_RELEASE);
    pending++;
    return sqe;
}

static void recycle_buffer(unsigned buffer)
{
    struct io_uring_buf *entry = provided->bufs + (buffer_tail & (BUFFERS - 1));

    entry->addr = (uintptr_t)(buffers + (size_t)buffer * SIZE);
    entry->len = SIZE;
    entry->bid = (uint16_t)buffer;
    __atomic_store_n(&provided->tail, ++buffer_tail, __ATOMIC_RELEASE);
}

static void arm_accept(void)
{
    get_sqe(IORING_OP_ACCEPT, listener, user_data(ACCEPT, 0, listener))->ioprio = IORING_ACCEPT_MULTISHOT;
}

static void arm_receive(int sock)
{
    struct io_uring_sqe *sqe = get_sqe(IORING_OP_RECV, sock, user_data(RECEIVE, 0, sock));

    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
}

/* Send the reply from the receive buffer, which is recycled once the send completes. With MSG_WAITALL the kernel
 * sends the rest of a partial send itself. A later reply on the connection could overtake that rest, so this server
 * is only for replies that fit into the socket's send buffer, as the measured ones do. */
static void send_reply(int sock, unsigned buffer, int size)
{
    struct io_uring_sqe *sqe;
    char *data = buffers + (size_t)buffer * SIZE;

    for (int i = 0; i < size; i++)
        if (data[i] >= 'a' && data[i] <= 'z')
            data[i] -= 32;
    sqe = get_sqe(IORING_OP_SEND, sock, user_data(SEND, buffer, sock));
    sqe->addr = (uintptr_t)data;
    sqe->len = (unsigned)size;
    sqe->msg_flags = MSG_WAITALL | MSG_NOSIGNAL;
}

static void on_completion(const struct io_uring_cqe *cqe)
{
    int sock = (int)(cqe->user_data & 0xffffffff), on = 1;
    int more = cqe->flags & IORING_CQE_F_MORE;

    switch (cqe->user_data >> 56) {
    case ACCEPT:
        if (cqe->res >= 0) {
            setsockopt(cqe->res, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            arm_receive(cqe->res);
        }
        if (!more)
            arm_accept();
        break;
    case RECEIVE:
        if (cqe->res > 0) {
            send_reply(sock, cqe->flags >> IORING_CQE_BUFFER_SHIFT, cqe->res);
            if (!more)
                arm_receive(sock);
        } else if (cqe->res == -ENOBUFS) {
            arm_receive(sock); /* all buffers are in use: arm it again */
        } else {
            close(sock);
        }
        break;
    case SEND:
        recycle_buffer((unsigned)(cqe->user_data >> 32) & 0xffffff);
        break;
    }
}

static void open_ring(void)
{
    struct io_uring_params parameters = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = 8 * ENTRIES,
    };
    struct io_uring_buf_reg registered = {.ring_entries = BUFFERS};
    unsigned *array;
    char *rings;

    ring = (int)syscall(SYS_io_uring_setup, ENTRIES, &parameters);
    if (ring < 0)
        fail("io_uring_setup");
    rings = mmap(NULL,
                 parameters.cq_off.cqes + parameters.cq_entries * sizeof *cqes + parameters.sq_off.array
                     + ENTRIES * sizeof *array,
                 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    sqes = mmap(NULL, ENTRIES * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                IORING_OFF_SQES);
    buffers = mmap(NULL, (size_t)BUFFERS * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    provided = mmap(NULL, BUFFERS * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rings == MAP_FAILED || sqes == MAP_FAILED || buffers == MAP_FAILED || provided == MAP_FAILED)
        fail("mmap");
    sq_head = (unsigned *)(rings + parameters.sq_off.head);
    sq_tail = (unsigned *)(rings + parameters.sq_off.tail);
    cq_head = (unsigned *)(rings + parameters.cq_off.head);
    cq_tail = (unsigned *)(rings + parameters.cq_off.tail);
    cqes = (struct io_uring_cqe *)(rings + parameters.cq_off.cqes);
    array = (unsigned *)(rings + parameters.sq_off.array);
    for (unsigned i = 0; i < ENTRIES; i++)
        array[i] = i;
    registered.ring_addr = (uintptr_t)provided;
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_PBUF_RING, &registered, 1) < 0)
        fail("io_uring_register");
    for (unsigned i = 0; i < BUFFERS; i++)
        recycle_buffer(i);
}

static void open_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;

    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)
        || getsockname(listener, (struct sockaddr *)&address, &size))
        fail("c_uring");
    printf("tcp://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(void)
{
    open_ring();
    open_listener();
    arm_accept();
    for (;;) {
        unsigned head, tail;

        enter(1);
        head = *cq_head;
        tail = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
        for (; head != tail; head++)
            on_completion(cqes + (head & (8 * ENTRIES - 1)));
        __atomic_store_n(cq_head, head, __ATOMIC_RELEASE);
    }
}
