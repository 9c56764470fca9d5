/* The pieces of a record, and the values among the arguments of a call, as strace writes them. */
#ifndef BOTHENDS_BPF_VALUES_H
#define BOTHENDS_BPF_VALUES_H

#include "records.h"
#include "text.h"

struct pieces {
    const u8 *at, *end;
};

#ifdef __x86_64__
enum { EVENT_SIZE = 12, EVENT_DATA = 4 }; /* packed: epoll_event(3type) */
#else
enum { EVENT_SIZE = 16, EVENT_DATA = 8 };
#endif

struct pieces pieces_of(const struct record *record);
const struct piece *next_piece(struct pieces *pieces);
const struct piece *find(const struct record *record, u16 type);
const void *bytes_of(const struct piece *piece);
void add_label(struct text *text, const struct label *label, const struct piece *path);
void add_descriptor(struct text *text, const struct record *record, u64 number);
void add_address_argument(struct text *text, const struct record *record, u64 pointer);
void add_length_argument(struct text *text, const struct record *record, u64 pointer);
void add_data(struct text *text, const struct record *record, u64 pointer, u64 size);
void add_vectors(struct text *text, struct pieces *pieces, const struct piece *vectors, s64 received);
void add_message_argument(struct text *text, const struct record *record, u64 pointer, s64 received);
void add_messages(struct text *text, const struct record *record, u64 pointer, int is_receive);
void add_poll(struct text *text, const struct record *record, int is_result);
void add_time(struct text *text, const u64 *limit, const char *unit);
void add_select(struct text *text, const struct record *record, const char *unit);
void add_select_result(struct text *text, const struct record *record);
void add_event_struct(struct text *text, const u8 *event);
void add_events(struct text *text, const struct record *record);
void add_option_value(struct text *text, const struct record *record, int is_get);
void add_option_names(struct text *text, u64 level, u64 option);
void add_wait_status(struct text *text, const struct record *record);
void add_sigaction(struct text *text, const struct record *record);
void add_socket_type(struct text *text, u64 type);
void add_fcntl(struct text *text, const struct record *record);
void add_ioctl(struct text *text, const struct record *record);
void add_words(struct text *text, const struct record *record);
void add_clone(struct text *text, const struct record *record, int is_struct);

#endif
