/* Lines of strace that are usual sends and receives: `_DATA_MOVED` of trace/capture/strace.py, which is the same. */
#include "pipeline.h"

#include <string.h>

enum { PID, AT, NAME, DESCRIPTOR, LABEL, DATA, REST, RESULT, UNTIL, SLOT_COUNT };
static const char *const slots[] = {"pid", "at", "name", "descriptor", "label", "data", "rest", "result", "until"};
static struct layout moved;

struct text {
    const char *at, *end;
};

static int is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static int skip(struct text *text, const char *expected, size_t length)
{
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, expected, length))
        return 0;
    text->at += length;
    return 1;
}

#define SKIP(text, literal) skip(text, literal, sizeof literal - 1)

/* Skip digits. Returns their number. */
static size_t digits(struct text *text)
{
    const char *start = text->at;
    while (text->at < text->end && is_digit(*text->at))
        text->at++;
    return text->at - start;
}

static PyObject *number(const char *start, size_t length)
{
    if (length <= 18) {
        long long value = 0;
        for (size_t at = 0; at < length; at++)
            value = 10 * value + (start[at] - '0');
        return PyLong_FromLongLong(value);
    }
    PyObject *copy = PyUnicode_FromStringAndSize(start, length);
    PyObject *value = copy ? PyLong_FromUnicodeObject(copy, 10) : NULL;
    Py_XDECREF(copy);
    return value;
}

/* The number of nanoseconds of `SECONDS.NANOSECONDS`. */
static PyObject *nanoseconds(const char *start, size_t whole)
{
    char joined[64];
    if (whole + 9 > sizeof joined) {
        PyErr_SetString(PyExc_ValueError, "a time that is none");
        return NULL;
    }
    memcpy(joined, start, whole);
    memcpy(joined + whole, start + whole + 1, 9);
    return number(joined, whole + 9);
}

/* `SECONDS.NANOSECONDS`: returns the digits of the seconds, 0 if it is not there. */
static size_t time_of(struct text *text)
{
    size_t whole = digits(text);
    if (!whole || !SKIP(text, "."))
        return 0;
    return digits(text) == 9 ? whole : 0;
}

static int nibble(char byte)
{
    return is_digit(byte) ? byte - '0' : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static int is_flag(char byte)
{
    return (byte >= 'A' && byte <= 'Z') || byte == '_' || byte == '|';
}

static int is_kind(char byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || is_digit(byte) || byte == '-';
}

/* What is found of a line. */
struct found {
    const char *pid, *at, *descriptor, *label, *data, *rest, *result, *duration;
    size_t pid_size, at_whole, descriptor_size, label_size, data_size, rest_size, result_size, duration_whole;
    int name;
};

static const char *const names[] = {"sendto(", "recvfrom(", "read(", "write("};

static int match_label(struct text *text, struct found *found)
{
    found->label = text->at;
    if (text->at == text->end || *text->at < 'A' || *text->at > 'Z')
        return 0;
    while (text->at < text->end && is_kind(*text->at))
        text->at++;
    if (!SKIP(text, ":["))
        return 0;
    const char *space = memchr(text->at, ' ', text->end - text->at);
    if (!space || space - text->at < 3 || memcmp(space - 3, "]>,", 3) || memchr(text->at, '"', space - text->at))
        return 0;
    found->label_size = space - 2 - found->label;
    text->at = space + 1;
    return 1;
}

static int match_rest(struct text *text, struct found *found)
{
    found->rest = text->at;
    (void)SKIP(text, "..."); /* the data are cut */
    if (!SKIP(text, ", ") || !digits(text))
        return 0;
    if (SKIP(text, ", ")) {
        if (SKIP(text, "MSG_")) {
            const char *flags = text->at;
            while (text->at < text->end && is_flag(*text->at))
                text->at++;
            if (text->at == flags)
                return 0;
        } else if (!SKIP(text, "0")) {
            return 0;
        }
        if (SKIP(text, ", NULL, ") && !SKIP(text, "NULL") && !SKIP(text, "0"))
            return 0;
    }
    found->rest_size = text->at - found->rest;
    return 1;
}

static int match(struct text text, struct found *found)
{
    found->pid = text.at;
    found->pid_size = digits(&text);
    if (!found->pid_size || text.at == text.end || *text.at != ' ')
        return 0;
    while (text.at < text.end && *text.at == ' ')
        text.at++;
    found->at = text.at;
    found->at_whole = time_of(&text);
    if (!found->at_whole || !SKIP(&text, " "))
        return 0;
    for (found->name = 0; found->name < 4; found->name++)
        if (skip(&text, names[found->name], strlen(names[found->name])))
            break;
    if (found->name == 4)
        return 0;
    found->descriptor = text.at;
    found->descriptor_size = digits(&text);
    if (!found->descriptor_size || !SKIP(&text, "<") || !match_label(&text, found) || !SKIP(&text, "\""))
        return 0;
    found->data = text.at;
    while (text.end - text.at >= 4 && text.at[0] == '\\' && text.at[1] == 'x' && nibble(text.at[2]) >= 0
           && nibble(text.at[3]) >= 0)
        text.at += 4;
    found->data_size = text.at - found->data;
    if (!SKIP(&text, "\"") || !match_rest(&text, found) || !SKIP(&text, ") = "))
        return 0;
    found->result = text.at;
    found->result_size = digits(&text);
    if (!found->result_size || !SKIP(&text, " <"))
        return 0;
    found->duration = text.at;
    found->duration_whole = time_of(&text);
    return found->duration_whole && SKIP(&text, ">") && text.at == text.end;
}

static PyObject *moved_of(const struct found *found, PyObject *call_names)
{
    PyObject *object = new_object(&moved);
    if (!object)
        return NULL;
    PyObject *values[SLOT_COUNT] = {0};
    values[PID] = number(found->pid, found->pid_size);
    values[AT] = nanoseconds(found->at, found->at_whole);
    values[NAME] = Py_NewRef(PyTuple_GET_ITEM(call_names, found->name));
    values[DESCRIPTOR] = number(found->descriptor, found->descriptor_size);
    values[LABEL] = PyUnicode_DecodeASCII(found->label, found->label_size, "replace");
    values[DATA] = PyBytes_FromStringAndSize(NULL, found->data_size / 4);
    values[REST] = PyUnicode_DecodeUTF8(found->rest, found->rest_size, NULL);
    values[RESULT] = number(found->result, found->result_size);
    PyObject *duration = nanoseconds(found->duration, found->duration_whole);
    values[UNTIL] = duration && values[AT] ? PyNumber_Add(values[AT], duration) : NULL;
    Py_XDECREF(duration);
    int is_complete = 1;
    for (int at = 0; at < SLOT_COUNT; at++) {
        is_complete &= values[at] != NULL;
        set_slot(&moved, object, at, values[at]);
    }
    if (!is_complete) {
        Py_DECREF(object);
        return NULL;
    }
    char *data = PyBytes_AS_STRING(values[DATA]);
    for (size_t at = 0; at < found->data_size; at += 4)
        *data++ = nibble(found->data[at + 2]) << 4 | nibble(found->data[at + 3]);
    return object;
}

PyObject *parse_lines(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_Check(arguments[0]) || !PyTuple_Check(arguments[2])
        || PyTuple_GET_SIZE(arguments[2]) != 4) {
        PyErr_SetString(PyExc_TypeError, "parse_lines(data, moved, names)");
        return NULL;
    }
    if (find_layout(&moved, arguments[1], slots, SLOT_COUNT))
        return NULL;
    const char *at = PyBytes_AS_STRING(arguments[0]), *end = at + PyBytes_GET_SIZE(arguments[0]);
    PyObject *lines = PyList_New(0);
    while (lines && at < end) {
        const char *line_end = memchr(at, '\n', end - at);
        struct found found;
        if (!line_end)
            line_end = end;
        PyObject *line = match((struct text){at, line_end}, &found) ? moved_of(&found, arguments[2])
                                                                    : PyBytes_FromStringAndSize(at, line_end - at);
        if (!line || PyList_Append(lines, line))
            Py_CLEAR(lines);
        Py_XDECREF(line);
        at = line_end + 1;
    }
    return lines;
}
