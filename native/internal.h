/* What the parts of the C core share: its structures, and who offers what to whom.
 *
 *   module.c           the module: what Python sees
 *   loop.c             Core: the loop, and what it waits for besides connections
 *   connection.c       Connection: one conversation's state, whatever moves its bytes
 *   write_queue.c      what a connection has yet to send
 *   listener.c         listeners
 *   peer.c             Address and Peer objects
 *   watch.c            waiting for a descriptor that Python deals with
 *   backend_epoll.c    moving bytes by epoll, and waiting for any other descriptor
 *   backend_uring.c    moving bytes by io_uring, over ring.c, which is io_uring's system calls
 *   datagram_server.c  answering datagrams, many with one system call
 *
 * 1. One thread runs a core. The GIL protects everything here; it is released only while the kernel is
 *    waited for. Another thread may queue bytes for a connection (`Connection.write`), no more.
 * 2. Whatever the kernel may still report on has a slot. What it is given to report with (user_data, or
 *    epoll's data) names the slot and its generation, so that a late report on something that is gone is
 *    known for what it is, though the slot and the descriptor may be another's by then.
 * 3. No connection is closed from within a call that its service made: it is marked, put on the list of the
 *    dirty, and looked at when the stack is flat again (core_flush).
 * 4. A function that calls Python returns 0, or -1 with the exception set: then the loop ends, and what it
 *    has not dealt with yet is still there for the next one.
 */
#ifndef BOTHENDS_INTERNAL_H
#define BOTHENDS_INTERNAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "ring.h"

typedef struct Core Core;
typedef struct Connection Connection;
typedef struct Listener Listener;
typedef struct Watch Watch;
typedef struct DatagramServer DatagramServer;

/* What a slot holds. */
enum slot_kind { SLOT_FREE, SLOT_CONNECTION, SLOT_LISTENER, SLOT_WATCH, SLOT_DATAGRAM_SERVER, SLOT_WAKEUP };

/* Which request of a slot a completion belongs to. */
enum operation { OP_RECV, OP_SEND, OP_CANCEL, OP_ACCEPT, OP_POLL, OP_CLOSE };

typedef struct {
    uint32_t generation;
    uint32_t next_free;
    enum slot_kind slot_kind;
    void *object;
} Slot;

enum { GENERATIONS = 1 << 24 };

/* The name of a slot's request: 8 bits of operation, 24 of generation, 32 of slot. */
static inline uint64_t user_data_encode(enum operation operation, uint32_t generation, uint32_t slot)
{
    return (uint64_t)operation << 56 | (uint64_t)generation << 32 | slot;
}

/* One answer, or what is left of it, that waits its turn. */
typedef struct WriteChunk {
    struct WriteChunk *next;
    PyObject *bytes;
} WriteChunk;

/* A connection's output. The first piece lies here: most connections never have two. */
typedef struct {
    PyObject *head;
    size_t offset;  /* of the first: how much the system has */
    WriteChunk *tail, *tail_last;
    size_t unsent; /* bytes in all */
} WriteQueue;

/* Who a connection is with, as the system told it: a quarter of the Peer that is made of it when one is wanted. */
typedef struct {
    PyObject *local; /* our Address; NULL where nothing is kept */
    uint64_t connection_id;
    socklen_t size;
    struct sockaddr_in6 address; /* or a sockaddr_in */
} PeerAddress;

/* The flags of a connection. */
enum {
    PROTOCOL = 1 << 0,    /* its handler is a protocol in Python, not a conversation */
    EOF_RECEIVED = 1 << 1,      /* the peer has finished sending */
    DONE = 1 << 2,       /* nothing more will be said than what is queued */
    WR_SHUTDOWN = 1 << 3,       /* our side is shut down; the peer's end is waited for */
    WR_SHUTDOWN_PENDING = 1 << 4,   /* managed: shut down our side when all is sent */
    CLOSE_WHEN_FLUSHED = 1 << 5,    /* managed: close when all is sent */
    CLOSE_PENDING = 1 << 6,      /* to be closed as soon as the kernel has let go of it */
    RESET_ON_CLOSE = 1 << 7,  /* what is unsent is dropped, by RST */
    READ_PAUSED = 1 << 8,     /* not to be read now */
    WRITE_PAUSED = 1 << 9,       /* managed: told that too much is unsent */
    PENDING = 1 << 10,     /* on the list of the dirty */
    CLOSED = 1 << 11,      /* closed */
    RECV_ARMED = 1 << 12,  /* io_uring: a receive is armed */
    RECV_CANCEL_SENT = 1 << 13,  /* io_uring: and has been cancelled */
    SEND_INFLIGHT = 1 << 14,     /* io_uring: a send is under way */
    SEND_CANCEL_SENT = 1 << 15,
    EPOLL_WANTS_IN = 1 << 16,  /* epoll: what it is registered for */
    EPOLL_WANTS_OUT = 1 << 17,
    EPOLL_REGISTERED = 1 << 19, /* in the epoll set */
    IN_PYTHON = 1 << 18,     /* Python has counted it in: `gone` is told of its end */
};

struct Connection {
    PyObject_HEAD
    Core *core;         /* NULL once it is dead */
    PyObject *handler;  /* a conversation, or a protocol; NULL where opening it failed */
    PyObject *peer;     /* whom it is with, where that is to be told and `origin` can't; or NULL */
    PeerAddress peer_address;      /* the same */
    Connection *next_pending;
    SendVector *send_vector;     /* io_uring: several pieces that are being sent at once, or NULL */
    WriteQueue queue;
    double started_at, last_received, last_activity; /* seconds on the core's clock */
    size_t high_water;        /* above so much unsent, stop reading (or say so) */
    uint32_t slot, generation;
    uint32_t flags;
    int fd;
    int error;          /* why it was lost, or 0 */
};

struct Listener {
    Listener *next;
    PyObject *local;    /* our Address, or NULL where each connection has its own */
    uint32_t slot, generation;
    int fd;
    bool uses_epoll;        /* waited for by epoll, on a ring too */
    bool armed;
};

struct Watch {
    PyObject *callback;
    uint32_t slot, generation;
    int fd;
};

struct Core {
    PyObject_HEAD
    Ring *ring;         /* NULL: on epoll */
    int epoll_fd;
    int wakeup_fd;           /* an eventfd, by which another thread says that there is something to do */
    unsigned fork_generation;     /* `fork_count` when it was made: a child has a copy of all this that it must not use */
    bool running, stop_requested, epoll_poll_armed, awake, closing, accept_paused;

    Slot *slots;
    uint32_t slot_count, first_free;
    uint32_t *watch_by_fd; /* slot + 1 */
    int watch_by_fd_size;
    Connection *pending, **pending_end;
    Listener *listeners;
    DatagramServer *datagram_servers;

    double now;
    double next_timeout_check;    /* when a time limit may have passed; INFINITY for never */
    double accept_retry_at;    /* when to accept again after a strain; INFINITY for not waiting */
    size_t connections, conversations; /* open ones; those that are no protocol's */
    uint64_t last_connection_id;

    /* What the engine set. Seconds, and INFINITY for no limit. */
    double idle_timeout, max_lifetime, linger_timeout, drain_idle, accept_retry_delay, busy_poll;
    size_t unsent, read_size;
    PyObject *max_message_size;
    PyObject *open_conversation;   /* opener(peer, post) -> conversation */
    PyObject *push;     /* the post box of those who have none */
    PyObject *answer_datagram; /* answerer(datagram, peer) -> bytes or None */
    PyObject *on_connection_closed;     /* gone(peer) */
    PyObject *on_service_error;   /* failed(peer, exception), or NULL: what a service raised */
    PyObject *on_accept_paused; /* strained(errno), and 0 when it is over; or NULL */
    PyObject *on_datagram_dropped;  /* dropped(peer, reason, number), or NULL: a datagram without an answer */
    PyObject *on_pull_conversation;  /* pulling(fd, peer, conversation): one that C does not drive */
    PyTypeObject *last_type; /* the conversation type seen last, */
    bool last_type_pulls;         /* and whether it pulls */
    char *recv_buffer;      /* epoll: `chunk` bytes to receive into */

    unsigned long long iterations, chunks, rearmed_receives; /* for tests and for the curious */
};

/* loop.c */
extern PyTypeObject CoreType;
int loop_flush_pending(Core *core);
uint32_t slot_alloc(Core *core, enum slot_kind slot_kind, void *object, uint32_t *generation);
void slot_free(Core *core, uint32_t slot);
void *slot_lookup(Core *core, uint64_t user_data, enum slot_kind *slot_kind);
void loop_wake(Core *core);
bool loop_check_owner_process(const Core *core);
extern unsigned current_fork_generation; /* how often this process is the child of a fork */
double clock_now(void);

/* connection.c */
extern PyTypeObject ConnectionType;
Connection *connection_new(Core *core, int fd, PyObject *handler, PyObject *peer, uint32_t flags);
int connection_start(Connection *self);
int connection_on_read(Connection *self, const char *data, size_t size);
int connection_on_eof(Connection *self);
int connection_on_written(Connection *self, size_t size);
void connection_on_error(Connection *self, int error);
void connection_update(Connection *self);
void connection_begin_close(Connection *self, bool reset);
int connection_close_now(Connection *self);
void connection_detach_in_child(Connection *self);
int connection_check_timeouts(Connection *self);
int connection_drain(Connection *self, double last_check);
void connection_mark_pending(Connection *self);
static inline bool connection_wants_read(const Connection *self)
{
    return !(self->flags & (EOF_RECEIVED | READ_PAUSED | CLOSE_PENDING | CLOSED));
}

/* write_queue.c */
int write_queue_append(WriteQueue *queue, PyObject *bytes);
void write_queue_consume(WriteQueue *queue, size_t size);
void write_queue_clear(WriteQueue *queue);
size_t write_queue_iovecs(const WriteQueue *queue, struct iovec *vectors, size_t max);

/* peer.c */
int peer_bind_classes(PyObject *address_class, PyObject *peer_class);
PyObject *address_new(const struct sockaddr *sockaddr, socklen_t size);
PyObject *peer_new(PyObject *address, PyObject *local, bool message_oriented, uint64_t last_connection_id, PyObject *max_message_size);
PyObject *peer_from_address(const PeerAddress *peer_address, PyObject *max_message_size);

/* listener.c */
int listener_bind_class(PyObject *conversation_class);
PyObject *core_listen(Core *core, PyObject *args);
PyObject *loop_stop_listening(Core *core, PyObject *ignored);
int listener_on_accept(Core *core, Listener *listeners, int fd);
int listener_on_error(Core *core, Listener *listeners, int error);
int listener_accept_batch(Core *core, Listener *listeners);
void listeners_rearm(Core *core);

/* backend_epoll.c */
int epoll_open(Core *core);
int epoll_backend_wait(Core *core, double timeout);
int epoll_poll_once(Core *core);
int epoll_register(Core *core, int fd, uint32_t events, uint32_t slot, uint32_t generation, bool again);
void epoll_del(Core *core, int fd);
int epoll_backend_update(Connection *self);

/* watch.c */
int watch_on_event(Watch *watch, uint32_t events);
PyObject *core_watch(Core *core, PyObject *args);
PyObject *core_unwatch(Core *core, PyObject *args);

/* backend_uring.c */
int uring_update(Connection *self, bool *again);
bool uring_close(Core *core, int fd);
void uring_arm_listeners(Core *core);
int uring_wait(Core *core, double timeout);
int uring_cancel_accepts(Core *core);
void uring_cancel_all(Core *core);
void send_vector_free(Connection *self);

/* datagram_server.c */
PyObject *datagram_server_add(Core *core, PyObject *args);
PyObject *datagram_server_remove(Core *core, PyObject *args);
int datagram_server_poll(DatagramServer *desk, int *received);
int datagram_servers_poll(Core *core, int *received);
void datagram_server_free(Core *core, DatagramServer *desk);

/* Names that are looked up for every chunk, made once. */
struct names {
    PyObject *receive, *done, *start, *end, *leave, *closed, *pulls, *failure;
    PyObject *data_received, *eof_received, *pause_writing, *resume_writing, *connection_lost;
};
extern struct names names;

/* Why a datagram gets no answer, for `dropped`. */
enum drop_reason { TOO_LARGE, NO_SOURCE_ADDRESS, SEND_FAILED };

/* Whether the exception that is set is one that a service may raise (not ^C). If so it is told, and cleared;
 * unless telling it raises another. */
bool report_service_error(Core *core, PyObject *peer);

#endif
