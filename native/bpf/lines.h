/* Records as lines in the form of `strace -f -yy -xx`, which trace/capture/strace.py parses. */
#ifndef BOTHENDS_BPF_LINES_H
#define BOTHENDS_BPF_LINES_H

#include "records.h"
#include "text.h"

enum { AT_START = 1, AT_END = 2 };

/* `PID TIME name(arguments) = result <duration>`, or at its start `... <unfinished ...>`, or at its end
 * `PID TIME <... name resumed>...`. Times are in nanoseconds of the wall clock less `offset`. */
void add_call(struct text *text, const struct record *record, int parts, s64 offset);

/* A signal, an exit, or another record that is not a call. */
void add_event(struct text *text, const struct record *record, s64 offset);

#endif
