/* A text that grows. Running out of memory sets `failed`. */
#ifndef BOTHENDS_BPF_TEXT_H
#define BOTHENDS_BPF_TEXT_H

#include <stddef.h>

#include "names.h"
#include "records.h"

struct text {
    char *data;
    size_t length, capacity;
    int failed; /* out of memory: the text is not complete */
};

void text_free(struct text *text);
void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

void add(struct text *text, const char *string);
void add_number(struct text *text, s64 value);
/* Each byte as `\x41`. */
void add_hex(struct text *text, const void *data, size_t length);
/* The same in quotes; with "..." after them if it is cut. */
void add_string(struct text *text, const void *data, size_t length, int is_cut);
/* In hexadecimal, or NULL. */
void add_pointer(struct text *text, u64 address);
/* The names of flags with | between them, and `rest` if no flag is set. */
void add_flags(struct text *text, const struct name *table, u64 value, const char *rest);
/* The name of a constant, or its number. */
void add_name(struct text *text, const struct name *table, u64 value);

#endif
