/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 * Operations of io_uring: the system calls that they stand for. */
#ifndef BOTHENDS_BPF_URING_H
#define BOTHENDS_BPF_URING_H

#include "pieces.bpf.h"

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

#endif
