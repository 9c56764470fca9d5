"""Explain calls and packets in simple English, for students who see them for the first time. Pure.

`CALLS` is a table of system calls: the C prototype (Linux man-pages, section 2), the Python equivalent, and a
summary. `explain_call` explains one particular call; `named_arguments` names its arguments.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from bothends.escaping import escape_text
from bothends.trace.capture.calls import ACCEPTING, FORKING, REAPING, RECEIVING, SENDING, WAITING
from bothends.trace.model import Call, Packet, Socket, Trace
from bothends.trace.rendering import formatting


class SyscallDoc(NamedTuple):
    """The documentation of a system call."""

    prototype: str
    python: str
    summary: str


CALLS: Final[dict[str, SyscallDoc]] = {
    "socket": SyscallDoc(
        "int socket(int domain, int type, int protocol);",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "Creates a socket: an endpoint for communication. It has no address yet.",
    ),
    "socketpair": SyscallDoc(
        "int socketpair(int domain, int type, int protocol, int sv[2]);",
        "socket.socketpair()",
        "Creates two sockets that are connected to each other.",
    ),
    "bind": SyscallDoc(
        "int bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen);",
        's.bind(("", 12000))',
        "Gives the socket a local address and port, so that other programs can reach it.",
    ),
    "listen": SyscallDoc(
        "int listen(int sockfd, int backlog);",
        "s.listen(backlog)",
        "Makes the socket a listener. From now on the kernel completes the handshakes of clients and puts "
        "their connections into the accept queue.",
    ),
    "accept": SyscallDoc(
        "int accept(int sockfd, struct sockaddr *addr, socklen_t *addrlen);",
        "connection, address = s.accept()",
        "Takes the next connection from the accept queue, or waits for one.",
    ),
    "accept4": SyscallDoc(
        "int accept4(int sockfd, struct sockaddr *addr, socklen_t *addrlen, int flags);",
        "connection, address = s.accept()",
        "Takes the next connection from the accept queue, or waits for one.",
    ),
    "connect": SyscallDoc(
        "int connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen);",
        's.connect(("127.0.0.1", 12000))',
        "Connects to a listener. With TCP, the kernels first do the three-way handshake.",
    ),
    "write": SyscallDoc(
        "ssize_t write(int fd, const void *buf, size_t count);",
        "os.write(s.fileno(), data)",
        "Copies bytes to the kernel, which sends them as soon as it can. Returns how many bytes it accepted.",
    ),
    "writev": SyscallDoc(
        "ssize_t writev(int fd, const struct iovec *iov, int iovcnt);",
        "s.sendmsg([part, part])",
        "Copies the bytes of several buffers to the kernel, one buffer after the other.",
    ),
    "sendto": SyscallDoc(
        "ssize_t sendto(int sockfd, const void *buf, size_t len, int flags, const struct sockaddr "
        "*dest_addr, "
        "socklen_t addrlen);",
        "s.send(data), or s.sendto(data, address)",
        "Copies bytes to the kernel, which sends them as soon as it can. Returns how many bytes it accepted.",
    ),
    "sendmsg": SyscallDoc(
        "ssize_t sendmsg(int sockfd, const struct msghdr *msg, int flags);",
        "s.sendmsg([part, part])",
        "Copies bytes to the kernel. It can also pass an address, or descriptors.",
    ),
    "sendmmsg": SyscallDoc(
        "int sendmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags);",
        "no equivalent: s.sendmsg() for each",
        "Sends several messages with one call.",
    ),
    "sendfile": SyscallDoc(
        "ssize_t sendfile(int out_fd, int in_fd, off_t *offset, size_t count);",
        "s.sendfile(file)",
        "Sends a part of a file without copying it through the program.",
    ),
    "splice": SyscallDoc(
        "ssize_t splice(int fd_in, off_t *off_in, int fd_out, off_t *off_out, size_t len, unsigned int "
        "flags);",
        "os.splice(source, destination, count)",
        "Transfers bytes between a pipe and a socket without copying them through the program.",
    ),
    "read": SyscallDoc(
        "ssize_t read(int fd, void *buf, size_t count);",
        "os.read(s.fileno(), size)",
        "Receives the data that has arrived, at most `count` bytes, or waits for data. 0 bytes mean EOF.",
    ),
    "readv": SyscallDoc(
        "ssize_t readv(int fd, const struct iovec *iov, int iovcnt);",
        "s.recvmsg_into([buffer, buffer])",
        "Receives the data that has arrived, into several buffers.",
    ),
    "recvfrom": SyscallDoc(
        "ssize_t recvfrom(int sockfd, void *buf, size_t len, int flags, struct sockaddr *src_addr, "
        "socklen_t *addrlen);",
        "s.recv(size), or s.recvfrom(size)",
        "Receives the data that has arrived, at most `len` bytes, or waits for data. 0 bytes mean EOF.",
    ),
    "recvmsg": SyscallDoc(
        "ssize_t recvmsg(int sockfd, struct msghdr *msg, int flags);",
        "s.recvmsg(size)",
        "Receives data together with its source address and control messages.",
    ),
    "recvmmsg": SyscallDoc(
        "int recvmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags, struct timespec "
        "*timeout);",
        "no equivalent: s.recvmsg() for each",
        "Receives several messages with one call.",
    ),
    "SSL_write": SyscallDoc(
        "int SSL_write(SSL *ssl, const void *buf, int num);",
        "s.send(data), where s is an ssl.SSLSocket",
        "OpenSSL encrypts bytes, which a system call then sends: this is what was said inside TLS.",
    ),
    "SSL_write_ex": SyscallDoc(
        "int SSL_write_ex(SSL *ssl, const void *buf, size_t num, size_t *written);",
        "s.send(data), where s is an ssl.SSLSocket",
        "OpenSSL encrypts bytes, which a system call then sends: this is what was said inside TLS.",
    ),
    "SSL_read": SyscallDoc(
        "int SSL_read(SSL *ssl, void *buf, int num);",
        "s.recv(size), where s is an ssl.SSLSocket",
        "OpenSSL decrypts bytes that a system call has received: this is what was said inside TLS.",
    ),
    "SSL_read_ex": SyscallDoc(
        "int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes);",
        "s.recv(size), where s is an ssl.SSLSocket",
        "OpenSSL decrypts bytes that a system call has received: this is what was said inside TLS.",
    ),
    "gnutls_record_send": SyscallDoc(
        "ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t data_size);",
        "s.send(data), where s is an ssl.SSLSocket",
        "GnuTLS encrypts bytes, which a system call then sends: this is what was said inside TLS.",
    ),
    "gnutls_record_recv": SyscallDoc(
        "ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t data_size);",
        "s.recv(size), where s is an ssl.SSLSocket",
        "GnuTLS decrypts bytes that a system call has received: this is what was said inside TLS.",
    ),
    "shutdown": SyscallDoc(
        "int shutdown(int sockfd, int how);",
        "s.shutdown(socket.SHUT_WR)",
        "Ends one direction of a connection, or both, even if other descriptors refer to the socket.",
    ),
    "close": SyscallDoc(
        "int close(int fd);",
        "s.close()",
        "Closes the descriptor. If it was the last one of the socket, the connection ends.",
    ),
    "getsockopt": SyscallDoc(
        "int getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen);",
        "s.getsockopt(level, option)",
        "Reads an option of the socket.",
    ),
    "setsockopt": SyscallDoc(
        "int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen);",
        "s.setsockopt(level, option, value)",
        "Sets an option of the socket.",
    ),
    "getsockname": SyscallDoc(
        "int getsockname(int sockfd, struct sockaddr *addr, socklen_t *addrlen);",
        "s.getsockname()",
        "Returns the socket's own (local) address.",
    ),
    "getpeername": SyscallDoc(
        "int getpeername(int sockfd, struct sockaddr *addr, socklen_t *addrlen);",
        "s.getpeername()",
        "Returns the address of the peer.",
    ),
    "fcntl": SyscallDoc(
        "int fcntl(int fd, int op, ...);",
        "s.setblocking(False)",
        "Reads or changes a property of the descriptor: for example, whether its calls block.",
    ),
    "ioctl": SyscallDoc(
        "int ioctl(int fd, unsigned long op, ...);",
        "s.setblocking(False)",
        "Reads or changes a property of the socket: for example, whether its calls block.",
    ),
    "dup": SyscallDoc("int dup(int oldfd);", "s.dup()", "Creates a second descriptor for the same socket."),
    "dup2": SyscallDoc(
        "int dup2(int oldfd, int newfd);",
        "os.dup2(old, new)",
        "Makes another descriptor refer to the same socket. This is how a connection becomes the standard "
        "input of a program.",
    ),
    "dup3": SyscallDoc(
        "int dup3(int oldfd, int newfd, int flags);",
        "os.dup2(old, new, inheritable=False)",
        "Makes another descriptor refer to the same socket.",
    ),
    "poll": SyscallDoc(
        "int poll(struct pollfd *fds, nfds_t nfds, int timeout);",
        "select.poll().poll(timeout)",
        "Waits until one of several sockets is ready.",
    ),
    "ppoll": SyscallDoc(
        "int ppoll(struct pollfd *fds, nfds_t nfds, const struct timespec *tmo_p, const sigset_t *sigmask);",
        "select.poll().poll(timeout)",
        "Waits until one of several sockets is ready.",
    ),
    "select": SyscallDoc(
        "int select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, struct timeval "
        "*timeout);",
        "select.select(reading, writing, [])",
        "Waits until one of several sockets is ready.",
    ),
    "pselect6": SyscallDoc(
        "int pselect(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, "
        "const struct timespec *timeout, const sigset_t *sigmask);",
        "select.select(reading, writing, [])",
        "Waits until one of several sockets is ready.",
    ),
    "epoll_ctl": SyscallDoc(
        "int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);",
        "epoll.register(s, select.EPOLLIN)",
        "Adds or removes a socket that an epoll instance waits for.",
    ),
    "epoll_wait": SyscallDoc(
        "int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout);",
        "epoll.poll(timeout)",
        "Waits until one of the registered sockets is ready.",
    ),
    "epoll_pwait": SyscallDoc(
        "int epoll_pwait(int epfd, struct epoll_event *events, int maxevents, int timeout, "
        "const sigset_t *sigmask);",
        "epoll.poll(timeout)",
        "Waits until one of the registered sockets is ready.",
    ),
    "nanosleep": SyscallDoc(
        "int nanosleep(const struct timespec *duration, struct timespec *rem);",
        "time.sleep(seconds)",
        "Sleeps: the thread does nothing else, and reads nothing that arrives.",
    ),
    "clock_nanosleep": SyscallDoc(
        "int clock_nanosleep(clockid_t clockid, int flags, const struct timespec *t, "
        "struct timespec *remain);",
        "time.sleep(seconds)",
        "Sleeps: the thread does nothing else, and reads nothing that arrives.",
    ),
    "fork": SyscallDoc(
        "pid_t fork(void);", "os.fork()", "Creates a child process, which has a copy of every descriptor."
    ),
    "vfork": SyscallDoc(
        "pid_t vfork(void);",
        "subprocess.Popen(...)",
        "Creates a child process, which will soon execute another program.",
    ),
    "clone": SyscallDoc(
        "int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);",
        "os.fork()",
        "Creates a child process, which has a copy of every descriptor. On Linux, fork() makes this call.",
    ),
    "clone3": SyscallDoc(
        "long clone3(struct clone_args *cl_args, size_t size);",
        "os.fork()",
        "Creates a child process, which has a copy of every descriptor.",
    ),
    "wait4": SyscallDoc(
        "pid_t wait4(pid_t pid, int *wstatus, int options, struct rusage *rusage);",
        "os.waitpid(-1, 0)",
        "Reads the exit status of a child process. After that, the kernel removes the child.",
    ),
    "waitid": SyscallDoc(
        "int waitid(idtype_t idtype, id_t id, siginfo_t *infop, int options);",
        "os.waitid(os.P_ALL, 0, os.WEXITED)",
        "Reads the exit status of a child process. After that, the kernel removes the child.",
    ),
}  # fmt: skip

# The meaning of an error, and its usual cause.
ERRORS: Final[dict[str, str]] = {
    "EAGAIN": "the call would block, and the socket is non-blocking; wait with select, poll or epoll, then "
    "try again",
    "EINPROGRESS": "the handshake is not complete yet; the socket becomes writable when it is",
    "EINTR": "a signal interrupted the call",
    "ECONNREFUSED": "no program listens on that port; the other machine replied at once",
    "ECONNRESET": "the peer reset the connection (RST); data that it had sent may be lost",
    "EPIPE": "the connection is closed for sending: the peer will not read this data",
    "EADDRINUSE": "another socket has this port, or old connections of the port are still in TIME-WAIT",
    "EADDRNOTAVAIL": "this machine does not have this address",
    "EACCES": "permission denied; ports below 1024 need a privilege",
    "ETIMEDOUT": "the other machine did not reply, even after several attempts",
    "EHOSTUNREACH": "the network has no route to the other machine",
    "ENETUNREACH": "this machine has no route to that network",
    "ENOTCONN": "the socket is not connected",
    "EISCONN": "the socket is already connected",
    "EMFILE": "the process has reached its limit of open descriptors",
    "EMSGSIZE": "the data is too long for one datagram",
    "ENOENT": "the path does not exist",
    "ECHILD": "the process has no child processes to wait for",
}

FLAGS: Final[dict[str, str]] = {
    "SYN": "requests a connection and sets the first sequence number",
    "FIN": "ends this direction: the sender will send no more data",
    "RST": "resets the connection: data that is still in transit is lost",
    "PSH": "asks the receiver to pass the data to the program without waiting for more",
    "ACK": "acknowledges all data before a sequence number",
}


def explain_call(call: Call, trace: Trace) -> str:
    """Explain a call in a sentence or two. Returns an empty string if it is not in the table."""
    entry = CALLS.get(call.name)
    if entry is None:
        return ""
    if call.error in formatting.INTERRUPTED:
        return "A signal interrupted the call. The kernel restarts it, or it fails with EINTR (signal(7))."
    if call.error:
        return f"{escape_text(call.error)}: {ERRORS.get(call.error, 'the kernel returned an error')}."
    socket = trace.sockets.get(call.socket) if call.socket is not None else None
    return _explain_arguments(call, socket, trace) or entry.summary


def _explain_arguments(call: Call, socket: Socket | None, trace: Trace) -> str:
    """Explain a call by its arguments and result. Returns an empty string if its summary is enough."""
    result = call.result if call.result is not None else -1
    match call.name:
        case name if name in ACCEPTING and result >= 0:
            accepted = trace.sockets.get(call.created_id or 0)
            peer = f" ({accepted.peer})" if accepted is not None and accepted.peer is not None else ""
            listener = formatting.descriptor_text(call)
            return (
                f"Socket {result} is the connection to this client{peer}. Socket {listener} keeps listening."
            )
        case "listen":
            return (
                "The port is open: from now on the kernel completes the handshakes of clients, even "
                "before the program calls accept()."
            )
        case "bind" if call.address is not None and call.address.port == 0:
            return "Port 0: the kernel chooses a free port."
        case "bind" if call.address is not None and call.address.is_wildcard:
            return f"Port {call.address.port} on every address of this machine."
        case "connect" if socket is not None and socket.kind == "datagram":
            return "This call sends no packet. It only sets the peer of this socket."
        case "connect" if result == 0 and socket is not None and socket.family in ("inet", "inet6"):
            return f"The handshake is complete. The kernel chose the local port: {_local_port(socket)}."
        case "shutdown" if call.arguments[1:2] == ("SHUT_WR",):
            return (
                "Half-close: this end sends no more data, and the other end reads EOF. This end can still "
                "receive."
            )
        case name if name in RECEIVING and result >= 0 and socket is not None:
            return _explain_receive(call, socket, trace)
        case name if name in SENDING and result >= 0 and socket is not None:
            if call.requested is not None and call.size < call.requested:
                return (
                    f"The kernel accepted {call.size} of {call.requested} bytes. The program must send "
                    f"the rest with another call."
                )
            if socket.kind == "datagram":
                return "One datagram. It arrives whole or not at all, and the sender does not learn which."
            return (
                f"The kernel accepted {_byte_count(call.size)}. This does not mean that the peer has "
                f"received {'it' if call.size == 1 else 'them'}."
            )
        case name if name in WAITING and result == 0:
            return "The timeout expired, and no socket was ready."
        case name if name in WAITING and result > 0:
            return f"{result} of {len(call.sockets)} sockets {'is' if result == 1 else 'are'} ready."
        case name if name in FORKING and result > 0:
            return (
                f"The new child process {result} has a copy of every descriptor, so each socket is now open "
                f"in two processes."
            )
        case name if name in REAPING and result > 0:
            return f"Child process {result} had exited. The kernel has now removed it."
        case _:
            return ""


def _explain_receive(call: Call, socket: Socket, trace: Trace) -> str:
    available = _available_bytes(call, trace)
    if socket.kind in ("datagram", "seqpacket"):
        if available > call.size:
            return (
                f"The buffer had room for {call.size} of the datagram's {available} bytes. The kernel "
                f"discarded the rest."
            )
        return f"One whole datagram of {_byte_count(call.size)}."
    if call.size == 0:
        return "0 bytes mean EOF: the peer sends no more data."
    if "MSG_PEEK" in call.flags:
        return f"A copy of {_byte_count(call.size)}. The data stays in the kernel, for the next read."
    if call.requested == call.size < available:
        return f"This read got {call.size} of {available} bytes. The rest is still in the kernel."
    return f"{_byte_count(call.size)} of a stream. This can be a part of a message, or more than one message."


def _available_bytes(call: Call, trace: Trace) -> int:
    """Return the total size of the packets, or sends, whose bytes a call received."""
    causes = {link.cause for link in trace.causes_of(call.number) if link.kind in ("feeds", "reaches")}
    packets = [event for event in map(trace.event, causes) if isinstance(event, Packet)]
    calls = [event for event in map(trace.event, causes) if isinstance(event, Call)]
    return sum(each.size for each in packets) or sum(each.size for each in calls) or call.size


def named_arguments(call: Call) -> list[tuple[str, str]]:
    """Return the arguments of a call, each with its name in the prototype."""
    entry = CALLS.get(call.name)
    names = (
        re.findall(r"(\w+)(?:\[2\])?(?=[,)])", entry.prototype.partition("(")[2]) if entry is not None else []
    )
    return [
        (names[index] if index < len(names) else f"argument {index + 1}", value)
        for index, value in enumerate(call.arguments)
    ]


def explain_packet(packet: Packet) -> str:
    """Explain a packet in a few sentences."""
    if packet.protocol == "udp":
        return (
            f"A datagram of {_byte_count(packet.size)} from {packet.source} to {packet.destination}."
            + _transit_note(packet)
        )
    parts = [f"{flag} {FLAGS[flag]}" for flag in packet.flags if flag in FLAGS]
    text = "; ".join(parts) + "."
    if packet.size:
        offset = packet.offset or 0
        text += f" It carries bytes {offset} to {offset + packet.size - 1} of the stream."
    if packet.resent:
        text += " It is a retransmission: the acknowledgement did not arrive in time."
    return text + _transit_note(packet)


def _transit_note(packet: Packet) -> str:
    """Say what happened to a packet on a wire."""
    if packet.lost:
        return f" It did not arrive: it was lost on the wire ({packet.lost})."
    if packet.synthesized:
        return " No program sent it: the wire duplicated or corrupted a packet."
    if packet.until is not None:
        return f" It was in transit for {formatting.duration(packet.until - packet.at)}."
    return ""


def _local_port(socket: Socket) -> str:
    return str(socket.local.port) if socket.local is not None and socket.local.port else "unknown here"


def _byte_count(size: int) -> str:
    return "1 byte" if size == 1 else f"{size} bytes"
