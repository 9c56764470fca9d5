/* HTTP/1.1 responses (RFC 9112): http_response.py in C.
 *
 * The reader is strict: whatever breaks the grammar is counted as malformed, with its reason, and ends the
 * connection, because its next response cannot be found for certain. Each part of a response has a limit, and
 * received data is copied only if a line or a head is cut: bodies are compared in place.
 *
 * Most heads equal the head before (a server changes its Date once a second), so the last parsed head is kept,
 * and an equal one is not parsed again.
 */
#include "generator.h"

#include <string.h>
#include <strings.h>

enum {
    MAX_HEAD = 64 * 1024, /* bytes of a head or a trailer */
    MAX_CHUNK_LINE = 4096,
    MAX_LENGTH_DIGITS = 15, /* of Content-Length and, in hexadecimal, of a chunk: fits int64_t */
    CACHED_HEAD = 2048,
};

/* In the order of `http_response.Part`. */
enum part { HEAD, BODY, CHUNK_LINE, CHUNK, CHUNK_END, TRAILER, BODY_TO_EOF };

/* What a head says about the response. */
typedef struct {
    int status;
    bool keep_alive, chunked;
    int64_t length; /* Content-Length, or -1 */
} Head;

struct HttpReader {
    enum part part;
    bool mismatch;     /* the body differs from the expected one */
    int64_t remaining; /* bytes of the body or the chunk */
    int64_t body_size;
    Head head;
    char *partial; /* of a head, a line or a trailer */
    int64_t partial_size, partial_capacity;
};

struct HttpCheck {
    bool allowed[HTTP_STATUSES];
    bool no_body; /* HEAD: responses have no body, whatever their head says */
    const char *body;
    int64_t length; /* of the body, or -1: any */
    int64_t statuses[HTTP_STATUSES];
    int64_t malformed[MALFORMED_COUNT];
    int64_t closes; /* connections that a response closed */
    char cached[CACHED_HEAD];
    int64_t cached_size;
    Head cached_head;
};

HttpCheck *http_check_new(const char *allowed, bool no_body, const char *body, int64_t length)
{
    HttpCheck *check = PyMem_RawCalloc(1, sizeof *check);

    if (check == NULL)
        return NULL;
    for (int i = 0; i < HTTP_STATUSES; i++)
        check->allowed[i] = allowed[i] != 0;
    check->no_body = no_body;
    check->body = body;
    check->length = length;
    return check;
}

void http_check_free(HttpCheck *check)
{
    PyMem_RawFree(check);
}

const int64_t *http_statuses(const HttpCheck *check)
{
    return check->statuses;
}

const int64_t *http_malformed(const HttpCheck *check)
{
    return check->malformed;
}

int64_t http_closes(const HttpCheck *check)
{
    return check->closes;
}

/* Approximate bytes of a response with its head, to choose a buffer's size. */
int64_t http_expected_size(const HttpCheck *check)
{
    return 1024 + (check->length < 0 ? 0 : check->length < BUFFER_SIZE ? check->length : BUFFER_SIZE);
}

HttpReader *http_reader_new(void)
{
    return PyMem_RawCalloc(1, sizeof(HttpReader));
}

void http_reader_free(HttpReader *reader)
{
    if (reader != NULL)
        PyMem_RawFree(reader->partial);
    PyMem_RawFree(reader);
}

static void start_response(HttpReader *reader)
{
    reader->part = HEAD;
    reader->mismatch = false;
    reader->remaining = reader->body_size = reader->partial_size = 0;
}

void http_reader_reset(HttpReader *reader)
{
    start_response(reader);
}

/* Whether a part of a response has been received. */
bool http_is_partial(const HttpReader *reader)
{
    return reader->part != HEAD || reader->partial_size > 0;
}

/* Heads ---------------------------------------------------------------------------------------------- */

static bool is_token(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
           || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_text(const char *data, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        if (((unsigned char)data[i] < 0x20 && data[i] != '\t') || data[i] == 0x7f)
            return false;
    return true;
}

static bool equals(const char *data, int64_t size, const char *word)
{
    return size == (int64_t)strlen(word) && strncasecmp(data, word, (size_t)size) == 0;
}

static void trim(const char **data, int64_t *size)
{
    while (*size && (**data == ' ' || **data == '\t'))
        (*data)++, (*size)--;
    while (*size && ((*data)[*size - 1] == ' ' || (*data)[*size - 1] == '\t'))
        (*size)--;
}

/* Whether a comma-separated list has this word. */
static bool lists(const char *data, int64_t size, const char *word)
{
    while (size > 0) {
        const char *comma = memchr(data, ',', (size_t)size), *item = data;
        int64_t length = comma != NULL ? comma - data : size;
        int64_t step = comma != NULL ? length + 1 : length;

        data += step;
        size -= step;
        trim(&item, &length);
        if (equals(item, length, word))
            return true;
    }
    return false;
}

/* Parse digits of a base; -1 if there are none, others, or too many. */
static int64_t parse_digits(const char *data, int64_t size, int base)
{
    int64_t number = 0;

    if (size < 1 || size > MAX_LENGTH_DIGITS)
        return -1;
    for (int64_t i = 0; i < size; i++) {
        char letter = data[i] | 0x20;
        int digit = data[i] >= '0' && data[i] <= '9' ? data[i] - '0'
                    : letter >= 'a' && letter <= 'f' ? letter - 'a' + 10
                                                     : base;

        if (digit >= base)
            return -1;
        number = number * base + digit;
    }
    return number;
}

/* Parse a header field into `head`. Returns why it is malformed, or WELL_FORMED. */
static enum malformed parse_field(const char *line, int64_t size, Head *head, bool *close, bool *keep)
{
    int64_t name_size = 0, value_size;
    const char *value;

    while (name_size < size && is_token((unsigned char)line[name_size]))
        name_size++;
    if (name_size == 0 || name_size == size || line[name_size] != ':')
        return MALFORMED_FIELD;
    value = line + name_size + 1;
    value_size = size - name_size - 1;
    if (!is_text(value, value_size))
        return MALFORMED_FIELD;
    trim(&value, &value_size);
    if (equals(line, name_size, "content-length")) {
        if (head->length >= 0 || (head->length = parse_digits(value, value_size, 10)) < 0)
            return MALFORMED_LENGTH;
    } else if (equals(line, name_size, "transfer-encoding")) {
        if (head->chunked || !equals(value, value_size, "chunked"))
            return MALFORMED_CODING;
        head->chunked = true;
    } else if (equals(line, name_size, "connection")) {
        *close = *close || lists(value, value_size, "close");
        *keep = *keep || lists(value, value_size, "keep-alive");
    }
    return WELL_FORMED;
}

/* Parse a head, which ends with an empty line. */
static enum malformed parse_head(const char *data, int64_t size, Head *head)
{
    bool old, close = false, keep = false;
    const char *end = data + size, *line = memchr(data, '\n', (size_t)size);

    /* find_end() has checked that every line ends with CRLF. */
    if (line - data < 14 || memcmp(data, "HTTP/1.", 7) != 0 || (data[7] != '0' && data[7] != '1') || data[8] != ' '
        || data[12] != ' ' || !is_text(data, line - 1 - data))
        return MALFORMED_STATUS_LINE;
    old = data[7] == '0';
    *head = (Head){.status = (int)parse_digits(data + 9, 3, 10), .length = -1};
    if (head->status < 100 || head->status > 599) /* RFC 9110, section 15 */
        return MALFORMED_STATUS_LINE;
    for (line++; line < end - 2;) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        enum malformed reason = parse_field(line, next - 1 - line, head, &close, &keep);

        if (reason != WELL_FORMED)
            return reason;
        line = next + 1;
    }
    if (head->chunked && (head->length >= 0 || old)) /* RFC 9112, sections 6.1 and 6.2 */
        return MALFORMED_CODING;
    head->keep_alive = !close && (!old || keep);
    return WELL_FORMED;
}

/* Cut units ------------------------------------------------------------------------------------------ */

enum { INCOMPLETE = -1, BARE_LF = -2 };

/* Return the end of a unit in `data`: of a line or, if `lines`, of lines up to an empty one. Newlines before
 * `from` have been looked at. */
static int64_t find_end(const char *data, int64_t size, int64_t from, bool lines)
{
    const char *found;

    for (int64_t at = from; at < size && (found = memchr(data + at, '\n', (size_t)(size - at))) != NULL;
         at = found + 1 - data) {
        int64_t position = found - data;

        if (position == 0 || data[position - 1] != '\r')
            return BARE_LF;
        if (!lines || position == 1 || data[position - 2] == '\n')
            return position + 1;
    }
    return INCOMPLETE;
}

/* Cut the next unit off `*data`. Returns true with the unit in `*unit`; false if it is incomplete, and all data is
 * kept, or malformed. The unit is valid until the next call. */
static bool take_unit(HttpReader *reader, const char **data, int64_t *size, int64_t limit, bool lines,
                      const char **unit, int64_t *unit_size, enum malformed *reason)
{
    int64_t kept = reader->partial_size, part, end;

    if (kept == 0) {
        end = find_end(*data, *size < limit ? *size : limit, 0, lines);
        if (end >= 0) {
            *unit = *data;
            *unit_size = end;
            *data += end;
            *size -= end;
            return true;
        }
    }
    part = *size < limit - kept ? *size : limit - kept;
    if (kept + part > reader->partial_capacity) {
        int64_t capacity = kept + part < 1024 ? 1024 : 2 * (kept + part);
        char *grown = PyMem_RawRealloc(reader->partial, (size_t)capacity);

        if (grown == NULL) {
            *reason = MALFORMED_TOO_LONG;
            return false;
        }
        reader->partial = grown;
        reader->partial_capacity = capacity;
    }
    memcpy(reader->partial + kept, *data, (size_t)part);
    reader->partial_size += part;
    end = find_end(reader->partial, reader->partial_size, kept, lines);
    if (end >= 0) {
        *data += end - kept;
        *size -= end - kept;
        *unit = reader->partial;
        *unit_size = end;
        reader->partial_size = 0;
        return true;
    }
    if (end == BARE_LF)
        *reason = MALFORMED_LINE_END;
    else if (reader->partial_size >= limit)
        *reason = MALFORMED_TOO_LONG;
    *data += part;
    *size -= part;
    return false;
}

/* Responses ------------------------------------------------------------------------------------------ */

/* Compare a piece of a body. */
static void add_body(const HttpCheck *check, HttpReader *reader, const char *data, int64_t size)
{
    if (check->body != NULL && check->allowed[reader->head.status] && !reader->mismatch
        && (size > check->length - reader->body_size
            || memcmp(data, check->body + reader->body_size, (size_t)size) != 0))
        reader->mismatch = true;
    reader->body_size += size;
}

/* Count a complete response. Returns whether the connection goes on. */
static bool finish_response(Run *run, Connection *connection, int64_t received_at)
{
    HttpCheck *check = run->http;
    HttpReader *reader = connection->http;
    bool keep_alive = reader->head.keep_alive && reader->part != BODY_TO_EOF;
    int64_t size = reader->body_size;

    check->statuses[reader->head.status]++;
    if (!check->allowed[reader->head.status]) {
        pop_oldest(run, connection);
        run->faults[FAULT_WRONG_STATUS]++;
    } else if (reader->mismatch || (check->length >= 0 && size > check->length)) {
        pop_oldest(run, connection);
        run->faults[FAULT_WRONG]++;
    } else if (check->length >= 0 && size < check->length) {
        pop_oldest(run, connection);
        run->faults[FAULT_SHORT]++;
    } else {
        count_answer(run, connection, pop_oldest(run, connection), received_at, size);
    }
    start_response(reader);
    if (!keep_alive) {
        check->closes++;
        connection->closing = true;
    }
    return keep_alive;
}

/* Read a head. Returns whether the response ends with it. */
static bool begin_body(const HttpCheck *check, HttpReader *reader)
{
    const Head *head = &reader->head;

    if (head->status < 200) { /* an interim response */
        start_response(reader);
        return false;
    }
    if (check->no_body || head->status == 204 || head->status == 304 || head->length == 0)
        return true;
    if (head->chunked) {
        reader->part = CHUNK_LINE;
    } else if (head->length > 0) {
        reader->part = BODY;
        reader->remaining = head->length;
    } else {
        reader->part = BODY_TO_EOF;
    }
    return false;
}

static enum malformed read_head(HttpCheck *check, HttpReader *reader, const char *unit, int64_t size)
{
    enum malformed reason = parse_head(unit, size, &reader->head);

    if (reason == WELL_FORMED && reader->head.status == 101)
        reason = MALFORMED_STATUS_LINE; /* no upgrade was asked for */
    if (reason == WELL_FORMED && size <= CACHED_HEAD) {
        memcpy(check->cached, unit, (size_t)size);
        check->cached_size = size;
        check->cached_head = reader->head;
    }
    return reason;
}

/* Parse a chunk's line: its size in hexadecimal, and extensions. */
static enum malformed read_chunk_line(HttpReader *reader, const char *line, int64_t size)
{
    int64_t digits = 0, rest;

    while (digits < size - 2 && parse_digits(line + digits, 1, 16) >= 0)
        digits++;
    reader->remaining = parse_digits(line, digits, 16);
    for (rest = digits; line[rest] == ' ' || line[rest] == '\t';)
        rest++;
    if (reader->remaining < 0 || (rest < size - 2 && line[rest] != ';') || !is_text(line, size - 2))
        return MALFORMED_CHUNK;
    if (reader->body_size > INT64_MAX / 2)
        return MALFORMED_TOO_LONG;
    reader->part = reader->remaining > 0 ? CHUNK : TRAILER;
    return WELL_FORMED;
}

static void count_malformed(Run *run, Connection *connection, enum malformed reason)
{
    run->http->malformed[reason]++;
    run->faults[FAULT_MALFORMED]++;
    if (connection->pending_count)
        pop_oldest(run, connection);
    start_response(connection->http);
    connection->desynced = true;
}

/* Process received data, up to the end of a response that closes the connection. */
void http_receive(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at)
{
    HttpCheck *check = run->http;
    HttpReader *reader = connection->http;

    while (size > 0) {
        enum malformed reason = WELL_FORMED;
        const char *unit;
        int64_t unit_size, part;
        bool ended = false;

        if (connection->pending_count == 0) { /* unsolicited */
            run->faults[FAULT_WRONG]++;
            connection->desynced = true;
            return;
        }
        if (!http_is_partial(reader))
            connection->first_byte = received_at;
        switch (reader->part) {
        case HEAD:
            if (reader->partial_size == 0 && check->cached_size > 0 && size >= check->cached_size
                && memcmp(data, check->cached, (size_t)check->cached_size) == 0) {
                reader->head = check->cached_head;
                data += check->cached_size;
                size -= check->cached_size;
                ended = begin_body(check, reader);
                break;
            }
            if (!take_unit(reader, &data, &size, MAX_HEAD, true, &unit, &unit_size, &reason))
                break;
            reason = read_head(check, reader, unit, unit_size);
            ended = reason == WELL_FORMED && begin_body(check, reader);
            break;
        case BODY:
        case CHUNK:
        case BODY_TO_EOF:
            part = reader->part == BODY_TO_EOF || reader->remaining > size ? size : reader->remaining;
            add_body(check, reader, data, part);
            data += part;
            size -= part;
            if (reader->part == BODY_TO_EOF || (reader->remaining -= part) > 0)
                break;
            ended = reader->part == BODY;
            reader->part = CHUNK_END;
            break;
        case CHUNK_END:
            if (!take_unit(reader, &data, &size, 2, false, &unit, &unit_size, &reason)) {
                reason = reason != WELL_FORMED ? MALFORMED_CHUNK : WELL_FORMED;
                break;
            }
            if (unit_size != 2)
                reason = MALFORMED_CHUNK;
            reader->part = CHUNK_LINE;
            break;
        case CHUNK_LINE:
            if (take_unit(reader, &data, &size, MAX_CHUNK_LINE, false, &unit, &unit_size, &reason))
                reason = read_chunk_line(reader, unit, unit_size);
            break;
        case TRAILER:
            ended = take_unit(reader, &data, &size, MAX_HEAD, true, &unit, &unit_size, &reason);
            break;
        }
        if (reason != WELL_FORMED) {
            count_malformed(run, connection, reason);
            return;
        }
        if (ended && !finish_response(run, connection, received_at))
            return;
    }
}

/* The server has closed the connection: a body without a length ends with it. */
void http_end(Run *run, Connection *connection, int64_t received_at)
{
    if (connection->http->part == BODY_TO_EOF && connection->pending_count)
        finish_response(run, connection, received_at);
}
