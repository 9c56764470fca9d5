"""Relay between a connection with layers (TLS, a PROXY header) and a command, in both directions.

    peer ══ciphertext══> NonblockingConnection ──> layers ──> CommandConversation ──pipe──> stdin
    peer <══ciphertext══ NonblockingConnection <── layers <── CommandConversation <──pipe── stdout

A connection with layers cannot be a command's stdin and stdout (`command.py`), so there is one relay process
for each connection, which waits in poll() for three descriptors.

1. The command starts when the handshake is done. So a client that never completes the handshake starts no
   command, and the peer's address from a PROXY header is in the command's environment.
2. At most one piece is buffered in each direction. While the command does not read, nothing is read from the
   peer, and while the peer does not read, nothing from the command. The full pipe, or the TCP window, stops
   the writer.
3. The peer's EOF becomes EOF on the command's stdin, and the command's later output is still sent. EOF on the
   command's stdout ends the reply: close_notify with TLS, then FIN.
4. A command must not take truncated input for complete input. So if the connection ends other than by the
   peer's or the command's EOF (reset, a time limit, a bad TLS record), the command is sent SIGTERM before it
   reads EOF.
5. The relay leads a process group, with the command and all processes that it starts as members. SIGTERM to
   the group terminates the command, and makes the relay abort the connection. SIGKILL ends all of them at
   once, so a command that ignores SIGTERM does not outlive its relay.

`command.py` starts the command.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from typing import Final

from bothends.engines.acceptor import AcceptedConnection
from bothends.engines.base import EngineContext
from bothends.engines.loop_connection import LoopConnection
from bothends.engines.nonblocking import Handler, NonblockingConnection
from bothends.engines.processes import KILL_GRACE, flush_stdio
from bothends.engines.shutdown import ShutdownFlag
from bothends.events import CloseReason
from bothends.services.base import Conversation

# Bytes: the capacity of a pipe (pipe(7)), so no read returns more.
_READ_SIZE: Final = 64 * 1024

_CLEAN_CAUSES: Final = frozenset({CloseReason.PEER, CloseReason.SERVICE})


class CommandConversation(Conversation):
    """The conversation of a command that has pipes as its stdin and stdout. Never blocks.

    The caller calls `produce` again when `output_fd` is readable, and `write_input` when `input_fd` is
    writable.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._input, self._output = process.stdin, process.stdout
        self._unwritten = memoryview(b"")
        self._peer_eof = False
        for pipe in (self._input, self._output):
            os.set_blocking(pipe.fileno(), False)

    @property
    def more_later(self) -> bool:
        return not self._output.closed

    @property
    def input_fd(self) -> int | None:
        """The pipe to the command's stdin, to be watched for POLLOUT; None if nothing is buffered for it."""
        return self._input.fileno() if self._unwritten else None

    @property
    def output_fd(self) -> int | None:
        """The pipe from the command's stdout; None after EOF."""
        return None if self._output.closed else self._output.fileno()

    def receive(self, data: bytes) -> bytes:
        if not self._input.closed:
            # Nothing is read from the peer while input is buffered, but a layer may still hold earlier data.
            self._unwritten = memoryview(bytes(self._unwritten) + data)
            self.write_input()
        return b""

    def end(self) -> bytes:
        self._peer_eof = True
        self.write_input()
        return b""

    def close(self) -> bytes:
        return b""  # without EOF for the command (rule 4)

    def produce(self) -> bytes:
        if self._output.closed:
            return b""
        try:
            data = os.read(self._output.fileno(), _READ_SIZE)
        except BlockingIOError:
            return b""
        if not data:
            self.done = True
            self.close_pipes()
        return data

    def write_input(self) -> None:
        """Write as much buffered input as the pipe takes, and close the pipe if the peer has sent EOF."""
        if self._input.closed:
            return
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._input.fileno(), self._unwritten) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command has closed its stdin: drop the rest, as in a pipeline
            self._close_input()
        if self._peer_eof:
            self._close_input()

    def close_pipes(self) -> None:
        """Close both pipes. The command reads EOF, and gets SIGPIPE when it writes."""
        self._close_input()
        self._output.close()

    def _close_input(self) -> None:
        self._unwritten = memoryview(b"")
        self._input.close()


class CommandRelay:
    """Relays one connection, in its own process, which leads a process group. A `nonblocking.DescriptorLoop`.

    Args:
        context: the engine's context. Its CommandService starts the command and sets `command`.
        accepted: the connection, which the relay closes.
    """

    def __init__(self, context: EngineContext, accepted: AcceptedConnection) -> None:
        self.now = time.monotonic()
        self.command: CommandConversation | None = None
        """The command, once the handshake is done."""
        self._context = context
        self._accepted = accepted
        self._deadline: float | None = None
        self._closed = False
        self._sigterm = ShutdownFlag()
        self._poller = select.poll()
        self._watched: dict[int, int] = {}

    def run(self) -> int:
        """Relay until the connection is closed and the command has exited.

        Returns: the command's exit status, or 128 plus the number of the signal that killed it, as in a
            shell. 0 if no command was started.
        """
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._sigterm.set())
        os.setsid()
        connection, peer, listener = self._accepted
        nonblocking = NonblockingConnection(self, self._context, listener, connection, peer)
        nonblocking.start()
        while not self._closed:
            self._run_once(nonblocking)
        if self.command is None:
            return 0
        process = self.command.process
        if nonblocking.driver.cause not in _CLEAN_CAUSES:
            os.killpg(0, signal.SIGTERM)
        self.command.close_pipes()
        if nonblocking.driver.cause not in _CLEAN_CAUSES:
            try:
                process.wait(KILL_GRACE)
            except subprocess.TimeoutExpired:
                flush_stdio()
                os.killpg(0, signal.SIGKILL)
        status = process.wait()
        return status if status >= 0 else 128 - status

    # nonblocking.DescriptorLoop ------------------------------------------------------------------

    def watch(self, descriptor: int, handler: Handler, interest: int) -> None:
        """See DescriptorLoop. Does nothing, because each wait reads `connection.interest`."""

    def unwatch(self, descriptor: int) -> None:
        """See DescriptorLoop. Does nothing, as `watch`."""

    def schedule(self, connection: LoopConnection, deadline: float) -> None:
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def connection_closed(self, connection: LoopConnection) -> None:
        self._closed = True

    # Waiting -------------------------------------------------------------------------------------

    def _run_once(self, connection: NonblockingConnection) -> None:
        """Wait once, and handle everything that is ready."""
        interests = {self._sigterm.fileno(): select.POLLIN}
        interest = connection.interest
        command = self.command
        output_fd, input_fd = (None, None) if command is None else (command.output_fd, command.input_fd)
        if input_fd is not None:
            interests[input_fd] = select.POLLOUT
            interest &= ~select.POLLIN
        if output_fd is not None and not connection.unsent:
            interests[output_fd] = select.POLLIN
        if interest:  # with an empty mask poll() would still report POLLHUP, in every iteration
            interests[connection.socket.fileno()] = interest
        ready = self._poll(interests)
        self.now = time.monotonic()
        if self._sigterm.fileno() in ready:
            connection.close(CloseReason.ABORTED)
            return
        if command is not None and input_fd in ready:
            command.write_input()
        if (events := ready.get(connection.socket.fileno())) is not None:
            connection.on_ready(events)
        if output_fd in ready and not self._closed:
            connection.on_ready(select.POLLOUT)  # so that it calls `produce`
        if self._deadline is not None and self.now >= self._deadline and not self._closed:
            self._deadline = None
            deadline = connection.on_timer(self.now)
            if deadline is not None:
                self.schedule(connection, deadline)

    def _poll(self, interests: dict[int, int]) -> dict[int, int]:
        for descriptor in self._watched.keys() - interests.keys():
            self._poller.unregister(descriptor)
        for descriptor, interest in interests.items():
            if self._watched.get(descriptor) != interest:
                self._poller.register(descriptor, interest)
        self._watched = interests
        timeout = None if self._deadline is None else max(0.0, self._deadline - self.now) * 1000
        return dict(self._poller.poll(timeout))
