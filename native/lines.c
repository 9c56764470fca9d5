/* Answering lines: the function of a service made with `@message`, called for each line of a chunk.
 *
 * What services/functions.py does for a line, in Python, takes longer than a short function. So a conversation may
 * name its function (Conversation.line_function). A chunk of whole lines, none of which has a CR or is too long, is
 * then answered here: each line costs a bytes object, a call, and a copy of the answer. Any other chunk goes to
 * `receive`, whose decoder alone holds an unfinished line: after a chunk that ends with LF it holds none.
 */
#include "internal.h"

static PyObject *no_line_function; /* the property Conversation.line_function */

/* Remember the base class of conversations. 0, or -1 with an exception set. */
int lines_bind_class(PyObject *conversation_class)
{
    no_line_function = PyObject_GetAttr(conversation_class, names.line_function);
    return no_line_function == NULL ? -1 : 0;
}

/* Ask the conversation for its function, once. 0, or -1 with an exception set. */
static int find_function(Connection *self)
{
    PyObject *property = PyObject_GetAttr((PyObject *)Py_TYPE(self->handler), names.line_function), *limit;
    bool has_none = property == no_line_function;

    self->flags |= LINES_KNOWN;
    Py_XDECREF(property);
    if (property == NULL)
        return -1;
    if (has_none)
        return 0;
    self->line_function = PyObject_GetAttr(self->handler, names.line_function);
    if (self->line_function == NULL)
        return -1;
    if (self->line_function == Py_None) {
        Py_CLEAR(self->line_function);
        return 0;
    }
    limit = PyObject_GetAttr(self->handler, names.line_limit);
    self->line_limit = limit == NULL ? 0 : PyLong_AsSsize_t(limit);
    Py_XDECREF(limit);
    return PyErr_Occurred() ? -1 : 0;
}

/* Return whether a chunk can be answered here, or -1 with an exception set. */
int lines_can_answer(Connection *self, const char *data, size_t size)
{
    bool is_whole = data[size - 1] == '\n', continues = self->flags & LINES_PARTIAL;

    if (!(self->flags & LINES_KNOWN) && find_function(self) < 0)
        return -1;
    if (self->line_function == NULL)
        return 0;
    self->flags &= ~(uint32_t)LINES_PARTIAL;
    self->flags |= is_whole ? 0 : LINES_PARTIAL;
    return is_whole && !continues && size <= (size_t)self->line_limit && memchr(data, '\r', size) == NULL;
}

/* Append an answer and LF to the buffer of answers. 0, or -1 with an exception set. */
static int append_answer(Core *core, size_t *filled, PyObject *answer)
{
    size_t size = (size_t)PyBytes_GET_SIZE(answer), needed = *filled + size + 1;

    if (needed > core->answers_size) {
        char *larger = PyMem_Realloc(core->answers, 2 * needed);

        if (larger == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        core->answers = larger;
        core->answers_size = 2 * needed;
    }
    memcpy(core->answers + *filled, PyBytes_AS_STRING(answer), size);
    core->answers[needed - 1] = '\n';
    *filled = needed;
    return 0;
}

/* Call the function with a line, and append what it returns. 0, or -1 with an exception set. */
static int answer_line(Connection *self, const char *line, size_t size, size_t *filled)
{
    PyObject *message = PyBytes_FromStringAndSize(line, (Py_ssize_t)size), *answer;
    int status = 0;

    if (message == NULL)
        return -1;
    answer = PyObject_CallOneArg(self->line_function, message);
    Py_DECREF(message);
    if (answer != NULL && !PyBytes_CheckExact(answer) && answer != Py_None)
        Py_SETREF(answer, PyObject_CallMethodOneArg(self->handler, names.check_answer, answer));
    if (answer == NULL)
        return -1;
    if (answer != Py_None)
        status = append_answer(self->core, filled, answer);
    Py_DECREF(answer);
    return status;
}

/* Answer the lines of a chunk. Returns the answers, or NULL with an exception set. If the function raises, the
 * conversation fails, and the answers to the lines before are returned. */
PyObject *lines_answer(Connection *self, const char *data, size_t size)
{
    const char *end = data + size;
    size_t filled = 0;

    while (data < end) {
        const char *stop = memchr(data, '\n', (size_t)(end - data));
        PyObject *exception;
        int status;

        if (answer_line(self, data, (size_t)(stop - data), &filled) == 0) {
            data = stop + 1;
            continue;
        }
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;
        exception = take_exception();
        status = discard_result(PyObject_CallMethodOneArg(self->handler, names.fail, exception));
        Py_DECREF(exception);
        if (status < 0)
            return NULL;
        break;
    }
    return PyBytes_FromStringAndSize(self->core->answers, (Py_ssize_t)filled);
}
