"""What an engine, or our own client, tells of itself, as a trace: an observer of events that writes the lines
of `trace_file.py`.

    Listening ──> listen, bind      Opened ──> accept      Connected, Unconnected ──> connect
    Received, Ended ──> recv        Sent ──> send          Finished ──> shutdown      Closed ──> close
    all else ──> a note, in the log's words

1. An event is told when what it tells of is over, and says nothing of how it was done. So a call has no
   descriptor (its first argument says whose it is: "connection 1"), and but for connect no duration.
2. Processes and threads of a server share one file. Each event is one write at the file's end, under a lock
   of the file (fcntl(2): of a process, and gone with it) and one of the process. Numbers that must be
   unique are counted in memory that all of them share; a process' own number is its pid.
3. The file is bounded. What comes after `MAX_LINE` bytes is counted and not written, and the file says so.

Rank 2, as the rest of the package: imports events, never engines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, NamedTuple

from bothends import events
from bothends.endpoints import Address, Endpoint
from bothends.errors import SystemCallFailed
from bothends.escaping import escape_text
from bothends.log import TextLog
from bothends.trace.model import (
    DATA_LIMIT,
    Call,
    CounterFamily,
    ProcessEvent,
    Socket,
    SocketAddress,
    SocketKind,
    TracedProcess,
)
from bothends.trace.trace_file import VERSION, to_json_object

MAX_FILE_SIZE: Final = 64 << 20  # bytes: some hundred thousand events, about as many as a picture keeps
_MAX_REASON: Final = 200  # characters of a reason
# What is shared: the last numbers of an event and of a socket, bytes written, events left out, and told of.
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
    """A socket, and what a call says for it instead of a descriptor."""

    socket: Socket
    label: str


class EventRecorder:
    """An observer that writes what it is told as a trace, for `bothends trace --open`.

    Args:
        path: the file. One that is there is replaced, so whoever still writes to it is not disturbed.
        role: the name of the lane; that of another process of the server ends in its pid.
        most: bytes after which nothing more is written.

    Raises:
        SystemRefused: the file can't be written.
    """

    def __init__(self, path: Path, role: str = "server", *, max_size: int = MAX_FILE_SIZE) -> None:
        self._role, self._max_size, self._main_pid = role, max_size, os.getpid()
        try:
            with contextlib.suppress(FileNotFoundError):
                if S_ISREG(path.lstat().st_mode):
                    path.unlink()
            self._file = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666
            )
        except OSError as error:
            raise SystemCallFailed("write", str(path), error.errno or 0) from error
        self._shared = mmap.mmap(-1, _COUNTERS.size)
        self._last_event = self._last_socket = self._size = self._omitted = self._omitted_reported = (
            0  # as they are shared
        )
        self._process_written = 0  # the pid whose process line is written
        self._listeners: list[NamedSocket] = []
        self._connections: dict[int, NamedSocket] = {}
        self._datagram_sockets: dict[CounterFamily, NamedSocket] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._reset_lock_in_child)
        with self._exclusive_access():
            self._write({"bothends-trace": VERSION})

    def __call__(self, event: events.Event) -> None:
        """Take one event. Never raises: serving matters more than what is written of it."""
        with contextlib.suppress(OSError), self._exclusive_access():
            if isinstance(event, events.Stopped):
                self._write_omitted()
            elif self._size < self._max_size:
                self._record(event)
            else:
                self._omitted += 1

    def _reset_lock_in_child(self) -> None:
        self._lock = threading.Lock()  # a thread that isn't in this process may have held it

    @contextlib.contextmanager
    def _exclusive_access(self) -> Iterator[None]:
        """While inside, nobody else writes or counts."""
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
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
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _write(self, *values: dict[str, Any]) -> None:
        data = "".join(json.dumps(value) + "\n" for value in values).encode()
        if os.write(self._file, data) == len(data):
            self._size += len(data)
        else:
            self._size = self._max_size  # the disk is full, and a line is broken off: nothing may follow it

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
                met = self._connection_socket(event.connection, event.peer)
                self._write_call(event, "shutdown", met, "SHUT_WR", result=0)
            case events.Closed():
                self._on_closed(event)
            case events.ChildExited():
                self._on_child_exited(event)
            case _:
                self._write_log_text(event)

    def _on_listening(self, event: events.Listening) -> None:
        socket = _listening_socket(event.endpoint, self._next_socket())
        met = self._add_socket(socket, str(socket.local))
        self._listeners.append(met)
        self._write_call(event, "listen" if socket.is_listener else "bind", met, result=0, place=socket.local)

    def _on_accepted(self, event: events.Accepted) -> None:
        local, peer = _address(event.local), _address(event.peer)
        listener = next((each for each in self._listeners if _listens_at(each.socket, local)), None)
        made = Socket(self._next_socket(), _family(event.peer), "stream", local=local, peer=peer)
        if listener is not None:
            made.kind, made.is_wrapped = listener.socket.kind, listener.socket.is_wrapped
            made.welcomed_by = listener.socket.number
        self._connections[event.connection] = self._add_socket(made, f"connection {event.connection}")
        if listener is not None:  # else it was there from the beginning
            self._write_call(event, "accept", listener, result=event.connection, made=made.number, place=peer)

    def _on_connected(self, event: events.Connected) -> None:
        made = _client_socket(event.endpoint, self._next_socket())
        made.family, made.local, made.peer = _family(event.peer), _address(event.local), _address(event.peer)
        met = self._connections[event.connection] = self._add_socket(made, f"connection {event.connection}")
        self._write_call(event, "connect", met, started_at=event.began, result=0, place=made.peer)

    def _on_connect_failed(self, event: events.ConnectFailed) -> None:
        number = getattr(event.error, "errno", None) or 0
        if name := errno.errorcode.get(number):
            socket = _client_socket(event.endpoint, self._next_socket())
            met = self._add_socket(socket, "no connection")
            place = _listening_socket(event.endpoint, 0).local
            self._write_call(
                event, "connect", met, started_at=event.began, result=-1, error=name, place=place
            )
        else:
            self._write_note(event, escape_text(str(event.error)[:_MAX_REASON]))

    def _on_data(self, event: events.Received | events.Sent, name: str) -> None:
        size = len(event.data)
        asked = size if isinstance(event, events.Sent) else None
        if event.connection:
            met, place = self._connection_socket(event.connection, event.peer), None
        else:
            met, place = self._datagram_socket(_family(event.peer)), _address(event.peer)
        self._write_call(
            event, name, met, result=size, size=size, asked=asked, data=event.data[:DATA_LIMIT], place=place
        )

    def _on_closed(self, event: events.Closed) -> None:
        met = self._connection_socket(event.connection, event.peer)
        if event.cause not in _NORMAL_CAUSES:
            self._write_log_text(event)
        self._write_call(event, "close", met, result=0)
        del self._connections[event.connection]

    def _on_child_exited(self, event: events.ChildExited) -> None:
        how = f"exit status {event.status}" if event.status >= 0 else f"killed by signal {-event.status}"
        change = ProcessEvent(self._next_event(), event.at, event.pid, "ended", how, event.status, event.pid)
        process = self._process(event.pid, event.status)
        self._write({"process": to_json_object(process)}, {"change": to_json_object(change)})

    def _write_log_text(self, event: events.Event) -> None:
        """What no call stands for, in the words of the log."""
        words = io.StringIO()
        TextLog(messages=None, activity=words, problems=words, colour=lambda _: False)(event)
        if text := escape_text(words.getvalue().strip()[:_MAX_REASON]):
            self._write_note(event, text)

    def _write_note(self, event: events.Event, text: str) -> None:
        self._write_process_once()
        here, thread = os.getpid(), threading.get_native_id()
        change = ProcessEvent(self._next_event(), event.at, here, "note", text, thread=thread)
        self._write({"change": to_json_object(change)})

    def _write_call(
        self,
        event: events.Event,
        name: str,
        named: NamedSocket,
        *arguments: str,
        started_at: int | None = None,
        **fields: Any,
    ) -> None:
        """A call that ended when it was told of, and as far as is known began then too."""
        self._write_process_once()
        at = event.at if started_at is None else started_at
        call = Call(
            self._next_event(), os.getpid(), threading.get_native_id(), name, at, event.at,
            (named.label, *arguments), socket=named.socket.number, **fields,
        )  # fmt: skip
        beginning = replace(call, until=None, result=None, error="", size=0, made=None)
        self._write({"call": to_json_object(beginning)}, {"call": to_json_object(call)})

    # What events are about

    def _add_socket(self, socket: Socket, name: str) -> NamedSocket:
        self._write({"socket": to_json_object(socket)})
        return NamedSocket(socket, name)

    def _connection_socket(self, number: int, peer: Address) -> NamedSocket:
        """A connection, which another process may have welcomed."""
        if number not in self._connections:
            socket = Socket(self._next_socket(), _family(peer), "stream", peer=_address(peer))
            self._connections[number] = self._add_socket(socket, f"connection {number}")
        return self._connections[number]

    def _datagram_socket(self, family: CounterFamily) -> NamedSocket:
        """The socket of a datagram: which it was isn't told: where it may be several, it is none."""
        if family not in self._datagram_sockets:
            known = [each for each in self._listeners if each.socket.kind == "datagram"]
            fitting = [each for each in known if each.socket.family == family] or known
            self._datagram_sockets[family] = (
                fitting[0]
                if len(fitting) == 1
                else self._add_socket(Socket(self._next_socket(), family, "datagram"), "datagrams")
            )
        return self._datagram_sockets[family]

    def _write_process_once(self) -> None:
        pid = os.getpid()
        if self._process_written != pid:
            self._process_written = pid
            self._write({"process": to_json_object(self._process(pid))})

    def _process(self, pid: int, status: int | None = None) -> TracedProcess:
        is_leader = pid == self._main_pid
        role = self._role if is_leader else f"{self._role}/{pid}"
        return TracedProcess(pid, pid, role, parent=None if is_leader else self._main_pid, status=status)

    def _next_event(self) -> int:
        self._last_event += 1
        return self._last_event

    def _next_socket(self) -> int:
        self._last_socket += 1
        return self._last_socket


def _family(address: Address) -> CounterFamily:
    return address.family if address.family in ("inet", "inet6", "unix") else "other"


def _address(address: Address) -> SocketAddress:
    return SocketAddress(escape_text(address.host), None if address.family == "unix" else address.port)


def _listening_socket(endpoint: Endpoint, number: int) -> Socket:
    """A listener, or a socket for datagrams, as its endpoint describes it."""
    kind = _KINDS.get(endpoint.scheme, "stream")
    if endpoint.path:
        family: CounterFamily = "unix"
        place = SocketAddress(escape_text(endpoint.path))
    else:
        host = endpoint.host or "::"
        family = "other" if endpoint.port is None else "inet6" if ":" in host else "inet"
        place = SocketAddress(escape_text(host), endpoint.port)
    is_wrapped = endpoint.scheme == "tls" or bool(endpoint.wrappers)
    return Socket(number, family, kind, local=place, is_listener=kind != "datagram", is_wrapped=is_wrapped)


def _client_socket(endpoint: Endpoint, number: int) -> Socket:
    """A socket that is to be connected to an endpoint."""
    return replace(_listening_socket(endpoint, number), local=None, is_listener=False)


def _listens_at(listener: Socket, address: SocketAddress) -> bool:
    place = listener.local
    if not listener.is_listener or place is None:
        return False
    return place == address or (place.is_wildcard and place.port == address.port)
