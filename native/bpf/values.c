/* Values among the arguments of a call, as strace writes them: values.h. */
#define _GNU_SOURCE 1
#include "values.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "names.h"

/* Pieces */

struct pieces pieces_of(const struct record *record)
{
    return (struct pieces){(const u8 *)(record + 1), (const u8 *)record + record->size};
}

const struct piece *next_piece(struct pieces *pieces)
{
    const struct piece *piece = (const struct piece *)pieces->at;
    if (pieces->end - pieces->at < (long)sizeof *piece)
        return NULL;
    size_t size = sizeof *piece + ((piece->length + 7) & ~7u);
    if ((size_t)(pieces->end - pieces->at) < size)
        return NULL;
    pieces->at += size;
    return piece;
}

const struct piece *find(const struct record *record, u16 type)
{
    struct pieces pieces = pieces_of(record);
    const struct piece *piece;
    while ((piece = next_piece(&pieces)))
        if (piece->type == type)
            return piece->failed ? NULL : piece;
    return NULL;
}

const void *bytes_of(const struct piece *piece)
{
    return piece + 1;
}

/* Labels and addresses */

static void add_ip(struct text *text, int family, const void *address)
{
    char name[INET6_ADDRSTRLEN] = "";
    inet_ntop(family, address, name, sizeof name);
    add(text, name);
}

static void add_ip_hex(struct text *text, int family, const void *address)
{
    char name[INET6_ADDRSTRLEN] = "";
    inet_ntop(family, address, name, sizeof name);
    add_string(text, name, strlen(name), 0);
}

static void add_end(struct text *text, const struct label *label, const u8 *address, unsigned port)
{
    add(text, label->family == AF_INET6 ? "[" : "");
    add_ip(text, label->family, address);
    add(text, label->family == AF_INET6 ? "]:" : ":");
    add_number(text, port);
}

void add_label(struct text *text, const struct label *label, const struct piece *path)
{
    enum { TCP_CLOSE = 7, TCP_LISTEN = 10 };
    if (label->kind == LABEL_TERMINAL) {
        char name[32];
        int length = snprintf(name, sizeof name, "/dev/pts/%u", label->protocol);
        add(text, "<");
        add_hex(text, name, length);
        add(text, ">");
    }
    if (label->kind == LABEL_PIPE) {
        char name[40];
        int length = snprintf(name, sizeof name, "pipe:[%llu]", (unsigned long long)label->inode);
        add(text, "<");
        add_hex(text, name, length);
        add(text, ">");
    }
    if (label->kind != LABEL_SOCKET)
        return;
    unsigned long long inode = label->inode;
    if (label->family == AF_UNIX) {
        const char *kind = label->type == SOCK_STREAM  ? "STREAM"
                           : label->type == SOCK_DGRAM ? "DGRAM"
                                                       : "SEQPACKET";
        text_add(text, "<UNIX-%s:[%llu", kind, inode);
        if (label->peer_inode)
            text_add(text, "->%llu", (unsigned long long)label->peer_inode);
        if (path && path->length) {
            const char *name = bytes_of(path);
            int is_abstract = !*name;
            size_t length = is_abstract ? path->length - 1 : strnlen(name, path->length);
            add(text, is_abstract ? ",@" : ",");
            add_string(text, name + is_abstract, length, 0);
        }
        add(text, "]>");
    } else if ((label->family == AF_INET || label->family == AF_INET6)
               && (label->type == SOCK_STREAM || label->type == SOCK_DGRAM)) {
        int is_stream = label->type == SOCK_STREAM;
        text_add(text, "<%s%s:[", is_stream ? "TCP" : "UDP", label->family == AF_INET6 ? "v6" : "");
        int has_peer = label->peer_port && label->state != TCP_CLOSE && label->state != TCP_LISTEN;
        if (!label->local_port || (is_stream && label->state == TCP_CLOSE && label->peer_port)) {
            text_add(text, "%llu", inode);
        } else {
            add_end(text, label, label->local, label->local_port);
            if (has_peer) {
                add(text, "->");
                add_end(text, label, label->peer, label->peer_port);
            }
        }
        add(text, "]>");
    } else if (label->family == AF_NETLINK) {
        text_add(text, "<NETLINK:[%llu]>", inode);
    } else {
        char name[40];
        int length = snprintf(name, sizeof name, "socket:[%llu]", inode);
        add(text, "<");
        add_hex(text, name, length);
        add(text, ">");
    }
}

static void add_address(struct text *text, const void *address, size_t length)
{
    struct sockaddr_storage storage = {0};
    memcpy(&storage, address, length < sizeof storage ? length : sizeof storage);
    if (length < sizeof(sa_family_t)) {
        add(text, "{}");
    } else if (storage.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&storage;
        text_add(text, "{sa_family=AF_INET, sin_port=htons(%u), sin_addr=inet_addr(", ntohs(in->sin_port));
        add_ip_hex(text, AF_INET, &in->sin_addr);
        add(text, ")}");
    } else if (storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&storage;
        text_add(text, "{sa_family=AF_INET6, sin6_port=htons(%u), sin6_flowinfo=htonl(%u), inet_pton(AF_INET6, ",
                 ntohs(in->sin6_port), ntohl(in->sin6_flowinfo));
        add_ip_hex(text, AF_INET6, &in->sin6_addr);
        text_add(text, ", &sin6_addr), sin6_scope_id=%u}", in->sin6_scope_id);
    } else if (storage.ss_family == AF_UNIX) {
        const char *path = (const char *)&storage + sizeof(sa_family_t);
        size_t size = length - sizeof(sa_family_t);
        add(text, "{sa_family=AF_UNIX");
        if (size) {
            int is_abstract = !*path;
            add(text, is_abstract ? ", sun_path=@" : ", sun_path=");
            add_string(text, path + is_abstract, is_abstract ? size - 1 : strnlen(path, size), 0);
        }
        add(text, "}");
    } else {
        add(text, "{sa_family=");
        add_name(text, families, storage.ss_family);
        add(text, ", sa_data=");
        add_string(text, (const char *)&storage + sizeof(sa_family_t), length - sizeof(sa_family_t), 0);
        add(text, "}");
    }
}

void add_descriptor(struct text *text, const struct record *record, u64 number)
{
    add_number(text, (int)number);
    add_label(text, &record->label, find(record, PIECE_PATH + 0x100));
}

/* The address piece of a call, or the pointer. */
void add_address_argument(struct text *text, const struct record *record, u64 pointer)
{
    const struct piece *piece = find(record, PIECE_ADDRESS);
    if (piece && pointer)
        add_address(text, bytes_of(piece), piece->length);
    else
        add_pointer(text, pointer);
}

void add_length_argument(struct text *text, const struct record *record, u64 pointer)
{
    const struct piece *piece = find(record, PIECE_LENGTH);
    if (piece && pointer)
        text_add(text, "[%u]", *(const u32 *)bytes_of(piece));
    else
        add_pointer(text, pointer);
}

void add_data(struct text *text, const struct record *record, u64 pointer, u64 size)
{
    const struct piece *piece = find(record, PIECE_DATA);
    if (piece)
        add_string(text, bytes_of(piece), piece->length, size > piece->length);
    else if (pointer && !size)
        add(text, "\"\"");
    else
        add_pointer(text, pointer);
}

/* Vectors and messages */

struct vector {
    u64 base, length;
};

/* `[{iov_base="...", iov_len=3}]`, from a PIECE_VECTORS and the PIECE_DATA that follow it. `received` are the
 * bytes that a call received, -1 for one that sends. */
void add_vectors(struct text *text, struct pieces *pieces, const struct piece *vectors, s64 received)
{
    const struct vector *vector = bytes_of(vectors);
    add(text, "[");
    for (size_t at = 0; at < vectors->length / sizeof *vector; at++) {
        struct pieces rest = *pieces;
        const struct piece *data = next_piece(&rest);
        text_add(text, at ? ", {iov_base=" : "{iov_base=");
        if (data && data->type == PIECE_DATA && !data->failed) {
            *pieces = rest;
            add_string(text, bytes_of(data), data->length,
                       received >= 0 ? received > DATA_LIMIT && data->length < vector[at].length
                                     : data->length < vector[at].length);
        } else {
            if (data && data->type == PIECE_DATA)
                *pieces = rest;
            add_pointer(text, vector[at].base);
        }
        text_add(text, ", iov_len=%llu}", (unsigned long long)vector[at].length);
    }
    add(text, "]");
}

static void add_control(struct text *text, const struct piece *piece)
{
    struct control {
        u64 length;
        s32 level, type;
    } control;
    const u8 *bytes = bytes_of(piece);
    add(text, "[");
    for (size_t at = 0; at + sizeof control <= piece->length;) {
        memcpy(&control, bytes + at, sizeof control);
        if (control.length < sizeof control || control.length > piece->length - at)
            break;
        text_add(text, "%s{cmsg_len=%llu, cmsg_level=", at ? ", " : "", (unsigned long long)control.length);
        add_name(text, levels, control.level);
        if (control.level == SOL_SOCKET && control.type == SCM_RIGHTS) {
            add(text, ", cmsg_type=SCM_RIGHTS, cmsg_data=[");
            for (size_t each = sizeof control; each + 4 <= control.length; each += 4) {
                s32 number;
                memcpy(&number, bytes + at + each, sizeof number);
                text_add(text, "%s%d", each > sizeof control ? ", " : "", number);
            }
            add(text, "]}");
        } else {
            text_add(text, ", cmsg_type=%#x}", control.type);
        }
        at += (control.length + 7) & ~7ull;
    }
    add(text, "]");
}

struct header {
    u64 name;
    u32 name_length, padding;
    u64 vectors, vector_count, control, control_length;
    u32 flags, padding_2;
};

/* `{msg_name=..., msg_iov=[...], msg_iovlen=1, ..., msg_flags=0}`: a header, and the pieces that follow it. */
static void add_message(struct text *text, struct pieces *pieces, const struct header *header, s64 received)
{
    struct pieces rest = *pieces;
    const struct piece *piece = next_piece(&rest);
    add(text, "{msg_name=");
    if (piece && piece->type == PIECE_ADDRESS) {
        add_address(text, bytes_of(piece), piece->length);
        *pieces = rest;
        piece = next_piece(&rest);
    } else {
        add_pointer(text, header->name);
    }
    text_add(text, ", msg_namelen=%u, msg_iov=", header->name_length);
    if (piece && piece->type == PIECE_VECTORS) {
        *pieces = rest;
        add_vectors(text, pieces, piece, received);
        rest = *pieces;
        piece = next_piece(&rest);
    } else {
        add_pointer(text, header->vectors);
    }
    text_add(text, ", msg_iovlen=%llu", (unsigned long long)header->vector_count);
    if (piece && piece->type == PIECE_CONTROL) {
        add(text, ", msg_control=");
        add_control(text, piece);
        *pieces = rest;
    }
    text_add(text, ", msg_controllen=%llu, msg_flags=", (unsigned long long)header->control_length);
    add_flags(text, message_flags, header->flags, "0");
    add(text, "}");
}

void add_message_argument(struct text *text, const struct record *record, u64 pointer, s64 received)
{
    struct pieces pieces = pieces_of(record);
    const struct piece *piece = next_piece(&pieces);
    if (piece && piece->type == PIECE_HEADER && !piece->failed)
        add_message(text, &pieces, bytes_of(piece), received);
    else
        add_pointer(text, pointer);
}

void add_messages(struct text *text, const struct record *record, u64 pointer, int is_receive)
{
    struct pieces pieces = pieces_of(record);
    const struct piece *piece = next_piece(&pieces);
    if (!piece || piece->type != PIECE_MESSAGE) {
        add_pointer(text, pointer);
        return;
    }
    add(text, "[");
    for (int at = 0; piece; at++) {
        struct message {
            struct header header;
            u32 length, padding;
        };
        const struct message *message = bytes_of(piece);
        add(text, at ? ", {msg_hdr=" : "{msg_hdr=");
        add_message(text, &pieces, &message->header, is_receive ? (s64)message->length : -1);
        text_add(text, ", msg_len=%u}", message->length);
        do
            piece = next_piece(&pieces);
        while (piece && piece->type != PIECE_MESSAGE);
    }
    add(text, "]");
}

/* Waiting */

struct poll_entry {
    s32 descriptor;
    u16 events, returned;
};

void add_poll(struct text *text, const struct record *record, int is_result)
{
    const struct piece *piece = find(record, PIECE_POLL);
    if (!piece) {
        add_pointer(text, record->arguments[0]);
        return;
    }
    const struct poll_entry *entries = bytes_of(piece);
    int is_first = 1;
    add(text, "[");
    for (size_t at = 0; at < piece->length / sizeof *entries; at++) {
        if (is_result && !entries[at].returned)
            continue;
        text_add(text, "%s{fd=%d, %s=", is_first ? "" : ", ", entries[at].descriptor,
                 is_result ? "revents" : "events");
        add_flags(text, poll_events, is_result ? entries[at].returned : entries[at].events, "0");
        add(text, "}");
        is_first = 0;
    }
    add(text, "]");
}

static void add_set(struct text *text, const u8 *set, size_t length, int limit)
{
    int is_first = 1;
    add(text, "[");
    for (int number = 0; number < limit && number < (int)length * 8; number++)
        if (set[number / 8] >> number % 8 & 1) {
            add(text, is_first ? "" : " ");
            add_number(text, number);
            is_first = 0;
        }
    add(text, "]");
}

static int is_empty(const u8 *set, size_t length)
{
    for (size_t at = 0; at < length; at++)
        if (set[at])
            return 0;
    return 1;
}

void add_time(struct text *text, const u64 *limit, const char *unit)
{
    if (limit[0] == ~0ull && limit[1] == ~0ull)
        add(text, "NULL");
    else
        text_add(text, "{tv_sec=%lld, tv_%s=%lld}", (long long)limit[0], unit, (long long)limit[1]);
}

void add_select(struct text *text, const struct record *record, const char *unit)
{
    const struct piece *piece = find(record, PIECE_SETS);
    add_number(text, (int)record->arguments[0]);
    for (int at = 0; at < 3; at++) {
        add(text, ", ");
        if (!record->arguments[at + 1] || !piece)
            add_pointer(text, record->arguments[at + 1]);
        else
            add_set(text, (const u8 *)bytes_of(piece) + at * SET_BYTES, SET_BYTES, record->arguments[0]);
    }
    add(text, ", ");
    add_time(text, record->limit, unit);
}

void add_select_result(struct text *text, const struct record *record)
{
    static const char *const names[] = {"in", "out", "except"};
    int is_first = 1;
    add(text, " (");
    for (int at = 0; at < 3; at++) {
        const struct piece *piece = find(record, PIECE_RESULT + 0x100 * at);
        if (!piece || is_empty(bytes_of(piece), piece->length))
            continue;
        text_add(text, "%s%s ", is_first ? "" : ", ", names[at]);
        add_set(text, bytes_of(piece), piece->length, record->arguments[0]);
        is_first = 0;
    }
    add(text, ")");
}

void add_event_struct(struct text *text, const u8 *event)
{
    u32 events;
    u64 data;
    memcpy(&events, event, sizeof events);
    memcpy(&data, event + EVENT_DATA, sizeof data);
    add(text, "{events=");
    add_flags(text, epoll_events, events, "0");
    text_add(text, ", data={u32=%u, u64=%llu}}", (u32)data, (unsigned long long)data);
}

void add_events(struct text *text, const struct record *record)
{
    const struct piece *piece = find(record, PIECE_RESULT);
    if (!piece && record->result != 0) {
        add_pointer(text, record->arguments[1]);
        return;
    }
    add(text, "[");
    for (u32 at = 0; piece && at + EVENT_SIZE <= piece->length; at += EVENT_SIZE) {
        add(text, at ? ", " : "");
        add_event_struct(text, (const u8 *)bytes_of(piece) + at);
    }
    add(text, "]");
}

/* Options and other values */

void add_option_value(struct text *text, const struct record *record, int is_get)
{
    const struct piece *piece = find(record, PIECE_OPTION);
    u64 level = record->arguments[1], option = record->arguments[2];
    if (!piece) {
        add_pointer(text, record->arguments[3]);
        return;
    }
    const u8 *bytes = bytes_of(piece);
    s32 numbers[2] = {0, 0};
    memcpy(numbers, bytes, piece->length < sizeof numbers ? piece->length : sizeof numbers);
    if (level == SOL_SOCKET && option == SO_LINGER && piece->length >= 8) {
        text_add(text, "{l_onoff=%d, l_linger=%d}", numbers[0], numbers[1]);
    } else if (level == IPPROTO_IP && (option == IP_ADD_MEMBERSHIP || option == IP_DROP_MEMBERSHIP)
               && piece->length >= 8) {
        add(text, "{imr_multiaddr=inet_addr(");
        add_ip_hex(text, AF_INET, bytes);
        add(text, piece->length >= 12 ? "), imr_address=inet_addr(" : "), imr_interface=inet_addr(");
        add_ip_hex(text, AF_INET, bytes + 4);
        add(text, ")}");
    } else if (level == IPPROTO_IPV6 && (option == IPV6_ADD_MEMBERSHIP || option == IPV6_DROP_MEMBERSHIP)
               && piece->length >= 20) {
        add(text, "{inet_pton(AF_INET6, ");
        add_ip_hex(text, AF_INET6, bytes);
        text_add(text, ", &ipv6mr_multiaddr), ipv6mr_interface=%u}", *(const u32 *)(bytes + 16));
    } else if (is_get && level == SOL_SOCKET && option == SO_ERROR && piece->length == 4
               && errno_name(numbers[0])) {
        text_add(text, "[%s]", errno_name(numbers[0]));
    } else if (piece->length == 4) {
        text_add(text, "[%d]", numbers[0]);
    } else {
        add_string(text, bytes, piece->length, 0);
    }
}

void add_option_names(struct text *text, u64 level, u64 option)
{
    const struct name *table = level == SOL_SOCKET     ? socket_options
                               : level == IPPROTO_IP   ? ip_options
                               : level == IPPROTO_IPV6 ? ipv6_options
                               : level == IPPROTO_TCP  ? tcp_options
                               : level == IPPROTO_UDP  ? udp_options
                                                       : NULL;
    add(text, ", ");
    add_name(text, levels, level);
    add(text, ", ");
    if (table)
        add_name(text, table, option);
    else
        text_add(text, "%llu", (unsigned long long)option);
    add(text, ", ");
}

void add_wait_status(struct text *text, const struct record *record)
{
    const struct piece *piece = find(record, PIECE_OPTION);
    if (!piece || piece->length < 4 || record->result <= 0) {
        add_pointer(text, record->arguments[1]);
        return;
    }
    int status = *(const int *)bytes_of(piece);
    if (WIFEXITED(status))
        text_add(text, "[{WIFEXITED(s) && WEXITSTATUS(s) == %d}]", WEXITSTATUS(status));
    else if (WIFSIGNALED(status) && signal_name(WTERMSIG(status)))
        text_add(text, "[{WIFSIGNALED(s) && WTERMSIG(s) == %s}]", signal_name(WTERMSIG(status)));
    else
        text_add(text, "[%#x]", status);
}

void add_sigaction(struct text *text, const struct record *record)
{
    const struct piece *piece = find(record, PIECE_OPTION);
    const char *name = signal_name(record->arguments[0]);
    add(text, name ? name : "SIGRT");
    add(text, ", ");
    if (!piece || piece->length < 16) {
        add_pointer(text, record->arguments[1]);
        return;
    }
    const u64 *action = bytes_of(piece);
    add(text, "{sa_handler=");
    if (action[0] < 2)
        add(text, action[0] ? "SIG_IGN" : "SIG_DFL");
    else
        add_pointer(text, action[0]);
    add(text, ", sa_mask=[], sa_flags=");
    add_flags(text, sigaction_flags, action[1], "0");
    add(text, "}");
}

void add_socket_type(struct text *text, u64 type)
{
    add_name(text, socket_types, type & 0xf);
    if (type & ~0xfull) {
        add(text, "|");
        add_flags(text, socket_flags, type & ~0xfull, "0");
    }
}

void add_fcntl(struct text *text, const struct record *record)
{
    u64 command = record->arguments[1], argument = record->arguments[2];
    add(text, ", ");
    add_name(text, fcntl_commands, command);
    switch (command) {
    case 1: /* F_GETFD, F_GETFL: no argument */
    case 3:
        break;
    case 2:
        add(text, argument & 1 ? ", FD_CLOEXEC" : ", 0");
        break;
    case 4:
        add(text, argument & 3 ? ", " : ", O_RDONLY|");
        add_flags(text, open_flags, argument & ~0100000ull, "0");
        if (!(argument & ~3ull) && !(argument & 3)) /* O_RDONLY alone */
            text->length -= 2;
        break;
    default:
        add(text, ", ");
        add_number(text, argument);
    }
}

void add_ioctl(struct text *text, const struct record *record)
{
    const struct piece *piece = find(record, PIECE_OPTION);
    u64 request = record->arguments[1];
    add(text, ", ");
    add_name(text, ioctl_requests, request & 0xffffffff);
    if (request == FIOCLEX || request == FIONCLEX)
        return;
    add(text, ", ");
    if ((request == FIONBIO || request == FIONREAD || request == TIOCOUTQ) && piece && record->result >= 0)
        text_add(text, "[%d]", *(const s32 *)bytes_of(piece));
    else
        add_pointer(text, record->arguments[2]);
}

void add_words(struct text *text, const struct record *record)
{
    const struct piece *piece = find(record, PIECE_WORDS);
    if (!piece || !piece->length) {
        add_pointer(text, record->arguments[0]);
        return;
    }
    const char *at = bytes_of(piece), *end = at + piece->length;
    add_string(text, at, strnlen(at, end - at), 0);
    add(text, ", [");
    for (int index = 0; at < end; index++) {
        size_t length = strnlen(at, end - at);
        add(text, index ? ", " : "");
        add_string(text, at, length, 0);
        at += length + 1;
    }
    add(text, "], NULL");
}

void add_clone(struct text *text, const struct record *record, int is_struct)
{
    const struct piece *piece = find(record, PIECE_OPTION);
    const u64 *values = piece && piece->length >= 40 ? bytes_of(piece) : NULL;
    u64 flags = is_struct ? (values ? values[0] : 0) : record->arguments[0] & ~0xffull;
    u64 number = is_struct ? (values ? values[4] : 0) : record->arguments[0] & 0xff;
    add(text, is_struct ? "{flags=" : "child_stack=");
    if (!is_struct) {
        add_pointer(text, record->arguments[1]);
        add(text, ", flags=");
    }
    if (flags || is_struct || !number)
        add_flags(text, clone_flags, flags, "0");
    if (is_struct) {
        text_add(text, ", exit_signal=%s}, %llu", signal_name(number) ? signal_name(number) : "0",
                 (unsigned long long)record->arguments[1]);
    } else if (number) {
        add(text, flags ? "|" : "");
        add(text, signal_name(number) ? signal_name(number) : "0");
    }
}
