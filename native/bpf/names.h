/* Names of system calls, flags and constants, as the man pages have them. */
#ifndef BOTHENDS_BPF_NAMES_H
#define BOTHENDS_BPF_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* The names stand in the tables: pointers would need a relocation each, which is larger. */
struct name {
    uint64_t value;
    char name[32];
};

struct call_entry {
    int number;
    char name[20];
    uint16_t flags; /* enum call_kind */
};

extern const struct call_entry call_table[];
extern const size_t call_count;

const char *call_name(uint32_t number);
uint16_t call_flags(uint32_t number); /* enum call_kind; 0 if it is not traced */
const char *errno_name(int number);
const char *signal_name(int number);

/* The name of a value in a table that ends with {0, ""}; NULL if it has none. */
const char *name_of(const struct name *table, uint64_t value);

extern const struct name families[], socket_types[], socket_flags[], message_flags[], poll_events[],
    epoll_events[], levels[], socket_options[], ip_options[], ipv6_options[], tcp_options[], udp_options[],
    fcntl_commands[], open_flags[], ioctl_requests[], clone_flags[], shutdown_ways[], wait_options[],
    sigaction_flags[], clocks[], ip_protocols[], epoll_operations[], wait_kinds[], splice_flags[];

#endif
