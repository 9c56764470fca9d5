"""`engines/pool.py`: a fixed number of threads, which take connections from a queue."""

from __future__ import annotations

import threading
import time

from bothends.endpoints import Endpoint
from bothends.engines.base import EngineContext, Limits
from bothends.engines.pool import PoolEngine
from bothends.events import Accepted, Closed, ConnectionRejected
from bothends.osutil import process_info
from bothends.services.base import Conversation, Peer, Push, Service
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import BroadcastChat, EchoService, UppercaseLines

TCP = "tcp://127.0.0.1:0"
UDP = "udp://127.0.0.1:0"


class TwoThreads(PoolEngine):
    """A pool of two threads."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context, size=2)


class FewThreads(PoolEngine):
    """Can start only five threads."""

    def run(self) -> None:
        start, remaining = threading.Thread.start, [5]

        def fail(thread: threading.Thread) -> None:
            if thread.name.startswith("bothends-pool"):
                if not remaining[0]:
                    raise RuntimeError("can't start new thread")
                remaining[0] -= 1
            start(thread)

        threading.Thread.start = fail  # type: ignore[assignment,method-assign]
        super().run()


class MisbehavingService(Service):
    """Exits its thread, hangs in it, or sleeps, when asked to; otherwise echoes."""

    name = "test-misbehaving"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _MisbehavingConversation()

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        if datagram == b"slow":
            time.sleep(0.5)
        return datagram


class _MisbehavingConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        if data == b"exit":
            raise SystemExit
        while data == b"hang":
            time.sleep(1)
        return data


def thread_count(running: Harness) -> int:
    """Return the number of threads of the engine's process."""
    with open(f"/proc/{running.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


def test_concurrency_equals_thread_count() -> None:
    with Harness(f"{__name__}:TwoThreads", UppercaseLines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(3)]
        for client in clients[:2]:
            assert client.request(b"x\n") == b"X\n"
        clients[2].send(b"y\n")
        assert not clients[2].is_readable(0.1)
        clients[0].close()
        assert clients[2].receive_exactly(2) == b"Y\n"
        assert thread_count(running) == 4  # including the main thread and the watchdog
        for client in clients:
            client.close()
        running.drain()
        assert running.wait_exit().problems() == []


def test_pool_full_refuses_when_configured() -> None:
    with Harness(f"{__name__}:TwoThreads", UppercaseLines, [TCP], Limits(when_full="refuse")) as running:
        clients = [Client(running.endpoints[0]) for _ in range(3)]
        for client in clients[:2]:
            assert client.request(b"x\n") == b"X\n"
        assert clients[2].receive_until_closed() == b""
        running.wait_event(ConnectionRejected)
        for client in clients:
            client.close()


def test_burst_is_served() -> None:
    with Harness("pool", UppercaseLines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(200)]
        for number, client in enumerate(clients):
            client.send(b"%03d\n" % number)
        for number, client in enumerate(clients):
            assert client.receive_exactly(4) == b"%03d\n" % number
            client.close()
        running.wait_event(Closed, lambda event: event.connection == 200)


def test_system_exit_in_service_keeps_thread() -> None:
    with Harness(f"{__name__}:TwoThreads", MisbehavingService, [TCP]) as running:
        for _ in range(5):
            with Client(running.endpoints[0]) as client:
                client.send(b"exit")
                client.receive_until_closed()
        with Client(running.endpoints[0]) as client:
            assert client.request(b"still here") == b"still here"
        running.drain()
        assert running.wait_exit().problems() == []


def test_slow_datagram_does_not_block_others() -> None:
    with Harness(f"{__name__}:TwoThreads", MisbehavingService, [TCP, UDP, UDP]) as running:
        tcp, slow, fast = running.endpoints
        with Client(slow) as slow_client, Client(fast) as fast_client, Client(tcp) as client:
            slow_client.send(b"slow")
            started = time.monotonic()
            assert client.request(b"hello") == b"hello"
            client.close()
            assert fast_client.request(b"hello") == b"hello"
            assert time.monotonic() - started < 0.5
            assert slow_client.receive_message() == b"slow"
            for number in range(100):
                assert fast_client.request(b"%03d" % number) == b"%03d" % number
        running.drain()
        assert running.wait_exit().problems() == []


def test_drain_waits_for_datagram_thread() -> None:
    with (
        Harness(f"{__name__}:TwoThreads", MisbehavingService, [UDP]) as running,
        Client(running.endpoints[0]) as client,
    ):
        for word in (b"slow", b"after"):
            client.send(word)
        running.drain()
        assert [client.receive_message() for _ in range(2)] == [b"slow", b"after"]
        assert running.wait_exit().problems() == []


def test_drain_timeout_abandons_hung_thread() -> None:
    with (
        Harness(f"{__name__}:TwoThreads", MisbehavingService, [TCP], Limits(drain=0.1)) as running,
        Client(running.endpoints[0]) as client,
    ):
        client.send(b"hang")
        running.wait_event(Accepted)
        running.drain()
        assert client.receive_until_closed() == b""
        engine_exit = running.wait_exit()
    assert engine_exit.status == 0
    assert engine_exit.leftovers is not None
    assert len(engine_exit.leftovers.threads) <= 2
    assert process_info.read_process(running.pid) is None


def test_pool_runs_with_fewer_threads() -> None:
    with Harness(f"{__name__}:FewThreads", UppercaseLines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(6)]
        for client in clients[:5]:
            assert client.request(b"x\n") == b"X\n"
        clients[5].send(b"y\n")
        assert not clients[5].is_readable(0.1)
        for client in clients[:5]:
            client.close()
        assert clients[5].receive_exactly(2) == b"Y\n"
        clients[5].close()


def test_push_service_is_rejected_with_reason() -> None:
    assert "use threads" in str(PoolEngine.unsupported_reason(BroadcastChat(), Endpoint.parse(TCP)))
    assert PoolEngine.unsupported_reason(EchoService(), Endpoint.parse(UDP)) is None
