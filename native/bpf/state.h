/* The state of a source, which source.c fills and order.c reads. */
#ifndef BOTHENDS_BPF_STATE_H
#define BOTHENDS_BPF_STATE_H

#include <bpf/libbpf.h>
#include <pthread.h>
#include <time.h>

#include "source.h"

enum { THREAD_SLOTS = 1 << 16 }; /* of the hash table of threads; more than MAX_THREADS */

struct chunk {
    struct chunk *next; /* in the list of free ones */
    u32 used;
    u32 users; /* records, and one while it is being filled */
};

struct queued {
    struct queued *next;
    struct chunk *chunk;  /* NULL: allocated by itself */
    struct record record; /* and its pieces */
};

enum part { PART_START, PART_END, PART_EVENT };

struct event {
    u64 at;
    u64 order;
    struct queued *queued;
    enum part part;
    int is_whole; /* of PART_START: the record is that of PART_END, which owns it */
};

struct program {
    struct event *events;
    size_t count, position, capacity;
    int has_started, is_dead;
    u32 adopted[MAX_ADOPTED]; /* processes that the kernel has added, and that are not reported yet */
    size_t adopted_count;
};

struct seen_thread {
    u32 thread;
    u64 started; /* the call whose start is in the lines already */
    u64 last;    /* the last call that has ended */
};

struct source {
    struct bpf_object *object;
    struct bpf_link *links[16];
    size_t link_count;
    struct ring_buffer *ring;
    volatile struct shared *shared;
    struct thread_state *threads; /* the slots, which the programs write */
    int adopted, own_thread;
    int event;
    s64 offset; /* CLOCK_TAI less CLOCK_REALTIME: leap seconds */
    pthread_t reader;
    int has_reader;
    volatile int stops;
    pthread_mutex_t lock; /* of the ring buffer and of the queue */
    struct queued *first, **last;
    size_t queued_count;
    struct chunk *chunk, *free_chunks;
    u32 free_count;
    size_t bytes, max_bytes; /* of chunks */
    u64 dropped;
    u64 order, until;
    u64 lost; /* records, up to the last one that was taken over */
    struct program programs[MAX_PROGRAMS];
    struct seen_thread seen[THREAD_SLOTS];
    size_t seen_count;
};

u64 clock_ns(clockid_t clock);
void free_queued(struct source *source, struct queued *queued);

#endif
