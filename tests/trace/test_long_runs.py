"""Long runs: everything is drawn and saved, in bounded memory."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from bothends.trace import model, trace_file
from bothends.trace.capture import calls
from bothends.trace.capture.strace import StraceParser
from bothends.trace.correlation import correlator, kernel_reasons
from bothends.trace.correlation import timeline as timeline_module
from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.timeline import PythonTimeline, Timeline
from bothends.trace.model import Call, Packet, Point, Socket, SocketAddress, Trace
from bothends.trace.rendering import layout as layout_module
from bothends.trace.rendering import tcp_states
from bothends.trace.rendering.layout import Layout
from bothends.trace.session import TraceSession
from bothends.trace.trace_file import TraceFileWriter
from tests.interop.running import ENVIRONMENT
from tests.tools import needs_tool
from tests.trace.running import read_saved

CALLS = 100_000
CONNECTIONS = 50_000
EMITTED_LIMIT = 1_000
SOURCE = (
    "import socket\na, b = socket.socketpair()\nfor _ in range({}):\n    a.send(b'x' * 20)\n    b.recv(100)"
)
MEASURED = """
import resource, runpy, sys
sys.argv = ["bothends", *sys.argv[1:]]
try:
    runpy.run_module("bothends", run_name="__main__")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_tool("strace")
def test_trace_of_100_000_calls_is_drawn_and_saved(tmp_path: Path) -> None:
    path = tmp_path / "long.trace"
    program = [sys.executable, "-I", "-S", "-c", SOURCE.format(CALLS // 2)]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            MEASURED,
            "trace",
            "--calls-only",
            "--unfold",
            "--save",
            str(path),
            "--",
            *program,
        ],
        capture_output=True,
        env=ENVIRONMENT,
        check=True,
        timeout=280,
    )
    drawn = done.stdout.decode().splitlines()
    assert sum("sendto(" in line for line in drawn) == CALLS // 2
    assert sum("= 20 " in line for line in drawn) == CALLS // 2
    saved = read_saved(path)
    assert saved.dropped + sum(point.is_end for point in saved.points) >= CALLS
    assert path.stat().st_size < 60 * CALLS
    assert int(done.stderr.split()[-1]) < 500_000  # kilobytes


@pytest.mark.parametrize("kind", dict.fromkeys((PythonTimeline, Timeline)))
def test_timeline_emitted_points_are_bounded(
    monkeypatch: pytest.MonkeyPatch, kind: type[PythonTimeline]
) -> None:
    monkeypatch.setattr(timeline_module, "MAX_EMITTED", EMITTED_LIMIT)
    timeline = kind()
    for number in range(1, 3 * EMITTED_LIMIT):
        timeline.add(Point(Call(number, 1, 1, "read", number)))
        assert len(list(timeline.pop_ready(number))) == 1
    assert max(container_sizes(timeline).values(), default=0) <= 2 * EMITTED_LIMIT + 1
    timeline.add_constraint(2, 2 * 3 * EMITTED_LIMIT)  # an emitted cause is not waited for
    timeline.add(Point(Call(3 * EMITTED_LIMIT, 1, 2, "read", 1)))
    assert len(list(timeline.pop_ready())) == 1


def test_correlator_old_streams_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlator, "MAX_STREAMS", 40)
    trace, numbers = Trace(), itertools.count(1)
    matcher = Correlator(trace, Timeline())
    server = SocketAddress("127.0.0.1", 12000)
    for port in range(40_000, 40_200):
        client = SocketAddress("127.0.0.1", port)
        socket = trace.sockets[port] = Socket(port, "inet", "stream", local=server, peer=client)
        call = Call(next(numbers), 1, 1, "recvfrom", port, socket=socket.number, requested=10)
        matcher.add(Point(call))
        matcher.add(Point(Packet(next(numbers), port, "tcp", client, server, 1, b"x", ("ACK",))))
        call.until, call.result, call.size = port + 1, 1, 1
        matcher.add(Point(call, is_end=True))
        assert trace.causes_of(call.number)
    sizes = {
        name: size
        for name, size in container_sizes(matcher).items()
        if "._trace." not in name and "._timeline." not in name
    }
    # Of the ports there are 65,536.
    assert {name for name, size in sizes.items() if size > 40} == {"._remote_ports"}


def test_a_loop_that_reads_eof_adds_no_link_each_time() -> None:
    server = BusyServer(max_points=10_000)
    client = SocketAddress("127.0.0.1", 40_000)
    label = f"4<TCP:[{SERVER}->{client}]>"
    server.calls(7, f"accept(3<TCP:[{SERVER}]>, {sockaddr(client)}, [16]) = {label}")
    server.packet(client, SERVER, 0, "SYN", 0, 0)
    server.packet(client, SERVER, 0, "FIN ACK", 1, 101)
    server.calls(7, *[f'recvfrom({label}, "", 100, 0, NULL, NULL) = 0'] * 500)
    server.calls(7, *[f'sendto({label}, "x", 1, 0, NULL, 0) = -1 EPIPE (Broken pipe)'] * 500)
    server.session.analysis.emit_until(server.at)
    fin = next(each for each in server.trace.events() if isinstance(each, Packet) and "FIN" in each.flags)
    assert 0 < len(list(server.trace.effects_of(fin.number))) <= correlator.MAX_END_CALLS


SERVER = SocketAddress("127.0.0.1", 80)


class BusyServer:
    """A forking server and its clients, as strace lines and packets."""

    def __init__(self, max_points: int) -> None:
        self.trace = Trace(max_points=max_points)
        self.session = TraceSession(self._on_point, trace=self.trace)
        self.writer = TraceFileWriter(NullFile(), self.trace)
        self.layout = Layout(self.trace)
        self.decoder = self.session.add_client("server", ["server"], inherit_stdin=False).decoder
        self.parser, self.numbers, self.at = (
            StraceParser(),
            self.session.analysis.event_numbers,
            1795255220_000000000,
        )
        self.calls(
            7,
            "socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 3<TCP:[5]>",
            f"bind(3<TCP:[5]>, {sockaddr(SERVER)}, 16) = 0",
            f"listen(3<TCP:[{SERVER}]>, 5) = 0",
        )

    def _on_point(self, point: Point) -> None:
        self.writer.write(point)
        for _ in self.layout.rows(point):
            pass

    def calls(self, pid: int, *lines: str, end: str = " <0.000000500>") -> None:
        for line in lines:
            self.at += 1000
            text = f"{pid} {self.at // 10**9}.{self.at % 10**9:09d} {line}{end}\n"
            for point in self.decoder.decode(self.parser.feed(text.encode())):
                self.session.analysis.correlator.add(point)

    def packet(
        self, source: SocketAddress, destination: SocketAddress, size: int, flags: str, first: int, ack: int
    ) -> None:
        self.at += 100
        packet = Packet(
            next(self.numbers), self.at, "tcp", source, destination, size, b"x" * size, tuple(flags.split()),
            first, ack, raw=b"r" * 60,
        )  # fmt: skip
        self.session.analysis.correlator.add(Point(packet))

    def serve(self, number: int) -> None:
        """Add the packets and calls of one connection, from SYN to FIN."""
        client = SocketAddress(f"127.0.{1 + number // 60_000}.1", 1024 + number % 60_000)
        label = f"4<TCP:[{SERVER}->{client}]>"
        self.packet(client, SERVER, 0, "SYN", 0, 0)
        self.packet(SERVER, client, 0, "SYN ACK", 100, 1)
        self.packet(client, SERVER, 0, "ACK", 1, 101)
        self.packet(client, SERVER, 5, "ACK", 1, 101)
        child = 1000 + number
        self.calls(
            7, f"accept(3<TCP:[{SERVER}]>, {sockaddr(client)}, [16]) = {label}", f"fork() = {child}",
            f"close({label}) = 0",
        )  # fmt: skip
        self.calls(
            child, f'recvfrom({label}, "\\x78\\x78\\x78\\x78\\x78", 100, 0, NULL, NULL) = 5',
            f'sendto({label}, "\\x78", 1, 0, NULL, 0) = 1', f"close({label}) = 0",
        )  # fmt: skip
        self.packet(SERVER, client, 1, "ACK", 101, 6)
        self.packet(SERVER, client, 0, "FIN ACK", 102, 6)
        self.calls(child, "+++ exited with 0 +++", end="")
        self.session.analysis.emit_until(self.at - 100_000)


class NullFile(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


def sockaddr(socket_address: SocketAddress) -> str:
    address = "".join(f"\\x{byte:02x}" for byte in socket_address.host.encode())
    return f'{{sa_family=AF_INET, sin_port=htons({socket_address.port}), sin_addr=inet_addr("{address}")}}'


def container_sizes(root: object) -> dict[str, int]:
    """Return the size of each reachable container, by attribute path."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    pending: list[tuple[str, object]] = [("", root)]
    while pending:
        name, item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict | list | set | deque):
            found[name] = found.get(name, 0) + len(item)
            pending += [(name + "[]", each) for each in (item.values() if isinstance(item, dict) else item)]
        elif type(item).__module__.startswith(("bothends", "tests")):
            names = [*getattr(item, "__dict__", ()), *getattr(type(item), "__slots__", ())]
            pending += [(f"{name}.{each}", getattr(item, each, None)) for each in names]
    return found


def test_containers_do_not_grow_with_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (model, layout_module, trace_file):
        monkeypatch.setattr(module, "PRUNE_SLACK", 50)
    monkeypatch.setattr(model, "MAX_DESCRIPTOR_CHANGES", 40)
    monkeypatch.setattr(correlator, "MAX_STREAMS", 40)
    monkeypatch.setattr(correlator, "MAX_UNMATCHED", 40)
    monkeypatch.setattr(calls, "MAX_THREAD_EXITS", 40)
    monkeypatch.setattr(kernel_reasons, "MAX_REMEMBERED", 40)
    monkeypatch.setattr(tcp_states, "MAX_CONNECTIONS", 40)
    monkeypatch.setattr(timeline_module, "MAX_EMITTED", 100)
    busy = BusyServer(max_points=200)
    for number in range(200):
        busy.serve(number)
    before = container_sizes(busy)
    for number in range(200, 800):
        busy.serve(number)
    grown = {name for name, size in container_sizes(busy).items() if size > 2 * before.get(name, 0) + 100}
    assert grown == {".session.analysis.correlator._remote_ports"}  # bounded: there are 65,536 ports
    assert busy.trace.pruned > 800  # a socket and a process for each connection
    assert busy.trace.sockets[1].is_listener  # a descriptor refers to it
    last = max(each.number for each in busy.trace.sockets.values())
    assert last == 801  # numbers are not reused
    accepted = [each for each in busy.trace.events() if isinstance(each, Call) and each.name == "accept"]
    assert accepted
    assert all(busy.trace.sockets[each.created_id or 0].peer == each.address for each in accepted)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_bounded_over_50_000_connections() -> None:
    def memory_used() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    busy = BusyServer(max_points=20_000)
    for number in range(CONNECTIONS // 2):
        busy.serve(number)
    before = memory_used()
    for number in range(CONNECTIONS // 2, CONNECTIONS):
        busy.serve(number)
    assert memory_used() - before < 8 << 20  # about 300 bytes for each connection
