/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 * System calls, signals and exits of traced programs, as records in a ring buffer.
 *
 * What the kernel does, and what follows:
 * 1. sys_enter and sys_exit see every call of the machine. A thread that is not in `threads` costs one lookup.
 * 2. One record is written when a call ends. The calls that last are in `threads`, where the reader finds them.
 * 3. bpf_probe_read_user() cannot fault pages in: memory that is swapped out is reported as failed.
 * 4. sys_enter and sys_exit are called without preemption, so there is one scratch record for each processor.
 * 5. In programs on tp_btf, a pointer of a known type is followed without a call of a helper function: that halves
 *    the cost of a call. bpf_rdonly_cast() needs Linux 6.2.
 * 6. The struct definitions hold only the fields that are used; libbpf finds their offsets (CO-RE). */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u32 __wsum;

enum bpf_map_type {
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_ARRAY = 2,
    BPF_MAP_TYPE_PERCPU_ARRAY = 6,
    BPF_MAP_TYPE_RINGBUF = 27
};
enum { BPF_ANY = 0, BPF_RB_NO_WAKEUP = 1 };

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "records.h"

#define CORE __attribute__((preserve_access_index))

extern void *bpf_rdonly_cast(void *object, u32 type) __ksym;
/* A pointer whose fields are read directly: the kernel's type is known, so that a bad address reads as 0. */
#define TYPED(pointer, type) ((type *)bpf_rdonly_cast((void *)(pointer), bpf_core_type_id_kernel(type)))

enum { AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10, S_IFMT = 0170000, S_IFSOCK = 0140000, S_IFCHR = 0020000 };

struct bpf_raw_tracepoint_args {
    u64 args[0];
};
struct upid {
    int nr;
} CORE;
struct pid {
    unsigned int level;
    struct upid numbers[1];
} CORE;
struct file;
struct fdtable {
    unsigned int max_fds;
    void **fd;
} CORE;
struct files_struct {
    struct fdtable *fdt;
} CORE;
struct mm_struct {
    unsigned long arg_start;
    unsigned long arg_end;
} CORE;
struct signal_struct {
    int group_exit_code;
} CORE;
struct task_struct {
    int pid;
    int exit_code;
    struct task_struct *group_leader;
    struct pid *thread_pid;
    struct files_struct *files;
    struct mm_struct *mm;
    struct signal_struct *signal;
} CORE;
struct inode {
    u16 i_mode;
    unsigned long i_ino;
    u32 i_rdev;
} CORE;
struct file {
    struct inode *f_inode;
    void *private_data;
} CORE;
struct sock;
struct socket {
    short type;
    struct sock *sk;
} CORE;
struct in6_addr {
    union {
        u32 u6_addr32[4];
    } in6_u;
} CORE;
struct sock_common {
    u32 skc_daddr;
    u32 skc_rcv_saddr;
    u16 skc_dport;
    u16 skc_num;
    u16 skc_family;
    u8 skc_state;
    struct in6_addr skc_v6_daddr;
    struct in6_addr skc_v6_rcv_saddr;
} CORE;
struct sock {
    struct sock_common __sk_common;
    u16 sk_type;
    u16 sk_protocol;
    struct socket *sk_socket;
} CORE;
struct sockaddr_un {
    u16 sun_family;
    char sun_path[108];
} CORE;
struct unix_address {
    int len;
    struct sockaddr_un name[0];
} CORE;
struct unix_sock {
    struct unix_address *addr;
    struct sock *peer;
} CORE;
struct socket_alloc {
    struct socket socket;
    struct inode vfs_inode;
} CORE;
struct sigaction {
    void *sa_handler;
} CORE;
struct k_sigaction {
    struct sigaction sa;
} CORE;
struct kernel_siginfo {
    int si_signo;
    int si_code;
} CORE;
#if defined(__TARGET_ARCH_x86)
/* io_uring: struct io_kiocb begins with the command of the operation. */
struct io_cqe {
    u64 user_data;
    s32 res;
    union {
        u32 flags;
        int fd;
    };
} CORE;
struct io_kiocb {
    struct file *file;
    void *ctx;
    u8 opcode;
    u64 flags;
    struct io_cqe cqe;
} CORE;
struct io_uring_cqe {
    u64 user_data;
    s32 res;
    u32 flags;
} CORE;
struct io_sr_msg {
    void *buf;
    int len;
    unsigned int msg_flags;
} CORE;
struct io_rw {
    u64 addr;
    u32 len;
} CORE;
struct io_accept {
    void *addr;
    int *addr_len;
    int flags;
    u32 file_slot;
} CORE;
struct io_connect {
    void *addr;
    int addr_len;
} CORE;
struct io_close {
    int fd;
} CORE;
struct io_shutdown {
    int how;
} CORE;
struct pt_regs {
    unsigned long r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip;
} CORE;
#else
struct pt_regs {
    u64 regs[31];
    s32 syscallno;
} CORE;
#endif

#if defined(__TARGET_ARCH_x86)
#define ARGUMENT_2(registers) ((registers)->si)
#define CALL_NUMBER(registers) ((registers)->orig_ax)
#else
#define ARGUMENT_2(registers) ((registers)->regs[1])
#define CALL_NUMBER(registers) ((registers)->syscallno)
#endif

struct user_msghdr {
    u64 name;
    u32 name_length;
    u32 padding;
    u64 vectors;
    u64 vector_count;
    u64 control;
    u64 control_length;
    u32 flags;
    u32 padding_2;
};
struct user_mmsghdr {
    struct user_msghdr header;
    u32 length;
    u32 padding;
};
struct user_iovec {
    u64 base;
    u64 length;
};

struct scratch {
    struct record record;
    u8 pieces[PIECE_ROOM + sizeof(struct piece) + DATA_LIMIT + 8];
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, MAX_THREADS);
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
    struct pid *pid = BPF_CORE_READ(task, thread_pid);
    u32 level = shared.level;
    int number = 0;
    if (!pid || level > 32)
        return 0;
    bpf_probe_read_kernel(&number, sizeof number,
                          (void *)pid + bpf_core_field_offset(pid->numbers)
                              + (u64)level * bpf_core_type_size(struct upid)
                              + bpf_core_field_offset(struct upid, nr));
    return number;
}

static __always_inline struct thread_state *find_thread(u32 id)
{
    return shared.hints[id & (HINTS - 1)] ? bpf_map_lookup_elem(&threads, &id) : 0;
}

static __always_inline int add_thread(u32 id, struct thread_state *state)
{
    if (bpf_map_update_elem(&threads, &id, state, BPF_ANY)) {
        __sync_fetch_and_add(&shared.lost_threads, 1);
        return -1;
    }
    __sync_fetch_and_add(&shared.hints[id & (HINTS - 1)], 1);
    if (state->program < MAX_PROGRAMS)
        __sync_fetch_and_add(&shared.live[state->program], 1);
    return 0;
}

static __always_inline void remove_thread(u32 id, u32 program)
{
    if (bpf_map_delete_elem(&threads, &id))
        return;
    __sync_fetch_and_add(&shared.hints[id & (HINTS - 1)], -1);
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

/* Fill in what a descriptor of the current process refers to. */
static __always_inline void read_label(struct label *label, u32 descriptor)
{
    struct task_struct *task = bpf_get_current_task_btf();
    struct fdtable *table = task->files->fdt;
    void *address = 0;
    label->kind = LABEL_NONE;
    if (descriptor >= table->max_fds)
        return;
    bpf_probe_read_kernel(&address, sizeof address, table->fd + descriptor);
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
    read_label(label, descriptor);
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

static __always_inline void read_set(struct thread_state *state, u32 index, u64 address, u64 length)
{
    for (u32 at = 0; at < SET_BYTES / 8; at++)
        ((u64 *)state->sets[index])[at] = 0;
    barrier_var(length);
    if (address && length <= SET_BYTES)
        bpf_probe_read_user(state->sets[index], length, (void *)address);
}

SEC("tp_btf/sys_enter")
int on_enter(u64 *context)
{
    u32 id = bpf_get_current_pid_tgid();
    struct thread_state *state = find_thread(id);
    if (!state) {
        if (!shared.adopts && !(shared.port && context[1] == constants.connect_number))
            return 0;
        look_at(id, context);
        state = find_thread(id);
        if (!state)
            return 0;
    }
    u64 number = context[1];
    state->call = NO_CALL;
    if (state->is_quiet == GUESSED)
        state->is_quiet = SPEAKS;
    if (number >= MAX_CALLS || state->is_quiet)
        return 0;
    u16 flags = constants.call_kinds[number];
    if (!flags)
        return 0;
#if defined(__TARGET_ARCH_x86)
    struct pt_regs *registers = (struct pt_regs *)context[0];
    state->arguments[0] = registers->di;
    state->arguments[1] = registers->si;
    state->arguments[2] = registers->dx;
    state->arguments[3] = registers->r10;
    state->arguments[4] = registers->r8;
    state->arguments[5] = registers->r9;
#else
    struct pt_regs *registers = (struct pt_regs *)context[0];
    for (int at = 0; at < 6; at++)
        state->arguments[at] = registers->regs[at];
#endif
    if (flags & OF_DESCRIPTOR) {
        u32 descriptor = flags & OF_THIRD ? state->arguments[2] : state->arguments[0];
        read_label(&state->label, descriptor);
        u8 kind = state->label.kind;
        if ((flags & NOT_OF_FILES) && descriptor > 2 && (kind == LABEL_FILE || kind == LABEL_TERMINAL))
            return 0;
    } else {
        state->label.kind = LABEL_NONE;
    }
    if (flags & ENTRY_MEMORY) {
        u64 time = 0;
        u32 kind = flags & KIND_MASK;
        if (kind == KIND_SLEEP)
            time = state->arguments[0];
        else if (kind == KIND_CLOCK_SLEEP || kind == KIND_PPOLL)
            time = state->arguments[2];
        else if (kind == KIND_SELECT)
            time = state->arguments[4];
        state->limit[0] = state->limit[1] = ~0ull;
        if (time)
            bpf_probe_read_user(state->limit, sizeof state->limit, (void *)time);
        if (kind == KIND_SELECT) {
            u64 length = (state->arguments[0] + 63) / 64 * 8;
            read_set(state, 0, state->arguments[1], length);
            read_set(state, 1, state->arguments[2], length);
            read_set(state, 2, state->arguments[3], length);
        }
    }
    state->at = now();
    state->call = number;
    return 0;
}

static __always_inline void put_address(struct scratch *scratch, u64 address, u64 length_address,
                                        int has_succeeded)
{
    u32 length = 0;
    if (!address || !length_address || bpf_probe_read_user(&length, sizeof length, (void *)length_address))
        return;
    put_user(scratch, PIECE_LENGTH, length_address, 4);
    if (has_succeeded)
        put_user(scratch, PIECE_ADDRESS, address, length > 128 ? 128 : length);
}

/* Append an array of iovecs and up to `moved` bytes of their buffers. */
static __always_inline void put_vectors(struct scratch *scratch, u64 vectors, u64 count, u64 moved)
{
    if (count > MAX_VECTORS)
        count = MAX_VECTORS;
    put_user(scratch, PIECE_VECTORS, vectors, count * sizeof(struct user_iovec));
    if (moved > DATA_LIMIT)
        moved = DATA_LIMIT;
    for (u32 at = 0; at < MAX_DATA_VECTORS; at++) {
        struct user_iovec vector;
        if (at >= count || !moved)
            break;
        if (bpf_probe_read_user(&vector, sizeof vector, (void *)(vectors + at * sizeof vector)))
            break;
        u64 length = vector.length < moved ? vector.length : moved;
        put_user(scratch, PIECE_DATA, vector.base, length);
        moved -= length;
    }
}

static __always_inline void put_message(struct scratch *scratch, u64 address, u64 moved)
{
    struct user_msghdr header;
    if (bpf_probe_read_user(&header, sizeof header, (void *)address))
        return;
    put_user(scratch, PIECE_HEADER, address, sizeof header);
    if (header.name_length)
        put_user(scratch, PIECE_ADDRESS, header.name, header.name_length > 128 ? 128 : header.name_length);
    put_vectors(scratch, header.vectors, header.vector_count, moved);
    if (header.control_length)
        put_user(scratch, PIECE_CONTROL, header.control,
                 header.control_length > 256 ? 256 : header.control_length);
}

struct messages {
    struct scratch *scratch;
    u64 address;
    u32 count;
    u32 receives;
};

static long put_one_message(u32 at, struct messages *messages)
{
    u32 zero = 0;
    struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
    struct user_mmsghdr message;
    struct user_iovec vector;
    u64 address = messages->address + at * sizeof message;
    if (!scratch || at >= messages->count || bpf_probe_read_user(&message, sizeof message, (void *)address))
        return 1;
    put_user(scratch, PIECE_MESSAGE, address, sizeof message);
    if (message.header.name_length)
        put_user(scratch, PIECE_ADDRESS, message.header.name,
                 message.header.name_length > 128 ? 128 : message.header.name_length);
    put_user(scratch, PIECE_VECTORS, message.header.vectors,
             sizeof vector * (message.header.vector_count > 8 ? 8 : message.header.vector_count));
    if (!bpf_probe_read_user(&vector, sizeof vector, (void *)message.header.vectors)) {
        u64 length = vector.length;
        if (messages->receives && message.length < length)
            length = message.length;
        put_user(scratch, PIECE_DATA, vector.base, length);
    }
    return 0;
}

/* Whether a call repeats one of the last few, without data, so often that it is left out: a loop that waits
 * actively makes a million calls a second, all the same. */
static __always_inline int is_left_out(struct thread_state *state, u32 kind, s64 result)
{
    if (kind == KIND_POLL || kind == KIND_PPOLL || kind == KIND_SELECT || kind == KIND_EPOLL_WAIT) {
        /* They move no data. */
    } else if ((kind >= KIND_READ && kind <= KIND_SENDMMSG) ? result > 0 : result >= 0) {
        state->repeats = 0;
        return 0;
    }
    u64 signature = ((u64)state->call << 48) ^ (state->arguments[0] << 32) ^ (u32)result;
    for (u32 at = 0; at < RECENT; at++)
        if (state->recent[at] == signature) {
            u32 repeats = ++state->repeats;
            return repeats > REPEATS && repeats % SAMPLE;
        }
    state->recent[state->next_recent++ & (RECENT - 1)] = signature;
    state->repeats = 0;
    return 0;
}

/* Append what the arguments of a call refer to. `state` is NULL for an operation of io_uring. */
static __always_inline void put_pieces(struct scratch *scratch, u32 kind, u64 *arguments, s64 result,
                                       struct thread_state *state)
{
    struct record *record = &scratch->record;
    u64 moved = result > 0 ? result : 0;
    switch (kind) {
    case KIND_READ:
        put_user(scratch, PIECE_DATA, arguments[1], moved);
        break;
    case KIND_WRITE:
        put_user(scratch, PIECE_DATA, arguments[1], arguments[2]);
        break;
    case KIND_RECVFROM:
        put_user(scratch, PIECE_DATA, arguments[1], moved);
        put_address(scratch, arguments[4], arguments[5], result >= 0);
        break;
    case KIND_SENDTO:
        put_user(scratch, PIECE_DATA, arguments[1], arguments[2]);
        put_user(scratch, PIECE_ADDRESS, arguments[4], arguments[5] > 128 ? 128 : arguments[5]);
        break;
    case KIND_READV:
        put_vectors(scratch, arguments[1], arguments[2], moved);
        break;
    case KIND_WRITEV:
        put_vectors(scratch, arguments[1], arguments[2], DATA_LIMIT);
        break;
    case KIND_RECVMSG:
        if (result >= 0)
            put_message(scratch, arguments[1], moved);
        break;
    case KIND_SENDMSG:
        put_message(scratch, arguments[1], DATA_LIMIT);
        break;
    case KIND_RECVMMSG:
    case KIND_SENDMMSG: {
        int receives = kind == KIND_RECVMMSG;
        struct messages messages = {scratch, arguments[1], receives ? moved : arguments[2], receives};
        bpf_loop(MAX_MESSAGES, put_one_message, &messages, 0);
        break;
    }
    case KIND_ADDRESS:
        put_user(scratch, PIECE_ADDRESS, arguments[1], arguments[2] > 128 ? 128 : arguments[2]);
        break;
    case KIND_GET_ADDRESS:
        put_address(scratch, arguments[1], arguments[2], result == 0);
        break;
    case KIND_ACCEPT:
        put_address(scratch, arguments[1], arguments[2], result >= 0);
        if (result >= 0)
            put_new_label(scratch, result);
        break;
    case KIND_SOCKET:
        if (result >= 0)
            put_new_label(scratch, result);
        break;
    case KIND_PAIR:
        if (result == 0) {
            s32 pair[2] = {-1, -1};
            bpf_probe_read_user(pair, sizeof pair, (void *)arguments[3]);
            put_user(scratch, PIECE_OPTION, arguments[3], sizeof pair);
            put_new_label(scratch, pair[0]);
            put_new_label(scratch, pair[1]);
        }
        break;
    case KIND_SET_OPTION:
        put_user(scratch, PIECE_OPTION, arguments[3], arguments[4] > 64 ? 64 : arguments[4]);
        break;
    case KIND_GET_OPTION:
        if (result == 0) {
            u32 length = 0;
            bpf_probe_read_user(&length, sizeof length, (void *)arguments[4]);
            put_user(scratch, PIECE_OPTION, arguments[3], length > 64 ? 64 : length);
        }
        break;
    case KIND_POLL:
    case KIND_PPOLL:
        put_user(scratch, PIECE_POLL, arguments[0], arguments[1] > 512 ? 4096 : arguments[1] * 8);
        break;
    case KIND_SELECT: {
        if (!state)
            break;
        u64 length = (arguments[0] + 63) / 64 * 8;
        put_kernel(scratch, PIECE_SETS, state->sets, sizeof state->sets);
        if (result >= 0 && length <= SET_BYTES) {
            put_user(scratch, PIECE_RESULT, arguments[1], arguments[1] ? length : 0);
            put_user(scratch, PIECE_RESULT + 0x100, arguments[2], arguments[2] ? length : 0);
            put_user(scratch, PIECE_RESULT + 0x200, arguments[3], arguments[3] ? length : 0);
        }
        break;
    }
    case KIND_EPOLL_WAIT:
#if defined(__TARGET_ARCH_x86)
        put_user(scratch, PIECE_RESULT, arguments[1], moved > 340 ? 4080 : moved * 12); /* packed */
#else
        put_user(scratch, PIECE_RESULT, arguments[1], moved > 256 ? 4096 : moved * 16);
#endif
        break;
    case KIND_EPOLL_CTL:
        put_user(scratch, PIECE_EVENT, arguments[3], 12);
        break;
    case KIND_IOCTL:
        put_user(scratch, PIECE_OPTION, arguments[2], 4);
        break;
    case KIND_WAIT:
        put_user(scratch, PIECE_OPTION, arguments[1], 4);
        break;
    case KIND_SIGACTION:
        put_user(scratch, PIECE_OPTION, arguments[1], 24);
        break;
    case KIND_CLONE3:
        put_user(scratch, PIECE_OPTION, arguments[0], 64);
        record->result = result > 0 && state ? state->child : result;
        break;
    case KIND_FORK:
        record->result = result > 0 && state ? state->child : result; /* in bothends' PID namespace */
        break;
    case KIND_EXEC:
        if (result == 0) {
            struct task_struct *task = (struct task_struct *)bpf_get_current_task();
            u64 start = BPF_CORE_READ(task, mm, arg_start), end = BPF_CORE_READ(task, mm, arg_end);
            put_user(scratch, PIECE_WORDS, start, end - start > 2048 ? 2048 : end - start);
        }
        break;
    }
}

SEC("tp_btf/sys_exit")
int on_exit(u64 *context)
{
    u32 id = bpf_get_current_pid_tgid();
    struct thread_state *state = find_thread(id);
    if (!state || state->call >= MAX_CALLS)
        return 0;
    s64 result = context[1];
    if (state->is_quiet == GUESSED) {
        struct pt_regs *registers = (struct pt_regs *)context[0];
        state->is_quiet = SPEAKS;
        if ((u32)CALL_NUMBER(registers) != state->call) {
            state->call = NO_CALL;
            return 0;
        }
    }
    if (is_left_out(state, constants.call_kinds[state->call & (MAX_CALLS - 1)] & KIND_MASK, result)) {
        state->call = NO_CALL;
        __sync_fetch_and_add(&shared.repeated, 1);
        return 0;
    }
    struct scratch *scratch = new_record(state, RECORD_CALL);
    if (!scratch)
        return 0;
    struct record *record = &scratch->record;
    u64 *arguments = state->arguments;
    u16 flags = constants.call_kinds[state->call & (MAX_CALLS - 1)];
    record->until = now();
    record->result = result;
    __builtin_memcpy(record->arguments, state->arguments, sizeof record->arguments);
    __builtin_memcpy(record->limit, state->limit, sizeof record->limit);
    __builtin_memcpy(&record->label, &state->label, sizeof record->label);
    put_pieces(scratch, flags & KIND_MASK, arguments, result, state);
    if (record->label.kind == LABEL_SOCKET && record->label.family == AF_UNIX && result >= 0
        && (flags & KIND_MASK) != KIND_PLAIN)
        put_path(scratch, PIECE_PATH + 0x100, (struct sock *)record->label.sock);
    state->call = NO_CALL;
    submit(scratch);
    return 0;
}

SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *context)
{
    struct task_struct *child = (struct task_struct *)context->args[1];
    u32 id = bpf_get_current_pid_tgid(), zero = 0;
    struct thread_state *parent = find_thread(id);
    int spawns = !parent && shared.spawns && id == shared.own_thread;
    if (!parent && !spawns)
        return 0;
    struct thread_state *state = bpf_map_lookup_elem(&new_states, &zero);
    if (!state)
        return 0;
    u32 child_id = BPF_CORE_READ(child, pid);
    state->program = parent ? parent->program : shared.spawned_program;
    state->process = local_id(BPF_CORE_READ(child, group_leader));
    state->thread = local_id(child);
    state->is_quiet = parent ? parent->is_quiet == QUIET : QUIET;
    state->call = NO_CALL;
    state->repeats = 0;
    state->at = now();
    if (parent)
        parent->child = state->thread;
    add_thread(child_id, state);
    return 0;
}

SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *context)
{
    u32 id = bpf_get_current_pid_tgid(), old_id = context->args[1];
    struct thread_state *state = find_thread(old_id);
    if (!state)
        return 0;
    if (old_id != id) { /* a thread that is not the first: it takes over the id of the process, execve(2) */
        u32 zero = 0;
        struct thread_state *copy = bpf_map_lookup_elem(&new_states, &zero);
        if (!copy)
            return 0;
        struct scratch *scratch = new_record(state, RECORD_SUPERSEDED);
        if (scratch) {
            scratch->record.at = scratch->record.until = now();
            submit(scratch);
        }
        __builtin_memcpy(copy, state, sizeof *copy);
        copy->thread = copy->process;
        remove_thread(old_id, copy->program);
        if (add_thread(id, copy))
            return 0;
        state = find_thread(id);
        if (!state)
            return 0;
    }
    if (state->is_quiet == QUIET || state->call == NO_CALL) {
        state->is_quiet = SPEAKS;
        state->at = now();
        state->call = constants.execve_number;
    }
    return 0;
}

SEC("raw_tp/sched_process_exit")
int on_process_exit(struct bpf_raw_tracepoint_args *context)
{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    u32 id = bpf_get_current_pid_tgid();
    struct thread_state *state = find_thread(id);
    if (!state)
        return 0;
    struct scratch *scratch = new_record(state, RECORD_EXIT);
    if (scratch) {
        scratch->record.until = now();
        scratch->record.result = BPF_CORE_READ(task, exit_code);
        scratch->record.flags = state->is_quiet == QUIET;
        __builtin_memcpy(scratch->record.arguments, state->arguments, sizeof state->arguments);
        __builtin_memcpy(&scratch->record.label, &state->label, sizeof state->label);
        submit(scratch);
    }
    remove_thread(id, state->program);
    return 0;
}

SEC("raw_tp/signal_deliver")
int on_signal(struct bpf_raw_tracepoint_args *context)
{
    u32 id = bpf_get_current_pid_tgid();
    struct thread_state *state = find_thread(id);
    if (!state || state->is_quiet == QUIET)
        return 0;
    struct k_sigaction *action = (struct k_sigaction *)context->args[2];
    struct scratch *scratch = new_record(state, RECORD_SIGNAL);
    if (!scratch)
        return 0;
    scratch->record.at = scratch->record.until = now();
    scratch->record.result = (int)context->args[0];
    if (!BPF_CORE_READ(action, sa.sa_handler))
        scratch->record.flags = SIGNAL_STOPS; /* the default action */
    submit(scratch);
    return 0;
}

/* Read the arguments of an operation, as those of the system call that it stands for. */
static __always_inline void read_operation(struct io_kiocb *request, u32 operation, u64 *arguments)
{
    u32 descriptor = BPF_CORE_READ(request, cqe.fd);
    if (BPF_CORE_READ(request, flags) & 1) /* REQ_F_FIXED_FILE */
        descriptor += FIXED_FILE;
    arguments[0] = descriptor;
    arguments[1] = arguments[2] = arguments[3] = arguments[4] = arguments[5] = 0;
    switch (operation) {
    case OPERATION_SEND:
    case OPERATION_RECV: {
        struct io_sr_msg *command = (struct io_sr_msg *)request;
        arguments[1] = (u64)BPF_CORE_READ(command, buf);
        arguments[2] = BPF_CORE_READ(command, len);
        arguments[3] = BPF_CORE_READ(command, msg_flags);
        break;
    }
    case OPERATION_SENDMSG:
    case OPERATION_RECVMSG: {
        struct io_sr_msg *command = (struct io_sr_msg *)request;
        arguments[1] = (u64)BPF_CORE_READ(command, buf);
        arguments[2] = BPF_CORE_READ(command, msg_flags);
        break;
    }
    case OPERATION_READ:
    case OPERATION_WRITE:
        arguments[1] = BPF_CORE_READ((struct io_rw *)request, addr);
        arguments[2] = BPF_CORE_READ((struct io_rw *)request, len);
        break;
    case OPERATION_ACCEPT:
        arguments[1] = (u64)BPF_CORE_READ((struct io_accept *)request, addr);
        arguments[2] = (u64)BPF_CORE_READ((struct io_accept *)request, addr_len);
        arguments[3] = BPF_CORE_READ((struct io_accept *)request, flags);
        arguments[5] = BPF_CORE_READ((struct io_accept *)request, file_slot);
        break;
    case OPERATION_CONNECT:
        arguments[1] = (u64)BPF_CORE_READ((struct io_connect *)request, addr);
        arguments[2] = BPF_CORE_READ((struct io_connect *)request, addr_len);
        break;
    case OPERATION_CLOSE:
        arguments[0] = BPF_CORE_READ((struct io_close *)request, fd);
        break;
    case OPERATION_SHUTDOWN:
        arguments[1] = BPF_CORE_READ((struct io_shutdown *)request, how);
        break;
    }
}

SEC("tp_btf/io_uring_submit_req")
int on_submit(u64 *context)
{
    u64 key = context[0];
    struct io_kiocb *kiocb = (struct io_kiocb *)key;
    struct thread_state *state = find_thread(bpf_get_current_pid_tgid());
    if (!state || state->is_quiet == QUIET)
        return 0;
    u32 operation = BPF_CORE_READ(kiocb, opcode);
    if (operation >= MAX_OPERATIONS || constants.operations[operation] == NO_CALL)
        return 0;
    struct request request = {};
    request.program = state->program;
    request.process = state->process;
    request.thread = state->thread;
    request.call = constants.operations[operation];
    request.at = now();
    read_operation(kiocb, operation, request.arguments);
    struct completion completion = {(u64)BPF_CORE_READ(kiocb, ctx), BPF_CORE_READ(kiocb, cqe.user_data)};
    bpf_map_update_elem(&submitted, &completion, &key, BPF_ANY);
    if (bpf_map_update_elem(&requests, &key, &request, BPF_ANY))
        __sync_fetch_and_add(&shared.lost, 1);
    return 0;
}

SEC("tp_btf/io_uring_complete")
int on_complete(u64 *context)
{
    u64 key = context[1];
    u32 zero = 0, has_more;
    s64 result;
    struct completion completion = {context[0], 0};
    if (constants.complete_has_cqe) {
        struct io_uring_cqe *entry = (struct io_uring_cqe *)context[2];
        completion.user_data = BPF_CORE_READ(entry, user_data);
        result = BPF_CORE_READ(entry, res);
        has_more = BPF_CORE_READ(entry, flags) & 2; /* IORING_CQE_F_MORE */
    } else {
        u64 values[3] = {};
        bpf_probe_read_kernel(values, sizeof values, context + 2);
        completion.user_data = values[0];
        result = (s32)values[1];
        has_more = values[2] & 2;
    }
    if (!key) {
        u64 *submission = bpf_map_lookup_elem(&submitted, &completion);
        if (!submission)
            return 0;
        key = *submission;
    }
    struct request *request = bpf_map_lookup_elem(&requests, &key);
    if (!request)
        return 0;
    struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
    if (!scratch || request->call >= MAX_CALLS)
        return 0;
    struct record *record = &scratch->record;
    u32 flags = constants.call_kinds[request->call & (MAX_CALLS - 1)], kind = flags & KIND_MASK;
    int sends = kind == KIND_WRITE || kind == KIND_SENDTO || kind == KIND_SENDMSG;
    record->size = 0;
    record->type = RECORD_CALL;
    record->flags = OF_URING;
    record->program = request->program;
    record->process = request->process;
    record->thread = request->thread;
    record->call = request->call;
    record->until = now();
    record->at = sends ? request->at : record->until;
    record->lost = shared.lost;
    record->result = result;
    __builtin_memcpy(record->arguments, request->arguments, sizeof record->arguments);
    if (kind == KIND_RECVFROM && !record->arguments[2])
        record->arguments[2] = 65536; /* a provided buffer: its length is not known, and its address neither */
    record->label.kind = LABEL_NONE;
    struct file *file = TYPED(key, struct io_kiocb)->file;
    if (file && kind != KIND_PLAIN)
        read_file(&record->label, file);
    struct task_struct *task = bpf_get_current_task_btf();
    int is_own = local_id(task->group_leader) == request->process; /* the memory is that of the program */
    if ((flags & NOT_OF_FILES) && record->label.kind != LABEL_SOCKET && kind != KIND_PLAIN) {
        /* a file */
    } else {
        if (kind == KIND_ACCEPT && request->arguments[5] && result >= 0)
            record->result = result + FIXED_FILE; /* in the table of io_uring */
        else if (is_own)
            put_pieces(scratch, kind, record->arguments, result, 0);
        submit(scratch);
    }
    if (!has_more) {
        bpf_map_delete_elem(&requests, &key);
        bpf_map_delete_elem(&submitted, &completion);
    }
    return 0;
}

/* Run by BPF_PROG_TEST_RUN: note the calling thread, whose children are programs. */
SEC("raw_tp/sched_process_hang")
int note_own_thread(struct bpf_raw_tracepoint_args *context)
{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    struct pid *pid = BPF_CORE_READ(task, thread_pid);
    shared.own_thread = bpf_get_current_pid_tgid();
    shared.level = BPF_CORE_READ(pid, level);
    return 0;
}

char program_license[] SEC("license") = "GPL";
