"""When an exchange ends, on a clock of its own; and the pump between real descriptors."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.client.blocking import Connection
from bothends.client.stdio_relay import GRACE, NO_WORD, SETTLED, AnswerEnding, CrLf, Due, Ending, Pump, Sink
from bothends.endpoints import Endpoint
from bothends.errors import ConnectionLost, TimeLimit
from bothends.escaping import Escaper
from tests.client.peers import PATIENCE

WHERE = Endpoint("unix", path="/nowhere")


def test_a_pipe_finishes_as_soon_as_all_is_sent_and_stays_for_the_peer() -> None:
    ending = Ending(quit_after=None, silence=None, now=100.0)
    assert ending.due() is None
    ending.sent_all = 101.0
    assert ending.due() == Due(101.0, "finish")
    ending.finished = 101.0
    assert ending.due() is None


def test_a_pipe_with_a_limit_leaves_when_nothing_has_come_for_so_long() -> None:
    ending = Ending(quit_after=2.0, silence=None, now=100.0, sent_all=101.0, finished=101.0)
    assert ending.due() == Due(103.0, "leave")
    ending.receives(1, 102.5)
    assert ending.due() == Due(104.5, "leave")


def test_a_pipe_does_not_wait_for_someone_to_type_when_the_peer_is_gone() -> None:
    ending = Ending(quit_after=None, silence=None, now=100.0, peer_ended=True)
    assert ending.due() == Due(100.0 + GRACE, "leave")


def test_silence_is_given_up() -> None:
    ending = Ending(quit_after=None, silence=5.0, now=100.0)
    assert ending.due() == Due(105.0, "give up")
    ending.receives(0, 104.0)
    assert ending.due() == Due(109.0, "give up")


def test_a_request_finishes_with_its_answer() -> None:
    ending = AnswerEnding(quit_after=2.0, silence=10.0, now=100.0, expected=2)
    assert ending.due() == Due(110.0, "give up")
    ending.sent_all = 100.0
    assert ending.due() == Due(100.0 + NO_WORD, "finish")
    ending.receives(1, 100.5)  # one line of two
    assert ending.due() == Due(100.5 + SETTLED, "finish")
    ending.receives(1, 100.6)
    assert ending.due() == Due(100.0, "finish")
    ending.finished = 100.6
    assert ending.due() == Due(102.6, "leave")


def test_a_request_without_any_answer_is_given_up_and_not_left() -> None:
    ending = AnswerEnding(quit_after=2.0, silence=10.0, now=100.0, sent_all=100.0, finished=101.0)
    assert ending.due() == Due(110.0, "give up")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (b"one\ntwo\n", b"one\r\ntwo\r\n"),
        (b"has\r\nit\n", b"has\r\nit\r\n"),
        (b"\n\n\r\n\n", b"\r\n\r\n\r\n\r\n"),
        (b"a\rb\r\r\nno end", b"a\rb\r\r\nno end"),
    ],
)
def test_lines_end_with_cr_lf_however_they_are_cut(typed: bytes, sent: bytes) -> None:
    for size in range(1, len(typed) + 1):
        ends = CrLf()
        cut = [typed[place : place + size] for place in range(0, len(typed), size)]
        assert b"".join(map(ends.feed, cut)) == sent


@given(st.lists(st.text("a\r\n", max_size=6)))
def test_cr_lf_depends_on_no_cut(pieces: list[str]) -> None:
    ends = CrLf()
    data = [piece.encode() for piece in pieces]
    assert b"".join(map(ends.feed, data)) == CrLf().feed(b"".join(data))


class Ends:
    """A connection whose peer is in the test's hands, and pipes for its input and output."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(PATIENCE)
        self.connection = Connection(ours, WHERE)
        self.source, self.input = os.pipe()
        self.output, self.target = os.pipe()

    def close(self) -> None:
        """Give everything back."""
        self.peer.close()
        self.connection.close()
        for descriptor in (self.source, self.input, self.output, self.target):
            if descriptor >= 0:
                os.close(descriptor)

    def end_input(self) -> None:
        """Standard input's EOF."""
        os.close(self.input)
        self.input = -1

    def pump(self, ending: Ending | None = None) -> Pump:
        """The pump under test."""
        ending = ending or Ending(None, PATIENCE, time.monotonic())
        return Pump(self.connection, self.source, Sink(self.target), ending)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """See Ends."""
    both = Ends()
    yield both
    both.close()


def in_thread(work: Callable[[], None]) -> threading.Thread:
    """Start it; give the thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_large_echo_does_not_deadlock(ends: Ends) -> None:
    data = os.urandom(3_000_000)

    def type_it() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(ends.input, view) :]
        ends.end_input()

    def echo() -> None:
        while chunk := ends.peer.recv(65536):
            ends.peer.sendall(chunk)
        ends.peer.close()

    came = bytearray()

    def read() -> None:
        while len(came) < len(data):
            came.extend(os.read(ends.output, 65536))

    threads = [in_thread(work) for work in (type_it, echo, read)]
    totals = ends.pump().run()
    for thread in threads:
        thread.join(PATIENCE)
    assert bytes(came) == data
    assert (totals.sent, totals.received) == (len(data), len(data))


def test_what_nobody_takes_is_not_read(ends: Ends) -> None:
    # Standard output takes nothing; so the peer must be stopped after what the buffers hold.
    ends.end_input()
    left: list[BaseException] = []

    def pump() -> None:
        try:
            ends.pump().run()
        except BrokenPipeError as error:
            left.append(error)

    thread = in_thread(pump)
    ends.peer.settimeout(0.2)
    sent = 0
    try:
        while sent < 50_000_000:
            sent += ends.peer.send(bytes(65536))
    except TimeoutError:
        pass
    assert sent < 5_000_000
    os.close(ends.output)
    ends.output = -1
    thread.join(PATIENCE)
    assert left


def test_an_answer_before_a_failed_send_is_still_shown(ends: Ends) -> None:
    os.write(ends.input, b"more than the peer wanted")
    ends.peer.sendall(b"no thanks")
    ends.peer.close()
    with pytest.raises(ConnectionLost):
        ends.pump().run()
    assert os.read(ends.output, 100) == b"no thanks"


def test_a_file_is_sent_to_its_end_although_the_peer_has_half_closed(ends: Ends, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    ends.peer.shutdown(socket.SHUT_WR)
    came = bytearray()

    def read() -> None:
        while chunk := ends.peer.recv(65536):
            came.extend(chunk)

    thread = in_thread(read)
    with path.open("rb") as file:
        Pump(
            ends.connection, file.fileno(), Sink(ends.target), Ending(None, PATIENCE, time.monotonic())
        ).run()
    ends.connection.close()
    thread.join(PATIENCE)
    assert bytes(came) == data


def test_the_peers_close_ends_it_although_the_input_stays_open(ends: Ends) -> None:
    ends.peer.close()
    ends.pump().run()


def test_silence_ends_it(ends: Ends) -> None:
    with pytest.raises(TimeLimit) as caught:
        ends.pump(Ending(None, 0.05, time.monotonic())).run()
    assert caught.value.seconds == 0.05


def test_packets_are_lines() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    source, typed = os.pipe()
    output, target = os.pipe()
    os.write(typed, b"one\ntwo\nthree")
    os.close(typed)
    theirs.send(b"ein")
    theirs.send(b"zwei\n")
    with Connection(ours, WHERE) as connection, theirs:
        theirs.shutdown(socket.SHUT_WR)
        totals = Pump(
            connection, source, Sink(target, separate=True), Ending(None, PATIENCE, time.monotonic())
        ).run()
        assert [theirs.recv(100) for _ in range(3)] == [b"one", b"two", b"three"]
    assert os.read(output, 100) == b"ein\nzwei\n"
    assert (totals.messages_sent, totals.messages_received) == (3, 2)
    for descriptor in (source, output, target):
        os.close(descriptor)


def test_what_is_for_eyes_is_escaped_and_its_last_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "shown"
    with path.open("wb") as file:
        sink = Sink(file.fileno(), Escaper())
        sink.put(b"one\r\n\x1b[2J\xc3")
        sink.put(b"\xa9")
        sink.end()
    assert path.read_text() == "one\n\\x1b[2Jé\n"
