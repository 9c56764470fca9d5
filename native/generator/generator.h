/* The load generator: declarations shared by its files.
 *
 *   module.c       the module bothends.bench._generator: the Python interface
 *   loop.c         the loop: schedule, waiting, timeouts
 *   connection.c   connections: connecting, sending requests, receiving answers
 *   tls.c          TLS, without a socket
 *   openssl.c      the functions of OpenSSL
 *   uring_batch.c  many recv() or send() calls with one system call
 *   tracker.c      answers and their faults
 *   http.c         HTTP/1.1 responses
 *   requests.c     outstanding requests, and what is counted of an answer
 *   run.c          the clock, the GIL, idle connections
 *
 * It implements the contract of src/bothends/bench/generators/base.py, and tracker.c and requests.c count
 * as request_tracker.py does: the same tests check both. It shares no code with the C core of the servers, so that
 * a bug in one cannot be hidden by the same bug in the other.
 *
 * 1. One thread, without the GIL: it is acquired only to report progress and to fetch the next times of a
 *    schedule. All state belongs to one call of run(), so calls in several threads don't share any. A
 *    free-threaded Python enables the GIL when it imports the module all the same (no Py_MOD_GIL_NOT_USED),
 *    because nothing is tested without.
 * 2. Requests and answers are rings of messages stored back to back, so several are sent from there by one
 *    system call, and received data is compared with the answers in place.
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

#include "tls.h"

#define SECOND 1000000000LL

/* In the order of the faults in generators/native.py. */
enum fault {
    FAULT_REFUSED,
    FAULT_RESET,
    FAULT_SILENT,
    FAULT_TIMED_OUT,
    FAULT_LOST,
    FAULT_SHORT,
    FAULT_WRONG,
    FAULT_DUPLICATED,
    FAULT_REORDERED,
    FAULT_LATE,
    FAULT_OUT_OF_PORTS,
    FAULT_WRONG_STATUS,
    FAULT_MALFORMED,
    FAULT_COUNT
};

/* Why a response is malformed, in the order of `http_response.MALFORMED`. */
enum malformed {
    MALFORMED_STATUS_LINE,
    MALFORMED_FIELD,
    MALFORMED_LENGTH,
    MALFORMED_CODING,
    MALFORMED_CHUNK,
    MALFORMED_LINE_END,
    MALFORMED_TOO_LONG,
    MALFORMED_COUNT,
    WELL_FORMED = MALFORMED_COUNT
};

enum { HTTP_STATUSES = 600 };

/* As in histogram.py. */
enum { HISTOGRAM_HALF = 1024, HISTOGRAM_BUCKETS = 33 * HISTOGRAM_HALF };
#define HISTOGRAM_MAX (3600 * SECOND)

typedef struct {
    uint64_t counts[HISTOGRAM_BUCKETS];
} Histogram;

/* Latencies over time, as in heat_map.py: a row for each eighth of an octave, a column for each slice of time. */
enum { HEAT_ROWS = 42 * 8, HEAT_COLUMNS = 120 };

/* Messages back to back: message i starts at offsets[i]; offsets[length] is the end of the last. */
typedef struct {
    const char *bytes;
    const int64_t *offsets;
} Messages;

/* An outstanding request. `sent`: the start of its uncorrected latency; `written`: when it was written, which is
 * later if a connection was opened for it. */
typedef struct {
    int64_t number, due, sent, written;
} Pending;

enum state { CLOSED, CONNECTING, HANDSHAKING, CONNECTED };

typedef struct HttpReader HttpReader; /* the response that a connection receives */
typedef struct HttpCheck HttpCheck;   /* what responses must be, and their counts */

typedef struct {
    int fd;
    enum state state;
    bool resync;        /* a mismatch has occurred: answers are checked one by one */
    bool desynced;      /* further data cannot be assigned to requests */
    bool answered;      /* an answer has been received on this connection */
    bool in_send_batch; /* in `send_batch` */
    bool idle;          /* open loop: in `idle_connections` */
    bool wants_write;   /* registered for EPOLLOUT */
    bool closing;       /* HTTP: the last response closes the connection */
    int64_t next_request;
    int64_t first_unsent;  /* the first request not completely sent */
    int64_t write_offset;  /* bytes of it that are sent */
    int64_t answer_offset; /* bytes received of the current answer, unless `resync` */
    int64_t last_answered; /* the highest request that was answered */
    int64_t first_byte;    /* when the first byte of the current answer was received */
    HttpReader *http;      /* NULL unless `Run.http` */
    Tls *tls;              /* NULL unless `Run.tls`, and before the handshake */
    Pending *pending;      /* a ring of `depth` requests, the oldest at `pending_head` */
    uint32_t pending_head, pending_count;
    char *partial; /* the beginning of an answer, if `resync` */
    int64_t partial_size, partial_capacity;
    int64_t *expired; /* requests that timed out and may still be answered: a ring of the workload's length */
    int64_t expired_count;
    int64_t idle_since; /* when the connect began, or the connection became idle */
    int64_t due;        /* with `reconnect`: the due time of the request it connects for; -1 for none */
    int64_t remaining;  /* with `reconnect`: requests still to be sent on it */
    int64_t reconnect_delay, reconnect_at;
} Connection;

typedef struct Batch Batch;

typedef struct {
    /* Parameters. */
    int family, type, protocol, nodelay, receive_buffer;
    struct sockaddr_storage address;
    socklen_t address_size;
    const uint32_t *sources; /* source addresses in network byte order, used in turn */
    Py_ssize_t source_count, source;
    int64_t length; /* messages of the workload */
    Messages requests, answers;
    int64_t max_answer; /* bytes of the longest answer */
    int end_byte;       /* the last byte of every answer, or -1 */
    bool numbered, message_oriented, reconnect, allow_batch;
    int64_t requests_per_connection; /* with `reconnect` */
    uint32_t connection_count, depth;
    int64_t begin_at, start, stop, timeout, unresponsive_after;
    HttpCheck *http; /* NULL: answers are compared with `answers` */
    TlsContext *tls; /* NULL: no TLS */
    PyObject *times; /* an iterator of buffers of int64, or NULL for a closed loop */
    PyObject *on_progress, *on_measurement_start, *on_measurement_end;

    /* Results. */
    int64_t faults[FAULT_COUNT];
    Histogram *uncorrected, *corrected, *lateness;
    Histogram *wait, *first_byte, *transfer; /* the parts: due to written, to the first byte, to the last */
    uint32_t *heat;                          /* HEAT_COLUMNS times HEAT_ROWS */
    int64_t *seconds;
    int64_t second_count;
    int64_t answered, completed, bytes, unsent_dues, connections_made;
    double cpu, run_queue_wait, wall;
    int last_error; /* errno of the last failed or broken connection; 0 after an answer; EPROTO: TLS */
    char tls_reason[TLS_REASON_SIZE]; /* of EPROTO */
    bool unresponsive;
    int64_t last_answer;

    /* State. */
    bool caught_up; /* all received data has been processed: a missing answer is late */
    Connection *connections;
    int epoll;
    char *buffer, *plaintext; /* BUFFER_SIZE; with `tls`: TLS_RECORD */
    Batch *batch;             /* NULL: one system call per operation */
    size_t recv_slot_size;    /* with `batch`: bytes of `buffer` for each connection */
    Connection **send_batch;
    uint32_t send_batch_count;
    bool batching_sends; /* requests are collected in `send_batch` */
    uint32_t *idle_connections;
    uint32_t idle_head, idle_count;
    bool sending;
    uint32_t reconnecting; /* closed connections with a `reconnect_at` */
    Py_buffer times_chunk;
    const int64_t *chunk_times;
    int64_t chunk_count, chunk_at, next_due;
    bool has_chunk;
    PyThreadState *thread_state;
} Run;

/* MIN_RECV_SLOT: bytes that one connection can receive at least. */
enum { BUFFER_SIZE = 1024 * 1024, BATCH_SIZE = 256, MIN_RECV_SLOT = 2048 };

#define MIN_RECONNECT_DELAY 5000000LL /* 5 ms, doubled after each failure */

/* run.c */
int64_t now_ns(void);
void acquire_gil(Run *run);
void release_gil(Run *run);
void mark_idle(Run *run, Connection *connection);

/* requests.c */
void histogram_add(Histogram *histogram, int64_t nanoseconds);
Pending *pending_at(const Run *run, const Connection *connection, uint32_t position);
Pending pop_oldest(const Run *run, Connection *connection);
Pending remove_pending(const Run *run, Connection *connection, uint32_t index);
void count_answer(Run *run, const Connection *connection, Pending request, int64_t received_at, int64_t size);

/* tracker.c */
void tracker_reset(Connection *connection);
void tracker_add(Run *run, Connection *connection, int64_t due, int64_t sent, int64_t written);
void tracker_receive(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at);
void tracker_close(Run *run, Connection *connection);
int64_t tracker_expire(Run *run, Connection *connection, int64_t before);

/* http.c */
HttpCheck *http_check_new(const char *allowed, bool no_body, const char *body, int64_t length);
void http_check_free(HttpCheck *check);
const int64_t *http_statuses(const HttpCheck *check);
const int64_t *http_malformed(const HttpCheck *check);
int64_t http_closes(const HttpCheck *check);
int64_t http_expected_size(const HttpCheck *check);
HttpReader *http_reader_new(void);
void http_reader_free(HttpReader *reader);
void http_reader_reset(HttpReader *reader);
bool http_is_partial(const HttpReader *reader);
void http_receive(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at);
void http_end(Run *run, Connection *connection, int64_t received_at);

/* uring_batch.c */
Batch *batch_open(void);
void batch_close(Batch *batch);
void batch_recv(Batch *batch, int fd, void *data, size_t size);
void batch_send(Batch *batch, int fd, const void *data, size_t size);
int batch_run(Batch *batch, int32_t *results);

/* connection.c; an int is 0, or -1 with an exception set */
int connect_peer(Run *run, Connection *connection, int64_t now, int64_t due);
int send_requests(Run *run, Connection *connection, int64_t count, int64_t due, int64_t sent, int64_t now);
int on_slots_freed(Run *run, Connection *connection, int64_t count, int64_t now);
void on_connect_failed(Run *run, Connection *connection, int error);
int restart_conversation(Run *run, Connection *connection, int64_t now);
int on_closed(Run *run, Connection *connection, int error);
void send_close_notify(Connection *connection);
int on_event(Run *run, Connection *connection, uint32_t events);
int on_events_batched(Run *run, struct epoll_event *events, int count);

/* loop.c; an int is 0, or -1 with an exception set */
int run_generator(Run *run);

#endif
