"""`engines/threads.py`: a thread for each connection, in a process of its own."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from bothends.endpoints import Endpoint
from bothends.engines.acceptor import Bell
from bothends.engines.admission import Reception
from bothends.engines.base import Limits
from bothends.engines.threads import Outbox, ThreadsEngine
from bothends.events import Cause, Closed, Failed, Opened, Refused, Relieved, Strained
from bothends.services.base import Peer, Service
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import Chat, Digest, Echo, Large, Lines, Pulled
from tests.engines.hung_service import Stuck

TCP = "tcp://127.0.0.1:0"
SEQPACKET = "unix+seqpacket://{tmp}/socket"


class NoThreads(ThreadsEngine):
    """Fails to start the thread of its first connections, as at a limit on threads."""

    def run(self) -> None:
        start, left = threading.Thread.start, [3]

        def fail(thread: threading.Thread) -> None:
            if thread.name.startswith("bothends-connection") and left[0]:
                left[0] -= 1
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = fail  # type: ignore[assignment,method-assign]
        super().run()


class NoWriters(ThreadsEngine):
    """Fails to start the writer of a connection."""

    def run(self) -> None:
        start = threading.Thread.start

        def fail(thread: threading.Thread) -> None:
            if thread.name == "bothends-writer":
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = fail  # type: ignore[assignment,method-assign]
        super().run()


class SlowToEnd(ThreadsEngine):
    """Its connections' threads go on for a moment after they have said that they are gone."""

    def run(self) -> None:
        ring, left = Bell.ring, Reception.left
        rang: list[threading.Thread] = []

        def ring_and_linger(bell: Bell) -> None:
            rang.append(threading.current_thread())
            ring(bell)
            threading.Event().wait(0.1)

        def let_go(reception: Reception, peer: Peer) -> None:
            assert not any(thread.is_alive() for thread in rang), "its thread is still there"
            left(reception, peer)

        Bell.ring = ring_and_linger  # type: ignore[assignment,method-assign]
        Reception.left = let_go  # type: ignore[assignment,method-assign]
        super().run()


def settle(running: Harness) -> None:
    """Wait until it has opened all that it needs."""
    with Client(running.endpoints[0]) as client:
        client.finish()
        client.hear_all()
    running.wait_event(Closed)


def close(clients: list[Client]) -> None:
    for client in clients:
        client.close()


def test_a_connection_is_gone_when_its_thread_is() -> None:
    with Harness(f"{__name__}:SlowToEnd", Lines, [TCP]) as running:
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"one\n") == b"ONE\n"
        running.wait_event(Closed)
        running.drain()
        assert running.wait_exit().faults() == []


def test_nobody_waits_for_who_is_silent() -> None:
    with Harness("threads", Lines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(30)]
        for number, client in reversed(list(enumerate(clients))):
            assert client.ask(b"line %d\n" % number) == b"LINE %d\n" % number
        for client in clients:
            client.close()
        running.drain()
        assert running.wait_exit().faults() == []
    assert len(running.seen(Closed)) == 30


def test_nobody_waits_for_who_does_not_read() -> None:
    with (
        Harness("threads", Pulled, [TCP], Limits(drain=0.2)) as running,
        Client(running.endpoints[0]),
        Client(running.endpoints[0]) as other,
    ):
        assert len(other.hear(1_000_000)) == 1_000_000
        running.drain()
        assert running.wait_exit().faults() == []
    assert {event.cause for event in running.seen(Closed)} <= {Cause.ABORTED, Cause.DRAINED}


def test_a_thousand_one_after_another_leave_nothing_behind() -> None:
    with Harness("threads", Digest, [TCP]) as running:
        settle(running)
        before = running.descriptors()
        for _ in range(1000):
            with Client(running.endpoints[0]) as client:
                client.say(b"x")
                client.finish()
                assert client.hear_line().startswith(b"1 ")
        running.wait_event(Closed, lambda event: event.connection == 1001)
        running.wait_for(lambda: running.descriptors() == before)


def test_a_limit_that_defers() -> None:
    with Harness("threads", Lines, [TCP], Limits(connections=2)) as running:
        clients = [Client(running.endpoints[0]) for _ in range(3)]
        assert [client.ask(b"x\n") for client in clients[:2]] == [b"X\n"] * 2
        clients[2].say(b"y\n")
        assert not clients[2].is_readable(0.1)
        clients[0].close()
        assert clients[2].hear(2) == b"Y\n"
        close(clients)


def test_a_limit_that_refuses() -> None:
    with Harness("threads", Lines, [TCP], Limits(connections=1, when_full="refuse")) as running:
        with Client(running.endpoints[0]) as first:
            assert first.ask(b"x\n") == b"X\n"
            with Client(running.endpoints[0]) as second:
                assert second.hear_end() == b""
            running.wait_event(Refused)
        running.wait_for(lambda: ask(running) == b"X\n")


def ask(running: Harness) -> bytes:
    with Client(running.endpoints[0]) as client, contextlib.suppress(ConnectionError):
        return client.ask(b"x\n")
    return b""


def test_without_descriptors_it_waits_and_recovers() -> None:
    with Harness("threads", Lines, [TCP]) as running:
        settle(running)
        running.spare_descriptors(2)
        clients = [Client(running.endpoints[0]) for _ in range(4)]
        assert [client.ask(b"x\n") for client in clients[:2]] == [b"X\n"] * 2
        running.wait_event(Strained)
        assert running.cpu_over(0.3, 0.1) < 0.1
        for client in clients[:2]:
            client.close()
        assert [client.ask(b"y\n") for client in clients[2:]] == [b"Y\n"] * 2
        running.wait_event(Relieved)
        close(clients)


def test_without_threads_it_refuses_and_recovers() -> None:
    with Harness(f"{__name__}:NoThreads", Lines, [TCP]) as running:
        for _ in range(3):
            with Client(running.endpoints[0]) as client:
                assert client.hear_end() == b""
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"x\n") == b"X\n"
        running.wait_event(Relieved)
        assert (len(running.seen(Refused)), len(running.seen(Strained))) == (3, 1)
        assert len(running.seen(Opened)) == 1


def test_run_does_not_wait_for_a_service_that_never_returns() -> None:
    with (
        Harness(f"{__name__}:ThreadsEngine", Stuck, [TCP], Limits(drain=0.1)) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.say(b"x")
        running.wait_event(Opened)
        running.drain()
        assert client.hear_end() == b""
        outcome = running.wait_exit()
    assert outcome.status == 0
    assert outcome.left is not None
    assert len(outcome.left.threads) == 1


def test_draining_lets_a_large_answer_arrive() -> None:
    size = 10_000_000
    with Harness("threads", ten_megabytes, [TCP]) as running, Client(running.endpoints[0]) as client:
        client.say(b"?")
        assert client.hear(1)
        running.drain()
        assert len(client.hear_all()) == size - 1
        client.close()
        assert running.wait_exit().faults() == []


def ten_megabytes() -> Service:
    return Large(10_000_000, done=True)


# Posting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [TCP, SEQPACKET])
def test_what_is_posted_arrives_while_its_receiver_is_silent(endpoint: str) -> None:
    with Harness("threads", Chat, [endpoint]) as running:
        with Client(running.endpoints[0]) as one, Client(running.endpoints[0]) as two:
            assert (one.hear(6), two.hear(6)) == (b"hello\n", b"hello\n")
            for number in range(50):
                one.say(b"%d\n" % number)
                assert one.hear(3) == b"ok\n"
            assert two.hear(140) == b"".join(b"%d\n" % number for number in range(50))
            one.finish()
            assert one.hear_all() == b""
            assert two.hear(7) == b"(left)\n"
        running.drain()
        assert running.wait_exit().faults() == []


def test_messages_are_posted_one_by_one() -> None:
    with (
        Harness("threads", Chat, [SEQPACKET]) as running,
        Client(running.endpoints[0]) as one,
        Client(running.endpoints[0]) as two,
    ):
        assert (one.hear_message(), two.hear_message()) == (b"hello\n", b"hello\n")
        for _ in range(20):
            one.say(b"word")
        assert [two.hear_message() for _ in range(20)] == [b"word"] * 20
        assert [one.hear_message() for _ in range(20)] == [b"ok\n"] * 20


def test_who_does_not_read_what_is_posted_is_cut_off_and_delays_nobody() -> None:
    with (
        Harness("threads", Chat, [TCP], Limits(posted=300_000)) as running,
        Client(running.endpoints[0], rcvbuf=4096) as deaf,
        Client(running.endpoints[0]) as one,
        Client(running.endpoints[0]) as two,
    ):
        for client in (deaf, one, two):
            assert client.hear(6) == b"hello\n"
        said, heard = 0, 0
        while not running.seen(Closed):
            one.say(b"x" * 10_000)
            said += 10_000
            heard += len(two.hear(10_000))
        closed = running.seen(Closed)[0]
        assert (closed.cause, closed.peer) == (Cause.STALLED, deaf.address)
        assert said == heard
        one.finish()
        assert b"(left)\n" in one.hear_all()


def test_who_is_posted_to_is_not_idle() -> None:
    with Harness("threads", Chat, [TCP], Limits(idle=0.4)) as running:
        with Client(running.endpoints[0]) as one, Client(running.endpoints[0]) as listener:
            assert (one.hear(6), listener.hear(6)) == (b"hello\n", b"hello\n")
            until = time.monotonic() + 0.9
            while time.monotonic() < until:
                one.ask(b"x", 3)
                assert listener.hear(1) == b"x"
                listener.is_readable(0.05)
            assert running.seen(Closed) == []
        for client in (one, listener):
            client.close()
        closed = running.wait_event(Closed)
        assert closed.cause is Cause.PEER


def test_a_posting_service_without_a_second_thread_ends_that_conversation() -> None:
    with Harness(f"{__name__}:NoWriters", Chat, [TCP]) as running:
        with Client(running.endpoints[0]) as client:
            assert client.hear_all() == b""
        running.wait_event(Failed)
        running.wait_event(Closed)
        running.drain()
        assert running.wait_exit().faults() == []


def test_aborting_cuts_off_who_is_posted_to() -> None:
    with (
        Harness("threads", Chat, [TCP]) as running,
        Client(running.endpoints[0], rcvbuf=4096),
        Client(running.endpoints[0]) as one,
    ):
        one.hear(6)
        for _ in range(50):
            one.ask(b"x" * 50_000, 3)
        running.abort()
        one.hear_end()
        assert running.wait_exit().faults() == []


def test_a_reset_while_posting_ends_one_conversation() -> None:
    with Harness("threads", Chat, [TCP]) as running, Client(running.endpoints[0]) as one:
        other = Client(running.endpoints[0])
        assert (one.hear(6), other.hear(6)) == (b"hello\n", b"hello\n")
        other.reset()
        running.wait_event(Closed, lambda event: event.cause is Cause.RESET)
        assert one.hear(7) == b"(left)\n"
        assert one.ask(b"x", 3) == b"ok\n"


def test_the_outbox_alone() -> None:
    outbox = Outbox(Limits(posted=10))
    told: list[bool] = []
    outbox.on_overflow = lambda: told.append(True)
    outbox.answer(b"a" * 100)
    outbox.post(b"b" * 6)
    assert not told
    assert outbox.unsent == 106
    assert outbox.take(0) == (b"a" * 100, 0)
    outbox.post(b"c" * 4)
    assert outbox.take(100) == (b"b" * 6 + b"c" * 4, 10)
    outbox.post(b"d")
    assert told == [True]
    outbox.sent(110, 10)
    assert outbox.wait_until_below(1)
    outbox.close()
    outbox.post(b"e")
    assert outbox.take(100) == (b"d", 1)
    assert outbox.take(100) == (b"", 0)
    outbox.kill()
    assert not outbox.wait_until_below(0)


# Refusing ------------------------------------------------------------------------------------------


def test_says_why_it_takes_no_datagrams() -> None:
    refusal = ThreadsEngine.refusal(Echo(), Endpoint.parse("udp://127.0.0.1:0"))
    assert refusal is not None
    assert "no connection to hand to a thread" in str(refusal)


def test_a_burst_from_many_threads_is_all_answered() -> None:
    with Harness("threads", Lines, [TCP]) as running:
        answers: list[bytes] = []

        def call(number: int) -> None:
            with Client(running.endpoints[0]) as client:
                answers.append(client.ask(b"%04d\n" % number))

        callers = [threading.Thread(target=call, args=(number,)) for number in range(100)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert sorted(answers) == [b"%04d\n" % number for number in range(100)]
