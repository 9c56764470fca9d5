"""A client under test: we are the server, good or bad, and judge by what it sends, prints and exits with.

Each case has a listener of its own and starts the program anew, with `{host}` and `{port}` filled in, the
messages on its standard input (or as `{message}`), and nothing else to read.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from bothends.check.case import CheckFailed
from bothends.check.contract import Contract
from bothends.check.errors import NotListening
from bothends.check.oracle import ExpectedReply, Oracle
from bothends.check.sandbox.launcher import Sandbox
from bothends.check.subjects.process import ProgramProcess, start_program, trace_command
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.server_under_test import fill_placeholders
from bothends.check.transcript import Transcript, quote_bytes
from bothends.endpoints import Address, Endpoint
from bothends.errors import SystemCallFailed, UsageError

_TRACEBACK_PATTERNS: Final = (
    b"Traceback (most recent call last)",
    b"Exception in thread",
    b"panicked at",
    b"goroutine 1 [",
    b"    at ",  # Java's and Node's lines, which follow one of the errors below
)
_BACKLOG: Final = 16

T = TypeVar("T")


@dataclass
class ClientUnderTest:
    """How clients are started. See Subject."""

    contract: Contract
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    sandbox: Sandbox | None = None
    cwd: Path | None = None
    trace: Path | None = None
    load_factor: float = 1.0
    assigns_port: bool = True
    fixed_endpoint: Endpoint | None = None

    @property
    def title(self) -> str:
        """See Subject."""
        return " ".join(self.command)

    @property
    def is_spawned(self) -> bool:
        """See Subject."""
        return True

    @property
    def parallel(self) -> bool:
        """See Subject."""
        return True

    async def prepare(self) -> float:
        """See Subject. Raises CallerError, NotReady."""
        if not self.command:
            raise UsageError("check which client? Give its command after --")
        words = " ".join(self.command)
        wanted = "{path}" if self.contract.transport.startswith("unix") else "{port}"
        if wanted not in words:
            raise UsageError(f"where should the client connect? Its command needs {wanted}")
        if self.contract.client.input == "arguments" and "{message}" not in words:
            raise UsageError(
                "by the contract the client takes its message from its command: it needs {message}"
            )
        return 0.0

    async def close(self) -> None:
        """See Subject."""

    @asynccontextmanager
    async def case_context(
        self, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> AsyncIterator[ClientContext]:
        """See Subject."""
        one = ClientContext(self, oracle, transcript, timeout)
        try:
            yield one
        finally:
            await one.close()


class ClientContext:
    """One case of a client: its verbs are what the tables of `suites/` are made of."""

    def __init__(
        self, client: ClientUnderTest, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> None:
        self.contract = client.contract
        self.oracle = oracle
        self.transcript = transcript
        self.timeout = timeout
        self.load_factor = client.load_factor
        self.program: ProgramProcess | None = None
        self._client = client
        self._scratch_dir = Path(tempfile.mkdtemp(prefix="bothends-check-"))
        self._sockets: list[socket.socket] = []
        self._hosts_file: Path | None = None
        self._exit_recorded = False
        self._stdin_task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    # Messages ------------------------------------------------------------------------------------

    def messages(self, count: int = 1, size: int | None = None) -> list[bytes]:
        """What the client is told to send; one only where it sends no more."""
        if not self.contract.client.several:
            count = 1
        if not self.oracle.accepts_any_message:
            return [self.oracle.messages[n % len(self.oracle.messages)] for n in range(count)]
        words = [b"message %d of the check" % number for number in range(count)]
        return [(word + b" " + b"abcdefghij" * (size // 10))[:size] if size else word for word in words]

    def reply(self, message: bytes) -> ExpectedReply:
        """What a good server says to a message."""
        return self.oracle.reply(message)

    # The server's side ---------------------------------------------------------------------------

    def listen(self, host: str = "127.0.0.1", *, rcvbuf: int | None = None) -> tuple[socket.socket, Endpoint]:
        """A listener, or a datagram socket, and where it is. `buffer`: bytes of its receive buffer."""
        scheme = self.contract.transport
        kind = socket.SOCK_DGRAM if self.contract.is_datagram else socket.SOCK_STREAM
        if scheme.startswith("unix"):
            sock = socket.socket(socket.AF_UNIX, kind)
            path = str(self._scratch_dir / "socket")
            sock.bind(path)
            endpoint = Endpoint(scheme, path=path)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(family, kind)
            if rcvbuf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            sock.bind((host, 0))
            endpoint = Endpoint(scheme, host=host, port=sock.getsockname()[1])
        self._sockets.append(sock)
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
        return sock, endpoint

    async def accept(self, listener: socket.socket, name: str = "server") -> RecordedSocket:
        """The client's connection. Raises Failed: it doesn't come."""
        try:
            sock, address = await self._unless_client_exits(
                self._loop.sock_accept(listener), self.timeout * 2
            )
        except TimeoutError:
            raise CheckFailed(
                "the client to connect", await self._describe_silence(), timed_out=True
            ) from None
        sock.setblocking(False)
        self._sockets.append(sock)
        self.transcript.add("client", f"connects from {Address.from_sockaddr(sock.family, address)}")
        talk = RecordedSocket(sock, name, self.transcript, self.timeout)
        talk.set_nodelay()
        return talk

    async def expect_message(self, conn: RecordedSocket, message: bytes) -> bytes:
        """The message, as it comes over the stream. Raises Failed: something else comes, or nothing."""
        if self.contract.framing == "none":
            return await self._expect_unframed_message(conn, message)
        wanted = self.contract.encode(message)
        lines = self.contract.framing == "lines"
        crlf = message + b"\r\n"
        heard = b""
        while heard != wanted and not (lines and heard == crlf):
            if not (wanted.startswith(heard) or (lines and crlf.startswith(heard))):
                conn.push_back(heard[len(wanted) :] if heard.startswith(wanted) else b"")
                if heard.startswith(wanted):
                    break
                conn.note(f"receives {quote_bytes(heard)}")
                raise CheckFailed(
                    f"the client to send {quote_bytes(wanted)}", f"it sent {quote_bytes(heard)}"
                )
            heard += await self._receive_more(conn, heard, wanted)
        conn.note(f"receives {quote_bytes(wanted)}")
        return message

    async def _expect_unframed_message(self, conn: RecordedSocket, message: bytes) -> bytes:
        """A message that nothing ends: with or without a newline."""
        heard = b""
        while len(heard) < len(message):
            heard += await self._receive_more(conn, heard, message)
        with suppress(TimeoutError, OSError):  # a newline may come apart
            if heard == message:
                heard += await conn.receive(0.05)
        conn.note(f"receives {quote_bytes(heard)}")
        if heard.rstrip(b"\r\n") != message:
            raise CheckFailed(f"the client to send {quote_bytes(message)}", f"it sent {quote_bytes(heard)}")
        return heard

    async def _receive_more(self, conn: RecordedSocket, received: bytes, message: bytes) -> bytes:
        expected = f"the client to send {quote_bytes(message)}"
        try:
            data = await conn.receive(conn.timeout)
        except TimeoutError:
            conn.note(f"receives {quote_bytes(received)}")
            raise CheckFailed(
                expected, f"it sent {quote_bytes(received)}, and no more", timed_out=True
            ) from None
        except OSError as error:
            raise CheckFailed(expected, f"recv() gave {error.strerror}") from error
        if not data:
            conn.note(f"receives {quote_bytes(received)}, then the end (FIN)")
            raise CheckFailed(expected, f"it sent {quote_bytes(received)}, and then the end")
        return data

    async def _unless_client_exits(self, call: Coroutine[Any, Any, T], timeout: float) -> T:
        """The result of a call. Raises TimeoutError: not in time, or the client has ended meanwhile."""
        assert self.program is not None
        calling = asyncio.ensure_future(call)
        ending = asyncio.ensure_future(self.program.wait(timeout))
        try:
            await asyncio.wait((calling, ending), return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():  # what it sent before it ended is there by now
                await asyncio.wait((calling,), timeout=0.05)
            if not calling.done():
                raise TimeoutError
            return calling.result()
        finally:
            for task in (calling, ending):
                task.cancel()
            await asyncio.gather(calling, ending, return_exceptions=True)

    async def receive_datagram(self, sock: socket.socket, timeout: float | None = None) -> tuple[bytes, Any]:
        """The next datagram and its sender. Raises TimeoutError."""
        limit = self.timeout * 2 if timeout is None else timeout
        data, sender = await self._unless_client_exits(self._loop.sock_recvfrom(sock, 65_536), limit)
        self.transcript.add("server", f"receives {quote_bytes(data)}")
        return data, sender

    async def expect_datagram(self, sock: socket.socket, message: bytes) -> tuple[bytes, Any]:
        """The datagram with this message (a newline after it may pass), and its sender. Raises Failed."""
        expected = f"the client to send {quote_bytes(message)}"
        try:
            data, sender = await self.receive_datagram(sock)
        except TimeoutError:
            raise CheckFailed(expected, await self._describe_silence(), timed_out=True) from None
        if data.rstrip(b"\r\n") != message:
            raise CheckFailed(expected, f"it sent {quote_bytes(data)}")
        return data, sender

    def send_datagram(self, sock: socket.socket, data: bytes, address: Any, name: str = "server") -> None:
        """Send a datagram."""
        self.transcript.add(name, f"sends {quote_bytes(data)}")
        with suppress(OSError):
            sock.sendto(data, address)

    # The client ----------------------------------------------------------------------------------

    def start_client(self, endpoint: Endpoint, messages: Sequence[bytes], *, host: str = "") -> None:
        """Start the client, and give it these messages.

        Raises:
            NotReady: it can't be started.
        """
        values = {
            "host": host or endpoint.host,
            "port": str(endpoint.port or 0),
            "path": endpoint.path,
            "dir": str(self._scratch_dir),
            "message": messages[0].decode("utf-8", "replace") if messages else "",
        }
        command = [fill_placeholders(word, values) for word in self._client.command]
        stdin = self.contract.client.input == "stdin"
        try:
            self.program = start_program(
                trace_command(command, self._client.trace),
                environment=self._client.environment,
                stdin=stdin,
                cwd=self._client.cwd,
                sandbox=self._client.sandbox,
                scratch_dir=self._scratch_dir,
                hosts_file=self._hosts_file,
            )
        except SystemCallFailed as error:
            raise NotListening(str(error), "") from error
        if stdin:
            text = b"".join(message + b"\n" for message in messages)
            self.transcript.add("check", f"types {quote_bytes(text)}")
            self._stdin_task = asyncio.ensure_future(self.program.feed_stdin(text))

    async def add_two_address_host(self, name: str) -> str | None:
        """Give the client a name for two addresses of this machine; the one that comes second, or None where
        the system doesn't let us.

        getaddrinfo(3) puts 127.0.0.1 first: it is nearest to where we would come from (RFC 6724, rule 9).
        """
        self._hosts_file = self._scratch_dir / "hosts"
        lines = ("127.0.0.1 localhost", f"127.0.0.1 {name}", f"127.0.0.2 {name}", "")
        self._hosts_file.write_text("\n".join(lines), encoding="ascii")
        trial = start_program(["true"], scratch_dir=self._scratch_dir, hosts_file=self._hosts_file)
        await trial.wait(self.timeout)
        await trial.kill_tree()
        return "127.0.0.2" if trial.process.returncode == 0 else None

    async def wait_exit(self, timeout: float | None = None) -> int:
        """The status it exits with, negative for a signal. Raises Failed: it doesn't exit in time."""
        assert self.program is not None
        limit = self.timeout if timeout is None else timeout
        if not await self.program.wait(limit):
            raise CheckFailed("the client to exit", f"it still runs after {limit:g} s", timed_out=True)
        await self.program.stdout.wait_eof(1.0)
        await self.program.stderr.wait_eof(1.0)
        self.transcript.add("client", f"ends: {self.program.exit_description}")
        self._exit_recorded = True
        assert self.program.status is not None
        return self.program.status

    async def expect_success(self) -> None:
        """It exits with 0. Raises Failed."""
        if status := await self.wait_exit():
            assert self.program is not None
            raise CheckFailed(
                "the client to exit with 0",
                self.program.exit_description + ("" if status > 0 else ": a crash"),
            )

    async def expect_clean_failure(self, cause: str, timeout: float | None = None) -> None:
        """It exits with a status that isn't 0, without a traceback or a crash. Raises Failed."""
        status = await self.wait_exit(timeout)
        assert self.program is not None
        said = self.program.stderr.data + self.program.stdout.data
        if status == 0:
            raise CheckFailed(
                f"an exit status other than 0, for {cause}", "it exits with 0, as if all were well"
            )
        if status < 0:
            raise CheckFailed(
                f"an exit status other than 0, for {cause}", f"it crashes: {self.program.exit_description}"
            )
        if any(trace in said for trace in _TRACEBACK_PATTERNS[:4]) or (
            _TRACEBACK_PATTERNS[4] in said and b"Exception" in said
        ):
            raise CheckFailed(f"one clear line, for {cause}", "it ends with a traceback")

    async def expect_output(self, *texts: bytes) -> None:
        """It prints these, in this order. Raises Failed: not so, once it has exited or time is up."""
        assert self.program is not None
        if not self.contract.client.shows:
            return
        await self.program.stdout.wait_for(lambda printed: _contains_in_order(printed, texts), self.timeout)
        printed = self.program.stdout.data
        if not _contains_in_order(printed, texts):
            missing = next(
                text for n, text in enumerate(texts) if not _contains_in_order(printed, texts[: n + 1])
            )
            raise CheckFailed(
                f"{quote_bytes(missing)} on standard output",
                f"it printed {quote_bytes(printed)}",
                timed_out=True,
            )

    async def diagnose(self, failure: CheckFailed) -> tuple[CheckFailed, str]:
        """See Attempt."""
        program = self.program
        if program is None:
            return failure, ""
        if not program.running:
            await program.stderr.wait_eof(0.5)
            if not self._exit_recorded:
                self.transcript.add("client", f"has ended: {program.exit_description}")
            return CheckFailed(failure.expected, failure.happened), program.stderr_tail
        if failure.timed_out and program.is_idle():
            failure = CheckFailed(failure.expected, f"{failure.happened} (the client waits too)")
        return failure, program.stderr_tail

    async def _describe_silence(self) -> str:
        """Why nothing comes from the client."""
        assert self.program is not None
        if self.program.running:
            return "it doesn't"
        await self.program.stderr.wait_eof(0.5)
        return f"it has ended ({self.program.exit_description})"

    async def close(self) -> None:
        """End the client, close all sockets."""
        try:
            if self.program is not None:
                if self._client.trace is not None:
                    await self.program.finish_trace()
                await self.program.kill_tree()
            if self._stdin_task is not None:
                await asyncio.gather(self._stdin_task, return_exceptions=True)
        finally:  # ^C may come right now
            for sock in self._sockets:
                sock.close()
            shutil.rmtree(self._scratch_dir, ignore_errors=True)


def _contains_in_order(printed: bytes, texts: Sequence[bytes]) -> bool:
    """Whether the texts stand there one after the other; ends of lines may differ."""
    at = 0
    for text in texts:
        found = printed.find(text.rstrip(b"\r\n"), at)
        if found < 0:
            return False
        at = found + len(text.rstrip(b"\r\n"))
    return True
