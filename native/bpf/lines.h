/* Records as lines in the form of `strace -f -yy -xx`, which trace/capture/strace.py parses. */
#ifndef BOTHENDS_BPF_LINES_H
#define BOTHENDS_BPF_LINES_H

#include <stddef.h>

#include "records.h"

struct text {
    char *data;
    size_t length, capacity;
    int failed; /* out of memory: the text is not complete */
};

enum { AT_START = 1, AT_END = 2 };

void text_free(struct text *text);
void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `PID TIME name(arguments) = result <duration>`, or at its start `... <unfinished ...>`, or at its end
 * `PID TIME <... name resumed>...`. Times are in nanoseconds of the wall clock less `offset`. */
void add_call(struct text *text, const struct record *record, int parts, s64 offset);

/* A signal, an exit, or another record that is not a call. */
void add_event(struct text *text, const struct record *record, s64 offset);

#endif
