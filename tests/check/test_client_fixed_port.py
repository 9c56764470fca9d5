"""Clients with a port in their source: the checker is where they connect, in a network of their own."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.results import SuiteResult
from bothends.check.subjects import own_network
from bothends.check.subjects.loopback_capture import parse_packet
from bothends.errors import UsageError
from tests.check.helpers import failed_cases, format_failures, judge_client

needs_namespaces = pytest.mark.skipif(
    not own_network.is_available(), reason="this user may not create network namespaces here"
)
TCP_CLIENT = """
import socket, sys
try:
    with socket.create_connection(({host!r}, {port}), timeout=2) as connection:
        connection.sendall(sys.stdin.readline().rstrip("\\n").encode())
        data = connection.recv(4096)
        while more := connection.recv(4096):
            data += more
except OSError as error:
    sys.exit(str(error))
if not data:
    sys.exit("no reply")
print(data.decode())
"""
UDP_CLIENT = """
import socket, sys
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.settimeout(1)
sock.sendto(sys.stdin.readline().rstrip("\\n").encode(), ({host!r}, {port}))
while True:
    try:
        data, sender = sock.recvfrom(65535)
    except OSError as error:
        sys.exit(str(error))
    if sender[1] == {port}:
        break
print(data.decode())
"""


def judge_fixed(
    folder: Path, text: str, contract: str, *only: str, host: str = "localhost", port: int = 12000
) -> SuiteResult:
    """Judge a client that is not told where to connect."""
    path = folder / "client.py"
    path.write_text(text.replace("{host!r}", repr(host)).replace("{port}", str(port)), encoding="utf-8")
    return judge_client([sys.executable, str(path)], contract, *only)


@needs_namespaces
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "192.0.2.7", "::1"])
def test_client_finds_the_checker_where_it_connects(host: str, tmp_path: Path) -> None:
    only = ("client-no-reply", "client-refused", "client-reset", "client-second-address")
    result = judge_fixed(tmp_path, TCP_CLIENT, "upper-tcp-once", *only, host=host)
    assert not result.failed, format_failures(result)
    assert result.points == result.max_points == 5
    assert result.counts[Verdict.PASS] == 4
    [note] = [note for note in result.notes if "always connects" in note]
    assert "port 12000" in note


@needs_namespaces
def test_port_that_is_in_use_here_is_free_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = judge_fixed(tmp_path, TCP_CLIENT, "upper-tcp-once", "client-one-message", port=port)
    assert not result.failed, format_failures(result)


@needs_namespaces
def test_datagram_client_finds_the_checker_where_it_sends(tmp_path: Path) -> None:
    only = ("udp-client-refused", "udp-client-stranger", "udp-client-silent")
    result = judge_fixed(tmp_path, UDP_CLIENT, "upper-udp", *only, host="127.0.0.1")
    assert not result.failed, format_failures(result)
    assert any("the client always sends to 127.0.0.1 port" in note for note in result.notes)
    assert result.counts[Verdict.PASS] == 4


@needs_namespaces
def test_client_that_ignores_the_port_it_is_given_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "client.py"
    path.write_text(
        TCP_CLIENT.replace("{host!r}", "'localhost'").replace("{port}", "12000"), encoding="utf-8"
    )
    command = [sys.executable, str(path), "{host}", "{port}"]
    result = judge_client(command, "upper-tcp-once", "client-refused")
    assert not result.failed, format_failures(result)
    assert any("ignores the port that it is given, and connects to" in note for note in result.notes)


@needs_namespaces
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("raise ValueError('x')", "ValueError at line 1 of client.py is not handled"),
        ("import sys; sys.exit(3)", "ends before it connects"),
        (UDP_CLIENT, "uses UDP (port 12000), not TCP"),
    ],
)
def test_client_that_does_not_connect_fails_with_the_cause(text: str, cause: str, tmp_path: Path) -> None:
    result = judge_fixed(tmp_path, text, "upper-tcp-once")
    assert failed_cases(result) == {"client-one-message"}
    assert result.outcomes[0].likely_cause == cause
    assert result.outcomes[0].expected == "a client that can connect to a TCP port"
    skipped = next(each for each in result.outcomes if each.case == "client-refused")
    assert "the client does not connect (costs 1 point)" in skipped.summary


def test_without_namespaces_it_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_network, "is_available", lambda: False)
    with pytest.raises(UsageError, match="a port in its source needs a network namespace"):
        judge_fixed(tmp_path, TCP_CLIENT, "upper-tcp-once")


def test_client_with_a_given_port_needs_no_namespace(tmp_path: Path) -> None:
    path = tmp_path / "client.py"
    path.write_text(
        TCP_CLIENT.replace("{host!r}", "sys.argv[1]").replace("{port}", "int(sys.argv[2])"), encoding="utf-8"
    )
    result = judge_client([sys.executable, str(path), "{host}", "{port}"], "upper-tcp-once", "client-refused")
    assert not result.failed, format_failures(result)
    assert not result.notes


@pytest.mark.parametrize(
    ("packet", "ports"),
    [
        ("450000280000400040063cce7f0000017f0000019c402ee0000000000000000050020000ff3d0000", (40000, 12000)),
        ("4500001e703540004011cc977f0000017f000001cbdb0309000afe1d6869", (52187, 777)),
        ("4500001e70350005", None),
        ("4500001e703500054011cc977f0000017f000001cbdb0309000afe1d6869", None),  # a later fragment
        ("600eb2d6000a1140" + ("00" * 15 + "01") * 2 + "caf00309000a001d", (51952, 777)),
        ("600f7dbc003a3a400000000000000000000000000000000100000000000000000000000000000001", None),
        ("", None),
    ],
)  # fmt: skip
def test_parse_packet(packet: str, ports: tuple[int, int] | None) -> None:
    found = parse_packet(bytes.fromhex(packet))
    assert (found and (found.source_port, found.destination_port)) == ports
    assert found is None or found.opens == (found.transport == "tcp")


def test_answer_to_a_syn_opens_no_connection() -> None:
    packet = "450000280000400040063cce7f0000017f0000012ee09c4000000000000000005012000000000000"  # SYN ACK
    found = parse_packet(bytes.fromhex(packet))
    assert found is not None
    assert not found.opens


DAYTIME_CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1) as connection:
        text = b""
        while data := connection.recv(100):
            text += data
except OSError as error:
    sys.exit(str(error))
if not text:
    sys.exit("no reply")
print(text.decode().strip())
"""
DAYTIME_DATAGRAM_CLIENT = """
import socket, sys
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.settimeout(1)
sock.connect((sys.argv[1], int(sys.argv[2])))
try:
    sock.send(b"")
    print(sock.recv(1000).decode())
except OSError as error:
    sys.exit(str(error))
"""


@pytest.mark.spread("contract", "text", "points", one_in=3)
@pytest.mark.parametrize(
    ("contract", "text", "points"),
    [
        ("daytime-tcp", DAYTIME_CLIENT, 7),
        ("qotd-tcp", DAYTIME_CLIENT, 7),
        ("daytime-udp", DAYTIME_DATAGRAM_CLIENT, 5),
    ],
)
def test_client_that_asks_nothing_is_judged(contract: str, text: str, points: int, tmp_path: Path) -> None:
    path = tmp_path / "client.py"
    path.write_text(text, encoding="utf-8")
    result = judge_client([sys.executable, str(path), "{host}", "{port}"], contract)
    assert not result.failed, format_failures(result)
    assert (result.points, result.max_points) == (points, points)
