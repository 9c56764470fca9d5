"""The classic pairs under a real strace, most of them with `bothends trace` as a process."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.sockets.free_port import free_port
from bothends.trace.capture.calls import RECEIVING
from bothends.trace.model import Call, Packet, Trace
from tests.interop.running import ENVIRONMENT, ROOT, Running, run
from tests.tools import find_tool, needs_tool
from tests.trace.running import calls as seen
from tests.trace.running import has_packets, python_command, run_traced
from tests.trace.running import packets as seen_packets

pytestmark = [pytest.mark.usefixtures("call_source"), pytest.mark.spread("call_source", one_in=2)]

PROGRAMS = ROOT / "tests" / "interop" / "programs"
TIMEOUT = 40

pytestmark = [needs_tool("strace")]


def trace_output(*arguments: str, stdin_text: str = "", status: int = 0) -> str:
    """Run `bothends trace`. Returns its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "bothends", "trace", "--width", "140", *arguments],
        input=stdin_text.encode(),
        capture_output=True,
        timeout=TIMEOUT,
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": ""},  # programs write whole lines to the shared output
        check=False,
    )
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode()


def pair(server: str, client: str) -> tuple[str, ...]:
    python = sys.executable
    return (
        "--server",
        f"{python} {PROGRAMS}/python/{server}",
        "--client",
        f"{python} {PROGRAMS}/python/{client} 127.0.0.1 {{port}}",
    )


def calls(shown: str, lane: int) -> list[str]:
    """Return the calls in a lane. A call with two rows, for its start and its end, counts once."""
    found = []
    for line in shown.splitlines():
        cells = re.split("[│┆]", line)
        if len(cells) > lane + 1 and (call := re.match(r" (\w+)\(", cells[lane + 1])):
            found.append(call[1])
    return [name for name, before in zip(found, ["", *found], strict=False) if name != before]


def test_tcp_pair_in_python() -> None:
    shown = trace_output(*pair("tcp_server.py", "tcp_client.py"), "--calls-only", stdin_text="hello\n")
    assert "From Server: HELLO" in shown
    assert calls(shown, 0)[:3] == ["socket", "bind", "listen"]
    assert [each for each in calls(shown, 1) if each != "recvfrom"] == [
        "socket",
        "connect",
        "sendto",
        "close",
    ]
    order = [
        "listen(3, 1)",
        "connect(3, 127.0.0.1:",
        "accept4(3) = 4 from 127.0.0.1:",
        'recvfrom(4, 1024) = 5 "hello"',
    ]
    positions = [shown.index(each) for each in order]
    assert positions == sorted(positions)


C_PAIRS = ("fork_server", "udp_server", "unix_server")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled C programs."""
    folder = tmp_path_factory.mktemp("c")
    for source in (*C_PAIRS, "tcp_client", "udp_client", "unix_client"):
        subprocess.run(
            [str(find_tool("cc")), "-o", folder / source, PROGRAMS / "c" / f"{source}.c"], check=True
        )
    return folder


def sends_feeding(trace: Trace, receive: Call) -> list[Call]:
    """Return the calls that sent the bytes of a receive, through packets or directly."""
    found = []
    for link in trace.causes_of(receive.number):
        cause = trace.event(link.cause)
        if isinstance(cause, Packet):
            found += [trace.event(each.cause) for each in trace.causes_of(cause.number)]
        elif link.kind == "reaches":
            found.append(cause)
    return [each for each in found if isinstance(each, Call)]


@needs_tool("cc")
def test_forking_server_in_c(built: Path) -> None:
    trace = run_traced(
        [str(built / "tcp_client"), "127.0.0.1", "{port}"],
        server=[str(built / "fork_server")],
        stdin_text="hi\n",
    )
    (accept,) = [each for each in seen(trace, "server", "accept", "accept4") if each.result is not None]
    connection = trace.sockets[accept.created_id or 0]
    child = next(each for each in trace.processes.values() if each.role == "server/2")
    assert trace.processes[child.parent or 0].role == "server"
    received = [each for each in seen(trace, "server/2", "recvfrom", "read") if each.size]
    assert {each.socket for each in received} == {connection.number}
    (sent,) = {each.number: each for each in sends_feeding(trace, received[0])}.values()
    assert trace.processes[sent.process].role == "client"
    assert sent.data.startswith(b"hi")


@needs_tool("cc")
def test_datagrams_in_c(built: Path) -> None:
    trace = run_traced(
        [str(built / "udp_client"), "127.0.0.1", "{port}"],
        server=[str(built / "udp_server")],
        stdin_text="hi\n",
    )
    request, reply = [
        each for role in ("server", "client") for each in seen(trace, role, "recvfrom") if each.size
    ]
    assert [trace.processes[each.process].role for each in sends_feeding(trace, request)][:1] == ["client"]
    assert [trace.processes[each.process].role for each in sends_feeding(trace, reply)][:1] == ["server"]
    if has_packets():
        assert [packet.size for packet in seen_packets(trace)] == [request.size, reply.size]


def test_unix_socket_pair_has_no_packets(tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = python_command(
        f"from socket import *\ns = socket(AF_UNIX)\ns.bind({str(path)!r})\ns.listen(1)\nc, _ = s.accept()\n"
        "c.sendall(c.recv(100).upper())\nc.recv(1)"
    )
    client = python_command(
        f"from socket import *\ns = socket(AF_UNIX)\ns.connect({str(path)!r})\ns.sendall(b'hi')\ns.recv(9)"
    )
    trace = run_traced(client, server=server)
    assert seen_packets(trace) == []
    (reply,) = [each for each in seen(trace, "client", "recvfrom") if each.size]
    assert [(each.data, trace.processes[each.process].role) for each in sends_feeding(trace, reply)] == [
        (b"HI", "server")
    ]


def test_trace_order_keeps_causality() -> None:
    server = python_command(
        "from socket import *\ns = create_server(('127.0.0.1', 0))\nfor _ in range(10):\n"
        "    c, _ = s.accept()\n    c.sendall(c.recv(100))\n    c.close()"
    )
    client = python_command(
        "from socket import *\nfor _ in range(5):\n    c = create_connection(('127.0.0.1', {port}))\n"
        "    c.sendall(b'x')\n    c.recv(9)\n    c.recv(9)\n    c.close()"
    )
    trace = run_traced(client, client, server=server)
    position = {(each.event.number, each.is_end): index for index, each in enumerate(trace.points)}
    links = list(trace.links())
    assert len(links) > 20
    for link in links:
        effect = position.get((link.effect, True), position.get((link.effect, False), 0))
        assert position[link.cause, False] < effect


@needs_tool("cc")
def test_endpoint_packets_are_captured_for_untraced_programs(built: Path) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    with Running([str(built / "udp_server")]) as server:
        port = server.line(rb"port (\d+)")[1].decode()
        url = f"udp://127.0.0.1:{port}"
        with Running(
            [sys.executable, "-m", "bothends", "trace", "--width", "120", "--endpoint", url]
        ) as trace:
            trace.error_line(rb"packets of udp://.*; press \^C to stop")
            run([str(built / "udp_client"), "127.0.0.1", port], b"hello\n")
            trace.text(rb'UDP 5 bytes "hello"(?s:.*)UDP 5 bytes "HELLO"')
            trace.process.send_signal(signal.SIGINT)
            assert trace.wait() == 0


@pytest.mark.slow
@needs_tool("psql")
@needs_tool("initdb")
@needs_tool("setpriv")
def test_psql_and_postgresql(postgres_command: list[str]) -> None:
    port = free_port()
    query = f"psql -h 127.0.0.1 -p {port} -U postgres -w -c 'select 6 * 7 as answer'"
    # The port is open before the database is ready; until then the server closes each connection with an
    # error.
    client_command = ["sh", "-c", f"until {query}; do sleep 0.2; done"]
    trace = run_traced(client_command, server=[*postgres_command, "-p", str(port)])
    assert trace.notes == []
    clients = {each.number for each in trace.processes.values() if each.role.startswith("client")}
    received = [
        each
        for each in trace.events()
        if isinstance(each, Call) and each.name in RECEIVING and b"answer" in each.data
    ]
    replies = [each for each in received if each.process in clients]
    requests = [each for each in received if each.process not in clients]
    assert replies
    assert requests
    assert all(sends_feeding(trace, each) for each in (replies[-1], requests[-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "server", "client"),
    [
        ("curl", "{python} -S -m http.server --bind 127.0.0.1 0", "curl -s http://127.0.0.1:{{port}}/"),
        ("nc", "nc -l 127.0.0.1 {port}", "nc -N 127.0.0.1 {port}"),
        ("ncat", "ncat -l 127.0.0.1 {port}", "ncat 127.0.0.1 {port}"),
        ("socat", "socat TCP-LISTEN:{port},reuseaddr,fork EXEC:cat", "socat - TCP:127.0.0.1:{port}"),
        ("redis-server", "redis-server --port {port} --save ''", "redis-cli -p {port} set key value"),
    ],
)
def test_third_party_programs(tool: str, server: str, client: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} isn't installed")
    port = free_port()
    commands = [shlex.split(each.format(python=sys.executable, port=port)) for each in (server, client)]
    trace = run_traced(commands[1], server=commands[0], stdin_text="hello\n")
    assert trace.notes == []
    assert [
        each for each in seen(trace, "client", "connect") if each.result == 0 or each.error == "EINPROGRESS"
    ]
    received = [
        each for each in trace.events() if isinstance(each, Call) and each.name in RECEIVING and each.size
    ]
    assert any(sends_feeding(trace, each) for each in received)
