"""`engines/iterative.py`: one connection after another."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from bothends.endpoints import Endpoint
from bothends.engines.base import Limits
from bothends.engines.iterative import IterativeEngine
from bothends.events import Accepted, AcceptPaused, AcceptResumed, Closed, CloseReason, Draining, Received
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import BroadcastChat, Digest, EchoService, UppercaseLines
from tests.tools import needs_tool

TCP = "tcp://127.0.0.1:0"


def warm_up(running: Harness) -> None:
    """Serve one connection, so that everything opened on first use is open."""
    with Client(running.endpoints[0]) as client:
        client.shutdown_write()
        client.receive_until_eof()
    running.wait_event(Closed)


def test_connections_are_served_one_at_a_time() -> None:
    with Harness("iterative", UppercaseLines, [TCP]) as running:
        with Client(running.endpoints[0]) as first, Client(running.endpoints[0]) as second:
            assert first.request(b"one\n") == b"ONE\n"
            second.send(b"two\n")
            assert not second.is_readable(0.1)
            first.shutdown_write()
            assert second.receive_exactly(4) == b"TWO\n"
        running.wait_event(Closed, lambda event: event.connection == 2)
        running.drain()
        assert running.wait_exit().problems() == []


def test_datagrams_are_answered_between_connections() -> None:
    with Harness("iterative", EchoService, [TCP, "udp://127.0.0.1:0"]) as running:
        tcp, udp = running.endpoints
        with Client(tcp) as first, Client(tcp) as second, Client(udp) as udp_client:
            assert first.request(b"one") == b"one"
            udp_client.send(b"datagram")
            second.send(b"two")
            assert not udp_client.is_readable(0.1)
            first.shutdown_write()
            assert udp_client.receive_message() == b"datagram"
            assert second.receive_exactly(3) == b"two"


def test_drain_serves_accept_queue() -> None:
    with Harness("iterative", UppercaseLines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(4)]
        assert clients[0].request(b"zero\n") == b"ZERO\n"
        for client in clients[1:]:
            client.send(b"last\n")
        running.drain()
        for client in clients[1:]:
            assert client.receive_exactly(5) == b"LAST\n"
        for client in clients:
            client.close()
        assert running.wait_exit().problems() == []
    assert len(running.events_of(Accepted)) == 4
    assert len(running.events_of(Draining)) == 1


def test_abort_ends_blocked_connection() -> None:
    with Harness("iterative", UppercaseLines, [TCP]) as running, Client(running.endpoints[0]) as client:
        assert client.request(b"one\n") == b"ONE\n"
        running.abort()
        client.receive_until_closed()
        assert running.wait_exit().problems() == []
    assert running.events_of(Closed)[0].cause in (CloseReason.ABORTED, CloseReason.DRAINED)


def test_idle_timeout_lets_next_connection_in() -> None:
    with Harness("iterative", UppercaseLines, [TCP], Limits(idle=0.1, linger=0.1)) as running:
        with Client(running.endpoints[0]) as idle, Client(running.endpoints[0]) as other:
            assert other.request(b"two\n") == b"TWO\n"
            assert idle.receive_until_eof() == b""
        assert running.wait_event(Closed).cause is CloseReason.IDLE


def test_emfile_pauses_accepting_and_recovers() -> None:
    with Harness("iterative", UppercaseLines, [TCP]) as running:
        warm_up(running)
        restore = running.limit_descriptors(0)
        with Client(running.endpoints[0]) as client:
            client.send(b"waiting\n")
            running.wait_event(AcceptPaused)
            assert running.cpu_used(0.3, 0.1) < 0.1
            restore()
            assert client.receive_exactly(8) == b"WAITING\n"
        running.wait_event(AcceptResumed)
        assert len(running.events_of(AcceptPaused)) == 1
        running.drain()
        assert running.wait_exit().problems() == []


def test_sequential_connections_leak_nothing() -> None:
    with Harness("iterative", Digest, [TCP]) as running:
        warm_up(running)
        before = running.descriptors()
        for number in range(200):
            with Client(running.endpoints[0]) as client:
                client.send(b"x" * number)
                client.shutdown_write()
                assert client.receive_line().startswith(b"%d " % number)
        running.wait_event(Closed, lambda event: event.connection == 201)
        assert running.descriptors() == before
        assert running.events_of(Received)


def test_push_service_is_rejected_with_reason() -> None:
    unsupported = IterativeEngine.unsupported_reason(BroadcastChat(), Endpoint.parse(TCP))
    assert unsupported is not None
    assert "one connection at a time" in str(unsupported)


PROGRAM = textwrap.dedent(
    """
    import sys, threading
    from bothends.endpoints import Endpoint
    from bothends.engines.base import EngineContext
    from bothends.engines.iterative import IterativeEngine
    from bothends.engines.shutdown import ShutdownFlags
    from bothends.sockets import open_listeners
    from bothends.testing.services import UppercaseLines

    listeners, stop = open_listeners(Endpoint.parse("tcp://127.0.0.1:0")), ShutdownFlags()
    print(listeners[0].endpoint.port, flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), stop.draining.set()), daemon=True).start()
    IterativeEngine(EngineContext(UppercaseLines(), listeners, stop)).run()
    """
)


@needs_tool("strace")
def test_strace_shows_one_recv_and_send_per_message(tmp_path: Path) -> None:
    log = tmp_path / "log"
    calls = "trace=accept4,recvfrom,sendto,shutdown,setsockopt,close,poll,ioctl,fcntl"
    command = ["strace", "-ff", "-qq", "-e", calls, "-o", str(log), sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        timer = threading.Timer(30, run.kill)
        timer.start()
        with Client(Endpoint.parse(f"tcp://127.0.0.1:{int(run.stdout.readline())}")) as client:
            assert client.request(b"one\n") == b"ONE\n"
            assert client.request(b"two\n") == b"TWO\n"
            client.shutdown_write()
            assert client.receive_until_eof() == b""
        run.communicate()
        timer.cancel()
    calls_by_thread = [each.read_text().splitlines() for each in tmp_path.iterdir()]
    calls_made = next(calls for calls in calls_by_thread if any(call.startswith("accept4") for call in calls))
    accepted = next(index for index, call in enumerate(calls_made) if re.match(r"accept4.* = \d+$", call))
    fd = calls_made[accepted].rpartition(" ")[2]
    names = [call.partition("(")[0] for call in calls_made[accepted:] if re.search(rf"\({fd}\b", call)]
    assert names == ["recvfrom", "sendto", "recvfrom", "sendto", "recvfrom", "shutdown", "close"]
