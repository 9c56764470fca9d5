"""A command whose connection is wrapped: a process that carries bytes between the two, both ways.

    peer ══ciphertext══> Channel ──> the layers ──> PipedCommand ──pipe──> the command's stdin
    peer <══ciphertext══ Channel <── the layers <── PipedCommand <──pipe── the command's stdout

Who speaks TLS, or sends a PROXY header, can't be handed to a command as it is (`command.py`): somebody has to
stand between. That is a process for each connection, which waits by poll() for three descriptors.

1. The command starts when the layers are ready: who knocks and shakes no hands costs no command, and the
   command is told who the peer is by a PROXY header.
2. At most one piece waits in each direction. While the command doesn't read, nothing is read from the peer;
   while the peer doesn't, nothing from the command. The pipe, or the window, tells the one who writes.
3. The peer's end is EOF on the command's input, and what it says after that is still sent. EOF on its output
   is the end of what we say: close_notify where that is spoken, then FIN.
4. An input that is cut off must not be taken for a whole one. So where the connection ends in any way but the
   peer's own or the command's (reset, a limit, a broken record), SIGTERM comes before that EOF.
5. The pump leads a process group of which the command and all that it starts are members. SIGTERM to the
   group ends the command, and tells the pump to cut the connection. SIGKILL ends all of them at once, so
   that no command outlives its pump by being stubborn.

Imports: the channel and what it needs. Its neighbour is `command.py`, which makes the command.
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
from bothends.engines.nonblocking import NonblockingConnection
from bothends.engines.processes import KILL_GRACE, flush_stdio
from bothends.engines.shutdown import ShutdownFlag
from bothends.events import CloseReason
from bothends.services.base import Conversation

# What a pipe holds (pipe(7)): no read from one gives more.
_READ_SIZE: Final = 64 * 1024

_CLEAN_CAUSES: Final = frozenset({CloseReason.PEER, CloseReason.SERVICE})


class CommandConversation(Conversation):
    """The talk of a command that has been started with pipes for its input and output. Never blocks.

    Who drives it calls `more` again when `output` is readable, and `write` when `input` is writable.
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
        """The pipe to wait for until it is writable; None while nothing waits to be written."""
        return self._input.fileno() if self._unwritten else None

    @property
    def output_fd(self) -> int | None:
        """The pipe on which the command speaks; None after its end."""
        return None if self._output.closed else self._output.fileno()

    def receive(self, data: bytes) -> bytes:
        if not self._input.closed:
            # Though the driver reads no more while something waits, a layer may have held something back.
            self._unwritten = memoryview(bytes(self._unwritten) + data)
            self.write_input()
        return b""

    def end(self) -> bytes:
        self._peer_eof = True
        self.write_input()
        return b""

    def close(self) -> bytes:
        return b""  # not its EOF: rule 4

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
        """Give the command what its pipe takes of what it has been sent; then its EOF, if that is due."""
        if self._input.closed:
            return
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._input.fileno(), self._unwritten) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it has had enough: as in a pipeline, the rest is for nobody
            self._close_input()
        if self._peer_eof:
            self._close_input()

    def close_pipes(self) -> None:
        """Close both pipes: EOF for who reads, SIGPIPE for who writes."""
        self._close_input()
        self._output.close()

    def _close_input(self) -> None:
        self._unwritten = memoryview(b"")
        self._input.close()


class CommandRelay:
    """Carries one connection, in a process of its own, which leads a group. A `channel.Loop`.

    Args:
        job: what the engine was given. Its service opens what is then `piped`.
        newcomer: the connection, which is closed when it is over.
    """

    def __init__(self, context: EngineContext, accepted: AcceptedConnection) -> None:
        self.now = time.monotonic()
        self.command: CommandConversation | None = None
        """The command, once the layers are ready."""
        self._job = context
        self._accepted = accepted
        self._deadline: float | None = None
        self._closed = False
        self._sigterm = ShutdownFlag()
        self._poller = select.poll()
        self._watched: dict[int, int] = {}

    def run(self) -> int:
        """Carry until the connection and the command have ended; the command's status, as a shell shows it:
        128 and the signal's number where one has ended it. 0 where none was started."""
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._sigterm.set())
        os.setsid()
        connection, peer, listener = self._accepted
        channel = NonblockingConnection(self, self._job, listener, connection, peer)
        channel.start()
        while not self._closed:
            self._run_once(channel)
        if self.command is None:
            return 0
        process = self.command.process
        if channel.driver.cause not in _CLEAN_CAUSES:
            os.killpg(0, signal.SIGTERM)
        self.command.close_pipes()
        if channel.driver.cause not in _CLEAN_CAUSES:
            try:
                process.wait(KILL_GRACE)
            except subprocess.TimeoutExpired:
                flush_stdio()
                os.killpg(0, signal.SIGKILL)
        status = process.wait()
        return status if status >= 0 else 128 - status

    # What the channel needs (channel.Loop) -------------------------------------------------------

    def update_interest(self, connection: NonblockingConnection) -> None:
        """See channel.Loop. What it wants is looked at before each wait."""

    def schedule(self, connection: NonblockingConnection, deadline: float) -> None:
        """See channel.Loop."""
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def connection_closed(self, connection: NonblockingConnection) -> None:
        """See channel.Loop."""
        self._closed = True

    # Waiting -------------------------------------------------------------------------------------

    def _run_once(self, connection: NonblockingConnection) -> None:
        """Wait once, and do all that can be done without waiting."""
        wanted = {self._sigterm.fileno(): select.POLLIN}
        interest = connection.interest
        piped = self.command
        source, sink = (None, None) if piped is None else (piped.output_fd, piped.input_fd)
        if sink is not None:
            wanted[sink] = select.POLLOUT
            interest &= ~select.POLLIN
        if source is not None and not connection.write_buffer_size:
            wanted[source] = select.POLLIN
        if interest:  # without, it would still be reported for having hung up, again and again
            wanted[connection.socket.fileno()] = interest
        ready = self._poll(wanted)
        self.now = time.monotonic()
        if self._sigterm.fileno() in ready:
            connection.close(CloseReason.ABORTED)
            return
        if piped is not None and sink in ready:
            piped.write_input()
        if (found := ready.get(connection.socket.fileno())) is not None:
            connection.on_ready(found)
        if source in ready and not self._closed:
            connection.on_ready(select.POLLOUT)  # that is, for more
        if self._deadline is not None and self.now >= self._deadline and not self._closed:
            self._deadline = None
            due = connection.on_timer(self.now)
            if due is not None:
                self.schedule(connection, due)

    def _poll(self, interests: dict[int, int]) -> dict[int, int]:
        for descriptor in self._watched.keys() - interests.keys():
            self._poller.unregister(descriptor)
        for descriptor, interest in interests.items():
            if self._watched.get(descriptor) != interest:
                self._poller.register(descriptor, interest)
        self._watched = interests
        left = None if self._deadline is None else max(0.0, self._deadline - self.now) * 1000
        return dict(self._poller.poll(left))
