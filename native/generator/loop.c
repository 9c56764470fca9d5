/* When to send, how long to wait, and when it is over: python.py in C, as far as it concerns all peers.
 *
 * When nobody has answered for `gone_after` and connections are refused, the run ends.
 */
#include "generator.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WATCH_EACH 200000000LL
#define LONGEST_WAIT 50000000LL /* so often it is looked what else is due */
#define LONGEST_TURN 100000000LL /* of waiting that counts: the rest is time in which we were held up */

int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* Seconds that this thread has had a processor, and that it has waited for one (/proc/pid/schedstat). */
static void processor(double *used, double *waited)
{
    struct timespec now;
    unsigned long long ran = 0, starved = 0;
    FILE *line = fopen("/proc/thread-self/schedstat", "re");

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    *used = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    if (line != NULL) {
        if (fscanf(line, "%llu %llu", &ran, &starved) != 2)
            starved = 0;
        fclose(line);
    }
    *waited = (double)starved * 1e-9;
}

void take_gil(Run *run)
{
    PyEval_RestoreThread(run->released);
    run->released = NULL;
}

void give_gil(Run *run)
{
    run->released = PyEval_SaveThread();
}

static int call(Run *run, PyObject *function)
{
    PyObject *result;

    if (function == Py_None)
        return 0;
    take_gil(run);
    result = PyObject_CallNoArgs(function);
    Py_XDECREF(result);
    give_gil(run);
    return result == NULL ? -1 : 0;
}

/* When requests are due ------------------------------------------------------------------------------ */

/* The next time of the schedule into next_due, with the GIL held or not. */
static int fetch_times(Run *run)
{
    PyObject *chunk;

    if (run->has_chunk)
        PyBuffer_Release(&run->chunk);
    run->has_chunk = false;
    chunk = PyIter_Next(run->times);
    if (chunk == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the schedule has ended");
        return -1;
    }
    if (PyObject_GetBuffer(chunk, &run->chunk, PyBUF_C_CONTIGUOUS) < 0) {
        Py_DECREF(chunk);
        return -1;
    }
    Py_DECREF(chunk);
    run->has_chunk = true;
    run->chunk_times = run->chunk.buf;
    run->chunk_count = run->chunk.len / (Py_ssize_t)sizeof(int64_t);
    run->chunk_at = 0;
    return 0;
}

static int advance(Run *run)
{
    int failed = 0;

    run->chunk_at++;
    while (run->chunk_at >= run->chunk_count && !failed) {
        take_gil(run);
        failed = fetch_times(run);
        give_gil(run);
    }
    if (!failed)
        run->next_due = run->begin + run->chunk_times[run->chunk_at];
    return failed;
}

static int count_unsent(Run *run)
{
    while (run->next_due < run->stop) {
        run->dues_unsent++;
        if (advance(run) < 0)
            return -1;
    }
    return 0;
}

void set_free(Run *run, Peer *peer)
{
    if (peer->is_free)
        return;
    peer->is_free = true;
    run->free[(run->free_first + run->free_count++) % run->connections] = (uint32_t)(peer - run->peers);
}

static Peer *take_free(Run *run)
{
    Peer *peer = run->peers + run->free[run->free_first];

    run->free_first = (run->free_first + 1) % run->connections;
    run->free_count--;
    peer->is_free = false;
    return peer;
}

static int send_due(Run *run, int64_t now)
{
    while (run->next_due <= now && run->free_count && run->next_due < run->stop) {
        Peer *peer = take_free(run);
        int64_t could = run->next_due > peer->since ? run->next_due : peer->since;

        if (!run->reconnect && (peer->state != READY || peer->count == run->depth))
            continue;
        if (run->next_due >= run->start)
            histogram_add(run->lateness, now - could);
        if (run->reconnect ? dial(run, peer, now, run->next_due) : ask(run, peer, 1, run->next_due, now))
            return -1;
        if (advance(run) < 0)
            return -1;
        if (!run->reconnect && peer->state == READY && peer->count < run->depth)
            set_free(run, peer);
        now = now_ns();
    }
    return 0;
}

/* Time ----------------------------------------------------------------------------------------------- */

/* Count what was sent before then as without an answer. */
static int64_t give_up(Run *run, Peer *peer, int64_t before)
{
    int64_t count = peer->state == READY ? ledger_overdue(run, peer, before) : 0;

    run->faults[run->type == SOCK_STREAM ? TIMED_OUT : LOST] += count;
    return count;
}

/* Whoever has waited too long. */
static int sweep(Run *run, int64_t now)
{
    for (Peer *peer = run->peers; peer < run->peers + run->connections; peer++) {
        int64_t count;

        if (peer->state == CONNECTING && now - peer->since > run->timeout)
            refused(run, peer, ETIMEDOUT);
        if (peer->state != READY || (count = give_up(run, peer, now - run->timeout)) == 0)
            continue;
        if (run->reconnect || peer->broken ? ended(run, peer, 0) : freed(run, peer, count, now))
            return -1;
    }
    return 0;
}

/* Open again those whose pause is over. */
static int wake(Run *run, int64_t now)
{
    for (Peer *peer = run->peers; run->asleep && peer < run->peers + run->connections; peer++) {
        if (peer->retry == 0 || peer->retry > now)
            continue;
        peer->retry = 0;
        run->asleep--;
        if (run->sending && (run->reconnect ? begin_again(run, peer, now) : dial(run, peer, now, -1)))
            return -1;
    }
    return 0;
}

static int look(Run *run, int64_t now, int64_t *counted)
{
    PyObject *result;
    int64_t faults = 0;

    if (run->answered != *counted) {
        *counted = run->answered;
        run->last_answer = now;
        run->last_refusal = 0;
    }
    if (run->last_refusal && now - run->last_answer > run->gone_after && run->sending)
        run->is_ended = true;
    for (int i = 0; i < FAULTS; i++)
        faults += run->faults[i];
    take_gil(run);
    if (PyErr_CheckSignals() < 0)
        result = NULL;
    else if (run->watch == Py_None)
        result = Py_NewRef(Py_None);
    else
        result = PyObject_CallFunction(run->watch, "LLL", (long long)(now - run->begin),
                                       (long long)run->answered, (long long)faults);
    Py_XDECREF(result);
    give_gil(run);
    return result == NULL ? -1 : 0;
}

/* Wait for events, until a request is due at the latest. */
static int wait_for(Run *run, struct epoll_event *events)
{
    int64_t left = LONGEST_WAIT;
    int count = epoll_wait(run->epoll, events, BATCH, 0);
    struct timespec wait;

    if (count != 0)
        return count;
    if (run->times != NULL && run->sending && run->free_count) {
        int64_t due = run->next_due - now_ns();

        left = due < 0 ? 0 : due < left ? due : left;
    }
    if (left == 0)
        return 0;
    wait = (struct timespec){left / SECOND, left % SECOND};
#ifdef SYS_epoll_pwait2
    count = (int)syscall(SYS_epoll_pwait2, run->epoll, events, BATCH, &wait, NULL, (size_t)8);
    if (count >= 0 || errno != ENOSYS)
        return count;
#endif
    return epoll_wait(run->epoll, events, BATCH, (int)(left / 1000000));
}

static bool is_settled(const Run *run)
{
    for (const Peer *peer = run->peers; peer < run->peers + run->connections; peer++)
        if (peer->state != CLOSED && (peer->due >= 0 || peer->count))
            return false;
    return true;
}

static int take_events(Run *run)
{
    struct epoll_event events[BATCH];
    int count = wait_for(run, events);

    if (count < 0 && errno != EINTR) {
        take_gil(run);
        PyErr_SetFromErrno(PyExc_OSError);
        give_gil(run);
        return -1;
    }
    run->caught_up = count < BATCH;
    if (run->batch != NULL && count > 1 && happened_together(run, events, count) < 0)
        return -1;
    for (int i = 0; i < count; i++)
        if (events[i].events && happened(run, events[i].data.ptr, events[i].events) < 0)
            return -1;
    return 0;
}

static int open_everything(Run *run)
{
    int64_t deadline = now_ns() + (run->timeout > SECOND ? run->timeout : SECOND);
    bool waiting = true;

    for (uint32_t i = 0; i < run->connections; i++)
        if (dial(run, run->peers + i, now_ns(), -1) < 0)
            return -1;
    while (waiting && now_ns() < deadline) {
        waiting = false;
        for (uint32_t i = 0; i < run->connections && !waiting; i++)
            waiting = run->peers[i].state == CONNECTING;
        if (waiting && take_events(run) < 0)
            return -1;
    }
    return 0;
}

static int begin(Run *run)
{
    int64_t now = now_ns();

    run->sending = true;
    for (Peer *peer = run->peers; peer < run->peers + run->connections; peer++) {
        if (run->times != NULL && (run->reconnect || peer->state == READY)) {
            peer->since = now;
            set_free(run, peer);
        } else if (run->times == NULL && run->reconnect) {
            if (dial(run, peer, now, now) < 0)
                return -1;
        } else if (run->times == NULL && peer->state == READY && ask(run, peer, run->depth, now, now) < 0) {
            return -1;
        }
    }
    return 0;
}

static int drive(Run *run)
{
    int64_t watched = run->begin, swept = run->begin, last = run->begin, listened = 0, counted = 0, first = 0;
    int64_t sweep_each = run->timeout / 8 > 5000000 ? run->timeout / 8 : 5000000;
    double cpu = 0, starved = 0;
    bool measured = false;

    for (;;) {
        int64_t now = now_ns();

        if (!measured && now >= run->start) {
            measured = true;
            first = now;
            processor(&cpu, &starved);
            if (call(run, run->began) < 0)
                return -1;
        }
        if (run->sending && (now >= run->stop || run->is_ended)) {
            run->sending = false;
            if (measured) {
                processor(&run->cpu, &run->starved);
                run->cpu -= cpu;
                run->starved -= starved;
                run->wall = (double)(now - first) * 1e-9;
                if (call(run, run->ended) < 0)
                    return -1;
            }
        }
        if (!run->sending && (run->is_ended || is_settled(run) || listened > run->timeout))
            break;
        if (!run->sending)
            listened += now - last < LONGEST_TURN ? now - last : LONGEST_TURN;
        last = now;
        if (run->sending && run->times != NULL && send_due(run, now) < 0)
            return -1;
        if (take_events(run) < 0)
            return -1;
        if (now - swept >= sweep_each && run->caught_up) {
            swept = now;
            if (sweep(run, now) < 0)
                return -1;
        }
        if (run->asleep && wake(run, now) < 0)
            return -1;
        if (now - watched >= WATCH_EACH) {
            watched = now;
            if (look(run, now, &counted) < 0)
                return -1;
        }
    }
    for (Peer *peer = run->peers; peer < run->peers + run->connections; peer++)
        give_up(run, peer, now_ns() + 1);
    return run->times != NULL ? count_unsent(run) : 0;
}

static int run_released(Run *run)
{
    if (run->may_batch && !run->boundaries && !run->reconnect) {
        /* Twice what may be open comes with one read, unless more than a sensible share of the buffer. */
        run->slot = (size_t)(2 * run->longest * run->depth);
        run->slot = run->slot < SMALL ? SMALL : run->slot > BUFFER / 16 ? BUFFER / 16 : run->slot;
        run->batch = batch_open();
    }
    if (!run->reconnect && open_everything(run) < 0)
        return -1;
    if (run->begin == 0)
        run->begin = now_ns();
    run->start += run->begin; /* until here they counted from the beginning */
    run->stop += run->begin;
    run->last_answer = run->begin;
    for (int64_t left; (left = run->begin - now_ns()) > 0;) {
        struct timespec wait = {left / SECOND, left % SECOND};

        nanosleep(&wait, NULL);
    }
    if (run->times != NULL) {
        run->chunk_at = -1;
        prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* wake this thread when it is time, not 50 us later */
        if (advance(run) < 0)
            return -1;
    }
    return begin(run) < 0 ? -1 : drive(run);
}

int run_all(Run *run)
{
    int result;

    give_gil(run);
    result = run_released(run);
    take_gil(run);
    return result;
}
