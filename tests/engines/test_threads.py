"""`engines/threads.py`: a thread for each connection."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from bothends.endpoints import Endpoint
from bothends.engines.admission import AdmissionControl
from bothends.engines.base import Limits
from bothends.engines.threads import SendQueue, ThreadsEngine
from bothends.events import (
    Accepted,
    AcceptPaused,
    AcceptResumed,
    Closed,
    CloseReason,
    ConnectionRejected,
    ServiceFailed,
)
from bothends.osutil.wakeup import WakeupPipe
from bothends.services.base import Peer, Service
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import (
    BroadcastChat,
    Digest,
    EchoService,
    LargeReply,
    PullProducer,
    UppercaseLines,
    pattern,
)
from tests.engines.hung_service import HangingService

TCP = "tcp://127.0.0.1:0"
SEQPACKET = "unix+seqpacket://{tmp}/socket"


class NoThreads(ThreadsEngine):
    """Cannot start the threads of the first three connections, as at a limit on threads."""

    def run(self) -> None:
        start, failures = threading.Thread.start, [3]

        def fail(thread: threading.Thread) -> None:
            if thread.name.startswith("bothends-connection") and failures[0]:
                failures[0] -= 1
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = fail  # type: ignore[assignment,method-assign]
        super().run()


class NoWriters(ThreadsEngine):
    """Cannot start the writer thread of a connection."""

    def run(self) -> None:
        start = threading.Thread.start

        def fail(thread: threading.Thread) -> None:
            if thread.name == "bothends-writer":
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = fail  # type: ignore[assignment,method-assign]
        super().run()


class SlowThreadExit(ThreadsEngine):
    """The threads of connections still run for a moment after they have reported their end."""

    def run(self) -> None:
        wake, release = WakeupPipe.wake, AdmissionControl.release
        exiting: list[threading.Thread] = []

        def wake_and_wait(wakeup: WakeupPipe) -> None:
            exiting.append(threading.current_thread())
            wake(wakeup)
            threading.Event().wait(0.1)

        def check_and_release(admission: AdmissionControl, peer: Peer) -> None:
            assert not any(thread.is_alive() for thread in exiting), "its thread is still running"
            release(admission, peer)

        WakeupPipe.wake = wake_and_wait  # type: ignore[assignment,method-assign]
        AdmissionControl.release = check_and_release  # type: ignore[assignment,method-assign]
        super().run()


def warm_up(running: Harness) -> None:
    """Serve one connection, so that everything opened on first use is open."""
    with Client(running.endpoints[0]) as client:
        client.shutdown_write()
        client.receive_until_eof()
    running.wait_event(Closed)


def close_all(clients: list[Client]) -> None:
    for client in clients:
        client.close()


def test_connection_is_released_after_thread_exit() -> None:
    with Harness(f"{__name__}:SlowThreadExit", UppercaseLines, [TCP]) as running:
        with Client(running.endpoints[0]) as client:
            assert client.request(b"one\n") == b"ONE\n"
        running.wait_event(Closed)
        running.drain()
        assert running.wait_exit().problems() == []


def test_idle_client_does_not_block_others() -> None:
    with Harness("threads", UppercaseLines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(30)]
        for number, client in reversed(list(enumerate(clients))):
            assert client.request(b"line %d\n" % number) == b"LINE %d\n" % number
        for client in clients:
            client.close()
        running.drain()
        assert running.wait_exit().problems() == []
    assert len(running.events_of(Closed)) == 30


def test_client_that_never_reads_does_not_block_others() -> None:
    with (
        Harness("threads", PullProducer, [TCP], Limits(drain=0.2)) as running,
        Client(running.endpoints[0]),
        Client(running.endpoints[0]) as other,
    ):
        assert len(other.receive_exactly(1_000_000)) == 1_000_000
        running.drain()
        assert running.wait_exit().problems() == []
    assert {event.cause for event in running.events_of(Closed)} <= {CloseReason.ABORTED, CloseReason.DRAINED}


def test_thousand_sequential_connections_leak_nothing() -> None:
    with Harness("threads", Digest, [TCP]) as running:
        warm_up(running)
        before = running.descriptors()
        for _ in range(1000):
            with Client(running.endpoints[0]) as client:
                client.send(b"x")
                client.shutdown_write()
                assert client.receive_line().startswith(b"1 ")
        running.wait_event(Closed, lambda event: event.connection == 1001)
        running.wait_for(lambda: running.descriptors() == before)


def test_connection_limit_defer() -> None:
    with Harness("threads", UppercaseLines, [TCP], Limits(connections=2)) as running:
        clients = [Client(running.endpoints[0]) for _ in range(3)]
        assert [client.request(b"x\n") for client in clients[:2]] == [b"X\n"] * 2
        clients[2].send(b"y\n")
        assert not clients[2].is_readable(0.1)
        clients[0].close()
        assert clients[2].receive_exactly(2) == b"Y\n"
        close_all(clients)


def test_connection_limit_refuse() -> None:
    with Harness("threads", UppercaseLines, [TCP], Limits(connections=1, when_full="refuse")) as running:
        with Client(running.endpoints[0]) as first:
            assert first.request(b"x\n") == b"X\n"
            with Client(running.endpoints[0]) as second:
                assert second.receive_until_closed() == b""
            running.wait_event(ConnectionRejected)
        running.wait_for(lambda: request_once(running) == b"X\n")


def request_once(running: Harness) -> bytes:
    with Client(running.endpoints[0]) as client, contextlib.suppress(ConnectionError):
        return client.request(b"x\n")
    return b""


def test_emfile_pauses_accepting_and_recovers() -> None:
    with Harness("threads", UppercaseLines, [TCP]) as running:
        warm_up(running)
        running.limit_descriptors(2)
        clients = [Client(running.endpoints[0]) for _ in range(4)]
        assert [client.request(b"x\n") for client in clients[:2]] == [b"X\n"] * 2
        running.wait_event(AcceptPaused)
        assert running.cpu_used(0.3, 0.1) < 0.1
        for client in clients[:2]:
            client.close()
        assert [client.request(b"y\n") for client in clients[2:]] == [b"Y\n"] * 2
        running.wait_event(AcceptResumed)
        close_all(clients)


def test_thread_start_failure_refuses_and_recovers() -> None:
    with Harness(f"{__name__}:NoThreads", UppercaseLines, [TCP]) as running:
        for _ in range(3):
            with Client(running.endpoints[0]) as client:
                assert client.receive_until_closed() == b""
        with Client(running.endpoints[0]) as client:
            assert client.request(b"x\n") == b"X\n"
        running.wait_event(AcceptResumed)
        assert (len(running.events_of(ConnectionRejected)), len(running.events_of(AcceptPaused))) == (3, 1)
        assert len(running.events_of(Accepted)) == 1


def test_drain_timeout_abandons_hung_thread() -> None:
    with (
        Harness(f"{__name__}:ThreadsEngine", HangingService, [TCP], Limits(drain=0.1)) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.send(b"x")
        running.wait_event(Accepted)
        running.drain()
        assert client.receive_until_closed() == b""
        engine_exit = running.wait_exit()
    assert engine_exit.status == 0
    assert engine_exit.leftovers is not None
    assert len(engine_exit.leftovers.threads) == 1


def test_drain_flushes_large_reply() -> None:
    size = 10_000_000
    with Harness("threads", ten_megabyte_reply, [TCP]) as running, Client(running.endpoints[0]) as client:
        client.send(b"?")
        assert client.receive_exactly(1)
        running.drain()
        assert len(client.receive_until_eof()) == size - 1
        client.close()
        assert running.wait_exit().problems() == []


def ten_megabyte_reply() -> Service:
    return LargeReply(10_000_000, done=True)


# Push ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [TCP, SEQPACKET])
def test_push_reaches_idle_peer(endpoint: str) -> None:
    with Harness("threads", BroadcastChat, [endpoint]) as running:
        with Client(running.endpoints[0]) as one, Client(running.endpoints[0]) as two:
            assert (one.receive_exactly(6), two.receive_exactly(6)) == (b"hello\n", b"hello\n")
            for number in range(50):
                one.send(b"%d\n" % number)
                assert one.receive_exactly(3) == b"ok\n"
            assert two.receive_exactly(140) == b"".join(b"%d\n" % number for number in range(50))
            one.shutdown_write()
            assert one.receive_until_eof() == b""
            assert two.receive_exactly(7) == b"(left)\n"
        running.drain()
        assert running.wait_exit().problems() == []


def test_push_preserves_packet_boundaries() -> None:
    with (
        Harness("threads", BroadcastChat, [SEQPACKET]) as running,
        Client(running.endpoints[0]) as one,
        Client(running.endpoints[0]) as two,
    ):
        assert (one.receive_message(), two.receive_message()) == (b"hello\n", b"hello\n")
        for _ in range(20):
            one.send(b"word")
        assert [two.receive_message() for _ in range(20)] == [b"word"] * 20
        assert [one.receive_message() for _ in range(20)] == [b"ok\n"] * 20


def test_push_to_peer_that_never_reads_aborts_it() -> None:
    with (
        Harness("threads", BroadcastChat, [TCP], Limits(posted=300_000)) as running,
        Client(running.endpoints[0], rcvbuf=4096) as stalled,
        Client(running.endpoints[0]) as one,
        Client(running.endpoints[0]) as two,
    ):
        for client in (stalled, one, two):
            assert client.receive_exactly(6) == b"hello\n"
        sent, received = 0, 0
        while not running.events_of(Closed):
            one.send(b"x" * 10_000)
            sent += 10_000
            received += len(two.receive_exactly(10_000))
        closed = running.events_of(Closed)[0]
        assert (closed.cause, closed.peer) == (CloseReason.STALLED, stalled.address)
        assert sent == received
        one.shutdown_write()
        assert b"(left)\n" in one.receive_until_eof()


def test_push_counts_as_activity() -> None:
    with Harness("threads", BroadcastChat, [TCP], Limits(idle=0.4)) as running:
        with Client(running.endpoints[0]) as one, Client(running.endpoints[0]) as reader:
            assert (one.receive_exactly(6), reader.receive_exactly(6)) == (b"hello\n", b"hello\n")
            until = time.monotonic() + 0.9
            while time.monotonic() < until:
                one.request(b"x", 3)
                assert reader.receive_exactly(1) == b"x"
                reader.is_readable(0.05)
            assert running.events_of(Closed) == []
        for client in (one, reader):
            client.close()
        closed = running.wait_event(Closed)
        assert closed.cause is CloseReason.PEER


def test_writer_start_failure_ends_conversation() -> None:
    with Harness(f"{__name__}:NoWriters", BroadcastChat, [TCP]) as running:
        with Client(running.endpoints[0]) as client:
            assert client.receive_until_eof() == b""
        running.wait_event(ServiceFailed)
        running.wait_event(Closed)
        running.drain()
        assert running.wait_exit().problems() == []


def test_abort_closes_peer_with_pushed_backlog() -> None:
    with (
        Harness("threads", BroadcastChat, [TCP]) as running,
        Client(running.endpoints[0], rcvbuf=4096),
        Client(running.endpoints[0]) as one,
    ):
        one.receive_exactly(6)
        for _ in range(50):
            one.request(b"x" * 50_000, 3)
        running.abort()
        one.receive_until_closed()
        assert running.wait_exit().problems() == []


def test_reset_during_push_ends_one_conversation() -> None:
    with Harness("threads", BroadcastChat, [TCP]) as running, Client(running.endpoints[0]) as one:
        other = Client(running.endpoints[0])
        assert (one.receive_exactly(6), other.receive_exactly(6)) == (b"hello\n", b"hello\n")
        other.reset()
        running.wait_event(Closed, lambda event: event.cause is CloseReason.RESET)
        assert one.receive_exactly(7) == b"(left)\n"
        assert one.request(b"x", 3) == b"ok\n"


def test_drain_leaves_a_member_with_unsent_data_open() -> None:
    """It is drained once it has read everything, so that what it sends until then is answered."""
    with Harness("threads", BroadcastChat, [f"{TCP}?sndbuf=4096"], Limits(drain=60)) as running:
        with Client(running.endpoints[0], rcvbuf=4096) as slow, Client(running.endpoints[0]) as sender:
            for client in (slow, sender):
                assert client.receive_line() == b"hello\n"
            assert sender.request(pattern(500_000), 3).startswith(b"ok\n")
            running.drain()
            sender.receive_until_eof()  # it has been idle for less time than the other one
            slow.send(b"x")
            assert b"ok\n" in slow.receive_until_eof()
        assert running.wait_exit().problems() == []


def test_send_queue() -> None:
    send_queue = SendQueue(Limits(posted=10))
    overflows: list[bool] = []
    send_queue.on_overflow = lambda: overflows.append(True)
    send_queue.reply(b"a" * 100)
    send_queue.push(b"b" * 6)
    assert not overflows
    assert send_queue.unsent == 106
    assert send_queue.get(0) == (b"a" * 100, 0)
    send_queue.push(b"c" * 4)
    assert send_queue.get(100) == (b"b" * 6 + b"c" * 4, 10)
    send_queue.push(b"d")
    assert overflows == [True]
    send_queue.mark_sent(110, 10)
    assert send_queue.wait_until_below(1)
    send_queue.close()
    send_queue.push(b"e")
    assert send_queue.get(100) == (b"d", 1)
    assert send_queue.get(100) == (b"", 0)
    send_queue.discard()
    assert not send_queue.wait_until_below(0)


# Unsupported combinations --------------------------------------------------------------------------


def test_datagrams_are_rejected_with_reason() -> None:
    unsupported = ThreadsEngine.unsupported_reason(EchoService(), Endpoint.parse("udp://127.0.0.1:0"))
    assert unsupported is not None
    assert "no connection to hand to a thread" in str(unsupported)


def test_burst_from_many_client_threads() -> None:
    with Harness("threads", UppercaseLines, [TCP]) as running:
        replies: list[bytes] = []

        def call(number: int) -> None:
            with Client(running.endpoints[0]) as client:
                replies.append(client.request(b"%04d\n" % number))

        threads = [threading.Thread(target=call, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(replies) == [b"%04d\n" % number for number in range(100)]
