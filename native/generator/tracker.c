/* The answers of a connection and their faults: with requests.c, request_tracker.py in C.
 *
 * Received data is compared with the expected answers in order, as one block. From the first differing byte on
 * (`resync`), it is split into answers, which are checked one by one.
 */
#include "generator.h"

#include <string.h>

static int64_t answer_size(const Run *run, int64_t number)
{
    const int64_t *offsets = run->answers.offsets + number % run->length;

    return offsets[1] - offsets[0];
}

static const char *answer_bytes(const Run *run, int64_t number)
{
    return run->answers.bytes + run->answers.offsets[number % run->length];
}

/* Reset for a new connection. */
void tracker_reset(Connection *connection)
{
    connection->resync = connection->desynced = connection->answered = false;
    connection->next_request = connection->first_unsent = connection->write_offset = connection->answer_offset = 0;
    connection->last_answered = -1;
    connection->pending_head = connection->pending_count = 0;
    connection->partial_size = connection->expired_count = 0;
    connection->closing = false;
    if (connection->http != NULL)
        http_reader_reset(connection->http);
}

/* Add a request that is sent now. */
void tracker_add(Run *run, Connection *connection, int64_t due, int64_t sent, int64_t written)
{
    *pending_at(run, connection, connection->pending_count++) =
        (Pending){connection->next_request++, due, sent, written};
}

/* Return the position of the newest outstanding request with this index in the ring, or -1. */
static int64_t find_pending(const Run *run, const Connection *connection, int64_t index)
{
    for (uint32_t i = connection->pending_count; i-- > 0;)
        if (pending_at(run, connection, i)->number % run->length == index)
            return i;
    return -1;
}

/* Return the index in the ring that the first three letters of an answer encode (workload.py, _encode_number), or -1. */
static int64_t parse_number(const Run *run, const char *data, int64_t size)
{
    int64_t number = 0;

    if (!run->numbered || size < 3)
        return -1;
    for (int i = 0; i < 3; i++) {
        int digit = (data[i] | 0x20) - 'a';

        if (digit < 0 || digit > 15)
            return -1;
        number = number * 16 + digit;
    }
    return number < run->length ? number : -1;
}

static bool matches_answer(const Run *run, int64_t index, const char *data, int64_t size)
{
    return size == answer_size(run, index) && memcmp(data, answer_bytes(run, index), (size_t)size) == 0;
}

/* Return the index in the ring of an answer with exactly these bytes, or -1. */
static int64_t find_answer(const Run *run, const char *data, int64_t size)
{
    int64_t index = parse_number(run, data, size);

    if (run->numbered)
        return index >= 0 && matches_answer(run, index, data, size) ? index : -1;
    for (index = 0; index < run->length; index++)
        if (matches_answer(run, index, data, size))
            return index;
    return -1;
}

/* Count an answer that matches none. Its number may still identify the request. */
static void count_mismatch(Run *run, Connection *connection, const char *data, int64_t size)
{
    int64_t index = parse_number(run, data, size), found = index < 0 ? -1 : find_pending(run, connection, index),
            bare_size = size;
    bool same_letters;
    Pending request;

    if (found < 0 && connection->pending_count == 0) {
        run->faults[FAULT_WRONG]++;
        return;
    }
    /* parse_number() ignores case: compare the letters too. */
    same_letters = found >= 0 && memcmp(data, answer_bytes(run, index), 3) == 0;
    request = same_letters ? remove_pending(run, connection, (uint32_t)found) : pop_oldest(run, connection);
    if (run->end_byte >= 0 && size > 0 && data[size - 1] == (char)run->end_byte)
        bare_size--;
    if (size < answer_size(run, request.number)
        && memcmp(data, answer_bytes(run, request.number), (size_t)bare_size) == 0)
        run->faults[FAULT_SHORT]++;
    else
        run->faults[FAULT_WRONG]++;
}

/* Whether a request with this index has expired; forgets it. */
static bool was_expired(Run *run, Connection *connection, int64_t index)
{
    int64_t partial = connection->expired_count < run->length ? connection->expired_count : run->length;

    for (int64_t i = 0; i < partial; i++) {
        if (connection->expired[i] >= 0 && connection->expired[i] % run->length == index) {
            connection->expired[i] = -1;
            return true;
        }
    }
    return false;
}

/* Check one complete answer. */
static void check_answer(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at)
{
    int64_t index = find_answer(run, data, size), found;
    Pending request;

    if (index < 0) {
        count_mismatch(run, connection, data, size);
        return;
    }
    found = run->numbered ? find_pending(run, connection, index) : connection->pending_count ? 0 : -1;
    if (found < 0) {
        if (was_expired(run, connection, index))
            run->faults[FAULT_LATE]++;
        else
            run->faults[run->numbered && connection->next_request ? FAULT_DUPLICATED : FAULT_WRONG]++;
        return;
    }
    request = remove_pending(run, connection, (uint32_t)found);
    if (request.number < connection->last_answered)
        run->faults[FAULT_REORDERED]++;
    else
        connection->last_answered = request.number;
    count_answer(run, connection, request, received_at, size);
}

/* Append data to `partial`. Returns false if memory is exhausted. */
static bool append_partial(Connection *connection, const char *data, int64_t size)
{
    if (connection->partial_size + size > connection->partial_capacity) {
        int64_t room = (connection->partial_size + size) * 2;
        char *partial = PyMem_RawRealloc(connection->partial, (size_t)room);

        if (partial == NULL)
            return false;
        connection->partial = partial;
        connection->partial_capacity = room;
    }
    memcpy(connection->partial + connection->partial_size, data, (size_t)size);
    connection->partial_size += size;
    return true;
}

/* Without an end byte: count the answers that match; the rest cannot be assigned to requests. */
static void check_undelimited(Run *run, Connection *connection, int64_t received_at)
{
    const char *data = connection->partial;
    int64_t remaining = connection->partial_size;

    while (connection->pending_count) {
        int64_t number = connection->pending[connection->pending_head].number, size = answer_size(run, number);

        if (remaining < size || memcmp(data, answer_bytes(run, number), (size_t)size) != 0)
            break;
        connection->last_answered = number;
        count_answer(run, connection, pop_oldest(run, connection), received_at, size);
        data += size;
        remaining -= size;
    }
    if (remaining) {
        if (connection->pending_count)
            pop_oldest(run, connection);
        run->faults[FAULT_WRONG]++;
    }
    connection->partial_size = 0;
    connection->desynced = true;
}

/* Split data at the end bytes and check each answer. */
static void check_delimited(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at)
{
    int64_t consumed = 0;
    const char *end;

    if (size == 0)
        return;
    if (connection->partial_size == 0)
        connection->first_byte = received_at;
    if (!append_partial(connection, data, size)) {
        run->faults[FAULT_WRONG]++; /* out of memory */
        connection->desynced = true;
        return;
    }
    if (run->end_byte < 0) {
        check_undelimited(run, connection, received_at);
        return;
    }
    while ((end = memchr(connection->partial + consumed, run->end_byte,
                         (size_t)(connection->partial_size - consumed)))
           != NULL) {
        int64_t length = end + 1 - (connection->partial + consumed);

        check_answer(run, connection, connection->partial + consumed, length, received_at);
        consumed += length;
        connection->first_byte = received_at; /* of the next answer */
    }
    connection->partial_size -= consumed;
    memmove(connection->partial, connection->partial + consumed, (size_t)connection->partial_size);
    if (connection->partial_size > 2 * run->max_answer) { /* no end byte within twice the longest answer */
        run->faults[FAULT_WRONG]++;
        connection->partial_size = 0;
        connection->desynced = true;
    }
}

/* Check answers one by one from now on, beginning with the current one. */
static void start_resync(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at)
{
    int64_t answer_offset = connection->answer_offset;

    connection->resync = true;
    connection->answer_offset = 0;
    if (answer_offset
        && !append_partial(connection, answer_bytes(run, connection->last_answered + 1), answer_offset)) {
        run->faults[FAULT_WRONG]++;
        connection->desynced = true;
        return;
    }
    check_delimited(run, connection, data, size, received_at);
}

/* Compare stream data with the expected answers in order. */
static void compare_stream(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at)
{
    while (size) {
        int64_t number = connection->last_answered + 1, full_size = answer_size(run, number),
                part = full_size - connection->answer_offset;

        if (part > size)
            part = size;
        if (connection->answer_offset == 0)
            connection->first_byte = received_at;
        if (connection->pending_count == 0
            || memcmp(data, answer_bytes(run, number) + connection->answer_offset, (size_t)part) != 0) {
            start_resync(run, connection, data, size, received_at);
            return;
        }
        connection->answer_offset += part;
        data += part;
        size -= part;
        if (connection->answer_offset == full_size) {
            connection->answer_offset = 0;
            connection->last_answered = number;
            count_answer(run, connection, pop_oldest(run, connection), received_at, full_size);
        }
    }
}

static void check_datagram(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at)
{
    connection->first_byte = received_at;
    if (connection->pending_count) {
        int64_t number = connection->pending[connection->pending_head].number;

        if (number > connection->last_answered && matches_answer(run, number, data, size)) {
            connection->last_answered = number;
            count_answer(run, connection, pop_oldest(run, connection), received_at, size);
            return;
        }
    }
    check_answer(run, connection, data, size, received_at);
}

/* Process received data. */
void tracker_receive(Run *run, Connection *connection, const char *data, int64_t size, int64_t received_at)
{
    if (run->http != NULL)
        http_receive(run, connection, data, size, received_at);
    else if (run->message_oriented)
        check_datagram(run, connection, data, size, received_at);
    else if (connection->resync)
        check_delimited(run, connection, data, size, received_at);
    else
        compare_stream(run, connection, data, size, received_at);
}

static bool has_partial_answer(const Connection *connection)
{
    if (connection->http != NULL)
        return http_is_partial(connection->http);
    return connection->resync ? connection->partial_size > 0 : connection->answer_offset > 0;
}

/* Count the outstanding requests of a closed connection as lost. */
void tracker_close(Run *run, Connection *connection)
{
    if (connection->pending_count && has_partial_answer(connection)) {
        pop_oldest(run, connection);
        run->faults[FAULT_SHORT]++;
    }
    run->faults[FAULT_LOST] += connection->pending_count;
    connection->pending_count = 0;
}

/* Expire the requests sent before `before`. Returns their number. */
int64_t tracker_expire(Run *run, Connection *connection, int64_t before)
{
    int64_t count = 0;

    while (connection->pending_count && connection->pending[connection->pending_head].sent < before) {
        if (connection->expired == NULL)
            connection->expired = PyMem_RawCalloc((size_t)run->length, sizeof *connection->expired);
        if (connection->expired != NULL)
            connection->expired[connection->expired_count++ % run->length] =
                connection->pending[connection->pending_head].number;
        pop_oldest(run, connection);
        count++;
    }
    if (count && run->http != NULL) {
        connection->desynced = true;
    } else if (count && !run->message_oriented) {
        connection->desynced = run->end_byte < 0;
        if (!connection->resync)
            start_resync(run, connection, "", 0, 0);
    }
    return count;
}
