"""A client under test: the checker plays the server, and judges the messages, output and exit status.

Each case has its own listener and starts the client again, with `{host}` and `{port}` filled in and the
messages on its standard input (or as `{message}`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from bothends.check.case import CheckFailed, NotListening
from bothends.check.contract import Contract, make_oracle
from bothends.check.evidence import find_cause
from bothends.check.messages import make_message
from bothends.check.oracle import ExpectedReply, Oracle, PatternOracle
from bothends.check.reference_oracle import ReferenceOracle
from bothends.check.sandbox.launcher import Sandbox
from bothends.check.subjects import own_network
from bothends.check.subjects.client_destination import ClientDestination, find_destination
from bothends.check.subjects.loopback_capture import LoopbackCapture
from bothends.check.subjects.own_network import OwnNetwork, entered
from bothends.check.subjects.placeholders import fill_placeholders
from bothends.check.subjects.process import ProgramProcess, start_program, trace_command
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.transcript import Transcript, quote_bytes
from bothends.endpoints import Address, Endpoint
from bothends.errors import BothendsError, SystemCallFailed, UsageError
from bothends.osutil.scratch import make_scratch_folder, remove_scratch_folder, write_files
from bothends.sockets.free_port import free_port

_TRACEBACK_PATTERNS: Final = (
    b"Traceback (most recent call last)",
    b"Exception in thread",
    b"panicked at",
    b"goroutine 1 [",
    b"    at ",  # a line of Java's and Node.js's, which counts only together with "Exception"
)
_BACKLOG: Final = 16
_DEFAULT_HOST: Final = "127.0.0.1"
_CONNECT_TIMEOUT: Final = 6.0  # seconds until a client connects, on an idle machine

T = TypeVar("T")


@dataclass
class ClientUnderTest:
    """A client, and how it is started. See ProgramUnderTest."""

    contract: Contract
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    sandbox: Sandbox | None = None
    cwd: Path | None = None
    trace: Path | None = None
    load_factor: float = 1.0
    assigns_port: bool = True
    fixed_endpoint: Endpoint | None = None
    notes: list[str] = field(default_factory=list)
    own_network: bool = True
    destination: ClientDestination | None = None
    """Where the client connects, whatever port it is given; None if it obeys."""

    def wants_own_network(self) -> bool:
        """Whether the client's port is in its source, so that it must find the checker there."""
        return not self._has_port_argument() and self.contract.transport in ("tcp", "udp")

    def can_start(self) -> bool:
        """Whether the client can be started from where this process is, which runs no event loop."""
        try:
            asyncio.run(self._find_destination())
        except NotListening as error:
            return error.cause != ""
        except (BothendsError, OSError):
            return False
        return True

    def _has_port_argument(self) -> bool:
        return "{port}" in " ".join(self.command)

    @property
    def takes_host(self) -> bool:
        """Whether the client connects to {host}."""
        return self.destination is None and "{host}" in " ".join(self.command)

    async def explain_gate(self, oracle: Oracle, timeout: float) -> str:
        """Return nothing: the failure of a client shows its cause."""
        return ""

    @property
    def title(self) -> str:
        """The client's command."""
        return " ".join(self.command)

    @property
    def is_spawned(self) -> bool:
        """True: the checker starts every client."""
        return True

    @property
    def parallel(self) -> bool:
        """True: each client has its own server."""
        return True

    async def prepare(self) -> float:
        """Check the command, and find out where the client connects.

        Returns: 0.

        Raises:
            NotListening: the client's port is in its source, and it does not connect.
            UsageError: there is no command, or it lacks a placeholder.
        """
        if not self.command:
            raise UsageError("no client to check: give its command after --")
        words = " ".join(self.command)
        if self.contract.transport.startswith("unix") and "{path}" not in words:
            raise UsageError("the client's command needs {path}, to connect to the checker")
        if self.contract.client.input == "arguments" and "{message}" not in words:
            raise UsageError(
                'the client\'s command needs {message}, because of input = "arguments" in the contract'
            )
        if self.contract.transport not in ("tcp", "udp"):
            return 0.0
        able = self.own_network and own_network.is_available()
        if not able and not self._has_port_argument():
            raise UsageError(
                "the client's command has no {port}, and a port in its source needs a network namespace, "
                "which this system does not allow here; have it take its port as an argument"
            )
        if able:
            await self._follow_destination()
        return 0.0

    async def _follow_destination(self) -> None:
        """Find out whether the client connects to the port that it is given, or else to which."""
        try:
            given, found = await self._find_destination()
        except NotListening:
            if not self._has_port_argument():
                raise
            return  # the first case shows what is wrong
        if found.port == given:
            return
        self.destination, self.assigns_port = found, False
        where = f"{found.host} port {found.port}"
        verb = "sends" if self.contract.is_datagram else "connects"
        ignores = "ignores the port that it is given, and" if self._has_port_argument() else "always"
        self.notes.append(
            f"the client {ignores} {verb} to {where}: each case ran in a network namespace of its own"
        )

    async def _find_destination(self) -> tuple[int, ClientDestination]:
        """Start the client where nothing listens. Returns: the port it was given, and where it connects."""
        oracle, network = make_oracle(self.contract), OwnNetwork()
        context = ClientContext(self, oracle, Transcript(), 1.0, network)
        port = free_port()
        try:
            with LoopbackCapture(network) as capture:
                endpoint = Endpoint(self.contract.transport, host="127.0.0.1", port=port)
                context.start_client(endpoint, context.messages())
                assert context.program is not None
                limit = _CONNECT_TIMEOUT * self.load_factor
                found = await find_destination(context.program, capture, self.contract.transport, limit)
            return port, found
        finally:
            await context.close()

    async def leaves_after_one_client(self, oracle: Oracle, timeout: float) -> bool:
        """False: it is a client."""
        return False

    @asynccontextmanager
    async def answering(self, oracle: Oracle, timeout: float) -> AsyncIterator[None]:
        """See ProgramUnderTest. A client has no reference server."""
        if isinstance(oracle, ReferenceOracle):
            raise UsageError("a contract whose replies are those of a reference server is for servers only")
        yield

    async def close(self) -> None:
        """Do nothing: each case ends its client."""

    @asynccontextmanager
    async def case_context(
        self, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> AsyncIterator[ClientContext]:
        """Run one attempt at one case. See ProgramUnderTest."""
        network = OwnNetwork() if self.destination is not None else None
        context = ClientContext(self, oracle, transcript, timeout, network)
        try:
            yield context
        finally:
            await context.close()


class ClientContext:
    """A running case of a client suite. The stimuli of `suites/` are made of these methods.

    The `expect_` methods raise `CheckFailed`. `timeout`: seconds for each step.
    """

    def __init__(
        self,
        client: ClientUnderTest,
        oracle: Oracle,
        transcript: Transcript,
        timeout: float,
        network: OwnNetwork | None = None,
    ) -> None:
        self.contract = client.contract
        self.oracle = oracle
        self.transcript = transcript
        self.timeout = timeout
        self.load_factor = client.load_factor
        self.program: ProgramProcess | None = None
        self._client = client
        self._network = network
        self._scratch_dir = make_scratch_folder("check")
        write_files(self._scratch_dir, self.contract.files)
        self._sockets: list[socket.socket] = []
        self._hosts_file: Path | None = None
        self._exit_recorded = False
        self._stdin_task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    # Messages ------------------------------------------------------------------------------------

    def messages(self, count: int = 1, size: int | None = None) -> list[bytes]:
        """Return the client's input: `count` messages of `size` bytes, or one if it sends only one."""
        if not self.contract.client.several:
            count = 1
        if not self.oracle.accepts_any_message:
            return [self.oracle.messages[n % len(self.oracle.messages)] for n in range(count)]
        return [make_message(self.contract, number, size) for number in range(count)]

    def reply(self, message: bytes) -> ExpectedReply:
        """Return the correct reply to a message."""
        return self.oracle.reply(message)

    # The server's side ---------------------------------------------------------------------------

    def listen(
        self, host: str = _DEFAULT_HOST, *, rcvbuf: int | None = None
    ) -> tuple[socket.socket, Endpoint]:
        """Return a listening or datagram socket, and its endpoint. `rcvbuf`: its receive buffer in bytes."""
        scheme = self.contract.transport
        kind = socket.SOCK_DGRAM if self.contract.is_datagram else socket.SOCK_STREAM
        if scheme.startswith("unix"):
            sock = socket.socket(socket.AF_UNIX, kind)
            path = str(self._scratch_dir / "socket")
            sock.bind(path)
            Path(path).chmod(0o777)  # because root's clients in a sandbox are another user
            endpoint = Endpoint(scheme, path=path)
        else:
            sock = self.new_socket(host, kind)
            if rcvbuf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            there = self._client.destination
            everywhere = there is not None and host == _DEFAULT_HOST
            address = ("::" if sock.family == socket.AF_INET6 else "0.0.0.0") if everywhere else host
            sock.bind((address, there.port if there is not None else 0))
            endpoint = Endpoint(scheme, host=host, port=sock.getsockname()[1])
        self._sockets.append(sock)
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
        return sock, endpoint

    def new_socket(self, host: str, kind: int) -> socket.socket:
        """Return a socket in the client's network namespace that can be bound to `host`.

        If the client tries an IPv6 address, it is one for both versions.
        """
        there = self._client.destination
        both = there is not None and there.needs_ipv6 and host == _DEFAULT_HOST
        with entered(self._network):
            sock = socket.socket(socket.AF_INET6 if both or ":" in host else socket.AF_INET, kind)
        if both:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return sock

    async def accept(self, listener: socket.socket, name: str = "server") -> RecordedSocket:
        """Accept the client's connection.

        Raises:
            CheckFailed: the client does not connect in time, or exits.
        """
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
        conn = RecordedSocket(sock, name, self.transcript, self.timeout)
        conn.set_nodelay()
        return conn

    async def expect_message(self, conn: RecordedSocket, message: bytes) -> bytes:
        """Receive a message from the client. Returns: the message, without framing.

        Raises:
            CheckFailed: other data is received, or none in time.
        """
        if self.contract.framing == "none":
            return await self._expect_unframed_message(conn, message)
        framed = self.contract.encode(message)
        lines = self.contract.framing == "lines"
        crlf = message + b"\r\n"
        received = b""
        while received != framed and not (lines and received == crlf):
            if not (framed.startswith(received) or (lines and crlf.startswith(received))):
                conn.push_back(received[len(framed) :] if received.startswith(framed) else b"")
                if received.startswith(framed):
                    break
                conn.note(f"receives {quote_bytes(received)}")
                raise CheckFailed(
                    f"the client to send {quote_bytes(framed)}", f"it sent {quote_bytes(received)}"
                )
            received += await self._receive_more(conn, received, framed)
        conn.note(f"receives {quote_bytes(framed)}")
        return message

    async def _expect_unframed_message(self, conn: RecordedSocket, message: bytes) -> bytes:
        """Receive a message without framing. Returns: the message, and the newline if it was sent."""
        received = b""
        while len(received) < len(message):
            received += await self._receive_more(conn, received, message)
        with suppress(TimeoutError, OSError):  # a newline may arrive in another segment
            if received == message:
                received += await conn.receive(0.05)
        conn.note(f"receives {quote_bytes(received)}")
        if received.rstrip(b"\r\n") != message:
            raise CheckFailed(
                f"the client to send {quote_bytes(message)}", f"it sent {quote_bytes(received)}"
            )
        return received

    async def _receive_more(self, conn: RecordedSocket, received: bytes, message: bytes) -> bytes:
        expected = f"the client to send {quote_bytes(message)}"
        try:
            data = await conn.receive(conn.timeout)
        except TimeoutError:
            conn.note(f"receives {quote_bytes(received)}")
            only = "only " if received else ""
            raise CheckFailed(expected, f"it sent {only}{quote_bytes(received)}", timed_out=True) from None
        except OSError as error:
            raise CheckFailed(expected, f"recv() failed: {error.strerror}") from error
        if not data:
            conn.note(f"receives {quote_bytes(received)}, then EOF (FIN)")
            raise CheckFailed(expected, f"it sent {quote_bytes(received)} before EOF")
        return data

    async def _unless_client_exits(self, call: Coroutine[Any, Any, T], timeout: float) -> T:
        """Return the result of a call.

        Raises:
            TimeoutError: it is not done within `timeout` seconds, or the client exits before.
        """
        assert self.program is not None
        call_task = asyncio.ensure_future(call)
        exit_task = asyncio.ensure_future(self.program.wait(timeout))
        try:
            await asyncio.wait((call_task, exit_task), return_when=asyncio.FIRST_COMPLETED)
            if not call_task.done():  # data that the client sent before it exited has arrived by now
                await asyncio.wait((call_task,), timeout=0.05)
            if not call_task.done():
                raise TimeoutError
            return call_task.result()
        finally:
            for task in (call_task, exit_task):
                task.cancel()
            await asyncio.gather(call_task, exit_task, return_exceptions=True)

    async def receive_datagram(self, sock: socket.socket, timeout: float | None = None) -> tuple[bytes, Any]:
        """Receive a datagram. Returns: the datagram and its sender.

        Raises:
            TimeoutError: none is received in time, or the client exits.
        """
        limit = self.timeout * 2 if timeout is None else timeout
        data, sender = await self._unless_client_exits(self._loop.sock_recvfrom(sock, 65_536), limit)
        self.transcript.add("server", f"receives {quote_bytes(data)}")
        return data, sender

    async def expect_datagram(self, sock: socket.socket, message: bytes) -> tuple[bytes, Any]:
        """Receive a datagram with this message, or with this message and a newline.

        Where the reply does not depend on the request, as in daytime (RFC 867), it may have any content.

        Returns: the datagram and its sender.

        Raises:
            CheckFailed: another datagram is received, or none in time.
        """
        expected = f"the client to send {quote_bytes(message)}"
        try:
            data, sender = await self.receive_datagram(sock)
        except TimeoutError:
            raise CheckFailed(expected, await self._describe_silence(), timed_out=True) from None
        if data.rstrip(b"\r\n") != message and not isinstance(self.oracle, PatternOracle):
            raise CheckFailed(expected, f"it sent {quote_bytes(data)}")
        return data, sender

    def send_datagram(self, sock: socket.socket, data: bytes, address: Any, name: str = "server") -> None:
        """Send a datagram, as the peer `name`."""
        self.transcript.add(name, f"sends {quote_bytes(data)}")
        with suppress(OSError):
            sock.sendto(data, address)

    # The client ----------------------------------------------------------------------------------

    def start_client(self, endpoint: Endpoint, messages: Sequence[bytes], *, host: str = "") -> None:
        """Start the client with these messages as its input.

        Args:
            endpoint: the value of {port} or {path}.
            host: the value of {host}, if not the endpoint's.

        Raises:
            NotListening: it cannot be started.
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
            with entered(self._network):
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
        """Give the client a hosts file with a name for two addresses of this machine.

        getaddrinfo(3) returns 127.0.0.1 first, because it shares the longest prefix with the source address
        (RFC 6724, rule 9).

        Returns: the second address, or None if the system does not allow a private /etc/hosts.
        """
        self._hosts_file = self._scratch_dir / "hosts"
        lines = ("127.0.0.1 localhost", f"127.0.0.1 {name}", f"127.0.0.2 {name}", "")
        self._hosts_file.write_text("\n".join(lines), encoding="ascii")
        probe = start_program(["true"], hosts_file=self._hosts_file)
        await probe.wait(self.timeout)
        await probe.kill_tree()
        return "127.0.0.2" if probe.process.returncode == 0 else None

    async def wait_exit(self, timeout: float | None = None) -> int:
        """Wait for the client to exit. Returns: its exit status, negative for a signal.

        Raises:
            CheckFailed: it does not exit within `timeout` seconds, or the case's timeout.
        """
        assert self.program is not None
        limit = self.timeout if timeout is None else timeout
        if not await self.program.wait(limit):
            raise CheckFailed("the client to exit", f"it is still running after {limit:g} s", timed_out=True)
        await self.program.stdout.wait_eof(1.0)
        await self.program.stderr.wait_eof(1.0)
        self.transcript.add("client", f"exits: {self.program.exit_description}")
        self._exit_recorded = True
        assert self.program.status is not None
        return self.program.status

    async def expect_success(self) -> None:
        """Check that the client exits with 0."""
        if status := await self.wait_exit():
            assert self.program is not None
            raise CheckFailed(
                "the client to exit with status 0",
                self.program.exit_description + ("" if status > 0 else ": a crash"),
            )

    async def expect_clean_failure(
        self, cause: str, timeout: float | None = None, *, success_means: str = ""
    ) -> None:
        """Check that the client exits with a status other than 0, without a traceback or a crash.

        Args:
            cause: of the failure, for the description.
            timeout: seconds until the exit, if not the case's.
            success_means: the likely mistake if it exits with 0.
        """
        status = await self.wait_exit(timeout)
        assert self.program is not None
        printed = self.program.stderr.data + self.program.stdout.data
        if status == 0:
            raise CheckFailed(
                f"an exit status other than 0 after {cause}", "the client exited with 0, which means success",
                cause=success_means,
            )  # fmt: skip
        if status < 0:
            raise CheckFailed(
                f"an exit status other than 0 after {cause}",
                f"the client crashed: {self.program.exit_description}",
            )
        if any(pattern in printed for pattern in _TRACEBACK_PATTERNS[:4]) or (
            _TRACEBACK_PATTERNS[4] in printed and b"Exception" in printed
        ):
            raise CheckFailed(f"a one-line error message after {cause}", "the client printed a traceback")

    async def expect_output(self, *texts: bytes) -> None:
        """Check that the client prints these texts in this order, if it shows what it receives."""
        if self.contract.client.shows:
            await self.expect_printed(*texts)

    async def expect_printed(self, *texts: bytes) -> None:
        """Check that the client prints these texts in this order, until it exits or the timeout passes."""
        assert self.program is not None
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

    def expect_no_surplus_nul(self, reply: bytes) -> None:
        """Check that the output has no NUL that is not in the reply, from the unfilled part of a buffer."""
        assert self.program is not None
        printed = self.program.stdout.data
        if self.contract.client.shows and b"\0" in printed and b"\0" not in reply:
            raise CheckFailed(
                f"{quote_bytes(reply)} on standard output, and no NUL", f"it printed {quote_bytes(printed)}"
            )

    async def diagnose(self, failure: CheckFailed) -> tuple[CheckFailed, str]:
        """Extend a failure by the state of the client. See CaseContext."""
        program = self.program
        if program is None:
            return failure, ""
        if not program.running:
            await program.stderr.wait_eof(0.5)
            if not self._exit_recorded:
                self.transcript.add("client", f"exited: {program.exit_description}")
            crash, cause = find_cause(program.stderr.data) if program.status else ("", "")
            return failure.extended(failure.happened, crash=crash, cause=cause), program.stderr_tail
        if failure.timed_out and program.is_idle():
            failure = failure.extended(f"{failure.happened} (the client is waiting, too)")
        return failure, program.stderr_tail

    async def _describe_silence(self) -> str:
        """Return why nothing is received from the client."""
        assert self.program is not None
        if self.program.running:
            return "it did not"
        await self.program.stderr.wait_eof(0.5)
        return f"it exited ({self.program.exit_description})"

    async def close(self) -> None:
        """End the client, and close all sockets of the case."""
        try:
            if self.program is not None:
                if self._client.trace is not None:
                    await self.program.finish_trace()
                await self.program.kill_tree()
            if self._stdin_task is not None:
                await asyncio.gather(self._stdin_task, return_exceptions=True)
        finally:  # ^C may interrupt the wait
            for sock in self._sockets:
                sock.close()
            if self._network is not None:
                self._network.close()
            remove_scratch_folder(self._scratch_dir)


def _contains_in_order(printed: bytes, texts: Sequence[bytes]) -> bool:
    """Whether the output contains the texts one after the other, whatever their line endings."""
    at = 0
    for text in texts:
        found = printed.find(text.rstrip(b"\r\n"), at)
        if found < 0:
            return False
        at = found + len(text.rstrip(b"\r\n"))
    return True
