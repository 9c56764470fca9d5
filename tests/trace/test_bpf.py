"""eBPF as the source of calls: against strace's own log, in the same run; and what only eBPF can follow."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from bothends.trace.capture import bpf as bpf_module
from bothends.trace.capture.bpf import BpfSource
from bothends.trace.capture.calls import WAITING, CallDecoder
from bothends.trace.capture.descriptors import SocketRegistry
from bothends.trace.capture.running_processes import find_cgroup, pids_at_port, pids_in_cgroup
from bothends.trace.capture.strace import OPTIONS, CallsLost, CallStarted, DataMoved, StraceParser
from bothends.trace.capture.tracees import thread_ids
from bothends.trace.model import Call, ProcessEvent, Trace
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ENVIRONMENT, TIMEOUT, Running
from tests.tools import needs_tool
from tests.trace import corpus
from tests.trace.running import PYTHON, calls, python_command, run_traced
from tests.trace.test_against_others import calls_in_strace_log, calls_in_trace

pytestmark = pytest.mark.usefixtures("bpf")

# Healthy programs of many kinds, each with the calls that are particular about it.
COMPARED: Final = {
    "echo-lines": True,
    "c-select-chat": False,
    "udp-sendmmsg-burst": False,
    "c-epoll-threads": False,
    "fork-count": False,
    "forking-server": False,
    "java-echo-threads": False,
    "java-nio-selector": False,
    "node-echo": False,
    "node-udp": False,
    "unix-seqpacket": False,
    "fd-passing": False,
    "signals-eintr": False,
    "sendfile": False,
    "curl-nginx": False,
    "redis-load": False,
}
# Their logs have waits for UNIX sockets and pipes, which are not recognized as waits for sockets.
WITHOUT_WAITS: Final = {"curl-nginx", "node-echo", "node-udp"}
CASES: Final = {case.values[0].folder.name: case.values[0] for case in corpus.load_cases("healthy")}
TRACE: Final = [*BOTHENDS, "trace", "--with", "bpf", "--calls-only", "--json"]
ECHO: Final = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    with listener.accept()[0] as connection:
        while data := connection.recv(100):
            connection.sendall(data)
"""


@needs_tool("strace")
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if quick else pytest.mark.slow) for each, quick in COMPARED.items()]
)
def test_calls_match_the_log_of_strace_in_the_same_run(name: str, tmp_path: Path) -> None:
    logs: dict[str, Path] = {}

    def under_strace(role: str, command: list[str]) -> list[str]:
        logs[role] = tmp_path / f"{role}.strace"
        return ["strace", *OPTIONS, "-o", str(logs[role]), "--", *command]

    trace = corpus.run_case(CASES[name], tmp_path / "programs", under_strace)
    texts = {role: path.read_text() for role, path in logs.items()}
    clients = [text for role, text in texts.items() if role in corpus.CLIENTS]
    ended_at = max(float(line.split()[1]) for text in clients for line in text.splitlines())
    found = calls_in_trace(trace)
    compared = 0
    for text in texts.values():
        for thread, logged in calls_in_strace_log(text).items():
            left_out = WAITING | {"epoll_ctl"} if name in WITHOUT_WAITS else {"epoll_ctl"}
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
    assert compared > 5


def test_data_and_addresses_of_a_pair() -> None:
    client = (
        "import socket; s = socket.create_connection(('127.0.0.1', {port}));"
        " s.sendall(b'x' * 5000); s.recv(9)"
    )
    server = (
        "import socket; l = socket.create_server(('127.0.0.1', 0)); c, _ = l.accept();"
        " c.recv(5000, socket.MSG_WAITALL); c.sendmsg([b'an', b'swer'])"
    )
    trace = run_traced(python_command(client), server=python_command(server))
    (sent,) = calls(trace, "client", "sendto")
    assert (sent.requested, sent.size, sent.data) == (5000, 5000, b"x" * 4096)
    (received,) = calls(trace, "server", "recvfrom")
    assert (received.size, received.flags) == (5000, frozenset({"MSG_WAITALL"}))
    (answer,) = calls(trace, "server", "sendmsg")
    assert (answer.size, answer.data) == (6, b"answer")
    (accepted,) = calls(trace, "server", "accept4")
    assert accepted.address == trace.sockets[sent.socket or 0].local


def test_blocked_call_is_shown_while_it_lasts() -> None:
    source = "import socket; a, b = socket.socketpair(); a.sendall(b'here'); b.recv(9); print(b.recv(9))"
    with Running([*BOTHENDS, "trace", "--with", "bpf", "--", *python_command(source)]) as running:
        running.text(rb"recvfrom\(\d+, 9\) = 4")
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 130


def test_repeated_calls_without_data_are_left_out_and_counted() -> None:
    source = (
        "import select, socket; a, b = socket.socketpair(); b.close()\n"
        "for _ in range(20_000): select.select([a], [], [], 1); a.recv(1)"
    )
    trace = _run_with_notes(source)
    made = Counter(each.name for each in trace["calls"])
    assert 2_000 < made["pselect6"] + made["select"] < 10_000
    assert [each for each in trace["notes"] if "calls that repeat earlier ones without moving data" in each]


def test_lost_calls_are_marked_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_module, "MAX_WAITING", 4 << 20)
    rounds = 20_000
    source = (
        "import os, socket; a, b = socket.socketpair()\n"
        f"for _ in range({rounds}): a.sendall(b'here'); b.recv(9)\n"
        "os.write(1, b'+'); os.read(0, 1); a.sendall(b'there'); b.recv(9)\n"
    )
    text = b""
    with BpfSource() as bpf:
        number = bpf.add_program()
        with (
            bpf.spawning(number),
            subprocess.Popen(
                python_command(source), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.read(1) == b"+"
            while data := bpf.read(number, 1 << 20)[0]:
                text += data
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.wait(TIMEOUT)
            while data := bpf.read(number, 1 << 20)[0]:
                text += data
    found = [each for each in StraceParser().feed(text) if not isinstance(each, CallStarted)]
    (lost,) = (each for each in found if isinstance(each, CallsLost))
    moved = [each for each in found if isinstance(each, DataMoved) and each.data in (b"here", b"there")]
    assert lost.count > 1000
    assert 2 * rounds + 2 - len(moved) <= lost.count <= 2 * rounds + 4 - len(moved)  # write(), read(0)
    at = found.index(lost)
    assert [each.data for each in moved if each.at > lost.at] == [b"there"] * 2
    assert at > len(moved) / 2
    trace = Trace()
    decoder = CallDecoder(trace, SocketRegistry(), itertools.count(1), "client")
    points = list(decoder.decode(StraceParser().feed(text)))
    notes = [
        each.event for each in points if isinstance(each.event, ProcessEvent) and each.event.kind == "note"
    ]
    assert [each.text for each in notes] == [f"{lost.count:,} calls are missing here"]


def _run_with_notes(source: str) -> dict[str, Any]:
    from bothends.trace.session import TraceSession

    with BpfSource() as bpf:
        session = TraceSession(lambda _: None, bpf=bpf)
        session.add_client("client", python_command(source), inherit_stdin=False)
        session.run()
    events = [each for each in session.trace.events() if isinstance(each, Call)]
    return {"calls": events, "notes": session.trace.notes}


@pytest.mark.parametrize("backend", ["io_uring"])
def test_operations_of_io_uring_are_seen(backend: str, tmp_path: Path) -> None:
    _skip_without_io_uring()
    port = corpus._free_ports(1)[0]
    server = [*BOTHENDS, "serve", "echo", f"tcp://127.0.0.1:{port}", "--engine", "native", "--quiet"]
    client = f"import socket; s = socket.create_connection(('127.0.0.1', {port})); s.send(b'ring'); s.recv(9)"
    trace = run_traced(python_command(client), server=["env", f"BOTHENDS_NATIVE={backend}", *server])
    sent = [each for each in calls(trace, "server", "sendto", "sendmsg") if each.data == b"ring"]
    assert [each.size for each in sent] == [4]
    received = [each.size for each in calls(trace, "server", "recvfrom", "recvmsg") if not each.failed]
    assert received == [4, 0]


def _skip_without_io_uring() -> None:
    from bothends.engines.native import choose_backend

    if choose_backend("io_uring")[0] != "io_uring":
        pytest.skip("io_uring is not available here")


def test_port_is_followed_without_stopping_anything(tmp_path: Path) -> None:
    with Running(python_command(ECHO)) as server:
        port = int(server.line(rb"(\d+)")[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            _exchange(client, b"before")
            with Running([*TRACE, "--port", str(port)]) as trace:
                trace.text(rb'"recvfrom"')  # the call that the server was in
                _exchange(client, b"during")
                trace.text(rb'"recvfrom".*during')
                trace.process.send_signal(signal.SIGINT)
                assert trace.wait() == 130
            _exchange(client, b"after")
        events = [json.loads(line) for line in str(trace.stdout).splitlines()]
    roles = {each["process"]["pid"]: each["process"]["role"] for each in events if "process" in each}
    assert server.process.pid in roles


def test_client_that_connects_to_a_followed_port_is_followed() -> None:
    with Running(python_command(ECHO)) as server:
        port = int(server.line(rb"(\d+)")[1])
        with Running([*TRACE, "--port", str(port)]) as trace:
            trace.text(rb'"accept4"')
            source = f"import socket; s = socket.create_connection(('127.0.0.1', {port})); s.send(b'hi')"
            subprocess.run(python_command(source), check=True, timeout=TIMEOUT)
            trace.text(rb'"connect"')
            trace.process.send_signal(signal.SIGINT)
            assert trace.wait() == 130


def _exchange(client: socket.socket, data: bytes) -> None:
    client.settimeout(TIMEOUT)
    client.sendall(data)
    assert client.recv(100) == data


def test_kill_of_bothends_leaves_followed_processes_alone() -> None:
    with Running(python_command(ECHO)) as server:
        port = int(server.line(rb"(\d+)")[1])
        with Running([*TRACE, "--port", str(port)]) as trace:
            trace.text(rb'"accept4"')
            trace.process.kill()
            trace.wait()
        with socket.create_connection(("127.0.0.1", port)) as client:
            _exchange(client, b"alive")
        assert server.process.poll() is None


def test_pids_at_port_are_those_with_a_socket_there() -> None:
    with Running(python_command(ECHO)) as server:
        assert pids_at_port(int(server.line(rb"(\d+)")[1])) == [server.process.pid]


def test_pids_in_cgroup_include_those_of_nested_groups(tmp_path: Path) -> None:
    (tmp_path / "nested").mkdir()
    (tmp_path / "cgroup.procs").write_text("12\n")
    (tmp_path / "nested" / "cgroup.procs").write_text(f"34\n0\n{os.getpid()}\n")
    assert pids_in_cgroup(find_cgroup(str(tmp_path))) == [12, 34]


def test_program_without_privilege_falls_back_to_strace() -> None:
    drop = ["setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    command = [*drop, sys.executable, "-m", "bothends", "trace", "--with", "bpf", "--", "true"]
    finished = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert finished.returncode == 69
    assert (
        finished.stderr == "bothends: cannot trace with bpf: EPERM (Operation not permitted); run as root\n"
    )


def test_source_sees_nothing_of_other_processes() -> None:
    with BpfSource() as source:
        number = source.add_program()
        subprocess.run([*PYTHON, "-c", "import socket; a, b = socket.socketpair(); a.send(b'x')"], check=True)
        assert source.read(number, 1 << 20) == (b"", [])
        before = time.time_ns()
        assert before - 1_000_000_000 < source.horizon() <= time.time_ns()


def test_ring_buffer_is_read_at_a_high_priority() -> None:
    source = BpfSource()
    try:
        deadline = time.monotonic() + TIMEOUT
        found: set[int] = set()
        while min(found, default=0) >= 0 and time.monotonic() < deadline:
            os.sched_yield()
            found = {os.getpriority(os.PRIO_PROCESS, each) for each in thread_ids(os.getpid())}
        assert -15 in found
    finally:
        source.close()


def test_threads_with_neighbouring_ids_are_each_followed_and_forgotten() -> None:
    threads = 40
    source = (
        "import socket, threading\n"
        f"together = threading.Barrier({threads})\n"
        "def talk():\n"
        "    a, b = socket.socketpair(); together.wait(); a.send(b'x'); together.wait()\n"
        f"started = [threading.Thread(target=talk) for _ in range({threads})]\n"
        "for each in started: each.start()\n"
        "for each in started: each.join()\n"
    )
    with BpfSource() as bpf:
        for number in (bpf.add_program(), bpf.add_program()):  # the second one takes the slots of the first
            with bpf.spawning(number), subprocess.Popen(python_command(source)) as process:
                assert process.wait(TIMEOUT) == 0
            text, deadline = b"", time.monotonic() + TIMEOUT
            while not bpf.has_ended(number) and time.monotonic() < deadline:
                text += bpf.read(number, 1 << 20)[0]
            senders = {line.split()[0] for line in text.splitlines() if b" sendto(" in line}
            assert len(senders) == threads
        assert bpf.describe_lost() == []


class BusySource:
    """What `_bpf.Source` says of itself, without one."""

    def __init__(self) -> None:
        self.late, self.records, self.is_running = 0, 0, True

    def horizon(self) -> int:
        return time.time_ns() - self.late

    def waiting(self) -> int:
        return self.records

    def is_alive(self) -> bool:
        return self.is_running

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("late", "records", "is_running", "yields"),
    [
        (10 * bpf_module.LAG, 10 * bpf_module.BACKLOG, True, True),
        (0, 10 * bpf_module.BACKLOG, True, False),
        (10 * bpf_module.LAG, bpf_module.BACKLOG, True, False),  # other programs use the processors
        (10 * bpf_module.LAG, 10 * bpf_module.BACKLOG, False, False),  # nobody is slowed any more
    ],
)
def test_reading_yields_the_processors_while_much_waits_and_programs_run(
    late: int, records: int, is_running: bool, yields: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = BusySource()
    monkeypatch.setattr(bpf_module, "_open_source", lambda: source)
    before = os.sched_getscheduler(0)
    with BpfSource() as bpf:
        source.late, source.records, source.is_running = late, records, is_running
        bpf.horizon()
        assert (os.sched_getscheduler(0) == os.SCHED_IDLE) == yields
        source.late = 0
        bpf.horizon()
        assert os.sched_getscheduler(0) == before
        source.late = late
        bpf.horizon()
    assert os.sched_getscheduler(0) == before
