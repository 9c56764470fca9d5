/* What every part of a run needs: the clock, processor time, the GIL, the connections that are idle. */
#include "generator.h"

#include <stdio.h>
#include <time.h>

int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* Read the seconds this thread has used a CPU, and has waited for one in the run queue (/proc/pid/schedstat). */
void read_cpu_usage(double *used, double *run_queue_wait)
{
    struct timespec now;
    unsigned long long ran = 0, waited = 0;
    FILE *line = fopen("/proc/thread-self/schedstat", "re");

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    *used = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    if (line != NULL) {
        if (fscanf(line, "%llu %llu", &ran, &waited) != 2)
            waited = 0;
        fclose(line);
    }
    *run_queue_wait = (double)waited * 1e-9;
}

void acquire_gil(Run *run)
{
    PyEval_RestoreThread(run->thread_state);
    run->thread_state = NULL;
}

void release_gil(Run *run)
{
    run->thread_state = PyEval_SaveThread();
}

void mark_idle(Run *run, Connection *connection)
{
    if (connection->idle)
        return;
    connection->idle = true;
    run->idle_connections[(run->idle_head + run->idle_count++) % run->connection_count] =
        (uint32_t)(connection - run->connections);
}
