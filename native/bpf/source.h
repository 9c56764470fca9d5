/* The BPF programs and the reader of their records. */
#ifndef BOTHENDS_BPF_SOURCE_H
#define BOTHENDS_BPF_SOURCE_H

#include "lines.h"
#include "records.h"

struct source;

/* Load and attach the programs. Returns NULL and sets `*error` (an errno) and `message`. */
struct source *source_open(size_t max_bytes, int *error, char *message, size_t message_size);
void source_close(struct source *source);

/* From now on, child processes of the calling thread belong to a program; until -1 is given. */
int source_spawn(struct source *source, int program);
/* Follow a process that runs already, and its future children. */
int source_adopt(struct source *source, int program, u32 process);
/* Follow each process that connects to a port. */
void source_follow_port(struct source *source, int program, u32 port);
/* Drop the records so far. Returns the time, in nanoseconds of the wall clock. */
u64 source_skip(struct source *source);
/* Follow the threads of a program no further. */
void source_release(struct source *source, int program);
/* Move the processes that the kernel has added to a program since the last call to `processes`. */
enum { MAX_ADOPTED = 1024 };
size_t source_adopted(struct source *source, int program, u32 *processes, size_t room);

/* Readable when there are new records; source_update() resets it. */
int source_descriptor(const struct source *source);
/* Take over the records so far, unless those of the last call are not all read. */
void source_update(struct source *source);
/* Append the next lines of a program, up to about `max_bytes`. */
void source_lines(struct source *source, int program, struct text *text, size_t max_bytes);
/* Whether all threads of a program have exited and all its lines are read. */
int source_has_ended(struct source *source, int program);
/* Whether a thread of any program is running. */
int source_is_alive(const struct source *source);
/* The wall-clock time, in nanoseconds, before which all lines have been read. */
u64 source_horizon(struct source *source);
/* The number of records that are not read as lines yet. */
size_t source_waiting(struct source *source);
/* Records that are missing: the buffers were full. */
u64 source_lost(struct source *source);
u64 source_lost_threads(struct source *source);
/* Calls that are left out because they repeat earlier ones and move no data. */
u64 source_repeated(struct source *source);

#endif
