"""Streams that are cut into messages: each framing, whatever the kernel takes at a time, and across kinds."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import CannotCarry
from bothends.framing import Framing
from bothends.impair.proxy import medium_of
from bothends.impair.sockets import FRAMINGS, FramedEnd
from tests.impair.running import PATIENCE, Running, address, call, datagram_echo, echo, read_all, tcp_server

MESSAGES = [b"one", b"", b"three", bytes(range(11, 256)) * 40]


@contextlib.contextmanager
def framed(framing: Framing) -> Iterator[tuple[FramedEnd, socket.socket]]:
    """An end, and the socket at the other side."""
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(PATIENCE)
        yield FramedEnd(near, framing), far


@pytest.mark.parametrize("name", FRAMINGS)
def test_messages_are_cut_out_of_a_stream_however_it_comes(name: str) -> None:
    framing = FRAMINGS[name]
    whole = b"".join(framing.encode(each) for each in MESSAGES)
    with framed(framing) as (end, far):
        found: list[bytes] = []
        for start in range(0, len(whole), 7):
            far.send(whole[start : start + 7])
            found += end.receive() or ()
        far.shutdown(socket.SHUT_WR)
        while (more := end.receive()) is not None:
            found += more
        assert found == MESSAGES


def test_an_open_line_is_a_message_at_the_end() -> None:
    with framed(FRAMINGS["lines"]) as (end, far):
        far.send(b"one\ntwo")
        far.shutdown(socket.SHUT_WR)
        assert end.receive() == [b"one"]
        assert end.receive() == [b"two"]
        assert end.receive() is None


def test_a_message_that_the_kernel_takes_in_parts_arrives_whole_and_holds_up_the_next() -> None:
    message = bytes(200_000)
    with framed(FRAMINGS["u32"]) as (end, far):
        sent = 0
        while not end.is_pending:
            assert end.send([message]) == len(message)
            sent += 1
        assert end.send([b"next"]) == -1
        end.finish()
        received = bytearray()
        while len(received) < sent * (len(message) + 4):
            received += far.recv(65_536)
            end.push()
        assert not end.is_pending
        assert far.recv(1) == b""
        decoder = FRAMINGS["u32"].decoder()
        assert decoder.feed(bytes(received)) == [message] * sent


def test_what_a_framing_cannot_say_is_an_error_of_the_socket() -> None:
    with framed(FRAMINGS["u16"]) as (end, _), pytest.raises(OSError, match="limit"):
        end.send([bytes(70_000)])


def test_whole_lines_of_a_stream_are_lost_and_the_end_comes_behind_the_last() -> None:
    with tcp_server(echo) as server, Running() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, ("drop_first", "up:0"), framing="lines")
        running.put(proxy, "duplicate", "down:100%")
        with call(proxy.listen) as client:
            client.sendall(b"one\ntwo\nthree")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"one\none\ntwo\ntwo\nthree\nthree\n"
        running.wait_until(lambda: not proxy.conversations, "it ends")


def test_many_messages_from_stream_to_stream_one_slower_than_the_other() -> None:
    lines = b"".join(b"%d\n" % number for number in range(50_000))
    with tcp_server(echo) as server, Running() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, framing="lines")
        with call(proxy.listen) as client:

            def say() -> None:
                client.sendall(lines)
                client.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=say)
            thread.start()
            assert read_all(client) == lines
            thread.join(PATIENCE)


def test_from_a_stream_to_datagrams() -> None:
    with datagram_echo() as server, Running(idle=0.1) as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, framing="u16")
        with call(proxy.listen) as client:
            client.sendall(b"\0\5hello\0\3you")
            received = b""
            while len(received) < 12:
                received += client.recv(100)
            assert received == b"\0\5hello\0\3you"
            client.shutdown(socket.SHUT_WR)
            running.wait_until(lambda: not proxy.conversations, "it ends though datagrams have no end")


def test_from_datagrams_to_a_stream_and_a_new_connection_when_that_has_ended() -> None:
    def once(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100).upper())

    with tcp_server(once) as server, Running() as running:
        proxy = running.proxy("udp://127.0.0.1:0", server, framing="lines")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(address(proxy.listen))
            for word in (b"one", b"two"):
                client.send(word)
                assert client.recv(100) == word.upper()
                running.wait_until(lambda: not proxy.conversations, "the session ends with the connection")
        assert proxy.opened == 2


def test_a_message_that_is_too_long_resets() -> None:
    with tcp_server(echo) as server, Running() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server, framing="u32")
        with call(proxy.listen) as client:
            client.sendall(b"\xff\xff\xff\xff")
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_framing_without_a_stream_makes_no_sense() -> None:
    with pytest.raises(CannotCarry, match="neither is one"):
        medium_of(Endpoint.parse("udp://:0"), Endpoint.parse("udp://:1"), "lines")
