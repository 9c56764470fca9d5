"""The options of `bothends connect` that netcat has too, `-z` and `--resolve`."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from bothends.cli.connect.command import with_port_numbers
from bothends.endpoints import Endpoint
from bothends.errors import EndpointError
from tests.cli.test_connect import connect
from tests.client import peers
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running

# Line endings


def test_crlf_in_pipe() -> None:
    with peers.tcp_peer(peers.echo) as endpoint:
        done = connect(endpoint, "-C", text="one\ntwo\r\nthree")
    assert (done.returncode, done.stdout) == (0, b"one\r\ntwo\r\nthree")


def test_crlf_with_send() -> None:
    with peers.tcp_peer(peers.echo) as endpoint:
        assert connect(endpoint, "--crlf", "--send", "one", "--send", "two").stdout == b"one\r\ntwo\r\n"


def test_crlf_in_datagram() -> None:
    received: list[bytes] = []

    def reply(data: bytes) -> list[bytes]:
        received.append(data)
        return [b"ok"]

    with peers.udp_peer(reply) as endpoint:
        assert connect(endpoint, "-C", text="one\ntwo").stdout == b"ok\nok\n"
        assert connect(endpoint, "-C", "--send", "three").stdout == b"ok"
    assert received == [b"one\r\n", b"two\r\n", b"three\r\n"]


# Half-close


def test_half_close_short_option() -> None:
    with peers.tcp_peer(peers.reply_at_eof) as endpoint:
        assert connect(endpoint, "-N", text="one").stdout == b"ONE"


def test_no_half_close_sends_no_eof() -> None:
    received: list[bytes] = []
    input_ended = threading.Event()

    def reply_and_wait_for_eof(connection: socket.socket) -> None:
        connection.sendall(peers.read_line(connection).upper())
        input_ended.wait(peers.TIMEOUT)
        connection.settimeout(0.5)  # an EOF would arrive at once
        try:
            received.append(connection.recv(1))
        except TimeoutError:
            connection.sendall(b"still there\n")

    with (
        peers.tcp_peer(reply_and_wait_for_eof) as endpoint,
        Running([*BOTHENDS, "connect", str(endpoint), "--no-half-close"]) as running,
    ):
        running.write_input(b"hello\n")
        running.line(b"HELLO")
        running.close_input()
        input_ended.set()
        running.line(b"still there")
        assert running.wait() == 0
    assert received == []


def test_no_half_close_exits_on_peer_close_or_timeout() -> None:
    with peers.tcp_peer(peers.reply_and_close) as endpoint:
        done = connect(endpoint, "--no-half-close", text="you\n")
    assert (done.returncode, done.stdout) == (0, b"goodbye to you")
    with peers.tcp_peer_held_open(peers.upper_lines) as endpoint:
        done = connect(endpoint, "--no-half-close", "-q", "0.5", text="hello\n")
    assert (done.returncode, done.stdout) == (0, b"HELLO\n")


# Addresses


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("-n", "localhost", "12000"), b"'localhost'"),
        (("-n", "tcp://localhost:12000"), b"'localhost'"),
        (("-n", "-s", "localhost", "127.0.0.1", "12000"), b"'localhost'"),
        (("-zn", "localhost", "12000"), b"'localhost'"),
        (("-ln", "localhost", "0"), b"'localhost'"),
    ],
)
def test_numeric_rejects_host_name(words: tuple[str, ...], name: bytes) -> None:
    done = connect(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    reason = b"a name, but -n resolves no names; give its address"
    assert done.stderr == b"bothends: endpoint " + name + b": " + reason + b"\n"


def test_numeric_accepts_addresses_and_empty_host() -> None:
    with peers.tcp_peer(peers.upper_lines, connections=2) as endpoint:
        assert connect("-n", endpoint, "--send", "x").stdout == b"X\n"
        assert connect("-n", "-4", f":{endpoint.port}", "--send", "x").stdout == b"X\n"


def test_source_port() -> None:
    port = peers.closed_port()
    with peers.tcp_peer(lambda sock: sock.sendall(b"%d" % sock.getpeername()[1])) as endpoint:
        assert connect(endpoint, "-p", str(port)).stdout == b"%d" % port


def test_family_mismatch() -> None:
    done = connect("-6", "127.0.0.1", "12000")
    assert done.returncode == 2
    assert b"-6 was given, but 127.0.0.1 is an IPv4 address" in done.stderr


def test_udp_and_unix_options(tmp_path: Path) -> None:
    with peers.udp_peer(lambda data: [data.upper()]) as endpoint:
        assert connect("-u", "127.0.0.1", str(endpoint.port), "--send", "x").stdout == b"X"
    with peers.unix_datagram_peer(lambda data: [data.upper()], tmp_path / "a") as endpoint:
        assert connect("-uU", endpoint.path, "--send", "x").stdout == b"X"


# A hex dump


def test_hex_dump_of_both_directions() -> None:
    with peers.tcp_peer(peers.reply_at_eof) as endpoint:
        done = connect(endpoint, "--hex", text="hello\n\x1b[2J")
    assert (done.returncode, done.stdout) == (0, b"HELLO\n\x1b[2J")
    assert done.stderr.decode().splitlines() == [
        "-> 00000000  68 65 6c 6c 6f 0a 1b 5b  32 4a                    |hello..[2J|",
        "-> 0000000a  EOF",
        "<- 00000000  48 45 4c 4c 4f 0a 1b 5b  32 4a                    |HELLO..[2J|",
        "<- 0000000a  EOF",
    ]


def test_hex_dump_offsets_restart_per_datagram() -> None:
    with peers.udp_peer(lambda data: [data.upper()]) as endpoint:
        done = connect(endpoint, "--hex", text="a\n\n")
    assert done.stdout == b"A\n\n"
    assert done.stderr.decode().splitlines() == [
        "-> 00000000  61                                                |a|",
        "<- 00000000  41                                                |A|",
        "-> 00000000  empty message",
        "<- 00000000  empty message",
    ]


# Scan and resolve


@pytest.mark.parametrize("words", [("-z", "{host}", "{port}"), ("-zv", "{host}:{port}"), ("-z", "{url}")])
def test_scan_open_ports(words: tuple[str, ...]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with listener:
        done = connect(
            *(word.format(host="127.0.0.1", port=port, url=f"tcp://127.0.0.1:{port}") for word in words)
        )
    assert done.returncode == 0
    assert done.stdout.split()[:3] == [b"127.0.0.1", b"%d/tcp" % port, b"open"]
    assert done.stderr == b""


def test_scan_closed_port_exits_1() -> None:
    port = peers.closed_port()
    done = connect("-z", "127.0.0.1", str(port), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["port"], found["errno"]) == (port, "ECONNREFUSED")


def test_scan_silent_udp_port_exits_1() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        for words in (
            ("-zu", "127.0.0.1", str(silent.getsockname()[1])),
            ("-z", f"udp://127.0.0.1:{silent.getsockname()[1]}"),
        ):
            done = connect(*words, "-w", "0.3")
            assert done.returncode == 1
            assert b"open or no answer" in done.stdout


def test_scan_rejects_scheme_without_ports() -> None:
    done = connect("-z", "unix:///run/a.sock")
    assert done.returncode == 2
    assert b"-z scans TCP ports" in done.stderr


def test_resolve_name() -> None:
    done = connect("--resolve", "-4", "localhost", "http")
    assert done.returncode == 0
    assert b"official name  localhost" in done.stdout
    found = json.loads(connect("--resolve", "127.0.0.1", "12000", "--json", "-n").stdout)
    assert found["port"]["number"] == 12000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-z", "-l", "127.0.0.1", "80"), b"-l and -z cannot be combined"),
        (("-k", "127.0.0.1", "80"), b"-k needs -l"),
        (("--json", "127.0.0.1", "80"), b"--json needs -z or --resolve"),
        (("-z", "127.0.0.1", "80", "--send", "x"), b"-z sends nothing"),
        (("-C", "--no-newline", "127.0.0.1", "80", "--send", "x"), b"--crlf and --no-newline"),
        (("-l",), b"missing argument"),
        (("-l", "-p", "12000", "12001"), b"takes at most a host"),
        (("-l", ":12000", ":12001"), b"-l listens on one endpoint"),
        (("-l", "tls://:12000"), b"bothends serve supports both"),
        (("-l", "stdio:"), b"already connected"),
    ],
)
def test_usage_errors_are_one_line(words: tuple[str, ...], message: bytes) -> None:
    done = connect(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_endpoint_forms() -> None:
    with peers.tcp_peer(peers.upper_lines, connections=3) as endpoint:
        for words in (
            (str(Endpoint("tcp", host="127.0.0.1", port=endpoint.port)),),
            (f"127.0.0.1:{endpoint.port}",),
        ):
            assert connect(*words, "--send", "x").stdout == b"X\n"
        assert connect("-4", "localhost", str(endpoint.port), "--send", "x").stdout == b"X\n"


def lookup(name: str, protocol: str) -> int:
    try:
        return {("http", "tcp"): 80, ("domain", "udp"): 53}[name, protocol]
    except KeyError:
        raise OSError from None


@pytest.mark.parametrize(
    ("args", "protocol", "numbered"),
    [
        (["localhost", "http"], "tcp", ["localhost", "80"]),
        (["localhost:http"], "tcp", ["localhost:80"]),
        (["::1", "http"], "tcp", ["::1", "80"]),
        (["[::1]:http"], "tcp", ["[::1]:80"]),
        (["9.9.9.9", "domain"], "udp", ["9.9.9.9", "53"]),
        (["localhost", "80"], "tcp", ["localhost", "80"]),
        (["localhost"], "tcp", ["localhost"]),
        (["tcp://localhost:http"], "tcp", ["tcp://localhost:http"]),
        (["unix:a"], "tcp", ["unix:a"]),
        (["stdio:"], "tcp", ["stdio:"]),
        (["::1"], "tcp", ["::1"]),
        (["/run/a.sock"], "tcp", ["/run/a.sock"]),
        ([":12000"], "tcp", [":12000"]),
        (["a", "http", "c"], "tcp", ["a", "http", "c"]),
    ],
)
def test_service_names_become_ports(args: list[str], protocol: str, numbered: list[str]) -> None:
    assert with_port_numbers(args, protocol, lookup) == numbered


@pytest.mark.parametrize("args", [["localhost", "htp"], ["localhost:htp"]])
def test_unknown_service_name_is_an_error(args: list[str]) -> None:
    with pytest.raises(EndpointError, match="there is no tcp service 'htp'; a port is a number from 0 to"):
        with_port_numbers(args, "tcp", lookup)


def test_path_is_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    done = connect(str(path))
    assert done.returncode == 1
    assert b"cannot connect to unix://%b: ENOENT" % bytes(path) in done.stderr
