/* Descriptors that Python deals with: latches, listeners that Python accepts from, datagram sockets, sockets
 * of other kinds. The core waits for them by epoll, on a ring too. */
#include "internal.h"

#include <errno.h>
#include <sys/epoll.h>

int watch_on_event(Watch *watch, uint32_t events)
{
    PyObject *callback = Py_NewRef(watch->callback); /* which may end the watch */
    PyObject *result = PyObject_CallFunction(callback, "I", events);

    Py_DECREF(callback);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

static Watch *watch_of(Core *core, int fd)
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

static void watch_free(Core *core, Watch *watch)
{
    core->watch_by_fd[watch->fd] = 0;
    slot_free(core, watch->slot);
    Py_XDECREF(watch->callback);
    PyMem_Free(watch);
}

PyObject *core_watch(Core *core, PyObject *args)
{
    PyObject *callback;
    unsigned events;
    int fd, shared;
    Watch *watch;
    bool is_known;

    if (!PyArg_ParseTuple(args, "iOIp:watch", &fd, &callback, &events, &shared))
        return NULL;
    watch = watch_of(core, fd);
    is_known = watch != NULL;
    if (fd < 0 || (!is_known && (watch = watch_new(core, fd)) == NULL))
        return PyErr_NoMemory();
    Py_XSETREF(watch->callback, Py_NewRef(callback));
    if (epoll_register(core, fd, events | (shared && !is_known ? EPOLLEXCLUSIVE : 0), watch->slot,
                      watch->generation, is_known) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        if (!is_known)
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
    watch = watch_of(core, fd);
    if (watch != NULL) {
        epoll_del(core, fd);
        watch_free(core, watch);
    }
    Py_RETURN_NONE;
}
