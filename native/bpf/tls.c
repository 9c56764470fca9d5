/* The Python type `TlsProbes`: uprobes on libssl and libgnutls, and the records that they write.
 *
 * The probes are attached to a file, whichever process maps it. Links are not pinned: the kernel removes the probes
 * with the last descriptor, also after SIGKILL. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "tls_records.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "object.h"
#include "tls_type.h"

enum { MAX_TLS_LINKS = 1024 };

struct tls_probes {
    PyObject_HEAD
    struct bpf_object *object;
    struct ring_buffer *ring;
    volatile struct tls_shared *shared;
    struct bpf_link *links[MAX_TLS_LINKS];
    size_t link_count;
    int processes, own_thread;
    s64 offset;     /* CLOCK_TAI less CLOCK_REALTIME: leap seconds */
    PyObject *list; /* while records are read */
};

static const struct {
    const char *function, *program;
    int returns; /* whether its return is seen */
} tls_functions[] = {
    {"SSL_read", "on_tls_read", 1},
    {"SSL_read_ex", "on_tls_read_ex", 1},
    {"SSL_write", "on_tls_write", 1},
    {"SSL_write_ex", "on_tls_write_ex", 1},
    {"gnutls_record_recv", "on_record_recv", 1},
    {"gnutls_record_send", "on_record_send", 1},
    {"SSL_set_fd", "on_tls_set_fd", 0},
};

static s64 tai_offset(void)
{
    struct timespec tai, real;
    clock_gettime(CLOCK_TAI, &tai);
    clock_gettime(CLOCK_REALTIME, &real);
    s64 difference = (tai.tv_sec - real.tv_sec) * 1000000000ll + tai.tv_nsec - real.tv_nsec;
    return (difference + 500000000) / 1000000000 * 1000000000;
}

static int on_tls_record(void *context, void *data, size_t size)
{
    struct tls_probes *self = context;
    const struct tls_record *record = data;
    if (size < sizeof *record || size - sizeof *record < record->length)
        return 0;
    PyObject *item =
        Py_BuildValue("(IIIKKKKy#)", record->function, record->process, record->thread,
                      (unsigned long long)(record->at - self->offset),
                      (unsigned long long)(record->until - self->offset), (unsigned long long)record->ssl,
                      (unsigned long long)record->size, (const char *)(record + 1), (Py_ssize_t)record->length);
    int result = item ? PyList_Append(self->list, item) : -1;
    Py_XDECREF(item);
    return result;
}

static int load_tls(struct tls_probes *self)
{
    libbpf_set_strict_mode(LIBBPF_STRICT_ALL & ~LIBBPF_STRICT_AUTO_RLIMIT_MEMLOCK);
    LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "bothends_tls");
    self->object = bpf_object__open_mem(bpf_tls_object_bytes, bpf_tls_object_size, &options);
    if (!self->object)
        return -errno;
    int error = bpf_object__load(self->object);
    if (error)
        return error;
    struct bpf_map *map;
    bpf_object__for_each_map(map, self->object)
    {
        const char *name = bpf_map__name(map), *dot = strrchr(name, '.');
        if (dot && !strcmp(dot, ".bss") && bpf_map__value_size(map) >= sizeof *self->shared) {
            void *shared =
                mmap(NULL, sizeof *self->shared, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
            if (shared == MAP_FAILED)
                return -errno;
            self->shared = shared;
        }
    }
    if (!self->shared)
        return -EINVAL;
    self->processes = bpf_object__find_map_fd_by_name(self->object, "tls_processes");
    self->ring =
        ring_buffer__new(bpf_object__find_map_fd_by_name(self->object, "tls_ring"), on_tls_record, self, NULL);
    if (!self->ring)
        return -errno;
    static const char *const traced[] = {"on_tls_fork", "on_tls_exec"};
    for (size_t index = 0; index < 2; index++) {
        struct bpf_program *program = bpf_object__find_program_by_name(self->object, traced[index]);
        struct bpf_link *link = program ? bpf_program__attach(program) : NULL;
        if (!link)
            return -errno;
        self->links[self->link_count++] = link;
    }
    struct bpf_program *note = bpf_object__find_program_by_name(self->object, "note_tls_thread");
    if (!note)
        return -EINVAL;
    self->own_thread = bpf_program__fd(note);
    u64 arguments[1] = {0};
    LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = arguments, .ctx_size_in = sizeof arguments);
    return bpf_prog_test_run_opts(self->own_thread, &run);
}

static void release_tls(struct tls_probes *self)
{
    for (size_t at = 0; at < self->link_count; at++)
        bpf_link__destroy(self->links[at]);
    self->link_count = 0;
    ring_buffer__free(self->ring);
    self->ring = NULL;
    bpf_object__close(self->object);
    self->object = NULL;
    if (self->shared)
        munmap((void *)self->shared, sizeof *self->shared);
    self->shared = NULL;
}

static int print_nothing(enum libbpf_print_level level, const char *format, va_list arguments)
{
    return 0;
}

static PyObject *new_tls(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "", names))
        return NULL;
    struct tls_probes *self = (struct tls_probes *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->offset = tai_offset();
    libbpf_print_fn_t previous = libbpf_set_print(print_nothing);
    int error = load_tls(self);
    libbpf_set_print(previous);
    if (error) {
        Py_DECREF(self);
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return (PyObject *)self;
}

static void free_tls(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    release_tls((struct tls_probes *)object);
    type->tp_free(object);
    Py_DECREF(type);
}

static struct tls_probes *open_tls(PyObject *object)
{
    struct tls_probes *self = (struct tls_probes *)object;
    if (self->object)
        return self;
    PyErr_SetString(PyExc_ValueError, "the probes are closed");
    return NULL;
}

static PyObject *close_tls(PyObject *object, PyObject *unused)
{
    release_tls((struct tls_probes *)object);
    Py_RETURN_NONE;
}

static PyObject *tls_fileno(PyObject *object, PyObject *unused)
{
    struct tls_probes *self = open_tls(object);
    return self ? PyLong_FromLong(ring_buffer__epoll_fd(self->ring)) : NULL;
}

static PyObject *tls_spawn(PyObject *object, PyObject *argument)
{
    struct tls_probes *self = open_tls(object);
    int is_on = PyObject_IsTrue(argument);
    if (!self || is_on < 0)
        return NULL;
    u64 arguments[1] = {0};
    LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = arguments, .ctx_size_in = sizeof arguments);
    int error = is_on ? bpf_prog_test_run_opts(self->own_thread, &run) : 0;
    self->shared->spawns = is_on && !error;
    if (error) {
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *tls_follow(PyObject *object, PyObject *argument)
{
    struct tls_probes *self = open_tls(object);
    unsigned long process = PyLong_AsUnsignedLong(argument);
    if (!self || PyErr_Occurred())
        return NULL;
    u32 key = process, one = 1;
    if (bpf_map_update_elem(self->processes, &key, &one, BPF_ANY))
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* Attach a function's entry, and its return; or neither. Returns whether it could. */
static int attach_function(struct tls_probes *self, const char *path, size_t index)
{
    LIBBPF_OPTS(bpf_uprobe_opts, options, .func_name = tls_functions[index].function);
    struct bpf_program *entry = bpf_object__find_program_by_name(self->object, tls_functions[index].program);
    struct bpf_program *end = bpf_object__find_program_by_name(self->object, "on_tls_return");
    if (self->link_count + 2 > MAX_TLS_LINKS) {
        errno = ENOSPC;
        return 0;
    }
    /* The return first: an entry alone would be taken for one that lasts. */
    if (tls_functions[index].returns) {
        options.retprobe = true;
        struct bpf_link *link = bpf_program__attach_uprobe_opts(end, -1, path, 0, &options);
        if (!link)
            return 0;
        self->links[self->link_count++] = link;
        options.retprobe = false;
    }
    struct bpf_link *link = bpf_program__attach_uprobe_opts(entry, -1, path, 0, &options);
    if (link)
        self->links[self->link_count++] = link;
    else if (tls_functions[index].returns)
        bpf_link__destroy(self->links[--self->link_count]);
    return link != NULL;
}

static PyObject *tls_attach(PyObject *object, PyObject *argument)
{
    struct tls_probes *self = open_tls(object);
    PyObject *path = NULL;
    if (!self || !PyUnicode_FSConverter(argument, &path))
        return NULL;
    long count = 0;
    int error = 0;
    libbpf_print_fn_t previous = libbpf_set_print(print_nothing);
    for (size_t index = 0; index < sizeof tls_functions / sizeof *tls_functions; index++) {
        errno = 0;
        if (attach_function(self, PyBytes_AS_STRING(path), index))
            count++;
        else if (errno && errno != ENOENT)
            error = errno;
    }
    libbpf_set_print(previous);
    Py_DECREF(path);
    if (!count && error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(count);
}

static PyObject *tls_read(PyObject *object, PyObject *unused)
{
    struct tls_probes *self = open_tls(object);
    if (!self || !(self->list = PyList_New(0)))
        return NULL;
    ring_buffer__consume(self->ring);
    PyObject *list = self->list;
    self->list = NULL;
    if (PyErr_Occurred())
        Py_CLEAR(list);
    return list;
}

static PyObject *tls_lost(PyObject *object, PyObject *unused)
{
    struct tls_probes *self = open_tls(object);
    return self ? PyLong_FromUnsignedLongLong(self->shared->lost) : NULL;
}

static PyMethodDef tls_methods[] = {
    {"close", close_tls, METH_NOARGS, "Remove the probes. Idempotent."},
    {"fileno", tls_fileno, METH_NOARGS, "Return a descriptor that is readable when there are new records."},
    {"spawn", tls_spawn, METH_O, "Let child processes of this thread be traced from now on, or no longer."},
    {"follow", tls_follow, METH_O, "Trace a process that runs already, and its future children."},
    {"attach", tls_attach, METH_O,
     "Attach to the functions of libssl and libgnutls in a file. Returns how many it has. Raises OSError."},
    {"read", tls_read, METH_NOARGS,
     "Return new records: (function, process, thread, at, until, ssl, size, data); times in nanoseconds."},
    {"count_lost", tls_lost, METH_NOARGS, "Return how many records are missing."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tls_slots[] = {
    {Py_tp_new, new_tls},
    {Py_tp_dealloc, free_tls},
    {Py_tp_methods, tls_methods},
    {Py_tp_doc, "TlsProbes(): plaintext that processes read and write with libssl and libgnutls. Raises OSError."},
    {0, NULL},
};

static PyType_Spec tls_spec = {
    .name = "bothends.trace.capture._bpf.TlsProbes",
    .basicsize = sizeof(struct tls_probes),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = tls_slots,
};

int add_tls_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&tls_spec);
    int result = type ? PyModule_AddObjectRef(module, "TlsProbes", type) : -1;
    Py_XDECREF(type);
    return result;
}
