"""The second thread of a run: requests, the programs' terminals, and their limits. See `run.py`."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from bothends.check.sandbox.launcher import SandboxLimits
from bothends.check.sandbox.monitor import ResourceMonitor
from bothends.escaping import escape_controls
from bothends.lab.messages import MAX_REQUEST, Look, Output, Reply, Stop, Typed, decode_request
from bothends.lab.sandboxed import SandboxedProgram, kill_group
from bothends.osutil.process_info import descendants, is_running

MAX_OUTPUT: Final = 256 << 10  # characters of one program that are shown
_READ_SIZE: Final = 16 << 10
_BATCH: Final = 0.03  # seconds for which output is collected: a message for each line would be many
_MAX_PENDING: Final = 64 << 10  # bytes of typed text that a program has not read
_END_OF_INPUT: Final = b"\x04"  # VEOF of a terminal (termios(3))
_STOP_TIMEOUT: Final = 10.0  # seconds after the end of requests, until everything is killed


@dataclass(slots=True)
class _Terminal:
    """The terminal of one program."""

    program: int
    descriptor: int
    leader: int
    source: SandboxedProgram
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("backslashreplace"))
    shown: int = 0
    pending: list[str] = field(default_factory=list)
    pending_since: int = 0  # microseconds since 1970
    typed: bytearray = field(default_factory=bytearray)
    monitor: ResourceMonitor | None = None
    kill_reason: str = ""


class Attendant:
    """Runs an event loop in a thread of its own. A context manager.

    Args:
        limits: of each program.
        send: called with replies, in that thread.
    """

    def __init__(self, limits: SandboxLimits, send: Callable[[Reply], None]) -> None:
        self._limits = limits
        self._send = send
        self._main = threading.get_ident()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="attendant", daemon=True)
        self._terminals: dict[str, _Terminal] = {}  # by role
        self._buffer = bytearray()
        self._is_over = False
        self._looking: asyncio.Future[None] | None = None

    def __enter__(self) -> Attendant:
        self._thread.start()
        self._loop.call_soon_threadsafe(self._loop.add_reader, 0, self._on_requests)
        return self

    def __exit__(self, *_: object) -> None:
        """Read the last output, stop the monitors, and end the thread."""
        self._is_over = True
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, program: SandboxedProgram) -> None:
        """Serve the terminal of a program that has started, and watch its limits."""
        self._loop.call_soon_threadsafe(self._add, program)

    def kill_reason(self, program: SandboxedProgram) -> str:
        """Return which limit a program was killed for, or ""."""
        terminal = self._terminals.get(program.role)
        if terminal is None:
            return ""
        by_kernel = terminal.monitor.exit_reason() if terminal.monitor is not None else ""
        return terminal.kill_reason or by_kernel

    # In the thread ------------------------------------------------------------------------------------

    def _add(self, program: SandboxedProgram) -> None:
        terminal = _Terminal(program.number, program.terminal, program.leader, program)
        self._terminals[program.role] = terminal

        def processes() -> list[int]:
            return [terminal.leader, *descendants(terminal.leader, self._limits.processes)]

        def on_exceeded(reason: str) -> None:
            terminal.kill_reason = reason
            kill_group(terminal.leader)

        terminal.monitor = ResourceMonitor(self._limits, processes, on_exceeded, program.group)
        self._loop.add_reader(terminal.descriptor, self._on_output, terminal)

    def _on_output(self, terminal: _Terminal) -> None:
        try:
            data = os.read(terminal.descriptor, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # EIO: no process has it open any longer
            data = b""
        if not data:
            self._loop.remove_reader(terminal.descriptor)
            self._loop.remove_writer(terminal.descriptor)
            os.close(terminal.descriptor)
            terminal.descriptor = -1
            return
        room = MAX_OUTPUT - terminal.shown
        text = terminal.decoder.decode(data)
        terminal.shown += len(text)
        if room <= 0:
            return
        if len(text) >= room:
            text = text[:room] + "\n(more output is not shown)\n"
        if not terminal.pending:
            terminal.pending_since = time.time_ns() // 1000
            self._loop.call_later(_BATCH, self._flush, terminal)
        terminal.pending.append(escape_controls(text))

    def _flush(self, terminal: _Terminal) -> None:
        if terminal.pending:
            text = "".join(terminal.pending)
            terminal.pending.clear()
            self._send(Output(terminal.program, text, terminal.pending_since))

    def _on_requests(self) -> None:
        data = os.read(0, 65_536)
        if not data:
            self._loop.remove_reader(0)
            self._stop()
            return
        self._buffer += data
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest[:MAX_REQUEST])
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):  # the server has checked it, so it is ours
                match decode_request(line):
                    case Stop():
                        self._stop()
                    case Typed() as typed:
                        self._type(typed)
                    case Look():
                        self._look()

    def _look(self) -> None:
        """Send the sockets of the programs, unless the last answer is not ready yet."""
        if self._looking is not None and not self._looking.done():
            return
        from bothends.lab.looking import look

        first = [each.source.first_ids[0] for each in self._terminals.values()]
        pids = [pid for each in first if each for pid in (each, *descendants(each, self._limits.processes))]
        running = [pid for pid in pids if is_running(pid)]
        self._looking = self._loop.run_in_executor(None, lambda: self._send(look(running)))

    def _stop(self) -> None:
        """End the run, as SIGTERM does. If that fails, everything ends with this process."""
        if not self._is_over:
            signal.pthread_kill(self._main, signal.SIGTERM)
            self._loop.call_later(_STOP_TIMEOUT, os._exit, 1)

    def _type(self, typed: Typed) -> None:
        for terminal in self._terminals.values():
            if terminal.program != typed.program or terminal.descriptor < 0:
                continue
            if len(terminal.typed) < _MAX_PENDING:
                terminal.typed += typed.text.encode() + (_END_OF_INPUT if typed.ends else b"")
            self._loop.add_writer(terminal.descriptor, self._on_writable, terminal)

    def _on_writable(self, terminal: _Terminal) -> None:
        try:
            del terminal.typed[: os.write(terminal.descriptor, terminal.typed[:1024])]
        except BlockingIOError:
            return
        except OSError:
            terminal.typed.clear()
        if not terminal.typed:
            self._loop.remove_writer(terminal.descriptor)

    async def _close(self) -> None:
        if self._looking is not None:
            await self._looking
        for terminal in self._terminals.values():
            for _ in range(64):  # what is still in the terminal's buffer
                shown = terminal.shown
                if terminal.descriptor >= 0:
                    self._on_output(terminal)
                if terminal.shown == shown:
                    break
            self._flush(terminal)
            if terminal.monitor is not None:
                await terminal.monitor.stop()
