"""`bothends trace --wire`: the programs run in hosts of a wire, and the packets are the wire's own.

    Session (main thread) ── commands, signals ──> Wire (a thread of its own) ── Passages ──> Session

The wire must not wait for whoever reads the traces of programs, so it has a thread; what it sees goes through
a queue, and a pipe that wakes the reader.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final

from bothends.cli import terminal
from bothends.cli.wire import cut, planned_of, put_on, shown_hosts, summary, type_of
from bothends.cli.wire_path import WirePath
from bothends.errors import SystemRefused
from bothends.trace.capture.packets import AT_ONCE, Crossing, Raw
from bothends.trace.capture.tracees import Running
from bothends.wire import Command, Passage, Plan, Wire, plan

_LOOK: Final = 0.005  # seconds


class TracedWire:
    """A wire for a `Session`: where its programs run, and where its packets come from. Use it as a context.

    Raises Unavailable where the system forbids namespaces.
    """

    def __init__(self, roles: Sequence[str], path: WirePath) -> None:
        self._hosts = [_host_name(each) for each in roles]
        commands = [Command(each, ("true",), plain=True) for each in self._hosts]
        self._plan: Plan = replace(plan(commands), mtu=path.mtu)
        self._planned = planned_of(path.toxics, both=self._plan.shape == "loop")
        self._path = path
        self._roles = list(roles)
        self._seen: collections.deque[Passage] = collections.deque()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._offset = time.time_ns() - time.monotonic_ns()
        self._going = True
        self._asked_to_drain = False
        self._failed: Exception | None = None
        specs = [each.spec for each in self._planned if not each.at and each.lasts is None]
        self.wire = Wire(
            self._plan, specs, seed=path.seed, icmp=path.icmp, observe=self._observe, tell=terminal.note
        )
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)

    def __enter__(self) -> TracedWire:
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        self.wire.open()
        terminal.note(f"wire  {', '.join(shown_hosts(self._plan))}; seed {self._path.seed}", "")
        begun = time.monotonic()
        for text in self._path.cuts:
            cut(self.wire, text)
        for each in self._planned:
            if each.at or each.lasts is not None:
                put_on(self.wire, each, begun)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._going = False
        if self._thread.is_alive():
            self._thread.join()
        self.wire.close()
        os.close(self._reader)
        os.close(self._writer)

    def check(self) -> None:
        """Raises what has ended the wire before its time."""
        if self._failed is not None:
            raise self._failed

    def summary(self) -> list[str]:
        """What became of the packets, in lines."""
        return summary(self.wire)

    def _carry(self) -> None:
        try:
            self.wire.carry(lambda: self._going)
        except Exception as error:  # whatever it was: the session must not wait for a wire that has gone
            self._failed = error
            self.wire.close()  # and with it all that runs in its hosts

    def _observe(self, passage: Passage) -> None:
        was_empty = not self._seen
        self._seen.append(passage)
        if was_empty:
            with contextlib.suppress(BlockingIOError):  # it will be read anyway
                os.write(self._writer, b".")

    # A source of packets: trace/capture/packets.py

    def fileno(self) -> int:
        """Readable when there are packets."""
        return self._reader

    def read(self) -> list[Raw]:
        """What the wire has seen since, in its order."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        return list(self._raws())

    def _raws(self) -> Iterator[Raw]:
        names = [host.name for host in self._plan.hosts]
        for _ in range(AT_ONCE):
            try:
                passage = self._seen.popleft()
            except IndexError:
                return
            reaches = names[passage.receiver] if passage.receiver >= 0 else "nobody"
            crossing = Crossing(
                passage.event,
                (passage.sender, passage.receiver),
                passage.number,
                reaches,
                type_of(passage.toxic),
            )
            at = round(passage.at * 1e9) + self._offset
            yield Raw(at, names[passage.sender], passage.packet, crossing)
        os.write(self._writer, b".")  # there are more

    def count_dropped(self) -> int:
        """None are."""
        return 0

    def narrow(self, ports: Collection[int] | None) -> None:
        """It would save nothing: each is carried anyway."""

    def has_more(self) -> bool:
        """Whether something that was sent has not arrived yet, for ten seconds at most."""
        if not self._asked_to_drain:
            self._asked_to_drain = True
            with contextlib.suppress(SystemRefused):  # then the wire has failed
                self.wire.drain()
        return self._failed is None and not self.wire.is_drained

    # Where programs run: trace/capture/tracees.py

    def start(self, role: str, words: Sequence[str], *, keyboard: bool, output: int | None) -> Running:
        """Run a command line in the host of a role."""
        host = self._roles.index(role)
        self.wire.start(host, words, keyboard=keyboard, output=output)
        return _InHost(self, host)

    def signal(self, processes: Sequence[int], number: int) -> None:
        """Signal processes by the numbers that they have in the wire's hosts."""
        if processes:
            self.signal_inside(number, processes)

    def signal_inside(self, number: int, processes: Sequence[int] = ()) -> None:
        """Signal processes, all of them by default, if any are left."""
        if self._failed is None:
            with contextlib.suppress(SystemRefused):  # then they are gone
                self.wire.signal(number, processes)

    def status(self, host: int) -> int | None:
        """What a host's command has left with, as Popen.returncode has it. With the wire all have ended."""
        status = self.wire.status(host)
        return -signal.SIGKILL if status is None and self._failed is not None else status

    def close(self) -> None:
        """The session needs no more packets. The wire ends with the context."""


class _InHost:
    """The command of a host, with the face of subprocess.Popen."""

    def __init__(self, wire: TracedWire, host: int) -> None:
        self._wire = wire
        self._host = host

    @property
    def returncode(self) -> int | None:
        return self._wire.status(self._host)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + timeout if timeout is not None else None
        while (status := self.returncode) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self._wire.wire.plan.hosts[self._host].name, timeout or 0)
            time.sleep(_LOOK)
        return status

    def send_signal(self, sig: int) -> None:
        """It can't be told from what it runs: all are signalled."""
        self._wire.signal_inside(sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _host_name(role: str) -> str:
    return role.replace(" ", "-").replace("_", "-").replace(".", "-").lower()
