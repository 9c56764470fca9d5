/* The epoll set of a core.
 *
 * Every core has one: with epoll it holds the connections, with either backend the wakeup eventfd, watched
 * descriptors, datagram sockets, and listeners shared with other processes. backend_uring.c polls the set's
 * own descriptor.
 */
#include "internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* Make the set and the eventfd that wakes the loop. 0, or -1 with an exception set. */
int epoll_set_open(Core *core)
{
    uint32_t generation, slot = slot_alloc(core, SLOT_WAKEUP, core, &generation);

    if (slot == UINT32_MAX) {
        PyErr_NoMemory();
        return -1;
    }
    core->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    core->wakeup_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (core->epoll_fd < 0 || core->wakeup_fd < 0
        || epoll_set_register(core, core->wakeup_fd, EPOLLIN, slot, generation, false) < 0)
        return raise_errno(errno);
    return 0;
}

/* Register a descriptor, or `modify` the events it is registered for. 0, or -1 with errno set. */
int epoll_set_register(Core *core, int fd, uint32_t events, uint32_t slot, uint32_t generation, bool modify)
{
    struct epoll_event event = {.events = events, .data.u64 = user_data_encode(OP_POLL, generation, slot)};

    return epoll_ctl(core->epoll_fd, modify ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

/* Remove a descriptor. Call before closing it: an epoll set refers to open file descriptions, so a duplicate
 * of the descriptor, in a child say, would keep the registration alive (epoll(7)). */
void epoll_set_remove(Core *core, int fd)
{
    if (core->fork_generation == current_fork_generation)
        (void)epoll_ctl(core->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}
