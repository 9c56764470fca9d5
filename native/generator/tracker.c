/* One connection's requests that are open, and what was wrong with each answer: ledger.py in C.
 *
 * As long as all is well, what comes is compared with the answers of the ring, in their order. From the first
 * byte that differs, answers are cut where they end and looked at one by one.
 */
#include "generator.h"

#include <string.h>

void histogram_add(Histogram *histogram, int64_t nanoseconds)
{
    uint64_t value = nanoseconds < 0 ? 0 : nanoseconds > HIGHEST ? HIGHEST : (uint64_t)nanoseconds;
    int bucket = 64 - __builtin_clzll(value | (2 * HALF - 1)) - 11;

    histogram->counts[((uint64_t)(bucket + 1) * HALF) + (value >> bucket) - HALF]++;
}

static int64_t size_of(const Run *run, int64_t number)
{
    const int64_t *offsets = run->answers.offsets + number % run->length;

    return offsets[1] - offsets[0];
}

static const char *answer_of(const Run *run, int64_t number)
{
    return run->answers.bytes + run->answers.offsets[number % run->length];
}

static Open *open_at(const Run *run, const Peer *peer, uint32_t place)
{
    uint32_t index = peer->first + place;

    return peer->open + (index >= run->depth ? index - run->depth : index);
}

/* Take the oldest away. */
static Open take_first(const Run *run, Peer *peer)
{
    Open taken = peer->open[peer->first];

    peer->first = peer->first + 1 == run->depth ? 0 : peer->first + 1;
    peer->count--;
    return taken;
}

/* Take away the one at this place. */
static Open take(const Run *run, Peer *peer, uint32_t place)
{
    Open taken = *open_at(run, peer, place);

    for (; place > 0; place--)
        *open_at(run, peer, place) = *open_at(run, peer, place - 1);
    take_first(run, peer);
    return taken;
}

static void intact(Run *run, Open request, int64_t at, int64_t size)
{
    run->answered++;
    if (request.due >= run->start && request.due < run->stop) {
        histogram_add(run->uncorrected, at - request.sent);
        if (run->times != NULL)
            histogram_add(run->corrected, at - request.due);
    }
    if (at >= run->start && at < run->stop) {
        run->completed++;
        run->bytes += size;
        run->seconds[(at - run->start) / SECOND]++;
    }
}

void ledger_begin(Peer *peer)
{
    peer->careful = peer->broken = peer->answered = false;
    peer->next = peer->unsent = peer->cut = peer->at = 0;
    peer->highest = -1;
    peer->first = peer->count = 0;
    peer->kept_size = peer->gone_count = 0;
}

void ledger_add(Run *run, Peer *peer, int64_t due, int64_t sent)
{
    *open_at(run, peer, peer->count++) = (Open){peer->next++, due, sent};
}

/* Where among the open ones stands the newest whose place in the ring is this; -1 for none. */
static int64_t find(const Run *run, const Peer *peer, int64_t place)
{
    for (uint32_t i = peer->count; i-- > 0;)
        if (open_at(run, peer, i)->number % run->length == place)
            return i;
    return -1;
}

/* The place in the ring that an answer's first letters name; -1 for none (workload.py, _number). */
static int64_t named(const Run *run, const char *data, int64_t size)
{
    int64_t number = 0;

    if (!run->numbers || size < 3)
        return -1;
    for (int i = 0; i < 3; i++) {
        int digit = (data[i] | 0x20) - 'a';

        if (digit < 0 || digit > 15)
            return -1;
        number = number * 16 + digit;
    }
    return number < run->length ? number : -1;
}

static bool is_answer(const Run *run, int64_t place, const char *data, int64_t size)
{
    return size == size_of(run, place) && memcmp(data, answer_of(run, place), (size_t)size) == 0;
}

/* The place in the ring of an answer that is right somewhere; -1 for none. */
static int64_t place_of(const Run *run, const char *data, int64_t size)
{
    int64_t place = named(run, data, size);

    if (run->numbers)
        return place >= 0 && is_answer(run, place, data, size) ? place : -1;
    for (place = 0; place < run->length; place++)
        if (is_answer(run, place, data, size))
            return place;
    return -1;
}

/* Not what anybody asked for. By its number it may still be told whose answer it should have been. */
static void faulty(Run *run, Peer *peer, const char *data, int64_t size)
{
    int64_t place = named(run, data, size), found = place < 0 ? -1 : find(run, peer, place), bare = size;
    bool same_letters;
    Open request;

    if (found < 0 && peer->count == 0) {
        run->faults[WRONG]++;
        return;
    }
    /* `named` reads small letters and capitals alike: the number must be the answer's own. */
    same_letters = found >= 0 && memcmp(data, answer_of(run, place), 3) == 0;
    request = same_letters ? take(run, peer, (uint32_t)found) : take_first(run, peer);
    if (run->end >= 0 && size > 0 && data[size - 1] == (char)run->end)
        bare--;
    if (size < size_of(run, request.number) && memcmp(data, answer_of(run, request.number), (size_t)bare) == 0)
        run->faults[SHORT]++;
    else
        run->faults[WRONG]++;
}

static bool was_given_up(Run *run, Peer *peer, int64_t place)
{
    int64_t kept = peer->gone_count < run->length ? peer->gone_count : run->length;

    for (int64_t i = 0; i < kept; i++) {
        if (peer->gone[i] >= 0 && peer->gone[i] % run->length == place) {
            peer->gone[i] = -1;
            return true;
        }
    }
    return false;
}

static void one_answer(Run *run, Peer *peer, const char *data, int64_t size, int64_t at)
{
    int64_t place = place_of(run, data, size), found;
    Open request;

    if (place < 0) {
        faulty(run, peer, data, size);
        return;
    }
    found = run->numbers ? find(run, peer, place) : peer->count ? 0 : -1;
    if (found < 0) {
        if (was_given_up(run, peer, place))
            run->faults[LATE]++;
        else
            run->faults[run->numbers && peer->next ? DUPLICATED : WRONG]++;
        return;
    }
    request = take(run, peer, (uint32_t)found);
    if (request.number < peer->highest)
        run->faults[REORDERED]++;
    else
        peer->highest = request.number;
    intact(run, request, at, size);
}

static bool keep(Peer *peer, const char *data, int64_t size)
{
    if (peer->kept_size + size > peer->kept_room) {
        int64_t room = (peer->kept_size + size) * 2;
        char *kept = PyMem_RawRealloc(peer->kept, (size_t)room);

        if (kept == NULL)
            return false;
        peer->kept = kept;
        peer->kept_room = room;
    }
    memcpy(peer->kept + peer->kept_size, data, (size_t)size);
    peer->kept_size += size;
    return true;
}

/* What still agrees is counted; then the rest can't be assigned to any request. */
static void without_ends(Run *run, Peer *peer, int64_t at)
{
    const char *data = peer->kept;
    int64_t left = peer->kept_size;

    while (peer->count) {
        int64_t number = peer->open[peer->first].number, size = size_of(run, number);

        if (left < size || memcmp(data, answer_of(run, number), (size_t)size) != 0)
            break;
        peer->highest = number;
        intact(run, take_first(run, peer), at, size);
        data += size;
        left -= size;
    }
    if (left) {
        if (peer->count)
            take_first(run, peer);
        run->faults[WRONG]++;
    }
    peer->kept_size = 0;
    peer->broken = true;
}

static void one_by_one(Run *run, Peer *peer, const char *data, int64_t size, int64_t at)
{
    int64_t done = 0;
    const char *end;

    if (size == 0)
        return;
    if (!keep(peer, data, size)) {
        run->faults[WRONG]++; /* no memory: nothing more can be said about it */
        peer->broken = true;
        return;
    }
    if (run->end < 0) {
        without_ends(run, peer, at);
        return;
    }
    while ((end = memchr(peer->kept + done, run->end, (size_t)(peer->kept_size - done))) != NULL) {
        int64_t length = end + 1 - (peer->kept + done);

        one_answer(run, peer, peer->kept + done, length, at);
        done += length;
    }
    peer->kept_size -= done;
    memmove(peer->kept, peer->kept + done, (size_t)peer->kept_size);
    if (peer->kept_size > 2 * run->longest) { /* no end in sight */
        run->faults[WRONG]++;
        peer->kept_size = 0;
        peer->broken = true;
    }
}

/* From here on answers are looked at one by one; of the one at hand `at` bytes have come. */
static void begin_to_doubt(Run *run, Peer *peer, const char *data, int64_t size, int64_t at)
{
    int64_t inside = peer->at;

    peer->careful = true;
    peer->at = 0;
    if (inside && !keep(peer, answer_of(run, peer->highest + 1), inside)) {
        run->faults[WRONG]++;
        peer->broken = true;
        return;
    }
    one_by_one(run, peer, data, size, at);
}

static void compared(Run *run, Peer *peer, const char *data, int64_t size, int64_t at)
{
    while (size) {
        int64_t number = peer->highest + 1, whole = size_of(run, number), part = whole - peer->at;

        if (part > size)
            part = size;
        if (peer->count == 0 || memcmp(data, answer_of(run, number) + peer->at, (size_t)part) != 0) {
            begin_to_doubt(run, peer, data, size, at);
            return;
        }
        peer->at += part;
        data += part;
        size -= part;
        if (peer->at == whole) {
            peer->at = 0;
            peer->highest = number;
            intact(run, take_first(run, peer), at, whole);
        }
    }
}

static void datagram(Run *run, Peer *peer, const char *data, int64_t size, int64_t at)
{
    if (peer->count) {
        int64_t number = peer->open[peer->first].number;

        if (number > peer->highest && is_answer(run, number, data, size)) {
            peer->highest = number;
            intact(run, take_first(run, peer), at, size);
            return;
        }
    }
    one_answer(run, peer, data, size, at);
}

void ledger_receive(Run *run, Peer *peer, const char *data, int64_t size, int64_t at)
{
    if (run->boundaries)
        datagram(run, peer, data, size, at);
    else if (peer->careful)
        one_by_one(run, peer, data, size, at);
    else
        compared(run, peer, data, size, at);
}

void ledger_end(Run *run, Peer *peer)
{
    if (peer->count && (peer->careful ? peer->kept_size : peer->at)) {
        take_first(run, peer);
        run->faults[SHORT]++;
    }
    run->faults[LOST] += peer->count;
    peer->count = 0;
}

int64_t ledger_overdue(Run *run, Peer *peer, int64_t before)
{
    int64_t count = 0;

    while (peer->count && peer->open[peer->first].sent < before) {
        if (peer->gone == NULL)
            peer->gone = PyMem_RawCalloc((size_t)run->length, sizeof *peer->gone);
        if (peer->gone != NULL)
            peer->gone[peer->gone_count++ % run->length] = peer->open[peer->first].number;
        take_first(run, peer);
        count++;
    }
    if (count && !run->boundaries) {
        peer->broken = run->end < 0;
        if (!peer->careful)
            begin_to_doubt(run, peer, "", 0, 0);
    }
    return count;
}
