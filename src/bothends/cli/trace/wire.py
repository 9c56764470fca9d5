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
from bothends.cli.wire import add_toxic, format_hosts, link_down, parse_toxics, summary, toxic_type
from bothends.cli.wire_options import WirePath
from bothends.errors import SystemCallFailed
from bothends.trace.capture.packets import READ_BATCH, RawPacket, TransitEvent
from bothends.trace.capture.tracees import ProcessHandle
from bothends.wire import HostCommand, PacketEvent, Topology, Wire, build_topology

_POLL_INTERVAL: Final = 0.005  # seconds


class TracedWire:
    """A wire for a `Session`: where its programs run, and where its packets come from. Use it as a context.

    Raises Unavailable where the system forbids namespaces.
    """

    def __init__(self, roles: Sequence[str], path: WirePath) -> None:
        self._hosts = [_host_name(each) for each in roles]
        commands = [HostCommand(each, ("true",), no_shell=True) for each in self._hosts]
        self._plan: Topology = replace(build_topology(commands), mtu=path.mtu)
        self._scheduled = parse_toxics(path.toxics, bidirectional_only=self._plan.shape == "loop")
        self._path = path
        self._roles = list(roles)
        self._packet_events: collections.deque[PacketEvent] = collections.deque()
        self._wakeup_r, self._wakeup_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._clock_offset = time.time_ns() - time.monotonic_ns()
        self._running = True
        self._drain_requested = False
        self._failure: Exception | None = None
        specs = [each.placed for each in self._scheduled if not each.at and each.duration is None]
        self.wire = Wire(
            self._plan, specs, seed=path.seed, icmp=path.icmp, observe=self._observe, notify=terminal.note
        )
        self._thread = threading.Thread(target=self._forward_loop, name="wire", daemon=True)

    def __enter__(self) -> TracedWire:
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        self.wire.open()
        terminal.note(f"wire  {', '.join(format_hosts(self._plan))}; seed {self._path.seed}", "")
        begun = time.monotonic()
        for text in self._path.link_downs:
            link_down(self.wire, text)
        for each in self._scheduled:
            if each.at or each.duration is not None:
                add_toxic(self.wire, each, begun)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._running = False
        if self._thread.is_alive():
            self._thread.join()
        self.wire.close()
        os.close(self._wakeup_r)
        os.close(self._wakeup_w)

    def check(self) -> None:
        """Raises what has ended the wire before its time."""
        if self._failure is not None:
            raise self._failure

    def summary(self) -> list[str]:
        """What became of the packets, in lines."""
        return summary(self.wire)

    def _forward_loop(self) -> None:
        try:
            self.wire.forward(lambda: self._running)
        except Exception as error:  # whatever it was: the session must not wait for a wire that has gone
            self._failure = error
            self.wire.close()  # and with it all that runs in its hosts

    def _observe(self, packet_event: PacketEvent) -> None:
        was_empty = not self._packet_events
        self._packet_events.append(packet_event)
        if was_empty:
            with contextlib.suppress(BlockingIOError):  # it will be read anyway
                os.write(self._wakeup_w, b".")

    # A source of packets: trace/capture/packets.py

    def fileno(self) -> int:
        """Readable when there are packets."""
        return self._wakeup_r

    def read(self) -> list[RawPacket]:
        """What the wire has seen since, in its order."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup_r, 4096)
        return list(self._raw_packets())

    def _raw_packets(self) -> Iterator[RawPacket]:
        names = [host.name for host in self._plan.hosts]
        for _ in range(READ_BATCH):
            try:
                passage = self._packet_events.popleft()
            except IndexError:
                return
            reaches = names[passage.receiver] if passage.receiver >= 0 else "nobody"
            crossing = TransitEvent(
                passage.event,
                (passage.sender, passage.receiver),
                passage.number,
                reaches,
                toxic_type(passage.toxic),
            )
            at = round(passage.at * 1e9) + self._clock_offset
            yield RawPacket(at, names[passage.sender], passage.packet, crossing)
        os.write(self._wakeup_w, b".")  # there are more

    def count_dropped(self) -> int:
        """None are."""
        return 0

    def filter_ports(self, ports: Collection[int] | None) -> None:
        """It would save nothing: each is carried anyway."""

    def has_more(self) -> bool:
        """Whether something that was sent has not arrived yet, for ten seconds at most."""
        if not self._drain_requested:
            self._drain_requested = True
            with contextlib.suppress(SystemCallFailed):  # then the wire has failed
                self.wire.start_drain()
        return self._failure is None and not self.wire.is_drained

    # Where programs run: trace/capture/tracees.py

    def start(
        self, role: str, argv: Sequence[str], *, inherit_stdin: bool, output: int | None
    ) -> ProcessHandle:
        """Run a command line in the host of a role."""
        host = self._roles.index(role)
        self.wire.start(host, argv, with_stdin=inherit_stdin, output=output)
        return _HostProcess(self, host)

    def signal(self, processes: Sequence[int], number: int) -> None:
        """Signal processes by the numbers that they have in the wire's hosts."""
        if processes:
            self.signal_inside(number, processes)

    def signal_inside(self, number: int, processes: Sequence[int] = ()) -> None:
        """Signal processes, all of them by default, if any are left."""
        if self._failure is None:
            with contextlib.suppress(SystemCallFailed):  # then they are gone
                self.wire.signal(number, processes)

    def status(self, host: int) -> int | None:
        """What a host's command has left with, as Popen.returncode has it. With the wire all have ended."""
        status = self.wire.status(host)
        return -signal.SIGKILL if status is None and self._failure is not None else status

    def close(self) -> None:
        """The session needs no more packets. The wire ends with the context."""


class _HostProcess:
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
                raise subprocess.TimeoutExpired(self._wire.wire.topology.hosts[self._host].name, timeout or 0)
            time.sleep(_POLL_INTERVAL)
        return status

    def send_signal(self, sig: int) -> None:
        """It can't be told from what it runs: all are signalled."""
        self._wire.signal_inside(sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _host_name(role: str) -> str:
    return role.replace(" ", "-").replace("_", "-").replace(".", "-").lower()
