"""`engines/blocking.py`: one connection that may block, on real sockets, in threads of the test."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from bothends.endpoints import Address, Endpoint
from bothends.engines.base import Job, Limits
from bothends.engines.blocking import Warden, converse
from bothends.engines.driver import Exchange
from bothends.engines.shutdown import Stop
from bothends.errors import MessageTooLong
from bothends.events import Cause, Closed, Ended, Event, Failed, Received, Sent
from bothends.services.base import Conversation, Peer, Post, Service
from bothends.sockets import Listener

PATIENCE = 10.0
RESET = struct.pack("ii", 1, 0)
SMALL = 4096  # a receive buffer that is full soon


class Script(Conversation):
    """A conversation made of functions."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)
        self.closed_count = 0

    def receive(self, data: bytes) -> bytes:
        return data

    def closed(self) -> None:
        self.closed_count += 1


class Puller(Conversation):
    """Says the same thing for as long as it is asked for more; the peer's words are kept."""

    def __init__(self, piece: bytes, times: int | None = None) -> None:
        self.piece = piece
        self.times = times
        self.heard = b""

    def receive(self, data: bytes) -> bytes:
        self.heard += data
        return b""

    def more(self) -> bytes:
        if self.times is None:
            return self.piece
        self.times -= 1
        self.done = self.times == 0
        return self.piece


class Only(Service):
    """Serves this one conversation."""

    name = "only"

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def open(self, peer: Peer, post: Post) -> Conversation:
        return self.conversation


class Talking:
    """A conversation that goes on in a thread; `client` is the other end."""

    def __init__(
        self, kind: str, conversation: Conversation, limits: Limits, stop: Stop, warden: Warden
    ) -> None:
        self.events: list[Event] = []
        self.stop = stop
        self.client, self.server = _pair(kind)
        self.client.settimeout(PATIENCE)
        name = Address("inet", "127.0.0.1", 1)
        listener = Listener(Endpoint("tcp", port=1), self.server, "listener", Endpoint("tcp", port=1))
        job = Job(Only(conversation), [listener], stop, limits, self.events.append)
        exchange = Exchange(job, listener, Peer(name, name, boundaries=kind == "seqpacket", connection=1))
        self.error: BaseException | None = None

        def run() -> None:
            try:
                converse(self.server, exchange, limits, warden)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self) -> Closed:
        """Wait for the end of it."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        assert self.server.fileno() == -1
        closed = [event for event in self.events if isinstance(event, Closed)]
        assert len(closed) == 1
        assert closed[0] is self.events[-1]
        return closed[0]

    def all(self, kind: type[Event]) -> list[Any]:
        """Its events of this kind."""
        return [event for event in self.events if isinstance(event, kind)]


@contextmanager
def talking(conversation: Conversation, kind: str = "tcp", limits: Limits | None = None) -> Iterator[Talking]:
    limits = limits or Limits()
    with ExitStack() as stack:
        stop = Stop()
        stack.callback(stop.close)
        warden = stack.enter_context(Warden(stop, limits))
        talk = Talking(kind, conversation, limits, stop, warden)
        stack.callback(talk.thread.join, PATIENCE)
        stack.callback(talk.client.close)
        yield talk


def _pair(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind == "unix":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if kind == "seqpacket":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        return client, server


def hear_all(client: socket.socket) -> bytes:
    heard = bytearray()
    while data := client.recv(65536):
        heard += data
    return bytes(heard)


def hear_reset(client: socket.socket) -> None:
    """Read until the connection is reset."""
    with pytest.raises(ConnectionResetError):
        hear_all(client)


def until(condition: Callable[[], object]) -> None:
    """Wait for what happens in another thread."""
    deadline = time.monotonic() + PATIENCE
    waiting = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        waiting.wait(0.005)


class Recorder:
    """A blocking socket that writes down which calls are made on it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            return method(*arguments)

        return call


KINDS = pytest.mark.parametrize("kind", ["tcp", "unix", "seqpacket"])


# What is called ------------------------------------------------------------------------------------


def test_a_conversation_is_one_recv_and_one_send_a_chunk_and_nothing_else() -> None:
    stop = Stop()
    client, server = _pair("tcp")
    recorder: Any = Recorder(server)
    name = Address("inet", "127.0.0.1", 1)
    listener = Listener(Endpoint("tcp", port=1), server, "listener", Endpoint("tcp", port=1))
    job = Job(Only(Script()), [listener], stop)
    with Warden(stop, job.limits) as warden, client:
        thread = threading.Thread(
            target=converse, args=(recorder, Exchange(job, listener, Peer(name, name)), job.limits, warden)
        )
        thread.start()
        for word in (b"one", b"two"):
            client.sendall(word)
            assert client.recv(100) == word
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
        thread.join(PATIENCE)
    stop.close()
    assert recorder.calls == ["recv", "send", "recv", "send", "recv", "shutdown", "close"]


# How it goes ---------------------------------------------------------------------------------------


@KINDS
def test_answers_until_the_peer_has_finished_then_says_the_last_word(kind: str) -> None:
    conversation = Script(end=lambda: b"bye")
    with talking(conversation, kind) as talk:
        talk.client.sendall(b"hello")
        assert talk.client.recv(100) == b"hello"
        talk.client.shutdown(socket.SHUT_WR)
        assert hear_all(talk.client) == b"bye"
        closed = talk.end()
    assert (closed.cause, closed.received, closed.sent) == (Cause.PEER, 5, 8)
    assert conversation.closed_count == 1
    assert len(talk.all(Ended)) == 1


@KINDS
def test_says_the_first_word_and_hangs_up_when_done(kind: str) -> None:
    conversation = Script(start=lambda: b"welcome")
    conversation.done = True
    with talking(conversation, kind) as talk:
        assert hear_all(talk.client) == b"welcome"
        talk.client.close()
        assert talk.end().cause is Cause.SERVICE


def test_input_that_nobody_wants_does_not_destroy_the_answer() -> None:
    def answer(_data: bytes) -> bytes:
        conversation.done = True
        return b"x" * 100_000

    conversation = Script(receive=answer)
    with talking(conversation) as talk:
        talk.client.sendall(b"question" * 10_000)
        talk.client.shutdown(socket.SHUT_WR)
        assert len(hear_all(talk.client)) == 100_000
        assert talk.end().cause is Cause.SERVICE


def test_who_never_hangs_up_is_left_after_the_linger_time() -> None:
    conversation = Script()
    conversation.done = True
    with talking(conversation, limits=Limits(linger=0.1)) as talk:
        assert talk.end().cause is Cause.SERVICE


def test_ten_megabytes_to_a_slow_reader() -> None:
    size = 10 * 1024 * 1024
    with talking(Script(end=lambda: bytes(size)), limits=Limits(idle=5.0)) as talk:
        talk.client.shutdown(socket.SHUT_WR)
        count = 0
        while data := talk.client.recv(1000 if count < 500_000 else 1_000_000):
            count += len(data)
        assert talk.end().sent == count == size
    pieces = [len(event.data) for event in talk.all(Sent)]
    assert sum(pieces) == size
    assert max(pieces) <= 256 * 1024


def test_who_pulls_is_asked_for_more_when_all_is_sent_and_hears_meanwhile() -> None:
    conversation = Puller(b"y" * 1000, times=20_000)
    with talking(conversation) as talk:
        talk.client.sendall(b"enough?")
        assert len(hear_all(talk.client)) == 20_000_000
        talk.client.close()
        assert talk.end().cause is Cause.SERVICE
    assert conversation.heard == b"enough?"


def test_who_pulls_goes_on_when_the_peer_only_listens() -> None:
    with talking(Puller(b"y" * 1000, times=20_000)) as talk:
        talk.client.shutdown(socket.SHUT_WR)
        assert len(hear_all(talk.client)) == 20_000_000
        assert talk.end().cause is Cause.PEER


def test_messages_stay_messages() -> None:
    with talking(Script(), "seqpacket") as talk:
        for size in (1, 2, 100_000):
            talk.client.send(b"m" * size)
        assert [len(talk.client.recv(300_000)) for _ in range(3)] == [1, 2, 100_000]


def test_a_message_that_is_too_long_fails_and_is_not_cut() -> None:
    with talking(Script(), "seqpacket") as talk:
        talk.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        talk.client.send(b"m" * 300_000)
        assert hear_all(talk.client) == b""
        talk.client.close()
        assert talk.end().cause is Cause.FAILED
    assert [type(event.error) for event in talk.all(Failed)] == [MessageTooLong]
    assert talk.all(Received) == []


def test_an_answer_that_is_too_long_for_a_message_fails() -> None:
    with talking(Script(receive=lambda _: bytes(4_000_000)), "seqpacket") as talk:
        talk.client.send(b"?")
        assert talk.end().cause is Cause.FAILED
    assert isinstance(talk.all(Failed)[0].error, OSError)


# How it ends otherwise -------------------------------------------------------------------------------


def test_a_reset_before_the_first_byte() -> None:
    with talking(Script()) as talk:
        talk.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        talk.client.close()
        assert talk.end().cause is Cause.RESET


def test_a_reset_while_sending() -> None:
    with talking(Puller(b"y" * 100_000)) as talk:
        talk.client.recv(1000)
        talk.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        talk.client.close()
        assert talk.end().cause is Cause.RESET


def test_a_reset_while_lingering_is_no_matter() -> None:
    conversation = Script()
    conversation.done = True
    with talking(conversation) as talk:
        assert hear_all(talk.client) == b""
        talk.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        talk.client.close()
        assert talk.end().cause is Cause.SERVICE


@KINDS
def test_the_peer_closes_without_reading(kind: str) -> None:
    with talking(Puller(b"y" * 10_000), kind) as talk:
        talk.client.close()
        assert talk.end().cause is Cause.RESET


def test_a_service_that_raises_ends_its_own_conversation_only() -> None:
    def mistake(_data: bytes) -> bytes:
        raise ZeroDivisionError

    conversation = Script(receive=mistake)
    with talking(conversation) as talk:
        talk.client.sendall(b"?")
        assert hear_all(talk.client) == b""
        talk.client.close()
        assert talk.end().cause is Cause.FAILED
    assert conversation.closed_count == 1
    assert talk.error is None


def test_what_is_no_exception_passes_through_and_leaves_nothing_open() -> None:
    def interrupted(_data: bytes) -> bytes:
        raise KeyboardInterrupt

    conversation = Script(receive=interrupted)
    with talking(conversation) as talk:
        talk.client.sendall(b"?")
        assert talk.end().cause is Cause.ABORTED
    assert isinstance(talk.error, KeyboardInterrupt)
    assert conversation.closed_count == 1


# Limits --------------------------------------------------------------------------------------------


@KINDS
def test_who_is_silent_for_too_long_gets_a_last_word(kind: str) -> None:
    with talking(Script(end=lambda: b"bye"), kind, Limits(idle=0.1)) as talk:
        assert hear_all(talk.client) == b"bye"
        talk.client.close()
        assert talk.end().cause is Cause.IDLE


def test_who_does_not_read_for_too_long_is_cut_off() -> None:
    with talking(Puller(b"y" * 1_000_000), limits=Limits(idle=0.1)) as talk:
        assert talk.end().cause is Cause.IDLE
        hear_reset(talk.client)


def test_who_says_something_now_and_then_is_not_idle() -> None:
    with talking(Script(), limits=Limits(idle=0.3)) as talk:
        started = time.monotonic()
        pause = threading.Event()
        while time.monotonic() < started + 0.7:
            talk.client.sendall(b"x")
            assert talk.client.recv(1) == b"x"
            pause.wait(0.1)
        talk.client.shutdown(socket.SHUT_WR)
        assert talk.end().cause is Cause.PEER


def test_who_reads_slowly_is_not_idle() -> None:
    size = 300_000
    with talking(Script(end=lambda: bytes(size)), limits=Limits(idle=0.3)) as talk:
        talk.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
        talk.client.shutdown(socket.SHUT_WR)
        count, pause = 0, threading.Event()
        while data := talk.client.recv(400_000):
            count += len(data)
            pause.wait(0.005)
        assert count == size
        assert talk.end().cause is Cause.PEER


def test_the_handshake_has_a_limit_of_its_own_which_dripping_does_not_move() -> None:
    conversation = Script(receive=lambda _: b"")
    conversation.handshaking = True
    with talking(conversation, limits=Limits(handshake=0.3, linger=0.1)) as talk:
        started = time.monotonic()
        pause = threading.Event()
        while talk.thread.is_alive():
            assert time.monotonic() < started + PATIENCE
            try:
                talk.client.sendall(b"x")
            except OSError:
                break
            pause.wait(0.05)
        talk.client.close()
        assert talk.end().cause is Cause.HANDSHAKE


def test_after_the_handshake_there_is_no_limit_but_the_idle_one() -> None:
    def shaken(data: bytes) -> bytes:
        conversation.handshaking = False
        return data

    conversation = Script(receive=shaken)
    conversation.handshaking = True
    with talking(conversation, limits=Limits(handshake=0.2)) as talk:
        talk.client.sendall(b"x")
        assert talk.client.recv(1) == b"x"
        talk.thread.join(0.4)
        assert talk.thread.is_alive()
        talk.client.shutdown(socket.SHUT_WR)
        assert talk.end().cause is Cause.PEER


# Being told to stop ----------------------------------------------------------------------------------


@KINDS
def test_draining_dismisses_who_is_silent(kind: str) -> None:
    with talking(Script(end=lambda: b"bye"), kind) as talk:
        talk.client.sendall(b"hello")
        assert talk.client.recv(100) == b"hello"
        talk.stop.draining.set()
        assert hear_all(talk.client) == b"bye"
        talk.client.close()
        assert talk.end().cause is Cause.DRAINED
    assert talk.all(Ended) == []


@KINDS
def test_draining_lets_who_is_busy_go_on(kind: str) -> None:
    with talking(Script(), kind) as talk:
        talk.stop.draining.set()
        until_when = time.monotonic() + 0.5
        while time.monotonic() < until_when:
            talk.client.sendall(b"x")
            assert talk.client.recv(1) == b"x"
            threading.Event().wait(0.02)
        talk.client.shutdown(socket.SHUT_WR)
        assert hear_all(talk.client) == b""
        assert talk.end().cause is Cause.PEER


def test_draining_dismisses_who_pulls_without_end() -> None:
    with talking(Puller(b"y" * 1000)) as talk:
        talk.client.recv(1000)
        talk.stop.draining.set()
        hear_all(talk.client)
        assert talk.end().cause is Cause.DRAINED


def test_draining_does_not_wait_for_the_linger_time() -> None:
    conversation = Script()
    conversation.done = True
    with talking(conversation, limits=Limits(linger=30)) as talk:
        assert hear_all(talk.client) == b""
        talk.stop.draining.set()
        assert talk.end().cause is Cause.SERVICE


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_at_the_deadline_who_is_owed_something_is_cut_off(kind: str) -> None:
    with talking(Puller(b"y" * 10_000_000), kind, Limits(drain=0.2)) as talk:
        talk.client.recv(1)
        talk.stop.draining.set()
        assert talk.end().cause is Cause.ABORTED
        if kind == "tcp":
            hear_reset(talk.client)


@KINDS
def test_aborting_ends_a_blocked_recv_at_once(kind: str) -> None:
    with talking(Script(end=lambda: b"bye"), kind) as talk:
        talk.client.sendall(b"hello")
        assert talk.client.recv(100) == b"hello"
        talk.stop.draining.set()
        talk.stop.aborting.set()
        assert talk.end().cause is Cause.ABORTED


def test_aborting_alone_is_enough() -> None:
    with talking(Script()) as talk:
        talk.stop.aborting.set()
        assert talk.end().cause is Cause.ABORTED


def test_who_comes_after_the_deadline_is_cut_off_as_well() -> None:
    stop = Stop()
    limits = Limits(drain=0)
    with Warden(stop, limits) as warden:
        stop.draining.set()
        first = Talking("tcp", Script(), limits, stop, warden)
        assert first.end().cause is Cause.ABORTED
        second = Talking("tcp", Script(), limits, stop, warden)
        assert second.end().cause is Cause.ABORTED
        first.client.close()
        second.client.close()
    stop.close()


def test_a_service_that_computes_at_the_deadline_loses_its_connection() -> None:
    busy, go = threading.Event(), threading.Event()

    def compute(data: bytes) -> bytes:
        busy.set()
        assert go.wait(PATIENCE)
        return data

    with talking(Script(receive=compute), limits=Limits(drain=0)) as talk:
        talk.client.sendall(b"?")
        assert busy.wait(PATIENCE)
        talk.stop.draining.set()
        assert talk.client.recv(100) == b""  # though the thread is still there
        assert talk.thread.is_alive()
        go.set()
        assert talk.end().cause is Cause.ABORTED


def test_a_warden_that_is_never_told_to_stop_leaves_quietly() -> None:
    stop = Stop()
    before = threading.active_count()
    with Warden(stop, Limits()):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    stop.close()
