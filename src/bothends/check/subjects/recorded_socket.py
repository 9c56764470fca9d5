"""One connection, or one datagram socket, on which everything is written down.

Raw non-blocking sockets under asyncio's loop: nothing of ours stands between a case and the kernel, and many
cases wait at once. Every wait has a limit; what passes it raises `Failed` with what should have come.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from bothends.check.case import Failed
from bothends.check.oracle import Reply
from bothends.check.transcript import Transcript, shown
from bothends.endpoints import Endpoint
from bothends.errors import errno_text

_MOST_HEARD: Final = 32 << 20  # bytes: no right reply comes near it, and some wrong ones never end
_CHUNK: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)  # linger on, for no time: close() sends RST (socket(7))


def place_of(endpoint: Endpoint) -> tuple[int, int, Any]:
    """Family, type and address of an endpoint whose host is an address already."""
    kind = socket.SOCK_DGRAM if endpoint.is_datagram else socket.SOCK_STREAM
    if endpoint.is_unix:
        path = endpoint.path
        return socket.AF_UNIX, kind, "\0" + path[1:] if path.startswith("@") else path
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    return family, kind, (endpoint.host, endpoint.port)


class Talk:
    """One socket of ours. `who` is its name in the transcript, `patience` in seconds."""

    def __init__(self, sock: socket.socket, who: str, transcript: Transcript, patience: float) -> None:
        self.socket = sock
        self.who = who
        self.patience = patience
        self._transcript = transcript
        self._loop = asyncio.get_running_loop()
        self.pace = 0.0  # seconds between reads, for who reads slowly
        self._held = b""  # came together with what was asked for

    def note(self, what: str) -> None:
        """Write something down that isn't bytes."""
        self._transcript.add(self.who, what)

    # Opening and leaving -------------------------------------------------------------------------

    async def connect(self, address: Any) -> None:
        """Connect. Raises Failed: refused, or nobody answered in time."""
        try:
            await asyncio.wait_for(self._loop.sock_connect(self.socket, address), self.patience)
        except TimeoutError:
            raise Failed(
                "a connection", f"no answer to connect() in {self.patience:g} s", late=True
            ) from None
        except OSError as error:
            raise Failed("a connection", f"connect(): {errno_text(error.errno or 0)}") from error
        self.note("connects")

    def begin_connecting(self, address: Any) -> None:
        """Begin to connect, and wait for nothing: the kernels of both ends do the rest. Raises Failed."""
        try:
            self.socket.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            raise Failed("a connection", f"connect(): {errno_text(error.errno or 0)}") from error
        self.note("begins to connect")

    def is_connected(self) -> bool:
        """Whether the other end's kernel has welcomed us."""
        try:
            self.socket.getpeername()
        except OSError:
            return False
        return True

    async def connected(self) -> None:
        """Wait for the connection that was begun. Raises Failed: it doesn't come in time, or is refused."""
        if not await self._writable(self.patience):
            raise Failed("a connection", f"no answer to connect() in {self.patience:g} s", late=True)
        if number := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise Failed("a connection", f"connect(): {errno_text(number)}")
        self.note("is connected")

    def close(self) -> None:
        """Close in good order. Idempotent."""
        if self.socket.fileno() >= 0:
            self.note("closes")
            self.socket.close()

    def reset(self) -> None:
        """Close by RST; on a UNIX socket, which has none, simply close."""
        self.note("resets (RST)")
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()

    def finish(self) -> None:
        """Say that nothing more will come: shutdown(SHUT_WR)."""
        self.note("finishes sending (FIN)")
        with suppress(OSError):  # it may be gone already: what is read next tells
            self.socket.shutdown(socket.SHUT_WR)

    # Saying --------------------------------------------------------------------------------------

    async def say(self, data: bytes) -> None:
        """Send all. Raises Failed: the connection is lost, or the other end doesn't take it."""
        self.note(f"sends {shown(data)}")
        try:
            await asyncio.wait_for(self._loop.sock_sendall(self.socket, data), self.patience)
        except TimeoutError:
            raise Failed("what we send to be read", "the other end reads no more", late=True) from None
        except OSError as error:
            raise await self._cut_off(error) from error

    async def _cut_off(self, error: OSError) -> Failed:
        """The other end has gone while we were sending. What it said before tells how it took what it had."""
        number = error.errno or errno.EIO
        heard = bytearray()
        with suppress(OSError, TimeoutError):
            while data := await self.receive(0.05):
                heard += data
        if heard:
            self.note(f"receives {shown(bytes(heard))}")
        self.note(f"send() gives {errno_text(number)}")
        said = f"it said {shown(bytes(heard))} and" if heard else "it"
        return Failed(
            "all of what we send to be read", f"{said} closed before: send() gave {errno_text(number)}"
        )

    async def say_pieces(self, pieces: list[bytes], between: float) -> None:
        """Send piece by piece, `between` seconds apart, each as a segment of its own."""
        self.no_delay()
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(between)
            await self.say(piece)

    async def flood(self, data: bytes, still: float) -> int:
        """Send without reading until nothing has been taken for `still` seconds; how much was taken."""
        self.note(f"sends {len(data):,} bytes and reads nothing")
        view, sent = memoryview(data), 0
        while sent < len(view):
            try:
                sent += self.socket.send(view[sent : sent + _CHUNK])
            except BlockingIOError:
                if not await self._writable(still):
                    break
            except OSError as error:
                self.note(f"meets {errno_text(error.errno or 0)}")
                break
        self.note(f"{sent:,} bytes were taken")
        return sent

    def no_delay(self) -> None:
        """Let each write be a segment of its own (no Nagle)."""
        if self.socket.family != socket.AF_UNIX and self.socket.type == socket.SOCK_STREAM:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Hearing -------------------------------------------------------------------------------------

    async def receive(self, within: float, size: int = _CHUNK) -> bytes:
        """What comes next: a chunk, a datagram, or b"" at the end of a stream.

        Raises:
            TimeoutError: nothing came within so many seconds.
            OSError: the connection is lost.
        """
        if self._held:
            data, self._held = self._held, b""
            return data
        if self.pace:
            await asyncio.sleep(self.pace)
        return await asyncio.wait_for(self._loop.sock_recv(self.socket, size), within)

    def hold(self, data: bytes) -> None:
        """Give back what was read too much: it comes first the next time."""
        self._held = data + self._held

    async def hear(self, reply: Reply) -> bytes:
        """The reply, whole. What came after it in the same chunk is kept for the next call.

        Raises:
            Failed: something else came, or nothing, or the connection ended.
        """
        heard = b""
        if reply.silent:
            return b""
        if reply.to_end:
            heard = await self.hear_end()
            if not reply.fits(heard):
                raise Failed(str(reply), differs(reply, heard))
            return heard
        while not reply.fits(heard):
            if reply.pattern is None and len(heard) > len(reply.exact) and heard.startswith(reply.exact):
                self._held = heard[len(reply.exact) :]
                heard = reply.exact
                break
            if not reply.may_become(heard):
                self.note(f"receives {shown(heard)}")
                raise Failed(str(reply), f"{differs(reply, heard)}")
            try:
                data = await self.receive(self.patience)
            except TimeoutError:
                self.note(f"receives {shown(heard)}")
                raise Failed(
                    str(reply),
                    f"{self._so_far(heard)}, then nothing for {self.patience:g} s",
                    late=True,
                ) from None
            except OSError as error:
                self.note(f"receives {shown(heard)}")
                raise self._lost("recv", error, heard, reply) from error
            if not data:
                self.note(f"receives {shown(heard)}, then the end (FIN)")
                raise Failed(str(reply), f"{self._so_far(heard)}, then the end of the connection")
            heard += data
        self.note(f"receives {shown(heard)}")
        return heard

    async def hear_datagram(self, reply: Reply) -> None:
        """One datagram, which is the reply, or none where that is silence. Raises Failed."""
        await self.hear_datagrams([reply])

    async def hear_datagrams(self, replies: list[Reply]) -> None:
        """As many datagrams, each of them one of the replies, in any order. Raises Failed."""
        left = [each for each in replies if not each.silent]
        while left:
            try:
                data = await self.receive(self.patience)
            except TimeoutError:
                wanted = "an empty datagram" if left[0] == Reply() else str(left[0])
                raise Failed(wanted, f"nothing came for {self.patience:g} s", late=True) from None
            except OSError as error:
                raise self._lost("recv", error, b"", left[0]) from error
            self.note(f"receives {shown(data)}")
            fitting = next((each for each in left if each.fits(data)), None)
            if fitting is None:
                raise Failed(str(left[0]), differs(left[0], data))
            left.remove(fitting)

    async def hear_end(self, within: float | None = None) -> bytes:
        """Everything up to the other end's FIN.

        Raises:
            Failed: it doesn't come in time, or it is a reset.
        """
        limit = self.patience if within is None else within
        heard = bytearray()
        while True:
            try:
                data = await self.receive(limit)
            except TimeoutError:
                happened = f"{self._so_far(bytes(heard))}, and the connection stays open for {limit:g} s"
                raise Failed("the end of the connection", happened, late=True) from None
            except OSError as error:
                raise self._lost("recv", error, bytes(heard)) from error
            if not data:
                self.note(f"receives {shown(bytes(heard))}, then the end (FIN)")
                return bytes(heard)
            heard += data
            if len(heard) > _MOST_HEARD:
                self.note(f"receives {shown(bytes(heard))}")
                raise Failed(
                    "the end of the connection", f"more than {_MOST_HEARD >> 20} MiB come, and no end"
                )

    async def hear_nothing(self, within: float) -> None:
        """Make sure that nothing more comes for so long. Raises Failed: something did."""
        try:
            data = await self.receive(within)
        except TimeoutError:
            return
        except OSError:
            return
        if data:
            self.note(f"receives {shown(data)}")
            raise Failed("nothing after the reply", f"then came {shown(data)} more")

    async def is_over(self, within: float) -> bool:
        """Whether the other end closes or resets within so many seconds; what it says before is dropped."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
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

    async def _writable(self, within: float) -> bool:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self.socket, _settle, ready)
        try:
            await asyncio.wait_for(ready, within)
        except TimeoutError:
            return False
        finally:
            self._loop.remove_writer(self.socket)
        return True

    @staticmethod
    def _so_far(heard: bytes) -> str:
        return f"only {shown(heard)} came" if heard else "nothing came"

    def _lost(self, doing: str, error: OSError, heard: bytes = b"", reply: Reply | None = None) -> Failed:
        number = error.errno or errno.EIO
        self.note(f"{doing}() gives {errno_text(number)}")
        expected = str(reply) if reply else "an open connection"
        so_far = f"{self._so_far(heard)}, then " if reply else ""
        return Failed(expected, f"{so_far}{doing}() gave {errno_text(number)}")


def differs(reply: Reply, heard: bytes) -> str:
    """Where what came goes another way than what should have come."""
    if reply.pattern is not None or not heard:
        return f"what came is {shown(heard)}"
    exact = reply.exact
    at = next(
        (i for i, (a, b) in enumerate(zip(exact, heard, strict=False)) if a != b), min(len(exact), len(heard))
    )
    if at < 64:
        return f"what came is {shown(heard)}"
    around = slice(max(0, at - 16), at + 16)
    return f"from byte {at:,} on it differs: {shown(heard[around])} came in place of {shown(exact[around])}"


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def together(doings: list[Coroutine[Any, Any, None]]) -> None:
    """All at once; the first that fails ends the others. Raises what it raised."""
    tasks = [asyncio.ensure_future(each) for each in doings]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
