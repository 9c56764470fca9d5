"""Rules about a call on the wrong socket: a transfer on a listener, and a second connect(). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of

# Errors of a transfer on a listening socket: tcp(7), send(2), recv(2).
_ON_LISTENER: Final = frozenset({"ENOTCONN", "EPIPE"})


def transfer_on_listener(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a send or receive on a listening socket, in a process that has accepted a connection from it."""
    for socket in trace_index.sockets("stream"):
        if not socket.is_listener:
            continue
        calls = trace_index.calls_by_socket[socket.number]
        accepted = None
        for call in calls:
            if call.name in ACCEPTING and call.result is not None and call.result >= 0 and not call.error:
                accepted = call
            elif call.name in MOVING and call.error in _ON_LISTENER and accepted is not None:
                verb = "sends to" if call.name in SENDING else "receives from"
                yield Finding(
                    "transfer-on-listener",
                    f"The server {verb} the listening socket instead of the connection",
                    f"{capitalized(name_of(trace_index, call.process))}: {call.name} on the listening socket "
                    f"failed with {call.error}. The connection is on the descriptor that {accepted.name} "
                    f"returned, {accepted.result}.",
                    "Use the descriptor that accept() returned. The listening socket only accepts.",
                    (accepted.number, call.number),
                    process=call.process,
                    sockets=(socket.number,),
                    in_c="int c = accept(listener, NULL, NULL); n = recv(c, buf, size, 0);",
                    in_python="connection, address = listener.accept(); data = connection.recv(4096)",
                )
                break


def connected_again(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that exits with an error after connect() on a socket that it has used as connected.

    A second connect() that asks whether the first has finished returns EISCONN too, but before any data.
    """
    for socket in trace_index.sockets("stream"):
        transfer = None
        for call in trace_index.calls_by_socket[socket.number]:
            if call.size and not call.error and call.name in MOVING:
                transfer = call
            elif call.name == "connect" and call.error == "EISCONN" and transfer is not None:
                if not trace_index.process(call.process).status:
                    break  # it handles the error
                yield Finding(
                    "connected-again",
                    "connect() is called on a socket that is connected already",
                    f"{capitalized(name_of(trace_index, call.process))} called connect a second time on a "
                    "socket that had exchanged data: it failed with EISCONN, and the program exited with an "
                    "error. A TCP socket connects once.",
                    "Make a new socket for each connection and close the old one, or connect once, before "
                    "the loop, if the server keeps the connection open.",
                    (transfer.number, call.number),
                    process=call.process,
                    sockets=(socket.number,),
                    in_c="close(fd); fd = socket(AF_INET, SOCK_STREAM, 0); connect(fd, address, size);",
                    in_python="s.close(); s = socket.create_connection(address)",
                )
                break
