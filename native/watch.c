/* Callbacks into Python when a descriptor is ready: for shutdown flags, listeners that Python accepts from,
 * datagram sockets with an observer, and sockets that are not streams. With either backend they are in the
 * epoll set. */
#include "internal.h"

#include <sys/epoll.h>

struct Watch {
    PyObject *callback;
    uint32_t slot, generation;
    int fd;
};

/* Call the callback with epoll's events. 0, or -1 with an exception set. */
int watch_on_event(Watch *watch, uint32_t events)
{
    PyObject *callback = Py_NewRef(watch->callback); /* the callback may end the watch */
    int status = discard_result(PyObject_CallFunction(callback, "I", events));

    Py_DECREF(callback);
    return status;
}

/* Return the watch of a descriptor, or NULL. */
static Watch *find_watch(Core *core, int fd)
{
    if (fd < 0 || fd >= core->watch_by_fd_size || !core->watch_by_fd[fd])
        return NULL;
    return core->slots[core->watch_by_fd[fd] - 1].object;
}

static Watch *watch_new(Core *core, int fd)
{
    Watch *watch;

    if (fd >= core->watch_by_fd_size) {
        int size = fd * 2 + 16;
        uint32_t *grown = PyMem_Realloc(core->watch_by_fd, (size_t)size * sizeof *grown);

        if (grown == NULL)
            return NULL;
        memset(grown + core->watch_by_fd_size, 0, (size_t)(size - core->watch_by_fd_size) * sizeof *grown);
        core->watch_by_fd = grown;
        core->watch_by_fd_size = size;
    }
    watch = PyMem_Calloc(1, sizeof *watch);
    if (watch == NULL)
        return NULL;
    watch->fd = fd;
    watch->slot = slot_alloc(core, SLOT_WATCH, watch, &watch->generation);
    if (watch->slot == UINT32_MAX) {
        PyMem_Free(watch);
        return NULL;
    }
    core->watch_by_fd[fd] = watch->slot + 1;
    return watch;
}

/* Visit the callback, for the garbage collector. */
int watch_traverse(Watch *watch, visitproc visit, void *arg)
{
    Py_VISIT(watch->callback);
    return 0;
}

/* Release a watch of a core that is being closed. */
void watch_discard(Watch *watch)
{
    Py_XDECREF(watch->callback);
    PyMem_Free(watch);
}

static void watch_free(Core *core, Watch *watch)
{
    core->watch_by_fd[watch->fd] = 0;
    slot_free(core, watch->slot);
    watch_discard(watch);
}

PyObject *core_watch(Core *core, PyObject *args)
{
    PyObject *callback;
    unsigned events;
    int fd, shared;
    Watch *watch;
    bool modify;

    if (!PyArg_ParseTuple(args, "iOIp:watch", &fd, &callback, &events, &shared))
        return NULL;
    watch = find_watch(core, fd);
    modify = watch != NULL;
    if (fd < 0) {
        PyErr_SetString(PyExc_ValueError, "the descriptor is negative");
        return NULL;
    }
    if (!modify && (watch = watch_new(core, fd)) == NULL)
        return PyErr_NoMemory();
    Py_XSETREF(watch->callback, Py_NewRef(callback));
    events |= shared && !modify ? EPOLLEXCLUSIVE : 0;
    if (epoll_set_register(core, fd, events, watch->slot, watch->generation, modify) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        if (!modify)
            watch_free(core, watch);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *core_unwatch(Core *core, PyObject *args)
{
    Watch *watch;
    int fd;

    if (!PyArg_ParseTuple(args, "i:unwatch", &fd))
        return NULL;
    watch = find_watch(core, fd);
    if (watch != NULL) {
        epoll_set_remove(core, fd);
        watch_free(core, watch);
    }
    Py_RETURN_NONE;
}
