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
3. The file is bounded. What comes after `MOST` bytes is counted and not written, and the file says so.

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
from bothends.errors import SystemRefused
from bothends.escaping import escape_text
from bothends.log import TextLog
from bothends.trace.model import KEPT, Call, Change, Family, Kind, Place, Process, Socket
from bothends.trace.trace_file import VERSION, as_object

MOST: Final = 64 << 20  # bytes: some hundred thousand events, about as many as a picture keeps
_WORDS: Final = 200  # characters of a reason
# What is shared: the last numbers of an event and of a socket, bytes written, events left out, and told of.
_SHARED: Final = struct.Struct("=5Q")

_KINDS: Final[dict[str, Kind]] = {"udp": "datagram", "unix+dgram": "datagram", "unix+seqpacket": "seqpacket"}
_ORDINARY: Final = frozenset({events.Cause.PEER, events.Cause.SERVICE, events.Cause.DRAINED})


class Met(NamedTuple):
    """A socket, and what a call says for it instead of a descriptor."""

    socket: Socket
    name: str


class Observed:
    """An observer that writes what it is told as a trace, for `bothends trace --open`.

    Args:
        path: the file. One that is there is replaced, so whoever still writes to it is not disturbed.
        role: the name of the lane; that of another process of the server ends in its pid.
        most: bytes after which nothing more is written.

    Raises:
        SystemRefused: the file can't be written.
    """

    def __init__(self, path: Path, role: str = "server", *, most: int = MOST) -> None:
        self._role, self._most, self._leader = role, most, os.getpid()
        try:
            with contextlib.suppress(FileNotFoundError):
                if S_ISREG(path.lstat().st_mode):
                    path.unlink()
            self._file = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666
            )
        except OSError as error:
            raise SystemRefused("write", str(path), error.errno or 0) from error
        self._shared = mmap.mmap(-1, _SHARED.size)
        self._event = self._socket = self._size = self._left_out = self._told = 0  # as they are shared
        self._introduced = 0  # the pid whose process line is written
        self._listeners: list[Met] = []
        self._connections: dict[int, Met] = {}
        self._sole: dict[Family, Met] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._begin_anew)
        with self._turn():
            self._write({"bothends-trace": VERSION})

    def __call__(self, event: events.Event) -> None:
        """Take one event. Never raises: serving matters more than what is written of it."""
        with contextlib.suppress(OSError), self._turn():
            if isinstance(event, events.Stopped):
                self._tell_left_out()
            elif self._size < self._most:
                self._take(event)
            else:
                self._left_out += 1

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()  # a thread that isn't in this process may have held it

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """While inside, nobody else writes or counts."""
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                self._event, self._socket, self._size, self._left_out, self._told = _SHARED.unpack(
                    self._shared
                )
                yield
            finally:
                counts = self._event, self._socket, self._size, self._left_out, self._told
                _SHARED.pack_into(self._shared, 0, *counts)
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _write(self, *values: dict[str, Any]) -> None:
        data = "".join(json.dumps(value) + "\n" for value in values).encode()
        if os.write(self._file, data) == len(data):
            self._size += len(data)
        else:
            self._size = self._most  # the disk is full, and a line is broken off: nothing may follow it

    def _tell_left_out(self) -> None:
        if self._left_out > self._told:
            self._told = self._left_out
            size = f"{self._most >> 20} MB" if self._most >> 20 else f"{self._most} bytes"
            self._write({"note": f"{self._left_out} later events were left out: the file had reached {size}"})

    # Events

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Listening():
                self._listening(event)
            case events.Opened():
                self._opened(event)
            case events.Received():
                self._moved(event, "recv" if event.connection else "recvfrom")
            case events.Sent():
                self._moved(event, "send" if event.connection else "sendto")
            case events.Ended():
                self._call(event, "recv", self._connection(event.connection, event.peer), result=0)
            case events.Connected():
                self._connected(event)
            case events.Unconnected():
                self._unconnected(event)
            case events.Finished():
                met = self._connection(event.connection, event.peer)
                self._call(event, "shutdown", met, "SHUT_WR", result=0)
            case events.Closed():
                self._closed(event)
            case events.Exited():
                self._exited(event)
            case _:
                self._note(event)

    def _listening(self, event: events.Listening) -> None:
        socket = _bound(event.endpoint, self._next_socket())
        met = self._meet(socket, str(socket.local))
        self._listeners.append(met)
        self._call(event, "listen" if socket.is_listener else "bind", met, result=0, place=socket.local)

    def _opened(self, event: events.Opened) -> None:
        local, peer = _place(event.local), _place(event.peer)
        listener = next((each for each in self._listeners if _welcomes(each.socket, local)), None)
        made = Socket(self._next_socket(), _family(event.peer), "stream", local=local, peer=peer)
        if listener is not None:
            made.kind, made.is_wrapped = listener.socket.kind, listener.socket.is_wrapped
            made.welcomed_by = listener.socket.number
        self._connections[event.connection] = self._meet(made, f"connection {event.connection}")
        if listener is not None:  # else it was there from the beginning
            self._call(event, "accept", listener, result=event.connection, made=made.number, place=peer)

    def _connected(self, event: events.Connected) -> None:
        made = _unbound(event.endpoint, self._next_socket())
        made.family, made.local, made.peer = _family(event.peer), _place(event.local), _place(event.peer)
        met = self._connections[event.connection] = self._meet(made, f"connection {event.connection}")
        self._call(event, "connect", met, began=event.began, result=0, place=made.peer)

    def _unconnected(self, event: events.Unconnected) -> None:
        number = getattr(event.error, "errno", None) or 0
        if name := errno.errorcode.get(number):
            socket = _unbound(event.endpoint, self._next_socket())
            met = self._meet(socket, "no connection")
            place = _bound(event.endpoint, 0).local
            self._call(event, "connect", met, began=event.began, result=-1, error=name, place=place)
        else:
            self._tell(event, escape_text(str(event.error)[:_WORDS]))

    def _moved(self, event: events.Received | events.Sent, name: str) -> None:
        size = len(event.data)
        asked = size if isinstance(event, events.Sent) else None
        if event.connection:
            met, place = self._connection(event.connection, event.peer), None
        else:
            met, place = self._datagrams(_family(event.peer)), _place(event.peer)
        self._call(event, name, met, result=size, size=size, asked=asked, data=event.data[:KEPT], place=place)

    def _closed(self, event: events.Closed) -> None:
        met = self._connection(event.connection, event.peer)
        if event.cause not in _ORDINARY:
            self._note(event)
        self._call(event, "close", met, result=0)
        del self._connections[event.connection]

    def _exited(self, event: events.Exited) -> None:
        how = f"exit status {event.status}" if event.status >= 0 else f"killed by signal {-event.status}"
        change = Change(self._next_event(), event.at, event.pid, "ended", how, event.status, event.pid)
        process = self._process(event.pid, event.status)
        self._write({"process": as_object(process)}, {"change": as_object(change)})

    def _note(self, event: events.Event) -> None:
        """What no call stands for, in the words of the log."""
        words = io.StringIO()
        TextLog(messages=None, happenings=words, troubles=words, colour=lambda _: False)(event)
        if text := escape_text(words.getvalue().strip()[:_WORDS]):
            self._tell(event, text)

    def _tell(self, event: events.Event, text: str) -> None:
        self._introduce()
        here, thread = os.getpid(), threading.get_native_id()
        change = Change(self._next_event(), event.at, here, "note", text, thread=thread)
        self._write({"change": as_object(change)})

    def _call(
        self, event: events.Event, name: str, met: Met, *arguments: str, began: int | None = None, **more: Any
    ) -> None:
        """A call that ended when it was told of, and as far as is known began then too."""
        self._introduce()
        at = event.at if began is None else began
        call = Call(
            self._next_event(), os.getpid(), threading.get_native_id(), name, at, event.at,
            (met.name, *arguments), socket=met.socket.number, **more,
        )  # fmt: skip
        beginning = replace(call, until=None, result=None, error="", size=0, made=None)
        self._write({"call": as_object(beginning)}, {"call": as_object(call)})

    # What events are about

    def _meet(self, socket: Socket, name: str) -> Met:
        self._write({"socket": as_object(socket)})
        return Met(socket, name)

    def _connection(self, number: int, peer: Address) -> Met:
        """A connection, which another process may have welcomed."""
        if number not in self._connections:
            socket = Socket(self._next_socket(), _family(peer), "stream", peer=_place(peer))
            self._connections[number] = self._meet(socket, f"connection {number}")
        return self._connections[number]

    def _datagrams(self, family: Family) -> Met:
        """The socket of a datagram: which it was isn't told: where it may be several, it is none."""
        if family not in self._sole:
            known = [each for each in self._listeners if each.socket.kind == "datagram"]
            fitting = [each for each in known if each.socket.family == family] or known
            self._sole[family] = (
                fitting[0]
                if len(fitting) == 1
                else self._meet(Socket(self._next_socket(), family, "datagram"), "datagrams")
            )
        return self._sole[family]

    def _introduce(self) -> None:
        pid = os.getpid()
        if self._introduced != pid:
            self._introduced = pid
            self._write({"process": as_object(self._process(pid))})

    def _process(self, pid: int, status: int | None = None) -> Process:
        is_leader = pid == self._leader
        role = self._role if is_leader else f"{self._role}/{pid}"
        return Process(pid, pid, role, parent=None if is_leader else self._leader, status=status)

    def _next_event(self) -> int:
        self._event += 1
        return self._event

    def _next_socket(self) -> int:
        self._socket += 1
        return self._socket


def _family(address: Address) -> Family:
    return address.family if address.family in ("inet", "inet6", "unix") else "other"


def _place(address: Address) -> Place:
    return Place(escape_text(address.host), None if address.family == "unix" else address.port)


def _bound(endpoint: Endpoint, number: int) -> Socket:
    """A listener, or a socket for datagrams, as its endpoint describes it."""
    kind = _KINDS.get(endpoint.scheme, "stream")
    if endpoint.path:
        family: Family = "unix"
        place = Place(escape_text(endpoint.path))
    else:
        host = endpoint.host or "::"
        family = "other" if endpoint.port is None else "inet6" if ":" in host else "inet"
        place = Place(escape_text(host), endpoint.port)
    is_wrapped = endpoint.scheme == "tls" or bool(endpoint.wrappers)
    return Socket(number, family, kind, local=place, is_listener=kind != "datagram", is_wrapped=is_wrapped)


def _unbound(endpoint: Endpoint, number: int) -> Socket:
    """A socket that is to be connected to an endpoint."""
    return replace(_bound(endpoint, number), local=None, is_listener=False)


def _welcomes(listener: Socket, local: Place) -> bool:
    place = listener.local
    if not listener.is_listener or place is None:
        return False
    return place == local or (place.is_any and place.port == local.port)
