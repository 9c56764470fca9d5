"""One connection, or one datagram socket, on which everything is written down.

Raw non-blocking sockets under asyncio's loop: nothing of ours stands between a case and the kernel, and many
cases wait at once. Every wait has a limit; what passes it raises `ServiceFailed` with what should have come.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from bothends.check.case import CheckFailed
from bothends.check.oracle import ExpectedReply
from bothends.check.transcript import Transcript, quote_bytes
from bothends.endpoints import Endpoint
from bothends.errors import errno_text
from bothends.sockets.options import reset_on_close

_MAX_RECEIVED: Final = 32 << 20  # bytes: no right reply comes near it, and some wrong ones never end
_CHUNK: Final = 65_536


def socket_address(endpoint: Endpoint) -> tuple[int, int, Any]:
    """Family, type and address of an endpoint whose host is an address already."""
    kind = socket.SOCK_DGRAM if endpoint.is_datagram else socket.SOCK_STREAM
    if endpoint.is_unix:
        path = endpoint.path
        return socket.AF_UNIX, kind, "\0" + path[1:] if path.startswith("@") else path
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    return family, kind, (endpoint.host, endpoint.port)


class RecordedSocket:
    """One socket of ours. `who` is its name in the transcript, `patience` in seconds."""

    def __init__(self, sock: socket.socket, name: str, transcript: Transcript, timeout: float) -> None:
        self.socket = sock
        self.name = name
        self.timeout = timeout
        self._transcript = transcript
        self._loop = asyncio.get_running_loop()
        self.read_interval = 0.0  # seconds between reads, for who reads slowly
        self._pushed_back = b""  # came together with what was asked for

    def note(self, what: str) -> None:
        """Write something down that isn't bytes."""
        self._transcript.add(self.name, what)

    # Opening and leaving -------------------------------------------------------------------------

    async def connect(self, address: Any) -> None:
        """Connect. Raises Failed: refused, or nobody answered in time."""
        try:
            await asyncio.wait_for(self._loop.sock_connect(self.socket, address), self.timeout)
        except TimeoutError:
            raise CheckFailed(
                "a connection", f"no answer to connect() in {self.timeout:g} s", timed_out=True
            ) from None
        except OSError as error:
            raise CheckFailed("a connection", f"connect(): {errno_text(error.errno or 0)}") from error
        self.note("connects")

    def start_connect(self, address: Any) -> None:
        """Begin to connect, and wait for nothing: the kernels of both ends do the rest. Raises Failed."""
        try:
            self.socket.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            raise CheckFailed("a connection", f"connect(): {errno_text(error.errno or 0)}") from error
        self.note("begins to connect")

    def is_connected(self) -> bool:
        """Whether the other end's kernel has welcomed us."""
        try:
            self.socket.getpeername()
        except OSError:
            return False
        return True

    async def wait_connected(self) -> None:
        """Wait for the connection that was begun. Raises Failed: it doesn't come in time, or is refused."""
        if not await self._wait_writable(self.timeout):
            raise CheckFailed("a connection", f"no answer to connect() in {self.timeout:g} s", timed_out=True)
        if number := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise CheckFailed("a connection", f"connect(): {errno_text(number)}")
        self.note("is connected")

    def close(self) -> None:
        """Close in good order. Idempotent."""
        if self.socket.fileno() >= 0:
            self.note("closes")
            self.socket.close()

    def reset(self) -> None:
        """Close by RST; on a UNIX socket, which has none, simply close."""
        self.note("resets (RST)")
        reset_on_close(self.socket)
        self.socket.close()

    def shutdown_write(self) -> None:
        """Say that nothing more will come: shutdown(SHUT_WR)."""
        self.note("finishes sending (FIN)")
        with suppress(OSError):  # it may be gone already: what is read next tells
            self.socket.shutdown(socket.SHUT_WR)

    # Saying --------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Send all. Raises Failed: the connection is lost, or the other end doesn't take it."""
        self.note(f"sends {quote_bytes(data)}")
        try:
            await asyncio.wait_for(self._loop.sock_sendall(self.socket, data), self.timeout)
        except TimeoutError:
            raise CheckFailed(
                "what we send to be read", "the other end reads no more", timed_out=True
            ) from None
        except OSError as error:
            raise await self._describe_send_error(error) from error

    async def _describe_send_error(self, error: OSError) -> CheckFailed:
        """The other end has gone while we were sending. What it said before tells how it took what it had."""
        number = error.errno or errno.EIO
        heard = bytearray()
        with suppress(OSError, TimeoutError):
            while data := await self.receive(0.05):
                heard += data
        if heard:
            self.note(f"receives {quote_bytes(bytes(heard))}")
        self.note(f"send() gives {errno_text(number)}")
        said = f"it said {quote_bytes(bytes(heard))} and" if heard else "it"
        return CheckFailed(
            "all of what we send to be read", f"{said} closed before: send() gave {errno_text(number)}"
        )

    async def send_pieces(self, pieces: list[bytes], interval: float) -> None:
        """Send piece by piece, `between` seconds apart, each as a segment of its own."""
        self.set_nodelay()
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(interval)
            await self.send(piece)

    async def send_without_reading(self, data: bytes, stall_timeout: float) -> int:
        """Send without reading until nothing has been taken for `stall_timeout` seconds; how much was taken."""
        self.note(f"sends {len(data):,} bytes and reads nothing")
        view, sent = memoryview(data), 0
        while sent < len(view):
            try:
                sent += self.socket.send(view[sent : sent + _CHUNK])
            except BlockingIOError:
                if not await self._wait_writable(stall_timeout):
                    break
            except OSError as error:
                self.note(f"meets {errno_text(error.errno or 0)}")
                break
        self.note(f"{sent:,} bytes were taken")
        return sent

    def set_nodelay(self) -> None:
        """Let each write be a segment of its own (no Nagle)."""
        if self.socket.family != socket.AF_UNIX and self.socket.type == socket.SOCK_STREAM:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Hearing -------------------------------------------------------------------------------------

    async def receive(self, timeout: float, size: int = _CHUNK) -> bytes:
        """What comes next: a chunk, a datagram, or b"" at the end of a stream.

        Raises:
            TimeoutError: nothing came within so many seconds.
            OSError: the connection is lost.
        """
        if self._pushed_back:
            data, self._pushed_back = self._pushed_back, b""
            return data
        if self.read_interval:
            await asyncio.sleep(self.read_interval)
        return await asyncio.wait_for(self._loop.sock_recv(self.socket, size), timeout)

    def push_back(self, data: bytes) -> None:
        """Give back what was read too much: it comes first the next time."""
        self._pushed_back = data + self._pushed_back

    async def expect_reply(self, reply: ExpectedReply) -> bytes:
        """The reply, whole. What came after it in the same chunk is kept for the next call.

        Raises:
            Failed: something else came, or nothing, or the connection ended.
        """
        heard = b""
        if reply.silent:
            return b""
        if reply.until_eof:
            heard = await self.receive_until_eof()
            if not reply.matches(heard):
                raise CheckFailed(str(reply), describe_difference(reply, heard))
            return heard
        while not reply.matches(heard):
            if reply.pattern is None and len(heard) > len(reply.exact) and heard.startswith(reply.exact):
                self._pushed_back = heard[len(reply.exact) :]
                heard = reply.exact
                break
            if not reply.is_prefix(heard):
                self.note(f"receives {quote_bytes(heard)}")
                raise CheckFailed(str(reply), f"{describe_difference(reply, heard)}")
            try:
                data = await self.receive(self.timeout)
            except TimeoutError:
                self.note(f"receives {quote_bytes(heard)}")
                raise CheckFailed(
                    str(reply),
                    f"{self._describe_received(heard)}, then nothing for {self.timeout:g} s",
                    timed_out=True,
                ) from None
            except OSError as error:
                self.note(f"receives {quote_bytes(heard)}")
                raise self._describe_recv_error("recv", error, heard, reply) from error
            if not data:
                self.note(f"receives {quote_bytes(heard)}, then the end (FIN)")
                raise CheckFailed(
                    str(reply), f"{self._describe_received(heard)}, then the end of the connection"
                )
            heard += data
        self.note(f"receives {quote_bytes(heard)}")
        return heard

    async def expect_datagram(self, reply: ExpectedReply) -> None:
        """One datagram, which is the reply, or none where that is silence. Raises Failed."""
        await self.expect_datagrams([reply])

    async def expect_datagrams(self, replies: list[ExpectedReply]) -> None:
        """As many datagrams, each of them one of the replies, in any order. Raises Failed."""
        left = [each for each in replies if not each.silent]
        while left:
            try:
                data = await self.receive(self.timeout)
            except TimeoutError:
                wanted = "an empty datagram" if left[0] == ExpectedReply() else str(left[0])
                raise CheckFailed(wanted, f"nothing came for {self.timeout:g} s", timed_out=True) from None
            except OSError as error:
                raise self._describe_recv_error("recv", error, b"", left[0]) from error
            self.note(f"receives {quote_bytes(data)}")
            fitting = next((each for each in left if each.matches(data)), None)
            if fitting is None:
                raise CheckFailed(str(left[0]), describe_difference(left[0], data))
            left.remove(fitting)

    async def receive_until_eof(self, timeout: float | None = None) -> bytes:
        """Everything up to the other end's FIN.

        Raises:
            Failed: it doesn't come in time, or it is a reset.
        """
        limit = self.timeout if timeout is None else timeout
        heard = bytearray()
        while True:
            try:
                data = await self.receive(limit)
            except TimeoutError:
                happened = (
                    f"{self._describe_received(bytes(heard))}, and the connection stays open for {limit:g} s"
                )
                raise CheckFailed("the end of the connection", happened, timed_out=True) from None
            except OSError as error:
                raise self._describe_recv_error("recv", error, bytes(heard)) from error
            if not data:
                self.note(f"receives {quote_bytes(bytes(heard))}, then the end (FIN)")
                return bytes(heard)
            heard += data
            if len(heard) > _MAX_RECEIVED:
                self.note(f"receives {quote_bytes(bytes(heard))}")
                raise CheckFailed(
                    "the end of the connection", f"more than {_MAX_RECEIVED >> 20} MiB come, and no end"
                )

    async def expect_nothing(self, timeout: float) -> None:
        """Make sure that nothing more comes for so long. Raises Failed: something did."""
        try:
            data = await self.receive(timeout)
        except TimeoutError:
            return
        except OSError:
            return
        if data:
            self.note(f"receives {quote_bytes(data)}")
            raise CheckFailed("nothing after the reply", f"then came {quote_bytes(data)} more")

    async def wait_closed_by_peer(self, timeout: float) -> bool:
        """Whether the other end closes or resets within so many seconds; what it says before is dropped."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (left := deadline - loop.time()) > 0:
            try:
                if not await self.receive(left):
                    self.note("receives the end (FIN)")
                    return True
            except TimeoutError:
                break
            except OSError as error:
                self.note(f"meets {errno_text(error.errno or 0)}")
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
        return f"only {quote_bytes(received)} came" if received else "nothing came"

    def _describe_recv_error(
        self, call: str, error: OSError, received: bytes = b"", reply: ExpectedReply | None = None
    ) -> CheckFailed:
        number = error.errno or errno.EIO
        self.note(f"{call}() gives {errno_text(number)}")
        expected = str(reply) if reply else "an open connection"
        so_far = f"{self._describe_received(received)}, then " if reply else ""
        return CheckFailed(expected, f"{so_far}{call}() gave {errno_text(number)}")


def describe_difference(reply: ExpectedReply, received: bytes) -> str:
    """Where what came goes another way than what should have come."""
    if reply.pattern is not None or not received:
        return f"what came is {quote_bytes(received)}"
    exact = reply.exact
    at = next(
        (i for i, (a, b) in enumerate(zip(exact, received, strict=False)) if a != b),
        min(len(exact), len(received)),
    )
    if at < 64:
        return f"what came is {quote_bytes(received)}"
    around = slice(max(0, at - 16), at + 16)
    return f"from byte {at:,} on it differs: {quote_bytes(received[around])} came in place of {quote_bytes(exact[around])}"


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def run_concurrently(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """All at once; the first that fails ends the others. Raises what it raised."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
