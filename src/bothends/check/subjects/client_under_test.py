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

from bothends.check.case import Failed
from bothends.check.contract import Contract
from bothends.check.errors import NotReady
from bothends.check.oracle import Answers, Reply
from bothends.check.sandbox.launcher import Sandbox
from bothends.check.subjects.process import Program, start, traced
from bothends.check.subjects.recorded_socket import Talk
from bothends.check.subjects.server_under_test import fill
from bothends.check.transcript import Transcript, shown
from bothends.endpoints import Address, Endpoint
from bothends.errors import CallerError, SystemRefused

_TRACES: Final = (
    b"Traceback (most recent call last)",
    b"Exception in thread",
    b"panicked at",
    b"goroutine 1 [",
    b"    at ",  # Java's and Node's lines, which follow one of the errors below
)
_BACKLOG: Final = 16

T = TypeVar("T")


@dataclass
class Client:
    """How clients are started. See Subject."""

    contract: Contract
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    sandbox: Sandbox | None = None
    folder: Path | None = None
    trace: Path | None = None
    scale: float = 1.0
    chooses: bool = True
    fixed: Endpoint | None = None

    @property
    def title(self) -> str:
        """See Subject."""
        return " ".join(self.command)

    @property
    def started(self) -> bool:
        """See Subject."""
        return True

    @property
    def parallel(self) -> bool:
        """See Subject."""
        return True

    async def prepare(self) -> float:
        """See Subject. Raises CallerError, NotReady."""
        if not self.command:
            raise CallerError("check which client? Give its command after --")
        words = " ".join(self.command)
        wanted = "{path}" if self.contract.transport.startswith("unix") else "{port}"
        if wanted not in words:
            raise CallerError(f"where should the client connect? Its command needs {wanted}")
        if self.contract.client.input == "arguments" and "{message}" not in words:
            raise CallerError(
                "by the contract the client takes its message from its command: it needs {message}"
            )
        return 0.0

    async def finish(self) -> None:
        """See Subject."""

    @asynccontextmanager
    async def attempt(
        self, answers: Answers, transcript: Transcript, patience: float
    ) -> AsyncIterator[ClientTrial]:
        """See Subject."""
        one = ClientTrial(self, answers, transcript, patience)
        try:
            yield one
        finally:
            await one.close()


class ClientTrial:
    """One case of a client: its verbs are what the tables of `suites/` are made of."""

    def __init__(self, client: Client, answers: Answers, transcript: Transcript, patience: float) -> None:
        self.contract = client.contract
        self.answers = answers
        self.transcript = transcript
        self.patience = patience
        self.scale = client.scale
        self.program: Program | None = None
        self._client = client
        self._folder = Path(tempfile.mkdtemp(prefix="bothends-check-"))
        self._sockets: list[socket.socket] = []
        self._hosts: Path | None = None
        self._ended = False
        self._feeding: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    # Messages ------------------------------------------------------------------------------------

    def messages(self, count: int = 1, size: int | None = None) -> list[bytes]:
        """What the client is told to send; one only where it sends no more."""
        if not self.contract.client.several:
            count = 1
        if not self.answers.free:
            return [self.answers.questions[n % len(self.answers.questions)] for n in range(count)]
        words = [b"message %d of the check" % number for number in range(count)]
        return [(word + b" " + b"abcdefghij" * (size // 10))[:size] if size else word for word in words]

    def reply(self, message: bytes) -> Reply:
        """What a good server says to a message."""
        return self.answers.reply(message)

    # The server's side ---------------------------------------------------------------------------

    def listen(self, host: str = "127.0.0.1", *, buffer: int | None = None) -> tuple[socket.socket, Endpoint]:
        """A listener, or a datagram socket, and where it is. `buffer`: bytes of its receive buffer."""
        scheme = self.contract.transport
        kind = socket.SOCK_DGRAM if self.contract.is_datagram else socket.SOCK_STREAM
        if scheme.startswith("unix"):
            sock = socket.socket(socket.AF_UNIX, kind)
            path = str(self._folder / "socket")
            sock.bind(path)
            endpoint = Endpoint(scheme, path=path)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(family, kind)
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.bind((host, 0))
            endpoint = Endpoint(scheme, host=host, port=sock.getsockname()[1])
        self._sockets.append(sock)
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
        return sock, endpoint

    async def accept(self, listener: socket.socket, who: str = "server") -> Talk:
        """The client's connection. Raises Failed: it doesn't come."""
        try:
            sock, address = await self._while_it_runs(self._loop.sock_accept(listener), self.patience * 2)
        except TimeoutError:
            raise Failed("the client to connect", await self._state(), late=True) from None
        sock.setblocking(False)
        self._sockets.append(sock)
        self.transcript.add("client", f"connects from {Address.of(sock.family, address)}")
        talk = Talk(sock, who, self.transcript, self.patience)
        talk.no_delay()
        return talk

    async def hear_message(self, talk: Talk, message: bytes) -> bytes:
        """The message, as it comes over the stream. Raises Failed: something else comes, or nothing."""
        if self.contract.framing == "none":
            return await self._hear_bare(talk, message)
        wanted = self.contract.encode(message)
        lines = self.contract.framing == "lines"
        crlf = message + b"\r\n"
        heard = b""
        while heard != wanted and not (lines and heard == crlf):
            if not (wanted.startswith(heard) or (lines and crlf.startswith(heard))):
                talk.hold(heard[len(wanted) :] if heard.startswith(wanted) else b"")
                if heard.startswith(wanted):
                    break
                talk.note(f"receives {shown(heard)}")
                raise Failed(f"the client to send {shown(wanted)}", f"it sent {shown(heard)}")
            heard += await self._next(talk, heard, wanted)
        talk.note(f"receives {shown(wanted)}")
        return message

    async def _hear_bare(self, talk: Talk, message: bytes) -> bytes:
        """A message that nothing ends: with or without a newline."""
        heard = b""
        while len(heard) < len(message):
            heard += await self._next(talk, heard, message)
        with suppress(TimeoutError, OSError):  # a newline may come apart
            if heard == message:
                heard += await talk.receive(0.05)
        talk.note(f"receives {shown(heard)}")
        if heard.rstrip(b"\r\n") != message:
            raise Failed(f"the client to send {shown(message)}", f"it sent {shown(heard)}")
        return heard

    async def _next(self, talk: Talk, heard: bytes, wanted: bytes) -> bytes:
        expected = f"the client to send {shown(wanted)}"
        try:
            data = await talk.receive(talk.patience)
        except TimeoutError:
            talk.note(f"receives {shown(heard)}")
            raise Failed(expected, f"it sent {shown(heard)}, and no more", late=True) from None
        except OSError as error:
            raise Failed(expected, f"recv() gave {error.strerror}") from error
        if not data:
            talk.note(f"receives {shown(heard)}, then the end (FIN)")
            raise Failed(expected, f"it sent {shown(heard)}, and then the end")
        return data

    async def _while_it_runs(self, call: Coroutine[Any, Any, T], within: float) -> T:
        """The result of a call. Raises TimeoutError: not in time, or the client has ended meanwhile."""
        assert self.program is not None
        calling = asyncio.ensure_future(call)
        ending = asyncio.ensure_future(self.program.wait(within))
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

    async def datagram(self, sock: socket.socket, within: float | None = None) -> tuple[bytes, Any]:
        """The next datagram and its sender. Raises TimeoutError."""
        limit = self.patience * 2 if within is None else within
        data, sender = await self._while_it_runs(self._loop.sock_recvfrom(sock, 65_536), limit)
        self.transcript.add("server", f"receives {shown(data)}")
        return data, sender

    async def question(self, sock: socket.socket, message: bytes) -> tuple[bytes, Any]:
        """The datagram with this message (a newline after it may pass), and its sender. Raises Failed."""
        expected = f"the client to send {shown(message)}"
        try:
            data, sender = await self.datagram(sock)
        except TimeoutError:
            raise Failed(expected, await self._state(), late=True) from None
        if data.rstrip(b"\r\n") != message:
            raise Failed(expected, f"it sent {shown(data)}")
        return data, sender

    def send_datagram(self, sock: socket.socket, data: bytes, to: Any, who: str = "server") -> None:
        """Send a datagram."""
        self.transcript.add(who, f"sends {shown(data)}")
        with suppress(OSError):
            sock.sendto(data, to)

    # The client ----------------------------------------------------------------------------------

    def run(self, endpoint: Endpoint, messages: Sequence[bytes], *, host: str = "") -> None:
        """Start the client, and give it these messages.

        Raises:
            NotReady: it can't be started.
        """
        values = {
            "host": host or endpoint.host,
            "port": str(endpoint.port or 0),
            "path": endpoint.path,
            "dir": str(self._folder),
            "message": messages[0].decode("utf-8", "replace") if messages else "",
        }
        command = [fill(word, values) for word in self._client.command]
        stdin = self.contract.client.input == "stdin"
        try:
            self.program = start(
                traced(command, self._client.trace),
                environment=self._client.environment,
                stdin=stdin,
                folder=self._client.folder,
                sandbox=self._client.sandbox,
                room=self._folder,
                hosts=self._hosts,
            )
        except SystemRefused as error:
            raise NotReady(str(error), "") from error
        if stdin:
            text = b"".join(message + b"\n" for message in messages)
            self.transcript.add("check", f"types {shown(text)}")
            self._feeding = asyncio.ensure_future(self.program.feed(text))

    async def two_addresses(self, name: str) -> str | None:
        """Give the client a name for two addresses of this machine; the one that comes second, or None where
        the system doesn't let us.

        getaddrinfo(3) puts 127.0.0.1 first: it is nearest to where we would come from (RFC 6724, rule 9).
        """
        self._hosts = self._folder / "hosts"
        lines = ("127.0.0.1 localhost", f"127.0.0.1 {name}", f"127.0.0.2 {name}", "")
        self._hosts.write_text("\n".join(lines), encoding="ascii")
        trial = start(["true"], room=self._folder, hosts=self._hosts)
        await trial.wait(self.patience)
        await trial.end()
        return "127.0.0.2" if trial.process.returncode == 0 else None

    async def exits(self, within: float | None = None) -> int:
        """The status it exits with, negative for a signal. Raises Failed: it doesn't exit in time."""
        assert self.program is not None
        limit = self.patience if within is None else within
        if not await self.program.wait(limit):
            raise Failed("the client to exit", f"it still runs after {limit:g} s", late=True)
        await self.program.stdout.end(1.0)
        await self.program.stderr.end(1.0)
        self.transcript.add("client", f"ends: {self.program.ending}")
        self._ended = True
        assert self.program.status is not None
        return self.program.status

    async def exits_well(self) -> None:
        """It exits with 0. Raises Failed."""
        if status := await self.exits():
            assert self.program is not None
            raise Failed(
                "the client to exit with 0", self.program.ending + ("" if status > 0 else ": a crash")
            )

    async def fails_well(self, why: str, within: float | None = None) -> None:
        """It exits with a status that isn't 0, without a traceback or a crash. Raises Failed."""
        status = await self.exits(within)
        assert self.program is not None
        said = self.program.stderr.data + self.program.stdout.data
        if status == 0:
            raise Failed(f"an exit status other than 0, for {why}", "it exits with 0, as if all were well")
        if status < 0:
            raise Failed(f"an exit status other than 0, for {why}", f"it crashes: {self.program.ending}")
        if any(trace in said for trace in _TRACES[:4]) or (_TRACES[4] in said and b"Exception" in said):
            raise Failed(f"one clear line, for {why}", "it ends with a traceback")

    async def shows(self, *texts: bytes) -> None:
        """It prints these, in this order. Raises Failed: not so, once it has exited or time is up."""
        assert self.program is not None
        if not self.contract.client.shows:
            return
        await self.program.stdout.wait(lambda printed: _holds(printed, texts), self.patience)
        printed = self.program.stdout.data
        if not _holds(printed, texts):
            missing = next(text for n, text in enumerate(texts) if not _holds(printed, texts[: n + 1]))
            raise Failed(f"{shown(missing)} on standard output", f"it printed {shown(printed)}", late=True)

    async def evidence(self, failed: Failed) -> tuple[Failed, str]:
        """See Attempt."""
        program = self.program
        if program is None:
            return failed, ""
        if not program.running:
            await program.stderr.end(0.5)
            if not self._ended:
                self.transcript.add("client", f"has ended: {program.ending}")
            return Failed(failed.expected, failed.happened), program.complaint
        if failed.late and program.asleep():
            failed = Failed(failed.expected, f"{failed.happened} (the client waits too)")
        return failed, program.complaint

    async def _state(self) -> str:
        """Why nothing comes from the client."""
        assert self.program is not None
        if self.program.running:
            return "it doesn't"
        await self.program.stderr.end(0.5)
        return f"it has ended ({self.program.ending})"

    async def close(self) -> None:
        """End the client, close all sockets."""
        try:
            if self.program is not None:
                if self._client.trace is not None:
                    await self.program.draw()
                await self.program.end()
            if self._feeding is not None:
                await asyncio.gather(self._feeding, return_exceptions=True)
        finally:  # ^C may come right now
            for sock in self._sockets:
                sock.close()
            shutil.rmtree(self._folder, ignore_errors=True)


def _holds(printed: bytes, texts: Sequence[bytes]) -> bool:
    """Whether the texts stand there one after the other; ends of lines may differ."""
    at = 0
    for text in texts:
        found = printed.find(text.rstrip(b"\r\n"), at)
        if found < 0:
            return False
        at = found + len(text.rstrip(b"\r\n"))
    return True
