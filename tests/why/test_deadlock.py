"""Programs that wait for each other: each is named, with both calls and the bytes between them."""

from __future__ import annotations

import math
import re

import pytest

from tests.why.programs import Programs, find

OPTION = (
    "import struct; limit = struct.pack('qq', 600, 0)\n"
    "connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)\n"
)
SEND_ALL = "connection.sendall(bytes(64 << 20))\n"


def test_both_receiving(programs: Programs) -> None:
    server, client, port = programs.pair(
        "connection, _ = listener.accept()\nwhile connection.recv(100): pass\n",
        "connection.sendall(b'hello')\nconnection.recv(100)\n",
    )
    problem = find("deadlock", client)
    assert re.fullmatch(
        rf"Each end waits for the other: client\.py\[{client}\] is blocked in recv\(3\) and"
        rf" server\.py\[{server}\] in recv\(4\) on the same connection, both queues empty,"
        r" for at least [\d.]+ s\. Nothing is in flight\.",
        problem.text,
    )
    assert (
        f"client.py[{client}] sent last, 5 bytes in all, and server.py[{server}] has read" in problem.remedy
    )
    assert "shutdown(SHUT_WR)" in problem.remedy
    assert problem.certainty == "seen"
    assert {server, client} <= problem.pids
    assert port in problem.ports


def test_both_sending(programs: Programs) -> None:
    server, client, _ = programs.pair("connection, _ = listener.accept()\n" + SEND_ALL, SEND_ALL)
    problem = find("deadlock", server)
    assert f"client.py[{client}] is blocked in send(3) and server.py[{server}] in send(4)" in problem.text
    assert re.search(r"\d+ MB wait .*neither end reads", problem.text)
    assert problem.remedy.startswith("One of them must read while it sends")


@pytest.mark.slow
def test_both_sending_in_threads_of_a_server(programs: Programs) -> None:
    serve = (
        "import threading\n"
        "while True:\n"
        "    connection, _ = listener.accept()\n"
        "    threading.Thread(target=connection.sendall, args=(bytes(64 << 20),)).start()\n"
    )
    server, client, _ = programs.pair(serve, SEND_ALL)
    problem = find("deadlock", client)
    assert re.search(rf"server\.py\[{server}\] thread \d+ in send\(\d\)", problem.text)


def test_both_receiving_in_a_thread_of_a_server_is_inferred(programs: Programs) -> None:
    serve = (
        "import threading\n"
        "def read(connection):\n"
        "    while connection.recv(100): pass\n"
        "while True:\n"
        "    connection, _ = listener.accept()\n"
        "    threading.Thread(target=read, args=(connection,)).start()\n"
    )
    server, _, _ = programs.pair(serve, "connection.sendall(b'hello')\nconnection.recv(100)\n")
    problem = find("deadlock", server)
    assert problem.certainty == "inferred"
    assert "accept()" in problem.inferred


def test_waitall_with_unread_data(programs: Programs) -> None:
    server, client, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.recv(100, socket.MSG_WAITALL)\n",
        "connection.sendall(b'hello')\nconnection.recv(100)\n",
    )
    problem = find("deadlock", client)
    assert f"server.py[{server}] waits for all 100 bytes of its buffer (MSG_WAITALL)" in problem.text


def test_edge_triggered_epoll_with_unread_data(programs: Programs) -> None:
    serve = (
        "import select\n"
        "connection, _ = listener.accept()\n"
        "epoll = select.epoll()\n"
        "epoll.register(connection, select.EPOLLIN | select.EPOLLET)\n"
        "while epoll.poll(): connection.recv(1)\n"
    )
    server, _, _ = programs.pair(serve, "connection.sendall(bytes(100))\nconnection.recv(100)\n")
    problem = find("deadlock", server)
    assert "EPOLLET" in problem.text


def test_neither_end_has_sent(programs: Programs) -> None:
    server, _, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.recv(1)\n", "connection.recv(1)\n"
    )
    problem = find("deadlock", server)
    assert problem.remedy.startswith("Neither has sent a byte yet, so one of them must send first.")


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (OPTION, "SO_RCVTIMEO"),
        ("connection.settimeout(600)\n", "its timeout"),
    ],
    ids=["option", "poll"],
)
def test_mutual_wait_with_a_time_limit_is_information(programs: Programs, limit: str, reason: str) -> None:
    server, client, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.recv(1)\n", limit + "connection.recv(1)\n"
    )
    problem = find("mutual wait", server)
    assert not problem.is_wrong
    assert f"of client.py[{client}] ends after 10 min at most ({reason})" in problem.text


def test_both_sending_with_a_time_limit_is_information_at_once(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bothends.why.problems.deadlock._STALLED_SECONDS", math.inf)
    limit = OPTION.replace("SO_RCVTIMEO", "SO_SNDTIMEO")
    server, client, _ = programs.pair(
        "connection, _ = listener.accept()\n" + SEND_ALL, limit + "connection.sendall(bytes(64 << 20))\n"
    )
    problem = find("mutual wait", server)
    assert not problem.is_wrong
    assert f"of client.py[{client}] ends after 10 min at most (SO_SNDTIMEO)" in problem.text


def test_options_that_are_not_readable_make_it_an_inference(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bothends.why.snapshot.read_timeouts", lambda owner: None)
    server, _, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.recv(1)\n", "connection.recv(1)\n"
    )
    problem = find("deadlock", server)
    assert "SO_RCVTIMEO" in problem.inferred


def test_unix_sockets(programs: Programs) -> None:
    code = (
        "import os, socket\n"
        "one, other = socket.socketpair()\n"
        "if os.fork() == 0: one.close(); other.recv(1)\n"
        "other.close()\n"
        "print('ready', flush=True)\n"
        "one.recv(1)\n"
    )
    pid, _ = programs.start("pair.py", code)
    problem = find("deadlock", pid)
    assert len(problem.pids) == 2
    assert "unix stream" in problem.seen


def test_circle_of_three(programs: Programs) -> None:
    code = (
        "import os, socket\n"
        "pairs = [socket.socketpair() for _ in range(3)]\n"
        "number = 0 if os.fork() == 0 else 1 if os.fork() == 0 else 2\n"
        "source, target = pairs[number][0], pairs[number - 1][1]\n"
        "for each in pairs:\n"
        "    for end in each:\n"
        "        if end not in (source, target): end.close()\n"
        "if number == 2: print('ready', flush=True)\n"
        "source.recv(1)\n"
    )
    pid, _ = programs.start("ring.py", code)
    problem = find("deadlock", pid)
    assert len(problem.pids) == 3
    assert problem.text.startswith("3 threads wait for each other in a circle")
