"""A run: programs and packets observed at once, put into one order, and told to whoever draws or saves.

    strace of each program ──> Reader ─┐
                                       ├─> Matcher ──> Timeline ──> tell(moment)
    AF_PACKET ──────────────> Capture ─┘

1. strace writes that a call begins before the kernel does anything for it (`strace.py`, fact 2). So whatever
   caused a packet stands in a pipe by the time that the packet exists: packets are read first and the pipes
   after them, and no packet is ever put in order before its cause is known.
2. Moments are told up to the time at which the packets were read, less `MARGIN`: strace is late by some
   milliseconds where a machine is busy, which breaks no cause but would let lanes jump.
3. A server is ready when its own calls say so: listen(), or bind() of a socket for datagrams.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Final

from bothends.osutil.reaper import Reaper
from bothends.trace.capture.calls import CallDecoder
from bothends.trace.capture.descriptors import SocketRegistry
from bothends.trace.capture.packets import READ_BATCH, PacketSource, RawPacket
from bothends.trace.capture.tracees import LOCAL_LAUNCHER, ProgramLauncher, TracedProgram
from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.timeline import FOREVER, Timeline
from bothends.trace.correlation.transit import TransitTracker
from bothends.trace.model import Call, Packet, Point, SocketAddress, Trace, referenced_ids

ORDER_MARGIN: Final = 30_000_000  # nanoseconds
QUIET_PERIOD: Final = 0.3  # seconds without an event after the last client: what was on its way has come
LINGER_TIMEOUT: Final = 2.0  # seconds, even if events go on
EXIT_TIMEOUT: Final = 2.0  # seconds that a program has to end when it is asked to
INTERRUPT_TIMEOUT: Final = 0.5  # seconds that it has when ^C has reached it too
DROP_CHECK_INTERVAL: Final = 0.1  # seconds between looks at how many packets were lost
MAX_FILTER_PORTS: Final = 100  # a filter of the kernel has room for some more
_POLL_INTERVAL: Final = 0.05  # seconds: how long a moment may wait to be told


class TraceSession:
    """Runs programs and observes them until they end or until told to stop.

    Args:
        tell: called for each moment, in an order in which cause comes before effect.
        idle: called when nothing more is to be told for now.
        trace: gets everything; a new one by default.
        place: says whose sockets a packet goes between, where no program is traced that would.
        starter: starts programs; here, by default.
    """

    def __init__(
        self,
        on_point: Callable[[Point], None],
        *,
        on_idle: Callable[[], None] = lambda: None,
        trace: Trace | None = None,
        assign_sockets: Callable[[Packet], None] | None = None,
        launcher: ProgramLauncher = LOCAL_LAUNCHER,
    ) -> None:
        self.trace = trace if trace is not None else Trace()
        self._assign_sockets = assign_sockets if assign_sockets is not None else self._assign_sockets_by_calls
        self.stopped_by: signal.Signals | None = None
        self._event_numbers = itertools.count(1)
        self._on_point = on_point
        self._on_idle = on_idle
        self.capture: PacketSource | None = None  # packets; calls alone without
        self._launcher = launcher
        self._transit = TransitTracker()
        self._sockets = SocketRegistry()
        self._timeline = Timeline()
        self._correlator = Correlator(self.trace, self._timeline)
        self._programs: list[TracedProgram] = []
        self._servers: list[TracedProgram] = []
        self._clients: list[TracedProgram] = []
        self._idle_reported = True
        self._filtered_ports: frozenset[int] | None = None
        self._next_drop_check = 0.0
        self._waiting_for_servers = False
        self._clients_ended_at = FOREVER
        self._last_event = time.monotonic()
        self._reaper = Reaper()
        self._wakeup_r, self._wakeup_w = os.pipe()
        os.set_blocking(self._wakeup_w, False)

    def add_server(self, role: str, argv: Sequence[str], *, output: int | None = None) -> TracedProgram:
        """Add a server: it begins at once, and ends when the last client has."""
        program = self._add_program(role, argv, output=output)
        self._servers.append(program)
        return program

    def add_client(
        self, role: str, argv: Sequence[str], *, inherit_stdin: bool, output: int | None = None
    ) -> TracedProgram:
        """Add a client: it begins when every server is ready."""
        program = self._add_program(role, argv, inherit_stdin=inherit_stdin, output=output)
        self._clients.append(program)
        return program

    def attach(self, role: str, pid: int) -> TracedProgram:
        """Add a process that runs already. It is let go at the end, and never signalled."""
        program = self._add_program(role, (), pid=pid)
        self._clients.append(program)
        return program

    def watch(self, address: SocketAddress) -> None:
        """Packets of this place matter, whoever sends them."""
        self._correlator.watch(address)

    def _add_program(
        self,
        role: str,
        argv: Sequence[str],
        *,
        pid: int | None = None,
        inherit_stdin: bool = False,
        output: int | None = None,
    ) -> TracedProgram:
        import shlex

        reader = CallDecoder(self.trace, self._sockets, self._event_numbers, role, shlex.join(argv))
        program = TracedProgram(
            role, argv, reader, pid=pid, inherit_stdin=inherit_stdin, output=output, launcher=self._launcher
        )
        self._programs.append(program)
        return program

    @property
    def roles(self) -> list[str]:
        """The names of the programs, in the order in which they were added."""
        return [each.role for each in self._programs]

    def take_unfinished_line(self) -> bool:
        """Whether a program has left an unfinished line on the terminal, a prompt for example. Asked once,
        it is taken to be ended.
        """
        unfinished = any(each.decoder.unfinished_line for each in self._programs)
        for each in self._programs:
            each.decoder.unfinished_line = False
        return unfinished

    @property
    def unparsed_lines(self) -> list[str]:
        """The first lines of strace that could not be read."""
        return [line for each in self._programs for line in each.parser.unparsed_samples]

    @property
    def servers_exited_early(self) -> list[str]:
        """The servers that ended before they were ready, so that no client was started."""
        return [each.role for each in self._servers if each.has_ended and not each.is_ready]

    @property
    def exit_statuses(self) -> dict[str, int | None]:
        """What each program left with, as Popen.returncode has it; None for one that was not started."""
        return {each.role: each.status for each in self._programs}

    def run(self) -> None:
        """Observe until all clients have ended (all programs, if there are no clients), or a signal comes.

        Nothing that was started is running afterwards.

        Raises:
            Unavailable: strace can't be run.
        """
        self._correlator.has_packets = self.capture is not None
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._reaper)
            stack.callback(self._close)
            stack.enter_context(self._handle_signals())
            for server in self._servers:
                self._start(server)
            self._waiting_for_servers = bool(self._servers)
            if not self._servers:
                self._start_clients()
            while self._should_continue():
                self._poll_once(_POLL_INTERVAL)
            self._shut_down()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the run. Safe in a signal handler."""
        if self.stopped_by is not None:
            for program in self._programs:
                program.signal(signal.SIGKILL)
        self.stopped_by = number
        self._waiting_for_servers = False
        with contextlib.suppress(BlockingIOError):
            os.write(self._wakeup_w, b".")

    def _should_continue(self) -> bool:
        if self.stopped_by is not None:
            return False
        if self._waiting_for_servers:
            return all(each.is_running for each in self._servers)  # else one left before it was ready
        if self._clients:
            return any(each.is_running for each in self._clients)
        return not self._programs or any(each.is_running for each in self._programs)

    def _start_clients(self) -> None:
        places = [each.listener.local for each in self._servers if each.listener and each.listener.local]
        for client in self._clients:
            if places and places[0].port:
                client.argv = [word.replace("{port}", str(places[0].port)) for word in client.argv]
            self._start(client)

    def _start(self, program: TracedProgram) -> None:
        for moment in program.start():
            self._correlator.add(moment)
        if program.strace_pid is not None:
            self._reaper.kill_tracees(program.strace_pid, program.fileno(), attached=program.pid is not None)

    def _poll_once(self, timeout: float) -> None:
        """Wait for news, take them in, and tell what can be told."""
        poller = select.poll()
        poller.register(self._wakeup_r, select.POLLIN)
        running = [each for each in self._programs if each.is_running]
        for each in running:
            poller.register(each, select.POLLIN)
        if self.capture is not None:
            poller.register(self.capture, select.POLLIN)
        ready = poller.poll(timeout * 1000)
        until = time.time_ns() - ORDER_MARGIN
        raws = self.capture.read() if self.capture is not None else []
        if len(raws) >= READ_BATCH:
            until = min(until, raws[-1].at)  # there are more
        for program in running:
            for moment in program.read():
                self._last_event = time.monotonic()
                self._update_readiness(program, moment)
                self._correlator.add(moment)
        for raw in raws:
            self._on_packet(raw)
        self._emit_until(until)
        self._filter_ports_if_dropping()
        if not ready and not self._idle_reported:
            self._idle_reported = True
            self._on_idle()
        if self._waiting_for_servers and all(each.is_ready for each in self._servers):
            self._waiting_for_servers = False
            self._start_clients()

    def _filter_ports_if_dropping(self) -> None:
        """Where packets were lost, everybody's can't be looked at: from then on only those of known ports."""
        if self.capture is None or time.monotonic() < self._next_drop_check:
            return
        self._next_drop_check = time.monotonic() + DROP_CHECK_INTERVAL
        ports = self._correlator.ports
        if self._filtered_ports is None and not self.capture.count_dropped():
            return
        if 0 < len(ports) <= MAX_FILTER_PORTS and ports != self._filtered_ports:
            self._filtered_ports = ports
            self.capture.filter_ports(sorted(ports))

    def _on_packet(self, raw: RawPacket) -> None:
        ports = raw.ports
        if ports is not None and not self._correlator.may_be_relevant(*ports):
            return
        packet = raw.packet(0)
        if packet is None or not self._correlator.is_relevant(packet):
            return
        packet.number = next(self._event_numbers)
        self._last_event = time.monotonic()
        if raw.transit is None:
            self._correlator.add(Point(packet))
            return
        self._correlator.has_transit_times = True
        for moment in self._transit.track(raw, raw.transit, packet):
            self._correlator.add(moment)

    def _emit_until(self, until: int) -> None:
        for moment in self._timeline.pop_ready(until):
            if moment.at > self._clients_ended_at:
                continue  # how a server ends that we have killed is our doing, not its own
            self._idle_reported = False
            if isinstance(moment.event, Packet):
                self._assign_sockets(moment.event)
            self.trace.add(moment)
            self._on_point(moment)
        if self.trace.needs_pruning:
            self._prune()

    def _prune(self) -> None:
        """Let go of sockets that nobody holds any more and of processes that have ended, long ago."""
        readers = [each.decoder for each in self._programs]
        held, running = referenced_ids(self._timeline.pending())
        self.trace.prune(
            held.union(*(each.referenced_sockets for each in readers)),
            running.union(*(each.live_processes for each in readers)),
        )
        self._sockets.retain(self.trace.sockets)
        self._correlator.prune()

    def _assign_sockets_by_calls(self, packet: Packet) -> None:
        sender, receiver = self._correlator.sockets_of(packet)
        packet.sender = sender.number if sender else None
        packet.receiver = receiver.number if receiver else None

    def _update_readiness(self, program: TracedProgram, point: Point) -> None:
        call = point.event
        if program.is_ready or not isinstance(call, Call) or call.failed:
            return
        socket = self.trace.sockets.get(call.socket or 0)
        if socket is None or socket.family not in ("inet", "inet6", "unix"):
            return
        if point.is_end and call.name == ("bind" if socket.kind == "datagram" else "listen"):
            program.listener = socket
        # Which port the system has picked shows with the next call.
        known = program.listener.local if program.listener is not None else None
        program.is_ready = known is not None and known.port != 0

    def _shut_down(self) -> None:
        """The clients have ended, or a signal came: wait for what is on its way, then end the servers."""
        if self.stopped_by is None:
            self._drain_capture()
            self._poll_until_quiet(LINGER_TIMEOUT)
        else:
            self._terminate(self._clients, signal.SIGTERM if self.stopped_by != signal.SIGINT else None)
        if self.stopped_by is None and any(each.is_running for each in self._servers):
            self._clients_ended_at = time.time_ns()
        self._terminate(self._servers, signal.SIGTERM)
        self._drain_capture()
        self._poll_until_quiet(QUIET_PERIOD)
        self._emit_until(FOREVER)
        self._on_idle()

    def _drain_capture(self) -> None:
        """Everybody's packets come in one row: ours may be behind many others."""
        while self.capture is not None and self.capture.has_more() and self.stopped_by is None:
            self._poll_once(_POLL_INTERVAL)

    def _poll_until_quiet(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while (now := time.monotonic()) < deadline and now - self._last_event < QUIET_PERIOD:
            self._poll_once(_POLL_INTERVAL)

    def _terminate(self, programs: Sequence[TracedProgram], number: signal.Signals | None) -> None:
        """Ask, wait a little, and end by force. Without a signal: the terminal has asked them already."""
        for each in programs:
            if number is not None or each.pid is not None:  # what we attached to is let go, at once
                each.signal(number or signal.SIGTERM)
        asked = number is not None
        deadline = time.monotonic() + (EXIT_TIMEOUT if asked else INTERRUPT_TIMEOUT)
        while any(each.is_running for each in programs):
            if time.monotonic() > deadline:
                for each in programs:
                    each.signal(signal.SIGKILL if asked else signal.SIGTERM)
                asked, deadline = True, time.monotonic() + EXIT_TIMEOUT
            self._poll_once(_POLL_INTERVAL)

    @contextlib.contextmanager
    def _handle_signals(self) -> Iterator[None]:
        def heed(number: int, _: FrameType | None) -> None:
            self.stop(signal.Signals(number))

        before = {each: signal.signal(each, heed) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _close(self) -> None:
        for program in self._programs:
            if program.was_strace_killed:
                self.trace.notes.append(f"strace of {program.role} was killed; what it traced was ended too")
            program.close()
        if self.capture is not None:
            dropped = self.capture.count_dropped()
            self.capture.close()
            if dropped:
                self.trace.notes.append(f"{dropped:,} packets came faster than they could be read")
        unknown = sum(each.parser.unparsed_count for each in self._programs)
        if unknown:
            lines = "1 line" if unknown == 1 else f"{unknown} lines"
            self.trace.notes.append(f"{lines} of strace could not be read")
        os.close(self._wakeup_r)
        os.close(self._wakeup_w)
