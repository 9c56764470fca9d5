"""A relay between clients and a server that records what each sends, in order.

Nothing is changed and nothing is delayed: each chunk or datagram is recorded, and then forwarded.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from typing import Any, Final

from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed
from bothends.sockets.options import reset_on_close

MAX_RECORDED: Final = (
    64 << 20
)  # bytes: far above any dialogue; a stream without an end must not fill the memory
_CHUNK: Final = 65_536
_GRACE: Final = 1.0  # seconds for the server to close after its client


class Happening(enum.Enum):
    """What happened on a connection, as its client sees it."""

    CONNECT = "connects"
    SEND = "sends"
    RECEIVE = "receives"
    CLIENT_EOF = "ends"
    CLIENT_GONE = "closes"
    CLIENT_RESET = "resets"
    SERVER_EOF = "receives EOF"
    SERVER_RESET = "receives RST"


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event of a connection, or of one client's datagrams. `client`: its number from 0 in its scene."""

    client: int
    happening: Happening
    data: bytes = b""


@dataclass
class Recording:
    """The events of each scene. `separate`: a scene ends when no connection is open."""

    separate: bool
    scenes: list[list[RecordedEvent]] = field(default_factory=list)
    truncated: bool = False
    _clients: int = 0
    _open: int = 0
    _size: int = 0

    def begin_scene(self) -> None:
        """Begin a scene, unless the last one is empty."""
        if not self.scenes or self.scenes[-1]:
            self.scenes.append([])
            self._clients = 0

    def open_client(self) -> int:
        """Return the number of a new client."""
        if not self.scenes or (self.separate and self._open == 0):
            self.begin_scene()
        number = self._clients
        self._clients += 1
        self._open += 1
        return number

    def close_client(self) -> None:
        """Note that a client has gone."""
        self._open -= 1

    def add(self, client: int, happening: Happening, data: bytes = b"") -> None:
        """Record an event. Data above 64 MiB in all is not recorded."""
        self._size += len(data)
        if self._size > MAX_RECORDED:
            self.truncated = True
            return
        self.scenes[-1].append(RecordedEvent(client, happening, data))


class RecordingStreamRelay:
    """A relay of TCP connections to `target`."""

    def __init__(self, recording: Recording, target: Endpoint) -> None:
        self._recording = recording
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen. Returns: the port.

        Raises:
            SystemCallFailed: the address cannot be bound.
        """
        try:
            self._server = await asyncio.start_server(self._accept, host, port)
        except OSError as error:
            raise SystemCallFailed("bind", f"tcp://{host}:{port}", error.errno or 0) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_idle(self, timeout: float) -> None:
        """Wait until no connection is open, for at most `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = self._recording.open_client()
        try:
            await self._relay(number, reader, writer)
        except asyncio.CancelledError:
            pass  # a cancelled task of the server would be logged
        finally:
            self._tasks.discard(task)
            self._recording.close_client()
            writer.close()

    async def _relay(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._recording.add(number, Happening.CONNECT)
        try:
            back, forth = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            self._recording.add(number, Happening.SERVER_RESET)
            _reset(writer)
            return
        try:
            upward = asyncio.ensure_future(self._copy(number, reader, forth, from_client=True))
            downward = asyncio.ensure_future(self._copy(number, back, writer, from_client=False))
            done, _ = await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
            if upward in done:
                _, late = await asyncio.wait({downward}, timeout=_GRACE)
                if late:  # it does not close after its client
                    self._recording.add(number, Happening.CLIENT_GONE)
                    downward.cancel()
            else:
                await asyncio.wait({upward}, timeout=_GRACE)
            for copier in (upward, downward):
                copier.cancel()
            await asyncio.gather(upward, downward, return_exceptions=True)
        finally:
            forth.close()

    async def _copy(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        try:
            while data := await reader.read(_CHUNK):
                self._recording.add(number, Happening.SEND if from_client else Happening.RECEIVE, data)
                writer.write(data)
                await writer.drain()
            self._recording.add(number, Happening.CLIENT_EOF if from_client else Happening.SERVER_EOF)
            writer.write_eof()
        except OSError:
            self._recording.add(number, Happening.CLIENT_RESET if from_client else Happening.SERVER_RESET)
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        reset_on_close(sock)
    writer.transport.abort()


class RecordingDatagramRelay(asyncio.DatagramProtocol):
    """A relay of UDP datagrams to `target`, with a socket for each client."""

    def __init__(self, recording: Recording, target: Endpoint) -> None:
        self._recording = recording
        self._target = target
        self._transport: Any = None
        self._sockets: dict[Any, asyncio.Future[asyncio.DatagramTransport]] = {}  # by the client's address
        self._numbers: dict[Any, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Bind. Returns: the port. See RecordingStreamRelay."""
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
        except OSError as error:
            raise SystemCallFailed("bind", f"udp://{host}:{port}", error.errno or 0) from error
        return int(self._transport.get_extra_info("sockname")[1])

    async def close(self) -> None:
        """Close all sockets."""
        self._transport.close()
        for opened in self._sockets.values():
            if opened.done() and not opened.cancelled():
                opened.result().close()

    async def wait_idle(self, timeout: float) -> None:
        """Wait for late replies: datagrams have no end."""
        await asyncio.sleep(min(timeout, 0.3))

    def next_scene(self) -> None:
        """Take each client for a new one."""
        self._sockets.clear()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        task = asyncio.ensure_future(self._forward(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, data: bytes, peer: Any) -> None:
        loop = asyncio.get_running_loop()
        if peer not in self._sockets:
            number = self._numbers[peer] = self._recording.open_client()
            # The future keeps the order of datagrams that arrive while the socket is opened.
            self._sockets[peer] = loop.create_future()
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Upstream(self._recording, number, self._transport, peer),
                remote_addr=(self._target.host, self._target.port or 0),
            )
            self._sockets[peer].set_result(transport)
        transport = await self._sockets[peer]
        self._recording.add(self._numbers[peer], Happening.SEND, data)
        transport.sendto(data)


class _Upstream(asyncio.DatagramProtocol):
    """The socket of one client to the server."""

    def __init__(self, recording: Recording, number: int, listener: Any, peer: Any) -> None:
        self._recording = recording
        self._number = number
        self._listener = listener
        self._peer = peer

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._recording.add(self._number, Happening.RECEIVE, data)
        self._listener.sendto(data, self._peer)
