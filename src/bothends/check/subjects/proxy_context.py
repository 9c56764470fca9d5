"""A running case of a proxy suite: the proxy between a client and an upstream, which are both the checker's.

A pair is a client's connection to the proxy, and the connection to the upstream that the proxy opened for it.
The stimuli of `suites/proxies/` are made of these methods.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bothends.check.case import CheckFailed
from bothends.check.contract import Contract
from bothends.check.oracle import Oracle
from bothends.check.subjects.process import ProgramProcess
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.relayed_bytes import describe_damage, quote_stream
from bothends.check.subjects.server_context import RunningServer, ServerContext
from bothends.check.subjects.upstream import StreamUpstream, Upstream
from bothends.check.transcript import MAX_QUOTED_BYTES, Transcript, quote_bytes
from bothends.errors import errno_text
from bothends.osutil.process_info import thread_ids
from bothends.socket_table import proc_net

_CHUNK: Final = 1 << 18  # bytes of one send() of a long stream
_AFTER_DAMAGE: Final = 0.1  # seconds in which the bytes after a wrong one arrive, which show what it is


@dataclass(frozen=True, slots=True)
class Pair:
    """A client's connection, and the upstream's end of it."""

    client: RecordedSocket
    upstream: RecordedSocket

    def ends(self, *, upwards: bool) -> tuple[RecordedSocket, RecordedSocket]:
        """Return the sender and the receiver of one direction; `upwards`: from the client to the upstream."""
        return (self.client, self.upstream) if upwards else (self.upstream, self.client)


class ProxyCaseContext(ServerContext):
    """A running case of a proxy suite. `reload_signal`: reloads the proxy's configuration; 0 for none."""

    noun = "proxy"

    def __init__(
        self,
        contract: Contract,
        server: RunningServer,
        oracle: Oracle,
        transcript: Transcript,
        timeout: float,
        load_factor: float,
        restart: Callable[[RunningServer], Awaitable[RunningServer]],
        upstream: Upstream,
        reload_signal: int = 0,
    ) -> None:
        super().__init__(contract, server, oracle, transcript, timeout, load_factor, restart)
        self._upstream = upstream
        self.reload_signal = reload_signal
        self._count = 0

    @property
    def upstream(self) -> StreamUpstream:
        """The server behind a proxy for streams."""
        assert isinstance(self._upstream, StreamUpstream)
        return self._upstream

    # Pairs ---------------------------------------------------------------------------------------

    async def open_pair(self, name: str = "") -> Pair:
        """Connect a client, and wait until its first bytes arrive at the upstream, and a reply at the client.

        Args:
            name: of the client, in the transcript.

        Raises:
            CheckFailed: they do not arrive.
        """
        client = await self.connect(f"client {name}".strip())
        return await self.pair_of(client)

    async def pair_of(self, client: RecordedSocket) -> Pair:
        """Send a client's first bytes, and wait until they arrive at the upstream, and a reply at the client.

        Raises:
            CheckFailed: they do not arrive.
        """
        self._count += 1
        first = b"client %08d\n" % self._count
        await client.send(first)
        try:
            sock = await self.upstream.accept_from(first, client.timeout)
        except TimeoutError:
            raise self._describe_missing(client, first) from None
        upstream = self.record(sock, client.name.replace("client", "upstream"), first, client)
        await self.relay(upstream, client, b"to " + first)
        return Pair(client, upstream)

    def record(
        self, sock: socket.socket, name: str, first: bytes = b"", client: RecordedSocket | None = None
    ) -> RecordedSocket:
        """Return an accepted connection of the upstream as a recorded socket. It is closed with the case."""
        upstream = RecordedSocket(sock, name, self.transcript, client.timeout if client else self.timeout)
        upstream.note(f"accepts{f', and receives {quote_bytes(first)}' if first else ''}")
        self._sockets.append(upstream)
        return upstream

    def _describe_missing(self, client: RecordedSocket, first: bytes) -> CheckFailed:
        """Return the failure for a client whose first bytes do not arrive at the upstream."""
        expected = f"the upstream to receive {quote_bytes(first)}"
        count, data = self.upstream.describe_unclaimed()
        waited = f"within {client.timeout:g} s"
        ended = ""
        with suppress(BlockingIOError):
            try:
                ended = (
                    "" if client.socket.recv(1, socket.MSG_PEEK) else "; the client's connection was closed"
                )
            except ConnectionError as error:
                ended = f"; the client's connection has failed: {errno_text(error.errno or 0)}"
        if data and not first.startswith(data):
            return CheckFailed(expected, f"it received {quote_bytes(data)}{ended}", timed_out=True)
        if data:
            return CheckFailed(
                expected, f"it received only {quote_bytes(data)} {waited}{ended}", timed_out=True,
                cause="keeps data back, or passes on a part of it",
            )  # fmt: skip
        if count:
            return CheckFailed(
                expected, f"a connection arrived at the upstream, and no data on it {waited}{ended}",
                timed_out=True,
            )  # fmt: skip
        return CheckFailed(
            expected, f"no connection arrived at the upstream {waited}{ended}", timed_out=True
        )  # fmt: skip

    async def exchange(self, conn: RecordedSocket, *messages: bytes) -> None:
        """Relay a request and a reply on a client's connection. `messages` are ignored: any bytes pass."""
        pair = await self.pair_of(conn)
        await self.relay(pair.client, pair.upstream, b"request\n")
        await self.relay(pair.upstream, pair.client, b"reply\n")

    async def expect_served(self, name: str = "next", number: int = 0) -> None:
        """Check that a new client's bytes are relayed in both directions, and close both ends."""
        pair = await self.open_pair(name)
        await self.relay(pair.client, pair.upstream, b"request\n")
        await self.relay(pair.upstream, pair.client, b"reply\n")
        pair.client.close()
        pair.upstream.close()

    # Streams -------------------------------------------------------------------------------------

    async def send_stream(self, sender: RecordedSocket, data: bytes) -> None:
        """Send a long stream. The timeout is for each 256 KiB of it.

        Raises:
            CheckFailed: the connection is lost, or the proxy stops reading.
        """
        sender.note(f"sends {quote_stream(data)}")
        loop = asyncio.get_running_loop()
        for at in range(0, len(data), _CHUNK):
            try:
                chunk = data[at : at + _CHUNK]
                await asyncio.wait_for(loop.sock_sendall(sender.socket, chunk), sender.timeout)
            except TimeoutError:
                raise CheckFailed(
                    f"the proxy to read what the {sender.name} sends",
                    f"it stopped reading after about {at:,} bytes, although the other side reads",
                    timed_out=True,
                ) from None
            except OSError as error:
                sender.note(f"send() fails: {errno_text(error.errno or 0)}")
                raise CheckFailed(
                    f"the proxy to read what the {sender.name} sends",
                    f"send() failed after about {at:,} bytes: {errno_text(error.errno or 0)}",
                ) from error

    async def expect_bytes(self, receiver: RecordedSocket, sent: bytes, *, mistake: str = "") -> None:
        """Receive exactly these bytes.

        Args:
            sent: the bytes, as they were sent to the proxy.
            mistake: the likely one if some are missing.

        Raises:
            CheckFailed: other bytes arrive, or not all of them.
        """
        every = "" if len(sent) <= MAX_QUOTED_BYTES else "all "
        expected = f"the {receiver.name} to receive {every}{quote_stream(sent)}"
        received = bytearray()
        while len(received) < len(sent):
            ending, timed_out = "", False
            try:
                chunk = await receiver.receive(receiver.timeout)
                ending = "" if chunk else ", then EOF (FIN)"
            except TimeoutError:
                chunk, ending, timed_out = b"", f" within {receiver.timeout:g} s", True
            except OSError as error:
                chunk, ending = b"", f", then recv() failed: {errno_text(error.errno or errno.EIO)}"
            if ending:
                receiver.note(f"receives {quote_stream(bytes(received))}{ending}")
                happened = f"{describe_damage(sent, bytes(received))[0]}{ending}"
                raise CheckFailed(expected, happened, timed_out=timed_out, cause=mistake)
            right = sent[len(received) : len(received) + len(chunk)] == chunk
            received += chunk
            if not right:
                with suppress(TimeoutError, OSError):
                    received += await receiver.receive(_AFTER_DAMAGE)
                receiver.note(f"receives {quote_stream(bytes(received))}")
                happened, cause = describe_damage(sent, bytes(received))
                raise CheckFailed(expected, happened, cause=cause or mistake)
        receiver.note(f"receives {quote_stream(bytes(received))}")

    async def relay(
        self, sender: RecordedSocket, receiver: RecordedSocket, data: bytes, *, mistake: str = ""
    ) -> None:
        """Send bytes, and receive them at the other end. `mistake`: the likely one if some are missing.

        Raises:
            CheckFailed: other bytes arrive, or not all of them.
        """
        async with self.meanwhile(self.send_stream(sender, data)):
            await self.expect_bytes(receiver, data, mistake=mistake)

    @asynccontextmanager
    async def meanwhile(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Do something else during a `with` block, and wait for its end; an exception cancels it."""
        task = asyncio.ensure_future(work)
        try:
            yield
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def expect_nothing_more(self, receiver: RecordedSocket, seconds: float) -> None:
        """Check that nothing is received, neither data nor an end.

        Raises:
            CheckFailed: something is.
        """
        expected = f"nothing more at the {receiver.name}, and an open connection"
        try:
            data = await receiver.receive(seconds)
        except TimeoutError:
            return
        except OSError as error:
            raise CheckFailed(expected, f"recv() failed: {errno_text(error.errno or 0)}") from error
        receiver.note(f"receives {quote_bytes(data)}" if data else "receives EOF (FIN)")
        if not data:
            raise CheckFailed(expected, "EOF was received", cause="closes the connection by itself")
        raise CheckFailed(expected, f"{quote_bytes(data)} was received", cause="adds something of its own")

    async def expect_eof(self, receiver: RecordedSocket, after: str, *, mistake: str = "") -> None:
        """Check that the next thing to be received is the end of the stream.

        Raises:
            CheckFailed: data or an error is received, or nothing in time.
        """
        expected = f"EOF (FIN) at the {receiver.name} after {after}"
        try:
            data = await receiver.receive(receiver.timeout)
        except TimeoutError:
            receiver.note("receives nothing")
            raise CheckFailed(
                expected, f"nothing was received within {receiver.timeout:g} s", timed_out=True,
                cause=mistake,
            ) from None  # fmt: skip
        except OSError as error:
            receiver.note(f"recv() fails: {errno_text(error.errno or 0)}")
            raise CheckFailed(
                expected, f"recv() failed: {errno_text(error.errno or 0)}",
                cause="resets the connection where it should pass on the end",
            ) from error  # fmt: skip
        receiver.note(f"receives {quote_bytes(data)}" if data else "receives EOF (FIN)")
        if data:
            raise CheckFailed(expected, f"more data was received: {quote_bytes(data)}")

    async def wait_ended(self, conn: RecordedSocket, timeout: float) -> str:
        """Return how a connection ends within `timeout` seconds: "EOF", "reset", or "" if it does not.

        Data is received and discarded.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (remaining := deadline - loop.time()) > 0:
            try:
                if not await conn.receive(remaining):
                    conn.note("receives EOF (FIN)")
                    return "EOF"
            except TimeoutError:
                break
            except OSError as error:
                conn.note(f"recv() fails: {errno_text(error.errno or 0)}")
                return "reset"
        conn.note("receives no end")
        return ""

    # The process ---------------------------------------------------------------------------------

    def thread_count(self) -> int:
        """Return the number of threads of the proxy and its descendants, each process at least one."""
        return sum(len(list(thread_ids(pid))) or 1 for pid in self.program.process_tree())

    async def diagnose(self, failure: CheckFailed) -> tuple[CheckFailed, str]:
        """Extend a failure by the state of the proxy and its sockets. See CaseContext."""
        program = self.server.program
        if program is not None and failure.timed_out and program.running:
            for line in self._describe_sockets(program):
                self.transcript.add("proxy", line)
        extended, stderr_tail = await super().diagnose(failure)
        if program is not None and not self.killed_by_case and not program.running and stderr_tail:
            last = stderr_tail.rpartition("\n")[2]
            extended.cause = f"an error that is not handled ends the proxy: {last}"
        return extended, stderr_tail

    def _describe_sockets(self, program: ProgramProcess) -> list[str]:
        """Return the proxy's connections as the kernel sees them: what it has not read, and not yet sent."""
        listening, upstream = self.server.endpoint.port, self._upstream.port
        lines = []
        with suppress(OSError):
            for entry in proc_net.read(Path(f"/proc/{program.pid}/net"), protocols=("tcp",)):
                if entry.state == "LISTEN" or not entry.inode:
                    continue
                if entry.local.port == listening:
                    side = "client's side"
                elif entry.peer.port == upstream:
                    side = "upstream's side"
                else:
                    continue
                unread, unsent = entry.recv_queue or 0, entry.send_queue or 0
                lines.append(f"{side}: {entry.state}, {unread:,} bytes unread, {unsent:,} bytes unsent")
        return lines[:4]
