/* Put the records of a source into order, and write them as lines.
 *
 * A record is written when its call ends. source_update() looks first which calls last (`threads`), then reads the
 * ring buffer: so all starts up to the time of the first look are known, and lines have the order of the events, as
 * those of strace. What is later waits for the next update. */
#define _GNU_SOURCE 1
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "names.h"
#include "state.h"

enum {
    LINE_WAITS = 16,
    LINE_WRITTEN = 32
}; /* flags of a record whose line is written at its end, or is written */

static struct seen_thread *seen_thread(struct source *source, u32 thread)
{
    size_t at = thread * 2654435761u % THREAD_SLOTS;
    for (size_t tries = 0; tries < THREAD_SLOTS; tries++, at = (at + 1) % THREAD_SLOTS) {
        struct seen_thread *seen = &source->seen[at];
        if (seen->thread == thread)
            return seen;
        if (!seen->thread) {
            if (source->seen_count > THREAD_SLOTS / 2) { /* mostly of threads that have exited */
                memset(source->seen, 0, sizeof source->seen);
                source->seen_count = 0;
            }
            source->seen_count++;
            memset(seen, 0, sizeof *seen);
            seen->thread = thread;
            return seen;
        }
    }
    return &source->seen[0];
}

static int add_sorted_later(struct source *source, struct queued *queued, u64 at, enum part part, int is_whole)
{
    struct program *program = &source->programs[queued->record.program % MAX_PROGRAMS];
    if (program->count == program->capacity) {
        size_t capacity = program->capacity ? 2 * program->capacity : 1024;
        struct event *events = realloc(program->events, capacity * sizeof *events);
        if (!events)
            return -ENOMEM;
        program->events = events;
        program->capacity = capacity;
    }
    program->events[program->count++] = (struct event){at, source->order++, queued, part, is_whole};
    return 0;
}

static int compare_events(const void *left, const void *right)
{
    const struct event *first = left, *second = right;
    if (first->at != second->at)
        return first->at < second->at ? -1 : 1;
    return first->order < second->order ? -1 : first->order > second->order;
}

/* Append memory of a process as a piece. */
static void put_remote(struct record *record, size_t room, u16 type, u64 address, u64 length)
{
    struct piece *piece = (struct piece *)((u8 *)record + record->size);
    if (length > DATA_LIMIT)
        length = DATA_LIMIT;
    if (!address || record->size + sizeof *piece + length + 8 > room)
        return;
    struct iovec local = {piece + 1, length}, remote = {(void *)(uintptr_t)address, length};
    ssize_t count = length ? process_vm_readv(record->process, &local, 1, &remote, 1, 0) : 0;
    if (count != (ssize_t)length)
        return;
    *piece = (struct piece){type, 0, length};
    record->size += sizeof *piece + ((length + 7) & ~7ull);
}

/* Return a record of a call that lasts, with the memory that its arguments refer to. */
static struct queued *record_of(const struct thread_state *state)
{
    enum { ROOM = sizeof(struct record) + 4 * DATA_LIMIT };
    struct queued *queued = calloc(1, offsetof(struct queued, record) + ROOM);
    if (!queued)
        return NULL;
    struct record *record = &queued->record;
    record->size = sizeof *record;
    record->type = RECORD_CALL;
    record->program = state->program;
    record->process = state->process;
    record->thread = state->thread;
    record->call = state->call;
    record->at = record->until = state->at;
    memcpy(record->arguments, state->arguments, sizeof record->arguments);
    memcpy(record->limit, state->limit, sizeof record->limit);
    record->label = state->label;
    const u64 *arguments = record->arguments;
    switch (call_flags(state->call) & KIND_MASK) {
    case KIND_WRITE:
    case KIND_SENDTO:
        put_remote(record, ROOM, PIECE_DATA, arguments[1], arguments[2]);
        if (arguments[4] && arguments[5] <= 128 && (call_flags(state->call) & KIND_MASK) == KIND_SENDTO)
            put_remote(record, ROOM, PIECE_ADDRESS, arguments[4], arguments[5]);
        break;
    case KIND_ADDRESS:
        if (arguments[2] <= 128)
            put_remote(record, ROOM, PIECE_ADDRESS, arguments[1], arguments[2]);
        break;
    case KIND_SET_OPTION:
        if (arguments[4] <= 64)
            put_remote(record, ROOM, PIECE_OPTION, arguments[3], arguments[4]);
        break;
    case KIND_POLL:
    case KIND_PPOLL:
        put_remote(record, ROOM, PIECE_POLL, arguments[0], arguments[1] > 512 ? 4096 : arguments[1] * 8);
        break;
    case KIND_SELECT: {
        struct piece *piece = (struct piece *)((u8 *)record + record->size);
        *piece = (struct piece){PIECE_SETS, 0, sizeof state->sets};
        memcpy(piece + 1, state->sets, sizeof state->sets);
        record->size += sizeof *piece + sizeof state->sets;
        break;
    }
    case KIND_WRITEV:
        put_remote(record, ROOM, PIECE_VECTORS, arguments[1], arguments[2] > MAX_VECTORS ? 0 : arguments[2] * 16);
        break;
    case KIND_SENDMSG:
        put_remote(record, ROOM, PIECE_HEADER, arguments[1], 56);
        break;
    }
    return queued;
}

struct lasting {
    struct thread_state *states;
    size_t count, capacity;
};

static void add_lasting(struct lasting *lasting, const struct thread_state *state)
{
    if (lasting->count == lasting->capacity) {
        size_t capacity = lasting->capacity ? 2 * lasting->capacity : 64, size = capacity * sizeof *state;
        struct thread_state *states = aligned_alloc(_Alignof(struct thread_state), size);
        if (!states)
            return;
        if (lasting->count)
            memcpy(states, lasting->states, lasting->count * sizeof *states);
        free(lasting->states);
        lasting->states = states;
        lasting->capacity = capacity;
    }
    lasting->states[lasting->count++] = *state;
}

static void read_lasting(struct source *source, struct lasting *lasting)
{
    for (u32 first = 0; first < MAX_THREADS; first++) {
        if (!source->shared->hints[first])
            continue;
        for (u32 at = 0; at < PROBES; at++) {
            const struct thread_state *state = &source->threads[(first + at) & (MAX_THREADS - 1)];
            u32 id = __atomic_load_n(&state->id, __ATOMIC_ACQUIRE);
            if (id && id != SLOT_CLAIMED && (id & (MAX_THREADS - 1)) == first
                && __atomic_load_n(&state->call, __ATOMIC_ACQUIRE) != NO_CALL)
                add_lasting(lasting, state);
        }
    }
}

/* Mark where records are missing: before this one. */
static void mark_lost(struct source *source, const struct record *record)
{
    struct queued *mark = calloc(1, sizeof *mark);
    if (!mark)
        return; /* the next record is tried */
    mark->record.size = sizeof mark->record;
    mark->record.type = RECORD_LOST;
    mark->record.program = record->program;
    mark->record.process = record->process;
    mark->record.thread = record->thread;
    mark->record.at = mark->record.until = record->type == RECORD_CALL ? record->at : record->until;
    mark->record.result = record->lost - source->lost;
    source->lost = record->lost;
    if (add_sorted_later(source, mark, mark->record.until, PART_EVENT, 0))
        free(mark);
}

static void take_over(struct source *source, struct queued *queued)
{
    struct record *record = &queued->record;
    if (record->lost > source->lost)
        mark_lost(source, record);
    struct seen_thread *seen = seen_thread(source, record->thread);
    source->programs[record->program % MAX_PROGRAMS].has_started = 1;
    if (record->type == RECORD_CALL && !(record->flags & OF_URING)) {
        seen->last = record->at;
        if (seen->started != record->at)
            add_sorted_later(source, queued, record->at, PART_START, 1);
        if (add_sorted_later(source, queued, record->until, PART_END, 0))
            free_queued(source, queued);
        return;
    }
    if (record->type == RECORD_ADOPTED) {
        struct program *program = &source->programs[record->program % MAX_PROGRAMS];
        if (program->adopted_count < MAX_ADOPTED)
            program->adopted[program->adopted_count++] = record->process;
        free_queued(source, queued);
        return;
    }
    if (record->type == RECORD_EXIT) {
        seen->last = ~0ull;  /* no call of it lasts */
        if (record->flags) { /* before its execve() */
            free_queued(source, queued);
            return;
        }
    }
    if (add_sorted_later(source, queued, record->until, PART_EVENT, 0))
        free_queued(source, queued);
}

static int is_read(const struct source *source)
{
    for (int number = 0; number < MAX_PROGRAMS; number++) {
        const struct program *program = &source->programs[number];
        if (program->position < program->count && program->events[program->position].at <= source->until)
            return 0;
    }
    return 1;
}

void source_update(struct source *source)
{
    struct lasting lasting = {0};
    eventfd_t count;
    if (!is_read(source))
        return;
    eventfd_read(source->event, &count);
    u64 until = clock_ns(CLOCK_TAI);
    for (int number = 0; number < MAX_PROGRAMS; number++)
        source->programs[number].is_dead =
            source->programs[number].has_started && source->shared->live[number] <= 0;
    read_lasting(source, &lasting);
    pthread_mutex_lock(&source->lock);
    ring_buffer__consume(source->ring);
    struct queued *queued = source->first;
    source->first = NULL;
    source->last = &source->first;
    source->queued_count = 0;
    pthread_mutex_unlock(&source->lock);
    size_t before[MAX_PROGRAMS];
    for (int number = 0; number < MAX_PROGRAMS; number++) {
        struct program *program = &source->programs[number];
        program->count -= program->position;
        if (program->count)
            memmove(program->events, program->events + program->position,
                    program->count * sizeof *program->events);
        program->position = 0;
        before[number] = program->count;
    }
    while (queued) {
        struct queued *next = queued->next;
        take_over(source, queued);
        queued = next;
    }
    for (size_t at = 0; at < lasting.count; at++) {
        struct thread_state *state = &lasting.states[at];
        struct seen_thread *seen = seen_thread(source, state->thread);
        if (seen->last >= state->at || seen->started == state->at || state->at > until || state->call >= MAX_CALLS)
            continue;
        struct queued *started = record_of(state);
        if (started && add_sorted_later(source, started, state->at, PART_START, 0))
            free(started);
        seen->started = state->at;
    }
    free(lasting.states);
    for (int number = 0; number < MAX_PROGRAMS; number++)
        if (source->programs[number].count != before[number])
            qsort(source->programs[number].events, source->programs[number].count, sizeof(struct event),
                  compare_events);
    source->until = until;
}

/* Return 1 for a call that sends, -1 for one that receives or waits for that, 0 for others. */
static int is_movement(const struct record *record)
{
    switch (call_flags(record->call) & KIND_MASK) {
    case KIND_WRITE:
    case KIND_SENDTO:
    case KIND_WRITEV:
    case KIND_SENDMSG:
    case KIND_SENDMMSG:
        return 1;
    case KIND_READ:
    case KIND_RECVFROM:
    case KIND_READV:
    case KIND_RECVMSG:
    case KIND_RECVMMSG:
    case KIND_POLL:
    case KIND_PPOLL:
    case KIND_SELECT:
    case KIND_EPOLL_WAIT:
        return -1;
    }
    return 0;
}

void source_lines(struct source *source, int number, struct text *text, size_t max_bytes)
{
    struct program *program = &source->programs[number % MAX_PROGRAMS];
    while (program->position < program->count && text->length < max_bytes) {
        struct event *event = &program->events[program->position], *next = event + 1;
        const struct record *record = &event->queued->record;
        if (event->at > source->until)
            break;
        program->position++;
        if (event->part == PART_EVENT) {
            if (record->type == RECORD_CALL)
                add_call(text, record, AT_START | AT_END, source->offset);
            else
                add_event(text, record, source->offset);
        } else if (event->part == PART_END) {
            if (record->flags != LINE_WRITTEN)
                add_call(text, record, record->flags == LINE_WAITS ? AT_START | AT_END : AT_END, source->offset);
        } else if (event->is_whole && program->position < program->count && next->queued == event->queued
                   && next->at <= source->until) {
            program->position++;
            add_call(text, record, AT_START | AT_END, source->offset);
            event = next;
        } else if (event->is_whole && record->until <= source->until && is_movement(record)) {
            /* One line is parsed faster than two: a send's at its start, the others' at their end, so that bytes are
             * sent before they are received. */
            if (is_movement(record) > 0)
                add_call(text, record, AT_START | AT_END, source->offset);
            event->queued->record.flags = is_movement(record) > 0 ? LINE_WRITTEN : LINE_WAITS;
            continue;
        } else {
            add_call(text, record, AT_START, source->offset);
            if (event->is_whole)
                continue;
        }
        free_queued(source, event->queued);
    }
}

int source_has_ended(struct source *source, int number)
{
    const struct program *program = &source->programs[number % MAX_PROGRAMS];
    return program->is_dead && program->position == program->count;
}

u64 source_horizon(struct source *source)
{
    u64 horizon = source->until;
    for (int number = 0; number < MAX_PROGRAMS; number++) {
        const struct program *program = &source->programs[number];
        if (program->position < program->count && program->events[program->position].at < horizon)
            horizon = program->events[program->position].at;
    }
    return horizon ? horizon - source->offset : 0;
}
