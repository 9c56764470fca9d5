/* Core: the loop, its slots, and its time limits.
 *
 * A turn: look at whoever is dirty, see without waiting what has come, and only if nothing has, release the
 * GIL and wait. Another thread that wants the GIL gets it at the next call of a conversation, or here; a
 * loop that gave it away at every turn would wait for it at every turn (126,000 requests a second against
 * 45,000, beside one busy thread).
 */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <structmember.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* How often time limits are looked at, at most: below what a person notices (timers.py says the same). */
static const double TICK = 0.02;

/* A limit may pass by a 64th of itself before it is noticed: at 10,000 connections a look at all of them
 * costs a millisecond, and nobody waits for a minute to end on the millisecond. */
static const double LATENESS = 1.0 / 64;

unsigned fork_count;

double clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

bool forgive(Core *core, PyObject *peer)
{
    PyObject *type, *value, *trace, *result;

    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Fetch(&type, &value, &trace);
    if (core->failed == NULL || peer == NULL)
        result = Py_NewRef(Py_None);
    else {
        PyErr_NormalizeException(&type, &value, &trace);
        if (trace != NULL)
            PyException_SetTraceback(value, trace);
        result = PyObject_CallFunctionObjArgs(core->failed, peer, value, NULL);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    Py_XDECREF(result);
    return result != NULL;
}

/* Slots -------------------------------------------------------------------------------------------- */

/* A free slot for this; its number, or UINT32_MAX where there is no memory. */
uint32_t slot_take(Core *core, enum kind kind, void *holder, uint32_t *generation)
{
    uint32_t number = core->first_free;

    if (number == UINT32_MAX) {
        uint32_t count = core->slot_count ? core->slot_count * 2 : 64;
        Slot *slots = PyMem_Realloc(core->slots, count * sizeof *slots);

        if (slots == NULL)
            return UINT32_MAX;
        for (uint32_t i = core->slot_count; i < count; i++)
            slots[i] = (Slot){.next_free = i + 1 < count ? i + 1 : UINT32_MAX};
        number = core->slot_count;
        core->slots = slots;
        core->slot_count = count;
    }
    core->first_free = core->slots[number].next_free;
    core->slots[number].kind = kind;
    core->slots[number].holder = holder;
    *generation = core->slots[number].generation;
    return number;
}

void slot_release(Core *core, uint32_t number)
{
    Slot *slot = &core->slots[number];

    slot->generation = (slot->generation + 1) % GENERATIONS;
    slot->kind = FREE;
    slot->holder = NULL;
    slot->next_free = core->first_free;
    core->first_free = number;
}

/* Who a report is about, or NULL if it is gone. */
void *slot_holder(Core *core, uint64_t tag, enum kind *kind)
{
    uint32_t number = (uint32_t)tag;
    Slot *slot = number < core->slot_count ? &core->slots[number] : NULL;

    if (slot == NULL || slot->kind == FREE || slot->generation != ((tag >> 32) & (GENERATIONS - 1)))
        return NULL;
    *kind = slot->kind;
    return slot->holder;
}

/* The loop ----------------------------------------------------------------------------------------- */

/* False, with an exception set, in a child after fork: the rings and the epoll set are its parent's too. */
bool core_is_ours(const Core *core)
{
    if (core->forks == fork_count)
        return true;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, "this core is another process's (fork)");
    return false;
}

/* There is something to do: let the loop not wait, if it does. */
void core_wake(Core *core)
{
    if (core->awake || core->forks != fork_count)
        return;
    core->awake = true;
    (void)eventfd_write(core->wake, 1);
}

/* Do what the flags and queues of all dirty connections ask for. */
int core_flush(Core *core)
{
    bool again = false;

    while (core->dirty != NULL && !again) {
        Connection *connection = core->dirty;
        int outcome;

        core->dirty = connection->next_dirty;
        if (core->dirty == NULL)
            core->dirty_end = &core->dirty;
        connection->flags &= ~(uint32_t)DIRTY;
        if (core->ring != NULL)
            outcome = uring_update(connection, &again);
        else
            outcome = polling_update(connection);
        if (outcome < 0)
            return -1;
    }
    return 0;
}

static int sweep(Core *core)
{
    double soon = core->now + fmax(TICK, fmin(fmin(core->idle, core->life), core->linger) * LATENESS);

    core->sweep_at = INFINITY;
    for (uint32_t i = 0; i < core->slot_count; i++) {
        Connection *connection = core->slots[i].holder;

        if (core->slots[i].kind != CONNECTION || connection->flags & MANAGED)
            continue;
        if (connection_expire(connection) < 0)
            return -1;
    }
    core->sweep_at = fmax(core->sweep_at, soon);
    return core_flush(core);
}

static int turn(Core *core, double until)
{
    double patience;

    if (!core_is_ours(core) || PyErr_CheckSignals() < 0 || core_flush(core) < 0)
        return -1;
    if (core->leave)
        return 0;
    patience = fmin(fmin(until, core->sweep_at), core->retry_at) - core->now;
    patience = core->dirty != NULL ? 0 : fmax(0, patience);
    core->turns++;
    if ((core->ring != NULL ? uring_wait(core, patience) : polling_wait(core, patience)) < 0)
        return -1;
    core->now = clock_now();
    if (core->now >= core->retry_at)
        accepting_retry(core);
    return core->now >= core->sweep_at ? sweep(core) : 0;
}

static bool is_usable(Core *core)
{
    if (core->epoll >= 0 && !core->closing)
        return core_is_ours(core);
    PyErr_SetString(PyExc_RuntimeError, "this core is closed");
    return false;
}

PyDoc_STRVAR(run_doc, "run(patience)\n\nServe for `patience` seconds (None: for ever), or until "
                      "`interrupt` is called.");
static PyObject *core_run(Core *core, PyObject *patience)
{
    double until = INFINITY;
    int outcome = 0;

    if (!is_usable(core))
        return NULL;
    if (core->running) {
        PyErr_SetString(PyExc_RuntimeError, "this core runs already");
        return NULL;
    }
    core->now = clock_now();
    if (patience != Py_None) {
        until = core->now + PyFloat_AsDouble(patience);
        if (PyErr_Occurred())
            return NULL;
    }
    core->running = true;
    do {
        outcome = turn(core, until);
    } while (outcome == 0 && !core->leave && core->now < until);
    core->running = core->leave = false;
    if (outcome < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(interrupt_doc, "interrupt()\n\nLet `run` come back after this turn. From any thread.");
static PyObject *core_interrupt(Core *core, PyObject *Py_UNUSED(ignored))
{
    core->leave = true;
    core_wake(core);
    Py_RETURN_NONE;
}

/* Connections -------------------------------------------------------------------------------------- */

PyDoc_STRVAR(adopt_doc, "adopt(fd, protocol) -> Connection\n\nDrive a stream socket for an asyncio protocol. "
                        "The descriptor is the core's from now on.");
static PyObject *core_adopt(Core *core, PyObject *args)
{
    PyObject *protocol;
    int fd;

    if (!PyArg_ParseTuple(args, "iO:adopt", &fd, &protocol) || !is_usable(core))
        return NULL;
    return (PyObject *)connection_new(core, fd, protocol, NULL, MANAGED);
}

PyDoc_STRVAR(converse_doc, "converse(fd, conversation, peer)\n\nHold a conversation on a stream socket; "
                           "`gone(peer)` is called at its end. The descriptor is the core's from now on. "
                           "No conversation (None): opening it failed, and the peer is let go.");
static PyObject *core_converse(Core *core, PyObject *args)
{
    PyObject *conversation, *peer;
    Connection *connection;
    int fd, outcome;

    if (!PyArg_ParseTuple(args, "iOO:converse", &fd, &conversation, &peer) || !is_usable(core))
        return NULL;
    connection = connection_new(core, fd, conversation == Py_None ? NULL : conversation, peer, COUNTED);
    if (connection == NULL)
        return NULL;
    outcome = connection_start(connection);
    Py_DECREF(connection);
    if (outcome < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Call something for each connection that is no protocol's. */
static PyObject *each_conversation(Core *core, int (*act)(Connection *, double), double when)
{
    core->now = clock_now();
    for (uint32_t i = 0; i < core->slot_count; i++) {
        Connection *connection = core->slots[i].holder;

        if (core->slots[i].kind != CONNECTION || connection->flags & MANAGED)
            continue;
        if (act(connection, when) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(drain_doc, "drain(looked)\n\nFinish the conversations that have come to rest, if all that came before "
                        "`looked` has been heard.");
static PyObject *core_drain(Core *core, PyObject *looked)
{
    double when = PyFloat_AsDouble(looked);

    return PyErr_Occurred() ? NULL : each_conversation(core, connection_drain, when);
}

static int cut(Connection *connection, double Py_UNUSED(when))
{
    connection_kill(connection, true);
    return 0;
}

PyDoc_STRVAR(abort_doc, "abort()\n\nCut off all conversations.");
static PyObject *core_abort(Core *core, PyObject *Py_UNUSED(ignored))
{
    return each_conversation(core, cut, 0);
}

/* Life --------------------------------------------------------------------------------------------- */

static int take_sizes(const RingSizes *sizes)
{
    if (sizes->buffers < 2 || sizes->buffers > 32768 || sizes->buffers & (sizes->buffers - 1)) {
        PyErr_SetString(PyExc_ValueError, "buffers: a power of two, 2 to 32,768");
        return -1;
    }
    if (!sizes->submissions || !sizes->completions || !sizes->buffer_size) {
        PyErr_SetString(PyExc_ValueError, "no size may be 0");
        return -1;
    }
    return 0;
}

static int core_init(Core *core, PyObject *args, PyObject *keywords)
{
    static char *keys[] = {"io_uring", "unsent", "chunk", "idle", "life", "linger", "quiet", "strain_pause",
                           "busy", "longest", "opener", "post", "answerer", "gone", "pulling", "failed", "strained",
                           "dropped", "submissions", "completions",
                           "buffers", "buffer_size", NULL};
    PyObject *opener, *post, *answerer, *gone, *pulling, *longest, *failed, *strained, *dropped;
    /* Queues that stay in a processor's nearest cache, and hold what a busy turn of a thousand makes. */
    RingSizes sizes = {.submissions = 256, .completions = 2048, .buffers = 256, .buffer_size = 16384};
    Py_ssize_t unsent, chunk;
    int uses_ring, error;

    if (core->epoll >= 0) {
        PyErr_SetString(PyExc_RuntimeError, "a core is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "pnnddddddOOOOOOOOO|IIII:Core", keys, &uses_ring, &unsent,
                                     &chunk, &core->idle, &core->life, &core->linger, &core->quiet,
                                     &core->strain_pause, &core->busy, &longest, &opener, &post, &answerer, &gone, &pulling, &failed, &strained, &dropped,
                                     &sizes.submissions, &sizes.completions, &sizes.buffers,
                                     &sizes.buffer_size)
        || take_sizes(&sizes) < 0)
        return -1;
    core->unsent = unsent < 0 ? 0 : (size_t)unsent;
    core->chunk = chunk < 1 ? 1 : (size_t)chunk;
    core->longest = Py_NewRef(longest);
    core->opener = Py_NewRef(opener);
    core->post = Py_NewRef(post);
    core->answerer = Py_NewRef(answerer);
    core->gone = Py_NewRef(gone);
    core->pulling = Py_NewRef(pulling);
    core->failed = failed == Py_None ? NULL : Py_NewRef(failed);
    core->strained = strained == Py_None ? NULL : Py_NewRef(strained);
    core->dropped = dropped == Py_None ? NULL : Py_NewRef(dropped);
    core->forks = fork_count;
    core->now = clock_now();
    core->scratch = PyMem_Malloc(core->chunk);
    if (core->scratch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (polling_open(core) < 0)
        return -1;
    if (!uses_ring)
        return 0;
    core->ring = PyMem_Calloc(1, sizeof *core->ring);
    if (core->ring == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (sizes.buffer_size > core->chunk)
        sizes.buffer_size = (unsigned)core->chunk;
    error = ring_open(core->ring, &sizes);
    if (error) {
        PyMem_Free(core->ring);
        core->ring = NULL;
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static PyObject *core_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(keywords))
{
    Core *core = (Core *)type->tp_alloc(type, 0);

    if (core == NULL)
        return NULL;
    core->epoll = core->wake = -1;
    core->first_free = UINT32_MAX;
    core->dirty_end = &core->dirty;
    core->sweep_at = core->retry_at = INFINITY;
    return (PyObject *)core;
}

PyDoc_STRVAR(close_doc, "close()\n\nCut off whatever is left, and give everything back. Idempotent. In a child "
                        "after fork: give back the child's copies.");
static PyObject *core_close(Core *core, PyObject *Py_UNUSED(ignored))
{
    bool ours = core->forks == fork_count;

    if (core->running && ours) {
        PyErr_SetString(PyExc_RuntimeError, "this core runs");
        return NULL;
    }
    if (core->epoll < 0 || core->closing)
        Py_RETURN_NONE;
    core->closing = true;
    for (uint32_t i = 0; ours && i < core->slot_count; i++)
        if (core->slots[i].kind == CONNECTION)
            connection_kill(core->slots[i].holder, true);
    if (core->ring != NULL) {
        if (ours)
            uring_quiesce(core);
        ring_close(core->ring);
        PyMem_Free(core->ring);
        core->ring = NULL;
    }
    /* Nothing of the kernel's refers to a connection any more. */
    for (uint32_t i = 0; i < core->slot_count; i++) {
        Connection *connection = core->slots[i].holder;

        if (core->slots[i].kind == CONNECTION) {
            connection->flags &= ~(uint32_t)(RECEIVES | SENDS | DIRTY);
            if (!ours)
                connection_disown(connection);
            else if (connection_bury(connection) < 0)
                PyErr_WriteUnraisable((PyObject *)core);
        } else if (core->slots[i].kind == WATCH) {
            Watch *watch = core->slots[i].holder;

            Py_DECREF(watch->callback);
            PyMem_Free(watch);
        }
    }
    while (core->listening != NULL) {
        Listening *next = core->listening->next;

        Py_XDECREF(core->listening->local);
        PyMem_Free(core->listening);
        core->listening = next;
    }
    while (core->desks != NULL)
        desk_free(core, core->desks);
    core->dirty = NULL;
    core->dirty_end = &core->dirty;
    PyMem_Free(core->slots);
    core->slots = NULL;
    core->slot_count = 0;
    core->first_free = UINT32_MAX;
    close(core->epoll);
    close(core->wake);
    core->epoll = core->wake = -1;
    core->closing = false;
    Py_RETURN_NONE;
}

static void core_dealloc(Core *core)
{
    PyObject *result = core_close(core, NULL);

    if (result == NULL)
        PyErr_WriteUnraisable((PyObject *)core);
    Py_XDECREF(result);
    PyMem_Free(core->watch_by_fd);
    PyMem_Free(core->scratch);
    Py_XDECREF(core->longest);
    Py_XDECREF(core->opener);
    Py_XDECREF(core->post);
    Py_XDECREF(core->answerer);
    Py_XDECREF(core->gone);
    Py_XDECREF(core->pulling);
    Py_XDECREF(core->failed);
    Py_XDECREF(core->strained);
    Py_XDECREF(core->dropped);
    Py_XDECREF((PyObject *)core->known_type);
    Py_TYPE(core)->tp_free(core);
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)core_run, METH_O, run_doc},
    {"interrupt", (PyCFunction)core_interrupt, METH_NOARGS, interrupt_doc},
    {"adopt", (PyCFunction)core_adopt, METH_VARARGS, adopt_doc},
    {"converse", (PyCFunction)core_converse, METH_VARARGS, converse_doc},
    {"drain", (PyCFunction)core_drain, METH_O, drain_doc},
    {"abort", (PyCFunction)core_abort, METH_NOARGS, abort_doc},
    {"listen", (PyCFunction)core_listen, METH_VARARGS,
     "listen(fd, local, shared)\n\nWelcome everybody at this listener. `local`: our Address there, or None "
     "where each connection has its own. `shared`: other processes accept from it as well."},
    {"deafen", (PyCFunction)core_deafen, METH_NOARGS,
     "deafen()\n\nWelcome nobody any more; who waits in a queue already still comes in."},
    {"watch", (PyCFunction)core_watch, METH_VARARGS,
     "watch(fd, callback, events, shared)\n\nCall callback(events) whenever the descriptor is ready for "
     "`events` (poll()'s bits). `shared`: other processes wait for the same, and one is enough."},
    {"unwatch", (PyCFunction)core_unwatch, METH_VARARGS,
     "unwatch(fd)\n\nWait for it no more. Before it is closed. Harmless if it isn't waited for."},
    {"answer", (PyCFunction)core_answer, METH_VARARGS,
     "answer(fd, local, refuse, largest, wildcard, internet)\n\nAnswer what arrives at a datagram socket. "
     "refuse(peer), or None: whatever it gives but None keeps a datagram from being answered."},
    {"mute", (PyCFunction)core_mute, METH_VARARGS,
     "mute(fd)\n\nAnswer what waits there already, and then no more. Before it is closed."},
    {"close", (PyCFunction)core_close, METH_NOARGS, close_doc},
    {NULL},
};

static PyMemberDef members[] = {
    {"opener", T_OBJECT_EX, offsetof(Core, opener), 0, "Opens a conversation: opener(peer, post)."},
    {"answerer", T_OBJECT_EX, offsetof(Core, answerer), 0, "Answers a datagram: answerer(data, peer)."},
    {"connections", T_PYSSIZET, offsetof(Core, connections), READONLY, "How many are open."},
    {"conversations", T_PYSSIZET, offsetof(Core, conversations), READONLY, "Those that are no protocol's."},
    {"now", T_DOUBLE, offsetof(Core, now), READONLY, "Seconds, as of this turn (CLOCK_MONOTONIC)."},
    {"turns", T_ULONGLONG, offsetof(Core, turns), READONLY, "How often it has waited."},
    {"chunks", T_ULONGLONG, offsetof(Core, chunks), READONLY, "How many chunks have come."},
    {"rearmed", T_ULONGLONG, offsetof(Core, rearmed), READONLY,
     "How often a receive ended because no buffer, or no completion, was left."},
    {NULL},
};

PyTypeObject CoreType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "bothends.engines._native.Core",
    .tp_doc = "Accepts, receives, sends and closes, by io_uring or by epoll, and calls Python in between. "
              "See engines/native.py.",
    .tp_basicsize = sizeof(Core),
    .tp_new = core_new,
    .tp_init = (initproc)core_init,
    .tp_dealloc = (destructor)core_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = methods,
    .tp_members = members,
};
