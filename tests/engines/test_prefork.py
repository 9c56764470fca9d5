"""`engines/prefork.py`: a fixed number of processes, each serving one connection after another."""

from __future__ import annotations

import os
import signal

from bothends.endpoints import Endpoint
from bothends.engines.base import EngineContext
from bothends.engines.prefork import DEFAULT_SIZE, PreforkEngine
from bothends.events import Accepted, ChildExited, Closed, CloseReason
from bothends.osutil import process_info
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import BroadcastChat, EchoService, UppercaseLines

TCP = "tcp://127.0.0.1:0"
UDP = "udp://127.0.0.1:0"


class ThreeProcesses(PreforkEngine):
    """Three processes."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context, size=3)


class OneProcess(PreforkEngine):
    """One process."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context, size=1)


def test_concurrency_equals_process_count() -> None:
    with Harness(f"{__name__}:ThreeProcesses", UppercaseLines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(4)]
        for client in clients[:3]:
            assert client.request(b"x\n") == b"X\n"
        clients[3].send(b"y\n")
        assert not clients[3].is_readable(0.1)
        clients[1].close()
        assert clients[3].receive_exactly(2) == b"Y\n"
        assert len(running.children()) == 3
        for client in clients:
            client.close()
        running.drain()
        assert running.wait_exit().problems() == []


def test_killed_process_is_replaced() -> None:
    with Harness(f"{__name__}:OneProcess", UppercaseLines, [TCP]) as running:
        with Client(running.endpoints[0]) as client:
            assert client.request(b"x\n") == b"X\n"
            (victim,) = running.children()
            os.kill(victim.pid, signal.SIGKILL)
            client.receive_until_closed()
        assert running.wait_event(ChildExited).status == -signal.SIGKILL
        with Client(running.endpoints[0]) as client:
            assert client.request(b"x\n") == b"X\n"
        assert [each.pid for each in running.children()] != [victim.pid]
        assert running.zombies() == []


def test_drain_serves_queue_and_refuses_new() -> None:
    with Harness(f"{__name__}:OneProcess", UppercaseLines, [TCP]) as running:
        busy, queued = Client(running.endpoints[0]), Client(running.endpoints[0])
        assert busy.request(b"x\n") == b"X\n"
        queued.send(b"y\n")
        running.drain()

        def is_refused() -> bool:
            assert busy.request(b"x\n") == b"X\n"  # keeps its process busy
            try:
                Client(running.endpoints[0]).close()
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:  # the listener was closed while the connection was in its queue
                pass
            return False

        running.wait_for(is_refused)
        busy.close()
        assert queued.receive_exactly(2) == b"Y\n"
        queued.close()
        assert running.wait_exit().problems() == []


def test_datagrams_are_answered_by_idle_process() -> None:
    with Harness(f"{__name__}:ThreeProcesses", EchoService, [TCP, UDP]) as running:
        tcp, udp = running.endpoints
        with Client(tcp) as one, Client(tcp) as two, Client(udp) as udp_client:
            assert one.request(b"one") == b"one"
            assert two.request(b"two") == b"two"
            for number in range(50):
                udp_client.send(b"%d" % number)
                assert udp_client.receive_message() == b"%d" % number


def test_children_exit_when_parent_is_killed() -> None:
    with (
        Harness(f"{__name__}:ThreeProcesses", UppercaseLines, [TCP]) as running,
        Client(running.endpoints[0]) as client,
    ):
        assert client.request(b"x\n") == b"X\n"
        children = running.children()
        os.kill(running.pid, signal.SIGKILL)
        client.receive_until_closed()
        running.wait_for(lambda: not any(is_alive(each.pid) for each in children))


def is_alive(pid: int) -> bool:
    now = process_info.read_process(pid)
    return now is not None and not now.is_zombie


def test_abort_ends_all_children() -> None:
    with Harness(f"{__name__}:ThreeProcesses", UppercaseLines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(3)]
        for client in clients:
            assert client.request(b"x\n") == b"X\n"
        running.abort()
        for client in clients:
            client.receive_until_closed()
            client.close()
        assert running.wait_exit().problems() == []
    assert {event.cause for event in running.events_of(Closed)} == {CloseReason.ABORTED}


def test_default_size_exceeds_cpu_count() -> None:
    with Harness("prefork", UppercaseLines, [TCP]) as running:
        running.wait_for(lambda: len(running.children()) == DEFAULT_SIZE)
        assert running.events_of(Accepted) == []
    assert (os.cpu_count() or 1) < DEFAULT_SIZE


def test_unsupported_capabilities_have_reason() -> None:
    assert "share nothing" in str(PreforkEngine.unsupported_reason(BroadcastChat(), Endpoint.parse(TCP)))
    assert not PreforkEngine.rejects_when_full
    assert not PreforkEngine.accepts_inherited
