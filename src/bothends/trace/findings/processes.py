"""Rules about child processes and descriptors: zombies, and connections that are never closed. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import FORKING, MOVING, REAPING, SENDING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

LEAK_NS: Final = 1_000_000_000  # nanoseconds after a connection's end: a busy program closes a little late
LEAKED: Final = 3  # descriptors that make a leak, however short the time
LATER: Final = 2  # connections opened after one had ended: the process did not forget it for a moment only
# Calls of an interpreter that closes what is open at its exit: Python also asks for the addresses.
EXITING: Final = frozenset({"close", "getsockname", "getpeername"})
SHOWN: Final = 8  # descriptors in a text
REAPED_LATE: Final = 5  # zombies of a parent that waits for children now and then
CONNECTING: Final = frozenset({"EINPROGRESS", "EINTR", "EALREADY", "EISCONN", "EAGAIN"})  # connect() goes on

_SIGINFO_PID: Final = re.compile(r"si_pid=(\d+)")


def children_never_waited_for(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find child processes that have exited and that their parent does not wait for: zombies."""
    for number, calls in trace_index.calls_by_process.items():
        process = trace_index.process(number)
        if not process.role or process.ignores_children:
            continue
        children = {call.created_id: call for call in calls if call.name in FORKING and call.created_id}
        waits = [call for call in calls if call.name in REAPING]
        reaped = {call.created_id for call in waits if call.created_id} | {
            int(found[1]) for call in waits if (found := _SIGINFO_PID.search(" ".join(call.arguments)))
        }
        parent_end = trace_index.ended_at(number) or trace_index.end
        zombies = []
        for event in trace_index.process_events:
            pid = trace_index.process(event.process).pid
            if (
                event.kind == "ended"
                and pid in children
                and pid not in reaped
                and parent_end - event.at >= BLOCKED_NS
            ):
                zombies += [children[pid].number, event.number]
        if len(zombies) // 2 < (REAPED_LATE if waits else 1):
            continue  # a server that reaps before each accept() has some until the next one
        if zombies:
            count = len(zombies) // 2
            children_stay = "1 child process exited and stays a zombie"
            if count > 1:
                children_stay = f"{count} child processes exited and stay zombies"
            yield Finding(
                "children-not-waited-for",
                "The parent does not wait for its child processes",
                f"{children_stay} until the parent exits.",
                "Call waitpid(-1, &status, WNOHANG) from time to time; or ignore SIGCHLD, and the kernel "
                "reaps child processes.",
                tuple(zombies),
                process=number,
                in_c="while (waitpid(-1, NULL, WNOHANG) > 0) { }   /* or: signal(SIGCHLD, SIG_IGN); */",
                in_python="signal.signal(signal.SIGCHLD, signal.SIG_IGN)   # or os.waitpid(-1, os.WNOHANG)",
            )


def sigpipe(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that SIGPIPE killed because it sent to a peer that had closed the connection."""
    for event in trace_index.process_events:
        if event.kind != "ended" or event.status != -signal.SIGPIPE:
            continue
        calls = trace_index.calls_by_process[event.process]
        send = next((each for each in reversed(calls) if each.name in SENDING), None)
        socket = trace_index.trace.sockets.get(send.socket or 0) if send is not None else None
        if send is None or socket is None or send.error not in ("EPIPE", ""):
            continue
        if not send.error and (send.size or send.until is not None):
            continue  # it wrote to something else
        ending = _ending_of_peer(trace_index, socket, send.at)
        name = name_of(trace_index, event.process)
        size = f"{send.requested:,} bytes" if send.requested is not None else "data"
        what = f"SIGPIPE killed {name} in {send.name}() of {size} on descriptor {send.descriptor}"
        if ending is not None:
            ago = formatting.duration(send.at - (ending.until or ending.at))
            how = "shut the connection down" if ending.name == "shutdown" else "closed the connection"
            what += f": {name_of(trace_index, ending.process)} had {how} {ago} before."
        else:
            what += f": its peer ({socket.peer or 'unnamed'}) had closed the connection before."
        yield Finding(
            "sigpipe",
            "SIGPIPE killed a program that sent to a closed connection",
            what,
            "Ignore SIGPIPE once at the start, or send with MSG_NOSIGNAL: then send() fails with EPIPE, and "
            "the program can close this connection and go on.",
            tuple(each.number for each in (ending, send, event) if each is not None),
            process=event.process,
            sockets=(socket.number,),
            in_c="signal(SIGPIPE, SIG_IGN);   /* or: send(fd, buffer, n, MSG_NOSIGNAL) */",
            in_python="signal.signal(signal.SIGPIPE, signal.SIG_IGN)   # then: except BrokenPipeError",
        )


def _ending_of_peer(trace_index: TraceIndex, socket: Socket, before: int) -> Call | None:
    """Return the last close() or shutdown() at the other end of a connection before a time."""
    peer, found = trace_index.peer_of(socket.number), None
    for call in trace_index.calls_by_socket[peer] if peer is not None else ():
        if call.name in ("close", "shutdown") and not call.failed and (call.until or before) < before:
            found = call
    return found


def descriptor_never_closed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find connections that have ended, but whose descriptors a process keeps open, and count them."""
    for number in trace_index.calls_by_process:
        end = _exit_began(trace_index, number)
        by_opener: dict[str, list[tuple[Call, Socket, int, int]]] = {}
        for each in finished_connections(trace_index, number, end):
            by_opener.setdefault(each[0].name, []).append(each)
        for name, leaked in by_opener.items():
            old = [
                each for each in leaked if end - max(each[3], _shut_down_at(trace_index, each[1])) >= LEAK_NS
            ]
            calls = trace_index.calls_by_process[number]
            opened = sum(call.name == name and bool(call.created_id) for call in calls)
            passed = [each for each in leaked if _opened_after(calls, name, each[3]) >= LATER]
            if len(passed) >= LEAKED and 2 * len(passed) >= opened:
                old = passed  # the process went on without them, however short the time
            if not old or (name == "socket" and len(old) < LEAKED):
                continue
            yield _leak(trace_index, number, name, old, end)


def _shut_down_at(trace_index: TraceIndex, socket: Socket) -> int:
    """Return when a program ended its direction of a connection, which it closes a moment later; or 0."""
    calls = trace_index.calls_by_socket[socket.number]
    return next((call.at for call in reversed(calls) if call.name == "shutdown" and not call.failed), 0)


def _exit_began(trace_index: TraceIndex, process: int) -> int:
    """Return when a process began to exit: an interpreter closes what is still open before it exits."""
    ended = trace_index.ended_at(process)
    if ended is None:
        return trace_index.end
    began = ended - 1  # it holds nothing any more when it has exited
    for call in reversed(trace_index.calls_by_process[process]):
        if call.name not in EXITING:
            break
        began = call.at - 1
    return began


def _opened_after(calls: list[Call], name: str, at: int) -> int:
    """Return how many sockets a process opened after a time with calls of this name."""
    return sum(call.name == name and bool(call.created_id) and (call.until or 0) > at for call in calls)


def _leak(
    trace_index: TraceIndex, number: int, name: str, leaked: list[tuple[Call, Socket, int, int]], end: int
) -> Finding:
    forked = any(call.name in FORKING and call.created_id for call in trace_index.calls_by_process[number])
    role = name_of(trace_index, number)
    first = leaked[0]
    held = formatting.duration(end - first[3])
    if len(leaked) == 1:
        text = (
            f"{name}() opened descriptor {first[0].result}, its peer has finished, and {role} kept it open "
            f"for {held}"
        )
    else:
        shown = ", ".join(str(call.result) for call, *_ in leaked[:SHOWN])
        more = ", ..." if len(leaked) > SHOWN else ""
        text = (
            f"{len(leaked)} connections that {name}() opened had ended, and {role} closed none of them: "
            f"descriptors {shown}{more} stayed open, the first for {held}"
        )
    text += "."
    others = [each for each in trace_index.holders_at(first[1].number, end) if each != number]
    if others:
        names = ", ".join(name_of(trace_index, each) for each in others[:3])
        text += f" {capitalized(names)} held {'it' if len(leaked) == 1 else 'the first'} as well."
    if forked:
        text += " After fork() the parent must close its copy too, or the peer never receives EOF."
    evidence = [number for call, _, event, _ in leaked for number in (call.number, event)]
    is_one = len(leaked) == 1
    return Finding(
        "never-closed",
        "The descriptor of a connection is never closed" if is_one else "Descriptors leak, one by one",
        text,
        "Close every connection when it has ended. Otherwise the process runs out of descriptors (EMFILE).",
        tuple(dict.fromkeys(evidence)),
        process=number,
        sockets=tuple(socket.number for _, socket, _, _ in leaked[:LEAKED]),
        in_c="if ((n = recv(c, buffer, sizeof buffer, 0)) <= 0) { close(c); return; }",
        in_python="with connection:   # closes it in any case",
    )


def finished_connections(
    trace_index: TraceIndex, process: int, at: int
) -> Iterator[tuple[Call, Socket, int, int]]:
    """Return the connections that had ended and whose descriptors a process still held at a time.

    Returns:
        The call that opened each one, its socket, and the event by which it ended with the event's time.
    """
    for call in trace_index.calls_by_process[process]:
        opens = call.name.startswith("accept") or call.name == "socket"
        if not opens or not call.created_id or (call.until or call.at) > at:
            continue
        socket = trace_index.trace.sockets.get(call.created_id)
        if socket is None or socket.kind != "stream" or socket.is_listener:
            continue
        if process not in trace_index.holders_at(socket.number, at):
            continue
        peer_end = _peer_finished(trace_index, socket)
        if peer_end is not None and peer_end[1] <= at:
            yield call, socket, *peer_end


def _peer_finished(trace_index: TraceIndex, socket: Socket) -> tuple[int, int] | None:
    """Return the event by which the peer has finished, and since when there is nothing more to read of it.

    Returns None if it has not finished.
    """
    read_at = max((call.until or call.at for call in trace_index.receives(socket) if call.size), default=0)
    for packet in trace_index.packets_to[socket.number]:
        if "RST" in packet.flags and not packet.lost:
            return packet.number, packet.at
        if "FIN" in packet.flags and _is_fin_acked(trace_index, socket, (packet.offset or 0) + packet.size):
            return packet.number, max(packet.at, read_at)
    for call in trace_index.receives(socket):
        if call.size == 0 and call.requested != 0:
            return call.number, call.until or call.at
    for call in trace_index.calls_by_socket[socket.number]:
        is_reset = call.name in MOVING and call.error in ("EPIPE", "ECONNRESET")
        is_failure = call.name == "connect" and call.failed and call.error not in CONNECTING
        if is_reset or is_failure:
            return call.number, call.until or call.at
    return None


def _is_fin_acked(trace_index: TraceIndex, socket: Socket, end: int) -> bool:
    """Return whether the peer's FIN, at offset `end`, was acknowledged: all data before it has arrived."""
    return any(each.acks is not None and each.acks > end for each in trace_index.packets_from[socket.number])
