/* Functions that all files of the core need: clock, fork check, wakeup, slots, the pending list. */
#include "internal.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>

unsigned current_fork_generation;

double clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Raise in a forked child: it shares the ring and the epoll set with its parent. 0, or -1 with an exception set. */
int core_check_owner_process(const Core *core)
{
    if (core->fork_generation == current_fork_generation)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "this core belongs to the parent process (fork)");
    return -1;
}

/* Raise OSError. Returns -1. */
int raise_errno(int error)
{
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Wake the loop if it is blocked in epoll_wait() or io_uring_enter(). */
void core_wake(Core *core)
{
    if (!core->blocked || core->fork_generation != current_fork_generation)
        return;
    core->blocked = false;
    (void)eventfd_write(core->wakeup_fd, 1);
}

/* Slots -------------------------------------------------------------------------------------------- */

/* Allocate a slot for an object. Returns its index, or UINT32_MAX if memory is exhausted. */
uint32_t slot_alloc(Core *core, enum slot_kind kind, void *object, uint32_t *generation)
{
    uint32_t index = core->first_free;

    if (index == UINT32_MAX) {
        uint32_t count = core->slot_count ? core->slot_count * 2 : 64;
        Slot *slots = PyMem_Realloc(core->slots, count * sizeof *slots);

        if (slots == NULL)
            return UINT32_MAX;
        for (uint32_t i = core->slot_count; i < count; i++)
            slots[i] = (Slot){.next_free = i + 1 < count ? i + 1 : UINT32_MAX};
        index = core->slot_count;
        core->slots = slots;
        core->slot_count = count;
    }
    core->first_free = core->slots[index].next_free;
    core->slots[index].kind = kind;
    core->slots[index].object = object;
    *generation = core->slots[index].generation;
    return index;
}

void slot_free(Core *core, uint32_t index)
{
    Slot *slot = &core->slots[index];

    slot->generation = (slot->generation + 1) % GENERATIONS;
    slot->kind = SLOT_FREE;
    slot->object = NULL;
    slot->next_free = core->first_free;
    core->first_free = index;
}

/* Return the object that a report's user_data refers to, or NULL if it has been freed. */
void *slot_lookup(Core *core, uint64_t user_data, enum slot_kind *kind)
{
    uint32_t index = (uint32_t)user_data;
    Slot *slot = index < core->slot_count ? &core->slots[index] : NULL;

    if (slot == NULL || slot->kind == SLOT_FREE || slot->generation != ((user_data >> 32) & (GENERATIONS - 1)))
        return NULL;
    *kind = slot->kind;
    return slot->object;
}

/* Pending connections -------------------------------------------------------------------------------- */

/* Append a connection to the list that core_flush_pending() processes. */
void core_append_pending(Core *core, Connection *connection)
{
    connection->next_pending = NULL;
    *core->pending_end = connection;
    core->pending_end = &connection->next_pending;
    core_wake(core);
}

/* Have the backend do what the flags and queues of all pending connections ask for. 0, or -1 with an exception
 * set. */
int core_flush_pending(Core *core)
{
    bool is_full = false;

    while (core->pending != NULL && !is_full) {
        Connection *connection = core->pending;

        core->pending = connection->next_pending;
        if (core->pending == NULL)
            core->pending_end = &core->pending;
        connection->flags &= ~(uint32_t)PENDING;
        if (core->backend->update(connection, &is_full) < 0)
            return -1;
    }
    return 0;
}

/* Exceptions ----------------------------------------------------------------------------------------- */

/* Return the exception that is set, and clear it; NULL if none is. */
PyObject *take_exception(void)
{
    PyObject *type, *exception, *traceback;

    PyErr_Fetch(&type, &exception, &traceback);
    PyErr_NormalizeException(&type, &exception, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(exception, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return exception;
}

/* Set what take_exception() returned, in place of an exception that is set. Steals the reference. */
void restore_exception(PyObject *exception)
{
    if (exception == NULL)
        PyErr_Clear();
    else
        PyErr_Restore(Py_NewRef(Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
}

/* Report the exception that is set to `on_service_error` and clear it, provided a service may raise it: an
 * Exception, not KeyboardInterrupt or SystemExit. 0, or -1 if an exception is still set. */
int core_report_service_error(Core *core, PyObject *peer)
{
    PyObject *exception;
    int status = 0;

    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    exception = take_exception();
    if (core->on_service_error != NULL && peer != NULL)
        status = discard_result(PyObject_CallFunctionObjArgs(core->on_service_error, peer, exception, NULL));
    Py_DECREF(exception);
    return status;
}
