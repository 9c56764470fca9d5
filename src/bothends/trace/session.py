"""Run a trace: observe programs and packets at the same time, and emit their events in one order.

    strace of each program ──> CallDecoder ─┐
                                            ├─> TraceAnalysis ──> on_point(point)
    AF_PACKET ───────────────> Capture ─────┤
    tracefs ────────────> KernelTracer ─────┘

1. strace writes the start of a call before the kernel executes it (`strace.py`, fact 2). So by the time a
   packet exists, the call that caused it is in strace's pipe. Packets are read first and the pipes after
   them: then the cause of every packet is known when the packet is added to the timeline. If a pipe holds
   more than is read at once, packets later than the last line read are held.
2. Points are emitted up to the time at which the packets were read, minus `ORDER_MARGIN`. On a busy machine
   strace is some milliseconds late. Causes precede effects anyway, but without the margin the times of lanes
   would not be sorted.
3. A server is ready when its own calls show it: listen(), or bind() of a datagram socket.
4. Before anything is ended, the trace is frozen (`Trace.frozen_at`): what follows is caused by bothends, not
   by the programs. ^C reaches a client at the same instant, so the trace is frozen at the first call that
   SIGINT interrupted. Whenever nothing moves, a snapshot shows what threads are blocked in.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Final

from bothends.osutil.event_loop import IN, EventLoop
from bothends.osutil.reaper import Reaper
from bothends.trace.analysis import MAX_KERNEL_EVENTS, TraceAnalysis
from bothends.trace.capture.blocked_threads import MAX_THREADS, ThreadSnapshot, read_thread
from bothends.trace.capture.bpf import BpfProgram, BpfSource, FollowedProcesses
from bothends.trace.capture.kernel_counters import CounterDifference
from bothends.trace.capture.kernel_events import KernelEventSource
from bothends.trace.capture.packets import READ_BATCH, PacketSource, RawPacket
from bothends.trace.capture.tracees import LOCAL_LAUNCHER, LocalLauncher, ProgramLauncher, TracedProgram
from bothends.trace.correlation.timeline import FOREVER
from bothends.trace.load import AnalysisLoad
from bothends.trace.model import (
    Call,
    KernelEvent,
    Packet,
    Point,
    ProcessEvent,
    SocketAddress,
    Trace,
)
from bothends.trace.run_file import MAX_SOURCE
from bothends.trace.source_blocks import ProgramRecorder, SourceReader, SourceRecorder
from bothends.trace.startup import StartupWait
from bothends.trace.tls_observer import TlsObserver

ORDER_MARGIN: Final = 30_000_000  # nanoseconds
QUIET_PERIOD: Final = (
    0.3  # seconds without an event after the last client's exit, to let packets in transit arrive
)
LINGER_TIMEOUT: Final = 2.0  # seconds after the last client's exit, even if there are still events
EXIT_TIMEOUT: Final = 2.0  # seconds between SIGTERM and SIGKILL
INTERRUPT_TIMEOUT: Final = 0.5  # seconds for a program that ^C has reached too, before SIGTERM
DROP_CHECK_INTERVAL: Final = 0.1  # seconds between checks for dropped packets
OTHER_KERNEL_EVENTS: Final = 2_000  # of other programs, after which the kernel filters by port
MAX_FILTER_PORTS: Final = 100  # somewhat fewer than a BPF program has room for
SERVER_TIMEOUT: Final = (
    10.0  # seconds without an event, after which clients start though a server does not listen (`startup`)
)
STALL_SECONDS: Final = 3.0  # without an event, while a call on a socket is blocked: probably a hang
_SNAPSHOT_ATTEMPTS: Final = 3  # a thread that sleeps in a loop may be awake just then
_SNAPSHOT_PAUSE: Final = 0.01  # seconds
_SNAPSHOT_DELAY: Final = 0.2  # seconds without an event, after which the blocked calls are read
_FREEZE_MARGIN: Final = 20_000_000  # nanoseconds from ^C to its handler; less than ORDER_MARGIN
_READ_BYTES: Final = 1 << 18  # of lines of each program at once: fewer calls than a stream remembers
_RECORD_INTERVAL: Final = 0.005  # seconds between two reads, while the programs are only recorded
_POLL_INTERVAL: Final = 0.05  # seconds after which points are emitted although there is no new data


class TraceSession:
    """Runs programs and traces them until they exit, or until `stop` is called.

    Args:
        on_point: called for each point, in an order in which a cause precedes its effects.
        on_idle: called when there are no more points for now.
        trace: where everything is added; a new one by default.
        assign_sockets: sets the sockets of a packet; from the traced calls by default.
        launcher: starts programs; on this machine by default.
        bpf: the source of calls; strace by default. With it, programs start on this machine.
        on_stall: called when nothing has moved for `STALL_SECONDS` while a call on a socket is blocked, once
            until something moves; and at each SIGQUIT, with True. `trace.blocked` is up to date then.
        time_limit: seconds after which the run is ended, without those that servers wait for a processor
            before they listen; None for no limit.
        collect: seconds for which input is collected before it is read: to be woken up by each line of strace
            takes more processor time than to read it.
    """

    def __init__(
        self,
        on_point: Callable[[Point], None],
        *,
        on_idle: Callable[[], None] = lambda: None,
        trace: Trace | None = None,
        assign_sockets: Callable[[Packet], None] | None = None,
        launcher: ProgramLauncher = LOCAL_LAUNCHER,
        bpf: BpfSource | None = None,
        on_stall: Callable[[bool], None] = lambda _: None,
        time_limit: float | None = None,
        collect: float = 0.0,
    ) -> None:
        self._collect = collect
        self.trace = trace if trace is not None else Trace()
        self.analysis = TraceAnalysis(self.trace, on_point, assign_sockets)
        self.stopped_by: signal.Signals | None = None
        self.reached_time_limit = False
        self._on_stall = on_stall
        self._time_limit = time_limit
        self._deadline = float("inf")
        self._stall_reported = False
        self._report_requested = False
        self._snapshot: dict[int, ThreadSnapshot] = {}  # by thread
        self._undrawn: dict[int, Call] = {}  # calls that were blocked and are not on the timeline, by thread
        self._snapshot_at = 0
        self._snapshot_event = 0.0  # `_last_event` when the snapshot was taken
        self._is_snapshot_last = False  # nothing has moved between it and ^C
        self._on_idle = on_idle
        self.capture: PacketSource | None = None  # the source of packets; None: trace calls only
        self.kernel: KernelEventSource | None = None  # the source of the kernel's reasons; None: without
        self.recorder: SourceRecorder | None = None  # records what the sources report; None: nothing does
        self.records_only = False  # the programs are too fast: the rest of the run is recorded, not analysed
        self.on_record_only: Callable[[], None] = lambda: None  # called when it becomes True
        # Called when it may become False again, with the number of recorded lines and packets. Returns what
        # has analysed all of them, or None.
        self.on_calm: Callable[[int], SourceReader | None] = lambda _: None
        self.on_much_recorded: Callable[[], None] = lambda: None  # called when recording ends: it kept up
        self._load = AnalysisLoad()
        self._recorded = self._bytes_read = 0  # lines and packets, and their bytes, up to the last turn
        self._notes: list[str] = []  # about the run, which a recording has, too
        self.tls: TlsObserver | None = None  # of TLS in plain text, set before programs are added
        self._launcher = launcher
        self._bpf = bpf
        self._started: list[int] = []  # processes that have started another program since the last look
        self._packets_since = 0
        self._held_packets: deque[RawPacket] = deque()  # later than the calls that are known
        self._programs: list[TracedProgram] = []
        self._servers: list[TracedProgram] = []
        self._clients: list[TracedProgram] = []
        self._idle_reported = True
        self._filtered_ports: frozenset[int] | None = None
        self._next_drop_check = 0.0
        self._waiting_for_servers = False
        self._startup = StartupWait(SERVER_TIMEOUT, time.monotonic())
        self._last_event = time.monotonic()
        self._reaper = Reaper()
        self._loop = EventLoop()
        self._has_input = False  # whether a descriptor was ready in this iteration

    def add_server(self, role: str, argv: Sequence[str], *, output: int | None = None) -> TracedProgram:
        """Add a server. It is started first, and terminated when the last client has exited."""
        program = self._add_program(role, argv, output=output)
        self._servers.append(program)
        return program

    def add_client(
        self, role: str, argv: Sequence[str], *, inherit_stdin: bool, output: int | None = None
    ) -> TracedProgram:
        """Add a client. It is started when all servers are ready."""
        program = self._add_program(role, argv, inherit_stdin=inherit_stdin, output=output)
        self._clients.append(program)
        return program

    def attach(self, role: str, pid: int) -> TracedProgram:
        """Add a running process. At the end strace detaches from it; it is never signalled."""
        program = self._add_program(role, (), pid=pid)
        self._clients.append(program)
        return program

    def follow(self, role: str, followed: FollowedProcesses) -> TracedProgram:
        """Add processes that run already. It needs eBPF; they are neither stopped nor signalled."""
        program = self._add_program(role, (), followed=followed)
        self._clients.append(program)
        return program

    def watch(self, address: SocketAddress) -> None:
        """Trace all packets from and to an address."""
        self.analysis.correlator.watch(address)

    def _add_program(
        self,
        role: str,
        argv: Sequence[str],
        *,
        pid: int | None = None,
        inherit_stdin: bool = False,
        output: int | None = None,
        followed: FollowedProcesses | None = None,
    ) -> TracedProgram:
        decoder = self.analysis.add_decoder(role, shlex.join(argv))
        variables = self.tls.variables if self.tls is not None else {}
        if self._bpf is not None:
            program: TracedProgram = BpfProgram(
                self._bpf,
                role,
                argv,
                decoder,
                pid=pid,
                inherit_stdin=inherit_stdin,
                output=output,
                followed=followed,
                variables=variables,
            )
        else:
            program = TracedProgram(
                role,
                argv,
                decoder,
                pid=pid,
                inherit_stdin=inherit_stdin,
                output=output,
                launcher=LocalLauncher(variables) if variables else self._launcher,
            )
        self._programs.append(program)
        return program

    @property
    def roles(self) -> list[str]:
        """The names of the programs, in the order in which they were added."""
        return [each.role for each in self._programs if each.has_own_lane]

    def take_unfinished_line(self) -> bool:
        """Return whether a program has left an unfinished line on the terminal, for example a prompt.

        The caller must end the line: the next call returns False.
        """
        unfinished = any(each.decoder.unfinished_line for each in self._programs)
        for each in self._programs:
            each.decoder.unfinished_line = False
        return unfinished

    @property
    def unparsed_lines(self) -> list[str]:
        """The first lines of strace that could not be parsed."""
        return [line for each in self._programs for line in each.parser.unparsed_samples]

    @property
    def servers_exited_early(self) -> list[str]:
        """The servers that exited before they were ready, so that no client was started."""
        return [each.role for each in self._servers if each.has_ended and not each.is_ready]

    @property
    def exit_statuses(self) -> dict[str, int | None]:
        """The exit status of each program, as in Popen.returncode; None for one that was not started."""
        return {each.role: each.status for each in self._programs}

    @property
    def programs_without_sockets(self) -> list[str]:
        """The programs that were started and made no call on a socket that the diagram shows."""
        started = [each for each in self._programs if each.has_ended and not each.is_attached]
        return [each.role for each in started if not each.decoder.uses_sockets]

    @property
    def failed_attachments(self) -> list[int]:
        """The pids of the processes to which strace could not attach."""
        return [each.pid for each in self._programs if each.pid is not None and each.has_failed_to_attach]

    def run(self) -> None:
        """Trace until all clients (or, without clients, all programs) have exited, or a signal is received.

        All started programs have been terminated when it returns.

        Raises:
            Unavailable: strace cannot be run.
        """
        self.analysis.correlator.has_packets = self.capture is not None
        with contextlib.ExitStack() as stack:
            self._begin_recording()
            stack.enter_context(self._reaper)
            stack.callback(self._close)
            stack.enter_context(self._handle_signals())
            if self.capture is not None:
                self._loop.watch(self.capture.fileno(), IN, self._on_input)
            if self.tls is not None:
                self.tls.begin(self.trace)
                if self.tls.has_source:
                    self._loop.watch(self.tls.fileno(), IN, self._on_input)
            for server in self._servers:
                self._start(server)
            limit = SERVER_TIMEOUT if self._time_limit is None else min(SERVER_TIMEOUT, self._time_limit / 2)
            self._startup = StartupWait(limit, time.monotonic())
            self._waiting_for_servers = bool(self._servers)
            if not self._servers:
                self._start_clients()
            if self._bpf is not None and all(each.is_attached for each in self._programs):
                self._packets_since = self._bpf.skip()  # earlier packets belong to calls that were not seen
            counters = CounterDifference()
            if self._time_limit is not None:
                self._deadline = time.monotonic() + self._time_limit
            while self._should_continue():
                self._poll_once(_POLL_INTERVAL)
                self._watch_for_stall()
                if time.monotonic() > self._deadline + self._startup.delay and self.stopped_by is None:
                    self.reached_time_limit = True
                    self.stop(signal.SIGTERM)
            if self._launcher is LOCAL_LAUNCHER:
                self.trace.counters = counters.read()
            self._shut_down()
            if self.stopped_by is not None:
                self.trace.ended_by = "time limit" if self.reached_time_limit else self.stopped_by.name
            if self.recorder is not None:
                self.recorder.end_batch(FOREVER, FOREVER)
            self.trace.freeze()
            self._note_missing_packets()
            self.analysis.record_blocked_calls(self._snapshot, self._undrawn, self._snapshot_at)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the run; if called again, kill all programs. Safe in a signal handler."""
        if self.stopped_by is not None:
            for program in self._programs:
                program.signal(signal.SIGKILL)
        elif self.trace.frozen_at is None:
            now = time.time_ns()
            is_interrupt = number == signal.SIGINT
            self._is_snapshot_last = is_interrupt and self._snapshot_event == self._last_event
            self._freeze(now - _FREEZE_MARGIN if is_interrupt else now, by_interrupt=is_interrupt)
        self.stopped_by = number
        self._waiting_for_servers = False
        self._loop.post(lambda: None)  # make the current iteration return at once

    def _freeze(self, at: int, *, by_interrupt: bool) -> None:
        self.analysis.freeze(at, by_interrupt=by_interrupt)
        if self.recorder is not None:
            self.recorder.add_freeze(at, by_interrupt=by_interrupt)

    def _begin_recording(self) -> None:
        if self.recorder is None:
            return
        self.recorder.begin(has_packets=self.capture is not None)
        for number, each in enumerate(self._programs):
            self.recorder.add_program(each.role, shlex.join(each.argv), from_exec=each.from_exec)
            each.recorder = ProgramRecorder(self.recorder, number)

    def end_recording(self) -> int:
        """Write the end of the recording. Returns how many lines and packets it has."""
        assert self.recorder is not None
        self.recorder.end(self.trace.counters, self.trace.ended_by, self._notes)
        return self.recorder.items

    def _stop_recording(self) -> None:
        """Record no more: the points take the place of the recording."""
        self.recorder = None
        for each in self._programs:
            each.recorder = None
        self.on_much_recorded()

    def _analyse_recorded(self) -> None:
        """Analyse what has been recorded, and all that follows: the programs are slower now."""
        assert self.recorder is not None
        self.recorder.flush()
        reader = self.on_calm(self.recorder.items)
        if reader is None:
            return
        self.records_only = False
        self.analysis, self.trace = reader.analysis, reader.analysis.trace
        self._held_packets = reader.held + self._held_packets
        for program, (decoder, parser) in zip(self._programs, reader.programs, strict=True):
            program.select_all_lines(decoder, parser)

    def _may_record_only(self) -> bool:
        """Return whether the rest can be analysed later: the servers listen, and a client is running."""
        return (
            self.tls is None
            and not self._waiting_for_servers
            and any(each.is_running for each in self._clients)
        )

    def _record_only(self) -> None:
        """From now on, record what the sources report, and analyse it later: the programs are too fast."""
        self.records_only = True
        self._on_idle()
        self.on_record_only()
        for each in self._programs:
            each.select_lines()

    def _should_continue(self) -> bool:
        if self.stopped_by is not None:
            return False
        if self._waiting_for_servers:
            return all(each.is_running for each in self._servers)  # otherwise one exited before it was ready
        if self._clients:
            return any(each.is_running for each in self._clients)
        return not self._programs or any(each.is_running for each in self._programs)

    def _start_clients(self) -> None:
        addresses = [each.listener.local for each in self._servers if each.listener and each.listener.local]
        for client in self._clients:
            if addresses and addresses[0].port:
                client.argv = [word.replace("{port}", str(addresses[0].port)) for word in client.argv]
            self._start(client)

    def _start(self, program: TracedProgram) -> None:
        if self.capture is not None:
            self.capture.prepare(program.argv)
        with self.tls.starting(program.argv) if self.tls is not None else contextlib.nullcontext():
            points = list(program.start())
        for point in points:
            if self.tls is not None:
                self.tls.observe(point, self.analysis.correlator)
            self.analysis.correlator.add(point)
        self._loop.watch(program.fileno(), IN, self._on_input)
        program.guard(self._reaper)

    def _poll_once(self, timeout: float) -> None:
        """Wait for input, process it, and emit points."""
        running = [each for each in self._programs if each.is_running]
        self._has_input = False
        before = time.monotonic()
        if self.records_only and self.recorder is not None:
            # To be woken up by each line would slow the programs, and so would a full pipe.
            if self.recorder.bytes_read - self._bytes_read < _READ_BYTES:
                time.sleep(_RECORD_INTERVAL)
            self._bytes_read, timeout = self.recorder.bytes_read, 0.0
        timeout = min(timeout, self._look_at_processes(running))
        self._loop.run_once(timeout)
        if self._collect and self._has_input:
            time.sleep(self._collect)
        waited, events = time.monotonic() - before, 0
        until = time.time_ns() - ORDER_MARGIN
        raws = self.capture.read() if self.capture is not None else []  # before the pipes: rule 1
        if len(raws) >= READ_BATCH:
            until = min(until, raws[-1].at)  # there are more packets
        if self.tls is not None:
            self.tls.read()
        for program in running:
            for point in program.read(_READ_BYTES):
                events += 1
                self._last_event = time.monotonic()
                self._update_readiness(program, point)
                if type(point.event) is ProcessEvent and point.event.kind == "exec":
                    self._started.append(self.trace.processes[point.event.process].pid)
                if not self.records_only:
                    self.analysis.add_point(point)
                if self.tls is not None:
                    self.tls.observe(point, self.analysis.correlator)
            if program.has_ended:
                self._loop.unwatch(program.fileno())  # at EOF it would always be ready
        horizon = self._bpf.horizon() if self._bpf is not None and running else FOREVER
        lag = (time.time_ns() - horizon) / 1e9 if horizon < FOREVER else 0.0
        horizon = min([horizon, *(each.read_up_to for each in running if each.read_up_to is not None)])
        until = min(until, horizon)
        self._load.add(waited, events + len(raws), lag)
        if self.records_only:
            self._record_batch(raws, horizon, until)
        else:
            self._analyse_batch(raws, horizon, until)
        self._filter_ports_if_dropping()
        if not self._has_input and not self._idle_reported:
            self._idle_reported = True
            if not self.records_only:
                self._on_idle()
            if self.recorder is not None:
                self.recorder.flush()
        if self._waiting_for_servers and all(each.is_ready for each in self._servers):
            self._waiting_for_servers = False
            self._start_clients()
        elif self._waiting_for_servers:
            self._look_at_late_servers()

    def _look_at_late_servers(self) -> None:
        """Start the clients if servers that do not listen have done nothing for too long."""
        now, late = time.monotonic(), [each for each in self._servers if not each.is_ready]
        if now - self._startup.looked_at < _POLL_INTERVAL:
            return
        self._startup.look(now, self._last_event, {pid for each in late for pid in each.local_pids})
        if self._startup.is_over(now):
            self._waiting_for_servers = False
            roles = " and ".join(each.role for each in late)
            seconds = f"{now - self._last_event:.0f} s"
            self._note(f"{roles} called neither listen() nor bind() for {seconds}: the clients started then")
            self._start_clients()

    def _analyse_batch(self, raws: list[RawPacket], horizon: int, until: int) -> None:
        """Analyse what has been read, and emit points up to `until`."""
        packets = self._packets_until(horizon, raws)
        if self.recorder is not None:
            self.recorder.add_packets(filter(self.analysis.may_be_relevant, packets))
        for raw in packets:
            self._on_packet(raw)
        if self.tls is not None and self.tls.add_to(
            self.analysis.correlator, self.analysis.event_numbers, horizon
        ):
            self._last_event = time.monotonic()
        self._read_kernel_events()
        if self.recorder is not None:
            self.recorder.end_batch(FOREVER, until)
        self._emit_until(until)
        if self._load.is_too_high() and self.recorder is not None and self._may_record_only():
            self._record_only()
        elif self.recorder is not None and self.recorder.size > MAX_SOURCE:
            self._stop_recording()

    def _packets_until(self, horizon: int, raws: Iterable[RawPacket]) -> list[RawPacket]:
        """Return the packets, held ones and these, up to a time; hold the others."""
        self._held_packets.extend(raw for raw in raws if raw.at >= self._packets_since)
        packets = []
        while self._held_packets and self._held_packets[0].at <= horizon:
            packets.append(self._held_packets.popleft())
        return packets

    def _record_batch(self, raws: list[RawPacket], horizon: int, until: int) -> None:
        """Record what has been read."""
        assert self.recorder is not None
        ports = set[int]().union(
            *(each.recorder.ports for each in self._programs if each.recorder is not None)
        )
        self.recorder.add_packets(
            raw
            for raw in self._packets_until(horizon, raws)
            if self.analysis.may_be_relevant(raw) or not ports.isdisjoint(raw.ports or ())
        )
        if self.kernel is not None:
            self.recorder.add_kernel_events(self.kernel.read())
        count = self.recorder.end_batch(horizon, until)
        if count > self._recorded:
            self._recorded, self._last_event, self._idle_reported = count, time.monotonic(), False

    def _look_at_processes(self, programs: Sequence[TracedProgram]) -> float:
        """Look where the processes are and what they map. Returns seconds until the next look."""
        sources = [each for each in (self.capture, self.tls) if each is not None]
        if not sources:
            return _POLL_INTERVAL
        pids = [pid for each in programs if each.has_local_pids for pid in each.decoder.live_pids]
        started, self._started = self._started, []
        return min(each.look(pids, started) for each in sources)

    def on_namespace(self, pid: int, name: str) -> None:
        """Note that a process is in another network namespace."""
        for process in reversed(self.trace.processes.values()):
            if process.pid == pid:
                process.namespace = name
                if self.recorder is not None:
                    self.recorder.add_namespace(pid, name)
                return

    def on_missing_namespace(self, pid: int, name: str, reason: str) -> None:
        """Note that no packets are captured where a process is."""
        of_process = f", the network namespace of process {pid}," if pid else ""
        self._note(f"packets in {name}{of_process} are not captured: {reason}")

    def _note_missing_packets(self) -> None:
        """Note the processes in other network namespaces none of whose packets were captured."""
        trace = self.trace
        if self.capture is None or not any(each.namespace for each in trace.processes.values()):
            return
        users, seen = dict[int, int](), set[int | None]()
        for event in trace.events():
            if isinstance(event, Packet):
                seen |= {event.sender, event.receiver}
            elif isinstance(event, Call) and event.size and event.socket is not None:
                users[event.socket] = event.process
        missing = {
            process
            for number, process in users.items()
            if number not in seen and trace.sockets[number].family in ("inet", "inet6")
        }
        for number in sorted(missing):
            process = trace.processes[number]
            if process.namespace:
                self._note(
                    f"packets of {process.role} {process.pid} are missing: it had sent them before it was "
                    f"found in its network namespace, {process.namespace}"
                )

    def _on_input(self, _ready: int) -> None:
        self._has_input = True  # `_poll_once` reads all sources, in the order of rule 1

    def _filter_ports_if_dropping(self) -> None:
        """After the kernel has dropped packets, capture only those of known ports."""
        if self.capture is None or time.monotonic() < self._next_drop_check:
            return
        self._next_drop_check = time.monotonic() + DROP_CHECK_INTERVAL
        ports = self.analysis.correlator.ports
        if self._filtered_ports is None and not self.capture.count_dropped():
            return
        if 0 < len(ports) <= MAX_FILTER_PORTS and ports != self._filtered_ports:
            self._filtered_ports = ports
            self.capture.filter_ports(sorted(ports))

    def _read_kernel_events(self) -> None:
        if self.kernel is None:
            return
        events = self.kernel.read()
        if self.recorder is not None:
            self.recorder.add_kernel_events(events)
        self.analysis.add_kernel_events(events)
        if self.analysis.other_kernel_events > OTHER_KERNEL_EVENTS:
            self.kernel.filter_ports(sorted(self.analysis.correlator.ports))

    def _emit_until(self, until: int) -> None:
        if self.analysis.emit_until(until):
            self._idle_reported = False

    def _on_packet(self, raw: RawPacket) -> None:
        if self.analysis.add_packet(raw):
            self._last_event = time.monotonic()

    def _update_readiness(self, program: TracedProgram, point: Point) -> None:
        call = point.event
        if program.is_ready or not isinstance(call, Call) or call.failed:
            return
        socket = self.trace.sockets.get(call.socket or 0)
        if socket is None or socket.family not in ("inet", "inet6", "unix"):
            return
        if point.is_end and call.name == ("bind" if socket.kind == "datagram" else "listen"):
            program.listener = socket
        # If the kernel chose the port, the label of the next call shows it.
        local = program.listener.local if program.listener is not None else None
        program.is_ready = local is not None and local.port != 0

    def _shut_down(self) -> None:
        """Wait for packets in transit, then terminate the servers; after a signal, terminate all programs."""
        if self.stopped_by is None:
            self._drain_capture()
            self._poll_until_quiet(LINGER_TIMEOUT)
            self._take_snapshot(self._programs)
        else:
            # ^C has reached the clients already: what they were blocked in is in the last snapshot. It counts
            # for the servers, too, if nothing moved before ^C: the ends of the clients may have moved them.
            if not self._is_snapshot_last:
                self._take_snapshot(self._servers if self.stopped_by == signal.SIGINT else self._programs)
            # Otherwise all at once: a server may loop at the EOF of a client that has been ended.
            is_interrupt = self.stopped_by == signal.SIGINT
            self._terminate(
                self._clients if is_interrupt else self._programs, None if is_interrupt else signal.SIGTERM
            )
        if self.stopped_by is None and any(each.is_running for each in self._servers):
            self._freeze(time.time_ns(), by_interrupt=False)
        self._terminate(self._servers, signal.SIGTERM)
        self._drain_capture()
        self._poll_until_quiet(QUIET_PERIOD)
        self._poll_once(0.0)  # no packet is held any longer
        self._emit_until(FOREVER)
        self._on_idle()

    def _watch_for_stall(self) -> None:
        """Take a snapshot when nothing moves, and report a stall or the answer to SIGQUIT."""
        quiet = time.monotonic() - self._last_event
        if self._report_requested:
            self._report_requested = False
            self._report_stall(requested=True)
        if quiet < _SNAPSHOT_DELAY:
            self._stall_reported = False
            return
        if self.records_only:
            self._analyse_recorded()
            if self.records_only:
                return  # what the programs wait for is not known
        if self._snapshot_event != self._last_event:
            self._take_snapshot(self._programs)
        if quiet >= STALL_SECONDS and not self._stall_reported and self._programs:
            self._stall_reported = True
            unfinished = self.analysis.unfinished().values()
            if any(call.until is None and (call.socket or call.sockets) for call in unfinished):
                self._report_stall(requested=False)

    def _report_stall(self, *, requested: bool) -> None:
        self._take_snapshot(self._programs)
        self._emit_until(time.time_ns() - ORDER_MARGIN)
        self.analysis.record_blocked_calls(self._snapshot, self._undrawn, self._snapshot_at)
        self._on_stall(requested)

    def _take_snapshot(self, programs: Sequence[TracedProgram]) -> None:
        """Read what the threads of these programs are blocked in."""
        self._snapshot_at, self._snapshot_event = time.time_ns(), self._last_event
        found: list[tuple[int, ThreadSnapshot]] = []
        for program in programs:
            if not program.is_running:
                continue
            running = list(program.decoder.running_threads())
            for _, _, thread in running:
                self._undrawn.pop(thread, None)  # it may be in another call since the last snapshot
            self._undrawn |= {call.thread: call for call in program.decoder.blocked_calls()}
            if not program.has_local_pids:
                continue
            threads = running[:MAX_THREADS]
            for attempt in range(_SNAPSHOT_ATTEMPTS):
                if attempt:
                    time.sleep(_SNAPSHOT_PAUSE)
                read = {each: self._read_thread(*each) for each in threads}
                found += [(pid, snapshot) for (_, pid, _), snapshot in read.items() if snapshot is not None]
                threads = [each for each, snapshot in read.items() if snapshot is None]
                if not threads:
                    break
        if self.recorder is not None:
            numbers = [at for at, each in enumerate(self._programs) if each in programs and each.is_running]
            self.recorder.add_blocked(self._snapshot_at, found, numbers)

    def _read_thread(self, process: int, pid: int, thread: int) -> ThreadSnapshot | None:
        """Read what a thread is blocked in; None if it runs, or has exited."""
        snapshot = read_thread(process, pid, thread)
        if snapshot is None:
            self._snapshot.pop(thread, None)
        else:
            self._snapshot[thread] = snapshot
        return snapshot

    def _drain_capture(self) -> None:
        """Read the captured packets: those of the programs may be queued behind many others."""
        while self.capture is not None and self.capture.has_more() and self.stopped_by is None:
            self._poll_once(_POLL_INTERVAL)

    def _poll_until_quiet(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while (now := time.monotonic()) < deadline and now - self._last_event < QUIET_PERIOD:
            self._poll_once(_POLL_INTERVAL)

    def _terminate(self, programs: Sequence[TracedProgram], number: signal.Signals | None) -> None:
        """Send a signal, wait for the programs to exit, and kill those that don't.

        Without a signal the terminal has sent SIGINT already, so they get a moment before SIGTERM.
        """
        for each in programs:
            if number is not None or each.is_attached:  # from a process attached to, strace detaches at once
                each.signal(number or signal.SIGTERM)
        signalled = number is not None
        deadline = time.monotonic() + (EXIT_TIMEOUT if signalled else INTERRUPT_TIMEOUT)
        while any(each.is_running for each in programs):
            if time.monotonic() > deadline:
                for each in programs:
                    each.signal(signal.SIGKILL if signalled else signal.SIGTERM)
                signalled, deadline = True, time.monotonic() + EXIT_TIMEOUT
            self._poll_once(_POLL_INTERVAL)

    @contextlib.contextmanager
    def _handle_signals(self) -> Iterator[None]:
        def on_signal(number: int, _: FrameType | None) -> None:
            self.stop(signal.Signals(number))

        def on_request(_number: int, _: FrameType | None) -> None:
            self._report_requested = True
            self._loop.post(lambda: None)

        stop_signals = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
        previous = {each: signal.signal(each, on_signal) for each in stop_signals}
        previous[signal.SIGQUIT] = signal.signal(signal.SIGQUIT, on_request)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, text: str) -> None:
        """Add a note about the run."""
        self._notes.append(text)
        self.trace.notes.append(text)

    def _close(self) -> None:
        for program in self._programs:
            if program.was_strace_killed:
                self._note(f"strace of {program.role} was killed, so the program was killed too")
            self._loop.unwatch(program.fileno())
            program.close()
        if self.capture is not None:
            self._loop.unwatch(self.capture.fileno())
            dropped = self.capture.count_dropped()
            self.capture.close()
            if dropped:
                self._note(f"{dropped:,} packets were dropped: they arrived faster than they were read")
        if self.tls is not None:
            if self.tls.has_source:
                self._loop.unwatch(self.tls.fileno())
            for note in self.tls.notes():
                self._note(note)
        if self.kernel is not None:
            self.kernel.close()
            # The tracepoints see all packets: if no event concerned this run, those lost did not either.
            has_lost = self.kernel.has_lost() and any(
                isinstance(point.event, KernelEvent) for point in self.trace.points
            )
            if has_lost or self.analysis.kernel_events > MAX_KERNEL_EVENTS:
                self._note("the kernel's reasons are not complete: there were too many drops")
        if self._bpf is not None:
            for text in self._bpf.describe_lost():
                self._note(text)
        unparsed = sum(each.parser.unparsed_count for each in self._programs)
        if unparsed and not self.records_only:
            lines = "1 line" if unparsed == 1 else f"{unparsed} lines"
            self.trace.notes.append(f"{lines} of strace could not be parsed")
        self._loop.close()
