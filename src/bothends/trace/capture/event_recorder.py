"""An observer that records the events of an engine or of the client as a trace (`trace_file.py`).

    Listening ──> listen, bind      Accepted ──> accept    Connected, ConnectFailed ──> connect
    Received, PeerEof ──> recv      Sent ──> send          WriteShutdown ──> shutdown   Closed ──> close
    all others ──> a note with the log's text

1. An event is emitted after the action, and does not show which system calls were used. So a recorded call
   has no descriptor (its first argument names the socket: "connection 1") and, except for connect, no
   duration.
2. The processes and threads of a server share one file. Each event is one write at its end (O_APPEND), under
   the lock of the file (`ObserverFile`). The counters of unique numbers are in shared memory; the number of a
   process is its pid.
3. If an event cannot be written, because the disk is full, a note says later how many are missing. Lines of
   processes and sockets are kept for the next event, because later lines refer to them.
4. The file size is limited. Events beyond `max_size` bytes are counted but not written, and a note at the end
   of the file shows the count.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, NamedTuple

from bothends import events
from bothends.endpoints import Address, Endpoint
from bothends.errors import SystemCallFailed
from bothends.escaping import escape_text
from bothends.log import TextLog
from bothends.osutil.observer_file import ObserverFile
from bothends.osutil.private_files import open_private
from bothends.trace.model import (
    DATA_LIMIT,
    Call,
    ProcessEvent,
    Socket,
    SocketAddress,
    SocketFamily,
    SocketKind,
    TracedProcess,
)
from bothends.trace.trace_file import FIRST_LINE, missing_note, to_json_object

MAX_FILE_SIZE: Final = 64 << 20  # bytes: some hundred thousand events, about as many as a `Trace` keeps
_MAX_REASON: Final = 200  # characters of a reason
# Shared between processes: the last event number, the last socket number, bytes written, omitted events, and
# how many of those the last note has reported.
_COUNTERS: Final = struct.Struct("=5Q")

_KINDS: Final[dict[str, SocketKind]] = {
    "udp": "datagram",
    "unix+dgram": "datagram",
    "unix+seqpacket": "seqpacket",
}
_NORMAL_CAUSES: Final = frozenset(
    {events.CloseReason.PEER, events.CloseReason.SERVICE, events.CloseReason.DRAINED}
)


class NamedSocket(NamedTuple):
    """A socket, and the first argument of its calls: a label instead of a descriptor."""

    socket: Socket
    label: str


class EventRecorder:
    """An observer that writes events as a trace file, for `bothends trace --open`.

    Args:
        path: the file. An existing file is unlinked first, because another process may still write to it.
        role: the name of the lane; the lanes of the server's other processes end in their pid.
        max_size: the file size, in bytes, beyond which events are omitted.
        report: called once, with a message, when events cannot be written.

    Raises:
        SystemCallFailed: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        role: str = "server",
        *,
        max_size: int = MAX_FILE_SIZE,
        report: Callable[[str], object] | None = None,
    ) -> None:
        self._role, self._max_size, self._main_pid = role, max_size, os.getpid()
        try:
            with contextlib.suppress(FileNotFoundError):
                if S_ISREG(path.lstat().st_mode):
                    path.unlink()
            descriptor = open_private(path, os.O_APPEND)
        except OSError as error:
            raise SystemCallFailed("write", str(path), error.errno or 0) from error
        self._file = ObserverFile(
            descriptor,
            str(path),
            missing_line=missing_note,
            report=report,
            first_line=FIRST_LINE,
            is_shared=True,
        )
        self._shared = mmap.mmap(-1, _COUNTERS.size)
        # Copies of the shared counters, valid while the lock is held.
        self._last_event = self._last_socket = self._size = self._omitted = self._omitted_reported = 0
        self._process_written = 0  # the pid whose process line has been written
        self._listeners: list[NamedSocket] = []
        self._connections: dict[int, NamedSocket] = {}
        self._datagram_sockets: dict[SocketFamily, NamedSocket] = {}
        self._lines: list[str] = []  # of the current event
        self._introduced: dict[tuple[str, int], str] = {}  # its processes and sockets
        self._owed: dict[tuple[str, int], str] = {}  # lines of processes and sockets that were not written

    def __call__(self, event: events.Event) -> None:
        """Record an event. Write errors are ignored, because serving is more important than the trace."""
        with self._exclusive_access():
            if isinstance(event, events.Stopped):
                self._write_omitted()
            elif self._size < self._max_size:
                self._record(event)
            else:
                self._omitted += 1
            self._write_lines()

    def close(self) -> SystemCallFailed | None:
        """Close the file. Returns an error if events are missing in it."""
        return self._file.close()

    @contextlib.contextmanager
    def _exclusive_access(self) -> Iterator[None]:
        """Hold the lock of the file, and load and store the shared counters."""
        with self._file.locked():
            try:
                self._last_event, self._last_socket, self._size, self._omitted, self._omitted_reported = (
                    _COUNTERS.unpack(self._shared)
                )
                yield
            finally:
                counts = (
                    self._last_event,
                    self._last_socket,
                    self._size,
                    self._omitted,
                    self._omitted_reported,
                )
                _COUNTERS.pack_into(self._shared, 0, *counts)

    def _write(self, *values: dict[str, Any]) -> None:
        self._lines += [json.dumps(value) + "\n" for value in values]

    def _write_lines(self) -> None:
        """Write the lines of an event, after those of sockets and processes that could not be written."""
        if not self._lines:
            return
        text = "".join([*self._owed.values(), *self._lines])
        self._lines.clear()
        if self._file.write(text, records=1):
            self._size += len(text)
            self._owed.clear()
        else:
            self._owed |= self._introduced
        self._introduced.clear()

    def _introduce(self, kind: str, item: Socket | TracedProcess) -> None:
        """Write the line of a socket or process, to which later lines refer."""
        self._write({kind: to_json_object(item)})
        self._introduced[kind, item.number] = self._lines[-1]

    def _write_omitted(self) -> None:
        if self._omitted > self._omitted_reported:
            self._omitted_reported = self._omitted
            size = f"{self._max_size >> 20} MB" if self._max_size >> 20 else f"{self._max_size} bytes"
            self._write({"note": f"{self._omitted} later events were left out: the file had reached {size}"})

    # Events

    def _record(self, event: events.Event) -> None:
        match event:
            case events.Listening():
                self._on_listening(event)
            case events.Accepted():
                self._on_accepted(event)
            case events.Received():
                self._on_data(event, "recv" if event.connection else "recvfrom")
            case events.Sent():
                self._on_data(event, "send" if event.connection else "sendto")
            case events.PeerEof():
                self._write_call(
                    event, "recv", self._connection_socket(event.connection, event.peer), result=0
                )
            case events.Connected():
                self._on_connected(event)
            case events.ConnectFailed():
                self._on_connect_failed(event)
            case events.WriteShutdown():
                named = self._connection_socket(event.connection, event.peer)
                self._write_call(event, "shutdown", named, "SHUT_WR", result=0)
            case events.Closed():
                self._on_closed(event)
            case events.ChildExited():
                self._on_child_exited(event)
            case _:
                self._write_log_text(event)

    def _on_listening(self, event: events.Listening) -> None:
        socket = _listening_socket(event.endpoint, self._next_socket())
        named = self._add_socket(socket, str(socket.local))
        self._listeners.append(named)
        name = "listen" if socket.is_listener else "bind"
        self._write_call(event, name, named, result=0, address=socket.local)

    def _on_accepted(self, event: events.Accepted) -> None:
        local, peer = _address(event.local), _address(event.peer)
        listener = next((each for each in self._listeners if _listens_at(each.socket, local)), None)
        accepted = Socket(self._next_socket(), _family(event.peer), "stream", local=local, peer=peer)
        if listener is not None:
            accepted.kind, accepted.is_wrapped = listener.socket.kind, listener.socket.is_wrapped
            accepted.accepted_from = listener.socket.number
        self._connections[event.connection] = self._add_socket(accepted, f"connection {event.connection}")
        if listener is not None:  # otherwise the server inherited the connection
            self._write_call(
                event, "accept", listener, result=event.connection, created_id=accepted.number, address=peer
            )

    def _on_connected(self, event: events.Connected) -> None:
        socket = replace(
            _client_socket(event.endpoint, self._next_socket()),
            family=_family(event.peer),
            local=_address(event.local),
            peer=_address(event.peer),
        )
        named = self._add_socket(socket, f"connection {event.connection}")
        self._connections[event.connection] = named
        self._write_call(event, "connect", named, started_at=event.began, result=0, address=socket.peer)

    def _on_connect_failed(self, event: events.ConnectFailed) -> None:
        number = getattr(event.error, "errno", None) or 0
        if name := errno.errorcode.get(number):
            socket = _client_socket(event.endpoint, self._next_socket())
            named = self._add_socket(socket, "no connection")
            address = _listening_socket(event.endpoint, 0).local
            self._write_call(
                event, "connect", named, started_at=event.began, result=-1, error=name, address=address
            )
        else:
            self._write_note(event, escape_text(str(event.error)[:_MAX_REASON]))

    def _on_data(self, event: events.Received | events.Sent, name: str) -> None:
        size = len(event.data)
        if event.connection:
            named, address = self._connection_socket(event.connection, event.peer), None
        else:
            named, address = self._datagram_socket(_family(event.peer)), _address(event.peer)
        self._write_call(
            event,
            name,
            named,
            result=size,
            size=size,
            requested=size if isinstance(event, events.Sent) else None,
            data=event.data[:DATA_LIMIT],
            address=address,
        )

    def _on_closed(self, event: events.Closed) -> None:
        named = self._connection_socket(event.connection, event.peer)
        if event.cause not in _NORMAL_CAUSES:
            self._write_log_text(event)
        self._write_call(event, "close", named, result=0)
        del self._connections[event.connection]
        self._owed.pop(("socket", named.socket.number), None)

    def _on_child_exited(self, event: events.ChildExited) -> None:
        how = f"exit status {event.status}" if event.status >= 0 else f"killed by signal {-event.status}"
        ended = ProcessEvent(self._next_event(), event.at, event.pid, "ended", how, event.status, event.pid)
        process = self._process(event.pid, event.status)
        self._introduce("process", process)
        self._write({"change": to_json_object(ended)})

    def _write_log_text(self, event: events.Event) -> None:
        """Record an event that no call represents as a note with the log's text."""
        log = io.StringIO()
        TextLog(messages=None, activity=log, problems=log, colour=lambda _: False)(event)
        if text := escape_text(log.getvalue().strip()[:_MAX_REASON]):
            self._write_note(event, text)

    def _write_note(self, event: events.Event, text: str) -> None:
        self._write_process_once()
        thread = threading.get_native_id()
        note = ProcessEvent(self._next_event(), event.at, os.getpid(), "note", text, thread=thread)
        self._write({"change": to_json_object(note)})

    def _write_call(
        self,
        event: events.Event,
        name: str,
        named: NamedSocket,
        *arguments: str,
        started_at: int | None = None,
        **fields: Any,
    ) -> None:
        """Write the start and the end of a call, both at the time of the event by default."""
        self._write_process_once()
        at = event.at if started_at is None else started_at
        call = Call(
            self._next_event(), os.getpid(), threading.get_native_id(), name, at, event.at,
            (named.label, *arguments), socket=named.socket.number, **fields,
        )  # fmt: skip
        start = replace(call, until=None, result=None, error="", size=0, created_id=None)
        self._write({"call": to_json_object(start)}, {"call": to_json_object(call)})

    # Sockets and processes

    def _add_socket(self, socket: Socket, name: str) -> NamedSocket:
        self._introduce("socket", socket)
        return NamedSocket(socket, name)

    def _connection_socket(self, number: int, peer: Address) -> NamedSocket:
        """Return the socket of a connection. It is new if another process accepted the connection."""
        if number not in self._connections:
            socket = Socket(self._next_socket(), _family(peer), "stream", peer=_address(peer))
            self._connections[number] = self._add_socket(socket, f"connection {number}")
        return self._connections[number]

    def _datagram_socket(self, family: SocketFamily) -> NamedSocket:
        """Return the socket of a datagram. Events don't show it: if several fit, it is a separate new one."""
        if family not in self._datagram_sockets:
            known = [each for each in self._listeners if each.socket.kind == "datagram"]
            candidates = [each for each in known if each.socket.family == family] or known
            self._datagram_sockets[family] = (
                candidates[0]
                if len(candidates) == 1
                else self._add_socket(Socket(self._next_socket(), family, "datagram"), "datagrams")
            )
        return self._datagram_sockets[family]

    def _write_process_once(self) -> None:
        pid = os.getpid()
        if self._process_written != pid:
            self._process_written = pid
            self._introduce("process", self._process(pid))

    def _process(self, pid: int, status: int | None = None) -> TracedProcess:
        is_main = pid == self._main_pid
        role = self._role if is_main else f"{self._role}/{pid}"
        return TracedProcess(pid, pid, role, parent=None if is_main else self._main_pid, status=status)

    def _next_event(self) -> int:
        self._last_event += 1
        return self._last_event

    def _next_socket(self) -> int:
        self._last_socket += 1
        return self._last_socket


def _family(address: Address) -> SocketFamily:
    return address.family if address.family in ("inet", "inet6", "unix") else "other"


def _address(address: Address) -> SocketAddress:
    return SocketAddress(escape_text(address.host), None if address.family == "unix" else address.port)


def _listening_socket(endpoint: Endpoint, number: int) -> Socket:
    """Return a listener, or a bound datagram socket, for an endpoint."""
    kind = _KINDS.get(endpoint.scheme, "stream")
    if endpoint.path:
        family: SocketFamily = "unix"
        address = SocketAddress(escape_text(endpoint.path))
    else:
        host = endpoint.host or "::"
        family = "other" if endpoint.port is None else "inet6" if ":" in host else "inet"
        address = SocketAddress(escape_text(host), endpoint.port)
    is_wrapped = endpoint.scheme == "tls" or bool(endpoint.wrappers)
    return Socket(number, family, kind, local=address, is_listener=kind != "datagram", is_wrapped=is_wrapped)


def _client_socket(endpoint: Endpoint, number: int) -> Socket:
    """Return an unconnected client socket for an endpoint."""
    return replace(_listening_socket(endpoint, number), local=None, is_listener=False)


def _listens_at(listener: Socket, address: SocketAddress) -> bool:
    local = listener.local
    if not listener.is_listener or local is None:
        return False
    return local == address or (local.is_wildcard and local.port == address.port)
