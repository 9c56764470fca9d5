"""A rule about calls that a signal interrupted (EINTR) and that were not called again. Pure.

The program exits with an error, or it closes a connection that its peer still uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING, REAPING, RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call
from bothends.trace.rendering import formatting

# strace shows what the kernel returns before it delivers the signal: the program gets EINTR for all of these.
INTERRUPTED: Final = frozenset({"EINTR", "ERESTARTSYS", "ERESTARTNOHAND", "ERESTART_RESTARTBLOCK"})
# Signals by which a program is ended on purpose.
_ENDING: Final = frozenset({"SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGPIPE"})
_PROMPTLY_NS: Final = 100_000_000  # nanoseconds from the interrupted read to the close

# What a signal handler calls, or a program before it exits.
_FINAL: Final = REAPING | {"close", "shutdown", "getpeername", "getsockname"}
_EXIT_NS: Final = 1_000_000_000  # a program that takes the call for a failure exits at once


def interrupted_call(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that takes EINTR for a failure, and stops, or for the end of a connection."""
    yield from _closed_connection(trace_index)
    for process, calls in trace_index.calls_by_process.items():
        ended, status = trace_index.ended_at(process), trace_index.process(process).status
        if ended is None or not status or status < 0:
            continue
        counted = [call for call in calls if not _is_final(call)]
        last_of_threads = {call.thread: call for call in counted}
        latest = max((call.until or ended for call in counted), default=0)
        for call in last_of_threads.values():
            # A thread that exit() of another one ends is interrupted, too: only the last call counts.
            if call.error not in INTERRUPTED or call.name not in ACCEPTING | MOVING | WAITING:
                continue
            until = call.until or call.at
            if ended - until > _EXIT_NS or latest > until:
                continue
            signals = [
                event
                for event in trace_index.process_events
                if event.process == process and event.kind == "signal" and call.at <= event.at <= ended
            ]
            if signals and signals[-1].at < until - _PROMPTLY_NS:
                continue  # the call went on after the signal, until another thread called exit()
            if any(event.text in _ENDING for event in signals):
                continue
            is_alarm = any(event.text == "SIGALRM" for event in signals)
            if is_alarm and (call.name not in RECEIVING or _has_peer_ended(trace_index, call)):
                continue
            signal = signals[0].text if signals else "A signal, probably SIGCHLD,"
            yield Finding(
                "interrupted-call",
                "The program takes an interrupted call for a failure",
                f"{signal} interrupted {call.name}, which returned EINTR. "
                f"{capitalized(name_of(trace_index, process))} did not call it again and exited with status "
                f"{status}."
                + (" The peer had not closed the connection, and had not answered yet." if is_alarm else ""),
                "EINTR is not an error: call again. With the flag SA_RESTART of sigaction() the kernel does "
                "that for most calls."
                + (
                    " If SIGALRM is meant as a time limit, it is too short for this peer." if is_alarm else ""
                ),
                (call.number, *(event.number for event in signals[:1])),
                certainty="seen" if signals and not is_alarm else "inferred",
                basis="the program failed right after SIGALRM"
                if is_alarm
                else ""
                if signals
                else "the call was interrupted, and signals that are ignored are not shown",
                process=process,
                sockets=() if call.socket is None else (call.socket,),
                in_c="do n = accept(fd, NULL, NULL); while (n < 0 && errno == EINTR);",
                in_python="Python repeats calls by itself (PEP 475), unless the handler raises",
            )
            break


def _is_final(call: Call) -> bool:
    return call.name in _FINAL or (call.name in SENDING and call.socket is None)


def _has_peer_ended(trace_index: TraceIndex, call: Call) -> bool:
    """Return whether the other end of the socket of a call is not traced, or was closed by then."""
    peer = trace_index.peer_of(call.socket or 0)
    return peer is None or not trace_index.holders_at(peer, call.until or call.at)


def _closed_connection(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a read that was interrupted, after which the program closed a connection still in use."""
    for socket in trace_index.sockets("stream"):
        peer = trace_index.peer_of(socket.number)
        for call in trace_index.calls_by_socket[socket.number] if peer is not None else ():
            if call.error not in INTERRUPTED or call.name not in RECEIVING or call.until is None:
                continue
            close, until = trace_index.next_call(call), call.until
            signal = next(
                (
                    event
                    for event in trace_index.process_events
                    if event.process == call.process and event.kind == "signal" and event.at >= until
                ),
                None,
            )
            victim = next(
                (
                    each
                    for each in trace_index.calls_by_socket[peer or 0]
                    if each.at > until and each.name in SENDING
                ),
                None,
            )
            if close is None or signal is None or victim is None or close.name not in ("close", "shutdown"):
                continue
            if close.at - until > _PROMPTLY_NS or signal.text in _ENDING or signal.at > close.at:
                continue
            name, other = name_of(trace_index, call.process), name_of(trace_index, victim.process)
            yield Finding(
                "interrupted-call",
                "The program takes an interrupted call for the end of a connection",
                f"{signal.text} interrupted {call.name} of {name}, which returned EINTR, and {name} closed "
                f"the connection. {capitalized(other)} had not closed it, and called {victim.name} "
                f"{formatting.duration(victim.at - close.at)} later.",
                "EINTR is neither an error nor EOF: call again. With the flag SA_RESTART of sigaction() the "
                "kernel does that. If the signal is meant as a time limit, it is too short for this peer.",
                (call.number, signal.number, close.number, victim.number),
                "inferred",
                f"the connection was closed right after {signal.text}, and the peer had sent no FIN",
                process=call.process,
                sockets=(socket.number, peer or 0),
                in_c="do n = read(fd, buf, sizeof buf); while (n < 0 && errno == EINTR);",
                in_python="Python repeats calls by itself (PEP 475), unless the handler raises",
            )
            return
