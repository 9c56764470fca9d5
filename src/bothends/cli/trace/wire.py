"""`bothends trace --wire`: run the programs in hosts of a wire, and draw the wire's own packet events.

    TraceSession (main thread) ── commands, signals ──> Wire (its own thread) ── PacketEvents ──> TraceSession

The wire runs in its own thread, because forwarding must not wait for the session to process strace's output.
Packet events pass through a queue, and a pipe wakes the session.
"""

from __future__ import annotations

import collections
import contextlib
import math
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from bothends.cli import terminal
from bothends.cli.wire import add_toxic, format_hosts, link_down, parse_toxics, summary, toxic_type
from bothends.cli.wire_options import WirePath
from bothends.errors import SystemCallFailed
from bothends.osutil.wakeup import WakeupPipe
from bothends.trace.capture.packets import READ_BATCH, RawPacket, TransitEvent
from bothends.trace.capture.tracees import ProcessHandle, traced_command
from bothends.wire import HostCommand, PacketEvent, Topology, Wire, build_topology

_POLL_INTERVAL: Final = 0.005  # seconds


class TracedWire:
    """A wire as launcher and packet source of a `TraceSession`. A context manager.

    Args:
        roles: names of the programs; each gets a host.
        path: toxics and settings of the wire.

    Raises:
        Unavailable: the system forbids namespaces.
    """

    attaches = False

    def __init__(self, roles: Sequence[str], path: WirePath) -> None:
        self._hosts = [_host_name(each) for each in roles]
        commands = [HostCommand(each, ("true",), no_shell=True) for each in self._hosts]
        self._plan: Topology = replace(build_topology(commands), mtu=path.mtu)
        self._scheduled = parse_toxics(path.toxics, bidirectional_only=self._plan.shape == "loop")
        self._path = path
        self._roles = list(roles)
        self._packet_events: collections.deque[PacketEvent] = collections.deque()
        self._wakeup = WakeupPipe()
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
        started = time.monotonic()
        for text in self._path.link_downs:
            link_down(self.wire, text)
        for each in self._scheduled:
            if each.at or each.duration is not None:
                add_toxic(self.wire, each, started)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._running = False
        if self._thread.is_alive():
            self._thread.join()
        self.wire.close()
        self._wakeup.close()

    def check(self) -> None:
        """Raise the exception that has ended the wire's thread, if any."""
        if self._failure is not None:
            raise self._failure

    def summary(self) -> list[str]:
        """Return lines that count packets and faults; see `bothends.cli.wire.summary`."""
        return summary(self.wire)

    def _forward_loop(self) -> None:
        try:
            self.wire.forward(lambda: self._running)
        except Exception as error:  # any: the session must not wait for a wire that has failed
            self._failure = error
            self.wire.close()  # kills the programs in its hosts

    def _observe(self, packet_event: PacketEvent) -> None:
        was_empty = not self._packet_events
        self._packet_events.append(packet_event)
        if was_empty:
            self._wakeup.wake()

    # Packet source, see trace/capture/packets.py

    def fileno(self) -> int:
        """Return a descriptor that is readable when there are packets."""
        return self._wakeup.fileno()

    def read(self) -> list[RawPacket]:
        """Return the packets since the last call, in the wire's order."""
        self._wakeup.drain()
        return list(self._raw_packets())

    def _raw_packets(self) -> Iterator[RawPacket]:
        names = [host.name for host in self._plan.hosts]
        for _ in range(READ_BATCH):
            try:
                event = self._packet_events.popleft()
            except IndexError:
                return
            receiver = names[event.receiver] if event.receiver >= 0 else "nobody"
            transit = TransitEvent(
                event.event, (event.sender, event.receiver), event.number, receiver, toxic_type(event.toxic)
            )
            at = round(event.at * 1e9) + self._clock_offset
            yield RawPacket(at, names[event.sender], event.packet, transit)
        self._wakeup.wake()  # there are more

    def count_dropped(self) -> int:
        """Return 0, because the wire drops no packet event."""
        return 0

    def filter_ports(self, ports: Collection[int] | None) -> None:
        """Do nothing, because the wire processes every packet anyway."""

    def prepare(self, _words: Iterable[str], /) -> None:
        """Do nothing."""

    def look(self, _pids: Iterable[int], _started: Iterable[int], /) -> float:
        """Return infinity: the hosts are known."""
        return math.inf

    def has_more(self) -> bool:
        """Whether packets are still in transit. After ten seconds of draining the answer is no."""
        if not self._drain_requested:
            self._drain_requested = True
            with contextlib.suppress(SystemCallFailed):  # the wire has failed
                self.wire.start_drain()
        return self._failure is None and not self.wire.is_drained

    # Launcher, see trace/capture/tracees.py

    def start(
        self,
        role: str,
        strace: Sequence[str],
        argv: Sequence[str],
        *,
        inherit_stdin: bool,
        output: int | None,
    ) -> ProcessHandle:
        """Start a program in the host of its role."""
        host = self._roles.index(role)
        self.wire.start(host, traced_command(strace, argv), with_stdin=inherit_stdin, output=output)
        return _HostProcess(self, host)

    def signal(self, processes: Sequence[int], number: int) -> None:
        """Send a signal to processes, given by their PIDs in the wire's PID namespace."""
        if processes:
            self.signal_inside(number, processes)

    def signal_inside(self, number: int, processes: Sequence[int] = ()) -> None:
        """Send a signal to processes in the hosts, by default to all."""
        if self._failure is None:
            with contextlib.suppress(SystemCallFailed):  # they have exited
                self.wire.signal(number, processes)

    def status(self, host: int) -> int | None:
        """Return the status of a host's command, as Popen.returncode. All are killed if the wire fails."""
        status = self.wire.status(host)
        return -signal.SIGKILL if status is None and self._failure is not None else status

    def close(self) -> None:
        """Do nothing: the session has ended, and the context manager closes the wire."""


class _HostProcess:
    """The command of a host, with the interface of subprocess.Popen."""

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
        """Send a signal to all processes of all hosts, because their PIDs are unknown here."""
        self._wire.signal_inside(sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _host_name(role: str) -> str:
    return role.replace(" ", "-").replace("_", "-").replace(".", "-").lower()
