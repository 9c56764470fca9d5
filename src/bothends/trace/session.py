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

from bothends.osutil.reaper import Heir
from bothends.trace.capture.calls import Reader
from bothends.trace.capture.descriptors import Sockets
from bothends.trace.capture.packets import AT_ONCE, Raw, Source
from bothends.trace.capture.tracees import HERE, Program, Starter
from bothends.trace.correlation.correlator import Matcher
from bothends.trace.correlation.timeline import FOREVER, Timeline
from bothends.trace.correlation.transit import Crossings
from bothends.trace.model import Call, Moment, Packet, Place, Trace, spoken_of

MARGIN: Final = 30_000_000  # nanoseconds
QUIET: Final = 0.3  # seconds without an event after the last client: what was on its way has come
LINGER: Final = 2.0  # seconds, even if events go on
PATIENCE: Final = 2.0  # seconds that a program has to end when it is asked to
PROMPT: Final = 0.5  # seconds that it has when ^C has reached it too
LOOK: Final = 0.1  # seconds between looks at how many packets were lost
MOST_PORTS: Final = 100  # a filter of the kernel has room for some more
_TURN: Final = 0.05  # seconds: how long a moment may wait to be told


class Session:
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
        tell: Callable[[Moment], None],
        *,
        idle: Callable[[], None] = lambda: None,
        trace: Trace | None = None,
        place: Callable[[Packet], None] | None = None,
        starter: Starter = HERE,
    ) -> None:
        self.trace = trace if trace is not None else Trace()
        self._place = place if place is not None else self._place_by_calls
        self.stopped_by: signal.Signals | None = None
        self._numbers = itertools.count(1)
        self._tell = tell
        self._idle = idle
        self.capture: Source | None = None  # packets; calls alone without
        self._starter = starter
        self._crossings = Crossings()
        self._sockets = Sockets()
        self._timeline = Timeline()
        self._matcher = Matcher(self.trace, self._timeline)
        self._programs: list[Program] = []
        self._servers: list[Program] = []
        self._clients: list[Program] = []
        self._told_idle = True
        self._narrowed: frozenset[int] | None = None
        self._look_again = 0.0
        self._awaits_servers = False
        self._ended_at = FOREVER
        self._last_event = time.monotonic()
        self._heir = Heir()
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def server(self, role: str, words: Sequence[str], *, output: int | None = None) -> Program:
        """Add a server: it begins at once, and ends when the last client has."""
        program = self._add(role, words, output=output)
        self._servers.append(program)
        return program

    def client(
        self, role: str, words: Sequence[str], *, keyboard: bool, output: int | None = None
    ) -> Program:
        """Add a client: it begins when every server is ready."""
        program = self._add(role, words, keyboard=keyboard, output=output)
        self._clients.append(program)
        return program

    def attach(self, role: str, pid: int) -> Program:
        """Add a process that runs already. It is let go at the end, and never signalled."""
        program = self._add(role, (), pid=pid)
        self._clients.append(program)
        return program

    def watch(self, place: Place) -> None:
        """Packets of this place matter, whoever sends them."""
        self._matcher.watch(place)

    def _add(
        self,
        role: str,
        words: Sequence[str],
        *,
        pid: int | None = None,
        keyboard: bool = False,
        output: int | None = None,
    ) -> Program:
        import shlex

        reader = Reader(self.trace, self._sockets, self._numbers, role, shlex.join(words))
        program = Program(
            role, words, reader, pid=pid, keyboard=keyboard, output=output, starter=self._starter
        )
        self._programs.append(program)
        return program

    @property
    def roles(self) -> list[str]:
        """The names of the programs, in the order in which they were added."""
        return [each.role for each in self._programs]

    def end_line(self) -> bool:
        """Whether a program has left an unfinished line on the terminal, a prompt for example. Asked once,
        it is taken to be ended.
        """
        unfinished = any(each.reader.unfinished_line for each in self._programs)
        for each in self._programs:
            each.reader.unfinished_line = False
        return unfinished

    @property
    def odd_lines(self) -> list[str]:
        """The first lines of strace that could not be read."""
        return [line for each in self._programs for line in each.parser.odd]

    @property
    def left_early(self) -> list[str]:
        """The servers that ended before they were ready, so that no client was started."""
        return [each.role for each in self._servers if each.has_ended and not each.is_ready]

    @property
    def statuses(self) -> dict[str, int | None]:
        """What each program left with, as Popen.returncode has it; None for one that was not started."""
        return {each.role: each.status for each in self._programs}

    def run(self) -> None:
        """Observe until all clients have ended (all programs, if there are no clients), or a signal comes.

        Nothing that was started is running afterwards.

        Raises:
            Unavailable: strace can't be run.
        """
        self._matcher.has_packets = self.capture is not None
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._heir)
            stack.callback(self._close)
            stack.enter_context(self._heeding_signals())
            for server in self._servers:
                self._start(server)
            self._awaits_servers = bool(self._servers)
            if not self._servers:
                self._start_clients()
            while self._goes_on():
                self._turn(_TURN)
            self._wind_up()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the run. Safe in a signal handler."""
        if self.stopped_by is not None:
            for program in self._programs:
                program.signal(signal.SIGKILL)
        self.stopped_by = number
        self._awaits_servers = False
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b".")

    def _goes_on(self) -> bool:
        if self.stopped_by is not None:
            return False
        if self._awaits_servers:
            return all(each.is_running for each in self._servers)  # else one left before it was ready
        if self._clients:
            return any(each.is_running for each in self._clients)
        return not self._programs or any(each.is_running for each in self._programs)

    def _start_clients(self) -> None:
        places = [each.listener.local for each in self._servers if each.listener and each.listener.local]
        for client in self._clients:
            if places and places[0].port:
                client.words = [word.replace("{port}", str(places[0].port)) for word in client.words]
            self._start(client)

    def _start(self, program: Program) -> None:
        for moment in program.start():
            self._matcher.add(moment)
        if program.strace is not None:
            self._heir.inherits_traced(program.strace, program.fileno(), attached=program.pid is not None)

    def _turn(self, timeout: float) -> None:
        """Wait for news, take them in, and tell what can be told."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        running = [each for each in self._programs if each.is_running]
        for each in running:
            poller.register(each, select.POLLIN)
        if self.capture is not None:
            poller.register(self.capture, select.POLLIN)
        ready = poller.poll(timeout * 1000)
        until = time.time_ns() - MARGIN
        raws = self.capture.read() if self.capture is not None else []
        if len(raws) >= AT_ONCE:
            until = min(until, raws[-1].at)  # there are more
        for program in running:
            for moment in program.read():
                self._last_event = time.monotonic()
                self._note_readiness(program, moment)
                self._matcher.add(moment)
        for raw in raws:
            self._take_packet(raw)
        self._give(until)
        self._narrow()
        if not ready and not self._told_idle:
            self._told_idle = True
            self._idle()
        if self._awaits_servers and all(each.is_ready for each in self._servers):
            self._awaits_servers = False
            self._start_clients()

    def _narrow(self) -> None:
        """Where packets were lost, everybody's can't be looked at: from then on only those of known ports."""
        if self.capture is None or time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + LOOK
        ports = self._matcher.ports
        if self._narrowed is None and not self.capture.count_dropped():
            return
        if 0 < len(ports) <= MOST_PORTS and ports != self._narrowed:
            self._narrowed = ports
            self.capture.narrow(sorted(ports))

    def _take_packet(self, raw: Raw) -> None:
        ports = raw.ports
        if ports is not None and not self._matcher.may_matter(*ports):
            return
        packet = raw.packet(0)
        if packet is None or not self._matcher.matters(packet):
            return
        packet.number = next(self._numbers)
        self._last_event = time.monotonic()
        if raw.crossing is None:
            self._matcher.add(Moment(packet))
            return
        self._matcher.is_wire = True
        for moment in self._crossings.take(raw, raw.crossing, packet):
            self._matcher.add(moment)

    def _give(self, until: int) -> None:
        for moment in self._timeline.take(until):
            if moment.at > self._ended_at:
                continue  # how a server ends that we have killed is our doing, not its own
            self._told_idle = False
            if isinstance(moment.event, Packet):
                self._place(moment.event)
            self.trace.add(moment)
            self._tell(moment)
        if self.trace.is_crowded:
            self._forget()

    def _forget(self) -> None:
        """Let go of sockets that nobody holds any more and of processes that have ended, long ago."""
        readers = [each.reader for each in self._programs]
        held, running = spoken_of(self._timeline.waiting())
        self.trace.forget(
            held.union(*(each.held for each in readers)), running.union(*(each.running for each in readers))
        )
        self._sockets.keep(self.trace.sockets)
        self._matcher.forget()

    def _place_by_calls(self, packet: Packet) -> None:
        sender, receiver = self._matcher.ends(packet)
        packet.sender = sender.number if sender else None
        packet.receiver = receiver.number if receiver else None

    def _note_readiness(self, program: Program, moment: Moment) -> None:
        call = moment.event
        if program.is_ready or not isinstance(call, Call) or call.failed:
            return
        socket = self.trace.sockets.get(call.socket or 0)
        if socket is None or socket.family not in ("inet", "inet6", "unix"):
            return
        if moment.is_end and call.name == ("bind" if socket.kind == "datagram" else "listen"):
            program.listener = socket
        # Which port the system has picked shows with the next call.
        known = program.listener.local if program.listener is not None else None
        program.is_ready = known is not None and known.port != 0

    def _wind_up(self) -> None:
        """The clients have ended, or a signal came: wait for what is on its way, then end the servers."""
        if self.stopped_by is None:
            self._take_what_came()
            self._turn_until_quiet(LINGER)
        else:
            self._end(self._clients, signal.SIGTERM if self.stopped_by != signal.SIGINT else None)
        if self.stopped_by is None and any(each.is_running for each in self._servers):
            self._ended_at = time.time_ns()
        self._end(self._servers, signal.SIGTERM)
        self._take_what_came()
        self._turn_until_quiet(QUIET)
        self._give(FOREVER)
        self._idle()

    def _take_what_came(self) -> None:
        """Everybody's packets come in one row: ours may be behind many others."""
        while self.capture is not None and self.capture.has_more() and self.stopped_by is None:
            self._turn(_TURN)

    def _turn_until_quiet(self, longest: float) -> None:
        deadline = time.monotonic() + longest
        while (now := time.monotonic()) < deadline and now - self._last_event < QUIET:
            self._turn(_TURN)

    def _end(self, programs: Sequence[Program], number: signal.Signals | None) -> None:
        """Ask, wait a little, and end by force. Without a signal: the terminal has asked them already."""
        for each in programs:
            if number is not None or each.pid is not None:  # what we attached to is let go, at once
                each.signal(number or signal.SIGTERM)
        asked = number is not None
        deadline = time.monotonic() + (PATIENCE if asked else PROMPT)
        while any(each.is_running for each in programs):
            if time.monotonic() > deadline:
                for each in programs:
                    each.signal(signal.SIGKILL if asked else signal.SIGTERM)
                asked, deadline = True, time.monotonic() + PATIENCE
            self._turn(_TURN)

    @contextlib.contextmanager
    def _heeding_signals(self) -> Iterator[None]:
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
            if program.was_abandoned:
                self.trace.notes.append(f"strace of {program.role} was killed; what it traced was ended too")
            program.close()
        if self.capture is not None:
            dropped = self.capture.count_dropped()
            self.capture.close()
            if dropped:
                self.trace.notes.append(f"{dropped:,} packets came faster than they could be read")
        unknown = sum(each.parser.unknown for each in self._programs)
        if unknown:
            lines = "1 line" if unknown == 1 else f"{unknown} lines"
            self.trace.notes.append(f"{lines} of strace could not be read")
        os.close(self._wake)
        os.close(self._waker)
