"""Rules about bind() and listen(): addresses in use, missing rights, and ignored errors. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, RECEIVING, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import (
    Binding,
    bound_sockets,
    capitalized,
    closed_at,
    name_of,
)
from bothends.trace.model import Call, Socket, SocketAddress
from bothends.trace.rendering import formatting

_REUSE_IN_C: Final = "setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));  /* before bind() */"
_REUSE_IN_PYTHON: Final = "sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # before bind()"


def stale_path(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find bind() of a UNIX socket with EADDRINUSE: the path exists."""
    for call, socket in _failed_binds(trace_index, "EADDRINUSE"):
        address = call.address
        if socket.family != "unix" or address is None or _has_alternative(trace_index, call):
            continue
        earlier = [
            each
            for each in bound_sockets(trace_index, "stream", "seqpacket", "datagram")
            if each.socket.family == "unix" and each.address == address and each.since <= call.at
        ]
        holder = next((each for each in earlier if each.is_open_at(call.at)), None)
        if holder is not None:
            text = (
                f"bind to {address} failed: {name_of(trace_index, holder.process)} has a socket with that "
                "path, and it is still open."
            )
            remedy = "End that program first, or use another path."
            certainty, basis = "seen", ""
        elif address.host.startswith("@"):
            text = f"bind to {address} failed: an open socket outside this trace has that abstract name."
            remedy = "End its program, or use another name; ss -xlp lists them."
            certainty, basis = "seen", ""
        else:
            since = earlier[-1].until if earlier else None
            when = (
                f" The socket that made it was closed {formatting.duration(call.at - since)} before."
                if since is not None
                else ""
            )
            text = (
                f"bind to {address} failed with EADDRINUSE: {'a' if earlier else 'probably a'} file of an "
                f"earlier run has that path.{when} close() does not remove it."
            )
            remedy = (
                "Remove the file before bind(), and when the server ends. First connect to it: if that "
                "succeeds, a server is running there. SO_REUSEADDR has no effect on UNIX sockets."
            )
            certainty = "seen" if earlier else "inferred"
            basis = "" if earlier else "no traced program has that path open"
        yield Finding(
            "stale-path",
            "The path of a UNIX socket exists already",
            text,
            remedy,
            (*((earlier[-1].call.number,) if earlier else ()), call.number),
            certainty=certainty,  # type: ignore[arg-type]
            basis=basis,
            process=call.process,
            sockets=(socket.number,),
            in_c="unlink(address.sun_path);  /* before bind() */",
            in_python="os.unlink(path)  # before bind(), if the file exists",
        )


def port_in_use(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find bind() or listen() with EADDRINUSE: another socket has the port, or TIME-WAIT remains."""
    for call, socket in _failed_binds(trace_index, "EADDRINUSE"):
        address = call.address or socket.local
        if socket.family == "unix" or address is None or _has_alternative(trace_index, call):
            continue
        evidence: tuple[int, ...] = (call.number,)
        holder = _holder(trace_index, call, socket, address)
        closed = _closed_connection(trace_index, call, address)
        reuses = trace_index.has_option(socket, "SO_REUSEADDR", call.at)
        certainty, basis, in_c, in_python = "seen", "", "", ""
        inheritors = _inheritors(trace_index, call, holder) if holder is not None else {}
        title = "The port is in use"
        if holder is not None and inheritors:
            inheritor = min(inheritors)
            title = "A child process keeps the port: it inherited the listening socket"
            pid, whose = trace_index.process(inheritor).pid, name_of(trace_index, holder.process)
            gone = "closed it" if trace_index.ended_at(holder.process) is None else "exited"
            text = (
                f"bind to {address} failed: {whose} had {holder.address} and has {gone}, but process "
                f"{pid} ({name_of(trace_index, inheritor)}), which it started, holds a copy as descriptor "
                f"{min(inheritors[inheritor])}. The port is free when the last copy is closed."
            )
            remedy = (
                "Open the listening socket with close-on-exec, and close it in a child after fork() if the "
                "child does not accept. SO_REUSEADDR does not help while a socket listens there."
            )
            evidence = (holder.call.number, call.number)
            in_c = "int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);"
            in_python = "subprocess.Popen(command, close_fds=True)   # and no set_inheritable(True)"
        elif holder is not None:
            whose = name_of(trace_index, holder.process)
            pid = trace_index.process(holder.process).pid
            text = (
                f"bind to {address} failed: {whose} (process {pid}) has {holder.address}"
                f"{' itself' if holder.process == call.process else ''}, and it is still open."
            )
            remedy = "End that program first, close its socket, or use another port."
            evidence = (holder.call.number, call.number)
        elif socket.kind == "stream" and not reuses and closed is not None:
            text = (
                f"bind to {address} failed: this end closed the connection with "
                f"{closed.address or 'a client'} first, so the port is in TIME-WAIT for a minute, "
                "and SO_REUSEADDR is not set."
            )
            remedy = "Set SO_REUSEADDR before bind(): a server need not wait for TIME-WAIT."
            certainty, basis = (
                "inferred",
                "an earlier connection at this port was closed, and no socket has it now",
            )
            evidence = (closed.number, call.number)
            in_c, in_python = _REUSE_IN_C, _REUSE_IN_PYTHON
        elif socket.kind == "stream" and not reuses:
            text = (
                f"bind to {address} failed: no traced program has that port. Another program has it, or "
                "probably connections of an earlier server are in TIME-WAIT, because SO_REUSEADDR is not set."
            )
            remedy = (
                f"Set SO_REUSEADDR before bind(). If that does not help, find the program with "
                f"bothends sockets or ss -ltnp sport = :{address.port}."
            )
            certainty, basis = "inferred", "no traced program has the port"
            in_c, in_python = _REUSE_IN_C, _REUSE_IN_PYTHON
        else:
            kind = "t" if socket.kind == "stream" else "u"
            text = f"bind to {address} failed: a program outside this trace has that port."
            remedy = f"Find it with bothends sockets or ss -l{kind}np, and end it; or use another port."
        yield Finding(
            "port-in-use",
            title,
            text,
            remedy,
            evidence,
            certainty=certainty,  # type: ignore[arg-type]
            basis=basis,
            process=call.process,
            sockets=(socket.number,),
            in_c=in_c,
            in_python=in_python,
        )


def _inheritors(trace_index: TraceIndex, failed: Call, holder: Binding) -> dict[int, set[int]]:
    """Return the processes that have the port only by inheritance, if the one that bound it has not."""
    held = trace_index.holders_at(holder.socket.number, failed.at)
    return {} if holder.process in held else held


def _failed_binds(trace_index: TraceIndex, *errors: str) -> Iterator[tuple[Call, Socket]]:
    """Return the first bind() or listen() for each target that failed with one of these errors."""
    seen = set()
    for call in trace_index.calls_named("bind", "listen"):
        if call.error not in errors or call.socket is None:
            continue
        key = call.process, call.address
        if key not in seen:
            seen.add(key)
            yield call, trace_index.trace.sockets[call.socket]


def _has_alternative(trace_index: TraceIndex, failed: Call) -> bool:
    """Return whether the program has bound an address later, or connected to the one it could not bind."""
    socket = trace_index.trace.sockets[failed.socket or 0]
    for call in trace_index.calls_by_process[failed.process]:
        is_connect = call.name == "connect" and (not call.failed or call.error == "EINPROGRESS")
        if is_connect and call.at > failed.at and call.address == failed.address:
            return True  # the program runs already: this instance is its client
        if call.name != "bind" or call.failed or call.result is None or call.socket is None:
            continue
        other = trace_index.trace.sockets[call.socket]
        if other.kind != socket.kind or (other.family == "unix") != (socket.family == "unix"):
            continue
        if call.at > failed.at:
            return True
        both = call.address is not None and failed.address is not None
        if (
            both
            and call.address.host == "::"  # type: ignore[union-attr]
            and failed.address.port == call.address.port  # type: ignore[union-attr]
            and other.family != socket.family
        ):
            return True  # :: has the IPv4 addresses, too
    return False


def _holder(trace_index: TraceIndex, failed: Call, socket: Socket, address: SocketAddress) -> Binding | None:
    for each in bound_sockets(trace_index, socket.kind):
        if each.address.port != address.port or each.socket.number == socket.number:
            continue
        overlaps = each.address.is_wildcard or address.is_wildcard or each.address.host == address.host
        if overlaps and each.is_open_at(failed.at):
            return each
    return None


def _closed_connection(trace_index: TraceIndex, failed: Call, address: SocketAddress) -> Call | None:
    """Return the accept() of an earlier connection at the address."""
    for each in trace_index.trace.sockets.values():
        if each.accepted_from is None or each.local is None or each.local.port != address.port:
            continue
        until = closed_at(trace_index, each.number)
        if until is not None and until < failed.at:
            listener = trace_index.calls_by_socket[each.accepted_from]
            return next((call for call in listener if call.created_id == each.number), None)
    return None


_REASONS: Final = {
    "EACCES": (
        "ports below 1024 need root or CAP_NET_BIND_SERVICE",
        (
            "Use a port from 1024 up, or give the program the right: sudo, systemd's AmbientCapabilities, or "
            "net.ipv4.ip_unprivileged_port_start."
        ),
    ),
    "EADDRNOTAVAIL": (
        "no interface of this machine has that address",
        (
            "Bind 0.0.0.0 or :: (every address), or an address that ip address lists. A client does not bind "
            "the server's address."
        ),
    ),
    "EINVAL": (
        "the socket is bound already, or the length of the address is wrong",
        "Bind a socket once, and pass the size of the structure of its family.",
    ),
    "EAFNOSUPPORT": (
        "the address is of another family than the socket",
        "Give socket() and the address the same family: AF_INET and sockaddr_in, AF_INET6 and sockaddr_in6.",
    ),
    "ENOENT": ("a folder of the path does not exist", "Make the folder, or use another path."),
    "EDESTADDRREQ": ("the socket has no address", "Call bind() first."),
    "EOPNOTSUPP": (
        "a datagram socket has no connections",
        "Make the socket with SOCK_STREAM, or leave out listen() and accept() and use recvfrom().",
    ),
}


def bind_error_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that continues after bind() failed: listen() then chooses a port by itself."""
    for call in trace_index.calls_named("bind"):
        if not call.failed or call.socket is None:
            continue
        later = list(trace_index.later_calls(call))
        bound = [each for each in later if each.name == "bind" and each.result == 0]
        used = next(
            (
                each
                for each in later
                if each.name == "listen" or each.name in ACCEPTING or each.name in RECEIVING
            ),
            None,
        ) or next(
            (
                each
                for each in trace_index.calls_by_process[call.process]
                if each.at > call.at and each.name in WAITING and call.socket in each.sockets
            ),
            None,
        )
        if bound or used is None or _is_client(later, used):
            continue
        socket = trace_index.trace.sockets[call.socket]
        was_bound = any(
            each.name == "bind" and not each.failed and each.at < call.at
            for each in trace_index.calls_by_socket[call.socket]
        )
        chosen = ""
        if not was_bound and used.name == "listen" and not used.failed:
            port = socket.local.port if socket.local is not None and socket.local != call.address else None
            chosen = f" listen() then chose {f'port {port}' if port else 'a free port'} by itself."
        address = call.address or "the address"
        reason, remedy = _REASONS.get(call.error, ("", ""))
        yield Finding(
            "bind-error-ignored",
            "The program ignores that bind() failed",
            f"bind to {address} failed with {call.error}{f' ({reason})' if reason else ''}, and "
            f"{name_of(trace_index, call.process)} continued with {used.name}.{chosen}",
            f"Check the return value of bind(), and stop on an error. {remedy}".strip(),
            (call.number, used.number),
            process=call.process,
            sockets=(call.socket,),
            in_c='if (bind(fd, address, size) < 0) { perror("bind"); exit(1); }',
            in_python="sock.bind(address)  # raises OSError: do not catch and ignore it",
        )


def _is_client(calls: list[Call], used: Call) -> bool:
    """Return whether the socket was connected before it was used: any local port will do."""
    return any(
        each.name == "connect" and each.at < used.at and (not each.failed or each.error == "EINPROGRESS")
        for each in calls
    )


def bind_failed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find bind() or listen() that failed for another reason than an address in use."""
    for call, socket in _failed_binds(trace_index, *_REASONS):
        if _has_alternative(trace_index, call):
            continue
        ended = trace_index.process(call.process).status
        if call.name == "bind" and not ended and trace_index.ended_at(call.process) is not None:
            continue  # it probed the address
        reason, remedy = _REASONS[call.error]
        what = f"bind to {call.address}" if call.address is not None else f"{call.name}"
        if call.error == "EACCES" and (call.address is None or (call.address.port or 1024) >= 1024):
            reason, remedy = "the program has no right to use it", "Check the rights of the path or the port."
        yield Finding(
            "bind-failed",
            f"{call.name}() failed",
            f"{capitalized(name_of(trace_index, call.process))}: {what} failed with {call.error}, because "
            f"{reason}.",
            remedy,
            (call.number,),
            process=call.process,
            sockets=(socket.number,),
        )
