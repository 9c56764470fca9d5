/* The log of connections, messages and datagrams, for what is served in C.
 *
 * A record is made of a template, which comes from Python (LineFormat in events.py): text, in which a byte from 1 to
 * 8 stands for a field. So the words of the log are in log/text.py and log/json.py only; here is how a field is
 * written. Bytes of a peer are escaped as in escaping.py, and tests compare the two.
 *
 * Records are collected, and passed on before the loop waits, when they are FULL bytes or LOG_DELAY old: with one
 * call and one write for all of them. What is logged in Python calls `flush_log` before, so the order stays.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <time.h>

enum { FULL = 32768, MAX_SHOWN = 1024, MAX_ADDRESS = 128 };

/* Seconds that a record waits at most while the loop is busy. */
static const double LOG_DELAY = 0.001;

/* The fields of a template. */
enum field {
    FIELD_TIME = 1,   /* nanoseconds since 1970 */
    FIELD_CONNECTION, /* its number */
    FIELD_PEER,
    FIELD_LOCAL,
    FIELD_RECEIVED, /* bytes */
    FIELD_SENT,     /* bytes */
    FIELD_LENGTH,   /* bytes of the message */
    FIELD_TEXT,     /* the message, escaped */
    FIELDS,
};

/* A template, cut at its fields: before each piece but the first one is a field. */
enum { MAX_PIECES = 12 };

typedef struct {
    PyObject *bytes; /* NULL if it is not set; empty for what is not logged */
    struct {
        enum field field; /* 0 for none */
        const char *text;
        size_t size;
    } pieces[MAX_PIECES];
    size_t count;
    size_t size; /* of what it makes, without addresses and text, at most */
} Template;

typedef struct {
    char *text;
    size_t size, capacity;
} Buffer;

/* The records, and an IPv4 address: FIELD_PEER is its host, FIELD_LENGTH its port. */
enum template { ADDRESS, OPENED, RECEIVED, SENT, ENDED, CLOSED_FIRST, TEMPLATES = CLOSED_FIRST + CLOSE_REASONS };

struct TrafficLog {
    PyObject *write;          /* write(stream, lines) */
    PyObject *format_address; /* format_address(address, number) -> bytes */
    PyObject *on_fragment;    /* on_fragment(peer, data): a short read, which Python may hold; or NULL */
    PyObject *end_fragment;   /* end_fragment(number): write what is held of a connection; or NULL */
    Template templates[TEMPLATES];
    PyObject *local, *local_text; /* the last local address, and how it is written */
    Py_ssize_t limit, max_fragment;
    int message_stream, activity_stream;
    int is_json, line_by_line;
    double oldest; /* when the first record was collected */
    Buffer buffers[LOG_STREAMS];
};

/* The values of a record's fields. */
typedef struct {
    uint64_t connection, received, sent;
    PyObject *peer, *local;
    size_t length; /* of the message */
    const unsigned char *data;
    size_t shown;  /* bytes of it in the record */
    char note[96]; /* follows them */
} Record;

/* Escaping --------------------------------------------------------------------------------------------- */

/* The characters that isprintable() accepts although they are invisible: _INVISIBLE in escaping.py. */
static bool is_invisible(uint32_t character)
{
    static const uint32_t ranges[][2] = {{0x34f, 0x34f},   {0x115f, 0x1160}, {0x17b4, 0x17b5},
                                         {0x180b, 0x180d}, {0x180f, 0x180f}, {0x3164, 0x3164},
                                         {0xfe00, 0xfe0f}, {0xffa0, 0xffa0}, {0xe0100, 0xe01ef}};

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (character >= ranges[i][0] && character <= ranges[i][1])
            return true;
    return false;
}

/* Decode the character that starts at `data`. Returns its size in bytes, 0 if it is not UTF-8. */
static size_t decode_utf8(const unsigned char *data, size_t size, uint32_t *character)
{
    unsigned char first = data[0];
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};

    if (first < 0xc2 || first > 0xf4 || size < length)
        return 0;
    *character = first & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((data[i] & 0xc0) != 0x80)
            return 0;
        *character = *character << 6 | (data[i] & 0x3f);
    }
    if (*character < smallest[length] || *character > 0x10ffff || (*character >= 0xd800 && *character <= 0xdfff))
        return 0;
    return length;
}

/* Bytes of output for one of input, at most: a backslash or a control character in JSON. */
enum { MAX_ESCAPED = 6 };

static const char hex_digits[] = "0123456789abcdef";

static char *put_hex(char *out, uint32_t number, int digits)
{
    for (int i = digits - 1; i >= 0; i--)
        *out++ = hex_digits[number >> (4 * i) & 15];
    return out;
}

/* Write a backslash: in JSON it is a character to be escaped again. */
static char *put_backslash(char *out, bool is_json)
{
    *out++ = '\\';
    if (is_json)
        *out++ = '\\';
    return out;
}

/* Write a character beyond ASCII. */
static char *put_character(char *out, uint32_t character, const unsigned char *data, size_t size, bool is_json)
{
    if (!Py_UNICODE_ISPRINTABLE(character) || is_invisible(character)) {
        int digits = 1;

        while (character >> (4 * digits))
            digits++;
        out = put_backslash(out, is_json);
        *out++ = 'u';
        *out++ = '{';
        out = put_hex(out, character, digits);
        *out++ = '}';
    } else if (!is_json) {
        memcpy(out, data, size);
        out += size;
    } else if (character < 0x10000) {
        *out++ = '\\';
        *out++ = 'u';
        out = put_hex(out, character, 4);
    } else { /* a surrogate pair (RFC 8259, section 7) */
        memcpy(out, "\\u", 2);
        out = put_hex(out + 2, 0xd800 + ((character - 0x10000) >> 10), 4);
        memcpy(out, "\\u", 2);
        out = put_hex(out + 2, 0xdc00 + ((character - 0x10000) & 0x3ff), 4);
    }
    return out;
}

/* Write bytes as escaping.py's escape() does, in JSON within quotes. Returns the end of what is written: at most
 * MAX_ESCAPED for each byte. */
static char *put_escaped(char *out, const unsigned char *data, size_t size, bool is_json)
{
    for (size_t i = 0; i < size;) {
        unsigned char byte = data[i];
        uint32_t character;
        size_t length;

        if (byte >= 0x20 && byte < 0x7f && byte != '\\' && (byte != '"' || !is_json)) {
            *out++ = (char)byte;
            i++;
        } else if (byte == '"') {
            *out++ = '\\';
            *out++ = '"';
            i++;
        } else if (byte >= 0x80 && (length = decode_utf8(data + i, size - i, &character)) > 0) {
            out = put_character(out, character, data + i, length, is_json);
            i += length;
        } else {
            out = put_backslash(out, is_json);
            if (byte == '\\')
                out = put_backslash(out, is_json);
            else if (byte == '\n' || byte == '\r' || byte == '\t')
                *out++ = byte == '\n' ? 'n' : byte == '\r' ? 'r' : 't';
            else {
                *out++ = 'x';
                out = put_hex(out, byte, 2);
            }
            i++;
        }
    }
    return out;
}

/* Records ---------------------------------------------------------------------------------------------- */

static char *put_number(char *out, uint64_t number)
{
    char digits[20];
    size_t count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count)
        *out++ = digits[--count];
    return out;
}

static char *put_bytes(char *out, PyObject *bytes)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);

    memcpy(out, PyBytes_AS_STRING(bytes), size);
    return out + size;
}

static uint64_t wall_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static char *put_field(char *out, enum field field, const Record *record, bool is_json)
{
    size_t note = strlen(record->note);

    switch (field) {
    case FIELD_TIME:
        return put_number(out, wall_clock());
    case FIELD_CONNECTION:
        return put_number(out, record->connection);
    case FIELD_PEER:
        return put_bytes(out, record->peer);
    case FIELD_LOCAL:
        return put_bytes(out, record->local);
    case FIELD_RECEIVED:
        return put_number(out, record->received);
    case FIELD_SENT:
        return put_number(out, record->sent);
    case FIELD_LENGTH:
        return put_number(out, record->length);
    case FIELD_TEXT:
        out = put_escaped(out, record->data, record->shown, is_json);
        memcpy(out, record->note, note);
        return out + note;
    case FIELDS:
        break;
    }
    return out;
}

/* Make a record. Returns its end. */
static char *put_record(char *out, const Template *template, const Record *record, bool is_json)
{
    for (size_t i = 0; i < template->count; i++) {
        if (template->pieces[i].field)
            out = put_field(out, template->pieces[i].field, record, is_json);
        memcpy(out, template->pieces[i].text, template->pieces[i].size);
        out += template->pieces[i].size;
    }
    return out;
}

/* Collect a record, if such are logged. 0, or -1 with an exception set. */
static int add_record(Core *core, enum template which, const Record *record)
{
    TrafficLog *log = core->log;
    const Template *template = &log->templates[which];
    Buffer *buffer =
        &log->buffers[which == RECEIVED || which == SENT ? log->message_stream : log->activity_stream];
    size_t needed = buffer->size + template->size + record->shown * MAX_ESCAPED + sizeof record->note;

    if (!template->count)
        return 0;
    needed += (record->peer == NULL ? 0 : (size_t)PyBytes_GET_SIZE(record->peer))
              + (record->local == NULL ? 0 : (size_t)PyBytes_GET_SIZE(record->local));
    if (needed > buffer->capacity) {
        char *larger = PyMem_Realloc(buffer->text, needed + FULL);

        if (larger == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        buffer->text = larger;
        buffer->capacity = needed + FULL;
    }
    if (!log->buffers[0].size && !log->buffers[1].size)
        log->oldest = core->now;
    buffer->size =
        (size_t)(put_record(buffer->text + buffer->size, template, record, log->is_json) - buffer->text);
    return buffer->size >= FULL || log->line_by_line ? traffic_log_flush(core) : 0;
}

/* Write what is collected. 0, or -1 with an exception set. */
int traffic_log_flush(Core *core)
{
    TrafficLog *log = core->log;

    if (log == NULL)
        return 0;
    for (int stream = 0; stream < LOG_STREAMS; stream++) {
        Buffer *buffer = &log->buffers[stream];
        Py_ssize_t size = (Py_ssize_t)buffer->size;

        if (!size)
            continue;
        buffer->size = 0; /* writing may run another thread, or Python code that logs */
        if (discard_result(PyObject_CallFunction(log->write, "iy#", stream, buffer->text, size)) < 0)
            return -1;
    }
    return 0;
}

/* Write what has waited for too long. 0, or -1 with an exception set. */
int traffic_log_check_age(Core *core)
{
    TrafficLog *log = core->log;
    bool is_empty = log == NULL || (!log->buffers[0].size && !log->buffers[1].size);

    return is_empty || core->now - log->oldest < LOG_DELAY ? 0 : traffic_log_flush(core);
}

/* Connections and messages ----------------------------------------------------------------------------- */

/* Ask Python how the log writes an address. Returns bytes, or NULL with an exception set. */
static PyObject *format_address(TrafficLog *log, PyObject *address, uint64_t number)
{
    PyObject *text = PyObject_CallFunction(log->format_address, "OK", address, (unsigned long long)number);

    if (text != NULL && !PyBytes_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "an address in a log is bytes");
        Py_CLEAR(text);
    }
    return text;
}

/* Return how the log writes a peer's address, in bytes, or NULL with an exception set. */
PyObject *traffic_log_peer(Core *core, const struct sockaddr *address, PyObject *peer, uint64_t number)
{
    const struct sockaddr_in *inet = (const void *)address;
    char host[INET_ADDRSTRLEN], text[2 * MAX_ADDRESS];
    PyObject *peer_address, *result;

    if (address != NULL && address->sa_family == AF_INET
        && inet_ntop(AF_INET, &inet->sin_addr, host, sizeof host) != NULL) {
        Record record = {
            .length = ntohs(inet->sin_port), .data = (const unsigned char *)host, .shown = strlen(host)};
        char *end = put_record(text, &core->log->templates[ADDRESS], &record, false);

        return PyBytes_FromStringAndSize(text, end - text);
    }
    peer_address = PyObject_GetAttrString(peer, "address");
    if (peer_address == NULL)
        return NULL;
    result = format_address(core->log, peer_address, number);
    Py_DECREF(peer_address);
    return result;
}

/* Return how the log writes a local address: a borrowed reference, or NULL with an exception set. */
static PyObject *local_text(TrafficLog *log, PyObject *local)
{
    if (log->local != local) {
        PyObject *text = format_address(log, local, 0);

        if (text == NULL)
            return NULL;
        Py_XSETREF(log->local_text, text);
        Py_XSETREF(log->local, Py_NewRef(local));
    }
    return log->local_text;
}

/* Log a connection that was accepted. 0, or -1 with an exception set. */
int traffic_log_opened(Core *core, PyObject *peer_text, uint64_t number, PyObject *local)
{
    Record record = {.connection = number, .peer = peer_text};

    if (!core->log->templates[OPENED].count)
        return 0;
    record.local = local_text(core->log, local);
    return record.local == NULL ? -1 : add_record(core, OPENED, &record);
}

/* Write what Python holds of a connection, after what is collected. 0, or -1 with an exception set. */
static int end_fragment(Core *core, Connection *self)
{
    if (!(self->flags & LOG_HELD))
        return 0;
    self->flags &= ~(uint32_t)LOG_HELD;
    if (traffic_log_flush(core) < 0)
        return -1;
    return discard_result(
        PyObject_CallFunction(core->log->end_fragment, "K", (unsigned long long)self->totals.number));
}

/* Give a short read to Python, and all that follows up to the end of the line. */
static int add_fragment(Connection *self, const char *data, size_t size)
{
    if (traffic_log_flush(self->core) < 0)
        return -1;
    self->flags |= LOG_HELD;
    if (data[size - 1] == '\n')
        self->flags &= ~(uint32_t)LOG_HELD;
    return discard_result(
        PyObject_CallFunction(self->core->log->on_fragment, "Oy#", self->peer, data, (Py_ssize_t)size));
}

/* Log a message as one record. */
static int add_message(Core *core, enum template which, Record *record, size_t size)
{
    size_t limit = (size_t)core->log->limit;

    record->length = size;
    record->shown = size < limit ? size : limit;
    return add_record(core, which, record);
}

/* Log a message as a record for each line, as message_lines() in log/text.py does. */
static int add_lines(Core *core, Record *record, size_t size)
{
    size_t limit = (size_t)core->log->limit, left = size, nuls = 0;
    const unsigned char *data = record->data;

    if (size >= 2 && !data[size - 1] && !data[size - 2])
        while (left && !data[left - 1])
            left--;
    nuls = size - left;
    size = left;
    left = left < limit ? left : limit;
    if (left && data[left - 1] == '\n')
        left--;
    for (;;) {
        const unsigned char *end = left ? memchr(data, '\n', left) : NULL;
        size_t length = end == NULL ? left : (size_t)(end - data);

        record->data = data;
        record->shown = length && data[length - 1] == '\r' ? length - 1 : length;
        if (end == NULL) {
            int count = nuls ? snprintf(record->note, sizeof record->note, " [and %zu NULs]", nuls) : 0;

            if (size > limit)
                snprintf(record->note + count, sizeof record->note - (size_t)count, " [and %zu bytes more]",
                         size - limit);
        }
        if (add_record(core, RECEIVED, record) < 0 || end == NULL)
            return PyErr_Occurred() ? -1 : 0;
        data = end + 1;
        left -= length + 1;
    }
}

static int add_received(Core *core, Record *record, size_t size)
{
    return core->log->is_json ? add_message(core, RECEIVED, record, size) : add_lines(core, record, size);
}

/* Log bytes that were read, at least one. 0, or -1 with an exception set. */
int traffic_log_received(Connection *self, const char *data, size_t size)
{
    TrafficLog *log = self->core->log;
    Record record = {
        .connection = self->totals.number, .peer = self->log_peer, .data = (const unsigned char *)data};

    if (!log->templates[RECEIVED].count)
        return 0;
    if (log->on_fragment != NULL
        && (self->flags & LOG_HELD || (size <= (size_t)log->max_fragment && data[size - 1] != '\n')))
        return add_fragment(self, data, size);
    return add_received(self->core, &record, size);
}

/* Log the first `size` bytes of the queue, which the kernel has accepted. 0, or -1 with an exception set. */
int traffic_log_sent(Connection *self, size_t size)
{
    TrafficLog *log = self->core->log;
    Record record = {.connection = self->totals.number, .peer = self->log_peer};
    unsigned char copy[MAX_SHOWN];
    struct iovec iovecs[MAX_IOVECS];
    size_t count, copied = 0, shown = size < (size_t)log->limit ? size : (size_t)log->limit;

    if (!log->templates[SENT].count || !size)
        return 0;
    count = write_queue_iovecs(&self->queue, iovecs, MAX_IOVECS);
    record.data = iovecs[0].iov_base;
    for (size_t i = 0; iovecs[0].iov_len < shown && i < count && copied < shown; i++) {
        size_t part = iovecs[i].iov_len < shown - copied ? iovecs[i].iov_len : shown - copied;

        memcpy(copy + copied, iovecs[i].iov_base, part);
        copied += part;
        record.data = copy;
    }
    return add_message(self->core, SENT, &record, size);
}

/* Whether datagrams are logged. */
bool traffic_log_takes_datagrams(const Core *core)
{
    return core->log != NULL && (core->log->templates[RECEIVED].count || core->log->templates[SENT].count);
}

/* Log a datagram that was received. 0, or -1 with an exception set. */
int traffic_log_datagram_received(Core *core, PyObject *peer_text, const char *data, size_t size)
{
    Record record = {.peer = peer_text, .data = (const unsigned char *)data};

    return core->log->templates[RECEIVED].count ? add_received(core, &record, size) : 0;
}

/* Log a datagram that the kernel has accepted. 0, or -1 with an exception set. */
int traffic_log_datagram_sent(Core *core, PyObject *peer_text, const char *data, size_t size)
{
    Record record = {.peer = peer_text, .data = (const unsigned char *)data};

    return add_message(core, SENT, &record, size);
}

/* Log the peer's EOF. 0, or -1 with an exception set. */
int traffic_log_ended(Connection *self)
{
    Record record = {.connection = self->totals.number, .peer = self->log_peer};

    return end_fragment(self->core, self) < 0 ? -1 : add_record(self->core, ENDED, &record);
}

/* Log that a connection was closed; `core` because it has left the connection. 0, or -1 with an exception set. */
int traffic_log_closed(Core *core, Connection *self)
{
    Record record = {.connection = self->totals.number,
                     .peer = self->log_peer,
                     .received = self->totals.received,
                     .sent = self->totals.sent};

    return end_fragment(core, self) < 0 ? -1 : add_record(core, CLOSED_FIRST + self->reason, &record);
}

/* Setting up ------------------------------------------------------------------------------------------- */

/* Cut a template at its fields. 0, or -1 with an exception set. */
static int set_template(Template *template, PyObject *bytes)
{
    const char *text = PyBytes_AS_STRING(bytes), *end = text + PyBytes_GET_SIZE(bytes);

    template->bytes = Py_NewRef(bytes);
    template->size = (size_t)(end - text);
    while (text < end) {
        size_t i = template->count++;
        const char *start;

        if (i == MAX_PIECES) {
            PyErr_SetString(PyExc_ValueError, "a template of the log has too many fields");
            return -1;
        }
        if (*text > 0 && *text < FIELDS)
            template->pieces[i].field = (enum field) * text++;
        start = text;
        while (text < end && !(*text > 0 && *text < FIELDS))
            text++;
        template->pieces[i].text = start;
        template->pieces[i].size = (size_t)(text - start);
        template->size += 20; /* a number */
    }
    return 0;
}

PyObject *core_log_traffic(Core *core, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"write",           "format_address", "on_fragment",  "end_fragment",
                            "templates",       "limit",          "max_fragment", "message_stream",
                            "activity_stream", "is_json",        "line_by_line", NULL};
    TrafficLog *log = PyMem_Calloc(1, sizeof *log);
    PyObject *templates;
    int status = -1;

    if (log == NULL)
        return PyErr_NoMemory();
    if (core->log != NULL || core->connections)
        PyErr_SetString(PyExc_ValueError, "log_traffic() must be called before anything else, and once");
    else if (PyArg_ParseTupleAndKeywords(
                 args, keywords, "OOOOO!nniipp:log_traffic", names, &log->write, &log->format_address,
                 &log->on_fragment, &log->end_fragment, &PyTuple_Type, &templates, &log->limit, &log->max_fragment,
                 &log->message_stream, &log->activity_stream, &log->is_json, &log->line_by_line)) {
        status = PyTuple_GET_SIZE(templates) == TEMPLATES && log->limit > 0 && log->limit <= MAX_SHOWN
                         && (unsigned)log->message_stream < LOG_STREAMS
                         && (unsigned)log->activity_stream < LOG_STREAMS
                     ? 0
                     : -1;
        for (size_t i = 0; status == 0 && i < TEMPLATES; i++)
            status = PyBytes_Check(PyTuple_GET_ITEM(templates, i)) ? 0 : -1;
        if (status < 0)
            PyErr_SetString(PyExc_ValueError, "log_traffic() got a wrong argument");
    }
    if (status < 0) {
        PyMem_Free(log);
        return NULL;
    }
    if (log->on_fragment == Py_None)
        log->on_fragment = log->end_fragment = NULL;
    Py_INCREF(log->write);
    Py_INCREF(log->format_address);
    Py_XINCREF(log->on_fragment);
    Py_XINCREF(log->end_fragment);
    core->log = log;
    if (PyBytes_GET_SIZE(PyTuple_GET_ITEM(templates, ADDRESS)) > MAX_ADDRESS)
        PyErr_SetString(PyExc_ValueError, "the template of an address is too long");
    for (size_t i = 0; i < TEMPLATES; i++)
        if (PyErr_Occurred() || set_template(&log->templates[i], PyTuple_GET_ITEM(templates, i)) < 0) {
            traffic_log_release(core);
            return NULL;
        }
    Py_RETURN_NONE;
}

PyObject *core_flush_log(Core *core, PyObject *Py_UNUSED(ignored))
{
    /* A forked child has a copy of what its parent writes. */
    if (core->fork_generation == current_fork_generation && traffic_log_flush(core) < 0)
        return NULL;
    Py_RETURN_NONE;
}

int traffic_log_traverse(Core *core, visitproc visit, void *arg)
{
    if (core->log != NULL) { /* Py_VISIT returns what is not 0 */
        Py_VISIT(core->log->write);
        Py_VISIT(core->log->format_address);
        Py_VISIT(core->log->on_fragment);
        Py_VISIT(core->log->end_fragment);
    }
    return 0;
}

/* Forget what is collected, and the log. */
void traffic_log_release(Core *core)
{
    TrafficLog *log = core->log;

    if (log == NULL)
        return;
    core->log = NULL;
    for (size_t i = 0; i < TEMPLATES; i++)
        Py_XDECREF(log->templates[i].bytes);
    for (size_t i = 0; i < LOG_STREAMS; i++)
        PyMem_Free(log->buffers[i].text);
    Py_XDECREF(log->write);
    Py_XDECREF(log->format_address);
    Py_XDECREF(log->on_fragment);
    Py_XDECREF(log->end_fragment);
    Py_XDECREF(log->local);
    Py_XDECREF(log->local_text);
    PyMem_Free(log);
}
