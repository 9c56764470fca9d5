"""Each kind of problem, on real programs."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from bothends.socket_table import EntryAddress, SocketEntry
from bothends.sockets.free_port import free_port
from bothends.why import Problem, Snapshot, make_report, take_snapshot
from bothends.why.explain import Subject
from bothends.why.model import KernelLimits
from bothends.why.problems import inactivity
from tests.tools import needs_tool
from tests.why.programs import CLIENT, Programs, find, look, until

SERVE_FIRST = "connection, _ = listener.accept()\nconnection.recv(1)\n"


@pytest.mark.slow
def test_stalled_sender_of_a_stopped_reader(programs: Programs) -> None:
    server, client, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.sendall(bytes(64 << 20))\n", "input()\n"
    )
    os.kill(client, signal.SIGSTOP)
    problem = find("stalled", server)
    assert f"server.py[{server}] has been unable to send on tcp" in problem.text
    assert f"client.py[{client}] is stopped by a signal or a debugger" in problem.text
    assert "the window is zero" in problem.seen


@pytest.mark.slow
def test_stalled_server_with_other_clients(programs: Programs) -> None:
    server, client, port = programs.pair(
        "one, _ = listener.accept()\ntwo, _ = listener.accept()\none.sendall(bytes(64 << 20))\n", "input()\n"
    )
    programs.start("second.py", CLIENT + "connection.sendall(b'x')\nconnection.recv(1)\n", str(port))
    os.kill(client, signal.SIGSTOP)
    problem = find("stalled", server)
    assert f"Meanwhile server.py[{server}] does not serve 1 other socket with unread input" in problem.text


@pytest.mark.slow
def test_unread_data_of_a_client_at_its_terminal(programs: Programs) -> None:
    server, port = programs.start(
        "server.py",
        "import socket\nlistener = socket.create_server(('127.0.0.1', 0))\n"
        "print(listener.getsockname()[1], flush=True)\n"
        "connection, _ = listener.accept()\nconnection.sendall(b'news')\nlistener.accept()\n",
    )
    client, _ = programs.start("client.py", CLIENT + "import os\nos.read(0, 1)\n", port, terminal=True)
    problem = find("unread", client)
    assert problem.text.startswith("4 bytes on tcp")
    assert f"client.py[{client}] waits in read(0) for its terminal" in problem.text
    assert server in problem.pids


@pytest.mark.slow
def test_edge_triggered_epoll_that_was_not_drained(programs: Programs) -> None:
    serve = (
        "import select\n"
        "connection, _ = listener.accept()\n"
        "epoll = select.epoll()\n"
        "epoll.register(connection, select.EPOLLIN | select.EPOLLET)\n"
        "epoll.register(listener, select.EPOLLIN)\n"
        "while epoll.poll(): connection.recv(1)\n"
    )
    server, client, _ = programs.pair(serve, "connection.sendall(bytes(100))\nconnection.recv(100)\n")
    problem = find("unread", server)
    assert "EPOLLET" in problem.text
    assert f"client.py[{client}] waits for its answer" in problem.text


@pytest.mark.slow
def test_accept_queue_is_full(programs: Programs) -> None:
    code = (
        "import socket\n"
        "listener = socket.socket()\n"
        "listener.bind(('127.0.0.1', 0))\n"
        "listener.listen(1)\n"
        "print(listener.getsockname()[1], flush=True)\n"
        "one, _ = listener.accept()\n"
        "one.recv(1)\n"
    )
    server, port = programs.start("server.py", code)
    first, _ = programs.start("first.py", CLIENT + "input()\n", port)
    client = (
        "import socket, sys\n"
        "several = []\n"
        "for _ in range(6):\n"
        "    several.append(socket.socket())\n"
        "    several[-1].setblocking(False)\n"
        "    several[-1].connect_ex(('127.0.0.1', int(sys.argv[1])))\n"
        "print('connecting', flush=True)\n"
        "input()\n"
    )
    second, _ = programs.start("client.py", client, port)
    full = find("accept queue", server, condition=lambda problem: "The queue is full" in problem.text)
    assert f"of client.py[{second}] wait in the accept queue of tcp 127.0.0.1:{port}" in full.text
    assert f"server.py[{server}] waits in recv(4)" in full.text
    dropped = find("accept queue", second, condition=lambda problem: "its SYN was" in problem.text)
    assert f"the accept queue of server.py[{server}] is full" in dropped.text
    assert not [problem for problem in look(second)[1].problems if problem.kind == "vanished"]
    assert first


@pytest.mark.slow
def test_close_wait(programs: Programs) -> None:
    server, client, _ = programs.pair(
        "several = [listener.accept() for _ in range(4)]\nseveral[0][0].sendall(b'x')\nlistener.accept()\n",
        "address = connection.getpeername()\n"
        "for _ in range(3): socket.create_connection(address).close()\n"
        "connection.recv(1)\ninput()\n",
    )
    problem = find("close-wait", server, condition=lambda problem: problem.is_wrong)
    assert f"server.py[{server}] holds 3 connections open that the peer has closed" in problem.text
    assert client not in problem.pids


def test_dropped_datagrams(programs: Programs) -> None:
    code = (
        "import socket\n"
        "receiver = socket.socket(type=socket.SOCK_DGRAM)\n"
        "receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)\n"
        "receiver.bind(('127.0.0.1', 0))\n"
        "print(receiver.getsockname()[1], flush=True)\n"
        "input()\n"
    )
    pid, port = programs.start("receiver.py", code)
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        for _ in range(200):
            sender.sendto(bytes(1000), ("127.0.0.1", int(port)))
    problem = find("drops", pid)
    assert problem.is_wrong
    assert "It is full now" in problem.text
    assert problem.certainty == "inferred"


def test_descriptors_run_out(programs: Programs) -> None:
    code = (
        "import resource, socket\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "several = [socket.socketpair() for _ in range(28)]\n"
        "print('ready', flush=True)\n"
        "input()\n"
    )
    pid, _ = programs.start("leak.py", code)
    problem = find("exhaustion", pid)
    assert "of 64 descriptors open, of which 56 are sockets" in problem.text


def test_shared_port_with_one_socket_that_is_not_read(programs: Programs) -> None:
    code = (
        "import socket\n"
        "def bind(port):\n"
        "    sock = socket.socket(type=socket.SOCK_DGRAM)\n"
        "    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "    sock.bind(('127.0.0.1', port))\n"
        "    return sock\n"
        "stale = bind(0)\n"
        "served = bind(stale.getsockname()[1])\n"
        "print(served.getsockname()[1], flush=True)\n"
        "while True: served.recv(100)\n"
    )
    pid, port = programs.start("server.py", code)
    for _ in range(40):  # the kernel chooses a socket by a hash of the sender's port
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", int(port)))
    problem = find("shared port", pid)
    assert f"server.py[{pid}] fd 3, in which" in problem.text
    assert f"server.py[{pid}] fd 4 is served" in problem.text


def test_reach_is_information(programs: Programs) -> None:
    pid, port = programs.start("server.py", "import socket\n" + LISTEN + "listener.accept()\n")
    problem = find("reach", pid)
    assert not problem.is_wrong
    assert f"127.0.0.1:{port}" in problem.text or problem.text.endswith(" more.")  # with those of other tests


LISTEN = "listener = socket.create_server(('127.0.0.1', 0))\nprint(listener.getsockname()[1], flush=True)\n"


@pytest.mark.slow
def test_server_that_answers_and_leaves_the_connection_open(programs: Programs) -> None:
    server, client, _ = programs.pair(
        "several = []\n"
        "while True:\n"
        "    several.append(listener.accept()[0])\n"
        "    several[-1].recv(100)\n"
        "    several[-1].sendall(b'answer')\n",
        "connection.sendall(b'request')\nwhile connection.recv(100): pass\n",
    )
    problem = find("held open", client)
    assert problem.is_wrong
    assert f"server.py[{server}] still has the other end open, and waits only for new clients" in problem.text
    assert f"server.py[{server}] fd 4" in problem.remedy
    assert problem.certainty == "inferred"


@pytest.mark.parametrize(
    ("listen", "text"),
    [
        (
            "listener = socket.create_server(('127.0.0.1', {free}))",
            "listens on 127.0.0.1:{port} only: connect() from",
        ),
        (
            "listener = socket.create_server(('::', {free}), family=socket.AF_INET6)",
            "listens on [::]:{port} only with IPV6_V6ONLY: connect() to an IPv4 address",
        ),
    ],
    ids=["loopback", "v6only"],
)
def test_reach_is_the_answer_about_a_port_without_clients(programs: Programs, listen: str, text: str) -> None:
    listen = listen.format(free=free_port())  # which is no ephemeral port of another test
    code = f"import socket\n{listen}\nprint(listener.getsockname()[1], flush=True)\n"
    code += "kept = listener.accept()\ninput()\n"
    pid, port = programs.start("server.py", code)
    if not port:
        pytest.skip("this system has no IPv6")
    asked = Subject(f":{port}", port=int(port))
    (problem,) = make_report(take_snapshot(), asked).problems
    assert problem.is_wrong
    assert problem.text.startswith(f"server.py[{pid}] {text.format(port=port)}")
    assert problem.certainty == "inferred"
    address = "::1" if "INET6" in listen else "127.0.0.1"
    with socket.create_connection((address, int(port))):
        reports = make_report(take_snapshot(), asked).problems
        assert len(reports) == 1, reports
        (used,) = reports
    assert not used.is_wrong


def test_local_ports_are_used_up() -> None:
    entries = [
        SocketEntry(
            "inet",
            "stream",
            "tcp",
            "TIME-WAIT" if port % 2 else "ESTABLISHED",
            EntryAddress("10.0.0.1", port),
            EntryAddress("10.0.0.2", 443),
            port,
        )
        for port in range(40_000, 40_095)
    ]
    limits = KernelLimits(first_port=40_000, last_port=40_099)
    (problem,) = make_report(Snapshot(entries, limits=limits)).problems
    assert problem.text == (
        "95 of 100 local ports for connections to 10.0.0.2:443 are in use, 47 of them in TIME-WAIT: connect()"
        " will fail with EADDRNOTAVAIL."
    )
    assert make_report(Snapshot(entries[:50], limits=limits)).problems == []


def test_window_of_a_peer_that_is_not_visible_is_zero(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's end is taken out of the snapshot, as if it were on another machine."""
    monkeypatch.setattr(inactivity, "BUSY_SECONDS", 0.5)
    server, client, port = programs.pair(
        "connection, _ = listener.accept()\nconnection.sendall(bytes(64 << 20))\n", "input()\n"
    )

    def remote(snapshot: Snapshot) -> Snapshot:
        kept = [entry for entry in snapshot.sockets if client not in {owner.pid for owner in entry.owners}]
        processes = {pid: each for pid, each in snapshot.processes.items() if pid != client}
        return Snapshot(kept, processes, snapshot.limits)

    def stalled(snapshot: Snapshot) -> list[Problem]:
        report = make_report(remote(snapshot), Subject(str(server), pids=(server,)))
        return [problem for problem in report.problems if problem.kind == "stalled"]

    (problem,) = stalled(until(lambda snapshot: bool(stalled(snapshot)), server))
    assert f"server.py[{server}] has been unable to send on tcp 127.0.0.1:{port}" in problem.text
    assert problem.text.endswith("the window of the other end is zero.")
    assert problem.certainty == "inferred"


# Each runs in its own network namespace, with functions that set the flags of its loopback interface.
NAMESPACE = (
    "import fcntl, os, socket, struct, subprocess\n"
    "from bothends.osutil.namespaces import CLONE_NEWNET, unshare\n"
    "unshare(CLONE_NEWNET)\n"
    "def set_flags(flags):\n"
    "    with socket.socket(type=socket.SOCK_DGRAM) as control:\n"
    "        fcntl.ioctl(control, 0x8914, struct.pack('16sh14x', b'lo', flags))\n"
    "set_flags(1)\n"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root enters the network namespaces of others")


def start_in_namespace(programs: Programs, name: str, code: str) -> int:
    pid, ready = programs.start(name, NAMESPACE + code)
    if ready != "ready":
        pytest.skip("this system forbids network namespaces, or has no virtual interfaces")
    return pid


@pytest.mark.slow
@needs_root
def test_peer_that_vanishes_in_another_network_namespace(programs: Programs) -> None:
    code = (
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "accepted, _ = listener.accept()\n"
        "set_flags(0)\n"
        "client.sendall(b'hello')\n"
        "print('ready', flush=True)\n"
        "client.recv(1)\n"
    )
    pid = start_in_namespace(programs, "lost.py", code)
    problem = find("vanished", pid)
    assert f"does not answer lost.py[{pid}]: 5 bytes have not been acknowledged for about" in problem.text
    assert "The kernel gives up in about 15 min" in problem.text
    assert problem.certainty == "inferred"


@pytest.mark.slow
@needs_root
def test_keepalive_probes_that_are_not_answered(programs: Programs) -> None:
    code = (
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "accepted, _ = listener.accept()\n"
        "client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)\n"
        "client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)\n"
        "client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)\n"
        "client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 100)\n"
        "set_flags(0)\n"
        "print('ready', flush=True)\n"
        "client.recv(1)\n"
    )
    pid = start_in_namespace(programs, "lost.py", code)
    problem = find("vanished", pid)
    assert f"does not answer the keepalive probes of lost.py[{pid}]" in problem.text


@pytest.mark.slow
@needs_root
@needs_tool("ip")
def test_syn_that_is_not_answered(programs: Programs) -> None:
    code = (
        "subprocess.run('ip address add 10.9.9.1/32 dev lo && ip route add 10.9.8.0/24 dev lo src 10.9.9.1',"
        " shell=True, check=True)\n"
        "print('ready', flush=True)\n"
        "socket.create_connection(('10.9.8.1', 80))\n"
    )
    pid = start_in_namespace(programs, "client.py", code)
    problem = find("vanished", pid)
    assert problem.text.startswith(
        f"client.py[{pid}] tries to connect to 10.9.8.1:80, and nothing answers: its SYN was sent"
    )
    assert "firewall" in problem.inferred


@needs_root
@needs_tool("ip")
def test_deadlock_between_two_network_namespaces(programs: Programs) -> None:
    code = (
        "here, there = socket.socketpair()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    here.close()\n"
        "    unshare(CLONE_NEWNET)\n"
        "    there.sendall(b'x')\n"
        "    there.recv(1)\n"
        "    command = 'ip address add 10.9.9.2/24 dev b && ip link set dev b up'\n"
        "    subprocess.run(command, shell=True, check=True)\n"
        "    listener = socket.create_server(('10.9.9.2', 80))\n"
        "    there.sendall(b'x')\n"
        "    there.close()\n"
        "    connection, _ = listener.accept()\n"
        "    connection.recv(1)\n"
        "there.close(), here.recv(1)\n"
        "subprocess.run(f'ip link add name a type veth peer name b netns {child}', shell=True, check=True)\n"
        "subprocess.run('ip address add 10.9.9.1/24 dev a && ip link set dev a up', shell=True, check=True)\n"
        "here.sendall(b'x'), here.recv(1)\n"
        "here.close()\n"
        "connection = socket.create_connection(('10.9.9.2', 80))\n"
        "print('ready', flush=True)\n"
        "connection.recv(1)\n"
    )
    pid = start_in_namespace(programs, "two.py", code)
    problem = find("deadlock", pid)
    assert len(problem.pids) == 2
    assert "10.9.9.1" in problem.seen
    assert "10.9.9.2:80" in problem.seen
