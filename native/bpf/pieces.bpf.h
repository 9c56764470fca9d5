/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 * What the arguments of a call refer to: data, addresses, messages, sets, options. */
#ifndef BOTHENDS_BPF_PIECES_H
#define BOTHENDS_BPF_PIECES_H

#include "threads.bpf.h"

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
    case KIND_PIPE:
        if (result == 0) {
            s32 pair[2] = {-1, -1};
            bpf_probe_read_user(pair, sizeof pair, (void *)arguments[0]);
            put_user(scratch, PIECE_OPTION, arguments[0], sizeof pair);
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
        record->limit[0] = result; /* as the program sees it, in its PID namespace */
        record->result = result > 0 && state ? state->child : result;
        break;
    case KIND_FORK:
        record->limit[0] = result;
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

#endif
