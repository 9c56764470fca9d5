"""Healthy programs, on which nothing may be reported."""

from __future__ import annotations

import time

import pytest

from tests.why.programs import CLIENT, SERVER, Programs, look, problems_while, settle, until

# They start programs and wait until these have hung for seconds.
pytestmark = pytest.mark.slow

SETTLED = 1.5  # seconds: longer than any time limit of a problem that is seen at once
ECHO_IN_THREADS = (
    "import threading\n"
    "def echo(connection):\n"
    "    while data := connection.recv(100): connection.sendall(data)\n"
    "while True:\n"
    "    connection, _ = listener.accept()\n"
    "    threading.Thread(target=echo, args=(connection,)).start()\n"
)
SELECT_SERVER = (
    "import selectors\n"
    "selector = selectors.DefaultSelector()\n"
    "selector.register(listener, selectors.EVENT_READ)\n"
    "while True:\n"
    "    for key, _ in selector.select():\n"
    "        if key.fileobj is listener:\n"
    "            selector.register(listener.accept()[0], selectors.EVENT_READ)\n"
    "        elif data := key.fileobj.recv(100): key.fileobj.sendall(data)\n"
)
ASYNCIO_SERVER = (
    "import asyncio\n"
    "async def echo(reader, writer):\n"
    "    while data := await reader.read(100): writer.write(data)\n"
    "async def main():\n"
    "    async with await asyncio.start_server(echo, sock=listener) as server: await server.serve_forever()\n"
    "asyncio.run(main())\n"
)
POOL_SERVER = (
    "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(4) as pool:\n"
    "    list(pool.map(abs, range(20)))\n"
    "    while True:\n"
    "        connection, _ = listener.accept()\n"
    "        data = connection.recv(100)\n"
    "        connection.sendall(pool.submit(bytes.upper, data).result())\n"
)
KEEP_ALIVE = "connection.sendall(b'hello')\nconnection.recv(100)\ninput()\n"


@pytest.mark.parametrize(
    "serve",
    [ECHO_IN_THREADS, SELECT_SERVER, ASYNCIO_SERVER, POOL_SERVER],
    ids=["threads", "epoll", "asyncio", "pool"],
)
def test_idle_connection_of_a_client_that_waits_elsewhere(programs: Programs, serve: str) -> None:
    server, client, _ = programs.pair(serve, KEEP_ALIVE)
    report = settle(SETTLED, server, client)
    assert [problem for problem in report.problems if problem.is_wrong] == []


@pytest.mark.parametrize("serve", [ECHO_IN_THREADS, SELECT_SERVER, ASYNCIO_SERVER])
def test_client_that_waits_for_messages_of_others(programs: Programs, serve: str) -> None:
    server, client, _ = programs.pair(
        serve, "connection.sendall(b'subscribe')\nwhile connection.recv(100): pass\n"
    )
    report = settle(SETTLED, server, client)
    assert [problem for problem in report.problems if problem.is_wrong] == []


def test_client_at_its_prompt_with_a_thread_that_reads(programs: Programs) -> None:
    server, port = programs.start("server.py", SERVER + ECHO_IN_THREADS)
    code = CLIENT + (
        "import os, threading\n"
        "threading.Thread(target=lambda: connection.recv(100), daemon=True).start()\n"
        "os.read(0, 1)\n"
    )
    client, _ = programs.start("chat.py", code, port, terminal=True)
    report = settle(SETTLED, server, client)
    assert [problem for problem in report.problems if problem.is_wrong] == []
    assert any("waits in read(0) for its terminal" in each.text for each in report.statements)


def test_udp_server_that_waits(programs: Programs) -> None:
    code = (
        "import socket\n"
        "sock = socket.socket(type=socket.SOCK_DGRAM)\n"
        "sock.bind(('127.0.0.1', 0))\n"
        "print('ready', flush=True)\n"
        "sock.recv(100)\n"
    )
    pid, _ = programs.start("server.py", code)
    report = settle(SETTLED, pid)
    assert report.problems == []
    assert any("for a datagram on udp 127.0.0.1:" in each.text for each in report.statements)


def test_receive_with_a_time_limit(programs: Programs) -> None:
    server, client, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.settimeout(600)\nconnection.recv(1)\n",
        "connection.recv(1)\n",
    )
    report = settle(SETTLED, server, client)
    assert [problem for problem in report.problems if problem.is_wrong] == []


def test_slow_but_moving_transfer(programs: Programs) -> None:
    server, client, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.sendall(bytes(1 << 30))\n",
        "import time\n"
        "connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)\n"
        "while connection.recv(2048): time.sleep(0.05)\n",
    )

    def is_sending(snapshot: object) -> bool:
        _, report = look(server)
        return any("space in its send buffer" in each.text for each in report.statements)

    until(is_sending, server)
    end = time.monotonic() + 3
    assert list(problems_while(lambda: time.monotonic() < end, server, client)) == []


def test_request_and_response_at_full_speed(programs: Programs) -> None:
    server, client, _ = programs.pair(
        ECHO_IN_THREADS, "while True:\n    connection.sendall(b'x')\n    connection.recv(100)\n"
    )
    end = time.monotonic() + 2
    assert list(problems_while(lambda: time.monotonic() < end, server, client)) == []


def test_worker_processes_that_share_a_listener(programs: Programs) -> None:
    code = "import os\nfor _ in range(3):\n    if os.fork() == 0: break\nlistener.accept()\n"
    pid, port = programs.start("server.py", SERVER + code)

    def all_wait(snapshot: object) -> bool:
        return sum("waits in accept(3)" in each.text for each in look(pid)[1].statements) >= 1

    until(all_wait, pid)
    report = settle(SETTLED, pid)
    assert [problem for problem in report.problems if problem.is_wrong] == []
    assert port


def test_process_that_looks_at_itself_is_not_blocked(programs: Programs) -> None:
    code = (
        "import os, socket\n"
        "from bothends.why import make_report, take_snapshot\n"
        "from bothends.why.explain import Subject\n"
        "ends = socket.socketpair()\n"
        "snapshot = take_snapshot()\n"
        "report = make_report(snapshot, Subject('test', pids=(os.getpid(),)))\n"
        "print(os.getpid() in snapshot.processes, [each.text for each in report.problems if each.is_wrong])\n"
    )
    assert programs.start("itself.py", code)[1] == "True []"
