"""Runs one engine in a process of its own, and watches it.

    with Harness("bothends.engines.epoll:EpollEngine", Echo, ["tcp://127.0.0.1:0"]) as running:
        client = dial(running.endpoints[0])
        ...
        running.drain()
        left = running.wait_exit()

What an engine does is told by its events, which come here as they happen, and by /proc. However the
`with` is left, nothing of the engine is left: its process group is killed.
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

# Generous: it only passes when something is wrong, or the machine is very busy.
TIMEOUT: Final = 30.0

# How often what only /proc knows is looked at.
_POLL_INTERVAL: Final = 0.02

# How long until a signal that has not been taken is sent again.
_RESEND_INTERVAL: Final = 0.1

# How often it is looked whether all has been read: an engine that never ceases to tell isn't waited for.
_MAX_TURNS: Final = 100

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class EngineExit:
    """How an engine's process ended: its exit status (negative: the signal), what `run` left behind
    (None if it never came back), who outlived it, and what was printed, which should be nothing."""

    status: int
    leftovers: Leftovers | None
    survivors: Sequence[str]
    output: str

    def problems(self) -> list[str]:
        """What is wrong with this end, in words; empty if nothing is."""
        found = [f"exit status {self.status}"] if self.status else []
        if self.leftovers is None:
            found.append("run() never came back")
        else:
            for what, names in (
                ("descriptor", self.leftovers.descriptors),
                ("thread", self.leftovers.threads),
                ("process", self.leftovers.processes),
            ):
                found += [f"{what} left after run(): {name}" for name in names]
        found += [f"process outlived the engine: {name}" for name in self.survivors]
        if self.output:
            found.append(f"printed:\n{self.output}")
        return found


class Harness:
    """One engine, serving one service on some endpoints.

    Args:
        engine: a name of the registry, or "module:Class".
        service: makes the service in the engine's process: a class, a function of a module, or a
            functools.partial of one. It is pickled.
        endpoints: URLs. "{tmp}" in them becomes a directory that is removed at the end.
        limits: as for a server.
        observe: False runs the engine with no observer; then there are no events.
        held: stop between binding and running, until `go` is called: a server's sockets are there, and
            so are its clients, before the engine looks at them.
        tls: how to speak TLS on tls:// endpoints. The certificate of `TlsSettings(self_signed=True)`
            is made once for all that a test run starts.

    Raises:
        CannotCarry: the engine refused something of it when it was made.
        AssertionError: it can't be started. The text says why, in the engine's own words.
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
        """All that has happened so far. Bytes beyond `reports.MAX_MESSAGE_TEXT` are left out."""
        self.endpoints: Sequence[Endpoint] = ()
        """Where it listens, with the real ports."""
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
            self._errors = undo.enter_context(tempfile.TemporaryFile())
            order = RunSpec(
                engine,
                service,
                [text.replace("{tmp}", tmp) for text in endpoints],
                limits or Limits(),
                observe,
                start_paused,
                tls,
            )
            self._report_socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._report_socket.close)
            with theirs:
                self.pid = FORK_SERVER.fork(order, theirs.fileno(), self._errors.fileno())
            undo.callback(self._kill_and_reap)
            self._reader = threading.Thread(target=self._read_reports, name="bothends-harness", daemon=True)
            self._reader.start()
            self._wait_until(lambda: self._ready or self._unsupported or None, TIMEOUT, "ready")
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
        """End whatever is left, at once and without asking. Idempotent."""
        self._cleanup.close()

    # What has happened ---------------------------------------------------------------------------

    def wait_event(
        self,
        kind: type[E],
        predicate: Callable[[E], bool] = lambda _event: True,
        timeout: float = TIMEOUT,
    ) -> E:
        """The first event of this kind that fits, waiting for it if need be.

        Raises:
            AssertionError: it has not come after `deadline` seconds, or can't come any more.
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
        """All events of this kind so far that fit: what was told before this is asked is among them."""
        with self._changed:
            for _ in range(_MAX_TURNS):
                if self._report_eof or not _is_readable(self._report_socket, 0):
                    break
                self._changed.wait(_POLL_INTERVAL)
            return [event for event in self.events if isinstance(event, kind) and predicate(event)]

    # What to do ----------------------------------------------------------------------------------

    def resume(self) -> None:
        """Let an engine run that was made with `held`."""
        self.wait_for(lambda: all(each.state == "T" for each in self.processes()))
        os.kill(self.pid, signal.SIGCONT)

    def drain(self) -> None:
        """Tell the engine to let conversations end. Returns at once."""
        self._signal_until_acknowledged(DRAIN)

    def abort(self) -> None:
        """Tell the engine to cut everything off. Returns at once."""
        self._signal_until_acknowledged(ABORT)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """While inside, the engine's processes stand still (SIGSTOP), and the kernel goes on without
        them: connections are made and queue up, bytes arrive."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            self.wait_for(lambda: all(each.state in "TZX" for each in process_info.process_tree(self.pid)))
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    def limit_descriptors(self, spare: int) -> Callable[[], None]:
        """Let each of its processes open only `spare` more descriptors (RLIMIT_NOFILE).

        Calling what is returned takes that back.
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
        """Wait until the engine and all of its processes are gone.

        Raises:
            AssertionError: they are not, after `deadline` seconds.
        """
        if self._exit is None:
            self._wait_until(lambda: self._report_eof or None, timeout, "its end", even_after=True)
            survivors = [
                str(each)
                for each in process_info.all_processes()
                # The leader may be on its way out still: its descriptors go before it does.
                if each.group == self.pid and each.pid != self.pid and not each.is_zombie
            ]
            status = self._kill_and_reap()
            self._exit = EngineExit(status, self._leftovers, survivors, self.output())
        return self._exit

    def is_alive(self) -> bool:
        """Whether any of its processes is still there, as far as is known."""
        return self._status is None and not self._report_eof

    # What the system says ------------------------------------------------------------------------

    def processes(self) -> list[ProcessInfo]:
        """The engine's process and all that descend from it."""
        return process_info.process_tree(self.pid)

    def children(self) -> list[ProcessInfo]:
        """Those that descend from it, zombies included."""
        return self.processes()[1:]

    def zombies(self) -> list[ProcessInfo]:
        """Those of its children whose end nobody has noticed."""
        return [each for each in self.children() if each.is_zombie]

    def cpu_seconds(self) -> float:
        """Processor time that all of them have used, in steps of 10 ms."""
        return sum(each.cpu for each in self.processes())

    def cpu_used(self, seconds: float, limit: float) -> float:
        """Processor time used from now on over `seconds`; fewer if it is more than `enough` before."""
        start = self.cpu_seconds()
        until = time.monotonic() + seconds
        while (used := self.cpu_seconds() - start) <= limit and time.monotonic() < until:
            self._wait_for_change(5 * _POLL_INTERVAL)
        return used

    def memory(self) -> int:
        """Bytes that all of them have in memory; what they share counts for each."""
        return sum(each.rss for each in self.processes())

    def descriptors(self) -> int:
        """How many descriptors all of them have open."""
        return sum(len(process_info.descriptors(each.pid)) for each in self.processes())

    def max_descriptors(self) -> int:
        """How many descriptors that one of them has open which has the most: what leaks shows there, however
        many processes there are by now."""
        return max((len(process_info.descriptors(each.pid)) for each in self.processes()), default=0)

    def output(self) -> str:
        """What has been written to standard output and error."""
        size = self._errors.seek(0, os.SEEK_END)
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def wait_for_stable_children(self) -> None:
        """Wait until no more processes are being started: those that it keeps are all there, and those of
        connections that are over are gone."""
        before: list[int] | None = None
        while before != (now := [each.pid for each in self.children()]):
            before = now
            if now:
                self._wait_for_change(10 * _POLL_INTERVAL)

    def wait_for(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> None:
        """Wait until `condition()` is true: for what no event tells.

        Raises:
            AssertionError: it isn't, after `deadline` seconds.
        """
        until = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > until:
                raise AssertionError(f"not within {timeout:g} s; {self.describe()}")
            self._wait_for_change(_POLL_INTERVAL)

    def describe(self) -> str:
        """How it stands: who is alive, what was printed, and the last events."""
        lines = [f"alive: {', '.join(map(str, self.processes())) or 'nobody'}"]
        if self._crash:
            lines.append(f"it raised:\n{self._crash}")
        if printed := self.output():
            lines.append(f"it printed:\n{printed}")
        lines += [f"event: {event!s:.300}" for event in self.events[-12:]]
        return "\n".join(lines)

    # The inside ----------------------------------------------------------------------------------

    def _read_reports(self) -> None:
        while True:
            _is_readable(self._report_socket, None)
            with self._changed:  # from here on it is told, for whoever asks
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
                left = until - time.monotonic()
                if left <= 0 or (self._report_eof and not even_after):
                    when = f"within {timeout:g} s" if left <= 0 else "before it ended"
                    raise AssertionError(f"{what} has not come {when}; {self.describe()}")
                self._changed.wait(left)
        return found

    def _signal_until_acknowledged(self, number: int) -> None:
        """Send a signal until it has been taken.

        Python runs a handler between two steps of the main thread. A signal that comes after the last
        step before a call that blocks, or that the kernel gives to another thread, is kept until that
        call returns, which nothing may make it do; another signal does.
        """

        def insist() -> None:
            with self._changed:
                while not self._changed.wait_for(
                    lambda: self._report_eof or number in self._acknowledged, _RESEND_INTERVAL
                ):
                    os.kill(self.pid, number)

        os.kill(self.pid, number)
        threading.Thread(target=insist, name="bothends-insist", daemon=True).start()

    def _wait_for_change(self, seconds: float) -> None:
        """Wait, but not longer than there is something to wait for."""
        with self._changed:
            if not self._report_eof:
                self._changed.wait(seconds)

    def _kill_and_reap(self) -> int:
        """Kill what is left, and take the exit status. Idempotent."""
        if self._status is None:
            group = [each for each in process_info.all_processes() if each.group == self.pid]
            if not self._report_eof or len(group) > 1:
                os.killpg(self.pid, signal.SIGKILL)
            with self._changed:
                self._report_eof = True  # it is told nothing any more
            # Until here the number is its own: it is not given to another before it is reaped.
            self._status = FORK_SERVER.reap(self.pid)
            with contextlib.suppress(OSError):
                self._report_socket.shutdown(socket.SHUT_RDWR)
            self._reader.join(TIMEOUT)
        return self._status


class _ForkServer:
    """The process that forks, started when it is first needed. See `fork_server.py`."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def fork(self, spec: RunSpec, reports: int, errors: int) -> int:
        """Run this; the process's number."""
        answer = self._request(("fork", sys.path, pickle.dumps(spec)), (reports, errors))
        if isinstance(answer, int):
            return answer
        raise AssertionError(f"{spec.engine} can't be started:\n{answer}")

    def reap(self, pid: int) -> int:
        """The exit status of a process that has ended."""
        status = self._request(("reap", pid), ())
        assert isinstance(status, int)
        return status

    def _request(self, request: tuple[Any, ...], descriptors: Sequence[int]) -> int | str:
        with self._lock:
            line = self._socket or self._start()
            socket.send_fds(line, [pickle.dumps(request)], list(descriptors))
            answer: int | str = pickle.loads(line.recv(ipc.MAX_REPORT_SIZE))
            return answer

    def _start(self) -> socket.socket:
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A descriptor that is forgotten rather than closed is to be heard of: it is printed.
        python, *module = self_command("bothends.testing.fork_server")
        command = [python, "-W", "error::ResourceWarning", *module]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # ^C is for the watcher
            )
        self._socket = line
        atexit.register(self._stop)
        return line

    def _stop(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait(TIMEOUT)


def _is_readable(sock: socket.socket, milliseconds: int | None) -> bool:
    """Whether something can be read, waited for so long (None: until it can)."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(milliseconds))


FORK_SERVER: Final = _ForkServer()
