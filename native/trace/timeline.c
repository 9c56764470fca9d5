/* Order points so that a cause precedes its effects: the class Timeline, as `PythonTimeline` of
 * trace/correlation/timeline.py, which says what it does.
 *
 * A point is known by its key: twice the number of its event, and one more for its end. An entry exists from the
 * first time that its key is mentioned until its point is emitted. */
#include "pipeline.h"

#include <stdlib.h>
#include <string.h>
#include <structmember.h>

struct keys {
    int64_t *values;
    uint32_t count, capacity;
};

struct entry {
    int64_t key; /* -1: the place is free */
    int64_t at;
    PyObject *point; /* NULL: not added yet */
    struct keys causes, effects;
};

struct ready {
    int64_t at, key;
};

typedef struct {
    PyObject_HEAD
    PyObject *call_type, *source_of, *last_of_source;
    struct entry **entries; /* a hash table with open addressing */
    size_t capacity, count, pending;
    int64_t *emitted; /* a hash table of the keys that have been emitted; 0 is a free place, as no key is */
    size_t emitted_capacity, emitted_count, max_emitted;
    int64_t oldest_emitted; /* smaller keys that are not pending were emitted long ago */
    struct ready *ready;    /* a heap */
    size_t ready_count, ready_capacity;
    long long violations;
} Timeline;

static PyObject *name_at, *name_number, *name_thread, *name_until;

static size_t hash_of(int64_t key)
{
    return (size_t)((uint64_t)key * 0x9E3779B97F4A7C15ull >> 20);
}

/* Keys */

static int keys_contain(const struct keys *keys, int64_t key)
{
    for (uint32_t at = 0; at < keys->count; at++)
        if (keys->values[at] == key)
            return 1;
    return 0;
}

static int keys_add(struct keys *keys, int64_t key)
{
    if (keys->count == keys->capacity) {
        uint32_t capacity = keys->capacity ? 2 * keys->capacity : 4;
        int64_t *values = realloc(keys->values, capacity * sizeof *values);
        if (!values) {
            PyErr_NoMemory();
            return -1;
        }
        keys->values = values;
        keys->capacity = capacity;
    }
    keys->values[keys->count++] = key;
    return 0;
}

static void keys_remove(struct keys *keys, int64_t key)
{
    for (uint32_t at = 0; at < keys->count; at++)
        if (keys->values[at] == key) {
            keys->values[at] = keys->values[--keys->count];
            return;
        }
}

/* Entries */

static struct entry *find(const Timeline *self, int64_t key)
{
    for (size_t at = hash_of(key) & (self->capacity - 1); self->entries[at]; at = (at + 1) & (self->capacity - 1))
        if (self->entries[at]->key == key)
            return self->entries[at];
    return NULL;
}

static void place(struct entry **entries, size_t capacity, struct entry *entry)
{
    size_t at = hash_of(entry->key) & (capacity - 1);
    while (entries[at])
        at = (at + 1) & (capacity - 1);
    entries[at] = entry;
}

static struct entry *entry_of(Timeline *self, int64_t key)
{
    struct entry *entry = find(self, key);
    if (entry)
        return entry;
    if (2 * self->count >= self->capacity) {
        size_t capacity = 2 * self->capacity;
        struct entry **entries = calloc(capacity, sizeof *entries);
        if (!entries) {
            PyErr_NoMemory();
            return NULL;
        }
        for (size_t at = 0; at < self->capacity; at++)
            if (self->entries[at])
                place(entries, capacity, self->entries[at]);
        free(self->entries);
        self->entries = entries;
        self->capacity = capacity;
    }
    entry = calloc(1, sizeof *entry);
    if (!entry) {
        PyErr_NoMemory();
        return NULL;
    }
    entry->key = key;
    place(self->entries, self->capacity, entry);
    self->count++;
    return entry;
}

static void free_entry(struct entry *entry)
{
    free(entry->causes.values);
    free(entry->effects.values);
    Py_XDECREF(entry->point);
    free(entry);
}

/* Remove an entry from the table; the entries behind it move up. */
static void take_out(Timeline *self, struct entry *entry)
{
    size_t mask = self->capacity - 1, at = hash_of(entry->key) & mask;
    while (self->entries[at] != entry)
        at = (at + 1) & mask;
    self->entries[at] = NULL;
    self->count--;
    for (size_t next = (at + 1) & mask; self->entries[next]; next = (next + 1) & mask) {
        struct entry *moved = self->entries[next];
        size_t home = hash_of(moved->key) & mask;
        if (((next - home) & mask) >= ((next - at) & mask)) {
            self->entries[at] = moved;
            self->entries[next] = NULL;
            at = next;
        }
    }
}

/* Emitted keys */

static int is_in_emitted(const Timeline *self, int64_t key)
{
    size_t mask = self->emitted_capacity - 1;
    for (size_t at = hash_of(key) & mask; self->emitted[at]; at = (at + 1) & mask)
        if (self->emitted[at] == key)
            return 1;
    return 0;
}

static void place_emitted(int64_t *emitted, size_t capacity, int64_t key)
{
    size_t at = hash_of(key) & (capacity - 1);
    while (emitted[at])
        at = (at + 1) & (capacity - 1);
    emitted[at] = key;
}

static int compare_keys(const void *left, const void *right)
{
    int64_t first = *(const int64_t *)left, second = *(const int64_t *)right;
    return (first > second) - (first < second);
}

static int is_emitted(const Timeline *self, int64_t key)
{
    if (is_in_emitted(self, key))
        return 1;
    if (key >= self->oldest_emitted || key & 1)
        return 0;
    struct entry *entry = find(self, key);
    return !entry || !entry->point;
}

/* Keep the newest emitted keys, and forget the sources whose last point has been emitted. */
static int forget_oldest(Timeline *self)
{
    int64_t *keys = malloc(self->emitted_count * sizeof *keys);
    int64_t *emitted = calloc(self->emitted_capacity, sizeof *emitted);
    PyObject *last_of_source = PyDict_New(), *source, *last;
    size_t count = 0;
    if (!keys || !emitted || !last_of_source) {
        free(keys);
        free(emitted);
        Py_XDECREF(last_of_source);
        PyErr_NoMemory();
        return -1;
    }
    for (size_t at = 0; at < self->emitted_capacity; at++)
        if (self->emitted[at])
            keys[count++] = self->emitted[at];
    qsort(keys, count, sizeof *keys, compare_keys);
    for (size_t at = self->max_emitted; at < count; at++)
        place_emitted(emitted, self->emitted_capacity, keys[at]);
    self->oldest_emitted = keys[self->max_emitted];
    self->emitted_count = count - self->max_emitted;
    free(self->emitted);
    self->emitted = emitted;
    free(keys);
    for (Py_ssize_t position = 0; PyDict_Next(self->last_of_source, &position, &source, &last);) {
        struct entry *entry = find(self, PyLong_AsLongLong(last));
        if (entry && entry->point && PyDict_SetItem(last_of_source, source, last))
            break;
    }
    Py_SETREF(self->last_of_source, last_of_source);
    return PyErr_Occurred() ? -1 : 0;
}

static int note_emitted(Timeline *self, int64_t key)
{
    if (2 * self->emitted_count >= self->emitted_capacity) {
        size_t capacity = 2 * self->emitted_capacity;
        int64_t *emitted = calloc(capacity, sizeof *emitted);
        if (!emitted) {
            PyErr_NoMemory();
            return -1;
        }
        for (size_t at = 0; at < self->emitted_capacity; at++)
            if (self->emitted[at])
                place_emitted(emitted, capacity, self->emitted[at]);
        free(self->emitted);
        self->emitted = emitted;
        self->emitted_capacity = capacity;
    }
    if (!is_in_emitted(self, key)) {
        place_emitted(self->emitted, self->emitted_capacity, key);
        self->emitted_count++;
    }
    return self->emitted_count > 2 * self->max_emitted ? forget_oldest(self) : 0;
}

/* Ready points */

static int is_before(const struct ready *left, const struct ready *right)
{
    return left->at < right->at || (left->at == right->at && left->key < right->key);
}

static int push_ready(Timeline *self, int64_t at, int64_t key)
{
    if (self->ready_count == self->ready_capacity) {
        size_t capacity = self->ready_capacity ? 2 * self->ready_capacity : 256;
        struct ready *ready = realloc(self->ready, capacity * sizeof *ready);
        if (!ready) {
            PyErr_NoMemory();
            return -1;
        }
        self->ready = ready;
        self->ready_capacity = capacity;
    }
    struct ready added = {at, key};
    size_t position = self->ready_count++;
    while (position && is_before(&added, &self->ready[(position - 1) / 2])) {
        self->ready[position] = self->ready[(position - 1) / 2];
        position = (position - 1) / 2;
    }
    self->ready[position] = added;
    return 0;
}

static struct ready pop_first(Timeline *self)
{
    struct ready first = self->ready[0], last = self->ready[--self->ready_count];
    size_t position = 0;
    for (;;) {
        size_t child = 2 * position + 1;
        if (child >= self->ready_count)
            break;
        if (child + 1 < self->ready_count && is_before(&self->ready[child + 1], &self->ready[child]))
            child++;
        if (!is_before(&self->ready[child], &last))
            break;
        self->ready[position] = self->ready[child];
        position = child;
    }
    if (self->ready_count)
        self->ready[position] = last;
    return first;
}

/* The class */

static int add_edge(Timeline *self, int64_t cause, int64_t effect)
{
    struct entry *later = entry_of(self, effect);
    if (!later)
        return -1;
    if (keys_contain(&later->causes, cause))
        return 0;
    if (keys_add(&later->causes, cause))
        return -1;
    struct entry *earlier = entry_of(self, cause);
    return earlier ? keys_add(&earlier->effects, effect) : -1;
}

static int read_attribute(PyObject *object, PyObject *name, int64_t *value)
{
    PyObject *found = PyObject_GetAttr(object, name);
    if (!found)
        return -1;
    *value = PyLong_AsLongLong(found);
    Py_DECREF(found);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

/* When a point is, and whose points are in order; a new reference, or Py_None. */
static PyObject *read_point(Timeline *self, PyObject *point, PyObject *event, int is_end, int64_t *at)
{
    if (Py_IS_TYPE(event, (PyTypeObject *)self->call_type)) {
        PyObject *until = is_end ? PyObject_GetAttr(event, name_until) : Py_NewRef(Py_None);
        if (!until)
            return NULL;
        int result = 0;
        if (until == Py_None) {
            result = read_attribute(event, name_at, at);
        } else {
            *at = PyLong_AsLongLong(until);
            result = *at == -1 && PyErr_Occurred() ? -1 : 0;
        }
        Py_DECREF(until);
        return result ? NULL : PyObject_GetAttr(event, name_thread);
    }
    return read_attribute(point, name_at, at) ? NULL : PyObject_CallOneArg(self->source_of, point);
}

static PyObject *add_point(PyObject *object, PyObject *point, int is_in_order)
{
    Timeline *self = (Timeline *)object;
    if (!PyTuple_Check(point) || PyTuple_GET_SIZE(point) != 2) {
        PyErr_SetString(PyExc_TypeError, "a Point is needed");
        return NULL;
    }
    PyObject *event = PyTuple_GET_ITEM(point, 0);
    int is_end = PyObject_IsTrue(PyTuple_GET_ITEM(point, 1));
    int64_t key, at;
    if (is_end < 0 || read_attribute(event, name_number, &key))
        return NULL;
    if (key <= 0 || key > INT64_MAX / 4)
        return PyErr_Format(PyExc_ValueError, "an event's number is above 0");
    key = 2 * key + is_end;
    PyObject *source = read_point(self, point, event, is_end, &at);
    if (!source)
        return NULL;
    struct entry *entry = entry_of(self, key);
    if (!entry)
        goto failed;
    self->pending += entry->point == NULL;
    Py_XSETREF(entry->point, Py_NewRef(point));
    entry->at = at;
    if (source != Py_None && is_in_order) {
        PyObject *before = PyDict_GetItemWithError(self->last_of_source, source);
        if (!before && PyErr_Occurred())
            goto failed;
        if (before) {
            struct entry *last = find(self, PyLong_AsLongLong(before));
            if (last && last->point && add_edge(self, last->key, key))
                goto failed;
        }
        PyObject *own = PyLong_FromLongLong(key);
        int result = own ? PyDict_SetItem(self->last_of_source, source, own) : -1;
        Py_XDECREF(own);
        if (result)
            goto failed;
    }
    Py_DECREF(source);
    if (!entry->causes.count && push_ready(self, at, key))
        return NULL;
    Py_RETURN_NONE;
failed:
    Py_DECREF(source);
    return NULL;
}

static PyObject *add(PyObject *object, PyObject *point)
{
    return add_point(object, point, 1);
}

static PyObject *add_unordered(PyObject *object, PyObject *point)
{
    return add_point(object, point, 0);
}

static PyObject *add_constraint(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Timeline *self = (Timeline *)object;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "add_constraint(cause, effect)");
        return NULL;
    }
    int64_t cause = PyLong_AsLongLong(arguments[0]), effect = PyLong_AsLongLong(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    if (cause <= 0 || effect <= 0)
        return PyErr_Format(PyExc_ValueError, "a key is above 0");
    if (cause != effect && !is_emitted(self, cause)) {
        if (is_emitted(self, effect))
            self->violations++;
        else if (add_edge(self, cause, effect))
            return NULL;
    }
    Py_RETURN_NONE;
}

/* Emit an entry's point: append it to a list. */
static int emit(Timeline *self, struct entry *entry, PyObject *points)
{
    int result = PyList_Append(points, entry->point);
    take_out(self, entry);
    self->pending--;
    for (uint32_t at = 0; !result && at < entry->effects.count; at++) {
        struct entry *effect = find(self, entry->effects.values[at]);
        if (!effect || !effect->causes.count)
            continue;
        keys_remove(&effect->causes, entry->key);
        if (!effect->causes.count && effect->point)
            result = push_ready(self, effect->at, effect->key);
    }
    if (!result)
        result = note_emitted(self, entry->key);
    free_entry(entry);
    return result;
}

/* Let the earliest point wait no longer for its causes: they are unknown, or form a cycle. */
static int break_cycle(Timeline *self)
{
    struct entry *first = NULL;
    for (size_t at = 0; at < self->capacity; at++) {
        struct entry *entry = self->entries[at];
        if (entry && entry->point
            && (!first || entry->at < first->at || (entry->at == first->at && entry->key < first->key)))
            first = entry;
    }
    if (!first)
        return 0;
    for (uint32_t at = 0; at < first->causes.count; at++) {
        struct entry *cause = find(self, first->causes.values[at]);
        self->violations += cause && cause->point;
    }
    first->causes.count = 0;
    return push_ready(self, first->at, first->key);
}

static PyObject *pop_ready(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Timeline *self = (Timeline *)object;
    int overflow = 0, is_all = 1;
    long long until = INT64_MAX;
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "pop_ready(until)");
        return NULL;
    }
    if (count) {
        until = PyLong_AsLongLongAndOverflow(arguments[0], &overflow);
        if (until == -1 && !overflow && PyErr_Occurred())
            return NULL;
        is_all = overflow > 0;
    }
    PyObject *points = PyList_New(0);
    while (points) {
        while (points && self->ready_count && (is_all || self->ready[0].at <= until)) {
            struct entry *entry = find(self, pop_first(self).key);
            if (entry && entry->point && !entry->causes.count && emit(self, entry, points))
                Py_CLEAR(points);
        }
        if (!is_all || !self->pending)
            break;
        if (break_cycle(self))
            Py_CLEAR(points);
    }
    return points;
}

static PyObject *pending(PyObject *object, PyObject *unused)
{
    Timeline *self = (Timeline *)object;
    PyObject *events = PyList_New(0);
    for (size_t at = 0; events && at < self->capacity; at++)
        if (self->entries[at] && self->entries[at]->point
            && PyList_Append(events, PyTuple_GET_ITEM(self->entries[at]->point, 0)))
            Py_CLEAR(events);
    return events;
}

static Py_ssize_t length(PyObject *object)
{
    return ((Timeline *)object)->pending;
}

static PyObject *new_timeline(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"call_type", "source_of", "max_emitted", NULL};
    PyObject *call_type, *source_of;
    Py_ssize_t max_emitted;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!On", names, &PyType_Type, &call_type, &source_of,
                                     &max_emitted))
        return NULL;
    if (max_emitted < 1)
        return PyErr_Format(PyExc_ValueError, "max_emitted is above 0");
    PyObject **constants[] = {&name_at, &name_number, &name_thread, &name_until};
    const char *texts[] = {"at", "number", "thread", "until"};
    for (size_t at = 0; at < sizeof texts / sizeof *texts; at++)
        if (!*constants[at] && !(*constants[at] = PyUnicode_InternFromString(texts[at])))
            return NULL;
    Timeline *self = (Timeline *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->call_type = Py_NewRef(call_type);
    self->source_of = Py_NewRef(source_of);
    self->last_of_source = PyDict_New();
    self->max_emitted = max_emitted;
    self->capacity = self->emitted_capacity = 1024;
    self->entries = calloc(self->capacity, sizeof *self->entries);
    self->emitted = calloc(self->emitted_capacity, sizeof *self->emitted);
    if (!self->last_of_source || !self->entries || !self->emitted) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void free_timeline(PyObject *object)
{
    Timeline *self = (Timeline *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (size_t at = 0; self->entries && at < self->capacity; at++)
        if (self->entries[at])
            free_entry(self->entries[at]);
    free(self->entries);
    free(self->emitted);
    free(self->ready);
    Py_XDECREF(self->call_type);
    Py_XDECREF(self->source_of);
    Py_XDECREF(self->last_of_source);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"add", add, METH_O, "Add a point. Add the points of one thread, and of one interface, in order."},
    {"add_unordered", add_unordered, METH_O,
     "Add a point that need not follow the points of its thread that were added before."},
    {"add_constraint", (PyCFunction)(void (*)(void))add_constraint, METH_FASTCALL,
     "Require one point to precede another, by their keys. The points may be added later."},
    {"pop_ready", (PyCFunction)(void (*)(void))pop_ready, METH_FASTCALL,
     "Return the next points, while the earliest unconstrained one is not later than `until`."},
    {"pending", pending, METH_NOARGS, "Return the events of the points that have not been emitted."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"violations", T_LONGLONG, offsetof(Timeline, violations), READONLY, "ignored constraints"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_new, new_timeline}, {Py_tp_dealloc, free_timeline}, {Py_tp_methods, methods},
    {Py_tp_members, members},  {Py_sq_length, length},         {0, NULL},
};

PyType_Spec timeline_spec = {
    .name = "bothends.trace._pipeline.Timeline",
    .basicsize = sizeof(Timeline),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = type_slots,
};
