/* The outstanding requests of a connection, and what is counted when an answer is right: latencies, bytes, answers. */
#include "generator.h"

/* Return the outstanding request at a position; 0 is the oldest. */
Pending *pending_at(const Run *run, const Connection *connection, uint32_t position)
{
    uint32_t index = connection->pending_head + position;

    return connection->pending + (index >= run->depth ? index - run->depth : index);
}

/* Remove and return the oldest outstanding request. */
Pending pop_oldest(const Run *run, Connection *connection)
{
    Pending taken = connection->pending[connection->pending_head];

    connection->pending_head = connection->pending_head + 1 == run->depth ? 0 : connection->pending_head + 1;
    connection->pending_count--;
    return taken;
}

/* Remove and return the outstanding request at a position. */
Pending remove_pending(const Run *run, Connection *connection, uint32_t index)
{
    Pending taken = *pending_at(run, connection, index);

    for (; index > 0; index--)
        *pending_at(run, connection, index) = *pending_at(run, connection, index - 1);
    pop_oldest(run, connection);
    return taken;
}

void histogram_add(Histogram *histogram, int64_t nanoseconds)
{
    uint64_t value = nanoseconds < 0 ? 0 : nanoseconds > HISTOGRAM_MAX ? HISTOGRAM_MAX : (uint64_t)nanoseconds;
    int bucket = 64 - __builtin_clzll(value | (2 * HISTOGRAM_HALF - 1)) - 11;

    histogram->counts[((uint64_t)(bucket + 1) * HISTOGRAM_HALF) + (value >> bucket) - HISTOGRAM_HALF]++;
}

/* Add a latency to the heat map, at the time the request was due. */
static void heat_add(Run *run, int64_t due, int64_t latency)
{
    uint64_t value = latency < 8 ? 8 : latency > HISTOGRAM_MAX ? HISTOGRAM_MAX : (uint64_t)latency;
    int octave = 63 - __builtin_clzll(value);
    int row = 8 * octave + (int)(value >> (octave - 3)) - 8, column;

    column = (int)((__int128)(due - run->start) * HEAT_COLUMNS / (run->stop - run->start));
    run->heat[column * HEAT_ROWS + row]++;
}

/* Count a correct answer, received from `connection->first_byte` to `received_at`. */
void count_answer(Run *run, const Connection *connection, Pending request, int64_t received_at, int64_t size)
{
    run->answered++;
    if (request.due >= run->start && request.due < run->stop) {
        histogram_add(run->uncorrected, received_at - request.sent);
        if (run->times != NULL)
            histogram_add(run->corrected, received_at - request.due);
        histogram_add(run->wait, request.written - request.due);
        histogram_add(run->first_byte, connection->first_byte - request.written);
        histogram_add(run->transfer, received_at - connection->first_byte);
        heat_add(run, request.due, received_at - (run->times != NULL ? request.due : request.sent));
    }
    if (received_at >= run->start && received_at < run->stop) {
        run->completed++;
        run->bytes += size;
        run->seconds[(received_at - run->start) / SECOND]++;
    }
}
