/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 * System calls, signals and exits of traced programs, as records in a ring buffer.
 *
 * How they do it:
 * 1. sys_enter and sys_exit see every call of the machine. A thread that is not in `threads` costs one lookup.
 * 2. One record is written when a call ends. The calls that last are in `threads`, where the reader finds them.
 * 3. bpf_probe_read_user() cannot fault pages in: memory that is swapped out is reported as failed.
 * 4. sys_enter and sys_exit are called without preemption, so there is one scratch record for each processor.
 * 5. In programs on tp_btf, a pointer of a known type is followed without a call of a helper function, which is
 *    cheaper. bpf_rdonly_cast() needs Linux 6.2.
 * 6. The struct definitions hold only the fields that are used; libbpf finds their offsets (CO-RE). */
#include "pieces.bpf.h"
#include "uring.bpf.h"

static __always_inline void read_set(struct thread_state *state, u32 index, u64 address, u64 length)
{
    for (u32 at = 0; at < SET_BYTES / 8; at++)
        ((u64 *)state->sets[index])[at] = 0;
    barrier_var(length);
    if (address && length <= SET_BYTES)
        bpf_probe_read_user(state->sets[index], length, (void *)address);
}

/* Whether the current call is one of the 32-bit ABI, whose numbers and structures differ. */
static __always_inline int is_32_bit(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
    return task->thread_info.status & 2; /* TS_COMPAT */
#else
    return task->thread_info.flags >> 22 & 1; /* TIF_32BIT */
#endif
}

SEC("tp_btf/sys_enter")
int on_enter(u64 *context)
{
    struct task_struct *task = bpf_get_current_task_btf();
    u32 id = task->pid;
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
    if (number >= MAX_CALLS || state->is_quiet || is_32_bit(task))
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
        read_label(&state->label, task, descriptor);
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

/* Whether the data of a receive stays where it is. */
static __always_inline int peeks(struct thread_state *state, u32 kind)
{
    return (kind == KIND_RECVFROM && state->arguments[3] & PEEK)
           || (kind == KIND_RECVMSG && state->arguments[2] & PEEK);
}

/* Whether a call repeats one of the last few, without data, so often that it is left out: a loop that waits
 * actively makes a million calls a second, all the same. */
static __always_inline int is_left_out(struct thread_state *state, u32 kind, s64 result)
{
    if (kind == KIND_POLL || kind == KIND_PPOLL || kind == KIND_SELECT || kind == KIND_EPOLL_WAIT
        || peeks(state, kind)) {
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

SEC("tp_btf/sys_exit")
int on_exit(u64 *context)
{
    u32 id = bpf_get_current_task_btf()->pid;
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
        remove_thread(old_id);
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
    remove_thread(id);
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
    int number = (int)context->args[0];
    if (number == SIGKILL) {
        /* A signal that ends a process is delivered to its threads as SIGKILL: the exit code names it. */
        struct task_struct *task = (struct task_struct *)bpf_get_current_task();
        number = BPF_CORE_READ(task, signal, group_exit_code) & 0x7f;
        if (!number || number == SIGKILL || state->thread != state->process)
            return 0;
    }
    struct scratch *scratch = new_record(state, RECORD_SIGNAL);
    if (!scratch)
        return 0;
    scratch->record.at = scratch->record.until = now();
    scratch->record.result = number;
    if (!BPF_CORE_READ(action, sa.sa_handler))
        scratch->record.flags = SIGNAL_STOPS; /* the default action */
    submit(scratch);
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
