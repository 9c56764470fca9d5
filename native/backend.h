/* A backend: how the bytes of connections are moved, and how the loop waits.
 *
 * The files of the core call these functions through `core->backend`: one indirect call for each pending
 * connection and each wait. The backends call connection_on_read(), connection_on_eof(),
 * connection_on_written(), connection_on_error() and listener_on_accept().
 */
#ifndef BOTHENDS_BACKEND_H
#define BOTHENDS_BACKEND_H

#include <stdbool.h>

typedef struct Core Core;
typedef struct Connection Connection;
typedef struct Listener Listener;

typedef struct Backend {
    /* Whether listeners are accepted from by requests of the backend; otherwise epoll reports them. */
    bool accepts;

    /* Whether pending connections are flushed after every event, so that a reply is sent at once; otherwise
     * once per iteration of the loop, so that all sends are submitted by one system call. */
    bool flushes_after_event;

    /* Do what the connection's flags and queue ask for, and close it once CLOSE_PENDING is set and no request
     * is in flight. Sets `is_full` if the kernel accepts no requests now; then the connection stays pending.
     * Returns 0, or -1 with an exception set. */
    int (*update)(Connection *connection, bool *is_full);

    /* Wait for events, `timeout` seconds at most, and process them. 0, or -1 with an exception set. */
    int (*wait)(Core *core, double timeout);

    /* Close a descriptor with no request in flight: before the call returns, or, unless `at_once`, with the
     * next system call. */
    void (*close_fd)(Core *core, int fd, bool at_once);

    /* Stop the backend's own accept requests. Connections accepted meanwhile are opened. 0, or -1 with an
     * exception set. */
    int (*cancel_accepts)(Core *core);

    /* Release what the backend holds. In the process that made the core (`is_owner`): first cancel all
     * requests and wait for their completions. */
    void (*close)(Core *core, bool is_owner);
} Backend;

extern const Backend epoll_backend;
extern const Backend uring_backend;

/* Set up io_uring for the core and make it the backend. 0, or -1 with an exception set. */
int uring_backend_open(Core *core);

#endif
