"""The programs of examples/, each run as its docstring says, but on ports that the system picks."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bothends import connect, serve
from bothends.client.blocking import Connection
from bothends.services import registry
from tests.interop.running import ROOT, TIMEOUT, Running, run

EXAMPLES = ROOT / "examples"
SERVICES = ("shout", "hello", "reply", "printer", "callers", "threads", "clock", "chat")


def command(example: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / f"{example}.py"), *arguments]


@contextmanager
def server(example: str, *endpoints: str) -> Iterator[tuple[Running, list[str]]]:
    """Run an example server; yield it and its endpoints. On SIGTERM it must exit with status 0."""
    with Running(command(example, *endpoints)) as running:
        yield running, running.line(b"listening on (.+)")[1].decode().split()
        assert running.stop() == 0, running.stderr


def connect_to(endpoint: str) -> Connection:
    return connect(endpoint, timeout=TIMEOUT)


def test_shout() -> None:
    with server("shout", "tcp://127.0.0.1:0", "udp://127.0.0.1:0") as (_, endpoints):
        assert len(endpoints) == 2
        for endpoint in endpoints:
            with connect_to(endpoint) as connection:
                assert connection.request("hello") == b"HELLO"


def test_hello() -> None:
    with server("hello", "tcp://127.0.0.1:0") as (_, [endpoint]), connect_to(endpoint) as connection:
        assert connection.receive_line() == b"thank you for connecting"
        connection.send(b"hello")
        assert connection.receive_all() == b"back to ya client\n"


def test_reply() -> None:
    with server("reply", "tcp://127.0.0.1:0") as (_, [endpoint]):
        with connect_to(endpoint) as connection:
            assert connection.request("one") == b"message 1 from you: one"
            assert connection.request("two") == b"message 2 from you: two"
            assert connection.exchange(b"bye\nunheard\n") == b"message 3 from you: bye\n"
        with connect_to(endpoint) as connection:
            assert connection.exchange(b"no newline") == b"message 1 from you: no newline\n"


def test_printer() -> None:
    with (
        server("printer", "tcp://127.0.0.1:0") as (running, [endpoint]),
        connect_to(endpoint) as first,
        connect_to(endpoint) as second,
    ):
        second.send(b"\x1b[2J from the second")
        running.line(rb"127\.0\.0\.1#%d: \\x1b\[2J from the second" % second.local.port)
        first.send(b"from the first")
        running.line(rb"127\.0\.0\.1#%d: from the first" % first.local.port)


def test_callers() -> None:
    with server("callers", "tcp://127.0.0.1:0") as (running, [endpoint]):
        processes = set()
        with connect_to(endpoint) as first, connect_to(endpoint) as second:
            for connection in (second, first):
                name = str(connection.local).encode()
                called = running.line(rb"%b called, process (\d+) answers" % re.escape(name))
                processes.add(called[1])
                assert connection.receive_line() == b"you are " + name
                assert connection.request("hello") == b"HELLO"
                connection.half_close()
                running.line(re.escape(name) + b" has gone")
        assert len(processes - {b"%d" % running.process.pid}) == 2


def test_threads() -> None:
    with (
        server("threads", "tcp://127.0.0.1:0") as (_, [endpoint]),
        connect_to(endpoint) as slow,
        connect_to(endpoint) as quick,
    ):
        slow.send_line("wait")
        assert quick.request("hello") == b"HELLO"
        assert quick.request("go") == b"GO"
        assert slow.receive_line() == b"WAIT"


def test_clock() -> None:
    with server("clock", "udp://127.0.0.1:0") as (_, [endpoint]), connect_to(endpoint) as connection:
        for question in (b"what time is it?", b""):
            answer = connection.request(question)
            assert re.fullmatch(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", answer)


def test_chat() -> None:
    with server("chat", "tcp://127.0.0.1:0") as (_, [endpoint]), connect_to(endpoint) as one:
        assert one.receive_line() == f"you are {one.local}, others here: 0".encode()
        with connect_to(endpoint) as two:
            assert two.receive_line() == f"you are {two.local}, others here: 1".encode()
            one.send_line("hello, all")
            assert two.receive_line() == f"{one.local}: hello, all".encode()
            two.send_line("hello, one")
            assert one.receive_line() == f"{two.local}: hello, one".encode()


def test_ask() -> None:
    with serve("upper", "tcp://127.0.0.1:0") as upper:
        _, _, talk = run(command("ask", str(upper.endpoints[0])), b"hello\nagain\n\n").partition(b"\n")
    assert talk == b"say: answer: HELLO\nsay: answer: AGAIN\nsay: "


def test_ask_many() -> None:
    with serve("upper", "tcp://127.0.0.1:0") as upper:
        assert run(command("ask_many", str(upper.endpoints[0]), "one", "two", "three")) == b"ONE TWO THREE\n"


def test_insist_retries_without_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(TIMEOUT)

        def answer_the_second() -> None:
            silent.recvfrom(1024)
            request, client = silent.recvfrom(1024)
            silent.sendto(request.upper(), client)

        thread = threading.Thread(target=answer_the_second)
        thread.start()
        assert run(command("insist", f"udp://127.0.0.1:{silent.getsockname()[1]}", "hello")) == b"HELLO\n"
        thread.join()


def test_insist_reports_refused_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"udp://127.0.0.1:{taken.getsockname()[1]}"
    with Running(command("insist", endpoint, "hello")) as running:
        assert running.wait() == 1
        running.error_line(rb"cannot reach udp://127\.0\.0\.1:\d+: ECONNREFUSED .*")


def test_file_socket() -> None:
    assert run(command("file_socket")) == b"unix HELLO\nunix+dgram HELLO\nunix+seqpacket HELLO\n"


def test_boundaries() -> None:
    assert run(command("boundaries")) == (
        b"tcp: five writes of 512 bytes, read as [2560]\n"
        b"udp: five writes of 512 bytes, read as [512, 512, 512, 512, 512]\n"
    )


@pytest.mark.parametrize("example", SERVICES)
def test_example_loads_as_service(example: str) -> None:
    assert registry.load(str(EXAMPLES / f"{example}.py")).streams or example == "clock"


def test_examples_are_listed_and_short() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    programs = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert sorted(re.findall(r"^\| \[(\w+\.py)\]\(\1\)", table, re.MULTILINE)) == programs
    for name in programs:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 50, name
