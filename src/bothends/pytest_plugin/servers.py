"""Servers for a test: any service on any engine, any command, and peers that misbehave."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import pytest

from bothends.pytest_plugin.commands import DEFAULT_TIMEOUT, Command, end, line, words

if TYPE_CHECKING:
    from bothends.client.blocking import Connection
    from bothends.endpoints import Endpoint
    from bothends.services.base import Conversation, Service

Behaviour: TypeAlias = Literal["silent", "close", "reset", "cut", "dripped", "joined", "endless", "refuse"]
"""What a misbehaving server does with a connection, see `PeerFactory`."""

_STEP: Final = 0.02  # seconds between looks at a command that does not listen yet
_CHUNK: Final = 65_536


@dataclass(frozen=True)
class ServerHandle:
    """A server that runs until the test ends.

    `endpoints`: where it listens, with real ports. `trace`: the file with its events, if it records them.
    `pid`: of a command.
    """

    endpoints: tuple[Endpoint, ...]
    trace: Path | None = None
    pid: int | None = None
    _output: Callable[[], str] = str

    @property
    def endpoint(self) -> Endpoint:
        """The first endpoint."""
        return self.endpoints[0]

    @property
    def url(self) -> str:
        """The first endpoint as a URL: tcp://127.0.0.1:12000."""
        return str(self.endpoint)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first endpoint, for socket.create_connection."""
        return self.endpoint.host or "127.0.0.1", self.endpoint.port or 0

    @property
    def port(self) -> int:
        """The port of the first endpoint; 0 for a UNIX socket."""
        return self.endpoint.port or 0

    @property
    def output(self) -> str:
        """What a command has printed so far."""
        return self._output()

    def connect(self, **options: Any) -> Connection:
        """Connect to the first endpoint; options as those of `bothends.connect`."""
        from bothends import connect

        return connect(self.endpoint, **options)


class ServerFactory:
    """The fixture `bothends_server`: each call starts a server that stops when the test ends."""

    def __init__(self, stack: contextlib.ExitStack, traces: Path) -> None:
        self._stack, self._traces = stack, traces
        self._numbers = itertools.count(1)

    def __call__(
        self,
        service: Service | type[Conversation] | str = "",
        *endpoints: Endpoint | str,
        command: Command = "",
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> ServerHandle:
        """Serve a service in a thread of this process, or run a command that listens.

        Args:
            service: a Service, a Conversation class, a name, or file.py:name.
            endpoints: where to listen; default tcp://127.0.0.1:0, a free port.
            command: instead of a service: a program that listens on the TCP or UDP port {port}. It is ready
                once a socket of this machine is bound to the port, without a connection.
            timeout: seconds until a command must listen.
            options: those of `bothends.serve`, such as engine and limits.
        """
        __tracebackhide__ = True  # a failure is shown where the test calls this
        if command:
            return self._run(command, endpoints, timeout)
        from bothends import serve
        from bothends.trace.capture.event_recorder import EventRecorder

        trace = self._traces / f"server-{next(self._numbers)}.trace"
        recorder = EventRecorder(trace)
        self._stack.callback(recorder.close)
        server = self._stack.enter_context(
            serve(service, *(endpoints or ("tcp://127.0.0.1:0",)), observe=recorder, **options)
        )
        return ServerHandle(tuple(server.endpoints), trace)

    def _run(self, command: Command, endpoints: tuple[Endpoint | str, ...], timeout: float) -> ServerHandle:
        from bothends.endpoints import Endpoint
        from bothends.sockets.free_port import free_port

        __tracebackhide__ = True
        port = free_port()
        texts = [str(each) for each in endpoints] or [f"tcp://127.0.0.1:{port}"]
        found = tuple(Endpoint.parse(text.replace("{port}", str(port))) for text in texts)
        path = self._traces / f"command-{next(self._numbers)}.output"
        with path.open("wb") as output:
            process = subprocess.Popen(
                [word.replace("{port}", str(port)) for word in words(command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._stack.callback(end, process)

        def printed() -> str:
            return path.read_text(encoding="utf-8", errors="replace")

        deadline = time.monotonic() + timeout
        waiting = {(each.scheme == "udp", each.port) for each in found if each.port}
        while not waiting <= _bound_ports():
            if process.poll() is not None:
                pytest.fail(f"{line(command)}: exited with {process.returncode}\n{printed()}")
            if time.monotonic() > deadline:
                pytest.fail(f"{line(command)}: does not listen after {timeout:g} s\n{printed()}")
            time.sleep(_STEP)
        return ServerHandle(found, None, process.pid, printed)


def _bound_ports() -> set[tuple[bool, int]]:
    """Return the ports here that listen (TCP) or are bound (UDP): whether it is UDP, and the port."""
    from bothends.socket_table import proc_net

    return {
        (entry.protocol == "udp", entry.local.port)
        for entry in proc_net.read(protocols=("tcp", "udp"))
        if entry.protocol == "udp" or entry.state == "LISTEN"
    }


class PeerFactory:
    """The fixture `bothends_peer`: servers that misbehave, to test a client with."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def __call__(
        self,
        behaviour: Behaviour | Callable[[socket.socket], object],
        *,
        reply: bytes = b"hello\n",
        interval: float = 0.01,
    ) -> ServerHandle:
        """Start a TCP server on 127.0.0.1 that treats each connection in the same way.

        Args:
            behaviour: a function that gets the connected socket, which is closed after it, or one of these.
                silent: reads, and never replies; close: reads once, then ends the stream without a reply;
                reset: reads once, then resets the connection (RST); cut: sends half of the reply, then ends
                the stream; dripped: sends the reply byte by byte; joined: sends the reply twice in one
                segment; endless: sends the reply again and again; refuse: nothing listens on the port.
            reply: the bytes of a whole reply.
            interval: seconds between the bytes of dripped.
        """
        from bothends.endpoints import Endpoint

        sock = socket.socket()
        self._stack.callback(sock.close)
        sock.bind(("127.0.0.1", 0))
        endpoint = Endpoint.parse(f"tcp://127.0.0.1:{sock.getsockname()[1]}")
        if behaviour != "refuse":  # which is bound, so that no other process gets the port
            sock.listen()
            act = behaviour if callable(behaviour) else _behaviours(reply, interval)[behaviour]
            self._stack.callback(_PeerServer(sock, act).stop)
        return ServerHandle((endpoint,))


def _behaviours(reply: bytes, interval: float) -> dict[str, Callable[[socket.socket], object]]:
    from bothends.client import faults

    def silent(sock: socket.socket) -> None:
        while sock.recv(_CHUNK):
            pass

    def reset(sock: socket.socket) -> None:
        sock.recv(_CHUNK)
        faults.reset(sock)

    def cut(sock: socket.socket) -> None:
        sock.recv(_CHUNK)
        sock.sendall(reply[: len(reply) // 2])

    def dripped(sock: socket.socket) -> None:
        while sock.recv(_CHUNK):
            faults.send_bytewise(sock, reply, interval=interval)

    def joined(sock: socket.socket) -> None:
        while sock.recv(_CHUNK):
            sock.sendall(reply * 2)

    def endless(sock: socket.socket) -> None:
        sock.recv(_CHUNK)
        while True:
            sock.sendall(reply)

    return {
        "silent": silent,
        "close": lambda sock: sock.recv(_CHUNK),
        "reset": reset,
        "cut": cut,
        "dripped": dripped,
        "joined": joined,
        "endless": endless,
    }


class _PeerServer:
    """Accepts in a thread; a thread for each connection, which `stop` shuts down."""

    def __init__(self, listener: socket.socket, act: Callable[[socket.socket], object]) -> None:
        self._listener, self._act = listener, act
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="bothends-peer", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # shut down
            self._connections.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name="bothends-peer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        from bothends.errors import BothendsError

        with sock, contextlib.suppress(OSError, BothendsError):
            self._act(sock)

    def stop(self) -> None:
        """Shut all sockets down, which ends the threads that wait for them."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(DEFAULT_TIMEOUT)
        for sock in self._connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(DEFAULT_TIMEOUT)
        self._listener.close()
