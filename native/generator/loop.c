/* The loop of the generator: schedule, waiting, timeouts. The counterpart of generators/python.py.
 *
 * The run ends early if connections fail and no answer has been received for `unresponsive_after`.
 */
#include "generator.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PROGRESS_INTERVAL 200000000LL /* 0.2 s */
#define MAX_WAIT 50000000LL           /* 50 ms: interval of the checks besides events */

/* At most a record's bytes besides its plaintext, with any cipher (RFC 8446, section 5.2; RFC 5246, 6.2.3). */
#define TLS_OVERHEAD 64

/* 0.1 s: after the end of sending, more of one iteration does not count as waiting for answers: this process was
 * suspended. */
#define MAX_COUNTED_ITERATION 100000000LL

/* Read the seconds this thread has used a CPU, and has waited for one in the run queue (/proc/pid/schedstat). */
static void read_cpu_usage(double *used, double *run_queue_wait)
{
    struct timespec now;
    unsigned long long ran = 0, waited = 0;
    FILE *line = fopen("/proc/thread-self/schedstat", "re");

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    *used = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    if (line != NULL) {
        if (fscanf(line, "%llu %llu", &ran, &waited) != 2)
            waited = 0;
        fclose(line);
    }
    *run_queue_wait = (double)waited * 1e-9;
}

static int call(Run *run, PyObject *function)
{
    PyObject *result;

    if (function == Py_None)
        return 0;
    acquire_gil(run);
    result = PyObject_CallNoArgs(function);
    Py_XDECREF(result);
    release_gil(run);
    return result == NULL ? -1 : 0;
}

/* Schedule ------------------------------------------------------------------------------------------- */

/* Fetch the next buffer of due times. Call with the GIL held. */
static int fetch_times(Run *run)
{
    PyObject *chunk;

    if (run->has_chunk)
        PyBuffer_Release(&run->times_chunk);
    run->has_chunk = false;
    chunk = PyIter_Next(run->times);
    if (chunk == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the schedule has ended");
        return -1;
    }
    if (PyObject_GetBuffer(chunk, &run->times_chunk, PyBUF_C_CONTIGUOUS) < 0) {
        Py_DECREF(chunk);
        return -1;
    }
    Py_DECREF(chunk);
    run->has_chunk = true;
    run->chunk_times = run->times_chunk.buf;
    run->chunk_count = run->times_chunk.len / (Py_ssize_t)sizeof(int64_t);
    run->chunk_at = 0;
    return 0;
}

/* Set `next_due` to the next time of the schedule. */
static int advance_due(Run *run)
{
    int failed = 0;

    run->chunk_at++;
    while (run->chunk_at >= run->chunk_count && !failed) {
        acquire_gil(run);
        failed = fetch_times(run);
        release_gil(run);
    }
    if (!failed)
        run->next_due = run->begin_at + run->chunk_times[run->chunk_at];
    return failed;
}

/* Count the requests that were due and never sent. */
static int count_unsent_dues(Run *run)
{
    while (run->next_due < run->stop) {
        run->unsent_dues++;
        if (advance_due(run) < 0)
            return -1;
    }
    return 0;
}

static Connection *pop_idle(Run *run)
{
    Connection *connection = run->connections + run->idle_connections[run->idle_head];

    run->idle_head = (run->idle_head + 1) % run->connection_count;
    run->idle_count--;
    connection->idle = false;
    return connection;
}

/* Send the requests that are due, as long as connections are idle. */
static int send_due(Run *run, int64_t now)
{
    while (run->next_due <= now && run->idle_count && run->next_due < run->stop) {
        Connection *connection = pop_idle(run);
        int64_t earliest = run->next_due > connection->idle_since ? run->next_due : connection->idle_since;

        if (!run->reconnect && (connection->state != CONNECTED || connection->pending_count == run->depth))
            continue;
        if (run->next_due >= run->start)
            histogram_add(run->lateness, now - earliest);
        if (run->reconnect ? connect_peer(run, connection, now, run->next_due)
                           : send_requests(run, connection, 1, run->next_due, now, now))
            return -1;
        if (advance_due(run) < 0)
            return -1;
        if (!run->reconnect && connection->state == CONNECTED && connection->pending_count < run->depth)
            mark_idle(run, connection);
        now = now_ns();
    }
    return 0;
}

/* Timeouts and progress ------------------------------------------------------------------------------ */

/* Count the requests sent before `before` as unanswered. */
static int64_t expire_requests(Run *run, Connection *connection, int64_t before)
{
    int64_t count = connection->state == CONNECTED ? tracker_expire(run, connection, before) : 0;

    run->faults[run->type == SOCK_STREAM ? FAULT_TIMED_OUT : FAULT_LOST] += count;
    return count;
}

/* Expire connects and requests that have timed out. */
static int check_timeouts(Run *run, int64_t now)
{
    for (Connection *connection = run->connections; connection < run->connections + run->connection_count;
         connection++) {
        int64_t count;

        if ((connection->state == CONNECTING || connection->state == HANDSHAKING)
            && now - connection->idle_since > run->timeout)
            on_connect_failed(run, connection, ETIMEDOUT);
        if (connection->state != CONNECTED || (count = expire_requests(run, connection, now - run->timeout)) == 0)
            continue;
        if (run->reconnect || connection->desynced ? on_closed(run, connection, 0)
                                                   : on_slots_freed(run, connection, count, now))
            return -1;
    }
    return 0;
}

/* Reopen the connections whose backoff delay is over. */
static int reconnect_due(Run *run, int64_t now)
{
    for (Connection *connection = run->connections;
         run->reconnecting && connection < run->connections + run->connection_count; connection++) {
        if (connection->reconnect_at == 0 || connection->reconnect_at > now)
            continue;
        connection->reconnect_at = 0;
        run->reconnecting--;
        if (run->sending
            && (run->reconnect ? restart_conversation(run, connection, now)
                               : connect_peer(run, connection, now, -1)))
            return -1;
    }
    return 0;
}

/* Report progress, check for signals, and detect an unresponsive target. */
static int report_progress(Run *run, int64_t now, int64_t *last_answered_count)
{
    PyObject *result;
    int64_t faults = 0;

    if (run->answered != *last_answered_count) {
        *last_answered_count = run->answered;
        run->last_answer = now;
        run->last_error = 0;
    }
    if (run->last_error && now - run->last_answer > run->unresponsive_after && run->sending)
        run->unresponsive = true;
    for (int i = 0; i < FAULT_COUNT; i++)
        faults += run->faults[i];
    acquire_gil(run);
    if (PyErr_CheckSignals() < 0)
        result = NULL;
    else if (run->on_progress == Py_None)
        result = Py_NewRef(Py_None);
    else
        result = PyObject_CallFunction(run->on_progress, "LLL", (long long)(now - run->begin_at),
                                       (long long)run->answered, (long long)faults);
    Py_XDECREF(result);
    release_gil(run);
    return result == NULL ? -1 : 0;
}

/* Wait for events, at most until the next request is due. */
static int wait_events(Run *run, struct epoll_event *events)
{
    int64_t wait_ns = MAX_WAIT;
    int count = epoll_wait(run->epoll, events, BATCH_SIZE, 0);
    struct timespec timespec;

    if (count != 0)
        return count;
    if (run->times != NULL && run->sending && run->idle_count) {
        int64_t due = run->next_due - now_ns();

        wait_ns = due < 0 ? 0 : due < wait_ns ? due : wait_ns;
    }
    if (wait_ns == 0)
        return 0;
    timespec = (struct timespec){wait_ns / SECOND, wait_ns % SECOND};
#ifdef SYS_epoll_pwait2
    count = (int)syscall(SYS_epoll_pwait2, run->epoll, events, BATCH_SIZE, &timespec, NULL, (size_t)8);
    if (count >= 0 || errno != ENOSYS)
        return count;
#endif
    return epoll_wait(run->epoll, events, BATCH_SIZE, (int)(wait_ns / 1000000));
}

static bool all_answered(const Run *run)
{
    for (const Connection *connection = run->connections; connection < run->connections + run->connection_count;
         connection++)
        if (connection->state != CLOSED && (connection->due >= 0 || connection->pending_count))
            return false;
    return true;
}

static int poll_once(Run *run)
{
    struct epoll_event events[BATCH_SIZE];
    int count = wait_events(run, events);

    if (count < 0 && errno != EINTR) {
        acquire_gil(run);
        PyErr_SetFromErrno(PyExc_OSError);
        release_gil(run);
        return -1;
    }
    run->caught_up = count < BATCH_SIZE;
    if (run->batch != NULL && count > 1 && on_events_batched(run, events, count) < 0)
        return -1;
    for (int i = 0; i < count; i++)
        if (events[i].events && on_event(run, events[i].data.ptr, events[i].events) < 0)
            return -1;
    return 0;
}

static int connect_all(Run *run)
{
    int64_t deadline = now_ns() + (run->timeout > SECOND ? run->timeout : SECOND);
    bool waiting = true;

    for (uint32_t i = 0; i < run->connection_count; i++)
        if (connect_peer(run, run->connections + i, now_ns(), -1) < 0)
            return -1;
    while (waiting && now_ns() < deadline) {
        waiting = false;
        for (uint32_t i = 0; i < run->connection_count && !waiting; i++)
            waiting = run->connections[i].state == CONNECTING || run->connections[i].state == HANDSHAKING;
        if (waiting && poll_once(run) < 0)
            return -1;
    }
    return 0;
}

static int start_sending(Run *run)
{
    int64_t now = now_ns();

    run->sending = true;
    for (Connection *connection = run->connections; connection < run->connections + run->connection_count;
         connection++) {
        if (run->times != NULL && (run->reconnect || connection->state == CONNECTED)) {
            connection->idle_since = now;
            mark_idle(run, connection);
        } else if (run->times == NULL && run->reconnect) {
            if (connect_peer(run, connection, now, now) < 0)
                return -1;
        } else if (run->times == NULL && connection->state == CONNECTED
                   && send_requests(run, connection, run->depth, now, now, now) < 0) {
            return -1;
        }
    }
    return 0;
}

static int main_loop(Run *run)
{
    int64_t last_progress = run->begin_at, last_timeout_check = run->begin_at, previous = run->begin_at,
            drained = 0, last_answered_count = 0, measured_from = 0;
    int64_t check_interval = run->timeout / 8 > 5000000 ? run->timeout / 8 : 5000000;
    double cpu = 0, run_queue_wait = 0;
    bool measured = false;

    for (;;) {
        int64_t now = now_ns();

        if (!measured && now >= run->start) {
            measured = true;
            measured_from = now;
            read_cpu_usage(&cpu, &run_queue_wait);
            if (call(run, run->on_measurement_start) < 0)
                return -1;
        }
        if (run->sending && (now >= run->stop || run->unresponsive)) {
            run->sending = false;
            if (measured) {
                read_cpu_usage(&run->cpu, &run->run_queue_wait);
                run->cpu -= cpu;
                run->run_queue_wait -= run_queue_wait;
                run->wall = (double)(now - measured_from) * 1e-9;
                if (call(run, run->on_measurement_end) < 0)
                    return -1;
            }
        }
        if (!run->sending && (run->unresponsive || all_answered(run) || drained > run->timeout))
            break;
        if (!run->sending)
            drained += now - previous < MAX_COUNTED_ITERATION ? now - previous : MAX_COUNTED_ITERATION;
        previous = now;
        if (run->sending && run->times != NULL && send_due(run, now) < 0)
            return -1;
        if (poll_once(run) < 0)
            return -1;
        if (now - last_timeout_check >= check_interval && run->caught_up) {
            last_timeout_check = now;
            if (check_timeouts(run, now) < 0)
                return -1;
        }
        if (run->reconnecting && reconnect_due(run, now) < 0)
            return -1;
        if (now - last_progress >= PROGRESS_INTERVAL) {
            last_progress = now;
            if (report_progress(run, now, &last_answered_count) < 0)
                return -1;
        }
    }
    for (Connection *connection = run->connections; connection < run->connections + run->connection_count;
         connection++)
        expire_requests(run, connection, now_ns() + 1);
    return run->times != NULL ? count_unsent_dues(run) : 0;
}

static int run_without_gil(Run *run)
{
    if (run->allow_batch && !run->message_oriented && !run->reconnect) {
        /* Twice the answers that may be outstanding, limited to a sixteenth of the buffer. */
        int64_t overhead = run->tls != NULL ? TLS_OVERHEAD : 0;

        run->recv_slot_size = (size_t)(2 * (run->max_answer + overhead) * run->depth);
        run->recv_slot_size = run->recv_slot_size < MIN_RECV_SLOT      ? MIN_RECV_SLOT
                              : run->recv_slot_size > BUFFER_SIZE / 16 ? BUFFER_SIZE / 16
                                                                       : run->recv_slot_size;
        run->batch = batch_open();
    }
    if (!run->reconnect && connect_all(run) < 0)
        return -1;
    if (run->begin_at == 0)
        run->begin_at = now_ns();
    run->start += run->begin_at; /* so far relative to the begin */
    run->stop += run->begin_at;
    run->last_answer = run->begin_at;
    for (int64_t wait_ns; (wait_ns = run->begin_at - now_ns()) > 0;) {
        struct timespec timespec = {wait_ns / SECOND, wait_ns % SECOND};

        nanosleep(&timespec, NULL);
    }
    if (run->times != NULL) {
        run->chunk_at = -1;
        prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* wake up on time, not 50 us later (prctl(2)) */
        if (advance_due(run) < 0)
            return -1;
    }
    return start_sending(run) < 0 ? -1 : main_loop(run);
}

int run_generator(Run *run)
{
    int result;

    release_gil(run);
    result = run_without_gil(run);
    acquire_gil(run);
    return result;
}
