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
typedef struct Listening Listening;
typedef struct Watch Watch;
typedef struct Desk Desk;

/* What a slot holds. */
enum kind { FREE, CONNECTION, LISTENING, WATCH, DESK, WAKING };

/* Which request of a slot a completion belongs to. */
enum operation { RECEIVING, SENDING, CANCELLING, ACCEPTING, POLLING, CLOSING_DOWN };

typedef struct {
    uint32_t generation;
    uint32_t next_free;
    enum kind kind;
    void *holder;
} Slot;

enum { GENERATIONS = 1 << 24 };

/* The name of a slot's request: 8 bits of operation, 24 of generation, 32 of slot. */
static inline uint64_t tag_of(enum operation operation, uint32_t generation, uint32_t slot)
{
    return (uint64_t)operation << 56 | (uint64_t)generation << 32 | slot;
}

/* One answer, or what is left of it, that waits its turn. */
typedef struct Piece {
    struct Piece *next;
    PyObject *bytes;
} Piece;

/* A connection's output. The first piece lies here: most connections never have two. */
typedef struct {
    PyObject *first;
    size_t taken;  /* of the first: how much the system has */
    Piece *rest, *last;
    size_t unsent; /* bytes in all */
} Queue;

/* Who a connection is with, as the system told it: a quarter of the Peer that is made of it when one is wanted. */
typedef struct {
    PyObject *local; /* our Address; NULL where nothing is kept */
    uint64_t number;
    socklen_t size;
    struct sockaddr_in6 address; /* or a sockaddr_in */
} Origin;

/* The flags of a connection. */
enum {
    MANAGED = 1 << 0,    /* its handler is a protocol in Python, not a conversation */
    ENDED = 1 << 1,      /* the peer has finished sending */
    OVER = 1 << 2,       /* nothing more will be said than what is queued */
    SHUT = 1 << 3,       /* our side is shut down; the peer's end is waited for */
    SHUTTING = 1 << 4,   /* managed: shut down our side when all is sent */
    CLOSING = 1 << 5,    /* managed: close when all is sent */
    DYING = 1 << 6,      /* to be closed as soon as the kernel has let go of it */
    ABANDONED = 1 << 7,  /* what is unsent is dropped, by RST */
    PAUSED = 1 << 8,     /* not to be read now */
    FULL = 1 << 9,       /* managed: told that too much is unsent */
    DIRTY = 1 << 10,     /* on the list of the dirty */
    DEAD = 1 << 11,      /* closed */
    RECEIVES = 1 << 12,  /* io_uring: a receive is armed */
    RECALLED = 1 << 13,  /* io_uring: and has been cancelled */
    SENDS = 1 << 14,     /* io_uring: a send is under way */
    RECALLED_SEND = 1 << 15,
    WATCHES_IN = 1 << 16,  /* epoll: what it is registered for */
    WATCHES_OUT = 1 << 17,
    COUNTED = 1 << 18,     /* Python has counted it in: `gone` is told of its end */
};

struct Connection {
    PyObject_HEAD
    Core *core;         /* NULL once it is dead */
    PyObject *handler;  /* a conversation, or a protocol; NULL where opening it failed */
    PyObject *peer;     /* whom it is with, where that is to be told and `origin` can't; or NULL */
    Origin origin;      /* the same */
    Connection *next_dirty;
    Gather *gather;     /* io_uring: several pieces that are being sent at once, or NULL */
    Queue queue;
    double began, heard, moved; /* seconds on the core's clock */
    size_t high;        /* above so much unsent, stop reading (or say so) */
    uint32_t slot, generation;
    uint32_t flags;
    int fd;
    int error;          /* why it was lost, or 0 */
};

struct Listening {
    Listening *next;
    PyObject *local;    /* our Address, or NULL where each connection has its own */
    uint32_t slot, generation;
    int fd;
    bool polled;        /* waited for by epoll, on a ring too */
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
    int epoll;
    int wake;           /* an eventfd, by which another thread says that there is something to do */
    unsigned forks;     /* `fork_count` when it was made: a child has a copy of all this that it must not use */
    bool running, leave, poll_armed, awake, closing, is_strained;

    Slot *slots;
    uint32_t slot_count, first_free;
    uint32_t *watch_by_fd; /* slot + 1 */
    int watch_room;
    Connection *dirty, **dirty_end;
    Listening *listening;
    Desk *desks;

    double now;
    double sweep_at;    /* when a time limit may have passed; INFINITY for never */
    double retry_at;    /* when to accept again after a strain; INFINITY for not waiting */
    size_t connections, conversations; /* open ones; those that are no protocol's */
    uint64_t number;

    /* What the engine set. Seconds, and INFINITY for no limit. */
    double idle, life, linger, quiet, strain_pause, busy;
    size_t unsent, chunk;
    PyObject *longest;
    PyObject *opener;   /* opener(peer, post) -> conversation */
    PyObject *post;     /* the post box of those who have none */
    PyObject *answerer; /* answerer(datagram, peer) -> bytes or None */
    PyObject *gone;     /* gone(peer) */
    PyObject *failed;   /* failed(peer, exception), or NULL: what a service raised */
    PyObject *strained; /* strained(errno), and 0 when it is over; or NULL */
    PyObject *dropped;  /* dropped(peer, reason, number), or NULL: a datagram without an answer */
    PyObject *pulling;  /* pulling(fd, peer, conversation): one that C does not drive */
    PyTypeObject *known_type; /* the conversation type seen last, */
    bool known_pulls;         /* and whether it pulls */
    char *scratch;      /* epoll: `chunk` bytes to receive into */

    unsigned long long turns, chunks, rearmed; /* for tests and for the curious */
};

/* loop.c */
extern PyTypeObject CoreType;
int core_flush(Core *core);
uint32_t slot_take(Core *core, enum kind kind, void *holder, uint32_t *generation);
void slot_release(Core *core, uint32_t slot);
void *slot_holder(Core *core, uint64_t tag, enum kind *kind);
void core_wake(Core *core);
bool core_is_ours(const Core *core);
extern unsigned fork_count; /* how often this process is the child of a fork */
double clock_now(void);

/* connection.c */
extern PyTypeObject ConnectionType;
Connection *connection_new(Core *core, int fd, PyObject *handler, PyObject *peer, uint32_t flags);
int connection_start(Connection *self);
int connection_heard(Connection *self, const char *data, size_t size);
int connection_ended(Connection *self);
int connection_sent(Connection *self, size_t size);
void connection_lost(Connection *self, int error);
void connection_settle(Connection *self);
void connection_kill(Connection *self, bool abandon);
int connection_bury(Connection *self);
void connection_disown(Connection *self);
int connection_expire(Connection *self);
int connection_drain(Connection *self, double looked);
void connection_soil(Connection *self);
static inline bool connection_reads(const Connection *self)
{
    return !(self->flags & (ENDED | PAUSED | DYING | DEAD));
}

/* write_queue.c */
int queue_put(Queue *queue, PyObject *bytes);
void queue_advance(Queue *queue, size_t size);
void queue_clear(Queue *queue);
size_t queue_vectors(const Queue *queue, struct iovec *vectors, size_t most);

/* peer.c */
int peer_prepare(PyObject *address_class, PyObject *peer_class);
PyObject *address_of(const struct sockaddr *sockaddr, socklen_t size);
PyObject *peer_of(PyObject *address, PyObject *local, bool boundaries, uint64_t number, PyObject *longest);
PyObject *origin_peer(const Origin *origin, PyObject *longest);

/* listener.c */
int listener_prepare(PyObject *conversation_class);
PyObject *core_listen(Core *core, PyObject *args);
PyObject *core_deafen(Core *core, PyObject *ignored);
int accepted(Core *core, Listening *listening, int fd);
int accept_failed(Core *core, Listening *listening, int error);
int accept_all(Core *core, Listening *listening);
void accepting_retry(Core *core);

/* backend_epoll.c */
int polling_open(Core *core);
int polling_wait(Core *core, double patience);
int polling_turn(Core *core);
int polling_watch(Core *core, int fd, uint32_t events, uint32_t slot, uint32_t generation, bool again);
void polling_forget(Core *core, int fd);
int polling_update(Connection *self);

/* watch.c */
int watch_call(Watch *watch, uint32_t events);
PyObject *core_watch(Core *core, PyObject *args);
PyObject *core_unwatch(Core *core, PyObject *args);

/* backend_uring.c */
int uring_update(Connection *self, bool *again);
bool uring_close(Core *core, int fd);
void uring_arm_listeners(Core *core);
int uring_wait(Core *core, double patience);
int uring_deafen(Core *core);
void uring_quiesce(Core *core);
void gather_free(Connection *self);

/* datagram_server.c */
PyObject *core_answer(Core *core, PyObject *args);
PyObject *core_mute(Core *core, PyObject *args);
int desk_serve(Desk *desk, int *served);
int desks_serve(Core *core, int *served);
void desk_free(Core *core, Desk *desk);

/* Names that are looked up for every chunk, made once. */
struct names {
    PyObject *receive, *done, *start, *end, *leave, *closed, *pulls, *failure;
    PyObject *data_received, *eof_received, *pause_writing, *resume_writing, *connection_lost;
};
extern struct names names;

/* Why a datagram gets no answer, for `dropped`. */
enum reason { TOO_LARGE, NAMELESS, UNSENT };

/* Whether the exception that is set is one that a service may raise (not ^C). If so it is told, and cleared;
 * unless telling it raises another. */
bool forgive(Core *core, PyObject *peer);

#endif
