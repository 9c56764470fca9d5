/* Load the BPF programs, follow processes, and read their records.
 *
 * 1. A thread of its own empties the ring buffer, so that records are not lost while bothends draws. The records
 *    wait in memory, up to a limit.
 * 2. The programs are attached by links that are not pinned: the kernel removes them with the last descriptor,
 *    also after SIGKILL. */
#define _GNU_SOURCE 1
#include "state.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "names.h"
#include "object.h"

enum {
    CHUNK = 2 << 20,         /* bytes of memory that records are copied to: a huge page */
    FREE_CHUNKS = 8,         /* kept for reuse */
    READ_INTERVAL = 5000000, /* nanoseconds between two looks into the ring buffer */
    READER_NICE = -15,       /* of the thread that does so */
};

static _Thread_local char *message_buffer;
static _Thread_local size_t message_room;

static int keep_message(enum libbpf_print_level level, const char *format, va_list arguments)
{
    if (level == LIBBPF_WARN && message_buffer && !*message_buffer)
        vsnprintf(message_buffer, message_room, format, arguments);
    return 0;
}

u64 clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* Called with the lock held, as is the next one. */
static void release_chunk(struct source *source, struct chunk *chunk)
{
    if (--chunk->users)
        return;
    if (source->free_count < FREE_CHUNKS) {
        chunk->next = source->free_chunks;
        source->free_chunks = chunk;
        source->free_count++;
    } else {
        free(chunk);
        source->bytes -= CHUNK;
    }
}

static struct chunk *new_chunk(struct source *source)
{
    struct chunk *chunk = source->free_chunks;
    if (chunk) {
        source->free_chunks = chunk->next;
        source->free_count--;
    } else {
        if (source->bytes + CHUNK > source->max_bytes || !(chunk = aligned_alloc(CHUNK, CHUNK)))
            return NULL;
        madvise(chunk, CHUNK, MADV_HUGEPAGE); /* fewer page faults */
        source->bytes += CHUNK;
    }
    chunk->used = (sizeof *chunk + 7) & ~7u;
    chunk->users = 1;
    return chunk;
}

static int on_record(void *context, void *data, size_t size)
{
    struct source *source = context;
    size_t needed = (offsetof(struct queued, record) + size + 7) & ~(size_t)7;
    if (size < sizeof(struct record) || needed > CHUNK / 2)
        return 0;
    if (!source->chunk || source->chunk->used + needed > CHUNK) {
        struct chunk *chunk = new_chunk(source);
        if (!chunk) {
            source->dropped++;
            return 0;
        }
        if (source->chunk)
            release_chunk(source, source->chunk);
        source->chunk = chunk;
    }
    struct queued *queued = (struct queued *)((u8 *)source->chunk + source->chunk->used);
    source->chunk->used += needed;
    source->chunk->users++;
    queued->next = NULL;
    queued->chunk = source->chunk;
    memcpy(&queued->record, data, size);
    queued->record.size = size;
    queued->record.lost += source->dropped;
    *source->last = queued;
    source->last = &queued->next;
    source->queued_count++;
    return 0;
}

static void *read_ring(void *argument)
{
    struct source *source = argument;
    struct timespec interval = {0, READ_INTERVAL};
    /* Programs that use all processors fill the ring buffer in 25 ms. Without CAP_SYS_NICE the priority stays. */
    (void)setpriority(PRIO_PROCESS, gettid(), READER_NICE);
    while (!source->stops) {
        pthread_mutex_lock(&source->lock);
        int count = ring_buffer__consume(source->ring);
        pthread_mutex_unlock(&source->lock);
        if (count > 0)
            eventfd_write(source->event, 1);
        nanosleep(&interval, NULL);
    }
    return NULL;
}

static int start_reader(struct source *source)
{
    sigset_t all, previous;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &previous); /* signals are for the threads of Python */
    int error = pthread_create(&source->reader, NULL, read_ring, source);
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    source->has_reader = !error;
    return -error;
}

static struct bpf_map *find_section(struct bpf_object *object, const char *suffix)
{
    struct bpf_map *map;
    bpf_object__for_each_map(map, object)
    {
        const char *name = bpf_map__name(map), *dot = strrchr(name, '.');
        if (dot && !strcmp(dot, suffix))
            return map;
    }
    return NULL;
}

/* Whether the tracepoint io_uring_complete has a struct io_uring_cqe in place of its fields; -1 without io_uring. */
static int has_completion_entry(void)
{
    struct btf *btf = btf__load_vmlinux_btf();
    int count = 0;
    if (!btf)
        return -1;
    s32 id = btf__find_by_name_kind(btf, "btf_trace_io_uring_complete", BTF_KIND_TYPEDEF);
    for (const struct btf_type *type = btf__type_by_id(btf, id < 0 ? 0 : id); type;) {
        if (btf_kind(type) == BTF_KIND_FUNC_PROTO) {
            count = btf_vlen(type);
            break;
        }
        if (btf_kind(type) != BTF_KIND_TYPEDEF && btf_kind(type) != BTF_KIND_PTR)
            break;
        type = btf__type_by_id(btf, type->type);
    }
    btf__free(btf);
    return count ? count == 4 : -1; /* and the first one, which BPF programs do not see */
}

static int load(struct source *source)
{
    size_t size = 0;
    libbpf_set_strict_mode(LIBBPF_STRICT_ALL & ~LIBBPF_STRICT_AUTO_RLIMIT_MEMLOCK);
    LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "bothends");
    source->object = bpf_object__open_mem(bpf_object_bytes, bpf_object_size, &options);
    if (!source->object)
        return -errno;
    struct bpf_map *map = find_section(source->object, ".rodata");
    struct constants *constants = map ? (void *)bpf_map__initial_value(map, &size) : NULL;
    if (!constants || size < sizeof *constants)
        return -EINVAL;
    for (size_t at = 0; at < call_count; at++)
        constants->call_kinds[call_table[at].number] = call_table[at].flags;
    constants->execve_number = __NR_execve;
    constants->connect_number = __NR_connect;
    int has_entry = has_completion_entry();
    constants->complete_has_cqe = has_entry > 0;
    for (int at = 0; at < MAX_OPERATIONS; at++)
        constants->operations[at] = NO_CALL;
    constants->operations[OPERATION_SENDMSG] = __NR_sendmsg;
    constants->operations[OPERATION_RECVMSG] = __NR_recvmsg;
    constants->operations[OPERATION_ACCEPT] = __NR_accept4;
    constants->operations[OPERATION_CONNECT] = __NR_connect;
    constants->operations[OPERATION_CLOSE] = __NR_close;
    constants->operations[OPERATION_READ] = __NR_read;
    constants->operations[OPERATION_WRITE] = __NR_write;
    constants->operations[OPERATION_SEND] = __NR_sendto;
    constants->operations[OPERATION_RECV] = __NR_recvfrom;
    constants->operations[OPERATION_SHUTDOWN] = __NR_shutdown;
    struct bpf_program *program;
    bpf_object__for_each_program(program, source->object)
    {
        if (has_entry < 0 && strstr(bpf_program__section_name(program), "io_uring"))
            bpf_program__set_autoload(program, false);
    }
    int error = bpf_object__load(source->object);
    if (error)
        return error;
    map = find_section(source->object, ".bss");
    if (!map || bpf_map__value_size(map) < sizeof *source->shared)
        return -EINVAL;
    void *shared = mmap(NULL, sizeof *source->shared, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    if (shared == MAP_FAILED)
        return -errno;
    source->shared = shared;
    int threads = bpf_object__find_map_fd_by_name(source->object, "threads");
    void *slots =
        mmap(NULL, MAX_THREADS * sizeof *source->threads, PROT_READ | PROT_WRITE, MAP_SHARED, threads, 0);
    if (slots == MAP_FAILED)
        return -errno;
    source->threads = slots;
    source->adopted = bpf_object__find_map_fd_by_name(source->object, "adopted");
    source->ring =
        ring_buffer__new(bpf_object__find_map_fd_by_name(source->object, "ring"), on_record, source, NULL);
    if (!source->ring)
        return -errno;
    bpf_object__for_each_program(program, source->object)
    {
        if (!bpf_program__autoload(program))
            continue;
        if (!strcmp(bpf_program__name(program), "note_own_thread")) {
            source->own_thread = bpf_program__fd(program);
            continue;
        }
        struct bpf_link *link = bpf_program__attach(program);
        if (!link)
            return -errno;
        if (source->link_count < sizeof source->links / sizeof *source->links)
            source->links[source->link_count++] = link;
    }
    return 0;
}

struct source *source_open(size_t max_bytes, int *error, char *message, size_t message_size)
{
    struct source *source = calloc(1, sizeof *source);
    if (!source) {
        *error = ENOMEM;
        return NULL;
    }
    source->event = -1;
    source->max_bytes = max_bytes;
    source->last = &source->first;
    pthread_mutex_init(&source->lock, NULL);
    s64 difference = clock_ns(CLOCK_TAI) - clock_ns(CLOCK_REALTIME);
    source->offset = (difference + 500000000) / 1000000000 * 1000000000;
    *message = 0;
    message_buffer = message;
    message_room = message_size;
    libbpf_print_fn_t previous = libbpf_set_print(keep_message);
    int result = load(source);
    message_buffer = NULL;
    libbpf_set_print(previous);
    if (!result && (source->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        result = -errno;
    if (!result)
        result = source_spawn(source, -1);
    if (!result)
        result = start_reader(source);
    if (result) {
        *error = -result;
        source_close(source);
        return NULL;
    }
    return source;
}

void free_queued(struct source *source, struct queued *queued)
{
    if (!queued->chunk) {
        free(queued);
        return;
    }
    pthread_mutex_lock(&source->lock);
    release_chunk(source, queued->chunk);
    pthread_mutex_unlock(&source->lock);
}

void source_close(struct source *source)
{
    source->stops = 1;
    if (source->has_reader)
        pthread_join(source->reader, NULL);
    for (size_t at = 0; at < source->link_count; at++)
        bpf_link__destroy(source->links[at]);
    ring_buffer__free(source->ring);
    bpf_object__close(source->object);
    if (source->shared)
        munmap((void *)source->shared, sizeof *source->shared);
    if (source->threads)
        munmap(source->threads, MAX_THREADS * sizeof *source->threads);
    if (source->event >= 0)
        close(source->event);
    while (source->first) {
        struct queued *next = source->first->next;
        free_queued(source, source->first);
        source->first = next;
    }
    for (int number = 0; number < MAX_PROGRAMS; number++) {
        struct program *program = &source->programs[number];
        for (size_t at = program->position; at < program->count; at++)
            if (!program->events[at].is_whole)
                free_queued(source, program->events[at].queued);
        free(program->events);
    }
    free(source->chunk);
    while (source->free_chunks) {
        struct chunk *next = source->free_chunks->next;
        free(source->free_chunks);
        source->free_chunks = next;
    }
    pthread_mutex_destroy(&source->lock);
    free(source);
}

int source_spawn(struct source *source, int program)
{
    u64 arguments[1] = {0};
    LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = arguments, .ctx_size_in = sizeof arguments);
    if (program < 0) {
        source->shared->spawns = 0;
    }
    int result = bpf_prog_test_run_opts(source->own_thread, &options);
    if (result)
        return result;
    if (program >= 0 && program < MAX_PROGRAMS) {
        source->programs[program].has_started = 1;
        source->shared->spawned_program = program;
        source->shared->spawns = 1;
    }
    return 0;
}

/* Fill in the call that a thread is blocked in: /proc/PID/task/TID/syscall of proc(5). */
static void guess_call(struct thread_state *state)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%u/task/%u/syscall", state->process, state->thread);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    int number;
    unsigned long long values[6];
    if (fgets(text, sizeof text, file)
        && sscanf(text, "%d %llx %llx %llx %llx %llx %llx", &number, &values[0], &values[1], &values[2],
                  &values[3], &values[4], &values[5])
               == 7
        && number >= 0 && call_flags(number)) {
        state->call = number;
        state->is_quiet = GUESSED;
        for (int at = 0; at < 6; at++)
            state->arguments[at] = values[at];
    }
    fclose(file);
}

static struct thread_state *find_slot(struct source *source, u32 first, u32 id)
{
    for (u32 at = 0; at < PROBES; at++) {
        struct thread_state *slot = &source->threads[(first + at) & (MAX_THREADS - 1)];
        if (slot->id == id)
            return slot;
    }
    return NULL;
}

/* Add a thread that has none yet. Returns whether it has got a slot. */
static int add_thread(struct source *source, struct thread_state *state, u32 id)
{
    u32 is_free = 0;
    if (find_slot(source, id, id))
        return 0;
    struct thread_state *slot = find_slot(source, id, 0);
    if (!slot
        || !__atomic_compare_exchange_n(&slot->id, &is_free, SLOT_CLAIMED, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
        __sync_fetch_and_add(&source->shared->lost_threads, 1);
        return 0;
    }
    state->id = SLOT_CLAIMED;
    *slot = *state;
    __atomic_store_n(&slot->id, id, __ATOMIC_SEQ_CST);
    __sync_fetch_and_add(&source->shared->hints[id & (MAX_THREADS - 1)], 1);
    __sync_fetch_and_add(&source->shared->live[state->program], 1);
    return 1;
}

int source_adopt(struct source *source, int program, u32 process)
{
    u32 value = program;
    char path[64];
    int result = bpf_map_update_elem(source->adopted, &process, &value, BPF_ANY);
    if (result)
        return result;
    source->programs[program].has_started = 1;
    if (source->shared->level) {
        source->shared->adopts = 1; /* ids of threads differ: each is found when it makes a call */
        return 0;
    }
    snprintf(path, sizeof path, "/proc/%u/task", process);
    for (int is_new = 1, passes = 0; is_new && passes < 10; passes++) { /* threads may start meanwhile */
        DIR *folder = opendir(path);
        struct dirent *entry;
        is_new = 0;
        while (folder && (entry = readdir(folder))) {
            u32 thread = atoi(entry->d_name);
            struct thread_state state = {
                .program = program, .process = process, .thread = thread, .call = NO_CALL};
            if (!thread)
                continue;
            state.at = clock_ns(CLOCK_TAI);
            state.limit[0] = state.limit[1] = ~0ull;
            guess_call(&state);
            is_new |= add_thread(source, &state, thread);
        }
        if (folder)
            closedir(folder);
    }
    return 0;
}

void source_follow_port(struct source *source, int program, u32 port)
{
    source->programs[program].has_started = 1;
    source->shared->port_program = program;
    source->shared->port = port;
}

void source_release(struct source *source, int program)
{
    u32 key, next, owner;
    if (source->shared->port && source->shared->port_program == (u32)program)
        source->shared->port = 0;
    for (int result = bpf_map_get_next_key(source->adopted, NULL, &next); !result;) {
        key = next;
        result = bpf_map_get_next_key(source->adopted, &key, &next);
        if (!bpf_map_lookup_elem(source->adopted, &key, &owner) && owner == (u32)program)
            bpf_map_delete_elem(source->adopted, &key);
    }
    for (u32 at = 0; at < MAX_THREADS; at++) {
        struct thread_state *slot = &source->threads[at];
        u32 id = __atomic_load_n(&slot->id, __ATOMIC_ACQUIRE);
        if (!id || id == SLOT_CLAIMED || slot->program != (u32)program)
            continue;
        if (__atomic_compare_exchange_n(&slot->id, &id, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            __sync_fetch_and_add(&source->shared->hints[id & (MAX_THREADS - 1)], -1);
            __sync_fetch_and_add(&source->shared->live[program], -1);
        }
    }
}

size_t source_adopted(struct source *source, int number, u32 *processes, size_t room)
{
    struct program *program = &source->programs[number];
    size_t count = program->adopted_count < room ? program->adopted_count : room;
    memcpy(processes, program->adopted, count * sizeof *processes);
    program->adopted_count = 0;
    return count;
}

u64 source_skip(struct source *source)
{
    pthread_mutex_lock(&source->lock);
    ring_buffer__consume(source->ring);
    struct queued *queued = source->first;
    source->first = NULL;
    source->last = &source->first;
    source->queued_count = 0;
    pthread_mutex_unlock(&source->lock);
    while (queued) {
        struct queued *next = queued->next;
        free_queued(source, queued);
        queued = next;
    }
    return clock_ns(CLOCK_REALTIME);
}

int source_descriptor(const struct source *source)
{
    return source->event;
}

int source_is_alive(const struct source *source)
{
    for (int number = 0; number < MAX_PROGRAMS; number++)
        if (source->shared->live[number] > 0)
            return 1;
    return 0;
}

size_t source_waiting(struct source *source)
{
    pthread_mutex_lock(&source->lock);
    size_t count = source->queued_count;
    pthread_mutex_unlock(&source->lock);
    for (int number = 0; number < MAX_PROGRAMS; number++)
        count += (source->programs[number].count - source->programs[number].position) / 2; /* a start and an end */
    return count;
}

u64 source_lost(struct source *source)
{
    return source->shared->lost + source->dropped;
}

u64 source_lost_threads(struct source *source)
{
    return source->shared->lost_threads;
}

u64 source_repeated(struct source *source)
{
    return source->shared->repeated;
}
