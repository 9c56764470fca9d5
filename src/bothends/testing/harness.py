"""Run one engine in its own process, and observe it.

    with Harness("bothends.engines.epoll:EpollEngine", EchoService, ["tcp://127.0.0.1:0"]) as running:
        client = Client(running.endpoints[0])
        ...
        running.drain()
        engine_exit = running.wait_exit()

The sources are the engine's events, which arrive here as they happen, and /proc. On exit from the `with`
block the engine's process group is killed, so that no process is left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar

from bothends.endpoints import Endpoint
from bothends.engines.base import Limits
from bothends.errors import UnsupportedCombination
from bothends.events import Event
from bothends.layers import TlsSettings
from bothends.osutil import process_info
from bothends.osutil.process_info import ProcessInfo
from bothends.osutil.reexec import self_command
from bothends.testing import ipc
from bothends.testing.engine_runner import ABORT, DRAIN
from bothends.testing.ipc import Crashed, Leftovers, Ready, RunSpec, ServiceMaker, SignalReceived

# Seconds. It expires only if something is wrong, or the machine is very busy.
TIMEOUT: Final = 30.0

# Seconds between reads of /proc.
_POLL_INTERVAL: Final = 0.02

# Seconds until a signal is sent again that the engine has not acknowledged.
_RESEND_INTERVAL: Final = 0.1

# Maximum number of waits for unread reports, as a bound for an engine that keeps sending events.
_MAX_TURNS: Final = 100

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class EngineExit:
    """How an engine's process exited.

    Fields: `status` (negative: the number of the signal), `leftovers` (resources that `run` left open; None
    if it did not return), `survivors` (processes that outlived the engine), `output` (printed text, normally
    none).
    """

    status: int
    leftovers: Leftovers | None
    survivors: Sequence[str]
    output: str

    def problems(self) -> list[str]:
        """Return the problems in words; empty for a clean exit."""
        found = [f"exit status {self.status}"] if self.status else []
        if self.leftovers is None:
            found.append("run() did not return")
        else:
            for kind, names in (
                ("descriptor", self.leftovers.descriptors),
                ("thread", self.leftovers.threads),
                ("process", self.leftovers.processes),
            ):
                found += [f"{kind} left after run(): {name}" for name in names]
        found += [f"process outlived the engine: {name}" for name in self.survivors]
        if self.output:
            found.append(f"printed:\n{self.output}")
        return found


class Harness:
    """One engine in its own process, serving one service on some endpoints. A context manager.

    Args:
        engine: a name of the registry, or "module:Class".
        service: creates the service in the engine's process: a class, a function of a module, or a
            functools.partial of one. It is pickled.
        endpoints: URLs. "{tmp}" in them is replaced by a temporary directory.
        limits: as for a server.
        observe: False runs the engine without an observer, so there are no events.
        start_paused: stop between binding and running, until `resume` is called. So clients can connect
            before the engine runs.
        tls: the TLS settings of tls:// endpoints. The certificate of `TlsSettings(self_signed=True)` is
            created once in each test run.

    Raises:
        UnsupportedCombination: the engine does not support the service, an endpoint or a limit.
        AssertionError: the engine could not be started. The text has its traceback.
    """

    def __init__(
        self,
        engine: str,
        service: ServiceMaker,
        endpoints: Sequence[str],
        limits: Limits | None = None,
        *,
        observe: bool = True,
        start_paused: bool = False,
        tls: TlsSettings | None = None,
    ) -> None:
        self._cleanup = contextlib.ExitStack()
        self.events: list[Event] = []
        """The events so far. Their data is truncated to `ipc.MAX_DATA_SIZE` bytes."""
        self.endpoints: Sequence[Endpoint] = ()
        """The bound endpoints, with the actual ports."""
        self.pid = 0
        """The engine's process; its process group has the same number."""
        self._crash: str | None = None
        self._unsupported: UnsupportedCombination | None = None
        self._leftovers: Leftovers | None = None
        self._ready = False
        self._acknowledged: set[int] = set()
        self._report_eof = False
        self._exit: EngineExit | None = None
        self._status: int | None = None
        self._changed = threading.Condition()
        with contextlib.ExitStack() as undo:
            tmp = undo.enter_context(tempfile.TemporaryDirectory(prefix="bothends-"))
            self._output_file = undo.enter_context(tempfile.TemporaryFile())
            spec = RunSpec(
                engine,
                service,
                [text.replace("{tmp}", tmp) for text in endpoints],
                limits or Limits(),
                observe,
                start_paused,
                tls,
            )
            self._report_socket, engine_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._report_socket.close)
            with engine_end:
                self.pid = FORK_SERVER.fork(spec, engine_end.fileno(), self._output_file.fileno())
            undo.callback(self._kill_and_reap)
            self._reader = threading.Thread(target=self._read_reports, name="bothends-harness", daemon=True)
            self._reader.start()
            self._wait_until(lambda: self._ready or self._unsupported or None, TIMEOUT, "start")
            if self._unsupported is not None:
                raise self._unsupported
            self._cleanup = undo.pop_all()

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the engine's processes, if any are left. Idempotent."""
        self._cleanup.close()

    # Events --------------------------------------------------------------------------------------

    def wait_event(
        self,
        kind: type[E],
        predicate: Callable[[E], bool] = lambda _event: True,
        timeout: float = TIMEOUT,
    ) -> E:
        """Return the first event of this kind for which `predicate` is true. Waits for it.

        Raises:
            AssertionError: there is none within `timeout` seconds, or the engine has exited without it.
        """
        checked = 0

        def find() -> E | None:
            nonlocal checked
            while checked < len(self.events):
                event = self.events[checked]
                checked += 1
                if isinstance(event, kind) and predicate(event):
                    return event
            return None

        event: E = self._wait_until(find, timeout, f"event {kind.__name__}")
        return event

    def events_of(self, kind: type[E], predicate: Callable[[E], bool] = lambda _event: True) -> list[E]:
        """Return all events of this kind so far for which `predicate` is true.

        Reads all reports that the engine has already sent first.
        """
        with self._changed:
            for _ in range(_MAX_TURNS):
                if self._report_eof or not _is_readable(self._report_socket, 0):
                    break
                self._changed.wait(_POLL_INTERVAL)
            return [event for event in self.events if isinstance(event, kind) and predicate(event)]

    # Control -------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Run an engine that was created with `start_paused`."""
        self.wait_for(lambda: all(each.state == "T" for each in self.processes()))
        os.kill(self.pid, signal.SIGCONT)

    def drain(self) -> None:
        """Make the engine drain. Returns at once."""
        self._signal_until_acknowledged(DRAIN)

    def abort(self) -> None:
        """Make the engine abort. Returns at once."""
        self._signal_until_acknowledged(ABORT)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop the engine's processes (SIGSTOP) inside the `with` block.

        The kernel continues to complete handshakes, and to queue connections and data.
        """
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            self.wait_for(lambda: all(each.state in "TZX" for each in process_info.process_tree(self.pid)))
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    def limit_descriptors(self, spare: int) -> Callable[[], None]:
        """Let each process of the engine open only `spare` more descriptors (RLIMIT_NOFILE).

        Returns: a function that restores the limits.
        """
        before = {
            each.pid: process_info.limit_descriptors(each.pid, spare)
            for each in process_info.process_tree(self.pid)
            if not each.is_zombie
        }

        def restore() -> None:
            for pid, limit in before.items():
                with contextlib.suppress(ProcessLookupError):
                    process_info.set_descriptor_limit(pid, limit)

        return restore

    def wait_exit(self, timeout: float = TIMEOUT) -> EngineExit:
        """Wait until the engine and all its processes have exited.

        Raises:
            AssertionError: they have not, within `timeout` seconds.
        """
        if self._exit is None:
            self._wait_until(lambda: self._report_eof or None, timeout, "exit", even_after=True)
            survivors = [
                str(each)
                for each in process_info.all_processes()
                # The leader may still be exiting, because the kernel closes its descriptors first.
                if each.group == self.pid and each.pid != self.pid and not each.is_zombie
            ]
            status = self._kill_and_reap()
            self._exit = EngineExit(status, self._leftovers, survivors, self.output())
        return self._exit

    def is_alive(self) -> bool:
        """Whether any process of the engine is running, as far as known."""
        return self._status is None and not self._report_eof

    # Processes and resources ---------------------------------------------------------------------

    def processes(self) -> list[ProcessInfo]:
        """Return the engine's process and all its descendants."""
        return process_info.process_tree(self.pid)

    def children(self) -> list[ProcessInfo]:
        """Return the descendants of the engine's process, including zombies."""
        return self.processes()[1:]

    def zombies(self) -> list[ProcessInfo]:
        """Return the descendants that have exited and have not been reaped."""
        return [each for each in self.children() if each.is_zombie]

    def cpu_seconds(self) -> float:
        """Return the CPU time that all processes have used, in steps of 10 ms."""
        return sum(each.cpu for each in self.processes())

    def cpu_used(self, seconds: float, limit: float) -> float:
        """Return the CPU time used in the next `seconds`. Returns early if it exceeds `limit`."""
        start = self.cpu_seconds()
        until = time.monotonic() + seconds
        while (used := self.cpu_seconds() - start) <= limit and time.monotonic() < until:
            self._wait_for_change(5 * _POLL_INTERVAL)
        return used

    def memory(self) -> int:
        """Return the resident memory of all processes in bytes. Shared pages count in each process."""
        return sum(each.rss for each in self.processes())

    def descriptors(self) -> int:
        """Return the number of open descriptors of all processes."""
        return sum(len(process_info.descriptors(each.pid)) for each in self.processes())

    def max_descriptors(self) -> int:
        """Return the largest number of open descriptors of any process.

        Shows a descriptor leak independently of the number of processes.
        """
        return max((len(process_info.descriptors(each.pid)) for each in self.processes()), default=0)

    def output(self) -> str:
        """Return what the engine has written to standard output and error."""
        size = self._output_file.seek(0, os.SEEK_END)
        return os.pread(self._output_file.fileno(), size, 0).decode(errors="replace")

    def wait_for_stable_children(self) -> None:
        """Wait until the set of child processes stops changing.

        Then all workers have started, and the processes of closed connections have exited.
        """
        before: list[int] | None = None
        while before != (now := [each.pid for each in self.children()]):
            before = now
            if now:
                self._wait_for_change(10 * _POLL_INTERVAL)

    def wait_for(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> None:
        """Wait until `condition()` is true. For conditions without an event.

        Raises:
            AssertionError: it is not, within `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > until:
                raise AssertionError(f"not within {timeout:g} s; {self.describe()}")
            self._wait_for_change(_POLL_INTERVAL)

    def describe(self) -> str:
        """Describe the state: the running processes, the output, and the last events."""
        lines = [f"processes: {', '.join(map(str, self.processes())) or 'none'}"]
        if self._crash:
            lines.append(f"raised:\n{self._crash}")
        if output := self.output():
            lines.append(f"printed:\n{output}")
        lines += [f"event: {event!s:.300}" for event in self.events[-12:]]
        return "\n".join(lines)

    # Internals -----------------------------------------------------------------------------------

    def _read_reports(self) -> None:
        while True:
            _is_readable(self._report_socket, None)
            # Received under the lock, so that events_of() never finds the socket empty before the event is
            # added.
            with self._changed:
                try:
                    report = ipc.receive(self._report_socket)
                except OSError:
                    report = None
                if report is None:
                    self._report_eof = True
                elif isinstance(report, Ready):
                    self.endpoints = report.endpoints
                    self._ready = True
                elif isinstance(report, SignalReceived):
                    self._acknowledged.add(report.signal)
                elif isinstance(report, Leftovers):
                    self._leftovers = report
                elif isinstance(report, Crashed):
                    self._crash, self._unsupported = report.traceback, report.unsupported
                else:
                    self.events.append(report)
                self._changed.notify_all()
            if report is None:
                return

    def _wait_until(
        self, find: Callable[[], Any], timeout: float, what: str, *, even_after: bool = False
    ) -> Any:
        until = time.monotonic() + timeout
        with self._changed:
            while (found := find()) is None:
                remaining = until - time.monotonic()
                if remaining <= 0 or (self._report_eof and not even_after):
                    when = f"within {timeout:g} s" if remaining <= 0 else "before it exited"
                    raise AssertionError(f"no {what} {when}; {self.describe()}")
                self._changed.wait(remaining)
        return found

    def _signal_until_acknowledged(self, number: int) -> None:
        """Send a signal, and send it again until the engine acknowledges it.

        Python runs a signal handler between two bytecodes of the main thread. If a signal arrives after the
        last bytecode before a blocking call, or in another thread, the handler waits until that call returns,
        which may be never. Another signal interrupts the call.
        """

        def resend() -> None:
            with self._changed:
                while not self._changed.wait_for(
                    lambda: self._report_eof or number in self._acknowledged, _RESEND_INTERVAL
                ):
                    os.kill(self.pid, number)

        os.kill(self.pid, number)
        threading.Thread(target=resend, name="bothends-resend", daemon=True).start()

    def _wait_for_change(self, seconds: float) -> None:
        """Wait for a report, for at most `seconds`. Returns at once after EOF."""
        with self._changed:
            if not self._report_eof:
                self._changed.wait(seconds)

    def _kill_and_reap(self) -> int:
        """Kill the remaining processes, and return the engine's exit status. Idempotent."""
        if self._status is None:
            group = [each for each in process_info.all_processes() if each.group == self.pid]
            if not self._report_eof or len(group) > 1:
                os.killpg(self.pid, signal.SIGKILL)
            with self._changed:
                self._report_eof = True  # ends the threads that resend signals to this pid
            # The kernel does not reuse the pid before this.
            self._status = FORK_SERVER.reap(self.pid)
            with contextlib.suppress(OSError):
                self._report_socket.shutdown(socket.SHUT_RDWR)
            self._reader.join(TIMEOUT)
        return self._status


class _ForkServer:
    """The fork server process, started on first use. See `fork_server.py`."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def fork(self, spec: RunSpec, reports: int, output: int) -> int:
        """Run an engine in a new process, with these descriptors. Returns its pid."""
        reply = self._request(("fork", sys.path, pickle.dumps(spec)), (reports, output))
        if isinstance(reply, int):
            return reply
        raise AssertionError(f"cannot start {spec.engine}:\n{reply}")

    def reap(self, pid: int) -> int:
        """Wait for a process. Returns its exit status."""
        status = self._request(("reap", pid), ())
        assert isinstance(status, int)
        return status

    def _request(self, request: tuple[Any, ...], descriptors: Sequence[int]) -> int | str:
        with self._lock:
            sock = self._socket or self._start()
            socket.send_fds(sock, [pickle.dumps(request)], list(descriptors))
            reply: int | str = pickle.loads(sock.recv(ipc.MAX_REPORT_SIZE))
            return reply

    def _start(self) -> socket.socket:
        sock, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # With this option an unclosed descriptor prints a warning, which `EngineExit.problems` reports.
        python, *module = self_command("bothends.testing.fork_server")
        command = [python, "-W", "error::ResourceWarning", *module]
        with server_end:
            self._process = subprocess.Popen(
                [*command, str(server_end.fileno())],
                pass_fds=[server_end.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that ^C reaches the test process only
            )
        self._socket = sock
        atexit.register(self._stop)
        return sock

    def _stop(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait(TIMEOUT)


def _is_readable(sock: socket.socket, milliseconds: int | None) -> bool:
    """Whether data or EOF can be received. Waits for at most `milliseconds` (None: no limit)."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(milliseconds))


FORK_SERVER: Final = _ForkServer()
