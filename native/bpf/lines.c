/* Write records as strace writes them: lines.h. The forms were compared with those of strace 6.1.
 *
 * A line has two parts, as a call that lasts has two lines: what is known when it starts, and the rest. */
#define _GNU_SOURCE 1
#include "lines.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "names.h"
#include "values.h"

/* The arguments of a call */

static void add_start(struct text *text, const struct record *record, u16 flags)
{
    const u64 *arguments = record->arguments;
    int kind = flags & KIND_MASK;
    if ((flags & OF_DESCRIPTOR) && !(flags & OF_THIRD))
        add_descriptor(text, record, arguments[0]);
    switch (kind) {
    case KIND_READ:
    case KIND_RECVFROM:
    case KIND_READV:
    case KIND_RECVMSG:
    case KIND_RECVMMSG:
    case KIND_GET_ADDRESS:
    case KIND_ACCEPT:
        add(text, ", ");
        break;
    case KIND_WRITE:
    case KIND_SENDTO:
        add(text, ", ");
        add_data(text, record, arguments[1], arguments[2]);
        add(text, ", ");
        text_add(text, "%llu", (unsigned long long)arguments[2]);
        if (kind == KIND_SENDTO) {
            add(text, ", ");
            add_flags(text, message_flags, arguments[3], "0");
            add(text, ", ");
            add_address_argument(text, record, arguments[4]);
            text_add(text, ", %u", (u32)arguments[5]);
        }
        break;
    case KIND_WRITEV: {
        struct pieces pieces = pieces_of(record);
        const struct piece *piece = next_piece(&pieces);
        add(text, ", ");
        if (piece && piece->type == PIECE_VECTORS)
            add_vectors(text, &pieces, piece, -1);
        else
            add_pointer(text, arguments[1]);
        text_add(text, ", %u", (u32)arguments[2]);
        break;
    }
    case KIND_SENDMSG:
        add(text, ", ");
        add_message_argument(text, record, arguments[1], -1);
        add(text, ", ");
        add_flags(text, message_flags, arguments[2], "0");
        break;
    case KIND_SENDMMSG:
        add(text, ", ");
        break;
    case KIND_ADDRESS:
        add(text, ", ");
        add_address_argument(text, record, arguments[1]);
        text_add(text, ", %u", (u32)arguments[2]);
        break;
    case KIND_SOCKET:
    case KIND_PAIR:
        add_name(text, families, arguments[0]);
        add(text, ", ");
        add_socket_type(text, arguments[1]);
        add(text, ", ");
        if ((arguments[0] == AF_INET || arguments[0] == AF_INET6) && kind == KIND_SOCKET)
            add_name(text, ip_protocols, arguments[2]);
        else
            add_number(text, (int)arguments[2]);
        add(text, kind == KIND_PAIR ? ", " : "");
        break;
    case KIND_SET_OPTION:
        add_option_names(text, (int)arguments[1], (int)arguments[2]);
        add_option_value(text, record, 0);
        text_add(text, ", %u", (u32)arguments[4]);
        break;
    case KIND_GET_OPTION:
        add_option_names(text, (int)arguments[1], (int)arguments[2]);
        break;
    case KIND_POLL:
    case KIND_PPOLL:
        add_poll(text, record, 0);
        text_add(text, ", %u, ", (u32)arguments[1]);
        if (kind == KIND_PPOLL) {
            add_time(text, record->limit, "nsec");
            add(text, ", NULL, 8");
        } else {
            add_number(text, (int)arguments[2]);
        }
        break;
    case KIND_SELECT: {
        int is_select = record->call != (u32)__NR_pselect6;
        add_select(text, record, is_select ? "usec" : "nsec");
        if (!is_select)
            add(text, ", NULL");
        break;
    }
    case KIND_EPOLL_WAIT:
        add_number(text, (int)arguments[0]);
        add(text, ", ");
        break;
    case KIND_EPOLL_CTL: {
        const struct piece *piece = find(record, PIECE_EVENT);
        add_number(text, (int)arguments[0]);
        add(text, ", ");
        add_name(text, epoll_operations, arguments[1]);
        add(text, ", ");
        add_descriptor(text, record, arguments[2]);
        add(text, ", ");
        if (piece && piece->length >= EVENT_SIZE && arguments[1] != 2)
            add_event_struct(text, bytes_of(piece));
        else
            add_pointer(text, arguments[3]);
        break;
    }
    case KIND_SLEEP:
        add_time(text, record->limit, "nsec");
        add(text, ", ");
        break;
    case KIND_CLOCK_SLEEP:
        add_name(text, clocks, arguments[0]);
        add(text, arguments[1] & 1 ? ", TIMER_ABSTIME, " : ", 0, ");
        add_time(text, record->limit, "nsec");
        add(text, ", ");
        break;
    case KIND_FCNTL:
        add_fcntl(text, record);
        break;
    case KIND_WAIT:
        if (record->call == (u32)__NR_waitid) {
            add_name(text, wait_kinds, arguments[0]);
            text_add(text, ", %d, ", (int)arguments[1]);
        } else {
            text_add(text, "%d, ", (int)arguments[0]);
        }
        break;
    case KIND_SIGACTION:
        add_sigaction(text, record);
        add(text, ", ");
        break;
    case KIND_FORK:
    case KIND_CLONE3:
        if (!strcmp(call_name(record->call), "clone") || kind == KIND_CLONE3)
            add_clone(text, record, kind == KIND_CLONE3);
        break;
    case KIND_EXEC:
        add_words(text, record);
        break;
    case KIND_PLAIN: {
        const char *name = call_name(record->call);
        if (!strcmp(name, "listen") || !strcmp(name, "dup2"))
            text_add(text, ", %d", (int)arguments[1]);
        else if (!strcmp(name, "dup3"))
            text_add(text, ", %d, %s", (int)arguments[1], arguments[2] ? "O_CLOEXEC" : "0");
        else if (!strcmp(name, "shutdown")) {
            add(text, ", ");
            add_name(text, shutdown_ways, arguments[1]);
        } else if (!strcmp(name, "close_range"))
            text_add(text, "%u, %u, %s", (u32)arguments[0], (u32)arguments[1],
                     arguments[2] & 4 ? "CLOSE_RANGE_CLOEXEC" : "0");
        else if (!strcmp(name, "epoll_create1"))
            add(text, arguments[0] ? "EPOLL_CLOEXEC" : "0");
        else if (!strcmp(name, "epoll_create") || !strcmp(name, "io_uring_setup"))
            text_add(text, "%d", (int)arguments[0]);
        else if (!strcmp(name, "sendfile")) {
            text_add(text, ", %d, ", (int)arguments[1]);
            add_pointer(text, arguments[2]);
            text_add(text, ", %llu", (unsigned long long)arguments[3]);
        } else if (!strcmp(name, "splice")) {
            text_add(text, "%d, ", (int)arguments[0]);
            add_pointer(text, arguments[1]);
            add(text, ", ");
            add_descriptor(text, record, arguments[2]);
            add(text, ", ");
            add_pointer(text, arguments[3]);
            text_add(text, ", %llu, ", (unsigned long long)arguments[4]);
            add_flags(text, splice_flags, arguments[5], "0");
        } else if (!strcmp(name, "restart_syscall"))
            add(text, "<... resuming interrupted call ...>");
        break;
    }
    }
}

static void add_rest(struct text *text, const struct record *record, u16 flags)
{
    const u64 *arguments = record->arguments;
    switch (flags & KIND_MASK) {
    case KIND_READ:
        add_data(text, record, arguments[1], record->result > 0 ? record->result : record->result ? 1 : 0);
        text_add(text, ", %llu", (unsigned long long)arguments[2]);
        break;
    case KIND_RECVFROM:
        add_data(text, record, arguments[1], record->result > 0 ? record->result : record->result ? 1 : 0);
        text_add(text, ", %llu, ", (unsigned long long)arguments[2]);
        add_flags(text, message_flags, arguments[3], "0");
        add(text, ", ");
        add_address_argument(text, record, arguments[4]);
        add(text, ", ");
        add_length_argument(text, record, arguments[5]);
        break;
    case KIND_READV: {
        struct pieces pieces = pieces_of(record);
        const struct piece *piece = next_piece(&pieces);
        if (piece && piece->type == PIECE_VECTORS && !piece->failed)
            add_vectors(text, &pieces, piece, record->result);
        else
            add_pointer(text, arguments[1]);
        text_add(text, ", %u", (u32)arguments[2]);
        break;
    }
    case KIND_RECVMSG:
        add_message_argument(text, record, arguments[1], record->result > 0 ? record->result : 0);
        add(text, ", ");
        add_flags(text, message_flags, arguments[2], "0");
        break;
    case KIND_RECVMMSG:
    case KIND_SENDMMSG:
        add_messages(text, record, arguments[1], (flags & KIND_MASK) == KIND_RECVMMSG);
        text_add(text, ", %u, ", (u32)arguments[2]);
        add_flags(text, message_flags, arguments[3], "0");
        if ((flags & KIND_MASK) == KIND_RECVMMSG)
            add(text, ", NULL");
        break;
    case KIND_GET_ADDRESS:
    case KIND_ACCEPT:
        add_address_argument(text, record, arguments[1]);
        add(text, ", ");
        add_length_argument(text, record, arguments[2]);
        if (!strcmp(call_name(record->call), "accept4")) {
            add(text, ", ");
            add_flags(text, socket_flags, arguments[3], "0");
        }
        break;
    case KIND_PAIR:
    case KIND_PIPE: {
        struct pieces pieces = pieces_of(record);
        const struct piece *pair = next_piece(&pieces), *piece;
        if (!pair || pair->type != PIECE_OPTION || pair->length < 8) {
            add_pointer(text, arguments[(flags & KIND_MASK) == KIND_PAIR ? 3 : 0]);
            break;
        }
        const s32 *numbers = bytes_of(pair);
        add(text, "[");
        for (int at = 0; at < 2; at++) {
            do
                piece = next_piece(&pieces);
            while (piece && piece->type != PIECE_LABEL);
            text_add(text, "%s%d", at ? ", " : "", numbers[at]);
            if (piece)
                add_label(text, bytes_of(piece), NULL);
        }
        add(text, "]");
        if ((flags & KIND_MASK) == KIND_PIPE && !strcmp(call_name(record->call), "pipe2")) {
            add(text, ", ");
            add_flags(text, open_flags, arguments[1], "0");
        }
        break;
    }
    case KIND_GET_OPTION:
        add_option_value(text, record, 1);
        add(text, ", ");
        if (find(record, PIECE_OPTION))
            text_add(text, "[%u]", find(record, PIECE_OPTION)->length);
        else
            add_pointer(text, arguments[4]);
        break;
    case KIND_EPOLL_WAIT:
        add_events(text, record);
        text_add(text, ", %d, ", (int)arguments[2]);
        if (!strcmp(call_name(record->call), "epoll_pwait2"))
            add_pointer(text, arguments[3]);
        else
            add_number(text, (int)arguments[3]);
        if (strcmp(call_name(record->call), "epoll_wait"))
            add(text, ", NULL, 8");
        break;
    case KIND_SLEEP:
        add_pointer(text, arguments[1]);
        break;
    case KIND_CLOCK_SLEEP:
        add_pointer(text, arguments[3]);
        break;
    case KIND_IOCTL:
        add_ioctl(text, record);
        break;
    case KIND_WAIT:
        if (record->call == (u32)__NR_waitid) {
            add_pointer(text, arguments[2]);
            add(text, ", ");
            add_flags(text, wait_options, arguments[3], "0");
        } else {
            add_wait_status(text, record);
            add(text, ", ");
            add_flags(text, wait_options, arguments[2], "0");
        }
        add(text, ", NULL");
        break;
    case KIND_SIGACTION:
        add_pointer(text, arguments[2]);
        add(text, ", 8");
        break;
    }
}

/* What follows a result in parentheses. */
static void add_result_text(struct text *text, const struct record *record, u16 flags)
{
    switch (flags & KIND_MASK) {
    case KIND_POLL:
    case KIND_PPOLL:
        if (record->result > 0) {
            add(text, " (");
            add_poll(text, record, 1);
            add(text, ")");
        } else {
            add(text, " (Timeout)");
        }
        break;
    case KIND_SELECT:
        if (record->result > 0)
            add_select_result(text, record);
        else
            add(text, " (Timeout)");
        break;
    case KIND_FCNTL:
        if (record->arguments[1] == 3) {
            add(text, " (flags ");
            add(text, record->result & 3 ? "" : "O_RDONLY|");
            add_flags(text, open_flags, record->result & ~0100000ll, "0");
            add(text, ")");
        }
        break;
    }
}

static void add_prefix(struct text *text, const struct record *record, u64 at, s64 offset)
{
    u64 time = at - offset;
    text_add(text, "%u %llu.%09llu ", record->thread, (unsigned long long)(time / 1000000000),
             (unsigned long long)(time % 1000000000));
}

static int is_duplicate(const struct record *record)
{
    const char *name = call_name(record->call);
    u64 command = record->arguments[1];
    return !strncmp(name, "dup", 3)
           || (!strcmp(name, "fcntl") && (command == F_DUPFD || command == F_DUPFD_CLOEXEC));
}

static void add_outcome(struct text *text, const struct record *record, u16 flags)
{
    s64 result = record->result;
    if (result < 0 && result >= -4095) {
        const char *name = errno_name(-result);
        text_add(text, ") = %s %s (%s)", result <= -512 ? "?" : "-1", name ? name : "EUNKNOWN",
                 result <= -512 ? "To be restarted" : strerror(-result));
    } else {
        const struct piece *label = find(record, PIECE_LABEL);
        if ((flags & KIND_MASK) == KIND_FCNTL && record->arguments[1] == 3)
            text_add(text, ") = %#llx", (unsigned long long)result);
        else {
            add(text, ") = ");
            int is_fork = (flags & KIND_MASK) == KIND_FORK || (flags & KIND_MASK) == KIND_CLONE3;
            add_number(text, is_fork ? (s64)record->limit[0] : result);
            if (is_fork && result > 0 && (s64)record->limit[0] != result) /* as strace --pidns-translation */
                text_add(text, " /* %lld in strace's PID NS */", (long long)result);
        }
        if (label && (flags & KIND_MASK) != KIND_PAIR && (flags & KIND_MASK) != KIND_PIPE)
            add_label(text, bytes_of(label), find(record, PIECE_PATH));
        else if (is_duplicate(record))
            add_label(text, &record->label, find(record, PIECE_PATH + 0x100));
        add_result_text(text, record, flags);
    }
    u64 duration = record->until > record->at ? record->until - record->at : 0;
    text_add(text, " <%llu.%09llu>\n", (unsigned long long)(duration / 1000000000),
             (unsigned long long)(duration % 1000000000));
}

void add_call(struct text *text, const struct record *record, int parts, s64 offset)
{
    const char *name = call_name(record->call);
    u16 flags = call_flags(record->call);
    if (parts & AT_START) {
        add_prefix(text, record, record->at, offset);
        add(text, name);
        add(text, "(");
        add_start(text, record, flags);
        if (parts == AT_START) {
            add(text, " <unfinished ...>\n");
            return;
        }
    } else {
        add_prefix(text, record, record->until, offset);
        text_add(text, "<... %s resumed>", name);
    }
    add_rest(text, record, flags);
    add_outcome(text, record, flags);
}

void add_event(struct text *text, const struct record *record, s64 offset)
{
    int code = (int)record->result;
    const char *name;
    add_prefix(text, record, record->until, offset);
    switch (record->type) {
    case RECORD_SIGNAL:
        name = signal_name(code);
        if (name)
            text_add(text, "--- %s {si_signo=%s} ---\n", name, name);
        else
            text_add(text, "--- SIGRT_%d {si_signo=SIGRT_%d} ---\n", code - 32, code - 32);
        if (record->flags & SIGNAL_STOPS
            && (code == SIGSTOP || code == SIGTSTP || code == SIGTTIN || code == SIGTTOU)) {
            add_prefix(text, record, record->until, offset);
            text_add(text, "--- stopped by %s ---\n", name);
        }
        break;
    case RECORD_LOST:
        text_add(text, "+++ %lld calls lost +++\n", (long long)record->result);
        break;
    case RECORD_SUPERSEDED:
        text_add(text, "+++ superseded by execve in pid %u +++\n", record->process);
        break;
    default:
        name = signal_name(code & 0x7f);
        if (code & 0x7f)
            text_add(text, "+++ killed by %s +++\n", name ? name : "SIGRT");
        else
            text_add(text, "+++ exited with %d +++\n", code >> 8 & 0xff);
    }
}
