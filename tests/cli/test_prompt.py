"""`bothends connect` at a terminal."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from tests.cli.terminals import terminal
from tests.client import peers

PROMPT = "\x1b[?2004h"  # bracketed paste is on: the prompt accepts a line
CTRL_D = "\x04"
CTRL_C = "\x03"
UP = "\x1b[A"


def test_lines_and_replies(tmp_path: Path) -> None:
    with (
        peers.tcp_peer(peers.upper_lines) as endpoint,
        terminal("connect", str(endpoint), state=tmp_path) as user,
    ):
        user.expect("connected 127.0.0.1#")
        user.expect(f" -> 127.0.0.1#{endpoint.port}")
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("HELLO\r\n")
        user.type("again\r")
        user.expect("AGAIN\r\n")
        user.type(CTRL_D)
        user.expect("the peer closed the connection")
        assert user.wait() == 0


def test_reply_in_fragments_without_newline(tmp_path: Path) -> None:
    def ask(connection: socket.socket) -> None:
        connection.sendall(b"log")
        connection.sendall(b"in: ")
        assert peers.read_line(connection) == b"me\n"
        connection.sendall(b"welcome")

    with peers.tcp_peer(ask) as endpoint, terminal("connect", str(endpoint), state=tmp_path) as user:
        user.expect("login:")
        user.type("me\r")
        user.expect("welcome")
        user.expect("the peer closed the connection")
        assert user.wait() == 0


def test_received_control_sequences_are_escaped(tmp_path: Path) -> None:
    with (
        peers.tcp_peer(lambda sock: sock.sendall("\x1b]0;title\x07é\n".encode())) as endpoint,
        terminal("connect", str(endpoint), state=tmp_path) as user,
    ):
        user.expect("\\x1b]0;title\\x07é\r\n")
        assert user.wait() == 0
        assert b"\x1b]0;title" not in user.output


def test_after_eof_peer_output_is_shown_until_eof(tmp_path: Path) -> None:
    with (
        peers.tcp_peer(peers.reply_at_eof) as endpoint,
        terminal("connect", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("one\r")
        user.expect("one")
        user.expect(PROMPT)
        user.type("two\r" + CTRL_D)
        user.expect("ONE\r\nTWO\r\n")
        user.expect("the peer closed the connection")
        assert user.wait() == 0


def test_interrupt_at_prompt(tmp_path: Path) -> None:
    with (
        peers.tcp_peer(peers.upper_lines) as endpoint,
        terminal("connect", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type(CTRL_C)
        assert user.wait() == 130
        assert b"Traceback" not in user.output


def test_interrupt_after_eof_while_peer_sends(tmp_path: Path) -> None:
    with (
        peers.tcp_peer_held_open(lambda sock: sock.sendall(peers.read_all(sock))) as endpoint,
        terminal("connect", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("hello\r" + CTRL_D)
        user.expect("hello")
        user.expect("hello\r\n")
        user.process.send_signal(signal.SIGINT)
        assert user.wait() == 130
        assert b"Traceback" not in user.output


def test_reset_is_reported_and_exits_1(tmp_path: Path) -> None:
    with (
        peers.tcp_peer(peers.reset_after_request) as endpoint,
        terminal("connect", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("bothends: connection to tcp://127.0.0.1")
        user.expect("ECONNRESET")
        assert user.wait() == 1


def test_quit_after_bounds_wait_after_eof(tmp_path: Path) -> None:
    with (
        peers.tcp_peer_held_open(peers.upper_lines) as endpoint,
        terminal("connect", "-q", "0.1", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type(CTRL_D)
        assert user.wait() == 0


def test_history_persists(tmp_path: Path) -> None:
    with peers.tcp_peer(peers.upper_lines, connections=2) as endpoint:
        with terminal("connect", str(endpoint), state=tmp_path) as user:
            user.expect(PROMPT)
            user.type("remember me\r")
            user.expect("REMEMBER ME")
            user.type(CTRL_D)
            assert user.wait() == 0
        with terminal("connect", str(endpoint), state=tmp_path) as user:
            user.expect(PROMPT)
            user.type(UP + "\r")
            user.expect("REMEMBER ME")
            user.type(CTRL_D)
            assert user.wait() == 0
    assert (tmp_path / "bothends" / "connect-history").stat().st_mode & 0o777 == 0o600


def test_unwritable_history_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "bothends").write_text("a file where the directory should be")
    with (
        peers.tcp_peer(peers.upper_lines) as endpoint,
        terminal("connect", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("HELLO")
        user.type(CTRL_D)
        assert user.wait() == 0


def test_datagrams(tmp_path: Path) -> None:
    with (
        peers.udp_peer(lambda data: [] if data == b"lost" else [data.upper()]) as endpoint,
        terminal("connect", str(endpoint), "-w", "0.7", state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("HELLO\r\n")
        user.type("lost\r")
        user.expect("no reply after 0.1 s, retrying (1 of 2)")
        user.expect("no reply after 0.2 s, retrying (2 of 2)")
        user.expect("no reply after 0.7 s")
        user.type("found\r")
        user.expect("FOUND\r\n")
        user.type(CTRL_D)
        assert user.wait() == 0


def test_datagram_to_closed_port(tmp_path: Path) -> None:
    endpoint = Endpoint("udp", host="127.0.0.1", port=peers.closed_port(socket.SOCK_DGRAM))
    with terminal("connect", str(endpoint), state=tmp_path) as user:
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("ECONNREFUSED")
        user.expect(PROMPT)
        user.type(CTRL_D)
        assert user.wait() == 0


def test_request_output_ends_with_newline(tmp_path: Path) -> None:
    with (
        peers.tcp_peer(peers.reply_and_close) as endpoint,
        terminal("connect", str(endpoint), "--send", "you\x07", state=tmp_path) as user,
    ):
        user.expect("goodbye to you\\x07\r\n")
        assert user.wait() == 0


def test_idle_after_eof_times_out(tmp_path: Path) -> None:
    with (
        peers.tcp_peer_held_open(peers.upper_lines) as endpoint,
        terminal("connect", "-w", "0.3", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type(CTRL_D)
        user.expect("timed out after 0.3 s while waiting for the peer's EOF")
        assert user.wait() == 124


def test_peer_close_exits_while_typing(tmp_path: Path) -> None:
    typed = threading.Event()

    def wait_and_close(connection: socket.socket) -> None:
        typed.wait(peers.TIMEOUT)

    with (
        peers.tcp_peer(wait_and_close) as endpoint,
        terminal("connect", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("half a li")
        user.expect("half a li")
        typed.set()
        user.expect("the peer closed the connection")
        assert user.wait() == 0


@pytest.mark.parametrize("words", [(), ("--no-half-close",)])
def test_peer_close_exits_with_only_stdin_terminal(words: tuple[str, ...]) -> None:
    master, slave = pty.openpty()
    with peers.tcp_peer(peers.reply_and_close) as endpoint:
        process = subprocess.Popen(
            [sys.executable, "-m", "bothends", "connect", str(endpoint), *words],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(slave)
        os.write(master, b"you\n")
        stdout, stderr = process.communicate(timeout=peers.TIMEOUT)
    os.close(master)
    assert (process.returncode, stdout, stderr) == (0, b"goodbye to you", b"")


def test_hex_dump_is_printed_above_prompt(tmp_path: Path) -> None:
    with (
        peers.tcp_peer(peers.upper_lines) as endpoint,
        terminal("connect", "--hex", "-C", str(endpoint), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("-> 00000000  68 65 6c 6c 6f 0d 0a                              |hello..|\r\n")
        user.expect("<- 00000000  48 45 4c 4c 4f 0d 0a                              |HELLO..|\r\n")
        user.expect("HELLO\r\n")
        user.type(CTRL_D)
        user.expect("-> 00000007  EOF\r\n")
        user.expect("<- 00000007  EOF\r\n")
        assert user.wait() == 0


def test_hex_dump_is_coloured(tmp_path: Path) -> None:
    with (
        peers.tcp_peer(peers.upper_lines) as endpoint,
        terminal("connect", "--hex", "--send", "hello", str(endpoint), state=tmp_path, colour=True) as user,
    ):
        user.expect("\x1b[2m-> 00000000  68 65")
        user.expect("\n<- 00000000  48 45")
        assert user.wait() == 0
