/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 * The maps, the threads that are followed, and the records. */
#ifndef BOTHENDS_BPF_THREADS_H
#define BOTHENDS_BPF_THREADS_H

#include "kernel.bpf.h"

struct scratch {
    struct record record;
    u8 pieces[PIECE_ROOM + sizeof(struct piece) + DATA_LIMIT + 8];
};

/* An array is searched without a call of a helper function, and the reader maps it into its memory. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, MAX_THREADS);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, u32);
    __type(value, struct thread_state);
} threads SEC(".maps");

/* Processes to follow that run already: by their id in bothends' own PID namespace, the program. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, u32);
    __type(value, u32);
} adopted SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, MAX_THREADS);
    __type(key, u64);
    __type(value, struct request);
} requests SEC(".maps");

/* By ring and user_data, the address of the request: a completion that more will follow does not name it. */
struct completion {
    u64 ring;
    u64 user_data;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, MAX_THREADS);
    __type(key, struct completion);
    __type(value, u64);
} submitted SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, RING_BYTES);
} ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct scratch);
} scratches SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct thread_state);
} new_states SEC(".maps");

const volatile struct constants constants;
struct shared shared = {};

static __always_inline u64 now(void)
{
    return bpf_ktime_get_tai_ns(); /* follows the wall clock, leap seconds aside */
}

static __always_inline u32 local_id(struct task_struct *task)
{
    return id_at_level(task, shared.level);
}

static __always_inline struct thread_state *slot_at(u32 number)
{
    number &= MAX_THREADS - 1;
    return bpf_map_lookup_elem(&threads, &number);
}

/* Return the slot of a thread that is not in its first one; with the id 0: a free one. */
static __noinline struct thread_state *find_further(u32 first, u32 id)
{
    for (u32 at = 0; at < PROBES; at++) {
        struct thread_state *state = slot_at(first + at);
        if (state && state->id == id)
            return state;
    }
    return 0;
}

static __always_inline struct thread_state *find_thread(u32 id)
{
    if (!shared.hints[id & (MAX_THREADS - 1)])
        return 0;
    struct thread_state *state = slot_at(id);
    return state && state->id == id ? state : find_further(id, id);
}

static __always_inline int add_thread(u32 id, struct thread_state *state)
{
    struct thread_state *slot = find_further(id, 0);
    if (!slot || __sync_val_compare_and_swap(&slot->id, 0, SLOT_CLAIMED)) {
        slot = find_further(id, 0); /* another processor was faster */
        if (!slot || __sync_val_compare_and_swap(&slot->id, 0, SLOT_CLAIMED)) {
            __sync_fetch_and_add(&shared.lost_threads, 1);
            return -1;
        }
    }
    state->id = SLOT_CLAIMED;
    __builtin_memcpy(slot, state, sizeof *slot);
    __sync_val_compare_and_swap(&slot->id, SLOT_CLAIMED, id); /* and not before what it holds, on any processor */
    __sync_fetch_and_add(&shared.hints[id & (MAX_THREADS - 1)], 1);
    if (state->program < MAX_PROGRAMS)
        __sync_fetch_and_add(&shared.live[state->program], 1);
    return 0;
}

static __always_inline void remove_thread(u32 id)
{
    struct thread_state *state = find_thread(id);
    if (!state)
        return;
    u32 program = state->program;
    if (__sync_val_compare_and_swap(&state->id, id, 0) != id)
        return;
    __sync_fetch_and_add(&shared.hints[id & (MAX_THREADS - 1)], -1);
    if (program < MAX_PROGRAMS)
        __sync_fetch_and_add(&shared.live[program], -1);
}

static __always_inline struct scratch *new_record(struct thread_state *state, u16 type)
{
    u32 zero = 0;
    struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
    if (!scratch)
        return 0;
    struct record *record = &scratch->record;
    record->size = 0;
    record->type = type;
    record->flags = 0;
    record->program = state->program;
    record->process = state->process;
    record->thread = state->thread;
    record->call = state->call;
    record->at = state->at;
    record->result = 0;
    record->label.kind = LABEL_NONE;
    record->lost = shared.lost;
    return scratch;
}

static __always_inline void submit(struct scratch *scratch)
{
    u64 size = scratch->record.size;
    barrier_var(size);
    if (size > PIECE_ROOM + DATA_LIMIT)
        size = PIECE_ROOM + DATA_LIMIT;
    size += sizeof(struct record);
    scratch->record.size = size;
    if (bpf_ringbuf_output(&ring, scratch, size, BPF_RB_NO_WAKEUP))
        __sync_fetch_and_add(&shared.lost, 1);
}

/* Append a piece: its header, and up to DATA_LIMIT bytes of the program's memory. */
static __always_inline void put_user(struct scratch *scratch, u16 type, u64 address, u64 length)
{
    u64 at = scratch->record.size;
    barrier_var(at);
    if (at > PIECE_ROOM || !address)
        return;
    barrier_var(length); /* so that the verifier sees the comparison of the same register */
    if (length > DATA_LIMIT)
        length = DATA_LIMIT;
    struct piece *piece = (struct piece *)&scratch->pieces[at];
    piece->type = type;
    piece->failed = 0;
    if (length && bpf_probe_read_user(&scratch->pieces[at + sizeof(struct piece)], length, (void *)address)) {
        piece->failed = 1;
        length = 0;
    }
    piece->length = length;
    scratch->record.size = at + sizeof(struct piece) + ((length + 7) & ~7ull);
}

static __always_inline void put_kernel(struct scratch *scratch, u16 type, const void *address, u64 length)
{
    u64 at = scratch->record.size;
    barrier_var(at);
    if (at > PIECE_ROOM)
        return;
    barrier_var(length);
    if (length > 512)
        length = 512;
    struct piece *piece = (struct piece *)&scratch->pieces[at];
    piece->type = type;
    piece->failed = 0;
    piece->length = length;
    bpf_probe_read_kernel(&scratch->pieces[at + sizeof(struct piece)], length, address);
    scratch->record.size = at + sizeof(struct piece) + ((length + 7) & ~7ull);
}

static __always_inline void read_socket(struct label *label, struct sock *sock)
{
    struct sock_common *common = &sock->__sk_common;
    label->sock = (u64)sock;
    label->family = common->skc_family;
    label->type = sock->sk_type;
    label->protocol = sock->sk_protocol;
    label->state = common->skc_state;
    label->peer_inode = 0;
    label->local_port = label->peer_port = 0;
    if (label->family == AF_INET) {
        *(u32 *)label->local = common->skc_rcv_saddr;
        *(u32 *)label->peer = common->skc_daddr;
    } else if (label->family == AF_INET6) {
        for (int at = 0; at < 4; at++) {
            ((u32 *)label->local)[at] = common->skc_v6_rcv_saddr.in6_u.u6_addr32[at];
            ((u32 *)label->peer)[at] = common->skc_v6_daddr.in6_u.u6_addr32[at];
        }
    } else {
        if (label->family == AF_UNIX) {
            struct unix_sock *unix_sock = TYPED(sock, struct unix_sock);
            struct sock *peer = unix_sock->peer;
            struct socket *socket = peer ? peer->sk_socket : 0;
            if (socket)
                label->peer_inode = TYPED(socket, struct socket_alloc)->vfs_inode.i_ino;
        }
        return;
    }
    label->local_port = common->skc_num;
    label->peer_port = bpf_ntohs(common->skc_dport);
}

static __always_inline void read_file(struct label *label, struct file *file)
{
    struct inode *inode = file->f_inode;
    u16 mode = inode->i_mode;
    if ((mode & S_IFMT) != S_IFSOCK) {
        u32 device = (mode & S_IFMT) == S_IFCHR ? inode->i_rdev : 0;
        u32 major = device >> 20;
        label->kind = major >= 136 && major <= 143 ? LABEL_TERMINAL : LABEL_FILE; /* /dev/pts: devices.txt */
        if ((mode & S_IFMT) == S_IFIFO)
            label->kind = LABEL_PIPE;
        label->inode = inode->i_ino;
        label->protocol = device & 0xfffff;
        return;
    }
    struct socket *socket = TYPED(file->private_data, struct socket);
    label->kind = LABEL_SOCKET;
    label->inode = inode->i_ino;
    if (socket->sk)
        read_socket(label, socket->sk);
    else
        label->family = 0;
}

/* Fill in what a descriptor of the current task refers to. */
static __always_inline void read_label(struct label *label, struct task_struct *task, u32 descriptor)
{
    struct fdtable *table = task->files->fdt;
    label->kind = LABEL_NONE;
    if (descriptor >= table->max_fds)
        return;
    /* An element of the table is a pointer, as the first field of this structure is. */
    void *address = TYPED(table->fd + descriptor, struct list_head)->next;
    if (!address)
        return;
    read_file(label, TYPED(address, struct file));
}

static __always_inline void put_path(struct scratch *scratch, u16 type, struct sock *sock)
{
    struct unix_address *address = BPF_CORE_READ((struct unix_sock *)sock, addr);
    if (!address)
        return;
    int length = BPF_CORE_READ(address, len);
    if (length > 2 && length <= 110)
        put_kernel(scratch, type, &address->name[0].sun_path, length - 2);
}

static __always_inline void put_new_label(struct scratch *scratch, u32 descriptor)
{
    u64 at = scratch->record.size;
    barrier_var(at);
    if (at > PIECE_ROOM)
        return;
    struct piece *piece = (struct piece *)&scratch->pieces[at];
    piece->type = PIECE_LABEL;
    piece->failed = 0;
    piece->length = sizeof(struct label);
    struct label *label = (struct label *)&scratch->pieces[at + sizeof(struct piece)];
    read_label(label, bpf_get_current_task_btf(), descriptor);
    scratch->record.size = at + sizeof(struct piece) + sizeof(struct label);
    if (label->kind == LABEL_SOCKET && label->family == AF_UNIX)
        put_path(scratch, PIECE_PATH, (struct sock *)label->sock);
}

/* Follow the current thread: a process that was not started by bothends. */
static __always_inline void adopt(u32 id, u32 process, u32 program)
{
    u32 zero = 0;
    struct thread_state *state = bpf_map_lookup_elem(&new_states, &zero);
    if (!state)
        return;
    state->program = program;
    state->process = process;
    state->thread = local_id(bpf_get_current_task_btf());
    state->is_quiet = SPEAKS;
    state->repeats = 0;
    state->call = NO_CALL;
    state->at = now();
    if (add_thread(id, state))
        return;
    struct scratch *scratch = new_record(state, RECORD_ADOPTED);
    if (scratch) {
        scratch->record.until = state->at;
        submit(scratch);
    }
}

/* Look whether the current thread is to be followed, because of its process or of the port that it connects to. */
static __always_inline void look_at(u32 id, u64 *context)
{
    u32 process = local_id(BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), group_leader));
    u32 *program = bpf_map_lookup_elem(&adopted, &process);
    if (program) {
        adopt(id, process, *program);
        return;
    }
    if (!shared.port || context[1] != constants.connect_number)
        return;
    struct {
        u16 family;
        u16 port;
    } address = {};
    struct pt_regs *registers = (struct pt_regs *)context[0];
    bpf_probe_read_user(&address, sizeof address, (void *)ARGUMENT_2(registers));
    if ((address.family == AF_INET || address.family == AF_INET6) && bpf_ntohs(address.port) == shared.port)
        adopt(id, process, shared.port_program);
}

#endif
