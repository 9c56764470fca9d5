/* What every part of a run needs: the clock, the GIL, the connections that are idle. */
#include "generator.h"

#include <time.h>

int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
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
