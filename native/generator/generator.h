/* The load generator: what its parts share.
 *
 *   module.c       the module bothends.bench._generator: what Python sees
 *   loop.c         when to send, how long to wait
 *   connection.c   connections, what is sent on them, what comes
 *   uring_batch.c  many recv() or send() with one system call
 *   tracker.c      which requests are open, what was wrong with each answer, histograms
 *
 * It keeps the contract of src/bothends/bench/generators/base.py, and the ledger counts as ledger.py does: the same tests
 * hold both to it. It shares nothing with the C core of the servers, lest one mistake cancel itself out.
 *
 * 1. One thread, no GIL: it is taken only to report progress and to fetch the next times of a schedule.
 * 2. Requests and answers are a ring of messages that lie one after the other, so several are sent by one
 *    system call straight from there, and what comes is compared with it where it is.
 * 3. Times are nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef BOTHENDS_GENERATOR_H
#define BOTHENDS_GENERATOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SECOND 1000000000LL

enum fault { REFUSED, RESET, SILENT, TIMED_OUT, LOST, SHORT, WRONG, DUPLICATED, REORDERED, LATE, FAULTS };

/* histogram.py: HALF, PLACES and HIGHEST. */
enum { HALF = 1024, PLACES = 33 * HALF };
#define HIGHEST (3600 * SECOND)

typedef struct {
    uint64_t counts[PLACES];
} Histogram;

/* Messages one after the other: number i begins at offsets[i], offsets[length] is the end of the last. */
typedef struct {
    const char *bytes;
    const int64_t *offsets;
} Messages;

/* A request that is open. */
typedef struct {
    int64_t number, due, sent;
} Open;

enum state { CLOSED, CONNECTING, READY };

typedef struct {
    int descriptor;
    enum state state;
    bool careful;  /* answers are looked at one by one */
    bool broken;   /* what comes next can't be told from what came before */
    bool answered; /* on this connection */
    bool is_queued; /* it has something to send with the batch */
    bool is_free;  /* open loop: it stands in the queue of those that can take a request */
    bool wants_out;
    int64_t next;    /* number of the next request */
    int64_t unsent;  /* number of the first that is not wholly sent */
    int64_t cut;     /* bytes of that one that are */
    int64_t at;      /* bytes of the answer at hand that have come, while all is well */
    int64_t highest; /* number of the latest that was answered */
    Open *open;      /* a ring of `depth`, the oldest at `first` */
    uint32_t first, count;
    char *kept; /* the beginning of an answer, while careful */
    int64_t kept_size, kept_room;
    int64_t *gone; /* given up, but may still come: a ring of the workload's length */
    int64_t gone_count;
    int64_t since; /* begun, or become free */
    int64_t due;   /* with `reconnect`: of the request for which it connects; -1 for none */
    int64_t left;  /* with `reconnect`: requests that are still to be sent on it */
    int64_t pause, retry;
} Peer;

typedef struct Batch Batch;

typedef struct {
    /* What is asked for. */
    int family, type, protocol, nodelay, receive_buffer;
    struct sockaddr_storage address;
    socklen_t address_size;
    const uint32_t *sources; /* network byte order; connections come from these in turn */
    Py_ssize_t source_count, source;
    int64_t length; /* of the workload */
    Messages sends, answers;
    int64_t longest; /* answer */
    int end;         /* the byte that ends every answer, or -1 */
    bool numbers, boundaries, reconnect, may_batch;
    int64_t each; /* requests of a conversation, with `reconnect` */
    uint32_t connections, depth;
    int64_t begin, start, stop, timeout, gone_after;
    PyObject *times; /* an iterator of buffers of int64, or NULL for a closed loop */
    PyObject *watch, *began, *ended;

    /* What it gives. */
    int64_t faults[FAULTS];
    Histogram *uncorrected, *corrected, *lateness;
    int64_t *seconds;
    int64_t second_count;
    int64_t answered, completed, bytes, dues_unsent, made;
    double cpu, starved, wall;
    int last_refusal; /* errno; 0 for none since the last answer */
    bool is_ended;
    int64_t last_answer;

    /* What it works with. */
    bool caught_up; /* with all that has come: what isn't there is late */
    Peer *peers;
    int epoll;
    char *buffer;
    Batch *batch; /* NULL: system calls one by one */
    size_t slot;  /* with it: the part of the buffer that is one connection's */
    Peer **senders;
    uint32_t sender_count;
    bool gathering; /* what is sent waits for the batch */
    uint32_t *free;
    uint32_t free_first, free_count;
    bool sending;
    uint32_t asleep; /* peers that are closed and to be opened again */
    Py_buffer chunk;
    const int64_t *chunk_times;
    int64_t chunk_count, chunk_at, next_due;
    bool has_chunk;
    PyThreadState *released;
} Run;

/* SMALL: the least room for what one connection receives. */
enum { BUFFER = 1024 * 1024, BATCH = 256, SMALL = 2048 };

#define FIRST_PAUSE 5000000LL /* before a broken connection is opened again; doubled each time */

int64_t now_ns(void);

/* tracker.c */
void histogram_add(Histogram *histogram, int64_t nanoseconds);
void ledger_begin(Peer *peer);
void ledger_add(Run *run, Peer *peer, int64_t due, int64_t sent);
void ledger_receive(Run *run, Peer *peer, const char *data, int64_t size, int64_t at);
void ledger_end(Run *run, Peer *peer);
int64_t ledger_overdue(Run *run, Peer *peer, int64_t before);

/* uring_batch.c */
Batch *batch_open(void);
void batch_close(Batch *batch);
void batch_receive(Batch *batch, int descriptor, void *data, size_t size);
void batch_send(Batch *batch, int descriptor, const void *data, size_t size);
int batch_run(Batch *batch, int32_t *results);

/* connection.c; int is 0, or -1 with the exception set */
int dial(Run *run, Peer *peer, int64_t now, int64_t due);
int ask(Run *run, Peer *peer, int64_t count, int64_t due, int64_t now);
int freed(Run *run, Peer *peer, int64_t count, int64_t now);
void refused(Run *run, Peer *peer, int error);
int begin_again(Run *run, Peer *peer, int64_t now);
int ended(Run *run, Peer *peer, int error);
int happened(Run *run, Peer *peer, uint32_t events);
int happened_together(Run *run, struct epoll_event *events, int count);

/* loop.c; likewise */
int run_all(Run *run);
void take_gil(Run *run);
void give_gil(Run *run);
void set_free(Run *run, Peer *peer);

#endif
