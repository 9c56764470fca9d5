/* Structures and functions shared by the files of the C core.
 *
 * The files in order of their dependencies; each calls only those above it:
 *
 *   write_queue.c      a connection's unsent bytes
 *   ring.c             io_uring's system calls
 *   core.c             slots, the list of pending connections, wakeup, clock, fork check
 *   counters.c         counting connections, reads, writes and datagrams
 *   epoll_set.c        the epoll set, which both backends use
 *   peer.c             Address and Peer objects
 *   traffic_log.c      the log of connections, messages and datagrams
 *   lines.c            answering lines
 *   connection.c       Connection: one connection
 *   listener.c         accepting connections
 *   watch.c            callbacks into Python for descriptors
 *   datagram_server.c  answering datagrams with recvmmsg() and sendmmsg()
 *   backend_epoll.c    moving bytes with epoll
 *   backend_uring.c    moving bytes with io_uring
 *   loop.c             the type Core: its loop, timeouts, construction and closing
 *   module.c           the Python module
 *
 * The files above the backends reach the backend in use through `core->backend` (backend.h).
 *
 * 1. One thread runs a core. The GIL protects all data here; it is released only while blocked in the
 *    kernel. Other threads may call `Connection.write` and `Core.stop`, nothing else.
 *    A free-threaded Python enables the GIL when it imports this module, because the module does not declare
 *    that it runs without (Py_MOD_GIL_NOT_USED), and it cannot: nothing here is protected by a lock of its own.
 *    If the GIL is forced off (PYTHON_GIL=0), these calls from other threads are data races.
 * 2. Each object the kernel may report on has a slot. The user_data of a request, or epoll's data, holds the
 *    slot's index and generation, so a late report on a freed object is recognized, even if the slot and the
 *    descriptor have been reused.
 * 3. A connection is never closed inside a call of its service. It is marked, appended to the list of pending
 *    connections, and processed when no Python code is on the stack (core_flush_pending).
 * 4. A function that calls Python returns 0, or -1 with an exception set. Then `run` returns, and unprocessed
 *    events are still there for the next call.
 */
#ifndef BOTHENDS_INTERNAL_H
#define BOTHENDS_INTERNAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "backend.h"
#include "connection_state.h"
#include "ring.h"

typedef struct Watch Watch;
typedef struct DatagramServer DatagramServer;
typedef struct TrafficLog TrafficLog;

/* How many files a log is written to, at most. */
enum { LOG_STREAMS = 2 };

/* Release what a call of Python returned, which is not used. 0, or -1 with an exception set. */
static inline int discard_result(PyObject *result)
{
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Release what Python returned, for its truth: 0 or 1, or -1 with an exception set. */
static inline int take_truth(PyObject *object)
{
    int truth = object == NULL ? -1 : PyObject_IsTrue(object);

    Py_XDECREF(object);
    return truth;
}

/* The type of the object in a slot. */
enum slot_kind { SLOT_FREE, SLOT_CONNECTION, SLOT_LISTENER, SLOT_WATCH, SLOT_DATAGRAM_SERVER, SLOT_WAKEUP };

/* The request of a slot that a completion belongs to. */
enum operation { OP_RECV, OP_SEND, OP_CANCEL, OP_ACCEPT, OP_POLL, OP_CLOSE };

typedef struct {
    uint32_t generation;
    uint32_t next_free;
    enum slot_kind kind;
    void *object;
} Slot;

enum { GENERATIONS = 1 << 24 };

/* The user_data of a request: 8 bits of operation, 24 of generation, 32 of slot index. */
static inline uint64_t user_data_encode(enum operation operation, uint32_t generation, uint32_t slot)
{
    return (uint64_t)operation << 56 | (uint64_t)generation << 32 | slot;
}

/* The maximum number of chunks of one send. */
enum { MAX_IOVECS = 64 };

/* A queued reply after the first. */
typedef struct WriteChunk {
    struct WriteChunk *next;
    PyObject *bytes;
} WriteChunk;

/* A connection's unsent output. The first chunk is stored inline: most connections never queue a second. */
typedef struct {
    PyObject *head;
    size_t offset; /* bytes of `head` already sent */
    WriteChunk *tail, *tail_last;
    size_t unsent; /* bytes in the whole queue */
} WriteQueue;

/* A peer's socket address: a quarter of the size of the Peer object that is made from it on demand. */
typedef struct {
    PyObject *local; /* our Address; NULL if nothing is stored */
    uint64_t connection_id;
    socklen_t size;
    struct sockaddr_in6 address; /* or a sockaddr_in */
} PeerAddress;

/* Why a conversation was closed: CloseReason in events.py. */
enum close_reason {
    CLOSED_BY_PEER,
    CLOSED_BY_SERVICE,
    CLOSED_BY_RESET,
    CLOSED_IDLE,
    CLOSED_LIFE,
    CLOSED_FAILED,
    CLOSED_DRAINED,
    CLOSED_ABORTED,
    CLOSE_REASONS,
};

/* What is counted: in the words of `Core.count`, or nowhere. Bytes and calls of conversations only; what a protocol
 * moves is observed in Python. counters.c has the names. */
enum counter {
    COUNT_ACCEPTED,
    COUNT_READS,
    COUNT_RECEIVED, /* bytes */
    COUNT_WRITES,
    COUNT_SENT, /* bytes */
    COUNT_DATAGRAMS_RECEIVED,
    COUNT_DATAGRAM_BYTES_RECEIVED,
    COUNT_DATAGRAMS_SENT,
    COUNT_DATAGRAM_BYTES_SENT,
    COUNT_CLOSED, /* + enum close_reason */
    COUNTERS = COUNT_CLOSED + CLOSE_REASONS,
};

/* Flags of a connection. A conversation's state is in `state`. */
enum {
    PROTOCOL = 1 << 0,            /* the handler is an asyncio protocol, not a conversation */
    EOF_RECEIVED = 1 << 1,        /* the peer has shut down its side */
    LINGER_TIMEOUT = 1 << 2,      /* conversation: only the linger timeout applies, from `timeout_start` */
    WR_SHUTDOWN = 1 << 3,         /* protocol: our side is shut down */
    WR_SHUTDOWN_PENDING = 1 << 4, /* protocol: shut down our side once the queue is empty */
    CLOSE_WHEN_FLUSHED = 1 << 5,  /* protocol: close once the queue is empty */
    CLOSE_PENDING = 1 << 6,       /* close once no request is in flight */
    RESET_ON_CLOSE = 1 << 7,      /* discard unsent bytes and send RST */
    READ_PAUSED = 1 << 8,         /* do not read */
    WRITE_PAUSED = 1 << 9,        /* protocol: pause_writing() has been called */
    PENDING = 1 << 10,            /* on the list of pending connections */
    CLOSED = 1 << 11,             /* the descriptor is closed */
    IN_PYTHON = 1 << 12,          /* counted in Python: call `on_connection_closed` at the end */
    /* Of backend_uring.c. */
    RECV_ARMED = 1 << 13,       /* a multishot receive is armed */
    RECV_CANCEL_SENT = 1 << 14, /* and its cancellation submitted */
    SEND_INFLIGHT = 1 << 15,    /* a send is in flight */
    SEND_CANCEL_SENT = 1 << 16, /* and its cancellation submitted */
    /* Of backend_epoll.c. */
    EPOLL_REGISTERED = 1 << 17, /* in the epoll set, */
    EPOLL_WANTS_IN = 1 << 18,   /* for EPOLLIN */
    EPOLL_WANTS_OUT = 1 << 19,  /* for EPOLLOUT */
    /* Of traffic_log.c. */
    LOG_HELD = 1 << 20,   /* Python holds the beginning of a line */
    LOG_NO_EOF = 1 << 21, /* the server has stopped it: a later EOF is not logged */
    /* Of lines.c. */
    LINES_KNOWN = 1 << 22,   /* whether the conversation has a `line_function` is known */
    LINES_PARTIAL = 1 << 23, /* the conversation holds an unfinished line */
};

struct Connection {
    PyObject_HEAD
    Core *core;        /* NULL once closed */
    PyObject *handler; /* a conversation or a protocol; NULL if opening the conversation failed */
    PyObject *peer;    /* a Peer for error reports; NULL if there are none or `peer_address` has it */
    union {
        PeerAddress peer_address; /* if `peer` is NULL */
        struct {
            uint64_t received, sent; /* bytes; if `peer` is not NULL */
            uint64_t number;         /* the connection's, if it is logged */
        } totals;
    };
    PyObject *log_peer;      /* how the log writes the peer's address, in bytes; NULL if it is not logged */
    PyObject *line_function; /* called for each line; NULL if the conversation takes chunks */
    Py_ssize_t line_limit;   /* bytes of a line, at most */
    Connection *next_pending;
    void *backend_data; /* the backend's, from PyMem_Malloc(); freed with the connection */
    WriteQueue queue;
    double timeout_start; /* when it was opened, or when its linger timeout began: seconds on the core's clock */
    double last_received, last_activity;
    uint32_t high_water, low_water; /* unsent bytes above which reading (or the writer) pauses, and resumes */
    uint32_t slot, generation;
    uint32_t flags;
    int fd;
    int error;                       /* errno of the failure that closed it, or 0 */
    enum connection_state state : 8; /* of a conversation; STATE_OPEN with a protocol, which has its own */
    enum close_reason reason : 8;    /* of a conversation: why it is closed, as far as is known */
};

struct Listener {
    Listener *next;
    PyObject *local; /* our Address, or NULL if it differs between connections */
    uint32_t slot, generation;
    int fd;
    bool by_epoll; /* accepted from when epoll reports it, even with io_uring */
    bool armed;    /* in the epoll set, or an accept request is in flight */
};

struct Core {
    PyObject_HEAD
    const Backend *backend;
    Ring *ring; /* of backend_uring.c; NULL otherwise */
    int epoll_fd;
    int wakeup_fd;            /* an eventfd with which other threads wake the loop */
    unsigned fork_generation; /* `current_fork_generation` at construction; a forked child must not use the core */
    bool running, stop_requested, epoll_poll_armed, blocked, closing, accept_paused;

    Slot *slots;
    uint32_t slot_count, first_free;
    uint32_t *watch_by_fd; /* slot + 1, or 0 */
    int watch_by_fd_size;
    Connection *pending, **pending_end;
    Listener *listeners;
    DatagramServer *datagram_servers;

    double now;
    double next_timeout_check;         /* the earliest time a timeout may expire; INFINITY for none */
    double accept_retry_at;            /* when to resume accepting; INFINITY if it is not paused */
    size_t connections, conversations; /* open connections; those with a conversation */
    uint64_t last_connection_id;

    /* Set by the engine. Times in seconds, INFINITY for no limit. */
    double idle_timeout, max_lifetime, linger_timeout, drain_idle, accept_retry_delay, busy_poll;
    Py_ssize_t write_high_water, read_size;
    Py_ssize_t max_connections; /* above it, clients wait in the accept queue; 0 for no limit */
    PyObject *max_message_size;
    PyObject *admit;                /* admit(peer) -> bool: whether to serve an accepted peer; or NULL */
    PyObject *open_conversation;    /* open_conversation(peer, push) -> Conversation */
    PyObject *push;                 /* the Push that C conversations get */
    PyObject *answer_datagram;      /* answer_datagram(datagram, peer) -> bytes | None */
    PyObject *on_connection_opened; /* on_connection_opened(peer), for connections accepted here; or NULL */
    PyObject *on_connection_closed; /* on_connection_closed(peer, reason, received, sent) */
    PyObject *on_pull_conversation; /* on_pull_conversation(fd, peer, conversation): C does not drive it */
    PyObject *on_service_error;     /* on_service_error(peer, exception), or NULL */
    PyObject *on_accept_paused;     /* on_accept_paused(errno), 0 once resumed; or NULL */
    PyObject *on_datagram_dropped;  /* on_datagram_dropped(peer, reason, number), or NULL */
    RingSizes ring_sizes;
    bool use_uring;

    PyTypeObject *last_type;   /* the conversation type seen last, */
    bool last_type_wants_pull; /* and its `wants_pull` */
    char *recv_buffer;         /* epoll: `read_size` bytes */
    char *answers;             /* of the lines of a chunk, */
    size_t answers_size;       /* and how many bytes there is room for */

    Py_buffer counted; /* the words of `counters`; counted.obj is NULL if nothing is counted */
    uint64_t *counters[COUNTERS];
    uint64_t uncounted; /* where they point then: counting or not, it is the same code */

    TrafficLog *log; /* NULL if nothing is logged here */

    unsigned long long iterations, chunks, rearmed_receives; /* counters for tests */
};

/* write_queue.c */
int write_queue_append(WriteQueue *queue, PyObject *bytes);
void write_queue_consume(WriteQueue *queue, size_t size);
void write_queue_clear(WriteQueue *queue);
size_t write_queue_iovecs(const WriteQueue *queue, struct iovec *iovecs, size_t max);

/* core.c */
extern unsigned current_fork_generation; /* how many forks lie between the first process and this one */
double clock_now(void);
int core_check_owner_process(const Core *core);
int raise_errno(int error);
void core_wake(Core *core);
uint32_t slot_alloc(Core *core, enum slot_kind kind, void *object, uint32_t *generation);
void slot_free(Core *core, uint32_t slot);
void *slot_lookup(Core *core, uint64_t user_data, enum slot_kind *kind);
void core_append_pending(Core *core, Connection *connection);
int core_flush_pending(Core *core);
PyObject *take_exception(void);
void restore_exception(PyObject *exception);
int core_report_service_error(Core *core, PyObject *peer);

/* counters.c */
void counters_init(Core *core);
void counters_release(Core *core);
PyObject *core_count(Core *core, PyObject *args);
PyObject *counter_names(enum counter first);

/* Only this thread writes the word; other processes read it at any time. */
static inline void core_count_up(Core *core, enum counter counter, size_t number)
{
    uint64_t *word = core->counters[counter];

    __atomic_store_n(word, *word + number, __ATOMIC_RELAXED);
}

/* epoll_set.c */
int epoll_set_open(Core *core);
int epoll_set_register(Core *core, int fd, uint32_t events, uint32_t slot, uint32_t generation, bool modify);
void epoll_set_remove(Core *core, int fd);

/* peer.c */
int peer_bind_classes(PyObject *address_class, PyObject *peer_class);
PyObject *address_new(const struct sockaddr *sockaddr, socklen_t size);
PyObject *peer_new(PyObject *address, PyObject *local, bool message_oriented, uint64_t connection_id,
                   PyObject *max_message_size);
PyObject *peer_from_address(const PeerAddress *peer_address, PyObject *max_message_size);

/* traffic_log.c */
PyObject *traffic_log_peer(Core *core, const struct sockaddr *address, PyObject *peer, uint64_t number);
int traffic_log_opened(Core *core, PyObject *peer_text, uint64_t number, PyObject *local);
int traffic_log_received(Connection *self, const char *data, size_t size);
int traffic_log_sent(Connection *self, size_t size);
bool traffic_log_takes_datagrams(const Core *core);
int traffic_log_datagram_received(Core *core, PyObject *peer_text, const char *data, size_t size);
int traffic_log_datagram_sent(Core *core, PyObject *peer_text, const char *data, size_t size);
int traffic_log_ended(Connection *self);
int traffic_log_closed(Core *core, Connection *self);
int traffic_log_flush(Core *core);
int traffic_log_check_age(Core *core);
int traffic_log_traverse(Core *core, visitproc visit, void *arg);
void traffic_log_release(Core *core);
PyObject *core_log_traffic(Core *core, PyObject *args, PyObject *keywords);
PyObject *core_flush_log(Core *core, PyObject *ignored);

/* lines.c */
int lines_bind_class(PyObject *conversation_class);
int lines_can_answer(Connection *self, const char *data, size_t size);
PyObject *lines_answer(Connection *self, const char *data, size_t size);

/* connection.c */
extern PyTypeObject ConnectionType;
int connection_bind_transitions(PyObject *table);
Connection *connection_new(Core *core, int fd, PyObject *handler, PyObject *peer, uint32_t flags);
int connection_start(Connection *self);
int connection_on_read(Connection *self, const char *data, size_t size);
int connection_on_eof(Connection *self);
int connection_on_written(Connection *self, size_t size);
int connection_count_sent(Connection *self, size_t size);
void connection_on_error(Connection *self, int error);
void connection_begin_close(Connection *self, bool reset);
int connection_close_now(Connection *self);
void connection_detach_in_child(Connection *self);
int connection_check_timeouts(Connection *self);
void connection_abort(Connection *self);
int connection_drain(Connection *self, double last_check);
void connection_mark_pending(Connection *self);
static inline bool connection_wants_read(const Connection *self)
{
    if (self->flags & (EOF_RECEIVED | CLOSE_PENDING | CLOSED))
        return false;
    /* After the last answer input is discarded, so nothing is gained by pausing. */
    return !(self->flags & READ_PAUSED) || self->state != STATE_OPEN;
}

/* listener.c */
int listener_bind_class(PyObject *conversation_class);
PyObject *core_listen(Core *core, PyObject *args);
PyObject *core_stop_listening(Core *core, PyObject *ignored);
void listeners_free(Core *core);
int listener_on_accept(Core *core, Listener *listener, int fd);
int listener_on_error(Core *core, int error);
int listener_accept_batch(Core *core, Listener *listener);
void listeners_rearm(Core *core);

/* watch.c */
int watch_on_event(Watch *watch, uint32_t events);
int watch_traverse(Watch *watch, visitproc visit, void *arg);
void watch_discard(Watch *watch);
PyObject *core_watch(Core *core, PyObject *args);
PyObject *core_unwatch(Core *core, PyObject *args);

/* datagram_server.c */
PyObject *core_add_datagram_socket(Core *core, PyObject *args);
PyObject *core_remove_datagram_socket(Core *core, PyObject *args);
int datagram_server_poll(DatagramServer *server, int *received);
int datagram_servers_poll(Core *core, int *received);
int datagram_servers_traverse(Core *core, visitproc visit, void *arg);
void datagram_server_free(Core *core, DatagramServer *server);

/* backend_epoll.c; backend.h has the rest */
int epoll_poll_once(Core *core);

/* loop.c */
extern PyTypeObject CoreType;

/* Interned names of the methods and attributes that are looked up for every chunk (module.c). */
struct names {
    PyObject *receive, *done, *start, *end, *close, *closed, *wants_pull, *failure;
    PyObject *line_function, *line_limit, *check_answer, *fail;
    PyObject *data_received, *eof_received, *pause_writing, *resume_writing, *connection_lost;
};
extern struct names names;

/* The reasons given to `on_datagram_dropped`. */
enum drop_reason { TOO_LARGE, NO_SOURCE_ADDRESS, SEND_FAILED, LOOP };

#endif
