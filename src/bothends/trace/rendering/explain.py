"""What each call means, in words for whoever meets it for the first time. Pure.

`CALLS` is a table, one entry a call: its C prototype (Linux man-pages, section 2), how Python does the
same, and what it is for. `meaning` says what one call in particular shows; `named_arguments` names its
arguments.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from bothends.trace.capture.calls import ACCEPTING, FORKING, REAPING, RECEIVING, SENDING, WAITING
from bothends.trace.model import Call, Packet, Socket, Trace
from bothends.trace.rendering import formatting


class SyscallDoc(NamedTuple):
    """One system call."""

    prototype: str
    python: str
    summary: str


CALLS: Final[dict[str, SyscallDoc]] = {
    "socket": SyscallDoc(
        "int socket(int domain, int type, int protocol);",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "Makes a socket: an end for talking, which has no address yet.",
    ),
    "socketpair": SyscallDoc(
        "int socketpair(int domain, int type, int protocol, int sv[2]);",
        "socket.socketpair()",
        "Makes two sockets that are connected with each other.",
    ),
    "bind": SyscallDoc(
        "int bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen);",
        's.bind(("", 12000))',
        "Gives the socket its own address and port, so that others can find it.",
    ),
    "listen": SyscallDoc(
        "int listen(int sockfd, int backlog);",
        "s.listen(backlog)",
        "Makes the socket a listener: from now on the kernel welcomes clients by itself and lets them "
        "wait in a queue.",
    ),
    "accept": SyscallDoc(
        "int accept(int sockfd, struct sockaddr *addr, socklen_t *addrlen);",
        "connection, address = s.accept()",
        "Takes the next client out of the queue, or waits for one.",
    ),
    "accept4": SyscallDoc(
        "int accept4(int sockfd, struct sockaddr *addr, socklen_t *addrlen, int flags);",
        "connection, address = s.accept()",
        "Takes the next client out of the queue, or waits for one.",
    ),
    "connect": SyscallDoc(
        "int connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen);",
        's.connect(("127.0.0.1", 12000))',
        "Connects to a listener: TCP shakes hands first.",
    ),
    "write": SyscallDoc(
        "ssize_t write(int fd, const void *buf, size_t count);",
        "os.write(s.fileno(), data)",
        "Gives bytes to the kernel, which sends them when it can. What it returns is how many it took.",
    ),
    "writev": SyscallDoc(
        "ssize_t writev(int fd, const struct iovec *iov, int iovcnt);",
        "s.sendmsg([part, part])",
        "Gives the bytes of several buffers to the kernel, one after the other.",
    ),
    "sendto": SyscallDoc(
        "ssize_t sendto(int sockfd, const void *buf, size_t len, int flags, const struct sockaddr "
        "*dest_addr, "
        "socklen_t addrlen);",
        "s.send(data), or s.sendto(data, address)",
        "Gives bytes to the kernel, which sends them when it can. What it returns is how many it took.",
    ),
    "sendmsg": SyscallDoc(
        "ssize_t sendmsg(int sockfd, const struct msghdr *msg, int flags);",
        "s.sendmsg([part, part])",
        "Gives bytes to the kernel, with an address or with descriptors if need be.",
    ),
    "sendmmsg": SyscallDoc(
        "int sendmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags);",
        "no equivalent: s.sendmsg() for each",
        "Sends several messages at once.",
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
        "Moves bytes between a pipe and a socket without copying them through the program.",
    ),
    "read": SyscallDoc(
        "ssize_t read(int fd, void *buf, size_t count);",
        "os.read(s.fileno(), size)",
        "Takes what has come, at most so much, or waits until something has. 0 is the end.",
    ),
    "readv": SyscallDoc(
        "ssize_t readv(int fd, const struct iovec *iov, int iovcnt);",
        "s.recvmsg_into([buffer, buffer])",
        "Takes what has come, into several buffers.",
    ),
    "recvfrom": SyscallDoc(
        "ssize_t recvfrom(int sockfd, void *buf, size_t len, int flags, struct sockaddr *src_addr, "
        "socklen_t *addrlen);",
        "s.recv(size), or s.recvfrom(size)",
        "Takes what has come, at most so much, or waits until something has. 0 is the end.",
    ),
    "recvmsg": SyscallDoc(
        "ssize_t recvmsg(int sockfd, struct msghdr *msg, int flags);",
        "s.recvmsg(size)",
        "Takes what has come, with its address and what else came along.",
    ),
    "recvmmsg": SyscallDoc(
        "int recvmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags, struct timespec "
        "*timeout);",
        "no equivalent: s.recvmsg() for each",
        "Takes several messages at once.",
    ),
    "shutdown": SyscallDoc(
        "int shutdown(int sockfd, int how);",
        "s.shutdown(socket.SHUT_WR)",
        "Ends one direction of a connection, or both, whoever else has the socket open.",
    ),
    "close": SyscallDoc(
        "int close(int fd);",
        "s.close()",
        "Gives the descriptor back. When it was the last one of the socket, the connection ends.",
    ),
    "getsockopt": SyscallDoc(
        "int getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen);",
        "s.getsockopt(level, option)",
        "Asks how an option of the socket is set.",
    ),
    "setsockopt": SyscallDoc(
        "int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen);",
        "s.setsockopt(level, option, value)",
        "Sets an option of the socket.",
    ),
    "getsockname": SyscallDoc(
        "int getsockname(int sockfd, struct sockaddr *addr, socklen_t *addrlen);",
        "s.getsockname()",
        "Asks for the socket's own address.",
    ),
    "getpeername": SyscallDoc(
        "int getpeername(int sockfd, struct sockaddr *addr, socklen_t *addrlen);",
        "s.getpeername()",
        "Asks who is at the other end.",
    ),
    "fcntl": SyscallDoc(
        "int fcntl(int fd, int op, ...);",
        "s.setblocking(False)",
        "Asks or sets something about the descriptor: whether calls wait, for example.",
    ),
    "ioctl": SyscallDoc(
        "int ioctl(int fd, unsigned long op, ...);",
        "s.setblocking(False)",
        "Asks or sets something about the socket: whether calls wait, for example.",
    ),
    "dup": SyscallDoc("int dup(int oldfd);", "s.dup()", "Makes a second descriptor of the same socket."),
    "dup2": SyscallDoc(
        "int dup2(int oldfd, int newfd);",
        "os.dup2(old, new)",
        "Makes another descriptor refer to the same socket: how a program gets a connection as its "
        "standard input.",
    ),
    "dup3": SyscallDoc(
        "int dup3(int oldfd, int newfd, int flags);",
        "os.dup2(old, new, inheritable=False)",
        "Makes another descriptor refer to the same socket.",
    ),
    "poll": SyscallDoc(
        "int poll(struct pollfd *fds, nfds_t nfds, int timeout);",
        "select.poll().poll(timeout)",
        "Waits until one of several sockets has something to do.",
    ),
    "ppoll": SyscallDoc(
        "int ppoll(struct pollfd *fds, nfds_t nfds, const struct timespec *tmo_p, const sigset_t *sigmask);",
        "select.poll().poll(timeout)",
        "Waits until one of several sockets has something to do.",
    ),
    "select": SyscallDoc(
        "int select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, struct timeval "
        "*timeout);",
        "select.select(reading, writing, [])",
        "Waits until one of several sockets has something to do.",
    ),
    "pselect6": SyscallDoc(
        "int pselect(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, "
        "const struct timespec *timeout, const sigset_t *sigmask);",
        "select.select(reading, writing, [])",
        "Waits until one of several sockets has something to do.",
    ),
    "epoll_ctl": SyscallDoc(
        "int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);",
        "epoll.register(s, select.EPOLLIN)",
        "Says which sockets an epoll instance waits for.",
    ),
    "epoll_wait": SyscallDoc(
        "int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout);",
        "epoll.poll(timeout)",
        "Waits until one of the registered sockets has something to do.",
    ),
    "epoll_pwait": SyscallDoc(
        "int epoll_pwait(int epfd, struct epoll_event *events, int maxevents, int timeout, "
        "const sigset_t *sigmask);",
        "epoll.poll(timeout)",
        "Waits until one of the registered sockets has something to do.",
    ),
    "fork": SyscallDoc("pid_t fork(void);", "os.fork()", "Makes a child, which has every descriptor too."),
    "vfork": SyscallDoc(
        "pid_t vfork(void);", "subprocess.Popen(...)", "Makes a child that soon runs another program."
    ),
    "clone": SyscallDoc(
        "int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);",
        "os.fork()",
        "Makes a child, which has every descriptor too: fork() is this call on Linux.",
    ),
    "clone3": SyscallDoc(
        "long clone3(struct clone_args *cl_args, size_t size);",
        "os.fork()",
        "Makes a child, which has every descriptor too.",
    ),
    "wait4": SyscallDoc(
        "pid_t wait4(pid_t pid, int *wstatus, int options, struct rusage *rusage);",
        "os.waitpid(-1, 0)",
        "Asks how a child has ended, so that nothing is left of it.",
    ),
    "waitid": SyscallDoc(
        "int waitid(idtype_t idtype, id_t id, siginfo_t *infop, int options);",
        "os.waitid(os.P_ALL, 0, os.WEXITED)",
        "Asks how a child has ended, so that nothing is left of it.",
    ),
}  # fmt: skip

# What an error means, and mostly why.
ERRORS: Final[dict[str, str]] = {
    "EAGAIN": "nothing to do now, and the socket must not wait: try again when select, poll or epoll says so",
    "EINPROGRESS": "the handshake goes on; the socket turns writable when it is over",
    "EINTR": "a signal came first",
    "ERESTARTSYS": "a signal came first; the kernel begins the call again",
    "ECONNREFUSED": "nobody listens there, and the other machine says so at once",
    "ECONNRESET": "the other end has cut the connection off (RST); what it had sent and we had not read "
    "may be lost",
    "EPIPE": "the other end has closed: nobody will read this",
    "EADDRINUSE": "another socket has this port, or its connections are still in TIME-WAIT",
    "EADDRNOTAVAIL": "this machine has no such address",
    "EACCES": "not allowed: ports below 1024 need a privilege",
    "ETIMEDOUT": "no answer came, however often it was tried",
    "EHOSTUNREACH": "no way leads there",
    "ENETUNREACH": "no way leads there",
    "ENOTCONN": "the socket is not connected",
    "EISCONN": "the socket is connected already",
    "EMFILE": "the process has as many descriptors as it may have",
    "EMSGSIZE": "too long for one datagram",
    "ENOENT": "there is no such path",
    "ECHILD": "there are no children to wait for",
}

FLAGS: Final[dict[str, str]] = {
    "SYN": "asks for a connection and tells the first sequence number",
    "FIN": "says that nothing more will be sent in this direction",
    "RST": "cuts the connection off: nothing that is under way will be delivered",
    "PSH": "asks that the data be given to the program without waiting for more",
    "ACK": "says how far everything has arrived",
}


def explain_call(call: Call, trace: Trace) -> str:
    """What a call shows, in a sentence or two. Empty for a call that isn't in the table."""
    entry = CALLS.get(call.name)
    if entry is None:
        return ""
    if call.error:
        return f"{call.error}: {ERRORS.get(call.error, 'the kernel refused')}."
    socket = trace.sockets.get(call.socket) if call.socket is not None else None
    said = _explain_arguments(call, socket, trace)
    return said or entry.summary


def _explain_arguments(call: Call, socket: Socket | None, trace: Trace) -> str:
    """What this call in particular means; empty where its entry says all."""
    result = call.result if call.result is not None else -1
    match call.name:
        case name if name in ACCEPTING and result >= 0:
            made = trace.sockets.get(call.made or 0)
            who = f" ({made.peer})" if made is not None and made.peer is not None else ""
            welcoming = formatting.descriptor_text(call)
            return f"A new socket, {result}, for this client{who}; the welcoming socket, {welcoming}, stays."
        case "listen":
            return (
                "The port is open: from now on the kernel shakes hands with clients, before accept() is "
                "called."
            )
        case "bind" if call.place is not None and call.place.port == 0:
            return "Port 0: the system picks a free one."
        case "bind" if call.place is not None and call.place.is_wildcard:
            return f"Port {call.place.port} of every address of this machine."
        case "connect" if socket is not None and socket.kind == "datagram":
            return "Nothing is sent: it only sets whom this socket talks to."
        case "connect" if result == 0 and socket is not None and socket.family in ("inet", "inet6"):
            return f"The handshake is done. The system picked our own port: {_local_port(socket)}."
        case "shutdown" if call.arguments[1:2] == ("SHUT_WR",):
            return (
                "Half-close: nothing more will be sent, and the other end reads to an end; we can still "
                "receive."
            )
        case name if name in RECEIVING and result >= 0 and socket is not None:
            return _explain_receive(call, socket, trace)
        case name if name in SENDING and result >= 0 and socket is not None:
            if call.asked is not None and call.size < call.asked:
                return (
                    f"It took {call.size} of {call.asked} bytes: the rest must be sent again by the program."
                )
            if socket.kind == "datagram":
                return "One datagram: it arrives whole or not at all, and nobody says which."
            return f"The kernel took {_byte_count(call.size)}: that is not to say that they have arrived."
        case name if name in WAITING and result == 0:
            return "The time was up, and no socket had anything to do."
        case name if name in WAITING and result > 0:
            return f"{result} of {len(call.sockets)} sockets have something to do."
        case name if name in FORKING and result > 0:
            return (
                f"A child, process {result}: it has a copy of every descriptor, so each socket now has "
                f"two owners."
            )
        case name if name in REAPING and result > 0:
            return f"Process {result} has ended, and now nothing is left of it."
        case _:
            return ""


def _explain_receive(call: Call, socket: Socket, trace: Trace) -> str:
    if socket.kind in ("datagram", "seqpacket"):
        came = _available_bytes(call, trace)
        if came > call.size:
            return (
                f"Only {call.size} of the datagram's {came} bytes: there was no room, and the rest is gone."
            )
        return f"One datagram of {_byte_count(call.size)}, whole."
    if call.size == 0:
        return "0 bytes: the other end has finished sending."
    unread = _available_bytes(call, trace) - call.size
    if "MSG_PEEK" in call.flags:
        return f"A look at {_byte_count(call.size)}, which stay in the kernel."
    if call.asked == call.size and unread > 0:
        return f"This read took {call.size} of {call.size + unread} bytes: the rest is still in the kernel."
    return f"{_byte_count(call.size).capitalize()} of a stream: a message may be longer, or there may be two."


def _available_bytes(call: Call, trace: Trace) -> int:
    """How many bytes there were in what fed this call."""
    fed = {link.cause for link in trace.causes_of(call.number) if link.kind in ("feeds", "reaches")}
    packets = [event for event in map(trace.event, fed) if isinstance(event, Packet)]
    calls = [event for event in map(trace.event, fed) if isinstance(event, Call)]
    return sum(each.size for each in packets) or sum(each.size for each in calls) or call.size


def named_arguments(call: Call) -> list[tuple[str, str]]:
    """The arguments, each with the name that its prototype has for it."""
    entry = CALLS.get(call.name)
    names = (
        re.findall(r"(\w+)(?:\[2\])?(?=[,)])", entry.prototype.partition("(")[2]) if entry is not None else []
    )
    return [
        (names[index] if index < len(names) else f"argument {index + 1}", value)
        for index, value in enumerate(call.arguments)
    ]


def explain_packet(packet: Packet) -> str:
    """What a packet says, in words."""
    if packet.protocol == "udp":
        return (
            f"A datagram of {_byte_count(packet.size)}, from {packet.source} to {packet.destination}."
            + _transit_note(packet)
        )
    parts = [f"{flag} {FLAGS[flag]}" for flag in packet.flags if flag in FLAGS]
    text = "; ".join(parts) + "."
    if packet.size:
        offset = packet.offset or 0
        text += f" It carries the bytes {offset} to {offset + packet.size - 1} of the stream."
    if packet.resent:
        text += " It was sent before: the acknowledgement did not come in time."
    return text + _transit_note(packet)


def _transit_note(packet: Packet) -> str:
    """What became of a packet on a wire of ours."""
    if packet.lost:
        return f" It never arrived: it was lost on the wire ({packet.lost})."
    if packet.made:
        return " Nobody sent it so: the wire has doubled or changed a packet."
    if packet.until is not None:
        return f" It was under way for {formatting.duration(packet.until - packet.at)}."
    return ""


def _local_port(socket: Socket) -> str:
    return str(socket.local.port) if socket.local is not None and socket.local.port else "not known here"


def _byte_count(size: int) -> str:
    return "1 byte" if size == 1 else f"{size} bytes"


def quoted_data(call: Call) -> str:
    """The data of a call, quoted; empty where there is none."""
    return formatting.quoted(call.data, call.size or len(call.data), 400) if call.data else ""
