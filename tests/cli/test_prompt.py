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

PROMPT = "\x1b[?2004h"  # bracketed paste is turned on: a line can be typed
END = "\x04"
INTERRUPT = "\x03"
UP = "\x1b[A"


def test_lines_and_their_answers(tmp_path: Path) -> None:
    with peers.peer(peers.shout) as where, terminal("connect", str(where), state=tmp_path) as user:
        user.expect("connected 127.0.0.1#")
        user.expect(f" -> 127.0.0.1#{where.port}")
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("HELLO\r\n")
        user.type("again\r")
        user.expect("AGAIN\r\n")
        user.type(END)
        user.expect("the peer closed the connection")
        assert user.leave() == 0


def test_an_answer_byte_by_byte_and_without_an_end(tmp_path: Path) -> None:
    def ask(connection: socket.socket) -> None:
        connection.sendall(b"log")
        connection.sendall(b"in: ")
        assert peers.read_line(connection) == b"me\n"
        connection.sendall(b"welcome")

    with peers.peer(ask) as where, terminal("connect", str(where), state=tmp_path) as user:
        user.expect("login:")
        user.type("me\r")
        user.expect("welcome")
        user.expect("the peer closed the connection")
        assert user.leave() == 0


def test_what_is_shown_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    with (
        peers.peer(lambda sock: sock.sendall("\x1b]0;title\x07é\n".encode())) as where,
        terminal("connect", str(where), state=tmp_path) as user,
    ):
        user.expect("\\x1b]0;title\\x07é\r\n")
        assert user.leave() == 0
        assert b"\x1b]0;title" not in user.shown


def test_after_our_end_the_peers_words_are_shown_to_their_end(tmp_path: Path) -> None:
    with peers.peer(peers.answer_at_end) as where, terminal("connect", str(where), state=tmp_path) as user:
        user.expect(PROMPT)
        user.type("one\r")
        user.expect("one")
        user.expect(PROMPT)
        user.type("two\r" + END)
        user.expect("ONE\r\nTWO\r\n")
        user.expect("the peer closed the connection")
        assert user.leave() == 0


def test_interrupted_at_the_prompt(tmp_path: Path) -> None:
    with peers.peer(peers.shout) as where, terminal("connect", str(where), state=tmp_path) as user:
        user.expect(PROMPT)
        user.type(INTERRUPT)
        assert user.leave() == 130
        assert b"Traceback" not in user.shown


def test_interrupted_while_the_peer_talks_on(tmp_path: Path) -> None:
    with (
        peers.staying(lambda sock: sock.sendall(peers.read_all(sock))) as where,
        terminal("connect", str(where), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("hello\r" + END)
        user.expect("hello")
        user.expect("hello\r\n")
        user.process.send_signal(signal.SIGINT)
        assert user.leave() == 130
        assert b"Traceback" not in user.shown


def test_a_reset_is_told(tmp_path: Path) -> None:
    with peers.peer(peers.reset) as where, terminal("connect", str(where), state=tmp_path) as user:
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("bothends: connection to tcp://127.0.0.1")
        user.expect("ECONNRESET")
        assert user.leave() == 1


def test_the_wait_after_our_end_can_be_bounded(tmp_path: Path) -> None:
    with (
        peers.staying(peers.shout) as where,
        terminal("connect", "-q", "0.1", str(where), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type(END)
        assert user.leave() == 0


def test_lines_of_earlier_runs_come_back(tmp_path: Path) -> None:
    with peers.peer(peers.shout, connections=2) as where:
        with terminal("connect", str(where), state=tmp_path) as user:
            user.expect(PROMPT)
            user.type("remember me\r")
            user.expect("REMEMBER ME")
            user.type(END)
            assert user.leave() == 0
        with terminal("connect", str(where), state=tmp_path) as user:
            user.expect(PROMPT)
            user.type(UP + "\r")
            user.expect("REMEMBER ME")
            user.type(END)
            assert user.leave() == 0
    assert (tmp_path / "bothends" / "connect-history").stat().st_mode & 0o777 == 0o600


def test_a_history_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "bothends").write_text("a file where the directory should be")
    with peers.peer(peers.shout) as where, terminal("connect", str(where), state=tmp_path) as user:
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("HELLO")
        user.type(END)
        assert user.leave() == 0


def test_datagrams(tmp_path: Path) -> None:
    with (
        peers.datagram_peer(lambda data: [] if data == b"lost" else [data.upper()]) as where,
        terminal("connect", str(where), "-w", "0.7", state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("HELLO\r\n")
        user.type("lost\r")
        user.expect("no answer after 0.1 s, sending again (1 of 2)")
        user.expect("no answer after 0.2 s, sending again (2 of 2)")
        user.expect("no answer after 0.7 s")
        user.type("found\r")
        user.expect("FOUND\r\n")
        user.type(END)
        assert user.leave() == 0


def test_datagrams_to_nobody(tmp_path: Path) -> None:
    where = Endpoint("udp", host="127.0.0.1", port=peers.closed_port(socket.SOCK_DGRAM))
    with terminal("connect", str(where), state=tmp_path) as user:
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("ECONNREFUSED")
        user.expect(PROMPT)
        user.type(END)
        assert user.leave() == 0


def test_one_request_at_a_terminal_ends_its_line(tmp_path: Path) -> None:
    with (
        peers.peer(peers.answer_and_close) as where,
        terminal("connect", str(where), "--send", "you\x07", state=tmp_path) as user,
    ):
        user.expect("goodbye to you\\x07\r\n")
        assert user.leave() == 0


def test_silence_after_our_end_is_a_failure(tmp_path: Path) -> None:
    with (
        peers.staying(peers.shout) as where,
        terminal("connect", "-w", "0.3", str(where), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type(END)
        user.expect("time limit of 0.3 s passed while waiting for the peer's EOF")
        assert user.leave() == 124


def test_the_peers_close_ends_it_while_a_line_is_being_typed(tmp_path: Path) -> None:
    typed = threading.Event()

    def wait_and_close(connection: socket.socket) -> None:
        typed.wait(peers.PATIENCE)

    with peers.peer(wait_and_close) as where, terminal("connect", str(where), state=tmp_path) as user:
        user.expect(PROMPT)
        user.type("half a li")
        user.expect("half a li")
        typed.set()
        user.expect("the peer closed the connection")
        assert user.leave() == 0


@pytest.mark.parametrize("words", [(), ("--no-half-close",)])
def test_the_peers_close_ends_it_when_only_the_keys_are_a_terminals(words: tuple[str, ...]) -> None:
    master, slave = pty.openpty()
    with peers.peer(peers.answer_and_close) as where:
        process = subprocess.Popen(
            [sys.executable, "-m", "bothends", "connect", str(where), *words],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(slave)
        os.write(master, b"you\n")
        shown, complained = process.communicate(timeout=peers.PATIENCE)
    os.close(master)
    assert (process.returncode, shown, complained) == (0, b"goodbye to you", b"")


def test_a_hex_dump_stands_above_the_line_that_is_typed(tmp_path: Path) -> None:
    with (
        peers.peer(peers.shout) as where,
        terminal("connect", "--hex", "-C", str(where), state=tmp_path) as user,
    ):
        user.expect(PROMPT)
        user.type("hello\r")
        user.expect("-> 00000000  68 65 6c 6c 6f 0d 0a                              |hello..|\r\n")
        user.expect("<- 00000000  48 45 4c 4c 4f 0d 0a                              |HELLO..|\r\n")
        user.expect("HELLO\r\n")
        user.type(END)
        user.expect("-> 00000007  the end\r\n")
        user.expect("<- 00000007  the end\r\n")
        assert user.leave() == 0


def test_colour_is_for_the_hex_dump_too(tmp_path: Path) -> None:
    with (
        peers.peer(peers.shout) as where,
        terminal("connect", "--hex", "--send", "hello", str(where), state=tmp_path, colour=True) as user,
    ):
        user.expect("\x1b[2m-> 00000000  68 65")
        user.expect("\n<- 00000000  48 45")
        assert user.leave() == 0
