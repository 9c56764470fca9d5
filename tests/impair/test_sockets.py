"""Framed streams: every framing, with partial reads and writes, and to and from datagrams."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import UnsupportedCombination
from bothends.framing import Framing
from bothends.impair.proxy import medium_of
from bothends.impair.sockets import FRAMINGS, FramedSocketEnd
from bothends.toxics.base import Medium
from tests.impair.running import (
    TIMEOUT,
    RunningProxies,
    address,
    connect,
    echo,
    read_all,
    tcp_server,
    udp_echo_server,
)

MESSAGES = [b"one", b"", b"three", bytes(range(11, 256)) * 40]


@contextlib.contextmanager
def framed_socket_pair(framing: Framing) -> Iterator[tuple[FramedSocketEnd, socket.socket]]:
    """A framed end and the socket it is connected to."""
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(TIMEOUT)
        yield FramedSocketEnd(near, framing), far


@pytest.mark.parametrize("name", FRAMINGS)
def test_framed_end_receives_messages_for_any_chunking(name: str) -> None:
    framing = FRAMINGS[name]
    whole = b"".join(framing.encode(each) for each in MESSAGES)
    with framed_socket_pair(framing) as (end, far):
        received: list[bytes] = []
        for start in range(0, len(whole), 7):
            far.send(whole[start : start + 7])
            received += end.receive() or ()
        far.shutdown(socket.SHUT_WR)
        while (messages := end.receive()) is not None:
            received += messages
        assert received == MESSAGES


def test_framed_end_unterminated_line_is_message_at_eof() -> None:
    with framed_socket_pair(FRAMINGS["lines"]) as (end, far):
        far.send(b"one\ntwo")
        far.shutdown(socket.SHUT_WR)
        assert end.receive() == [b"one"]
        assert end.receive() == [b"two"]
        assert end.receive() is None


def test_framed_end_partial_send_blocks_next_message() -> None:
    message = bytes(200_000)
    with framed_socket_pair(FRAMINGS["u32"]) as (end, far):
        sent = 0
        while not end.has_pending:
            assert end.send([message]) == len(message)
            sent += 1
        assert end.send([b"next"]) == -1
        end.send_eof()
        received = bytearray()
        while len(received) < sent * (len(message) + 4):
            received += far.recv(65_536)
            end.flush()
        assert not end.has_pending
        assert far.recv(1) == b""
        decoder = FRAMINGS["u32"].decoder()
        assert decoder.feed(bytes(received)) == [message] * sent


def test_framed_end_oversized_message_raises_oserror() -> None:
    with framed_socket_pair(FRAMINGS["u16"]) as (end, _), pytest.raises(OSError, match="limit"):
        end.send([bytes(70_000)])


def test_lines_framing_duplicates_lines_and_forwards_eof() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("drop_first", "up:0"), framing="lines")
        running.add_toxic(proxy, "duplicate", "down:100%")
        with connect(proxy.listen) as client:
            client.sendall(b"one\ntwo\nthree")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"one\none\ntwo\ntwo\nthree\nthree\n"
        running.wait_until(lambda: not proxy.flows, "the connection ends")


def test_lines_framing_many_messages_pass_unchanged() -> None:
    lines = b"".join(b"%d\n" % number for number in range(50_000))
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, framing="lines")
        with connect(proxy.listen) as client:

            def send_all() -> None:
                client.sendall(lines)
                client.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=send_all)
            thread.start()
            assert read_all(client) == lines
            thread.join(TIMEOUT)


def test_framed_stream_to_udp_upstream() -> None:
    with udp_echo_server() as server, RunningProxies(idle_timeout=0.1) as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, framing="u16")
        with connect(proxy.listen) as client:
            client.sendall(b"\0\5hello\0\3you")
            received = b""
            while len(received) < 12:
                received += client.recv(100)
            assert received == b"\0\5hello\0\3you"
            client.shutdown(socket.SHUT_WR)
            running.wait_until(lambda: not proxy.flows, "the connection ends after the idle timeout")


def test_udp_to_framed_stream_reconnects_after_eof() -> None:
    def once(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100).upper())

    with tcp_server(once) as server, RunningProxies() as running:
        proxy = running.proxy("udp://127.0.0.1:0", server, framing="lines")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT)
            client.connect(address(proxy.listen))
            for word in (b"one", b"two"):
                client.send(word)
                assert client.recv(100) == word.upper()
                running.wait_until(lambda: not proxy.flows, "the session ends with the connection")
        assert proxy.flows_opened == 2


def test_oversized_framed_message_resets_connection() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, framing="u32")
        with connect(proxy.listen) as client:
            client.sendall(b"\xff\xff\xff\xff")
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_framing_without_stream_endpoint_is_rejected() -> None:
    with pytest.raises(UnsupportedCombination, match="needs a stream"):
        medium_of(Endpoint.parse("udp://:0"), Endpoint.parse("udp://:1"), "lines")


@pytest.mark.parametrize(
    ("listen", "upstream", "medium"),
    [
        ("udp://:0", "tcp://:1", Medium.DATAGRAMS),
        ("tcp://:0", "udp://:1", Medium.MESSAGES),
        ("tcp://:0", "tcp://:1", Medium.MESSAGES),
    ],
)
def test_framing_keeps_the_medium_of_the_listener(listen: str, upstream: str, medium: Medium) -> None:
    assert medium_of(Endpoint.parse(listen), Endpoint.parse(upstream), "lines") is medium
