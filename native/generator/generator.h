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

enum fault { FAULT_REFUSED, FAULT_RESET, FAULT_SILENT, FAULT_TIMED_OUT, FAULT_LOST, FAULT_SHORT, FAULT_WRONG, FAULT_DUPLICATED, FAULT_REORDERED, FAULT_LATE, FAULT_COUNT };

/* histogram.py: HALF, PLACES and HIGHEST. */
enum { HISTOGRAM_HALF = 1024, HISTOGRAM_BUCKETS = 33 * HISTOGRAM_HALF };
#define HISTOGRAM_MAX (3600 * SECOND)

typedef struct {
    uint64_t counts[HISTOGRAM_BUCKETS];
} Histogram;

/* Messages one after the other: number i begins at offsets[i], offsets[length] is the end of the last. */
typedef struct {
    const char *bytes;
    const int64_t *offsets;
} Messages;

/* A request that is open. */
typedef struct {
    int64_t number, due, sent;
} Pending;

enum state { CLOSED, CONNECTING, CONNECTED };

typedef struct {
    int fd;
    enum state state;
    bool resync;  /* answers are looked at one by one */
    bool desynced;   /* what comes next can't be told from what came before */
    bool answered; /* on this connection */
    bool in_send_batch; /* it has something to send with the batch */
    bool idle;  /* open loop: it stands in the queue of those that can take a request */
    bool wants_write;
    int64_t next_request;    /* number of the next request */
    int64_t first_unsent;  /* number of the first that is not wholly sent */
    int64_t write_offset;     /* bytes of that one that are */
    int64_t answer_offset;      /* bytes of the answer at hand that have come, while all is well */
    int64_t last_answered; /* number of the latest that was answered */
    Pending *pending;      /* a ring of `depth`, the oldest at `first` */
    uint32_t pending_head, pending_count;
    char *partial; /* the beginning of an answer, while careful */
    int64_t partial_size, partial_capacity;
    int64_t *expired; /* given up, but may still come: a ring of the workload's length */
    int64_t expired_count;
    int64_t idle_since; /* begun, or become free */
    int64_t due;   /* with `reconnect`: of the request for which it connects; -1 for none */
    int64_t remaining;  /* with `reconnect`: requests that are still to be sent on it */
    int64_t reconnect_delay, reconnect_at;
} Connection;

typedef struct Batch Batch;

typedef struct {
    /* What is asked for. */
    int family, type, protocol, nodelay, receive_buffer;
    struct sockaddr_storage address;
    socklen_t address_size;
    const uint32_t *sources; /* network byte order; connections come from these in turn */
    Py_ssize_t source_count, source;
    int64_t length; /* of the workload */
    Messages requests, answers;
    int64_t max_answer; /* answer */
    int end_byte;         /* the byte that ends every answer, or -1 */
    bool numbered, message_oriented, reconnect, allow_batch;
    int64_t requests_per_connection; /* requests of a conversation, with `reconnect` */
    uint32_t connection_count, depth;
    int64_t begin_at, start, stop, timeout, unresponsive_after;
    PyObject *times; /* an iterator of buffers of int64, or NULL for a closed loop */
    PyObject *on_progress, *on_measurement_start, *on_measurement_end;

    /* What it gives. */
    int64_t faults[FAULT_COUNT];
    Histogram *uncorrected, *corrected, *lateness;
    int64_t *seconds;
    int64_t second_count;
    int64_t answered, completed, bytes, unsent_dues, connections_made;
    double cpu, run_queue_wait, wall;
    int last_error; /* errno; 0 for none since the last answer */
    bool unresponsive;
    int64_t last_answer;

    /* What it works with. */
    bool caught_up; /* with all that has come: what isn't there is late */
    Connection *connections;
    int epoll;
    char *buffer;
    Batch *batch; /* NULL: system calls one by one */
    size_t recv_slot_size;  /* with it: the part of the buffer that is one connection's */
    Connection **send_batch;
    uint32_t send_batch_count;
    bool batching_sends; /* what is sent waits for the batch */
    uint32_t *idle_connections;
    uint32_t idle_head, idle_count;
    bool sending;
    uint32_t reconnecting; /* peers that are closed and to be opened again */
    Py_buffer times_chunk;
    const int64_t *chunk_times;
    int64_t chunk_count, chunk_at, next_due;
    bool has_chunk;
    PyThreadState *thread_state;
} Run;

/* SMALL: the least room for what one connection receives. */
enum { BUFFER_SIZE = 1024 * 1024, BATCH_SIZE = 256, MIN_RECV_SLOT = 2048 };

#define MIN_RECONNECT_DELAY 5000000LL /* before a broken connection is opened again; doubled each time */

int64_t now_ns(void);

/* tracker.c */
void histogram_add(Histogram *histogram, int64_t nanoseconds);
void tracker_reset(Connection *connection);
void tracker_add(Run *run, Connection *connection, int64_t due, int64_t sent);
void tracker_receive(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at);
void tracker_close(Run *run, Connection *connection);
int64_t tracker_expire(Run *run, Connection *connection, int64_t before);

/* uring_batch.c */
Batch *batch_open(void);
void batch_close(Batch *batch);
void batch_recv(Batch *batch, int fd, void *data, size_t size);
void batch_send(Batch *batch, int fd, const void *data, size_t size);
int batch_run(Batch *batch, int32_t *results);

/* connection.c; int is 0, or -1 with the exception set */
int connect_peer(Run *run, Connection *connection, int64_t now, int64_t due);
int send_requests(Run *run, Connection *connection, int64_t count, int64_t due, int64_t now);
int on_slots_freed(Run *run, Connection *connection, int64_t count, int64_t now);
void on_connect_failed(Run *run, Connection *connection, int error);
int restart_conversation(Run *run, Connection *connection, int64_t now);
int on_closed(Run *run, Connection *connection, int error);
int on_event(Run *run, Connection *connection, uint32_t events);
int on_events_batched(Run *run, struct epoll_event *events, int count);

/* loop.c; likewise */
int run_generator(Run *run);
void acquire_gil(Run *run);
void release_gil(Run *run);
void mark_idle(Run *run, Connection *connection);

#endif
