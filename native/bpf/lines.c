/* Write records as strace writes them: lines.h. The forms were compared with those of strace 6.1.
 *
 * A line has two parts, as a call that lasts has two lines: what is known when it starts, and the rest. */
#include "lines.h"

#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "names.h"

void text_free(struct text *text)
{
    free(text->data);
    memset(text, 0, sizeof *text);
}

static char *reserve(struct text *text, size_t more)
{
    if (text->length + more > text->capacity) {
        size_t capacity = (text->length + more) * 2;
        char *data = realloc(text->data, capacity);
        if (!data) {
            text->failed = 1;
            text->length = 0;
            if (more > text->capacity)
                return NULL;
            return text->data;
        }
        text->data = data;
        text->capacity = capacity;
    }
    return text->data + text->length;
}

void text_add(struct text *text, const char *format, ...)
{
    va_list arguments;
    char *at = reserve(text, 512);
    if (!at)
        return;
    va_start(arguments, format);
    int length = vsnprintf(at, 512, format, arguments);
    va_end(arguments);
    text->length += length < 512 ? length : 511;
}

static void add(struct text *text, const char *string)
{
    size_t length = strlen(string);
    char *at = reserve(text, length);
    if (at) {
        memcpy(at, string, length);
        text->length += length;
    }
}

static void add_number(struct text *text, s64 value)
{
    char digits[24], *at = digits + sizeof digits;
    u64 rest = value < 0 ? -(u64)value : (u64)value;
    *--at = 0;
    do
        *--at = '0' + rest % 10;
    while (rest /= 10);
    if (value < 0)
        *--at = '-';
    add(text, at);
}

static void add_hex(struct text *text, const void *data, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    const u8 *bytes = data;
    char *at = reserve(text, 4 * length);
    if (!at)
        return;
    for (size_t i = 0; i < length; i++) {
        *at++ = '\\';
        *at++ = 'x';
        *at++ = digits[bytes[i] >> 4];
        *at++ = digits[bytes[i] & 15];
    }
    text->length += 4 * length;
}

static void add_string(struct text *text, const void *data, size_t length, int is_cut)
{
    add(text, "\"");
    add_hex(text, data, length);
    add(text, is_cut ? "\"..." : "\"");
}

static void add_pointer(struct text *text, u64 address)
{
    if (address)
        text_add(text, "%#llx", (unsigned long long)address);
    else
        add(text, "NULL");
}

static void add_flags(struct text *text, const struct name *table, u64 value, const char *rest)
{
    int is_first = 1;
    for (; table->name; table++)
        if (table->value && (value & table->value) == table->value) {
            add(text, is_first ? "" : "|");
            add(text, table->name);
            value &= ~table->value;
            is_first = 0;
        }
    if (value)
        text_add(text, "%s%#llx", is_first ? "" : "|", (unsigned long long)value);
    else if (is_first)
        add(text, rest);
}

static void add_name(struct text *text, const struct name *table, u64 value)
{
    const char *name = name_of(table, value);
    if (name)
        add(text, name);
    else
        text_add(text, "%#llx", (unsigned long long)value);
}

/* Pieces */

struct pieces {
    const u8 *at, *end;
};

static struct pieces pieces_of(const struct record *record)
{
    return (struct pieces){(const u8 *)(record + 1), (const u8 *)record + record->size};
}

static const struct piece *next_piece(struct pieces *pieces)
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

static const struct piece *find(const struct record *record, u16 type)
{
    struct pieces pieces = pieces_of(record);
    const struct piece *piece;
    while ((piece = next_piece(&pieces)))
        if (piece->type == type)
            return piece->failed ? NULL : piece;
    return NULL;
}

static const void *bytes_of(const struct piece *piece)
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

static void add_label(struct text *text, const struct label *label, const struct piece *path)
{
    enum { TCP_CLOSE = 7, TCP_LISTEN = 10 };
    if (label->kind == LABEL_TERMINAL) {
        char name[32];
        int length = snprintf(name, sizeof name, "/dev/pts/%u", label->protocol);
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

static void add_descriptor(struct text *text, const struct record *record, u64 number)
{
    add_number(text, (int)number);
    add_label(text, &record->label, find(record, PIECE_PATH + 0x100));
}

/* The address piece of a call, or the pointer. */
static void add_address_argument(struct text *text, const struct record *record, u64 pointer)
{
    const struct piece *piece = find(record, PIECE_ADDRESS);
    if (piece && pointer)
        add_address(text, bytes_of(piece), piece->length);
    else
        add_pointer(text, pointer);
}

static void add_length_argument(struct text *text, const struct record *record, u64 pointer)
{
    const struct piece *piece = find(record, PIECE_LENGTH);
    if (piece && pointer)
        text_add(text, "[%u]", *(const u32 *)bytes_of(piece));
    else
        add_pointer(text, pointer);
}

static void add_data(struct text *text, const struct record *record, u64 pointer, u64 size)
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
static void add_vectors(struct text *text, struct pieces *pieces, const struct piece *vectors, s64 received)
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

static void add_message_argument(struct text *text, const struct record *record, u64 pointer, s64 received)
{
    struct pieces pieces = pieces_of(record);
    const struct piece *piece = next_piece(&pieces);
    if (piece && piece->type == PIECE_HEADER && !piece->failed)
        add_message(text, &pieces, bytes_of(piece), received);
    else
        add_pointer(text, pointer);
}

static void add_messages(struct text *text, const struct record *record, u64 pointer, int is_receive)
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

static void add_poll(struct text *text, const struct record *record, int is_result)
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

static void add_time(struct text *text, const u64 *limit, const char *unit)
{
    if (limit[0] == ~0ull && limit[1] == ~0ull)
        add(text, "NULL");
    else
        text_add(text, "{tv_sec=%lld, tv_%s=%lld}", (long long)limit[0], unit, (long long)limit[1]);
}

static void add_select(struct text *text, const struct record *record, const char *unit)
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

static void add_select_result(struct text *text, const struct record *record)
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

#ifdef __x86_64__
enum { EVENT_SIZE = 12, EVENT_DATA = 4 }; /* packed: epoll_event(3type) */
#else
enum { EVENT_SIZE = 16, EVENT_DATA = 8 };
#endif

static void add_event_struct(struct text *text, const u8 *event)
{
    u32 events;
    u64 data;
    memcpy(&events, event, sizeof events);
    memcpy(&data, event + EVENT_DATA, sizeof data);
    add(text, "{events=");
    add_flags(text, epoll_events, events, "0");
    text_add(text, ", data={u32=%u, u64=%llu}}", (u32)data, (unsigned long long)data);
}

static void add_events(struct text *text, const struct record *record)
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

static void add_option_value(struct text *text, const struct record *record, int is_get)
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

static void add_option_names(struct text *text, u64 level, u64 option)
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

static void add_wait_status(struct text *text, const struct record *record)
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

static void add_sigaction(struct text *text, const struct record *record)
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

static void add_socket_type(struct text *text, u64 type)
{
    add_name(text, socket_types, type & 0xf);
    if (type & ~0xfull) {
        add(text, "|");
        add_flags(text, socket_flags, type & ~0xfull, "0");
    }
}

static void add_fcntl(struct text *text, const struct record *record)
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

static void add_ioctl(struct text *text, const struct record *record)
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

static void add_words(struct text *text, const struct record *record)
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

static void add_clone(struct text *text, const struct record *record, int is_struct)
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
    case KIND_PAIR: {
        struct pieces pieces = pieces_of(record);
        const struct piece *pair = next_piece(&pieces), *piece;
        if (!pair || pair->type != PIECE_OPTION || pair->length < 8) {
            add_pointer(text, arguments[3]);
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
            add_number(text, result);
        }
        if (label && (flags & KIND_MASK) != KIND_PAIR)
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
