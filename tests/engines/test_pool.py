"""`engines/pool.py`: a fixed number of threads, which take connections from a queue."""

from __future__ import annotations

import threading
import time

from bothends.endpoints import Endpoint
from bothends.engines.base import Job, Limits
from bothends.engines.pool import PoolEngine
from bothends.events import Closed, Opened, Refused
from bothends.osutil import process_info
from bothends.services.base import Conversation, Peer, Post, Service
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import Chat, Echo, Lines

TCP = "tcp://127.0.0.1:0"
UDP = "udp://127.0.0.1:0"


class Two(PoolEngine):
    """Of two threads."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, size=2)


class FewThreads(PoolEngine):
    """Gets five threads and no more."""

    def run(self) -> None:
        start, left = threading.Thread.start, [5]

        def fail(thread: threading.Thread) -> None:
            if thread.name.startswith("bothends-pool"):
                if not left[0]:
                    raise RuntimeError("can't start new thread")
                left[0] -= 1
            start(thread)

        threading.Thread.start = fail  # type: ignore[assignment,method-assign]
        super().run()


class Odd(Service):
    """Leaves its thread, or stays in it, when asked to; otherwise echoes."""

    name = "test-odd"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Odd()

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        if datagram == b"slow":
            time.sleep(0.5)
        return datagram


class _Odd(Conversation):
    def receive(self, data: bytes) -> bytes:
        if data == b"leave":
            raise SystemExit
        while data == b"stay":
            time.sleep(1)
        return data


def threads_of(running: Harness) -> int:
    """How many threads it has: processes.look doesn't tell."""
    with open(f"/proc/{running.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


def test_as_many_are_served_at_once_as_there_are_threads() -> None:
    with Harness(f"{__name__}:Two", Lines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(3)]
        for client in clients[:2]:
            assert client.ask(b"x\n") == b"X\n"
        clients[2].say(b"y\n")
        assert not clients[2].is_readable(0.1)
        clients[0].close()
        assert clients[2].hear(2) == b"Y\n"
        assert threads_of(running) == 4  # with the main one and the warden
        for client in clients:
            client.close()
        running.drain()
        assert running.wait_exit().faults() == []


def test_beyond_its_size_it_refuses_where_the_limits_say_so() -> None:
    with Harness(f"{__name__}:Two", Lines, [TCP], Limits(when_full="refuse")) as running:
        clients = [Client(running.endpoints[0]) for _ in range(3)]
        for client in clients[:2]:
            assert client.ask(b"x\n") == b"X\n"
        assert clients[2].hear_end() == b""
        running.wait_event(Refused)
        for client in clients:
            client.close()


def test_a_burst_is_all_served() -> None:
    with Harness("pool", Lines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(200)]
        for number, client in enumerate(clients):
            client.say(b"%03d\n" % number)
        for number, client in enumerate(clients):
            assert client.hear(4) == b"%03d\n" % number
            client.close()
        running.wait_event(Closed, lambda event: event.connection == 200)


def test_a_service_that_leaves_its_thread_does_not_shrink_the_pool() -> None:
    with Harness(f"{__name__}:Two", Odd, [TCP]) as running:
        for _ in range(5):
            with Client(running.endpoints[0]) as client:
                client.say(b"leave")
                client.hear_end()
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"still here") == b"still here"
        running.drain()
        assert running.wait_exit().faults() == []


def test_datagrams_and_connections_do_not_wait_for_each_other() -> None:
    with Harness(f"{__name__}:Two", Odd, [TCP, UDP, UDP]) as running:
        tcp, slow, fast = running.endpoints
        with Client(slow) as one, Client(fast) as two, Client(tcp) as client:
            one.say(b"slow")
            started = time.monotonic()
            assert client.ask(b"hello") == b"hello"
            client.close()
            assert two.ask(b"hello") == b"hello"
            assert time.monotonic() - started < 0.5
            assert one.hear_message() == b"slow"
            for number in range(100):
                assert two.ask(b"%03d" % number) == b"%03d" % number
        running.drain()
        assert running.wait_exit().faults() == []


def test_draining_waits_for_the_thread_that_answers_a_datagram() -> None:
    with Harness(f"{__name__}:Two", Odd, [UDP]) as running, Client(running.endpoints[0]) as client:
        for word in (b"slow", b"after"):
            client.say(word)
        running.drain()
        assert [client.hear_message() for _ in range(2)] == [b"slow", b"after"]
        assert running.wait_exit().faults() == []


def test_run_does_not_wait_for_a_service_that_never_returns() -> None:
    with (
        Harness(f"{__name__}:Two", Odd, [TCP], Limits(drain=0.1)) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.say(b"stay")
        running.wait_event(Opened)
        running.drain()
        assert client.hear_end() == b""
        outcome = running.wait_exit()
    assert outcome.status == 0
    assert outcome.left is not None
    assert len(outcome.left.threads) <= 2
    assert process_info.look(running.pid) is None


def test_it_makes_do_with_the_threads_that_it_gets() -> None:
    with Harness(f"{__name__}:FewThreads", Lines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(6)]
        for client in clients[:5]:
            assert client.ask(b"x\n") == b"X\n"
        clients[5].say(b"y\n")
        assert not clients[5].is_readable(0.1)
        for client in clients[:5]:
            client.close()
        assert clients[5].hear(2) == b"Y\n"
        clients[5].close()


def test_says_why_it_does_not_carry_who_posts() -> None:
    assert "use threads" in str(PoolEngine.refusal(Chat(), Endpoint.parse(TCP)))
    assert PoolEngine.refusal(Echo(), Endpoint.parse(UDP)) is None
