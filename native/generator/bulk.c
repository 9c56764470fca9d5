/* Bulk transfers: as much data as the path takes, every received byte compared, TCP_INFO sampled meanwhile. The
 * counterpart of generators/bulk_python.py; the function transfer() of the module.
 *
 * One thread, without the GIL, which is acquired only to report progress. Sockets are opened and closed by the
 * caller. Data to send and data that must come are blocks that repeat after a period; their first `chunk` bytes
 * follow once more, so that a piece of up to `chunk` bytes can start anywhere.
 */
#include "bulk.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "generator.h"

enum { EVENTS = 64, MAX_CIPHERTEXT = 64 * 1024 };

#define PROGRESS_INTERVAL 200000000LL /* 0.2 s */

/* Why the last connection has ended, in the order of `_CAUSES` in bulk_native.py; CAUSE_TLS has a reason. */
enum cause { CAUSE_CLOSED, CAUSE_NOT_SENT, CAUSE_OTHER_BYTES, CAUSE_ERRNO, CAUSE_TLS, CAUSE_NONE };

typedef struct {
    int fd;
    bool closed, handshaking;
    Tls *tls;             /* NULL: no TLS */
    uint32_t interest;    /* events that epoll reports */
    int64_t written;      /* bytes passed to the kernel or to OpenSSL: no more can come back */
    int64_t sent;         /* of these, passed to the kernel */
    int64_t received;     /* all of them right */
    int64_t acked_before; /* tcpi_bytes_acked of the SYN and of the handshake of TLS */
} Stream;

/* Figures of a connection, and when they were sampled. */
typedef struct {
    uint32_t cwnd, mss, rtt, min_rtt, retransmissions;
    uint64_t delivery_rate;
    bool has_min_rtt, has_delivery_rate;
} Figures;

typedef struct {
    int64_t at, sent, received; /* ns since the start; totals */
    size_t figures, figure_count;
} Sample;

typedef struct {
    /* Parameters. */
    const char *sends, *answers; /* blocks; NULL: nothing is sent, nothing may come */
    int64_t send_period, answer_period, chunk;
    bool echoes; /* what is sent comes back */
    int64_t warmup, duration, timeout, interval;
    TlsContext *tls;
    PyObject *on_progress;

    /* Results. */
    int64_t reset, lost, wrong;
    enum cause cause;
    int64_t cause_number;             /* bytes, or an errno */
    char tls_reason[TLS_REASON_SIZE]; /* of CAUSE_TLS */
    Sample *samples;
    size_t sample_count, sample_capacity;
    Figures *figures;
    size_t figure_count, figure_capacity;
    double cpu, run_queue_wait;
    int64_t elapsed, sent, received;      /* of the measured time */
    int64_t sent_before, received_before; /* totals at its start */

    /* State. */
    Stream *streams;
    size_t count, open;
    int epoll;
    char *buffer, *plaintext;
    bool sending;
    int64_t start; /* of the measured time; 0: not yet, or over */
    int64_t reported, sample_due;
    PyThreadState *thread_state;
} Transfer;

/* Connections ----------------------------------------------------------------------------------------- */

static void set_interest(Transfer *transfer, Stream *stream, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.ptr = stream};

    if (stream->interest != interest)
        epoll_ctl(transfer->epoll, EPOLL_CTL_MOD, stream->fd, &event);
    stream->interest = interest;
}

/* Read TCP_INFO. Returns its size: older kernels have a shorter one, other sockets none. */
static socklen_t read_tcp_info(const Stream *stream, struct tcp_info *info)
{
    socklen_t size = sizeof *info;

    return stream->closed || getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, info, &size) < 0 ? 0 : size;
}

#define HAS_FIELD(size, field) ((size) >= offsetof(struct tcp_info, field) + sizeof((struct tcp_info *)0)->field)

/* End a connection with a fault; the caller closes its socket. */
static void fail(Transfer *transfer, Stream *stream, int64_t *fault, enum cause cause, int64_t number)
{
    ++*fault;
    transfer->cause = cause;
    transfer->cause_number = number;
    if (cause == CAUSE_TLS)
        tls_reason(stream->tls, transfer->tls_reason);
    stream->closed = true;
    transfer->open--;
    epoll_ctl(transfer->epoll, EPOLL_CTL_DEL, stream->fd, NULL);
    shutdown(stream->fd, SHUT_RDWR);
}

/* Data ------------------------------------------------------------------------------------------------ */

/* Compare received bytes, `chunk` at most. */
static void check(Transfer *transfer, Stream *stream, const char *data, int64_t size)
{
    if (transfer->answers == NULL || (transfer->echoes && size > stream->written - stream->received))
        fail(transfer, stream, &transfer->wrong, CAUSE_NOT_SENT, size);
    else if (memcmp(transfer->answers + stream->received % transfer->answer_period, data, (size_t)size) != 0)
        fail(transfer, stream, &transfer->wrong, CAUSE_OTHER_BYTES, stream->received);
    else
        stream->received += size;
}

/* Decrypt and compare what is received. */
static void check_ciphertext(Transfer *transfer, Stream *stream, const char *data, int64_t size)
{
    int64_t count;

    if (!tls_feed(stream->tls, data, size)) {
        fail(transfer, stream, &transfer->reset, CAUSE_ERRNO, ENOMEM);
        return;
    }
    if (stream->handshaking)
        return;
    while (!stream->closed && (count = tls_read(stream->tls, transfer->plaintext, TLS_RECORD)) != TLS_WAIT) {
        if (count > 0)
            check(transfer, stream, transfer->plaintext, count);
        else if (count == TLS_ENDED)
            fail(transfer, stream, &transfer->lost, CAUSE_CLOSED, 0);
        else
            fail(transfer, stream, &transfer->reset, CAUSE_TLS, 0);
    }
}

static void receive(Transfer *transfer, Stream *stream)
{
    size_t capacity = stream->tls != NULL ? MAX_CIPHERTEXT : (size_t)transfer->chunk;
    ssize_t size = recv(stream->fd, transfer->buffer, capacity, MSG_DONTWAIT);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size < 0)
        fail(transfer, stream, &transfer->reset, CAUSE_ERRNO, errno);
    else if (size == 0)
        fail(transfer, stream, &transfer->lost, CAUSE_CLOSED, 0);
    else if (stream->tls != NULL)
        check_ciphertext(transfer, stream, transfer->buffer, size);
    else
        check(transfer, stream, transfer->buffer, size);
}

/* Encrypt the next data to send, if there is no ciphertext left. */
static bool encrypt(Transfer *transfer, Stream *stream)
{
    while (transfer->sending && !stream->handshaking && stream->written - stream->sent < MAX_CIPHERTEXT) {
        if (!tls_write(stream->tls, transfer->sends + stream->written % transfer->send_period, TLS_RECORD))
            return false;
        stream->written += TLS_RECORD;
    }
    return true;
}

static void send_ciphertext(Transfer *transfer, Stream *stream)
{
    const char *data;
    size_t size = tls_unsent(stream->tls, &data);
    ssize_t done;

    if (size == 0 && !encrypt(transfer, stream)) {
        fail(transfer, stream, &transfer->reset, CAUSE_TLS, 0);
        return;
    }
    size = tls_unsent(stream->tls, &data);
    if (size == 0) {
        set_interest(transfer, stream, EPOLLIN);
        return;
    }
    done = send(stream->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done < 0 && errno != EAGAIN && errno != EINTR) {
        fail(transfer, stream, &transfer->reset, CAUSE_ERRNO, errno);
        return;
    }
    tls_sent(stream->tls, done < 0 ? 0 : (size_t)done);
    if (done == (ssize_t)size)
        stream->sent = stream->written;
}

static void send_next(Transfer *transfer, Stream *stream)
{
    ssize_t done;

    if (stream->tls != NULL) {
        send_ciphertext(transfer, stream);
        return;
    }
    if (!transfer->sending) {
        set_interest(transfer, stream, EPOLLIN);
        return;
    }
    done = send(stream->fd, transfer->sends + stream->written % transfer->send_period, (size_t)transfer->chunk,
                MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done >= 0)
        stream->sent = stream->written += done;
    else if (errno != EAGAIN && errno != EINTR)
        fail(transfer, stream, &transfer->reset, CAUSE_ERRNO, errno);
}

/* Figures --------------------------------------------------------------------------------------------- */

/* Return the bytes that a connection has sent: over TCP, that are acknowledged; with TLS, their plaintext. */
static int64_t sent_bytes(const Transfer *transfer, const Stream *stream)
{
    struct tcp_info info;

    if (transfer->sends != NULL && stream->tls == NULL
        && HAS_FIELD(read_tcp_info(stream, &info), tcpi_bytes_acked))
        return (int64_t)info.tcpi_bytes_acked - stream->acked_before;
    return stream->sent;
}

static void add_totals(const Transfer *transfer, int64_t *sent, int64_t *received)
{
    *sent = *received = 0;
    for (size_t i = 0; i < transfer->count; i++) {
        *sent += sent_bytes(transfer, transfer->streams + i);
        *received += transfer->streams[i].received;
    }
}

/* Make room for more elements of an array. Returns false if memory is short. */
static bool reserve(void *array, size_t *capacity, size_t needed, size_t size)
{
    void *grown;

    if (needed <= *capacity)
        return true;
    grown = PyMem_RawRealloc(*(void **)array, (needed + *capacity) * size);
    if (grown == NULL)
        return false;
    *(void **)array = grown;
    *capacity += needed;
    return true;
}

/* Sample all connections; without memory the samples end here. */
static void take_sample(Transfer *transfer, int64_t now)
{
    Sample sample = {.at = now - transfer->start, .figures = transfer->figure_count};

    if (!reserve(&transfer->samples, &transfer->sample_capacity, transfer->sample_count + 1, sizeof sample)
        || !reserve(&transfer->figures, &transfer->figure_capacity, transfer->figure_count + transfer->count,
                    sizeof(Figures)))
        return;
    add_totals(transfer, &sample.sent, &sample.received);
    for (size_t i = 0; i < transfer->count; i++) {
        struct tcp_info info;
        socklen_t size = read_tcp_info(transfer->streams + i, &info);

        if (!HAS_FIELD(size, tcpi_total_retrans))
            continue;
        transfer->figures[transfer->figure_count++] = (Figures){
            .cwnd = info.tcpi_snd_cwnd,
            .mss = info.tcpi_snd_mss,
            .rtt = info.tcpi_rtt,
            .retransmissions = info.tcpi_total_retrans,
            .has_min_rtt = HAS_FIELD(size, tcpi_min_rtt),
            .min_rtt = HAS_FIELD(size, tcpi_min_rtt) ? info.tcpi_min_rtt : 0,
            .has_delivery_rate = HAS_FIELD(size, tcpi_delivery_rate),
            .delivery_rate = HAS_FIELD(size, tcpi_delivery_rate) ? info.tcpi_delivery_rate : 0,
        };
        sample.figure_count++;
    }
    transfer->samples[transfer->sample_count++] = sample;
}

/* The loop -------------------------------------------------------------------------------------------- */

/* Check for signals, and report the bytes so far. Returns -1 with an exception set. */
static int report(Transfer *transfer, int64_t now)
{
    int64_t moved = 0;
    int failed;

    if (now - transfer->reported < PROGRESS_INTERVAL)
        return 0;
    transfer->reported = now;
    for (size_t i = 0; i < transfer->count; i++)
        moved += transfer->streams[i].received > 0 ? transfer->streams[i].received : transfer->streams[i].sent;
    PyEval_RestoreThread(transfer->thread_state);
    failed = PyErr_CheckSignals() < 0;
    if (!failed && transfer->on_progress != Py_None && transfer->start > 0) {
        PyObject *result = PyObject_CallFunction(transfer->on_progress, "LLL", (long long)(now - transfer->start),
                                                 (long long)moved,
                                                 (long long)(transfer->reset + transfer->lost + transfer->wrong));

        failed = result == NULL;
        Py_XDECREF(result);
    }
    transfer->thread_state = PyEval_SaveThread();
    return failed ? -1 : 0;
}

/* Wait for events up to a time, and move data. Returns -1 with an exception set. */
static int poll_streams(Transfer *transfer, int64_t now, int64_t until)
{
    struct epoll_event events[EVENTS];
    int64_t wait = until - now < transfer->interval / 4 ? until - now : transfer->interval / 4;
    int count = epoll_wait(transfer->epoll, events, EVENTS, (int)((wait + 999999) / 1000000));

    for (int i = 0; i < count; i++) {
        Stream *stream = events[i].data.ptr;

        if (!stream->closed && (events[i].events & ~(uint32_t)EPOLLOUT))
            receive(transfer, stream);
        if (!stream->closed && (events[i].events & EPOLLOUT))
            send_next(transfer, stream);
    }
    return report(transfer, now);
}

/* Complete the handshakes of TLS. Returns -1 with an exception set. */
static int shake_hands(Transfer *transfer)
{
    int64_t deadline = now_ns() + transfer->timeout;
    size_t left = transfer->count;

    while (left > 0) {
        int64_t now = now_ns();

        left = 0;
        for (size_t i = 0; i < transfer->count && transfer->cause == CAUSE_NONE; i++) {
            Stream *stream = transfer->streams + i;
            int result = stream->handshaking ? tls_handshake(stream->tls) : TLS_ENDED;

            if (result == TLS_FAILED)
                fail(transfer, stream, &transfer->reset, CAUSE_TLS, 0);
            stream->handshaking = result == TLS_WAIT;
            if (!stream->closed && tls_unsent(stream->tls, NULL) > 0) {
                send_ciphertext(transfer, stream);
                if (!stream->closed && tls_unsent(stream->tls, NULL) > 0)
                    set_interest(transfer, stream, EPOLLIN | EPOLLOUT);
            }
            left += stream->handshaking || (!stream->closed && tls_unsent(stream->tls, NULL) > 0);
        }
        if (transfer->cause != CAUSE_NONE || now >= deadline) {
            PyEval_RestoreThread(transfer->thread_state);
            if (transfer->cause == CAUSE_NONE) {
                PyErr_SetNone(PyExc_TimeoutError);
            } else if (transfer->cause == CAUSE_TLS) {
                PyErr_SetString(PyExc_ConnectionError, transfer->tls_reason);
            } else {
                errno = transfer->cause == CAUSE_ERRNO ? (int)transfer->cause_number : ECONNRESET;
                PyErr_SetFromErrno(PyExc_OSError);
            }
            transfer->thread_state = PyEval_SaveThread();
            return -1;
        }
        if (left > 0 && poll_streams(transfer, now, deadline) < 0)
            return -1;
    }
    return 0;
}

/* Move data until a time. Returns -1 with an exception set. */
static int move(Transfer *transfer, int64_t until)
{
    int64_t now;

    while ((now = now_ns()) < until && transfer->open > 0) {
        if (transfer->start > 0 && now >= transfer->sample_due) {
            take_sample(transfer, now);
            transfer->sample_due += transfer->interval;
            if (transfer->sample_due < now + transfer->interval / 2)
                transfer->sample_due = now + transfer->interval / 2;
        }
        if (poll_streams(transfer, now, until) < 0)
            return -1;
    }
    return 0;
}

static bool all_returned(const Transfer *transfer, int64_t *received)
{
    bool done = true;

    *received = 0;
    for (size_t i = 0; i < transfer->count; i++) {
        *received += transfer->streams[i].received;
        done =
            done && (transfer->streams[i].closed || transfer->streams[i].received >= transfer->streams[i].written);
    }
    return done;
}

/* Await the echo of what was sent: up to `timeout` without any of it. Returns -1 with an exception set. */
static int drain(Transfer *transfer)
{
    int64_t last = now_ns(), before = -1, received;

    transfer->sending = false;
    if (!transfer->echoes)
        return 0;
    while (!all_returned(transfer, &received)) {
        int64_t now = now_ns();

        if (received != before)
            last = now;
        before = received;
        if (now - last > transfer->timeout)
            break;
        if (poll_streams(transfer, now, last + transfer->timeout + 1) < 0)
            return -1;
    }
    for (size_t i = 0; i < transfer->count; i++)
        transfer->lost +=
            !transfer->streams[i].closed && transfer->streams[i].received < transfer->streams[i].written;
    return 0;
}

static void send_close_notifies(Transfer *transfer)
{
    for (size_t i = 0; i < transfer->count; i++) {
        Stream *stream = transfer->streams + i;
        const char *data;
        size_t size;

        if (stream->tls == NULL || stream->closed)
            continue;
        tls_close_notify(stream->tls);
        size = tls_unsent(stream->tls, &data);
        send(stream->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static int run_without_gil(Transfer *transfer)
{
    double cpu, run_queue_wait;

    if (transfer->tls != NULL && shake_hands(transfer) < 0)
        return -1;
    transfer->sending = transfer->sends != NULL;
    for (size_t i = 0; i < transfer->count; i++) {
        Stream *stream = transfer->streams + i;
        struct tcp_info info;

        if (HAS_FIELD(read_tcp_info(stream, &info), tcpi_bytes_acked))
            stream->acked_before = (int64_t)info.tcpi_bytes_acked;
        set_interest(transfer, stream, EPOLLIN | (transfer->sending ? EPOLLOUT : 0));
        if (stream->tls != NULL) /* data may have come with the end of the handshake */
            check_ciphertext(transfer, stream, "", 0);
    }
    if (move(transfer, now_ns() + transfer->warmup) < 0)
        return -1;
    transfer->start = now_ns();
    transfer->sample_due = transfer->start + transfer->interval;
    add_totals(transfer, &transfer->sent_before, &transfer->received_before);
    read_cpu_usage(&cpu, &run_queue_wait);
    if (move(transfer, transfer->start + transfer->duration) < 0)
        return -1;
    transfer->elapsed = now_ns() - transfer->start;
    add_totals(transfer, &transfer->sent, &transfer->received);
    read_cpu_usage(&transfer->cpu, &transfer->run_queue_wait);
    transfer->cpu -= cpu;
    transfer->run_queue_wait -= run_queue_wait;
    transfer->sent -= transfer->sent_before;
    transfer->received -= transfer->received_before;
    transfer->start = 0;
    if (drain(transfer) < 0)
        return -1;
    send_close_notifies(transfer);
    return 0;
}

/* The interface --------------------------------------------------------------------------------------- */

static PyObject *optional_number(bool given, uint64_t number)
{
    return given ? PyLong_FromUnsignedLongLong(number) : Py_NewRef(Py_None);
}

/* Return a list of (cwnd, mss, rtt, min_rtt, retransmissions, delivery_rate), one for each connection. */
static PyObject *figure_list(const Figures *figures, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);

    for (size_t i = 0; list != NULL && i < count; i++, figures++) {
        PyObject *item =
            Py_BuildValue("(IIININ)", figures->cwnd, figures->mss, figures->rtt,
                          optional_number(figures->has_min_rtt, figures->min_rtt), figures->retransmissions,
                          optional_number(figures->has_delivery_rate, figures->delivery_rate));

        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

/* Return a list of (nanoseconds since the start, bytes sent so far, received, list of figures). */
static PyObject *sample_list(const Transfer *transfer)
{
    PyObject *list = PyList_New((Py_ssize_t)transfer->sample_count);

    for (size_t i = 0; list != NULL && i < transfer->sample_count; i++) {
        const Sample *sample = transfer->samples + i;
        PyObject *item =
            Py_BuildValue("(LLLN)", (long long)sample->at, (long long)sample->sent, (long long)sample->received,
                          figure_list(transfer->figures + sample->figures, sample->figure_count));

        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *build_result(const Transfer *transfer)
{
    bool ended = transfer->open == 0 && transfer->cause != CAUSE_NONE;
    const char *tls_reason = ended && transfer->cause == CAUSE_TLS ? transfer->tls_reason : NULL;

    return Py_BuildValue(
        "{s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:N,s:L,s:z,s:d,s:d,s:N}", "elapsed", (long long)transfer->elapsed,
        "sent", (long long)transfer->sent, "received", (long long)transfer->received, "sent_before",
        (long long)transfer->sent_before, "received_before", (long long)transfer->received_before, "reset",
        (long long)transfer->reset, "lost", (long long)transfer->lost, "wrong", (long long)transfer->wrong,
        "cause", optional_number(ended, transfer->cause), "cause_number", (long long)transfer->cause_number,
        "tls_reason", tls_reason, "cpu", transfer->cpu, "run_queue_wait", transfer->run_queue_wait, "samples",
        sample_list(transfer));
}

/* Allocate the streams of an array of file descriptors, and watch them. Returns -1 with an exception set. */
static int open_streams(Transfer *transfer, const int *sockets)
{
    transfer->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (transfer->epoll < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    transfer->streams = PyMem_RawCalloc(transfer->count, sizeof *transfer->streams);
    transfer->buffer = PyMem_RawMalloc((size_t)transfer->chunk + MAX_CIPHERTEXT);
    transfer->plaintext = PyMem_RawMalloc(TLS_RECORD);
    if (transfer->streams == NULL || transfer->buffer == NULL || transfer->plaintext == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < transfer->count; i++) {
        Stream *stream = transfer->streams + i;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};

        stream->fd = sockets[i];
        stream->interest = EPOLLIN;
        stream->handshaking = transfer->tls != NULL;
        if (transfer->tls != NULL && (stream->tls = tls_new(transfer->tls)) == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        if (epoll_ctl(transfer->epoll, EPOLL_CTL_ADD, stream->fd, &event) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        transfer->open++;
    }
    return 0;
}

static void free_transfer(Transfer *transfer)
{
    for (size_t i = 0; transfer->streams != NULL && i < transfer->count; i++)
        tls_free(transfer->streams[i].tls);
    if (transfer->epoll >= 0)
        close(transfer->epoll);
    PyMem_RawFree(transfer->streams);
    PyMem_RawFree(transfer->buffer);
    PyMem_RawFree(transfer->plaintext);
    PyMem_RawFree(transfer->samples);
    PyMem_RawFree(transfer->figures);
}

/* Whether a block repeats after its period, as far as pieces of `chunk` bytes reach. */
static bool is_block(const Py_buffer *block, int64_t period, int64_t chunk)
{
    return block->len == 0 || (period > 0 && chunk >= TLS_RECORD && block->len == period + chunk);
}

const char transfer_doc[] =
    "transfer(*, sockets, sends, send_period, answers, answer_period, chunk, echoes, tls, warmup, duration, timeout,\n"
    "    interval, on_progress) -> dict\n\n"
    "Move data on connected sockets, an array of file descriptors. `sends` and `answers`: blocks that repeat after\n"
    "their period and have `chunk` bytes more, or b\"\"; `echoes`: no more may come back than was sent, and all of\n"
    "it is awaited. Times are in nanoseconds. Raises ConnectionError or OSError if a handshake of TLS fails,\n"
    "TimeoutError if it takes too long. See bothends.bench.generators.bulk_native.";

PyObject *transfer(PyObject *module, PyObject *arguments, PyObject *names)
{
    static char *keywords[] = {"sockets", "sends",    "send_period", "answers", "answer_period",
                               "chunk",   "echoes",   "tls",         "warmup",  "duration",
                               "timeout", "interval", "on_progress", NULL};
    Py_buffer sockets, sends, answers;
    long long send_period, answer_period, chunk, warmup, duration, timeout, interval;
    int echoes, failed;
    Transfer transfer = {.epoll = -1, .cause = CAUSE_NONE};
    PyObject *tls, *result = NULL;

    if (!PyArg_ParseTupleAndKeywords(arguments, names, "$y*y*Ly*LLpOLLLLO", keywords, &sockets, &sends,
                                     &send_period, &answers, &answer_period, &chunk, &echoes, &tls, &warmup,
                                     &duration, &timeout, &interval, &transfer.on_progress))
        return NULL;
    transfer.sends = sends.len > 0 ? sends.buf : NULL;
    transfer.answers = answers.len > 0 ? answers.buf : NULL;
    transfer.send_period = send_period;
    transfer.answer_period = answer_period;
    transfer.chunk = chunk;
    transfer.echoes = echoes;
    transfer.warmup = warmup;
    transfer.duration = duration;
    transfer.timeout = timeout;
    transfer.interval = interval;
    transfer.count = (size_t)sockets.len / sizeof(int);
    transfer.tls = tls_context_of(tls);
    if (!PyErr_Occurred()
        && (!is_block(&sends, send_period, chunk) || !is_block(&answers, answer_period, chunk) || interval <= 0))
        PyErr_SetString(PyExc_ValueError, "the periods do not match the blocks");
    if (!PyErr_Occurred() && open_streams(&transfer, sockets.buf) == 0) {
        transfer.thread_state = PyEval_SaveThread();
        failed = run_without_gil(&transfer);
        PyEval_RestoreThread(transfer.thread_state);
        if (!failed)
            result = build_result(&transfer);
    }
    free_transfer(&transfer);
    PyBuffer_Release(&sockets);
    PyBuffer_Release(&sends);
    PyBuffer_Release(&answers);
    return result;
}
