"""Port specifications, and scans of real ports on loopback."""

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

from bothends.client.port_scan import PortResult, Transport, describe_result, parse_ports, scan
from bothends.errors import EndpointError, PortSpecError, UnknownName
from bothends.sockets import ResolveError
from tests.client import peers

LOOPBACK = "127.0.0.1"


def lookup(name: str, transport: str) -> int:
    try:
        return {("http", "tcp"): 80, ("domain", "udp"): 53, ("http-alt", "tcp"): 8080}[name, transport]
    except KeyError:
        raise OSError("not found") from None


# Specifications


@pytest.mark.parametrize(
    ("specs", "ports"),
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
def test_parse_ports_valid_specs(specs: list[str], ports: list[int]) -> None:
    assert parse_ports(specs, lookup=lookup) == ports


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "no ports given"),
        ([""], "an empty item between commas"),
        (["80,,443"], "an empty item between commas"),
        (["0"], "between 1 and 65535"),
        (["65536"], "between 1 and 65535"),
        (["1-70000"], "between 1 and 65535"),
        (["9" * 5000], "between 1 and 65535"),
        (["25-20"], "ends before it starts; write 20-25"),
        (["20-"], "without an end"),
        (["-25"], "without a start"),
    ],
)
def test_parse_ports_invalid_specs_raise(specs: list[str], message: str) -> None:
    with pytest.raises(PortSpecError, match=message) as caught:
        parse_ports(specs, lookup=lookup)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("spec", ["gopher", "1-2-3", "a-5", "--", "²", "domain"])
def test_parse_ports_unknown_service_raises(spec: str) -> None:
    with pytest.raises(UnknownName, match="there is no tcp service"):
        parse_ports([spec], lookup=lookup)


def test_parse_ports_service_depends_on_transport() -> None:
    assert parse_ports(["domain"], "udp", lookup=lookup) == [53]


@given(st.lists(st.text("0123456789-, ah", max_size=8), max_size=3))
def test_parse_ports_arbitrary_text_succeeds_or_raises_documented_error(specs: list[str]) -> None:
    try:
        ports = parse_ports(specs)
    except (PortSpecError, UnknownName):
        return
    assert ports
    assert len(set(ports)) == len(ports)
    assert all(1 <= port <= 65535 for port in ports)


# TCP


@contextlib.contextmanager
def listening_ports(host: str = LOOPBACK, count: int = 1) -> Iterator[list[int]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(socket.create_server((host, 0), family=family, backlog=8))
            for _ in range(count)
        ]
        yield [each.getsockname()[1] for each in listeners]


@contextlib.contextmanager
def refusing_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[int]:
    """Context: a port that is bound, so that no other socket gets it, but not listening."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((LOOPBACK, 0))
        yield sock.getsockname()[1]


def scan_states(
    host: str, ports: list[int], transport: Transport = "tcp", **options: Any
) -> list[tuple[int, str]]:
    return [(each.port, each.state) for each in scan(host, ports, transport, **options)]


def test_scan_yields_results_in_requested_order() -> None:
    with listening_ports(count=3) as ports, refusing_port() as closed:
        requested = [ports[2], closed, ports[0], ports[1]]
        results = list(scan(LOOPBACK, requested))
    assert [each.port for each in results] == requested
    assert [each.state for each in results] == ["open", "refused", "open", "open"]
    assert [each.errno for each in results] == [0, errno.ECONNREFUSED, 0, 0]
    assert all(each.address == LOOPBACK and 0 <= each.seconds < 10 for each in results)


def test_scan_tcp_sends_nothing_and_closes_with_fin() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        assert scan_states(LOOPBACK, [server.getsockname()[1]]) == [(server.getsockname()[1], "open")]
        connection, _ = server.accept()
        with connection:
            connection.settimeout(peers.TIMEOUT)
            assert connection.recv(1) == b""


def test_scan_ipv6() -> None:
    with listening_ports("::1") as (port,):
        assert scan_states("::1", [port]) == scan_states("[::1]", [port]) == [(port, "open")]


def test_scan_reports_best_state_over_addresses() -> None:
    def both(host: str, port: int, family: int, kind: int) -> list[Any]:
        return [
            (socket.AF_INET, kind, 0, "", ("127.0.0.2", port)),
            (socket.AF_INET, kind, 0, "", (LOOPBACK, port)),
        ]

    with listening_ports() as (port,):
        (result,) = scan("name.example", [port], resolver=both)
    assert (result.state, result.address) == ("open", LOOPBACK)
    with refusing_port() as closed:
        (result,) = scan("name.example", [closed], resolver=both)
    assert (result.state, result.address) == ("refused", "127.0.0.2")


def test_scan_full_accept_queue_is_no_answer() -> None:
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind((LOOPBACK, 0))
        server.listen(0)
        port = server.getsockname()[1]
        for _ in range(3):  # one more than the accept queue holds waits for its SYN-ACK
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((LOOPBACK, port))
        (result,) = scan(LOOPBACK, [port], timeout=0.2)
    assert (result.state, result.errno) == ("no answer", errno.ETIMEDOUT)
    assert 0.2 <= result.seconds < 10


def test_scan_many_ports_with_max_concurrent() -> None:
    with listening_ports(count=5) as ports:
        found = scan_states(LOOPBACK, list(range(1, 1024)) + ports, max_concurrent=7)
    assert len(found) == 1028
    assert [port for port, state in found if state == "open"][-5:] == ports


def test_scan_works_with_few_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening_ports() as (port,):
        with socket.socket() as highest:
            limit = highest.fileno() + 2  # two options descriptors, and no third
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            found = scan_states(LOOPBACK, [*range(1, 50), port], max_concurrent=40)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found[-1] == (port, "open")
    assert not [state for _, state in found if state == "failed"]


def test_scan_closed_early_closes_sockets() -> None:
    with listening_ports() as (port,):
        results = scan(LOOPBACK, [port, *range(1, 300)])
        assert next(results).state == "open"
        results.close()  # type: ignore[attr-defined]  # a ResourceWarning would fail this test


# UDP


def test_scan_udp_reply_is_open() -> None:
    with peers.udp_peer(lambda data: [b"yes?"]) as endpoint:
        assert endpoint.port is not None
        (result,) = scan(LOOPBACK, [endpoint.port], "udp", timeout=10)
    assert (result.state, result.errno) == ("open", 0)


def test_scan_udp_port_unreachable_is_refused() -> None:
    port = peers.closed_port(socket.SOCK_DGRAM)
    assert scan_states(LOOPBACK, [port], "udp") == [(port, "refused")]


def test_scan_udp_without_reply_is_open_or_no_answer() -> None:
    with refusing_port(socket.SOCK_DGRAM) as port:
        (result,) = scan(LOOPBACK, [port], "udp", timeout=0.05)
    assert (result.state, result.errno) == ("open or no answer", errno.ETIMEDOUT)


def test_scan_udp_probe_is_empty_and_retransmitted() -> None:
    received = []

    def second_only(data: bytes) -> list[bytes]:
        received.append(data)
        return [b"here"] if len(received) == 2 else []

    with peers.udp_peer(second_only) as endpoint:
        assert endpoint.port is not None
        (result,) = scan(LOOPBACK, [endpoint.port], "udp", timeout=4)
    assert (result.state, received) == ("open", [b"", b""])


# Errors and text


def test_scan_unknown_host_raises() -> None:
    def unknown(*_: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(ResolveError, match="cannot resolve the host nowhere: EAI_NONAME"):
        list(scan("nowhere", [80], resolver=unknown))
    with pytest.raises(EndpointError, match="not a host"):
        list(scan("*", [80]))


@pytest.mark.parametrize(
    ("state", "number", "text"),
    [
        ("open", 0, "open"),
        ("refused", errno.ECONNREFUSED, "refused (ECONNREFUSED)"),
        ("no answer", errno.ETIMEDOUT, "no answer (ETIMEDOUT)"),
        ("no answer", errno.EHOSTUNREACH, "no answer (EHOSTUNREACH)"),
        ("open or no answer", errno.ETIMEDOUT, "open or no answer"),
        ("failed", errno.ENETUNREACH, "failed: ENETUNREACH (Network is unreachable)"),
    ],
)
def test_describe_result_text(state: Any, number: int, text: str) -> None:
    assert describe_result(PortResult(80, "tcp", state, number, LOOPBACK, 0.1)) == text
