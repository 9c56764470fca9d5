"""Scanning: words that mean ports, and what real ports on loopback answer."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.client.port_scan import Result, Transport, parse_ports, scan, words_for
from bothends.errors import EndpointError, PortsError, UnknownName
from bothends.sockets import NameRefused
from tests.client import peers

HERE = "127.0.0.1"


def named(name: str, transport: str) -> int:
    try:
        return {("http", "tcp"): 80, ("domain", "udp"): 53, ("http-alt", "tcp"): 8080}[name, transport]
    except KeyError:
        raise OSError("not found") from None


# Words


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (["80"], [80]),
        (["20-25"], [20, 21, 22, 23, 24, 25]),
        (["80,443"], [80, 443]),
        (["http"], [80]),
        (["http-alt"], [8080]),
        (["443", "80", "80,443"], [443, 80]),
        (["22-24,23-25,http"], [22, 23, 24, 25, 80]),
        (["65535-65535"], [65535]),
        ([" 80 , 81"], [80, 81]),
    ],
)
def test_ports_in_words(words: list[str], ports: list[int]) -> None:
    assert parse_ports(words, named=named) == ports


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "none are named"),
        ([""], "missing between the commas"),
        (["80,,443"], "missing between the commas"),
        (["0"], "between 1 and 65535"),
        (["65536"], "between 1 and 65535"),
        (["1-70000"], "between 1 and 65535"),
        (["9" * 5000], "between 1 and 65535"),
        (["25-20"], "ends before it starts; 20-25, perhaps"),
        (["20-"], "without an end"),
        (["-25"], "without a start"),
    ],
)
def test_nonsense(words: list[str], said: str) -> None:
    with pytest.raises(PortsError, match=said) as caught:
        parse_ports(words, named=named)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("word", ["gopher", "1-2-3", "a-5", "--", "²", "domain"])
def test_services_that_nobody_knows(word: str) -> None:
    with pytest.raises(UnknownName, match="there is no tcp service"):
        parse_ports([word], named=named)


def test_the_services_database_goes_by_transport() -> None:
    assert parse_ports(["domain"], "udp", named=named) == [53]


@given(st.lists(st.text("0123456789-, ah", max_size=8), max_size=3))
def test_any_words_give_ports_or_an_error_of_ours(words: list[str]) -> None:
    try:
        ports = parse_ports(words)
    except (PortsError, UnknownName):
        return
    assert ports
    assert len(set(ports)) == len(ports)
    assert all(1 <= port <= 65535 for port in ports)


# TCP


@contextlib.contextmanager
def listening(host: str = HERE, number: int = 1) -> Iterator[list[int]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(socket.create_server((host, 0), family=family, backlog=8))
            for _ in range(number)
        ]
        yield [each.getsockname()[1] for each in made]


@contextlib.contextmanager
def taken(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[int]:
    """A port that is bound, so that nobody else gets it, and refuses since it doesn't listen."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((HERE, 0))
        yield sock.getsockname()[1]


def states(host: str, ports: list[int], transport: Transport = "tcp", **more: Any) -> list[tuple[int, str]]:
    return [(each.port, each.state) for each in scan(host, ports, transport, **more)]


def test_open_and_refused_in_the_order_asked() -> None:
    with listening(number=3) as ports, taken() as closed:
        asked = [ports[2], closed, ports[0], ports[1]]
        results = list(scan(HERE, asked))
    assert [each.port for each in results] == asked
    assert [each.state for each in results] == ["open", "refused", "open", "open"]
    assert [each.errno for each in results] == [0, errno.ECONNREFUSED, 0, 0]
    assert all(each.address == HERE and 0 <= each.seconds < 10 for each in results)


def test_nothing_is_sent_and_the_end_is_in_good_order() -> None:
    with socket.create_server((HERE, 0)) as server:
        assert states(HERE, [server.getsockname()[1]]) == [(server.getsockname()[1], "open")]
        connection, _ = server.accept()
        with connection:
            connection.settimeout(peers.PATIENCE)
            assert connection.recv(1) == b""


def test_ipv6() -> None:
    with listening("::1") as (port,):
        assert states("::1", [port]) == states("[::1]", [port]) == [(port, "open")]


def test_a_port_is_what_the_best_of_the_addresses_says() -> None:
    def both(host: str, port: int, family: int, kind: int) -> list[Any]:
        return [
            (socket.AF_INET, kind, 0, "", ("127.0.0.2", port)),
            (socket.AF_INET, kind, 0, "", (HERE, port)),
        ]

    with listening() as (port,):
        (result,) = scan("name.example", [port], resolver=both)
    assert (result.state, result.address) == ("open", HERE)
    with taken() as closed:
        (result,) = scan("name.example", [closed], resolver=both)
    assert (result.state, result.address) == ("refused", "127.0.0.2")


def test_a_listener_whose_queue_is_full_gives_no_answer() -> None:
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind((HERE, 0))
        server.listen(0)
        port = server.getsockname()[1]
        for _ in range(3):  # one more than fits waits for its SYN to be answered, as ours will
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((HERE, port))
        (result,) = scan(HERE, [port], timeout=0.2)
    assert (result.state, result.errno) == ("no answer", errno.ETIMEDOUT)
    assert 0.2 <= result.seconds < 10


def test_many_ports_a_few_at_a_time() -> None:
    with listening(number=5) as ports:
        found = states(HERE, list(range(1, 1024)) + ports, at_once=7)
    assert len(found) == 1028
    assert [port for port, state in found if state == "open"][-5:] == ports


def test_it_lives_with_few_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening() as (port,):
        with socket.socket() as highest:
            limit = highest.fileno() + 2  # two more descriptors, and no third
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            found = states(HERE, [*range(1, 50), port], at_once=40)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found[-1] == (port, "open")
    assert not [state for _, state in found if state == "failed"]


def test_a_scan_that_is_left_early_leaves_nothing_open() -> None:
    with listening() as (port,):
        results = scan(HERE, [port, *range(1, 300)])
        assert next(results).state == "open"
        results.close()  # type: ignore[attr-defined]  # a ResourceWarning would fail this test


# UDP


def test_a_datagram_that_is_answered() -> None:
    with peers.datagram_peer(lambda data: [b"yes?"]) as where:
        assert where.port is not None
        (result,) = scan(HERE, [where.port], "udp", timeout=10)
    assert (result.state, result.errno) == ("open", 0)


def test_a_datagram_that_is_refused() -> None:
    port = peers.closed_port(socket.SOCK_DGRAM)
    assert states(HERE, [port], "udp") == [(port, "refused")]


def test_silence_is_no_success() -> None:
    with taken(socket.SOCK_DGRAM) as port:
        (result,) = scan(HERE, [port], "udp", timeout=0.05)
    assert (result.state, result.errno) == ("open or no answer", errno.ETIMEDOUT)


def test_the_datagram_is_empty_and_sent_twice() -> None:
    came = []

    def second_only(data: bytes) -> list[bytes]:
        came.append(data)
        return [b"here"] if len(came) == 2 else []

    with peers.datagram_peer(second_only) as where:
        assert where.port is not None
        (result,) = scan(HERE, [where.port], "udp", timeout=4)
    assert (result.state, came) == ("open", [b"", b""])


# Errors and words


def test_a_host_that_nobody_knows() -> None:
    def unknown(*_: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(NameRefused, match="cannot resolve the host nowhere: EAI_NONAME"):
        list(scan("nowhere", [80], resolver=unknown))
    with pytest.raises(EndpointError, match="not a host"):
        list(scan("*", [80]))


@pytest.mark.parametrize(
    ("state", "number", "words"),
    [
        ("open", 0, "open"),
        ("refused", errno.ECONNREFUSED, "refused (ECONNREFUSED)"),
        ("no answer", errno.ETIMEDOUT, "no answer (ETIMEDOUT)"),
        ("no answer", errno.EHOSTUNREACH, "no answer (EHOSTUNREACH)"),
        ("open or no answer", errno.ETIMEDOUT, "open or no answer"),
        ("failed", errno.ENETUNREACH, "failed: ENETUNREACH (Network is unreachable)"),
    ],
)
def test_results_in_words(state: Any, number: int, words: str) -> None:
    assert words_for(Result(80, "tcp", state, number, HERE, 0.1)) == words
