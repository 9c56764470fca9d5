"""Each kind of problem, on real programs."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from tests.why.programs import CLIENT, Programs, find, look

# They start programs and wait until these have hung for seconds.
pytestmark = pytest.mark.slow

SERVE_FIRST = "connection, _ = listener.accept()\nconnection.recv(1)\n"


def test_stalled_sender_of_a_stopped_reader(programs: Programs) -> None:
    server, client, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.sendall(bytes(64 << 20))\n", "input()\n"
    )
    os.kill(client, signal.SIGSTOP)
    problem = find("stalled", server)
    assert f"server.py[{server}] has been unable to send on tcp" in problem.text
    assert f"client.py[{client}] is stopped by a signal or a debugger" in problem.text
    assert "the window is zero" in problem.seen


def test_stalled_server_with_other_clients(programs: Programs) -> None:
    server, client, port = programs.pair(
        "one, _ = listener.accept()\ntwo, _ = listener.accept()\none.sendall(bytes(64 << 20))\n", "input()\n"
    )
    programs.start("second.py", CLIENT + "connection.sendall(b'x')\nconnection.recv(1)\n", str(port))
    os.kill(client, signal.SIGSTOP)
    problem = find("stalled", server)
    assert f"Meanwhile server.py[{server}] does not serve 1 other socket with unread input" in problem.text


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
    assert f"127.0.0.1:{port}" in problem.text


LISTEN = "listener = socket.create_server(('127.0.0.1', 0))\nprint(listener.getsockname()[1], flush=True)\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root enters the network namespaces of others")
def test_peers_that_vanish_in_another_network_namespace(programs: Programs) -> None:
    code = (
        "import fcntl, os, socket, struct\n"
        "from bothends.osutil.namespaces import CLONE_NEWNET, unshare\n"
        "unshare(CLONE_NEWNET)\n"
        "def set_flags(flags):\n"
        "    with socket.socket(type=socket.SOCK_DGRAM) as control:\n"
        "        fcntl.ioctl(control, 0x8914, struct.pack('16sh14x', b'lo', flags))\n"
        "set_flags(1)\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "accepted, _ = listener.accept()\n"
        "set_flags(0)\n"
        "client.sendall(b'hello')\n"
        "print('ready', flush=True)\n"
        "client.recv(1)\n"
    )
    try:
        pid, ready = programs.start("lost.py", code)
    except PermissionError:
        pytest.skip("this system forbids network namespaces")
    if ready != "ready":
        pytest.skip("this system forbids network namespaces")
    problem = find("vanished", pid)
    assert f"does not answer lost.py[{pid}]: 5 bytes have not been acknowledged for about" in problem.text
    assert "The kernel gives up in about 15 min" in problem.text
    assert problem.certainty == "inferred"
