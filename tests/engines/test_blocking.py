"""`engines/blocking.py`: one connection on a blocking socket, in a thread of the test process."""

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
from bothends.engines.acceptor import AcceptedConnection
from bothends.engines.base import DRAIN_IDLE, EngineContext, Limits
from bothends.engines.blocking import Watchdog, run_conversation
from bothends.engines.shutdown import ShutdownFlags
from bothends.errors import MessageTooLong
from bothends.events import Closed, CloseReason, Event, PeerEof, Received, Sent, ServiceFailed
from bothends.services.base import Conversation, Peer, Push, Service
from bothends.sockets import Listener

TIMEOUT = 10.0
LINGER_RESET = struct.pack("ii", 1, 0)
SMALL_BUFFER = 4096  # bytes: a receive buffer that fills quickly


class ScriptedConversation(Conversation):
    """A conversation with methods that a test passes in."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)
        self.closed_count = 0

    def receive(self, data: bytes) -> bytes:
        return data

    def closed(self) -> None:
        self.closed_count += 1


class PullConversation(Conversation):
    """A pull producer that sends the same piece `times` times (None: without end), and records its input.

    With `ends` the end of its input ends it.
    """

    def __init__(self, piece: bytes, times: int | None = None, *, ends: bool = False) -> None:
        self.piece = piece
        self.times = times
        self.ends = ends
        self.received = b""

    def receive(self, data: bytes) -> bytes:
        self.received += data
        return b""

    def end(self) -> bytes:
        self.done = self.ends
        return b""

    def produce(self) -> bytes:
        if self.times is None:
            return self.piece
        self.times -= 1
        self.done = self.times == 0
        return self.piece


class SingleConversationService(Service):
    """A service with one given conversation."""

    name = "only"

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def open(self, peer: Peer, push: Push) -> Conversation:
        return self.conversation


class ConversationThread:
    """A conversation in a thread. `client` is the peer's socket."""

    def __init__(
        self, kind: str, conversation: Conversation, limits: Limits, stop: ShutdownFlags, watchdog: Watchdog
    ) -> None:
        self.events: list[Event] = []
        self.stop = stop
        self.client, self.server = _pair(kind)
        self.client.settimeout(TIMEOUT)
        address = Address("inet", "127.0.0.1", 1)
        listener = Listener(Endpoint("tcp", port=1), self.server, "listener", Endpoint("tcp", port=1))
        context = EngineContext(
            SingleConversationService(conversation), [listener], stop, limits, self.events.append
        )
        peer = Peer(address, address, message_oriented=kind == "seqpacket", connection=1)
        self.error: BaseException | None = None

        def run() -> None:
            try:
                run_conversation(context, AcceptedConnection(self.server, peer, listener), watchdog)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait_closed(self) -> Closed:
        """Wait until the thread has exited, and return its Closed event."""
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        assert self.server.fileno() == -1
        closed = [event for event in self.events if isinstance(event, Closed)]
        assert len(closed) == 1
        assert closed[0] is self.events[-1]
        return closed[0]

    def events_of(self, kind: type[Event]) -> list[Any]:
        """Return the events of this kind."""
        return [event for event in self.events if isinstance(event, kind)]


@contextmanager
def running_conversation(
    conversation: Conversation, kind: str = "tcp", limits: Limits | None = None
) -> Iterator[ConversationThread]:
    limits = limits or Limits()
    with ExitStack() as stack:
        stop = ShutdownFlags()
        stack.callback(stop.close)
        watchdog = stack.enter_context(Watchdog(stop, limits))
        thread = ConversationThread(kind, conversation, limits, stop, watchdog)
        stack.callback(thread.thread.join, TIMEOUT)
        stack.callback(thread.client.close)
        yield thread


def _pair(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind == "unix":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if kind == "seqpacket":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        return client, server


def receive_until_eof(client: socket.socket) -> bytes:
    received = bytearray()
    while data := client.recv(65536):
        received += data
    return bytes(received)


def receive_until_reset(client: socket.socket) -> None:
    """Read until the connection is reset."""
    with pytest.raises(ConnectionResetError):
        receive_until_eof(client)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true, because of another thread."""
    deadline = time.monotonic() + TIMEOUT
    waiting = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        waiting.wait(0.005)


class RecordingSocket:
    """A blocking socket that records the names of the methods called."""

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


# System calls --------------------------------------------------------------------------------------


def test_syscalls_are_one_recv_and_send_per_chunk() -> None:
    stop = ShutdownFlags()
    client, server = _pair("tcp")
    recorder: Any = RecordingSocket(server)
    address = Address("inet", "127.0.0.1", 1)
    listener = Listener(Endpoint("tcp", port=1), server, "listener", Endpoint("tcp", port=1))
    context = EngineContext(SingleConversationService(ScriptedConversation()), [listener], stop)
    with Watchdog(stop, context.limits) as watchdog, client:
        thread = threading.Thread(
            target=run_conversation,
            args=(context, AcceptedConnection(recorder, Peer(address, address), listener), watchdog),
        )
        thread.start()
        for word in (b"one", b"two"):
            client.sendall(word)
            assert client.recv(100) == word
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
        thread.join(TIMEOUT)
    stop.close()
    assert recorder.calls == ["recv", "send", "recv", "send", "recv", "shutdown", "close"]


@pytest.mark.parametrize(("idle", "timeval"), [(30.0, (30, 0)), (25.5, (25, 500_000))])
def test_idle_timeout_is_set_on_the_socket(idle: float, timeval: tuple[int, int]) -> None:
    with running_conversation(ScriptedConversation(), limits=Limits(idle=idle)) as running:
        running.client.sendall(b"one")
        assert running.client.recv(100) == b"one"
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            applied = running.server.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("ll"))
            assert struct.unpack("ll", applied) == timeval
        running.client.close()
        running.wait_closed()


# Exchange ------------------------------------------------------------------------------------------


@KINDS
def test_peer_eof_sends_final_reply(kind: str) -> None:
    conversation = ScriptedConversation(end=lambda: b"bye")
    with running_conversation(conversation, kind) as thread:
        thread.client.sendall(b"hello")
        assert thread.client.recv(100) == b"hello"
        thread.client.shutdown(socket.SHUT_WR)
        assert receive_until_eof(thread.client) == b"bye"
        closed = thread.wait_closed()
    assert (closed.cause, closed.received, closed.sent) == (CloseReason.PEER, 5, 8)
    assert conversation.closed_count == 1
    assert len(thread.events_of(PeerEof)) == 1


@KINDS
def test_done_in_start_sends_and_closes(kind: str) -> None:
    conversation = ScriptedConversation(start=lambda: b"welcome")
    conversation.done = True
    with running_conversation(conversation, kind) as thread:
        assert receive_until_eof(thread.client) == b"welcome"
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.SERVICE


def test_unread_input_does_not_reset_reply() -> None:
    def answer(_data: bytes) -> bytes:
        conversation.done = True
        return b"x" * 100_000

    conversation = ScriptedConversation(receive=answer)
    with running_conversation(conversation) as thread:
        thread.client.sendall(b"question" * 10_000)
        thread.client.shutdown(socket.SHUT_WR)
        assert len(receive_until_eof(thread.client)) == 100_000
        assert thread.wait_closed().cause is CloseReason.SERVICE


def test_linger_timeout_closes_connection() -> None:
    conversation = ScriptedConversation()
    conversation.done = True
    with running_conversation(conversation, limits=Limits(linger=0.1)) as thread:
        assert thread.wait_closed().cause is CloseReason.SERVICE


def test_large_reply_to_slow_reader() -> None:
    size = 10 * 1024 * 1024
    with running_conversation(
        ScriptedConversation(end=lambda: bytes(size)), limits=Limits(idle=5.0)
    ) as thread:
        thread.client.shutdown(socket.SHUT_WR)
        count = 0
        while data := thread.client.recv(1000 if count < 500_000 else 1_000_000):
            count += len(data)
        assert thread.wait_closed().sent == count == size
    pieces = [len(event.data) for event in thread.events_of(Sent)]
    assert sum(pieces) == size
    assert max(pieces) <= 256 * 1024


def test_pull_producer_still_receives() -> None:
    conversation = PullConversation(b"y" * 1000, times=20_000)
    with running_conversation(conversation) as thread:
        thread.client.sendall(b"enough?")
        assert len(receive_until_eof(thread.client)) == 20_000_000
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.SERVICE
    assert conversation.received == b"enough?"


def test_pull_producer_continues_after_half_close() -> None:
    with running_conversation(PullConversation(b"y" * 1000, times=20_000)) as thread:
        thread.client.shutdown(socket.SHUT_WR)
        assert len(receive_until_eof(thread.client)) == 20_000_000
        assert thread.wait_closed().cause is CloseReason.PEER


def test_packet_boundaries_are_preserved() -> None:
    with running_conversation(ScriptedConversation(), "seqpacket") as thread:
        for size in (1, 2, 100_000):
            thread.client.send(b"m" * size)
        assert [len(thread.client.recv(300_000)) for _ in range(3)] == [1, 2, 100_000]


def test_oversized_packet_fails_without_truncation() -> None:
    with running_conversation(ScriptedConversation(), "seqpacket") as thread:
        thread.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        thread.client.send(b"m" * 300_000)
        assert receive_until_eof(thread.client) == b""
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.FAILED
    assert [type(event.error) for event in thread.events_of(ServiceFailed)] == [MessageTooLong]
    assert thread.events_of(Received) == []


def test_oversized_packet_reply_fails() -> None:
    with running_conversation(
        ScriptedConversation(receive=lambda _: bytes(4_000_000)), "seqpacket"
    ) as thread:
        thread.client.send(b"?")
        assert thread.wait_closed().cause is CloseReason.FAILED
    assert isinstance(thread.events_of(ServiceFailed)[0].error, OSError)


# Resets and errors -------------------------------------------------------------------------------


def test_reset_before_first_byte() -> None:
    with running_conversation(ScriptedConversation()) as thread:
        thread.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.RESET


def test_reset_while_sending() -> None:
    with running_conversation(PullConversation(b"y" * 100_000)) as thread:
        thread.client.recv(1000)
        thread.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.RESET


def test_reset_while_lingering_keeps_cause() -> None:
    conversation = ScriptedConversation()
    conversation.done = True
    with running_conversation(conversation) as thread:
        assert receive_until_eof(thread.client) == b""
        thread.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.SERVICE


@KINDS
def test_peer_close_without_reading_is_reset(kind: str) -> None:
    with running_conversation(PullConversation(b"y" * 10_000), kind) as thread:
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.RESET


def test_service_error_fails_conversation() -> None:
    def fail(_data: bytes) -> bytes:
        raise ZeroDivisionError

    conversation = ScriptedConversation(receive=fail)
    with running_conversation(conversation) as thread:
        thread.client.sendall(b"?")
        assert receive_until_eof(thread.client) == b""
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.FAILED
    assert conversation.closed_count == 1
    assert thread.error is None


def test_base_exception_propagates_and_closes() -> None:
    def interrupt(_data: bytes) -> bytes:
        raise KeyboardInterrupt

    conversation = ScriptedConversation(receive=interrupt)
    with running_conversation(conversation) as thread:
        thread.client.sendall(b"?")
        assert thread.wait_closed().cause is CloseReason.ABORTED
    assert isinstance(thread.error, KeyboardInterrupt)
    assert conversation.closed_count == 1


# Limits --------------------------------------------------------------------------------------------


@KINDS
def test_idle_timeout_sends_final_reply(kind: str) -> None:
    with running_conversation(ScriptedConversation(end=lambda: b"bye"), kind, Limits(idle=0.1)) as thread:
        assert receive_until_eof(thread.client) == b"bye"
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.IDLE


def test_idle_timeout_resets_peer_that_never_reads() -> None:
    with running_conversation(PullConversation(b"y" * 1_000_000), limits=Limits(idle=0.1)) as thread:
        assert thread.wait_closed().cause is CloseReason.IDLE
        receive_until_reset(thread.client)


def test_received_data_counts_as_activity() -> None:
    with running_conversation(ScriptedConversation(), limits=Limits(idle=0.3)) as thread:
        started = time.monotonic()
        pause = threading.Event()
        while time.monotonic() < started + 0.7:
            thread.client.sendall(b"x")
            assert thread.client.recv(1) == b"x"
            pause.wait(0.1)
        thread.client.shutdown(socket.SHUT_WR)
        assert thread.wait_closed().cause is CloseReason.PEER


def test_slow_reading_counts_as_activity() -> None:
    size = 300_000
    with running_conversation(
        ScriptedConversation(end=lambda: bytes(size)), limits=Limits(idle=0.3)
    ) as thread:
        thread.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
        thread.client.shutdown(socket.SHUT_WR)
        count, pause = 0, threading.Event()
        while data := thread.client.recv(400_000):
            count += len(data)
            pause.wait(0.005)
        assert count == size
        assert thread.wait_closed().cause is CloseReason.PEER


def test_handshake_timeout_is_not_extended_by_data() -> None:
    conversation = ScriptedConversation(receive=lambda _: b"")
    conversation.handshaking = True
    with running_conversation(conversation, limits=Limits(handshake=0.3, linger=0.1)) as thread:
        started = time.monotonic()
        pause = threading.Event()
        while thread.thread.is_alive():
            assert time.monotonic() < started + TIMEOUT
            try:
                thread.client.sendall(b"x")
            except OSError:
                break
            pause.wait(0.05)
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.HANDSHAKE


def test_handshake_timeout_ends_with_handshake() -> None:
    def complete_handshake(data: bytes) -> bytes:
        conversation.handshaking = False
        return data

    conversation = ScriptedConversation(receive=complete_handshake)
    conversation.handshaking = True
    with running_conversation(conversation, limits=Limits(handshake=0.2)) as thread:
        thread.client.sendall(b"x")
        assert thread.client.recv(1) == b"x"
        thread.thread.join(0.4)
        assert thread.thread.is_alive()
        thread.client.shutdown(socket.SHUT_WR)
        assert thread.wait_closed().cause is CloseReason.PEER


# Shutdown -----------------------------------------------------------------------------------------


@KINDS
def test_drain_closes_idle_connection(kind: str) -> None:
    with running_conversation(ScriptedConversation(end=lambda: b"bye"), kind) as thread:
        thread.client.sendall(b"hello")
        assert thread.client.recv(100) == b"hello"
        thread.stop.draining.set()
        assert receive_until_eof(thread.client) == b"bye"
        thread.client.close()
        assert thread.wait_closed().cause is CloseReason.DRAINED
    assert thread.events_of(PeerEof) == []


@KINDS
def test_drain_keeps_active_connection(kind: str) -> None:
    with running_conversation(ScriptedConversation(), kind) as thread:
        thread.stop.draining.set()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            thread.client.sendall(b"x")
            assert thread.client.recv(1) == b"x"
            threading.Event().wait(0.02)
        thread.client.shutdown(socket.SHUT_WR)
        assert receive_until_eof(thread.client) == b""
        assert thread.wait_closed().cause is CloseReason.PEER


def test_drain_stops_endless_producer() -> None:
    with running_conversation(PullConversation(b"y" * 1000, ends=True)) as thread:
        thread.client.recv(1000)
        thread.stop.draining.set()
        receive_until_eof(thread.client)
        assert thread.wait_closed().cause is CloseReason.DRAINED


def test_drain_lets_producer_finish() -> None:
    with running_conversation(PullConversation(b"y" * 1000, times=5_000)) as thread:
        received = len(thread.client.recv(1000))
        thread.stop.draining.set()
        thread.thread.join(2 * DRAIN_IDLE)
        assert thread.thread.is_alive()
        assert received + len(receive_until_eof(thread.client)) == 5_000_000
        assert thread.wait_closed().cause is CloseReason.DRAINED


def test_drain_skips_linger_timeout() -> None:
    conversation = ScriptedConversation()
    conversation.done = True
    with running_conversation(conversation, limits=Limits(linger=30)) as thread:
        assert receive_until_eof(thread.client) == b""
        thread.stop.draining.set()
        assert thread.wait_closed().cause is CloseReason.SERVICE


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_drain_timeout_aborts_connection_with_unsent_data(kind: str) -> None:
    with running_conversation(PullConversation(b"y" * 10_000_000), kind, Limits(drain=0.2)) as thread:
        thread.client.recv(1)
        thread.stop.draining.set()
        assert thread.wait_closed().cause is CloseReason.ABORTED
        if kind == "tcp":
            receive_until_reset(thread.client)


@KINDS
def test_abort_interrupts_blocked_recv(kind: str) -> None:
    with running_conversation(ScriptedConversation(end=lambda: b"bye"), kind) as thread:
        thread.client.sendall(b"hello")
        assert thread.client.recv(100) == b"hello"
        thread.stop.draining.set()
        thread.stop.aborting.set()
        assert thread.wait_closed().cause is CloseReason.ABORTED


def test_abort_without_drain() -> None:
    with running_conversation(ScriptedConversation()) as thread:
        thread.stop.aborting.set()
        assert thread.wait_closed().cause is CloseReason.ABORTED


def test_connection_after_drain_timeout_is_aborted() -> None:
    stop = ShutdownFlags()
    limits = Limits(drain=0)
    with Watchdog(stop, limits) as watchdog:
        stop.draining.set()
        first = ConversationThread("tcp", ScriptedConversation(), limits, stop, watchdog)
        assert first.wait_closed().cause is CloseReason.ABORTED
        second = ConversationThread("tcp", ScriptedConversation(), limits, stop, watchdog)
        assert second.wait_closed().cause is CloseReason.ABORTED
        first.client.close()
        second.client.close()
    stop.close()


def test_drain_timeout_closes_connection_of_busy_service() -> None:
    busy, go = threading.Event(), threading.Event()

    def compute(data: bytes) -> bytes:
        busy.set()
        assert go.wait(TIMEOUT)
        return data

    with running_conversation(ScriptedConversation(receive=compute), limits=Limits(drain=0)) as thread:
        thread.client.sendall(b"?")
        assert busy.wait(TIMEOUT)
        thread.stop.draining.set()
        receive_until_reset(thread.client)  # although the thread is still running
        assert thread.thread.is_alive()
        go.set()
        assert thread.wait_closed().cause is CloseReason.ABORTED


def test_watchdog_exits_without_stop() -> None:
    stop = ShutdownFlags()
    before = threading.active_count()
    with Watchdog(stop, Limits()):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    stop.close()
