/* Names of system calls, flags and constants. Missing calls (`#ifdef`) are those that the architecture lacks. */
#define _GNU_SOURCE 1
#include "names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "records.h"

#define NAME(name) {name, #name}

const struct call_entry call_table[] = {
#ifdef __NR_read
    {__NR_read, "read", KIND_READ | OF_DESCRIPTOR | NOT_OF_FILES},
#endif
#ifdef __NR_write
    {__NR_write, "write", KIND_WRITE | OF_DESCRIPTOR | NOT_OF_FILES},
#endif
#ifdef __NR_readv
    {__NR_readv, "readv", KIND_READV | OF_DESCRIPTOR | NOT_OF_FILES},
#endif
#ifdef __NR_writev
    {__NR_writev, "writev", KIND_WRITEV | OF_DESCRIPTOR | NOT_OF_FILES},
#endif
#ifdef __NR_close
    {__NR_close, "close", KIND_PLAIN | OF_DESCRIPTOR | NOT_OF_FILES},
#endif
#ifdef __NR_ioctl
    {__NR_ioctl, "ioctl", KIND_IOCTL | OF_DESCRIPTOR | NOT_OF_FILES},
#endif
#ifdef __NR_fcntl
    {__NR_fcntl, "fcntl", KIND_FCNTL | OF_DESCRIPTOR | NOT_OF_FILES},
#endif
#ifdef __NR_socket
    {__NR_socket, "socket", KIND_SOCKET},
#endif
#ifdef __NR_pipe
    {__NR_pipe, "pipe", KIND_PIPE},
#endif
    {__NR_pipe2, "pipe2", KIND_PIPE},
#ifdef __NR_socketpair
    {__NR_socketpair, "socketpair", KIND_PAIR},
#endif
#ifdef __NR_bind
    {__NR_bind, "bind", KIND_ADDRESS | OF_DESCRIPTOR},
#endif
#ifdef __NR_listen
    {__NR_listen, "listen", KIND_PLAIN | OF_DESCRIPTOR},
#endif
#ifdef __NR_connect
    {__NR_connect, "connect", KIND_ADDRESS | OF_DESCRIPTOR},
#endif
#ifdef __NR_accept
    {__NR_accept, "accept", KIND_ACCEPT | OF_DESCRIPTOR},
#endif
#ifdef __NR_accept4
    {__NR_accept4, "accept4", KIND_ACCEPT | OF_DESCRIPTOR},
#endif
#ifdef __NR_shutdown
    {__NR_shutdown, "shutdown", KIND_PLAIN | OF_DESCRIPTOR},
#endif
#ifdef __NR_getsockname
    {__NR_getsockname, "getsockname", KIND_GET_ADDRESS | OF_DESCRIPTOR},
#endif
#ifdef __NR_getpeername
    {__NR_getpeername, "getpeername", KIND_GET_ADDRESS | OF_DESCRIPTOR},
#endif
#ifdef __NR_setsockopt
    {__NR_setsockopt, "setsockopt", KIND_SET_OPTION | OF_DESCRIPTOR},
#endif
#ifdef __NR_getsockopt
    {__NR_getsockopt, "getsockopt", KIND_GET_OPTION | OF_DESCRIPTOR},
#endif
#ifdef __NR_recvfrom
    {__NR_recvfrom, "recvfrom", KIND_RECVFROM | OF_DESCRIPTOR},
#endif
#ifdef __NR_sendto
    {__NR_sendto, "sendto", KIND_SENDTO | OF_DESCRIPTOR},
#endif
#ifdef __NR_recvmsg
    {__NR_recvmsg, "recvmsg", KIND_RECVMSG | OF_DESCRIPTOR},
#endif
#ifdef __NR_sendmsg
    {__NR_sendmsg, "sendmsg", KIND_SENDMSG | OF_DESCRIPTOR},
#endif
#ifdef __NR_recvmmsg
    {__NR_recvmmsg, "recvmmsg", KIND_RECVMMSG | OF_DESCRIPTOR},
#endif
#ifdef __NR_sendmmsg
    {__NR_sendmmsg, "sendmmsg", KIND_SENDMMSG | OF_DESCRIPTOR},
#endif
#ifdef __NR_sendfile
    {__NR_sendfile, "sendfile", KIND_PLAIN | OF_DESCRIPTOR},
#endif
#ifdef __NR_splice
    {__NR_splice, "splice", KIND_PLAIN | OF_DESCRIPTOR | OF_THIRD},
#endif
#ifdef __NR_close_range
    {__NR_close_range, "close_range", KIND_PLAIN},
#endif
#ifdef __NR_dup
    {__NR_dup, "dup", KIND_PLAIN | OF_DESCRIPTOR},
#endif
#ifdef __NR_dup2
    {__NR_dup2, "dup2", KIND_PLAIN | OF_DESCRIPTOR},
#endif
#ifdef __NR_dup3
    {__NR_dup3, "dup3", KIND_PLAIN | OF_DESCRIPTOR},
#endif
#ifdef __NR_poll
    {__NR_poll, "poll", KIND_POLL},
#endif
#ifdef __NR_ppoll
    {__NR_ppoll, "ppoll", KIND_PPOLL | ENTRY_MEMORY},
#endif
#ifdef __NR_select
    {__NR_select, "select", KIND_SELECT | ENTRY_MEMORY},
#endif
#ifdef __NR_pselect6
    {__NR_pselect6, "pselect6", KIND_SELECT | ENTRY_MEMORY},
#endif
#ifdef __NR_epoll_create
    {__NR_epoll_create, "epoll_create", KIND_PLAIN},
#endif
#ifdef __NR_epoll_create1
    {__NR_epoll_create1, "epoll_create1", KIND_PLAIN},
#endif
#ifdef __NR_epoll_wait
    {__NR_epoll_wait, "epoll_wait", KIND_EPOLL_WAIT},
#endif
#ifdef __NR_epoll_pwait
    {__NR_epoll_pwait, "epoll_pwait", KIND_EPOLL_WAIT},
#endif
#ifdef __NR_epoll_pwait2
    {__NR_epoll_pwait2, "epoll_pwait2", KIND_EPOLL_WAIT | ENTRY_MEMORY},
#endif
#ifdef __NR_epoll_ctl
    {__NR_epoll_ctl, "epoll_ctl", KIND_EPOLL_CTL | OF_DESCRIPTOR | OF_THIRD},
#endif
#ifdef __NR_nanosleep
    {__NR_nanosleep, "nanosleep", KIND_SLEEP | ENTRY_MEMORY},
#endif
#ifdef __NR_clock_nanosleep
    {__NR_clock_nanosleep, "clock_nanosleep", KIND_CLOCK_SLEEP | ENTRY_MEMORY},
#endif
#ifdef __NR_restart_syscall
    {__NR_restart_syscall, "restart_syscall", KIND_PLAIN},
#endif
#ifdef __NR_clone
    {__NR_clone, "clone", KIND_FORK},
#endif
#ifdef __NR_clone3
    {__NR_clone3, "clone3", KIND_CLONE3},
#endif
#ifdef __NR_fork
    {__NR_fork, "fork", KIND_FORK},
#endif
#ifdef __NR_vfork
    {__NR_vfork, "vfork", KIND_FORK},
#endif
#ifdef __NR_execve
    {__NR_execve, "execve", KIND_EXEC},
#endif
#ifdef __NR_execveat
    {__NR_execveat, "execveat", KIND_EXEC},
#endif
#ifdef __NR_wait4
    {__NR_wait4, "wait4", KIND_WAIT},
#endif
#ifdef __NR_waitid
    {__NR_waitid, "waitid", KIND_WAIT},
#endif
#ifdef __NR_rt_sigaction
    {__NR_rt_sigaction, "rt_sigaction", KIND_SIGACTION},
#endif
};
const size_t call_count = sizeof call_table / sizeof *call_table;

const char *name_of(const struct name *table, uint64_t value)
{
    for (; *table->name; table++)
        if (table->value == value)
            return table->name;
    return NULL;
}

const char *call_name(uint32_t number)
{
    static const char *names[MAX_CALLS];
    if (!names[call_table[0].number])
        for (size_t at = 0; at < call_count; at++)
            names[call_table[at].number] = call_table[at].name;
    return number < MAX_CALLS && names[number] ? names[number] : "unknown";
}

const struct name families[] = {
    NAME(AF_UNIX),    NAME(AF_INET),  NAME(AF_INET6),   NAME(AF_NETLINK), NAME(AF_PACKET),
    {0, "AF_UNSPEC"}, {38, "AF_ALG"}, {40, "AF_VSOCK"}, {0, ""},
};
const struct name socket_types[] = {
    NAME(SOCK_STREAM),   NAME(SOCK_DGRAM), NAME(SOCK_RAW), NAME(SOCK_SEQPACKET),
    {10, "SOCK_PACKET"}, NAME(SOCK_RDM),   {0, ""},
};
const struct name socket_flags[] = {
    NAME(SOCK_CLOEXEC),
    NAME(SOCK_NONBLOCK),
    {0, ""},
};
const struct name message_flags[] = {
    NAME(MSG_OOB),
    NAME(MSG_PEEK),
    NAME(MSG_DONTROUTE),
    NAME(MSG_CTRUNC),
    {0x10, "MSG_PROBE"},
    NAME(MSG_TRUNC),
    NAME(MSG_DONTWAIT),
    NAME(MSG_EOR),
    NAME(MSG_WAITALL),
    {0x200, "MSG_FIN"},
    {0x400, "MSG_SYN"},
    NAME(MSG_CONFIRM),
    {0x1000, "MSG_RST"},
    NAME(MSG_ERRQUEUE),
    NAME(MSG_NOSIGNAL),
    NAME(MSG_MORE),
    NAME(MSG_WAITFORONE),
    {0x4000000, "MSG_ZEROCOPY"},
    {0x20000000, "MSG_FASTOPEN"},
    NAME(MSG_CMSG_CLOEXEC),
    {0, ""},
};
const struct name poll_events[] = {
    NAME(POLLIN),
    NAME(POLLPRI),
    NAME(POLLOUT),
    NAME(POLLERR),
    NAME(POLLHUP),
    NAME(POLLNVAL),
    {0x40, "POLLRDNORM"},
    {0x80, "POLLRDBAND"},
    {0x100, "POLLWRNORM"},
    {0x200, "POLLWRBAND"},
    {0x400, "POLLMSG"},
    {0x2000, "POLLRDHUP"},
    {0, ""},
};
const struct name epoll_events[] = {
    NAME(EPOLLIN),     NAME(EPOLLPRI),     NAME(EPOLLOUT),           NAME(EPOLLRDNORM),
    NAME(EPOLLRDBAND), NAME(EPOLLWRNORM),  NAME(EPOLLWRBAND),        NAME(EPOLLMSG),
    NAME(EPOLLERR),    NAME(EPOLLHUP),     NAME(EPOLLRDHUP),         NAME(EPOLLEXCLUSIVE),
    NAME(EPOLLWAKEUP), NAME(EPOLLONESHOT), {0x80000000u, "EPOLLET"}, {0, ""},
};
const struct name levels[] = {
    NAME(SOL_SOCKET), {0, "SOL_IP"},        {6, "SOL_TCP"},      {17, "SOL_UDP"}, {41, "SOL_IPV6"},
    {255, "SOL_RAW"}, {270, "SOL_NETLINK"}, {263, "SOL_PACKET"}, {0, ""},
};
const struct name socket_options[] = {
    {1, "SO_DEBUG"},
    {2, "SO_REUSEADDR"},
    {3, "SO_TYPE"},
    {4, "SO_ERROR"},
    {5, "SO_DONTROUTE"},
    {6, "SO_BROADCAST"},
    {7, "SO_SNDBUF"},
    {8, "SO_RCVBUF"},
    {9, "SO_KEEPALIVE"},
    {10, "SO_OOBINLINE"},
    {11, "SO_NO_CHECK"},
    {12, "SO_PRIORITY"},
    {13, "SO_LINGER"},
    {14, "SO_BSDCOMPAT"},
    {15, "SO_REUSEPORT"},
    {16, "SO_PASSCRED"},
    {17, "SO_PEERCRED"},
    {18, "SO_RCVLOWAT"},
    {19, "SO_SNDLOWAT"},
    {20, "SO_RCVTIMEO_OLD"},
    {21, "SO_SNDTIMEO_OLD"},
    {25, "SO_BINDTODEVICE"},
    {26, "SO_ATTACH_FILTER"},
    {27, "SO_DETACH_FILTER"},
    {28, "SO_PEERNAME"},
    {29, "SO_TIMESTAMP_OLD"},
    {30, "SO_ACCEPTCONN"},
    {31, "SO_PEERSEC"},
    {32, "SO_SNDBUFFORCE"},
    {33, "SO_RCVBUFFORCE"},
    {34, "SO_PASSSEC"},
    {35, "SO_TIMESTAMPNS_OLD"},
    {36, "SO_MARK"},
    {37, "SO_TIMESTAMPING_OLD"},
    {38, "SO_PROTOCOL"},
    {39, "SO_DOMAIN"},
    {40, "SO_RXQ_OVFL"},
    {42, "SO_PEEK_OFF"},
    {43, "SO_NOFCS"},
    {44, "SO_LOCK_FILTER"},
    {45, "SO_SELECT_ERR_QUEUE"},
    {46, "SO_BUSY_POLL"},
    {47, "SO_MAX_PACING_RATE"},
    {49, "SO_INCOMING_CPU"},
    {50, "SO_ATTACH_BPF"},
    {51, "SO_ATTACH_REUSEPORT_CBPF"},
    {52, "SO_ATTACH_REUSEPORT_EBPF"},
    {55, "SO_MEMINFO"},
    {56, "SO_INCOMING_NAPI_ID"},
    {57, "SO_COOKIE"},
    {59, "SO_PEERGROUPS"},
    {60, "SO_ZEROCOPY"},
    {61, "SO_TXTIME"},
    {62, "SO_BINDTOIFINDEX"},
    {66, "SO_RCVTIMEO_NEW"},
    {67, "SO_SNDTIMEO_NEW"},
    {69, "SO_PREFER_BUSY_POLL"},
    {70, "SO_BUSY_POLL_BUDGET"},
    {77, "SO_PEERPIDFD"},
    {0, ""},
};
const struct name ip_options[] = {
    {1, "IP_TOS"},
    {2, "IP_TTL"},
    {3, "IP_HDRINCL"},
    {4, "IP_OPTIONS"},
    {6, "IP_RECVOPTS"},
    {8, "IP_PKTINFO"},
    {10, "IP_MTU_DISCOVER"},
    {11, "IP_RECVERR"},
    {12, "IP_RECVTTL"},
    {13, "IP_RECVTOS"},
    {14, "IP_MTU"},
    {15, "IP_FREEBIND"},
    {19, "IP_TRANSPARENT"},
    {20, "IP_RECVORIGDSTADDR"},
    {24, "IP_BIND_ADDRESS_NO_PORT"},
    {32, "IP_MULTICAST_IF"},
    {33, "IP_MULTICAST_TTL"},
    {34, "IP_MULTICAST_LOOP"},
    {35, "IP_ADD_MEMBERSHIP"},
    {36, "IP_DROP_MEMBERSHIP"},
    {37, "IP_UNBLOCK_SOURCE"},
    {38, "IP_BLOCK_SOURCE"},
    {39, "IP_ADD_SOURCE_MEMBERSHIP"},
    {40, "IP_DROP_SOURCE_MEMBERSHIP"},
    {42, "MCAST_JOIN_GROUP"},
    {45, "MCAST_LEAVE_GROUP"},
    {46, "MCAST_JOIN_SOURCE_GROUP"},
    {49, "IP_MULTICAST_ALL"},
    {50, "IP_UNICAST_IF"},
    {0, ""},
};
const struct name ipv6_options[] = {
    {16, "IPV6_UNICAST_HOPS"},   {17, "IPV6_MULTICAST_IF"},
    {18, "IPV6_MULTICAST_HOPS"}, {19, "IPV6_MULTICAST_LOOP"},
    {20, "IPV6_ADD_MEMBERSHIP"}, {21, "IPV6_DROP_MEMBERSHIP"},
    {23, "IPV6_MTU_DISCOVER"},   {24, "IPV6_MTU"},
    {25, "IPV6_RECVERR"},        {26, "IPV6_V6ONLY"},
    {27, "IPV6_JOIN_ANYCAST"},   {42, "MCAST_JOIN_GROUP"},
    {45, "MCAST_LEAVE_GROUP"},   {46, "MCAST_JOIN_SOURCE_GROUP"},
    {49, "IPV6_RECVPKTINFO"},    {50, "IPV6_PKTINFO"},
    {51, "IPV6_RECVHOPLIMIT"},   {52, "IPV6_HOPLIMIT"},
    {62, "IPV6_DONTFRAG"},       {66, "IPV6_RECVTCLASS"},
    {67, "IPV6_TCLASS"},         {0, ""},
};
const struct name tcp_options[] = {
    {1, "TCP_NODELAY"},
    {2, "TCP_MAXSEG"},
    {3, "TCP_CORK"},
    {4, "TCP_KEEPIDLE"},
    {5, "TCP_KEEPINTVL"},
    {6, "TCP_KEEPCNT"},
    {7, "TCP_SYNCNT"},
    {8, "TCP_LINGER2"},
    {9, "TCP_DEFER_ACCEPT"},
    {10, "TCP_WINDOW_CLAMP"},
    {11, "TCP_INFO"},
    {12, "TCP_QUICKACK"},
    {13, "TCP_CONGESTION"},
    {14, "TCP_MD5SIG"},
    {18, "TCP_USER_TIMEOUT"},
    {23, "TCP_FASTOPEN"},
    {24, "TCP_TIMESTAMP"},
    {25, "TCP_NOTSENT_LOWAT"},
    {30, "TCP_FASTOPEN_CONNECT"},
    {31, "TCP_ULP"},
    {35, "TCP_ZEROCOPY_RECEIVE"},
    {36, "TCP_INQ"},
    {0, ""},
};
const struct name udp_options[] = {
    {1, "UDP_CORK"}, {100, "UDP_ENCAP"}, {103, "UDP_SEGMENT"}, {104, "UDP_GRO"}, {0, ""},
};
const struct name fcntl_commands[] = {
    NAME(F_DUPFD),
    NAME(F_GETFD),
    NAME(F_SETFD),
    NAME(F_GETFL),
    NAME(F_SETFL),
    {5, "F_GETLK"},
    {6, "F_SETLK"},
    {7, "F_SETLKW"},
    {8, "F_SETOWN"},
    {9, "F_GETOWN"},
    {10, "F_SETSIG"},
    {11, "F_GETSIG"},
    {15, "F_SETOWN_EX"},
    {16, "F_GETOWN_EX"},
    {1030, "F_DUPFD_CLOEXEC"},
    {1031, "F_SETPIPE_SZ"},
    {1032, "F_GETPIPE_SZ"},
    {1033, "F_ADD_SEALS"},
    {1034, "F_GET_SEALS"},
    {0, ""},
};
const struct name open_flags[] = {
    {1, "O_WRONLY"},     {2, "O_RDWR"},  NAME(O_APPEND),  NAME(O_NONBLOCK), NAME(O_DSYNC),
    {020000, "O_ASYNC"}, NAME(O_DIRECT), NAME(O_CLOEXEC), {0, ""},
};
const struct name ioctl_requests[] = {
    {0x5421, "FIONBIO"},     {0x541b, "FIONREAD"},      {0x5451, "FIOCLEX"},     {0x5450, "FIONCLEX"},
    {0x5452, "FIOASYNC"},    {0x5401, "TCGETS"},        {0x5402, "TCSETS"},      {0x5413, "TIOCGWINSZ"},
    {0x540f, "TIOCGPGRP"},   {0x5411, "TIOCOUTQ"},      {0x894b, "SIOCOUTQNSD"}, {0x8905, "SIOCATMARK"},
    {0x8912, "SIOCGIFCONF"}, {0x8913, "SIOCGIFFLAGS"},  {0x8915, "SIOCGIFADDR"}, {0x8933, "SIOCGIFINDEX"},
    {0x8910, "SIOCGIFNAME"}, {0x8927, "SIOCGIFHWADDR"}, {0x8921, "SIOCGIFMTU"},  {0, ""},
};
const struct name clone_flags[] = {
    NAME(CLONE_VM),
    NAME(CLONE_FS),
    NAME(CLONE_FILES),
    NAME(CLONE_SIGHAND),
    NAME(CLONE_PIDFD),
    NAME(CLONE_PTRACE),
    NAME(CLONE_VFORK),
    NAME(CLONE_PARENT),
    NAME(CLONE_THREAD),
    NAME(CLONE_NEWNS),
    NAME(CLONE_SYSVSEM),
    NAME(CLONE_SETTLS),
    NAME(CLONE_PARENT_SETTID),
    NAME(CLONE_CHILD_CLEARTID),
    NAME(CLONE_DETACHED),
    NAME(CLONE_UNTRACED),
    NAME(CLONE_CHILD_SETTID),
    NAME(CLONE_NEWCGROUP),
    NAME(CLONE_NEWUTS),
    NAME(CLONE_NEWIPC),
    NAME(CLONE_NEWUSER),
    NAME(CLONE_NEWPID),
    NAME(CLONE_NEWNET),
    NAME(CLONE_IO),
    {0x100000000ull, "CLONE_CLEAR_SIGHAND"},
    {0x200000000ull, "CLONE_INTO_CGROUP"},
    {0, ""},
};
const struct name shutdown_ways[] = {
    NAME(SHUT_RD),
    NAME(SHUT_WR),
    NAME(SHUT_RDWR),
    {0, ""},
};
const struct name wait_options[] = {
    NAME(WNOHANG),
    NAME(WSTOPPED),
    NAME(WEXITED),
    NAME(WCONTINUED),
    NAME(WNOWAIT),
    {0x20000000, "__WNOTHREAD"},
    {0x40000000, "__WALL"},
    {0x80000000u, "__WCLONE"},
    {0, ""},
};
const struct name wait_kinds[] = {
    {0, "P_ALL"}, {1, "P_PID"}, {2, "P_PGID"}, {3, "P_PIDFD"}, {0, ""},
};
const struct name sigaction_flags[] = {
    {1, "SA_NOCLDSTOP"},        {2, "SA_NOCLDWAIT"},           {4, "SA_SIGINFO"},
    {0x4000000, "SA_RESTORER"}, {0x8000000, "SA_ONSTACK"},     {0x10000000, "SA_RESTART"},
    {0x40000000, "SA_NODEFER"}, {0x80000000u, "SA_RESETHAND"}, {0, ""},
};
const struct name clocks[] = {
    {0, "CLOCK_REALTIME"},
    {1, "CLOCK_MONOTONIC"},
    {2, "CLOCK_PROCESS_CPUTIME_ID"},
    {3, "CLOCK_THREAD_CPUTIME_ID"},
    {4, "CLOCK_MONOTONIC_RAW"},
    {5, "CLOCK_REALTIME_COARSE"},
    {6, "CLOCK_MONOTONIC_COARSE"},
    {7, "CLOCK_BOOTTIME"},
    {11, "CLOCK_TAI"},
    {0, ""},
};
const struct name ip_protocols[] = {
    {0, "IPPROTO_IP"},    {1, "IPPROTO_ICMP"},    {6, "IPPROTO_TCP"},
    {17, "IPPROTO_UDP"},  {58, "IPPROTO_ICMPV6"}, {132, "IPPROTO_SCTP"},
    {255, "IPPROTO_RAW"}, {262, "IPPROTO_MPTCP"}, {0, ""},
};
const struct name epoll_operations[] = {
    NAME(EPOLL_CTL_ADD),
    NAME(EPOLL_CTL_DEL),
    NAME(EPOLL_CTL_MOD),
    {0, ""},
};
const struct name splice_flags[] = {
    {1, "SPLICE_F_MOVE"}, {2, "SPLICE_F_NONBLOCK"}, {4, "SPLICE_F_MORE"}, {8, "SPLICE_F_GIFT"}, {0, ""},
};

static const struct name errors[] = {
    NAME(EPERM),
    NAME(ENOENT),
    NAME(ESRCH),
    NAME(EINTR),
    NAME(EIO),
    NAME(ENXIO),
    NAME(E2BIG),
    NAME(ENOEXEC),
    NAME(EBADF),
    NAME(ECHILD),
    NAME(EAGAIN),
    NAME(ENOMEM),
    NAME(EACCES),
    NAME(EFAULT),
    NAME(ENOTBLK),
    NAME(EBUSY),
    NAME(EEXIST),
    NAME(EXDEV),
    NAME(ENODEV),
    NAME(ENOTDIR),
    NAME(EISDIR),
    NAME(EINVAL),
    NAME(ENFILE),
    NAME(EMFILE),
    NAME(ENOTTY),
    NAME(ETXTBSY),
    NAME(EFBIG),
    NAME(ENOSPC),
    NAME(ESPIPE),
    NAME(EROFS),
    NAME(EMLINK),
    NAME(EPIPE),
    NAME(EDOM),
    NAME(ERANGE),
    NAME(EDEADLK),
    NAME(ENAMETOOLONG),
    NAME(ENOLCK),
    NAME(ENOSYS),
    NAME(ENOTEMPTY),
    NAME(ELOOP),
    NAME(ENOMSG),
    NAME(EIDRM),
    NAME(ECHRNG),
    NAME(EL2NSYNC),
    NAME(EL3HLT),
    NAME(EL3RST),
    NAME(ELNRNG),
    NAME(EUNATCH),
    NAME(ENOCSI),
    NAME(EL2HLT),
    NAME(EBADE),
    NAME(EBADR),
    NAME(EXFULL),
    NAME(ENOANO),
    NAME(EBADRQC),
    NAME(EBADSLT),
    NAME(EBFONT),
    NAME(ENOSTR),
    NAME(ENODATA),
    NAME(ETIME),
    NAME(ENOSR),
    NAME(ENONET),
    NAME(ENOPKG),
    NAME(EREMOTE),
    NAME(ENOLINK),
    NAME(EADV),
    NAME(ESRMNT),
    NAME(ECOMM),
    NAME(EPROTO),
    NAME(EMULTIHOP),
    NAME(EDOTDOT),
    NAME(EBADMSG),
    NAME(EOVERFLOW),
    NAME(ENOTUNIQ),
    NAME(EBADFD),
    NAME(EREMCHG),
    NAME(ELIBACC),
    NAME(ELIBBAD),
    NAME(ELIBSCN),
    NAME(ELIBMAX),
    NAME(ELIBEXEC),
    NAME(EILSEQ),
    NAME(ERESTART),
    NAME(ESTRPIPE),
    NAME(EUSERS),
    NAME(ENOTSOCK),
    NAME(EDESTADDRREQ),
    NAME(EMSGSIZE),
    NAME(EPROTOTYPE),
    NAME(ENOPROTOOPT),
    NAME(EPROTONOSUPPORT),
    NAME(ESOCKTNOSUPPORT),
    NAME(EOPNOTSUPP),
    NAME(EPFNOSUPPORT),
    NAME(EAFNOSUPPORT),
    NAME(EADDRINUSE),
    NAME(EADDRNOTAVAIL),
    NAME(ENETDOWN),
    NAME(ENETUNREACH),
    NAME(ENETRESET),
    NAME(ECONNABORTED),
    NAME(ECONNRESET),
    NAME(ENOBUFS),
    NAME(EISCONN),
    NAME(ENOTCONN),
    NAME(ESHUTDOWN),
    NAME(ETOOMANYREFS),
    NAME(ETIMEDOUT),
    NAME(ECONNREFUSED),
    NAME(EHOSTDOWN),
    NAME(EHOSTUNREACH),
    NAME(EALREADY),
    NAME(EINPROGRESS),
    NAME(ESTALE),
    NAME(EUCLEAN),
    NAME(ENOTNAM),
    NAME(ENAVAIL),
    NAME(EISNAM),
    NAME(EREMOTEIO),
    NAME(EDQUOT),
    NAME(ENOMEDIUM),
    NAME(EMEDIUMTYPE),
    NAME(ECANCELED),
    NAME(ENOKEY),
    NAME(EKEYEXPIRED),
    NAME(EKEYREVOKED),
    NAME(EKEYREJECTED),
    NAME(EOWNERDEAD),
    NAME(ENOTRECOVERABLE),
    NAME(ERFKILL),
    {512, "ERESTARTSYS"},
    {513, "ERESTARTNOINTR"},
    {514, "ERESTARTNOHAND"},
    {516, "ERESTART_RESTARTBLOCK"},
    {0, ""},
};

const char *errno_name(int number)
{
    return name_of(errors, number);
}

static const struct name signals[] = {
    NAME(SIGHUP),  NAME(SIGINT),    NAME(SIGQUIT), NAME(SIGILL),  NAME(SIGTRAP),   NAME(SIGABRT), NAME(SIGBUS),
    NAME(SIGFPE),  NAME(SIGKILL),   NAME(SIGUSR1), NAME(SIGSEGV), NAME(SIGUSR2),   NAME(SIGPIPE), NAME(SIGALRM),
    NAME(SIGTERM), NAME(SIGSTKFLT), NAME(SIGCHLD), NAME(SIGCONT), NAME(SIGSTOP),   NAME(SIGTSTP), NAME(SIGTTIN),
    NAME(SIGTTOU), NAME(SIGURG),    NAME(SIGXCPU), NAME(SIGXFSZ), NAME(SIGVTALRM), NAME(SIGPROF), NAME(SIGWINCH),
    NAME(SIGIO),   NAME(SIGPWR),    NAME(SIGSYS),  {0, ""},
};

const char *signal_name(int number)
{
    return name_of(signals, number);
}

uint16_t call_flags(uint32_t number)
{
    static uint16_t flags[MAX_CALLS];
    if (!flags[call_table[0].number])
        for (size_t at = 0; at < call_count; at++)
            flags[call_table[at].number] = call_table[at].flags;
    return number < MAX_CALLS ? flags[number] : 0;
}
