"""A connection or a datagram socket of a case, which records its traffic in the transcript.

It uses raw non-blocking sockets with asyncio's event loop, so that no code stands between a case and the
kernel, and many cases can wait at the same time. Every wait has a timeout, which raises `CheckFailed`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from bothends.check.case import CheckFailed
from bothends.check.oracle import ExpectedReply
from bothends.check.transcript import Transcript, quote_bytes
from bothends.endpoints import Endpoint
from bothends.errors import errno_text
from bothends.sockets.options import reset_on_close

_MAX_RECEIVED: Final = 32 << 20  # bytes: far above any correct reply; some wrong replies never end
_CHUNK: Final = 65_536
_FEW_PIECES: Final = 20
_BUSY_STALLS: Final = 10  # how much longer a peer that is not asleep may take to read


def socket_address(endpoint: Endpoint) -> tuple[int, int, Any]:
    """Return the family, type and address of an endpoint whose host is an address."""
    kind = socket.SOCK_DGRAM if endpoint.is_datagram else socket.SOCK_STREAM
    if endpoint.is_unix:
        path = endpoint.path
        return socket.AF_UNIX, kind, "\0" + path[1:] if path.startswith("@") else path
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    return family, kind, (endpoint.host, endpoint.port)


class RecordedSocket:
    """A socket of the checker. `name` is its name in the transcript; `timeout`: seconds for each step."""

    def __init__(self, sock: socket.socket, name: str, transcript: Transcript, timeout: float) -> None:
        self.socket = sock
        self.name = name
        self.timeout = timeout
        self._transcript = transcript
        self._loop = asyncio.get_running_loop()
        self.read_interval = 0.0  # seconds before each read, to be a slow reader
        self._pushed_back = b""  # received, but not consumed yet
        self.max_resends = 0
        """How often datagrams are sent again that get no reply, if the program may drop some."""
        self.resend_interval = 0.2
        """Seconds after which they are sent again."""
        self._unanswered: list[bytes] = []  # datagrams
        self._answered: list[ExpectedReply] = []  # replies that may arrive again, after a repetition

    def note(self, event: str) -> None:
        """Record an event in the transcript."""
        self._transcript.add(self.name, event)

    # Opening and closing -------------------------------------------------------------------------

    async def connect(self, address: Any) -> None:
        """Connect. A datagram socket sends nothing by that: the transcript says that it is opened.

        Raises:
            CheckFailed: the connection is refused, or not established in time.
        """
        try:
            await asyncio.wait_for(self._loop.sock_connect(self.socket, address), self.timeout)
        except TimeoutError:
            raise CheckFailed(
                "a connection", f"connect() timed out after {self.timeout:g} s", timed_out=True
            ) from None
        except OSError as error:
            raise CheckFailed("a connection", f"connect(): {errno_text(error.errno or 0)}") from error
        self.note("opens a socket" if self.socket.type == socket.SOCK_DGRAM else "connects")

    def start_connect(self, address: Any) -> None:
        """Start to connect without waiting, because the kernels of both ends complete the handshake.

        Raises:
            CheckFailed: connect(2) fails at once.
        """
        try:
            self.socket.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            raise CheckFailed("a connection", f"connect(): {errno_text(error.errno or 0)}") from error
        self.note("starts to connect")

    def is_connected(self) -> bool:
        """Whether the connection is established."""
        try:
            self.socket.getpeername()
        except OSError:
            return False
        return True

    async def wait_connected(self) -> None:
        """Wait for the connection that `start_connect` started.

        Raises:
            CheckFailed: it is refused, or not established in time.
        """
        if not await self._wait_writable(self.timeout):
            raise CheckFailed("a connection", f"connect() timed out after {self.timeout:g} s", timed_out=True)
        if number := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise CheckFailed("a connection", f"connect(): {errno_text(number)}")
        self.note("is connected")

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if self.socket.fileno() >= 0:
            self.note("closes")
            self.socket.close()

    def reset(self) -> None:
        """Close with RST; a UNIX socket, which has none, is closed normally."""
        self.note("resets (RST)")
        reset_on_close(self.socket)
        self.socket.close()

    def shutdown_write(self) -> None:
        """Shut down the write side: shutdown(SHUT_WR) sends FIN."""
        self.note("shuts down its write side (FIN)")
        with suppress(OSError):  # the connection may be lost: the next read reports it
            self.socket.shutdown(socket.SHUT_WR)

    # Sending -------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            CheckFailed: the connection is lost, or the peer does not read in time.
        """
        self.note(f"sends {quote_bytes(data)}")
        if self.max_resends:
            self._unanswered.append(data)
        try:
            await asyncio.wait_for(self._loop.sock_sendall(self.socket, data), self.timeout)
        except TimeoutError:
            raise CheckFailed(
                "all sent data to be read", "the peer stopped reading", timed_out=True
            ) from None
        except OSError as error:
            raise await self._describe_send_error(error) from error

    async def _describe_send_error(self, error: OSError) -> CheckFailed:
        """Return the failure for an error of send(), with the data that the peer sent before it closed.

        That data shows what the peer made of the part that it read; `receive` returns it next.
        """
        number = error.errno or errno.EIO
        received = bytearray()
        with suppress(OSError, TimeoutError):
            while data := await self.receive(0.05):
                received += data
        if received:
            self.note(f"receives {quote_bytes(bytes(received))}")
            self.push_back(bytes(received))
        self.note(f"send() fails: {errno_text(number)}")
        replied = f"replied {quote_bytes(bytes(received))} and " if received else ""
        return CheckFailed(
            "all sent data to be read", f"the peer {replied}closed early: send() failed: {errno_text(number)}"
        )

    async def send_pieces(self, pieces: list[bytes], interval: float) -> None:
        """Send each piece as its own segment, `interval` seconds apart.

        Many pieces are not delayed further on a busy machine, because servers have timeouts, too.
        """
        self.set_nodelay()
        started_at = self._loop.time()
        for number, piece in enumerate(pieces):
            late = self._loop.time() - started_at - number * interval
            if number and (len(pieces) <= _FEW_PIECES or late < 0):
                await asyncio.sleep(interval if len(pieces) <= _FEW_PIECES else -late)
            await self.send(piece)

    async def send_without_reading(
        self, data: bytes, stall_timeout: float, is_peer_idle: Callable[[], bool] = lambda: True
    ) -> int:
        """Send without reading until the kernel accepts nothing for `stall_timeout` seconds.

        `is_peer_idle`: whether the peer is asleep. One that is not gets up to `_BUSY_STALLS` times as long,
        because on a busy machine it may be about to read.

        Returns: the number of bytes accepted.
        """
        self.note(f"sends {len(data):,} bytes without reading")
        view, sent, stalls = memoryview(data), 0, 0
        while sent < len(view):
            try:
                sent += self.socket.send(view[sent : sent + _CHUNK])
                stalls = 0
            except BlockingIOError:
                if await self._wait_writable(stall_timeout):
                    continue
                stalls += 1
                if stalls == _BUSY_STALLS or is_peer_idle():
                    break
            except OSError as error:
                self.note(f"send() fails: {errno_text(error.errno or 0)}")
                break
        self.note(f"{sent:,} bytes were accepted")
        return sent

    def set_nodelay(self) -> None:
        """Disable Nagle's algorithm, so that each write is its own segment (tcp(7), TCP_NODELAY)."""
        if self.socket.family != socket.AF_UNIX and self.socket.type == socket.SOCK_STREAM:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Receiving -----------------------------------------------------------------------------------

    async def receive(self, timeout: float, size: int = _CHUNK) -> bytes:
        """Receive a chunk of at most `size` bytes or a datagram; b"" on a stream is EOF.

        Raises:
            TimeoutError: nothing is received within `timeout` seconds.
            OSError: the connection is lost.
        """
        if self._pushed_back:
            data, self._pushed_back = self._pushed_back, b""
            return data
        if self.read_interval:
            await asyncio.sleep(self.read_interval)
        return await asyncio.wait_for(self._loop.sock_recv(self.socket, size), timeout)

    @property
    def has_input(self) -> bool:
        """Whether data was returned to the front of the input."""
        return bool(self._pushed_back)

    def push_back(self, data: bytes) -> None:
        """Return data to the front of the input: `receive` returns it next."""
        self._pushed_back = data + self._pushed_back

    async def expect_reply(self, reply: ExpectedReply) -> bytes:
        """Receive a whole reply. Data after it in the same chunk is left for the next call.

        Raises:
            CheckFailed: other data is received, or none in time, or the connection ends.
        """
        received = b""
        if reply.silent:
            return b""
        if reply.until_eof:
            received = await self.receive_until_eof()
            if not reply.matches(received):
                raise CheckFailed(str(reply), describe_difference(reply, received))
            return received
        while not reply.matches(received):
            longer = len(received) > len(reply.exact)
            if reply.pattern is None and longer and received.startswith(reply.exact):
                self._pushed_back = received[len(reply.exact) :]
                received = reply.exact
                break
            if not reply.is_prefix(received):
                self.note(f"receives {quote_bytes(received)}")
                raise CheckFailed(str(reply), f"{describe_difference(reply, received)}")
            try:
                data = await self.receive(self.timeout)
            except TimeoutError:
                self.note(f"receives {quote_bytes(received)}")
                raise CheckFailed(
                    str(reply),
                    f"{self._describe_received(received)} within {self.timeout:g} s",
                    timed_out=True,
                ) from None
            except OSError as error:
                self.note(f"receives {quote_bytes(received)}")
                raise self._describe_recv_error("recv", error, received, reply) from error
            if not data:
                self.note(f"receives {quote_bytes(received)}, then EOF (FIN)")
                raise CheckFailed(str(reply), f"{self._describe_received(received)} before EOF")
            received += data
        self.note(f"receives {quote_bytes(received)}")
        return received

    async def expect_datagram(self, reply: ExpectedReply) -> None:
        """Receive a datagram with this reply, or nothing if the reply is silent."""
        await self.expect_datagrams([reply])

    async def expect_datagrams(self, replies: list[ExpectedReply]) -> None:
        """Receive a datagram for each reply, in any order.

        Raises:
            CheckFailed: another datagram is received, or none in time.
        """
        missing = [each for each in replies if not each.silent]
        resends = 0
        while missing:
            may_resend = resends < self.max_resends
            try:
                data = await self.receive(self.resend_interval if may_resend else self.timeout)
            except TimeoutError:
                if may_resend:
                    resends += 1
                    await self._resend()
                    continue
                expected = "an empty datagram" if missing[0] == ExpectedReply() else str(missing[0])
                happened = f"nothing was received within {self.timeout:g} s"
                raise CheckFailed(expected, happened, timed_out=True) from None
            except OSError as error:
                raise self._describe_recv_error("recv", error, b"", missing[0]) from error
            self.note(f"receives {quote_bytes(data)}")
            match = next((each for each in missing if each.matches(data)), None)
            if match is None and self._is_repetition(data):
                continue
            if match is None:
                reply = missing[0]
                surplus = reply.pattern is None and data.startswith(reply.exact)
                cause = "sends old data from its buffer after the reply" if surplus else ""
                raise CheckFailed(str(reply), describe_difference(reply, data), cause=cause)
            missing.remove(match)
            if self.max_resends:
                self._answered.append(match)
        self._unanswered.clear()

    async def _resend(self) -> None:
        """Send the datagrams again that got no reply."""
        self.note("gets no reply in time, and sends again: the contract allows loss")
        for data in self._unanswered:
            with suppress(OSError):
                await self._loop.sock_sendall(self.socket, data)

    def _is_repetition(self, data: bytes) -> bool:
        return any(each.matches(data) for each in self._answered)

    async def receive_until_eof(self, timeout: float | None = None) -> bytes:
        """Receive everything up to the peer's FIN.

        Args:
            timeout: seconds for each chunk, if not the socket's timeout.

        Raises:
            CheckFailed: EOF is not received in time, the connection is reset, or 32 MiB are received.
        """
        limit = self.timeout if timeout is None else timeout
        received = bytearray()
        while True:
            try:
                data = await self.receive(limit)
            except TimeoutError:
                happened = (
                    f"{self._describe_received(bytes(received))}, and the connection was still open"
                    f" after {limit:g} s"
                )
                raise CheckFailed("the end of the connection (EOF)", happened, timed_out=True) from None
            except OSError as error:
                raise self._describe_recv_error("recv", error, bytes(received)) from error
            if not data:
                self.note(f"receives {quote_bytes(bytes(received))}, then EOF (FIN)")
                return bytes(received)
            received += data
            if len(received) > _MAX_RECEIVED:
                self.note(f"receives {quote_bytes(bytes(received))}")
                raise CheckFailed(
                    "the end of the connection (EOF)",
                    f"more than {_MAX_RECEIVED >> 20} MiB were received without EOF",
                )

    async def expect_nothing(self, timeout: float) -> None:
        """Check that no data is received within `timeout` seconds."""
        try:
            data = await self.receive(timeout)
        except TimeoutError:
            return
        except OSError:
            return
        if data and not self._is_repetition(data):
            self.note(f"receives {quote_bytes(data)}")
            raise CheckFailed("no data after the reply", f"{quote_bytes(data)} was received after it")

    async def wait_closed_by_peer(self, timeout: float) -> bool:
        """Return whether the peer closes or resets within `timeout` seconds; its data is discarded."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (remaining := deadline - loop.time()) > 0:
            try:
                if not await self.receive(remaining):
                    self.note("receives EOF (FIN)")
                    return True
            except TimeoutError:
                break
            except OSError as error:
                self.note(f"recv() fails: {errno_text(error.errno or 0)}")
                return True
        return False

    async def _wait_writable(self, timeout: float) -> bool:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self.socket, _resolve, ready)
        try:
            await asyncio.wait_for(ready, timeout)
        except TimeoutError:
            return False
        finally:
            self._loop.remove_writer(self.socket)
        return True

    @staticmethod
    def _describe_received(received: bytes) -> str:
        return f"only {quote_bytes(received)} was received" if received else "nothing was received"

    def _describe_recv_error(
        self, call: str, error: OSError, received: bytes = b"", reply: ExpectedReply | None = None
    ) -> CheckFailed:
        number = error.errno or errno.EIO
        self.note(f"{call}() fails: {errno_text(number)}")
        expected = str(reply) if reply else "an open connection"
        so_far = f"{self._describe_received(received)}, then " if reply else ""
        return CheckFailed(expected, f"{so_far}{call}() failed: {errno_text(number)}")


def describe_difference(reply: ExpectedReply, received: bytes) -> str:
    """Return how received data differs from the correct reply."""
    if reply.pattern is not None or not received:
        return f"received {quote_bytes(received)}"
    exact = reply.exact
    at = next(
        (i for i, (a, b) in enumerate(zip(exact, received, strict=False)) if a != b),
        min(len(exact), len(received)),
    )
    if at < 64:
        return f"received {quote_bytes(received)}"
    around = slice(max(0, at - 16), at + 16)
    instead = f"{quote_bytes(received[around])} instead of {quote_bytes(exact[around])}"
    return f"the reply differs from byte {at:,} on: {instead}"


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def run_concurrently(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently. The first exception cancels the others and is raised."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
