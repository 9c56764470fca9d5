/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 * The plaintext that traced processes read and write with OpenSSL's libssl (SSL_read(3), SSL_write(3)), and with
 * GnuTLS (gnutls_record_recv(3), gnutls_record_send(3)).
 *
 * 1. The probes see each call of a library on the machine: a call takes some 11 us longer while they are there, in
 *    any process, because both its start and its return enter the kernel. Only those in `tls_processes` are recorded.
 * 2. A record is written when the function returns, if it has moved data: one that would block has not.
 * 3. SSL_read_ex() calls SSL_read() in some libraries (LibreSSL): the inner call is not recorded. The stack shows
 *    whether a call is an inner one, or the outer one was left with longjmp(3).
 * 4. A child process is traced if its parent is, from its creation on. */
#include "kernel.bpf.h"
#include "tls_records.h"

#if defined(__TARGET_ARCH_x86)
#define USER_ARGUMENT_1(registers) ((registers)->di)
#define USER_ARGUMENT_2(registers) ((registers)->si)
#define USER_ARGUMENT_3(registers) ((registers)->dx)
#define USER_ARGUMENT_4(registers) ((registers)->cx)
#define USER_RESULT(registers) ((registers)->ax)
#else
#define USER_ARGUMENT_1(registers) ((registers)->regs[0])
#define USER_ARGUMENT_2(registers) ((registers)->regs[1])
#define USER_ARGUMENT_3(registers) ((registers)->regs[2])
#define USER_ARGUMENT_4(registers) ((registers)->regs[3])
#define USER_RESULT(registers) ((registers)->regs[0])
#endif

/* A call that has not returned. */
struct tls_call {
    u64 at;
    u64 ssl;
    u64 buffer;
    u64 stack;
    u64 moved; /* of the _ex forms: the address of the number of bytes moved */
    u32 function;
    u32 depth; /* calls inside this one */
};

struct tls_scratch {
    struct tls_record record;
    u8 data[DATA_LIMIT];
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, MAX_TLS_PROCESSES);
    __type(key, u32); /* the id in bothends' PID namespace */
    __type(value, u32);
} tls_processes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, MAX_TLS_PROCESSES);
    __type(key, u32); /* the thread, in the initial PID namespace */
    __type(value, struct tls_call);
} tls_calls SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, TLS_RING_BYTES);
} tls_ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct tls_scratch);
} tls_scratches SEC(".maps");

struct tls_shared tls_shared = {};

static __always_inline u32 own_id(struct task_struct *task)
{
    return id_at_level(task, tls_shared.level);
}

static __always_inline u32 process_of_current(void)
{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    return own_id(BPF_CORE_READ(task, group_leader));
}

static __always_inline int enter(struct pt_regs *registers, u32 function)
{
    u32 thread = bpf_get_current_pid_tgid(), process = process_of_current();
    if (!bpf_map_lookup_elem(&tls_processes, &process))
        return 0;
    struct tls_call *outer = bpf_map_lookup_elem(&tls_calls, &thread);
    if (outer && registers->sp < outer->stack) {
        outer->depth++;
        return 0;
    }
    struct tls_call call = {
        .at = bpf_ktime_get_tai_ns(),
        .ssl = USER_ARGUMENT_1(registers),
        .buffer = USER_ARGUMENT_2(registers),
        .stack = registers->sp,
        .moved = USER_ARGUMENT_4(registers),
        .function = function,
    };
    bpf_map_update_elem(&tls_calls, &thread, &call, BPF_ANY);
    return 0;
}

static __always_inline struct tls_scratch *new_tls_record(u64 at, u64 ssl, u32 function, u64 size)
{
    u32 zero = 0;
    struct tls_scratch *scratch = bpf_map_lookup_elem(&tls_scratches, &zero);
    if (!scratch)
        return 0;
    struct tls_record *record = &scratch->record;
    record->function = function;
    record->process = process_of_current();
    record->thread = own_id((struct task_struct *)bpf_get_current_task());
    record->length = 0;
    record->at = at;
    record->until = bpf_ktime_get_tai_ns();
    record->ssl = ssl;
    record->size = size;
    return scratch;
}

static __always_inline void submit_tls(struct tls_scratch *scratch, u64 length)
{
    barrier_var(length);
    if (length > DATA_LIMIT)
        length = DATA_LIMIT;
    if (bpf_ringbuf_output(&tls_ring, scratch, sizeof(struct tls_record) + length, 0))
        __sync_fetch_and_add(&tls_shared.lost, 1);
}

/* One program for each function, because a program is not told which one it was attached to. */
#define ON_ENTRY(name, function)                                                                                  \
    SEC("uprobe")                                                                                                 \
    int name(struct pt_regs *registers)                                                                           \
    {                                                                                                             \
        return enter(registers, function);                                                                        \
    }

ON_ENTRY(on_tls_read, TLS_READ)
ON_ENTRY(on_tls_read_ex, TLS_READ_EX)
ON_ENTRY(on_tls_write, TLS_WRITE)
ON_ENTRY(on_tls_write_ex, TLS_WRITE_EX)
ON_ENTRY(on_record_recv, TLS_RECORD_RECV)
ON_ENTRY(on_record_send, TLS_RECORD_SEND)

SEC("uprobe")
int on_tls_set_fd(struct pt_regs *registers)
{
    u32 process = process_of_current();
    if (!bpf_map_lookup_elem(&tls_processes, &process))
        return 0;
    struct tls_scratch *scratch = new_tls_record(bpf_ktime_get_tai_ns(), USER_ARGUMENT_1(registers), TLS_SET_FD,
                                                 (u32)USER_ARGUMENT_2(registers));
    if (scratch)
        submit_tls(scratch, 0);
    return 0;
}

SEC("uretprobe")
int on_tls_return(struct pt_regs *registers)
{
    u32 thread = bpf_get_current_pid_tgid();
    struct tls_call *found = bpf_map_lookup_elem(&tls_calls, &thread);
    if (!found)
        return 0;
    if (found->depth) {
        found->depth--;
        return 0;
    }
    struct tls_call call = *found;
    bpf_map_delete_elem(&tls_calls, &thread);
    int result = USER_RESULT(registers);
    u64 size = result;
    if (result <= 0)
        return 0;
    if (call.function == TLS_READ_EX || call.function == TLS_WRITE_EX)
        if (!call.moved || bpf_probe_read_user(&size, sizeof size, (void *)call.moved) || !size)
            return 0;
    struct tls_scratch *scratch = new_tls_record(call.at, call.ssl, call.function, size);
    if (!scratch)
        return 0;
    barrier_var(size);
    if (size > DATA_LIMIT)
        size = DATA_LIMIT;
    if (bpf_probe_read_user(scratch->data, size, (void *)call.buffer))
        size = 0;
    scratch->record.length = size;
    submit_tls(scratch, size);
    return 0;
}

SEC("raw_tp/sched_process_fork")
int on_tls_fork(struct bpf_raw_tracepoint_args *context)
{
    struct task_struct *child = (struct task_struct *)context->args[1];
    u32 parent = process_of_current(), one = 1;
    u32 spawns = tls_shared.spawns && (u32)bpf_get_current_pid_tgid() == tls_shared.own_thread;
    if (!spawns && !bpf_map_lookup_elem(&tls_processes, &parent))
        return 0;
    u32 process = own_id(BPF_CORE_READ(child, group_leader));
    if (process != parent)
        bpf_map_update_elem(&tls_processes, &process, &one, BPF_ANY);
    return 0;
}

SEC("raw_tp/sched_process_exec")
int on_tls_exec(struct bpf_raw_tracepoint_args *context)
{
    u32 process = process_of_current();
    if (!bpf_map_lookup_elem(&tls_processes, &process))
        return 0;
    struct tls_scratch *scratch = new_tls_record(bpf_ktime_get_tai_ns(), 0, TLS_EXEC, 0);
    if (scratch)
        submit_tls(scratch, 0);
    return 0;
}

/* Run by BPF_PROG_TEST_RUN: note the calling thread, whose children are programs. */
SEC("raw_tp/sched_process_hang")
int note_tls_thread(struct bpf_raw_tracepoint_args *context)
{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    struct pid *pid = BPF_CORE_READ(task, thread_pid);
    tls_shared.own_thread = bpf_get_current_pid_tgid();
    tls_shared.level = BPF_CORE_READ(pid, level);
    return 0;
}

char program_license[] SEC("license") = "GPL";
