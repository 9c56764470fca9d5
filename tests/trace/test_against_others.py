"""The classic pairs in C, Python and Java: each call compared with strace's log, each packet with tshark.

Both comparisons use the same run. The log is parsed here independently of the parser under test, and tshark
makes its own capture.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.capture.packets import Capture
from bothends.trace.capture.strace import Line, StraceParser
from bothends.trace.capture.tracees import TracedProgram
from bothends.trace.model import DATA_LIMIT, Call, Packet, Point, Trace
from bothends.trace.session import TraceSession
from tests.interop.programs import Programs, needs_compiler
from tests.interop.running import Running
from tests.tools import find_tool, needs_tool
from tests.trace.running import has_packets, python_command, stdin_from

pytestmark = [needs_tool("strace"), pytest.mark.timeout(120)]

ADDRESS: Final = "127.83.11.7"  # no other program uses it
SECOND_CLIENT: Final = ("sh", "-c", 'echo again | exec "$@"', "sh")  # a client with its own input


class Pair(NamedTuple):
    """A server and its clients. `client_arguments` hold the address and the port."""

    server: str
    client: str
    client_arguments: str = f"{ADDRESS} {{port}}"
    clients: int = 1
    transport: str = "tcp"


PAIRS: Final = {
    "python-tcp": Pair("tcp_server.py", "tcp_client.py"),
    "python-udp": Pair("udp_server.py", "udp_client.py", transport="udp"),
    "python-select": Pair("select_server.py", "tcp_client.py", clients=2),
    "python-fork": Pair("fork_server.py", "tcp_client.py", clients=2),
    "python-threads": Pair("threaded_server.py", "tcp_client.py", clients=2),
    "c-tcp": Pair("tcp_server.c", "tcp_client.c"),
    "c-udp": Pair("udp_server.c", "udp_client.c", transport="udp"),
    "c-select": Pair("select_server.c", "teller.c", f"tcp {ADDRESS} {{port}}", clients=2),
    "c-fork": Pair("fork_server.c", "tcp_client.c", clients=2),
    "c-threads": Pair("threaded_server.c", "tcp_client.c", clients=2),
    "java-tcp": Pair("LineServer.java", "LineClient.java"),
    "java-udp": Pair("PacketServer.java", "PacketClient.java", transport="udp"),
    "java-select": Pair("SelectServer.java", "LineClient.java"),
    "java-threads": Pair("ThreadedServer.java", "LineClient.java", clients=2),
}
# The others run with `make slow` only.
QUICK: Final = {"python-tcp", "python-udp", "python-select", "c-tcp", "c-fork"}
# Both ends in one program, data of several packets, and an empty datagram.
BOTH_ENDS_SOURCE: Final = f"""
from socket import *
s = create_server(("{ADDRESS}", 0))
c = create_connection(s.getsockname(), source_address=("{ADDRESS}", 0))
d, _ = s.accept()
for size in (1, 10, 100_000):
    c.sendall(b"x" * size)
    while size:
        size -= len(d.recv(1 << 20))
d.send(b"done")
c.recv(100)
c.close()
d.recv(1)
d.close()
u = socket(AF_INET, SOCK_DGRAM)
u.bind(("{ADDRESS}", 0))
v = socket(AF_INET, SOCK_DGRAM)
v.bind(("{ADDRESS}", 0))
v.sendto(b"datagram", u.getsockname())
data, address = u.recvfrom(100)
u.sendto(b"", address)
v.recvfrom(100)
"""


class RecordingParser(StraceParser):
    """The parser, with a copy of its input: strace's log."""

    def __init__(self) -> None:
        super().__init__()
        self.log = b""

    def feed(self, data: bytes) -> Iterator[Line]:
        self.log += data
        return super().feed(data)


class PacketFields(NamedTuple):
    """The fields of a packet that are compared."""

    source: int
    destination: int
    sequence: int
    acknowledged: int
    window: int
    flags: int
    size: int
    data: str


class RunResult(NamedTuple):
    """A run: the trace, strace's logs, and the packets of tshark with their times (None without tshark)."""

    trace: Trace
    logs: list[str]
    captured: list[tuple[float, PacketFields]] | None


FIELDS: Final = (
    "frame.time_epoch", "tcp.srcport", "udp.srcport", "tcp.dstport", "udp.dstport",
    "tcp.seq_raw", "tcp.ack_raw", "tcp.window_size_value", "tcp.flags", "tcp.len", "udp.length",
    "tcp.payload", "udp.payload",
)  # fmt: skip


MARKER_NUMBERS: Final = itertools.count(1)


class Tshark:
    """A running tshark that captures the packets of `ADDRESS`, and those of an extra filter."""

    def __init__(self, extra_filter: str = "") -> None:
        capture = [
            str(find_tool("tshark")),
            "-i",
            "lo",
            "-B",
            "64",
            "-f",
            f"host {ADDRESS}{extra_filter}",
            "-n",
            "-l",
        ]
        capture += ["-T", "fields", "-E", "separator=|", *(word for each in FIELDS for word in ("-e", each))]
        self._running = Running(capture)

    def __enter__(self) -> Tshark:
        self.packets_so_far()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.process.terminate()
        self._running.__exit__(None, None, None)

    def packets_so_far(self) -> list[tuple[float, PacketFields]]:
        """Return all packets up to now: sends a marker until tshark prints it."""
        marker = f"marker {next(MARKER_NUMBERS)} of {os.getpid()}".encode()
        is_printed = threading.Event()
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.bind((ADDRESS, 0))

            def send_markers() -> None:
                while not is_printed.wait(0.05):
                    sender.sendto(marker, sender.getsockname())

            thread = threading.Thread(target=send_markers)
            thread.start()
            try:
                output = self._running.wait_for_output(
                    "a marker", lambda data: data if _has_marker_line(marker, data) else None
                )
            finally:
                is_printed.set()
                thread.join()
        lines = output.rpartition(b"\n")[0].decode().splitlines()
        return [_parse_fields(line) for line in lines if b"marker ".hex() not in line]


def _has_marker_line(marker: bytes, data: bytes) -> bool:
    return marker.hex().encode() + b"\n" in data


def _parse_fields(line: str) -> tuple[float, PacketFields]:
    at, *numbers, tcp_data, udp_data = line.split("|")
    (
        tcp_source, udp_source, tcp_destination, udp_destination,
        sequence, acknowledged, window, flags, tcp_size, udp_length,
    ) = (int(each or "0", 0) for each in numbers)  # fmt: skip
    return float(at), PacketFields(
        tcp_source or udp_source,
        tcp_destination or udp_destination,
        sequence,
        acknowledged,
        window,
        flags,
        tcp_size or max(udp_length - 8, 0),
        (tcp_data or udp_data)[: 2 * DATA_LIMIT],
    )


@pytest.fixture(scope="module")
def tshark() -> Iterator[Tshark | None]:
    """A capture of all packets of `ADDRESS`, or None if that is impossible here."""
    if find_tool("tshark") is None or not has_packets():
        yield None
        return
    with Tshark() as running:
        yield running


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("programs"))


def _pair_param(name: str, pair: Pair) -> object:
    marks = needs_compiler(pair.server) + [pytest.mark.slow] * (name not in QUICK)
    return pytest.param(pair, id=name, marks=marks)


@pytest.fixture(
    scope="module",
    params=[*itertools.starmap(_pair_param, PAIRS.items()), pytest.param(None, id="both-in-one")],
)
def traced_run(
    request: pytest.FixtureRequest,
    programs: Programs,
    tshark: Tshark | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunResult:
    """A pair, run once for all its tests."""
    pair: Pair | None = request.param
    for _ in range(3):
        points: list[Point] = []
        session = TraceSession(points.append)
        with contextlib.ExitStack() as stack:
            gate = None
            if tshark is not None and pair is not None and pair.transport == "udp":
                gate = CaptureGate(tmp_path_factory.mktemp("gate"), stack)
            started = _add(session, pair, programs, gate)
            for each in started:
                each.parser = RecordingParser()
            session.capture = Capture() if has_packets() else None
            with stdin_from("hello\n"):
                session.run()
            if not session.trace.notes:
                logs = [
                    each.parser.log.decode() for each in started if isinstance(each.parser, RecordingParser)
                ]
                capture = gate.tshark if gate is not None else tshark
                captured = capture.packets_so_far() if capture is not None else None
                return RunResult(session.trace, logs, captured)
    pytest.skip(f"there is too much traffic on this machine: {session.trace.notes}")


class CaptureGate:
    """Delays a client until tshark captures the packets of its server's port.

    A server bound to the wildcard address may reply to a datagram from another address than `ADDRESS`, and
    capturing all datagrams of this machine would be too many.
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._path = folder / "gate"
        os.mkfifo(self._path)
        self._stack = stack
        self.tshark: Tshark | None = None
        self._thread = threading.Thread(target=self._open)
        self._thread.start()
        stack.callback(self._thread.join)

    def wrap_command(self, client: list[str]) -> list[str]:
        return ["sh", "-c", 'echo {port} > "$0"; read go < "$0"; exec "$@"', str(self._path), *client]

    def _open(self) -> None:
        try:
            port = int(self._path.read_text())
            self.tshark = self._stack.enter_context(Tshark(f" or udp port {port}"))
        finally:
            self._path.write_text("go\n")


def _add(
    session: TraceSession, pair: Pair | None, programs: Programs, gate: CaptureGate | None
) -> list[TracedProgram]:
    if pair is None:
        return [session.add_client("both", python_command(BOTH_ENDS_SOURCE), inherit_stdin=False)]
    client = [*programs.command(pair.client), *pair.client_arguments.split()]
    started = [session.add_server("server", programs.command(pair.server))]
    started.append(
        session.add_client("client", gate.wrap_command(client) if gate else client, inherit_stdin=True)
    )
    started += [
        session.add_client(f"client {number}", [*SECOND_CLIENT, *client], inherit_stdin=False)
        for number in range(2, pair.clients + 1)
    ]
    return started


class CallRecord(NamedTuple):
    """The fields of a call that are compared."""

    name: str
    result: int | None
    error: str


# In strace's log: calls on a socket, and calls that wait for sockets.
ON_A_SOCKET: Final = re.compile(r"(?:\w+\(\d+<(?:TCP|UDP|UNIX|NETLINK)|socket(?:pair)?\()")
WAITS: Final = re.compile(r"(?:poll|ppoll|select|pselect6)\(.*<(?:TCP|UDP)")
EPOLL: Final = re.compile(r"epoll_ctl\((\d+)<[^,]*, EPOLL_CTL_\w+, \d+<(?:TCP|UDP)")
RETURN: Final = re.compile(r".*\) += (\?|0x[0-9a-f]+|-?\d+)(?:<.*?>)?(?: (E[A-Z0-9]+) )?")


def calls_in_strace_log(log: str) -> dict[int, list[tuple[float, CallRecord]]]:
    """Return the calls on sockets in strace's log, with their start times, by thread."""
    unfinished: dict[int, tuple[float, str]] = {}
    whole = []
    for line in log.splitlines():
        head, at, rest = line.split(None, 2)
        pid, started_at = int(head), float(at)
        if rest.startswith("<... "):
            started_at, half = unfinished.pop(pid)
            rest = half + rest.partition(" resumed>")[2]
        if rest.endswith("<unfinished ...>"):
            unfinished[pid] = started_at, rest.removesuffix("<unfinished ...>")
        elif not rest.startswith(("+++", "---")):
            whole.append((started_at, pid, rest))
    whole += [(started_at, pid, half + ") = ?") for pid, (started_at, half) in unfinished.items()]
    selectors = {found[1] for _, _, rest in whole if (found := EPOLL.match(rest))}
    calls = defaultdict(list)
    for started_at, pid, rest in sorted(whole):
        name, _, arguments = rest.partition("(")
        waits = re.match("epoll_p?wait", name) and arguments.partition("<")[0] in selectors
        if ON_A_SOCKET.match(rest) or WAITS.match(rest) or EPOLL.match(rest) or waits:
            found = RETURN.match(rest)
            assert found, rest
            result = None if found[1] == "?" else int(found[1], 0)
            calls[pid].append((started_at, CallRecord(name, result, found[2] or "")))
    return {pid: join_restarted(each) for pid, each in calls.items()}


def join_restarted(calls: list[tuple[float, CallRecord]]) -> list[tuple[float, CallRecord]]:
    """Join calls that a signal interrupted and the kernel restarted: the trace shows each as one call."""
    joined: list[tuple[float, CallRecord]] = []
    interrupted: tuple[float, CallRecord] | None = None
    for started_at, call in calls:
        if interrupted is not None and interrupted[1].name == call.name:
            started_at = interrupted[0]
        elif interrupted is not None:
            joined.append(interrupted)
        is_interrupted = call.error.startswith("ERESTART")
        interrupted = (started_at, CallRecord(call.name, None, "")) if is_interrupted else None
        if not is_interrupted:
            joined.append((started_at, call))
    return joined + ([interrupted] if interrupted is not None else [])


def calls_in_trace(trace: Trace) -> dict[int, list[CallRecord]]:
    calls = defaultdict(list)
    pipes = {each.number for each in trace.sockets.values() if each.family == "pipe"}
    for each in trace.events():
        if not isinstance(each, Call) or each.socket in pipes:
            continue
        if each.socket or each.sockets or each.name in ("socket", "socketpair"):
            calls[each.thread].append(CallRecord(each.name, each.result, each.error))
    return dict(calls)


def compare_calls(
    trace: Trace, logs: Mapping[str, str], left_out: Collection[str], clients: Collection[str]
) -> int:
    """Compare each thread's calls in a trace with strace's logs, by role. Returns the number of calls."""
    ended_at = max(
        float(line.split()[1]) for role in logs if role in clients for line in logs[role].splitlines()
    )
    found = calls_in_trace(trace)
    compared = 0
    for text in logs.values():
        for thread, logged in calls_in_strace_log(text).items():
            seen = [
                each
                for each in found.get(thread, [])
                if each.name not in left_out and not each.error.startswith("ERESTART")
            ]
            logged = [each for each in logged if each[1].name not in left_out]
            if seen and seen[-1].result is None:
                seen.pop()  # the end of the run interrupted it
                logged.pop(len(seen))
            assert seen == [call for _, call in logged[: len(seen)]]
            assert [call for start, call in logged[len(seen) :] if start < ended_at] == []
            compared += len(seen)
    return compared


def clients_ended_at(traced_run: RunResult) -> float:
    """Return the exit time of the last client. Later events of the server are not traced."""
    return max(
        float(line.split()[1]) for log in traced_run.logs[1:] or traced_run.logs for line in log.splitlines()
    )


def test_trace_calls_match_strace_log(traced_run: RunResult) -> None:
    counts = Counter((point.event.number, point.is_end) for point in traced_run.trace.points)
    assert set(counts.values()) == {1}
    traced = calls_in_trace(traced_run.trace)
    logged = {pid: calls for log in traced_run.logs for pid, calls in calls_in_strace_log(log).items()}
    assert traced.keys() <= logged.keys()
    for pid, calls in logged.items():
        found = traced.get(pid, [])
        assert found == [call for _, call in calls[: len(found)]]
        assert [call for start, call in calls[len(found) :] if start < clients_ended_at(traced_run)] == []


BITS: Final = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16}


def by_direction(
    packets: Iterable[tuple[float, PacketFields]],
) -> dict[tuple[int, int], list[tuple[float, PacketFields]]]:
    """Group packets by direction. CPUs capture independently, so the order is significant in a group only."""
    found = defaultdict(list)
    for at, each in packets:
        found[each.source, each.destination].append((at, each))
    return dict(found)


def _packet_fields(packet: Packet) -> tuple[float, PacketFields]:
    return packet.at / 1e9, PacketFields(
        packet.source.port or 0,
        packet.destination.port or 0,
        packet.sequence,
        packet.acknowledged,
        packet.window,
        sum(BITS[flag] for flag in packet.flags),
        packet.size,
        packet.data.hex(),
    )


def test_trace_packets_match_tshark(traced_run: RunResult) -> None:
    if traced_run.captured is None:
        pytest.skip("tshark isn't installed, or packets can't be captured here")
    bound_ports = {
        each.local.port
        for each in traced_run.trace.sockets.values()
        if each.local and (each.is_listener or each.kind == "datagram")
    }
    captured = by_direction(
        (at, each) for at, each in traced_run.captured if {each.source, each.destination} & bound_ports
    )
    traced = by_direction(
        _packet_fields(each) for each in traced_run.trace.events() if isinstance(each, Packet)
    )
    assert traced.keys() <= captured.keys()
    for direction, packets in captured.items():
        found = [each for _, each in traced.get(direction, [])]
        assert found == [each for _, each in packets[: len(found)]]
        assert [each for at, each in packets[len(found) :] if at < clients_ended_at(traced_run)] == []
    assert traced


def spans(trace: Trace, names: Collection[str]) -> dict[int, range]:
    """Return the range of stream offsets of each call; for datagrams, ranges start at 0."""
    found, positions = {}, Counter[int]()
    for each in trace.events():
        socket = trace.sockets.get(each.socket or 0) if isinstance(each, Call) else None
        if isinstance(each, Call) and each.name in names and socket and socket.family in ("inet", "inet6"):
            start = positions[socket.number] if socket.kind == "stream" else 0
            found[each.number] = range(start, start + each.size)
            positions[socket.number] = start + each.size
    return found


def overlap(one: range, other: range) -> int:
    return len(range(max(one.start, other.start), min(one.stop, other.stop)))


def test_trace_links_every_byte_from_send_to_receive(traced_run: RunResult) -> None:
    if traced_run.captured is None:
        pytest.skip("packets can't be captured here")
    trace = traced_run.trace
    sent, received = spans(trace, SENDING), spans(trace, RECEIVING)
    packets = {
        each.number: range(each.offset or 0, (each.offset or 0) + each.size)
        for each in trace.events()
        if isinstance(each, Packet)
    }
    assert sum(map(len, sent.values())) == sum(map(len, packets.values())) > 0
    for number, span in packets.items():
        causes = [link.cause for link in trace.causes_of(number) if link.kind == "carries"]
        assert sum(overlap(sent[each], span) for each in causes) == len(span)
        assert all(overlap(sent[each], span) for each in causes if span)
    for number, span in received.items():
        causes = [link.cause for link in trace.causes_of(number) if link.kind == "feeds"]
        assert sum(overlap(packets[each], span) for each in causes) == len(span)
        assert all(overlap(packets[each], span) for each in causes if span)
