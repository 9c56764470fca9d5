"""A running case of a server suite: its server, its sockets, its messages and its transcript.

The stimuli of `suites/` are made of these methods. The `expect_` methods raise `CheckFailed`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bothends.check.case import CheckFailed
from bothends.check.contract import Contract
from bothends.check.evidence import find_cause
from bothends.check.messages import make_message
from bothends.check.oracle import ExpectedReply, Oracle
from bothends.check.subjects.following_socket import FollowingSocket
from bothends.check.subjects.listening import listeners
from bothends.check.subjects.own_network import OwnNetwork, entered
from bothends.check.subjects.process import ProgramProcess
from bothends.check.subjects.recorded_socket import RecordedSocket, socket_address
from bothends.check.subjects.upstream import DEFAULT_BACKLOG, HOST
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed
from bothends.osutil.process_info import read_process, read_stat, scheduling_times
from bothends.socket_table import proc_net, sock_diag
from bothends.sockets.options import reset_on_close

_BUSY_LOOP_SHARE: Final = 0.7  # of the time: a process that wants to run this much does nothing else
_SETTLED: Final = 0.3  # seconds: longer than a server pauses when accept() fails with EMFILE
_CLOSED_BY_SERVER: Final = ("before EOF", "closed early", "ECONNRESET", "the server closed the connection")
SIGTERM_TIMEOUT: Final = 2.0  # seconds from SIGTERM until the exit
_MAX_IDLE_CPU: Final = 0.2  # of a processor: a busy loop uses all of one, a waiting process none


@dataclass
class RunningServer:
    """A server.

    `program` is None if the checker did not start it; `assigned_port`: the value of its PORT; `network`: the
    network namespace that it is in, None for the checker's; `used`: earlier cases have used it.
    """

    endpoint: Endpoint
    program: ProgramProcess | None
    scratch_dir: Path | None = None
    assigned_port: int = 0
    network: OwnNetwork | None = None
    used: bool = False


@dataclass(frozen=True, slots=True)
class AcceptQueue:
    """An accept queue, as the kernel reports it.

    `backlog`: given to listen(2); `client_ports`: of the connections that are in the queue or accepted. With
    SYN cookies a client may believe in one that the queue had no space for (RFC 4987, section 3.6);
    `waiting`: how many are in the queue.
    """

    backlog: int
    client_ports: frozenset[int]
    waiting: int = 0

    def has(self, client: RecordedSocket) -> bool:
        """Whether the connection of a client is in the queue, or accepted."""
        return client.socket.getsockname()[1] in self.client_ports


class ServerContext:
    """A running case of a server suite. `timeout`: seconds for each step; only a wrong program needs them."""

    noun = "server"
    """What the program is, in the texts of a failure."""

    def __init__(
        self,
        contract: Contract,
        server: RunningServer,
        oracle: Oracle,
        transcript: Transcript,
        timeout: float,
        load_factor: float,
        restart: Callable[[RunningServer], Awaitable[RunningServer]],
    ) -> None:
        self.contract = contract
        self.server = server
        self._restart = restart
        self.oracle = oracle
        self.transcript = transcript
        self.reference: ServerContext | None = None
        """A case of a reference server, which is correct, with which the server is compared."""
        self.timeout = timeout
        self.load_factor = load_factor
        self.killed_by_case = False
        self._terminated = False  # by SIGTERM
        self._sockets: list[RecordedSocket] = []
        self._listeners: list[socket.socket] = []

    # Messages ------------------------------------------------------------------------------------

    def message(self, number: int = 0, size: int | None = None) -> bytes:
        """Return the `number`-th message of `size` bytes, different from all others.

        If the contract has a list of messages, they repeat, and `size` is ignored.
        """
        if not self.oracle.accepts_any_message:
            return self.oracle.messages[number % len(self.oracle.messages)]
        return make_message(self.contract, number, size)

    def request(self, message: bytes) -> bytes:
        """Return a message with its framing, or nothing if the server speaks first."""
        return b"" if self.contract.speaks_first else self.contract.encode(message)

    def reply(self, *messages: bytes) -> ExpectedReply:
        """Return the correct reply to these messages, one after the other."""
        return ExpectedReply.concatenate([self.oracle.reply(each) for each in messages])

    # Connections ---------------------------------------------------------------------------------

    async def connect(
        self,
        name: str = "client",
        *,
        small_rcvbuf: bool = False,
        timeout: float | None = None,
        endpoint: Endpoint | None = None,
        follows: bool = False,
    ) -> RecordedSocket:
        """Connect a stream or datagram socket to the server. It is closed when the case ends.

        Args:
            name: the client's name in the transcript.
            small_rcvbuf: use the smallest receive buffer (on Linux 2,304 bytes: SOCK_MIN_RCVBUF).
            timeout: seconds for each step, if not the case's.
            endpoint: the endpoint, if not the server's.
            follows: the port of the first reply becomes the server's for this client, as in TFTP.

        Raises:
            CheckFailed: the connection is refused, or not established in time.
        """
        client, address = self._open_socket(
            name,
            endpoint or self.server.endpoint,
            timeout or self.timeout,
            small_rcvbuf=small_rcvbuf,
            kind_of_socket=FollowingSocket if follows else RecordedSocket,
        )
        await client.connect(address)
        return client

    def start_connect(self, name: str, *, small_rcvbuf: bool = False) -> RecordedSocket:
        """Start to connect, without waiting for the connection. See `connect`."""
        client, address = self._open_socket(
            name, self.server.endpoint, self.timeout, small_rcvbuf=small_rcvbuf
        )
        client.start_connect(address)
        return client

    def _open_socket(
        self,
        name: str,
        endpoint: Endpoint,
        timeout: float,
        *,
        small_rcvbuf: bool = False,
        kind_of_socket: type[RecordedSocket] = RecordedSocket,
    ) -> tuple[RecordedSocket, Any]:
        family, kind, address = socket_address(endpoint)
        sock = self.new_socket(family, kind)
        if small_rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            sock.bind("")  # to a unique abstract address (unix(7)), to which the server can reply
        client = kind_of_socket(sock, name, self.transcript, timeout)
        client.max_resends = self.contract.max_resends
        self._sockets.append(client)
        return client, address

    def new_socket(self, family: int, kind: int) -> socket.socket:
        """Return a non-blocking socket in the server's network namespace."""
        with entered(self.server.network):
            sock = socket.socket(family, kind)
        sock.setblocking(False)
        return sock

    def listen(self) -> tuple[socket.socket, Endpoint]:
        """Return a TCP socket that listens where the server can connect to it, and its endpoint."""
        listener = self.new_socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listeners.append(listener)
        listener.bind((HOST, 0))
        listener.listen(DEFAULT_BACKLOG)
        return listener, Endpoint("tcp", host=HOST, port=listener.getsockname()[1])

    async def accept(self, listener: socket.socket, name: str, timeout: float) -> RecordedSocket:
        """Return the server's next connection to a listener. It is closed when the case ends.

        Raises:
            CheckFailed: the server does not connect within `timeout` seconds.
        """
        try:
            sock, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), timeout)
        except TimeoutError:
            raise CheckFailed(
                f"a connection to {name}",
                f"the server did not connect to {name} within {timeout:g} s",
                timed_out=True,
            ) from None
        sock.setblocking(False)
        upstream = RecordedSocket(sock, name, self.transcript, timeout)
        upstream.note("accepts a connection")
        self._sockets.append(upstream)
        return upstream

    async def exchange(self, conn: RecordedSocket, *messages: bytes) -> None:
        """Send messages, on a stream in one write, and receive their replies."""
        if self.contract.is_datagram:
            for each in messages:
                await conn.send(each)
                await conn.expect_datagram(self.reply(each))
            return
        await conn.send(b"".join(map(self.request, messages)))
        await conn.expect_reply(self.reply(*messages))

    async def expect_served(self, name: str = "next", number: int = 900) -> None:
        """Check that a new client gets its reply.

        If no datagram has a reply, check that the server reads two of them, and keeps running.
        """
        client = await self.connect(name)
        await self.exchange(client, self.message(number))
        if self.contract.is_datagram and self.reply(self.message(number)).silent:
            await self._expect_read()
            await self.exchange(client, self.message(number + 1))
            await self._expect_read()
        client.close()

    async def _expect_read(self) -> None:
        """Check that the server reads the datagrams that were sent to it, and keeps running."""
        if self.server.program is None:
            return
        is_read = await self.wait_until(
            lambda: not self.unread_bytes() or not self.program.running, self.timeout
        )
        if not is_read:
            unread = f"{self.unread_bytes():,} bytes stay in its receive buffer"
            raise CheckFailed("the server to read each datagram", unread, timed_out=True)
        if ending := await self.exit_description():
            raise CheckFailed("the server to read the next datagram", f"the server exited: {ending}")

    def unread_bytes(self) -> int:
        """Return how much waits in the receive buffers of the server's UDP port, as the kernel counts it."""
        endpoint = self.server.endpoint
        if endpoint.scheme != "udp":
            return 0
        with suppress(OSError):
            found = proc_net.read(Path(f"/proc/{self.program.pid}/net"), protocols=("udp",))
            return sum(entry.recv_queue or 0 for entry in found if entry.local.port == endpoint.port)
        return 0

    def socket_count(self) -> int:
        """Return the number of sockets that the server and its descendants hold.

        0 if the checker did not start the server, because its state is unknown.
        """
        count = 0
        for pid in self.program.process_tree() if self.server.program is not None else ():
            with suppress(OSError):
                for each in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):  # closed in the meantime
                        count += str(each.readlink()).startswith("socket:")
        return count

    async def expect_still_served(self, event: str) -> None:
        """Check that a new client gets its reply. A failure names `event` as its cause."""
        try:
            await self.expect_served()
        except CheckFailed as failure:
            await asyncio.sleep(0)
            ending = await self.exit_description()
            raise CheckFailed(
                f"the next client to be served after {event}",
                f"{failure.happened}{f'; the {self.noun} exited: {ending}' if ending else ''}",
                timed_out=failure.timed_out,
                cause=failure.cause,
            ) from failure

    async def exit_description(self) -> str:
        """Return how the server exited; "" if it is running, or if the checker did not start it."""
        program = self.server.program
        if program is None:
            return ""
        await program.wait(0.05)
        return program.exit_description

    async def diagnose(self, failure: CheckFailed) -> tuple[CheckFailed, str]:
        """Extend a failure by the state of the server. See CaseContext."""
        program = self.server.program
        if program is None or self.killed_by_case:
            return failure, ""
        ending = await self.exit_description()
        if ending:
            self.transcript.add(self.noun, f"exited: {ending}")
            await program.stderr.wait_eof(0.5)
            exited = f"the {self.noun} exited"
            mentioned = ending in failure.happened or exited in failure.happened
            happened = failure.happened if mentioned else f"{failure.happened} ({exited}: {ending})"
            left = program.status == 0 and not self._terminated
            crash, cause = find_cause(program.stderr.data) if program.status else ("", "")
            return failure.extended(happened, left=left, crash=crash, cause=cause), program.stderr_tail
        if failure.timed_out and self.is_idle():
            failure = failure.extended(f"{failure.happened} (the {self.noun} is waiting, too)")
        elif any(sign in failure.happened for sign in _CLOSED_BY_SERVER):
            crash, cause = find_cause(program.stderr.data)  # of the thread of this connection
            failure = failure.extended(failure.happened, crash=crash, cause=cause)
        return failure, program.stderr_tail

    # The process ---------------------------------------------------------------------------------

    @property
    def program(self) -> ProgramProcess:
        """The server's process, for cases that require one."""
        assert self.server.program is not None
        return self.server.program

    def signal(self, number: int, name: str) -> None:
        """Send the server a signal."""
        self.transcript.add("check", f"sends {name} to the {self.noun}")
        self._terminated = self._terminated or number == signal.SIGTERM
        with suppress(ProcessLookupError):
            os.kill(self.program.pid, number)

    def fd_count(self) -> int:
        """Return the number of file descriptors that the server and its descendants hold."""
        count = 0
        for pid in self.program.process_tree():
            with suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
        return count

    def zombie_count(self) -> int:
        """Return the number of zombies among the server and its descendants."""
        return sum(read_stat(pid)[1:2] == ["Z"] for pid in self.program.process_tree())

    def memory_usage(self) -> int:
        """Return the resident memory of the server and its descendants, in bytes (RSS)."""
        return sum(process.rss for pid in self.program.process_tree() if (process := read_process(pid)))

    def cpu_times(self) -> dict[int, tuple[float, float]]:
        """Return for each process the seconds for which it ran, and for which it ran or was runnable."""
        times = {pid: scheduling_times(pid) for pid in self.program.process_tree()}
        return {pid: (ran, ran + waited) for pid, (ran, waited) in times.items()}

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server (SIGSTOP) in a `with` block, so that only the kernel acts on its sockets.

        A server that the checker did not start continues to run.
        """
        has_process = self.server.program is not None
        if has_process:
            self.signal(signal.SIGSTOP, "SIGSTOP")
        try:
            yield
        finally:
            if has_process:
                self.signal(signal.SIGCONT, "SIGCONT")

    def is_idle(self) -> bool:
        """Whether all threads of the server are asleep, so that it sends nothing more until data arrives.

        True if the checker did not start the server, because its state is unknown.
        """
        return self.server.program is None or self.program.is_idle()

    async def cpu_share(self, windows: int = 3, seconds: float = 1.0) -> float:
        """Return the lowest CPU share of the server in several windows of time: 0 to 1, or more.

        On a busy machine a busy loop runs little, but it is runnable all the time: then that is its share. A
        process that wakes up now and then is runnable for longer on a busy machine, too, but never most of
        the time. So each process is looked at separately: many that wake up now and then are not a loop.
        """
        loop = asyncio.get_running_loop()
        lowest = float("inf")
        for _ in range(windows):
            before, started_at = self.cpu_times(), loop.time()
            await asyncio.sleep(seconds)
            elapsed = loop.time() - started_at
            shares = [
                ((now[0] - then[0]) / elapsed, (now[1] - then[1]) / elapsed)
                for now, then in ((now, before.get(pid, (0.0, 0.0))) for pid, now in self.cpu_times().items())
            ]
            running = sum(each for each, _ in shares)
            runnable = max((each for _, each in shares), default=0.0)
            lowest = min(lowest, runnable if runnable > _BUSY_LOOP_SHARE else running)
            if lowest < 0.05:
                break
        return max(0.0, lowest)

    async def expect_running(self) -> None:
        """Check that the server has not exited, which a client in its accept queue does not see."""
        if await self.exit_description():
            raise CheckFailed("the server to keep running", f"the {self.noun} exited")

    async def expect_no_busy_loop(self) -> None:
        """Check that an idle server uses no CPU time."""
        share = await self.cpu_share()
        if share > _MAX_IDLE_CPU:
            raise CheckFailed(
                "an idle server to use no CPU time", f"it uses {share:.0%} of a processor", timed_out=True
            )

    async def expect_stop(
        self, close_clients: Callable[[float], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Send SIGTERM, and check that the server exits in time and that its port is free then.

        Args:
            close_clients: closes the clients when the server ends their connections; gives up after the
                seconds that it gets. None if they have none.
        """
        limit = SIGTERM_TIMEOUT * self.load_factor
        closing = [] if close_clients is None else [asyncio.ensure_future(close_clients(limit))]
        self.signal(signal.SIGTERM, "SIGTERM")
        try:
            await self.expect_exit(limit)
        finally:
            for each in closing:
                each.cancel()
            await asyncio.gather(*closing, return_exceptions=True)
        await self.expect_port_free(limit)

    async def expect_exit(self, timeout: float) -> None:
        """Check that the server exits within `timeout` seconds of a SIGTERM."""
        if not await self.program.wait(timeout):
            raise CheckFailed(
                f"the {self.noun} to exit within {timeout / self.load_factor:g} s of SIGTERM",
                "it is still running",
                timed_out=True,
            )
        self.transcript.add(self.noun, f"exits: {self.program.exit_description}")

    async def expect_port_free(self, timeout: float) -> None:
        """Check that no process of the server listens after `timeout` seconds."""
        if not await self.wait_until(lambda: not self.is_listening(), timeout):
            holder = f"a process that the {self.noun} started still holds it"
            raise CheckFailed("the port to be free", holder, timed_out=True)

    def is_listening(self) -> bool:
        """Whether the server, or a process that it left behind, listens."""
        program = self.program
        return bool(listeners(program.process_tree(include_detached=True), self.contract.transport))

    def accept_queue(self) -> AcceptQueue | None:
        """Return the accept queue of a TCP server that was started here, or None if it is unknown."""
        port = self.server.endpoint.port
        if self.server.program is None or self.contract.transport != "tcp":
            return None
        with suppress(OSError, SystemCallFailed), entered(self.server.network):
            own = [each for each in sock_diag.dump() if each.protocol == "tcp" and each.local.port == port]
            for entry in own:
                if entry.state == "LISTEN":
                    clients = frozenset(each.peer.port or 0 for each in own if each.state == "ESTABLISHED")
                    return AcceptQueue(entry.send_queue or 0, clients, entry.recv_queue or 0)
        return None

    async def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Return whether a condition becomes true within `timeout` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not condition():
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def wait_settled(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait up to `timeout` seconds until a condition stays true for a moment."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        since = loop.time()
        while loop.time() < min(deadline, since + _SETTLED):
            if not condition():
                since = loop.time()
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kill the server and its descendants (SIGKILL). Its exit is then no evidence of a fault."""
        self.killed_by_case = True
        await self.program.kill_tree()

    async def restart(self) -> None:
        """Start the server again on the same endpoint.

        Raises:
            NotListening: it exits, or does not listen.
            SystemCallFailed: it cannot be started.
        """
        self.transcript.add("check", f"starts the {self.noun} again on the same endpoint")
        self.server = await self._restart(self.server)
        self.killed_by_case = False

    def close(self, *, with_reset: bool = False) -> None:
        """Close all sockets of the case.

        Args:
            with_reset: send RST, which leaves no connection in TIME-WAIT (RFC 9293, 3.10.7.4).
        """
        for listener in self._listeners:
            listener.close()
        for client in self._sockets:
            with suppress(OSError):
                if with_reset and client.socket.type == socket.SOCK_STREAM:
                    reset_on_close(client.socket)
                client.socket.close()
