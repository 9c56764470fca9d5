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
from bothends.errors import CannotCarry
from bothends.events import Event
from bothends.layers import TlsSettings
from bothends.osutil import process_info
from bothends.osutil.process_info import Process
from bothends.osutil.reexec import itself
from bothends.testing import ipc
from bothends.testing.engine_runner import ABORT, DRAIN
from bothends.testing.ipc import Crashed, Left, Order, Ready, ServiceMaker, Told

# Generous: it only passes when something is wrong, or the machine is very busy.
DEADLINE: Final = 30.0

# How often what only /proc knows is looked at.
_GLANCE: Final = 0.02

# How long until a signal that has not been taken is sent again.
_INSIST: Final = 0.1

# How often it is looked whether all has been read: an engine that never ceases to tell isn't waited for.
_TURNS: Final = 100

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an engine's process ended: its exit status (negative: the signal), what `run` left behind
    (None if it never came back), who outlived it, and what was printed, which should be nothing."""

    status: int
    left: Left | None
    survivors: Sequence[str]
    printed: str

    def faults(self) -> list[str]:
        """What is wrong with this end, in words; empty if nothing is."""
        found = [f"exit status {self.status}"] if self.status else []
        if self.left is None:
            found.append("run() never came back")
        else:
            for what, names in (
                ("descriptor", self.left.descriptors),
                ("thread", self.left.threads),
                ("process", self.left.processes),
            ):
                found += [f"{what} left after run(): {name}" for name in names]
        found += [f"process outlived the engine: {name}" for name in self.survivors]
        if self.printed:
            found.append(f"printed:\n{self.printed}")
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
        held: bool = False,
        tls: TlsSettings | None = None,
    ) -> None:
        self._cleanup = contextlib.ExitStack()
        self.events: list[Event] = []
        """All that has happened so far. Bytes beyond `reports.SHOWN` are left out."""
        self.endpoints: Sequence[Endpoint] = ()
        """Where it listens, with the real ports."""
        self.pid = 0
        """The engine's process; its process group has the same number."""
        self._crash: str | None = None
        self._refusal: CannotCarry | None = None
        self._left: Left | None = None
        self._ready = False
        self._told: set[int] = set()
        self._over = False
        self._outcome: Outcome | None = None
        self._status: int | None = None
        self._news = threading.Condition()
        with contextlib.ExitStack() as undo:
            tmp = undo.enter_context(tempfile.TemporaryDirectory(prefix="bothends-"))
            self._errors = undo.enter_context(tempfile.TemporaryFile())
            order = Order(
                engine,
                service,
                [text.replace("{tmp}", tmp) for text in endpoints],
                limits or Limits(),
                observe,
                held,
                tls,
            )
            self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._line.close)
            with theirs:
                self.pid = NURSERY.fork(order, theirs.fileno(), self._errors.fileno())
            undo.callback(self._end)
            self._reader = threading.Thread(target=self._read, name="bothends-harness", daemon=True)
            self._reader.start()
            self._wait_until(lambda: self._ready or self._refusal or None, DEADLINE, "ready")
            if self._refusal is not None:
                raise self._refusal
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
        deadline: float = DEADLINE,
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

        event: E = self._wait_until(find, deadline, f"event {kind.__name__}")
        return event

    def seen(self, kind: type[E], predicate: Callable[[E], bool] = lambda _event: True) -> list[E]:
        """All events of this kind so far that fit: what was told before this is asked is among them."""
        with self._news:
            for _ in range(_TURNS):
                if self._over or not _has_news(self._line, 0):
                    break
                self._news.wait(_GLANCE)
            return [event for event in self.events if isinstance(event, kind) and predicate(event)]

    # What to do ----------------------------------------------------------------------------------

    def go(self) -> None:
        """Let an engine run that was made with `held`."""
        self.wait_for(lambda: all(each.state == "T" for each in self.processes()))
        os.kill(self.pid, signal.SIGCONT)

    def drain(self) -> None:
        """Tell the engine to let conversations end. Returns at once."""
        self._tell(DRAIN)

    def abort(self) -> None:
        """Tell the engine to cut everything off. Returns at once."""
        self._tell(ABORT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """While inside, the engine's processes stand still (SIGSTOP), and the kernel goes on without
        them: connections are made and queue up, bytes arrive."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            self.wait_for(lambda: all(each.state in "TZX" for each in process_info.family(self.pid)))
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    def spare_descriptors(self, spare: int) -> Callable[[], None]:
        """Let each of its processes open only `spare` more descriptors (RLIMIT_NOFILE).

        Calling what is returned takes that back.
        """
        before = {
            each.pid: process_info.spare_descriptors(each.pid, spare)
            for each in process_info.family(self.pid)
            if not each.is_zombie
        }

        def restore() -> None:
            for pid, limit in before.items():
                with contextlib.suppress(ProcessLookupError):
                    process_info.set_descriptor_limit(pid, limit)

        return restore

    def wait_exit(self, deadline: float = DEADLINE) -> Outcome:
        """Wait until the engine and all of its processes are gone.

        Raises:
            AssertionError: they are not, after `deadline` seconds.
        """
        if self._outcome is None:
            self._wait_until(lambda: self._over or None, deadline, "its end", even_after=True)
            survivors = [
                str(each)
                for each in process_info.everyone()
                # The leader may be on its way out still: its descriptors go before it does.
                if each.group == self.pid and each.pid != self.pid and not each.is_zombie
            ]
            status = self._end()
            self._outcome = Outcome(status, self._left, survivors, self.printed())
        return self._outcome

    def is_alive(self) -> bool:
        """Whether any of its processes is still there, as far as is known."""
        return self._status is None and not self._over

    # What the system says ------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        """The engine's process and all that descend from it."""
        return process_info.family(self.pid)

    def children(self) -> list[Process]:
        """Those that descend from it, zombies included."""
        return self.processes()[1:]

    def zombies(self) -> list[Process]:
        """Those of its children whose end nobody has noticed."""
        return [each for each in self.children() if each.is_zombie]

    def cpu_seconds(self) -> float:
        """Processor time that all of them have used, in steps of 10 ms."""
        return sum(each.cpu for each in self.processes())

    def cpu_over(self, seconds: float, enough: float) -> float:
        """Processor time used from now on over `seconds`; fewer if it is more than `enough` before."""
        start = self.cpu_seconds()
        until = time.monotonic() + seconds
        while (used := self.cpu_seconds() - start) <= enough and time.monotonic() < until:
            self._pause(5 * _GLANCE)
        return used

    def memory(self) -> int:
        """Bytes that all of them have in memory; what they share counts for each."""
        return sum(each.rss for each in self.processes())

    def descriptors(self) -> int:
        """How many descriptors all of them have open."""
        return sum(len(process_info.descriptors(each.pid)) for each in self.processes())

    def most_descriptors(self) -> int:
        """How many descriptors that one of them has open which has the most: what leaks shows there, however
        many processes there are by now."""
        return max((len(process_info.descriptors(each.pid)) for each in self.processes()), default=0)

    def printed(self) -> str:
        """What has been written to standard output and error."""
        size = self._errors.seek(0, os.SEEK_END)
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def settle(self) -> None:
        """Wait until no more processes are being started: those that it keeps are all there, and those of
        connections that are over are gone."""
        before: list[int] | None = None
        while before != (now := [each.pid for each in self.children()]):
            before = now
            if now:
                self._pause(10 * _GLANCE)

    def wait_for(self, condition: Callable[[], Any], deadline: float = DEADLINE) -> None:
        """Wait until `condition()` is true: for what no event tells.

        Raises:
            AssertionError: it isn't, after `deadline` seconds.
        """
        until = time.monotonic() + deadline
        while not condition():
            if time.monotonic() > until:
                raise AssertionError(f"not within {deadline:g} s; {self.describe()}")
            self._pause(_GLANCE)

    def describe(self) -> str:
        """How it stands: who is alive, what was printed, and the last events."""
        lines = [f"alive: {', '.join(map(str, self.processes())) or 'nobody'}"]
        if self._crash:
            lines.append(f"it raised:\n{self._crash}")
        if printed := self.printed():
            lines.append(f"it printed:\n{printed}")
        lines += [f"event: {event!s:.300}" for event in self.events[-12:]]
        return "\n".join(lines)

    # The inside ----------------------------------------------------------------------------------

    def _read(self) -> None:
        while True:
            _has_news(self._line, None)
            with self._news:  # from here on it is told, for whoever asks
                try:
                    report = ipc.receive(self._line)
                except OSError:
                    report = None
                if report is None:
                    self._over = True
                elif isinstance(report, Ready):
                    self.endpoints = report.endpoints
                    self._ready = True
                elif isinstance(report, Told):
                    self._told.add(report.signal)
                elif isinstance(report, Left):
                    self._left = report
                elif isinstance(report, Crashed):
                    self._crash, self._refusal = report.traceback, report.refusal
                else:
                    self.events.append(report)
                self._news.notify_all()
            if report is None:
                return

    def _wait_until(
        self, find: Callable[[], Any], deadline: float, what: str, *, even_after: bool = False
    ) -> Any:
        until = time.monotonic() + deadline
        with self._news:
            while (found := find()) is None:
                left = until - time.monotonic()
                if left <= 0 or (self._over and not even_after):
                    when = f"within {deadline:g} s" if left <= 0 else "before it ended"
                    raise AssertionError(f"{what} has not come {when}; {self.describe()}")
                self._news.wait(left)
        return found

    def _tell(self, number: int) -> None:
        """Send a signal until it has been taken.

        Python runs a handler between two steps of the main thread. A signal that comes after the last
        step before a call that blocks, or that the kernel gives to another thread, is kept until that
        call returns, which nothing may make it do; another signal does.
        """

        def insist() -> None:
            with self._news:
                while not self._news.wait_for(lambda: self._over or number in self._told, _INSIST):
                    os.kill(self.pid, number)

        os.kill(self.pid, number)
        threading.Thread(target=insist, name="bothends-insist", daemon=True).start()

    def _pause(self, seconds: float) -> None:
        """Wait, but not longer than there is something to wait for."""
        with self._news:
            if not self._over:
                self._news.wait(seconds)

    def _end(self) -> int:
        """Kill what is left, and take the exit status. Idempotent."""
        if self._status is None:
            group = [each for each in process_info.everyone() if each.group == self.pid]
            if not self._over or len(group) > 1:
                os.killpg(self.pid, signal.SIGKILL)
            with self._news:
                self._over = True  # it is told nothing any more
            # Until here the number is its own: it is not given to another before it is reaped.
            self._status = NURSERY.reap(self.pid)
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)
            self._reader.join(DEADLINE)
        return self._status


class _Nursery:
    """The process that forks, started when it is first needed. See `fork_server.py`."""

    def __init__(self) -> None:
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def fork(self, order: Order, reports: int, errors: int) -> int:
        """Run this; the process's number."""
        answer = self._ask(("fork", sys.path, pickle.dumps(order)), (reports, errors))
        if isinstance(answer, int):
            return answer
        raise AssertionError(f"{order.engine} can't be started:\n{answer}")

    def reap(self, pid: int) -> int:
        """The exit status of a process that has ended."""
        status = self._ask(("reap", pid), ())
        assert isinstance(status, int)
        return status

    def _ask(self, request: tuple[Any, ...], descriptors: Sequence[int]) -> int | str:
        with self._lock:
            line = self._line or self._start()
            socket.send_fds(line, [pickle.dumps(request)], list(descriptors))
            answer: int | str = pickle.loads(line.recv(ipc.LARGEST))
            return answer

    def _start(self) -> socket.socket:
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A descriptor that is forgotten rather than closed is to be heard of: it is printed.
        python, *module = itself("bothends.testing.fork_server")
        command = [python, "-W", "error::ResourceWarning", *module]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # ^C is for the watcher
            )
        self._line = line
        atexit.register(self._stop)
        return line

    def _stop(self) -> None:
        if self._line is not None and self._process is not None:
            self._line.close()
            self._process.wait(DEADLINE)


def _has_news(line: socket.socket, milliseconds: int | None) -> bool:
    """Whether something can be read, waited for so long (None: until it can)."""
    poller = select.poll()
    poller.register(line, select.POLLIN)
    return bool(poller.poll(milliseconds))


NURSERY: Final = _Nursery()
