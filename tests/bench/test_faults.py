"""Every kind of fault is classified correctly, against faulty servers; a stall shows in corrected latency."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bothends.bench.generators import native
from bothends.bench.generators.base import Generator, Progress, RunPlan
from bothends.bench.load import measure, select_generator
from bothends.bench.results import Faults, Round
from bothends.bench.schedule import Schedule
from bothends.bench.workload import numbered, parse_script
from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed
from tests.bench.faulty_servers import datagram_server, lines, reset, stream_server
from tests.bench.min_samples import measure_until_enough

GENERATORS = [
    "python",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(bool(native.unavailable_reason()), reason=native.unavailable_reason()),
    ),
]
GENERATORS_AND_UNBATCHED = [
    *GENERATORS,
    pytest.param(
        "unbatched",
        marks=pytest.mark.skipif(bool(native.unavailable_reason()), reason=native.unavailable_reason()),
    ),
]


@pytest.fixture(params=GENERATORS)
def load_generator(request: pytest.FixtureRequest) -> Generator:
    if request.param == "unbatched":
        return native.NativeGenerator(batch=False)
    return select_generator(
        request.param, RunPlan(Endpoint("tcp", port=1), numbered(16, "echo", newline=True))
    )


def run(
    load_generator: Generator,
    endpoint: Endpoint,
    *,
    duration: float | None = None,
    connections: int = 1,
    depth: int = 1,
    timeout: float = 5.0,
    rate: float | None = None,
    reconnect: bool = False,
) -> Round:
    """Measure an echo server, possibly faulty. Without `duration`: until there are thirty responses."""
    if duration is None:
        return measure_until_enough(
            lambda seconds: run(
                load_generator,
                endpoint,
                duration=seconds,
                connections=connections,
                depth=depth,
                timeout=timeout,
                reconnect=reconnect,
            ),
            responses=30,
        )
    workload = numbered(16, "echo", newline=not endpoint.is_message_oriented, depth=depth)
    plan = RunPlan(
        endpoint,
        workload,
        connections=connections,
        depth=depth,
        duration=duration,
        timeout=timeout,
        schedule=Schedule(rate) if rate is not None else None,
        reconnect=reconnect,
    )
    return measure(plan, generator=load_generator)


@pytest.mark.spread("connections", one_in=2)
@pytest.mark.parametrize("connections", [1, 300])
def test_stalled_generator_reads_responses_before_timing_out(
    load_generator: Generator, connections: int
) -> None:
    echoed = Counter[int]()  # lines sent back, by descriptor
    blocked = False

    def block(progress: Progress) -> None:
        nonlocal blocked
        if blocked or len(echoed) < connections:
            return  # not all connections have a request outstanding
        blocked = True
        while echoed.total() < progress.completed + connections:
            select.select([], [], [], 0.01)
        select.select([], [], [], progress.total - progress.elapsed + 1.2)  # past the end and the timeout

    workload = numbered(16, "echo", newline=True)
    for duration in (0.5, 4, 16):  # a busy machine may take longer to start
        echoed.clear()
        with counting_echo_server(echoed) as endpoint:
            plan = RunPlan(endpoint, workload, connections=connections, duration=duration, timeout=1)
            found = measure(plan, generator=load_generator, on_progress=block)
        if blocked:
            break
    assert blocked
    assert found.faults == Faults()


@contextlib.contextmanager
def counting_echo_server(echoed: Counter[int]) -> Iterator[Endpoint]:
    """Echo single lines in one thread, so that no connection waits for a processor longer than others."""
    stop, stopped = socket.socketpair()

    def serve() -> None:
        connections = dict[int, socket.socket]()
        with select.epoll() as epoll:
            for each in (listener, stopped):
                epoll.register(each, select.EPOLLIN)
            while stopped.fileno() not in (ready := [descriptor for descriptor, _ in epoll.poll()]):
                for descriptor in ready:
                    if descriptor == listener.fileno():
                        connection, _ = listener.accept()
                        connections[connection.fileno()] = connection
                        epoll.register(connection, select.EPOLLIN)
                    elif data := connections[descriptor].recv(1024):
                        connections[descriptor].sendall(data)
                        echoed[descriptor] += 1
                    else:
                        epoll.unregister(descriptor)
            for connection in connections.values():
                connection.close()

    with stop, stopped, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint("tcp", host="127.0.0.1", port=listener.getsockname()[1])
        finally:
            stop.close()
            thread.join()


def corrupting_echo(count: int, corrupt: Callable[[bytes], bytes]) -> Callable[[socket.socket], None]:
    """Echo lines, but corrupt every `count`-th."""

    def handle(connection: socket.socket) -> None:
        for number, line in enumerate(lines(connection), 1):
            connection.sendall(corrupt(line) if number % count == 0 else line)

    return handle


@pytest.mark.parametrize("load_generator", GENERATORS_AND_UNBATCHED, indirect=True)
def test_correct_server_has_no_faults(load_generator: Generator) -> None:
    with stream_server(corrupting_echo(1, lambda line: line)) as endpoint:
        found = run(load_generator, endpoint, connections=5, depth=4)
    assert found.faults == Faults()
    assert 0 < found.own.cpu_share <= 1.05  # one thread of its own
    assert found.completed > 20
    assert found.uncorrected.n >= found.completed
    assert found.bytes_received == 16 * found.completed
    assert sum(found.each_second) == found.completed
    assert found.corrected is None
    assert found.ended == ""


@pytest.mark.parametrize("load_generator", GENERATORS_AND_UNBATCHED, indirect=True)
@pytest.mark.parametrize(
    ("corrupt", "fault"),
    [
        (lambda line: line[:-2] + b"?\n", "wrong"),
        (lambda line: line[:5] + b"\n", "short"),
        (lambda line: line + line, "duplicated"),
    ],
    ids=["wrong", "short", "duplicated"],
)
def test_corrupted_responses_are_counted(
    load_generator: Generator, corrupt: Callable[[bytes], bytes], fault: str
) -> None:
    with stream_server(corrupting_echo(3, corrupt)) as endpoint:
        found = run(load_generator, endpoint, connections=2)
    count = getattr(found.faults, fault)
    assert count == found.faults.total
    share = count / (found.uncorrected.n + count * (fault != "duplicated"))
    assert share == pytest.approx(1 / 3, abs=0.1)
    assert found.connections_made == 2  # no connection had to be reopened


def test_reordered_responses_are_counted(load_generator: Generator) -> None:
    def handle(connection: socket.socket) -> None:
        requests = lines(connection)
        for one, other in zip(requests, requests, strict=False):
            connection.sendall(other + one)

    with stream_server(handle) as endpoint:
        found = run(load_generator, endpoint, depth=4)
    assert found.faults.reordered == found.faults.total
    assert found.faults.reordered == pytest.approx(found.uncorrected.n / 2, abs=4)


def test_timed_out_and_late_responses_are_counted(load_generator: Generator) -> None:
    def handle(connection: socket.socket) -> None:
        held = b""
        for number, line in enumerate(lines(connection)):
            if number == 2:
                held = line
            else:
                connection.sendall(line if number != 10 else held + line)

    with stream_server(handle) as endpoint:
        found = run(load_generator, endpoint, timeout=0.1, duration=0.5)
    # One response is held back; on a busy machine others may be late too.
    assert 1 <= found.faults.late <= found.faults.timed_out
    assert found.faults == Faults(timed_out=found.faults.timed_out, late=found.faults.late)


@pytest.mark.spread("load_generator", one_in=2)
def test_script_uses_no_connection_after_a_fault(load_generator: Generator) -> None:
    """Responses of a script have no common end, so that what follows a fault cannot be assigned."""
    script = parse_script("> one\n< ONE\n> two\n< TWO\n", newline=True)
    lines_after_fault: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        received = lines(connection)
        for line in itertools.islice(received, 5):
            connection.sendall(line.upper())
        if next(received, b""):
            connection.sendall(b"wrong\n")
            lines_after_fault.extend(received)

    with stream_server(handle) as endpoint:
        plan = RunPlan(endpoint, script, connections=1, depth=1, duration=0.5, timeout=5.0)
        found = measure(plan, generator=load_generator)
    assert not lines_after_fault
    assert found.faults.wrong >= 2
    assert found.faults == Faults(wrong=found.faults.wrong)
    assert found.connections_made >= found.faults.wrong


@pytest.mark.spread("load_generator", one_in=2)
def test_script_uses_no_connection_after_a_timeout(load_generator: Generator) -> None:
    script = parse_script("> one\n< ONE\n> two\n< TWO\n", newline=True)
    lines_after_timeout: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        received = lines(connection)
        for line in itertools.islice(received, 5):
            connection.sendall(line.upper())
        if next(received, b""):
            lines_after_timeout.extend(received)

    with stream_server(handle) as endpoint:
        plan = RunPlan(endpoint, script, connections=1, depth=1, duration=0.8, timeout=0.15)
        found = measure(plan, generator=load_generator)
    assert not lines_after_timeout
    assert found.faults.timed_out >= 2
    assert found.connections_made >= found.faults.timed_out


@pytest.mark.spread("load_generator", one_in=2)
def test_reset_connections_are_counted(load_generator: Generator) -> None:
    def handle(connection: socket.socket) -> None:
        for line in itertools.islice(lines(connection), 3):
            connection.sendall(line)
        next(lines(connection), b"")
        reset(connection)

    with stream_server(handle) as endpoint:
        found = run(load_generator, endpoint)
    assert found.faults.reset >= 2
    assert found.faults == Faults(reset=found.faults.reset, lost=found.faults.lost)
    assert found.faults.reset == found.faults.lost  # one request was pending each time
    assert found.connections_made >= found.faults.reset
    assert found.completed >= 6


@pytest.mark.spread("load_generator", one_in=2)
def test_eof_within_response_is_counted_short(load_generator: Generator) -> None:
    def handle(connection: socket.socket) -> None:
        for number, line in enumerate(lines(connection)):
            if number == 2:
                connection.sendall(line[:7])
                return
            connection.sendall(line)

    with stream_server(handle) as endpoint:
        found = run(load_generator, endpoint)
    assert found.faults.short >= 2
    assert found.faults == Faults(short=found.faults.short)


def test_refused_first_connection_raises(load_generator: Generator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SystemCallFailed, match="ECONNREFUSED"):
        run(load_generator, Endpoint("tcp", host="127.0.0.1", port=port))


@pytest.mark.spread("rate", "reconnect", one_in=4)
@pytest.mark.parametrize("rate", [None, 200.0])
@pytest.mark.parametrize("reconnect", [False, True])
def test_target_exit_during_run_ends_it_early(
    load_generator: Generator, rate: float | None, reconnect: bool
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint("tcp", host="127.0.0.1", port=listener.getsockname()[1])
    exited = threading.Event()

    def serve() -> None:
        served = 0
        opened = []
        while served < 30:
            connection, _ = listener.accept()
            opened.append(connection)
            while served < 30 and (data := connection.recv(100)):
                connection.sendall(data)
                served += 1
        listener.close()
        for connection in opened:
            connection.close()
        exited.set()

    thread = threading.Thread(target=serve)
    thread.start()
    found = run(load_generator, endpoint, duration=30.0, timeout=1.0, rate=rate, reconnect=reconnect)
    thread.join()
    assert exited.is_set()
    assert found.ended.startswith("no response since")
    assert "ECONN" in found.ended
    assert found.faults.refused > 0
    assert found.completed == 30
    assert found.seconds < 25


def test_reconnect_opens_connection_per_request(load_generator: Generator) -> None:
    with stream_server(corrupting_echo(1, lambda line: line)) as endpoint:
        found = run(load_generator, endpoint, connections=3, reconnect=True)
    assert found.faults == Faults()
    assert found.connections_made >= found.uncorrected.n >= 30


def test_datagram_faults_are_counted(load_generator: Generator) -> None:
    held: list[bytes] = []

    def respond(index: int, data: bytes) -> list[bytes]:
        match index % 10:
            case 1:
                return []
            case 3:
                return [data, data]
            case 5:
                held.append(data)
                return []
            case 6:
                return [data, held.pop()]
            case 7:
                return [data[:-1]]
            case 8:
                return [data[:-1] + b"?"]
        return [data]

    with datagram_server(respond) as endpoint:
        found = run(load_generator, endpoint, depth=64, timeout=0.2, rate=400, duration=0.5)
    faults = found.faults
    each = (200 - found.unsent) / 10
    assert faults.lost == pytest.approx(each, abs=2)
    for name in ("duplicated", "reordered", "wrong", "short"):
        assert getattr(faults, name) == pytest.approx(each, abs=2), name
    assert faults.total == faults.lost + faults.duplicated + faults.reordered + faults.wrong + faults.short


@pytest.mark.spread("load_generator", one_in=2)
@pytest.mark.parametrize("options", [{}, {"reconnect": True}, {"rate": 100.0}], ids=str)
def test_latencies_are_split_and_have_their_place_in_time(
    load_generator: Generator, options: dict[str, Any]
) -> None:
    def echo_in_pieces(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for line in lines(connection):
            connection.sendall(line[:5])
            threading.Event().wait(0.02)
            connection.sendall(line[5:])

    with stream_server(echo_in_pieces) as endpoint:
        found = run(load_generator, endpoint, duration=0.3, connections=2, **options)
    assert found.parts is not None
    assert found.heat is not None
    wait, first, transfer = found.parts.wait, found.parts.first_byte, found.parts.transfer
    assert transfer.mean_us > 15_000
    assert wait.mean_us + first.mean_us + transfer.mean_us == pytest.approx(found.latency.mean_us, rel=0.01)
    assert (wait.max_us > 0) == bool(options)  # a connect, or the wait for the due time's request
    counts = [count for column in found.heat.columns for count in column[1::2]]
    assert sum(counts) == transfer.n == found.latency.n


def test_stall_appears_only_in_corrected_latency(load_generator: Generator) -> None:
    stall, rate = 0.2, 1000

    def handle(connection: socket.socket) -> None:
        for number, line in enumerate(lines(connection), 1):
            if number == 300:
                threading.Event().wait(stall)
            connection.sendall(line)

    with stream_server(handle) as endpoint:
        found = run(load_generator, endpoint, rate=rate, duration=1.2)
    assert found.faults == Faults()
    assert found.corrected is not None
    assert found.uncorrected.n == found.corrected.n == 1200 - found.unsent > 1000
    # 200 requests were due during the stall; only one of them had been sent.
    assert found.corrected.percentiles_us["p99"] > 150_000
    assert found.uncorrected.percentiles_us["p99"] < 100_000
    assert found.uncorrected.max_us > 190_000


def test_due_requests_without_idle_connection_are_counted_unsent(load_generator: Generator) -> None:
    def handle(connection: socket.socket) -> None:
        for line in lines(connection):
            threading.Event().wait(0.02)
            connection.sendall(line)

    with stream_server(handle) as endpoint:
        found = run(load_generator, endpoint, rate=500, duration=0.4)
    assert found.faults == Faults()
    assert found.completed <= 20
    assert found.unsent == pytest.approx(200 - found.uncorrected.n, abs=1)
    assert found.unsent > 150


def test_progress_is_reported(load_generator: Generator) -> None:
    reports: list[Progress] = []
    with stream_server(corrupting_echo(1, lambda line: line)) as endpoint:
        workload = numbered(16, "echo", newline=True)
        measure(
            RunPlan(endpoint, workload, duration=0.6), generator=load_generator, on_progress=reports.append
        )
    assert 1 <= len(reports) <= 6
    assert [each.elapsed for each in reports] == sorted(each.elapsed for each in reports)
    assert reports[-1].completed > 0
