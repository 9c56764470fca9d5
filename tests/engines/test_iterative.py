"""`engines/iterative.py`: one connection after another, in a process of its own."""

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
from bothends.events import Cause, Closed, Draining, Opened, Received, Relieved, Strained
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import Chat, Digest, Echo, Lines
from tests.tools import needs_tool

TCP = "tcp://127.0.0.1:0"


def settle(running: Harness) -> None:
    """Wait until it has opened all that it needs."""
    with Client(running.endpoints[0]) as client:
        client.finish()
        client.hear_all()
    running.wait_event(Closed)


def test_the_next_one_is_served_when_the_first_is_over() -> None:
    with Harness("iterative", Lines, [TCP]) as running:
        with Client(running.endpoints[0]) as first, Client(running.endpoints[0]) as second:
            assert first.ask(b"one\n") == b"ONE\n"
            second.say(b"two\n")
            assert not second.is_readable(0.1)
            first.finish()
            assert second.hear(4) == b"TWO\n"
        running.wait_event(Closed, lambda event: event.connection == 2)
        running.drain()
        assert running.wait_exit().faults() == []


def test_datagrams_have_their_turn_between_two_connections() -> None:
    with Harness("iterative", Echo, [TCP, "udp://127.0.0.1:0"]) as running:
        tcp, udp = running.endpoints
        with Client(tcp) as first, Client(tcp) as second, Client(udp) as caller:
            assert first.ask(b"one") == b"one"
            caller.say(b"datagram")
            second.say(b"two")
            assert not caller.is_readable(0.1)
            first.finish()
            assert caller.hear_message() == b"datagram"
            assert second.hear(3) == b"two"


def test_draining_serves_who_already_waits_in_the_queue() -> None:
    with Harness("iterative", Lines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(4)]
        assert clients[0].ask(b"zero\n") == b"ZERO\n"
        for client in clients[1:]:
            client.say(b"last\n")
        running.drain()
        for client in clients[1:]:
            assert client.hear(5) == b"LAST\n"
        for client in clients:
            client.close()
        assert running.wait_exit().faults() == []
    assert len(running.seen(Opened)) == 4
    assert len(running.seen(Draining)) == 1


def test_aborting_ends_the_one_who_blocks_it() -> None:
    with Harness("iterative", Lines, [TCP]) as running, Client(running.endpoints[0]) as client:
        assert client.ask(b"one\n") == b"ONE\n"
        running.abort()
        client.hear_end()
        assert running.wait_exit().faults() == []
    assert running.seen(Closed)[0].cause in (Cause.ABORTED, Cause.DRAINED)


def test_an_idle_limit_frees_the_way() -> None:
    with Harness("iterative", Lines, [TCP], Limits(idle=0.1, linger=0.1)) as running:
        with Client(running.endpoints[0]) as idle, Client(running.endpoints[0]) as other:
            assert other.ask(b"two\n") == b"TWO\n"
            assert idle.hear_all() == b""
        assert running.wait_event(Closed).cause is Cause.IDLE


def test_without_descriptors_it_waits_and_recovers() -> None:
    with Harness("iterative", Lines, [TCP]) as running:
        settle(running)
        restore = running.spare_descriptors(0)
        with Client(running.endpoints[0]) as client:
            client.say(b"patience\n")
            running.wait_event(Strained)
            assert running.cpu_over(0.3, 0.1) < 0.1
            restore()
            assert client.hear(9) == b"PATIENCE\n"
        running.wait_event(Relieved)
        assert len(running.seen(Strained)) == 1
        running.drain()
        assert running.wait_exit().faults() == []


def test_many_one_after_another_leave_nothing_behind() -> None:
    with Harness("iterative", Digest, [TCP]) as running:
        settle(running)
        before = running.descriptors()
        for number in range(200):
            with Client(running.endpoints[0]) as client:
                client.say(b"x" * number)
                client.finish()
                assert client.hear_line().startswith(b"%d " % number)
        running.wait_event(Closed, lambda event: event.connection == 201)
        assert running.descriptors() == before
        assert running.seen(Received)


def test_says_why_it_cannot_carry_who_posts() -> None:
    refusal = IterativeEngine.refusal(Chat(), Endpoint.parse(TCP))
    assert refusal is not None
    assert "one connection at a time" in str(refusal)


PROGRAM = textwrap.dedent(
    """
    import sys, threading
    from bothends.endpoints import Endpoint
    from bothends.engines.base import Job
    from bothends.engines.iterative import IterativeEngine
    from bothends.engines.shutdown import Stop
    from bothends.sockets import open_listeners
    from bothends.testing.services import Lines

    listeners, stop = open_listeners(Endpoint.parse("tcp://127.0.0.1:0")), Stop()
    print(listeners[0].endpoint.port, flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), stop.draining.set()), daemon=True).start()
    IterativeEngine(Job(Lines(), listeners, stop)).run()
    """
)


@needs_tool("strace")
def test_under_strace_it_looks_like_the_textbook(tmp_path: Path) -> None:
    log = tmp_path / "log"
    calls = "trace=accept4,recvfrom,sendto,shutdown,setsockopt,close,poll,ioctl,fcntl"
    command = ["strace", "-ff", "-qq", "-e", calls, "-o", str(log), sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        timer = threading.Timer(30, run.kill)
        timer.start()
        with Client(Endpoint.parse(f"tcp://127.0.0.1:{int(run.stdout.readline())}")) as client:
            assert client.ask(b"one\n") == b"ONE\n"
            assert client.ask(b"two\n") == b"TWO\n"
            client.finish()
            assert client.hear_all() == b""
        run.communicate()
        timer.cancel()
    calls_of_each = [each.read_text().splitlines() for each in tmp_path.iterdir()]  # a file for each thread
    made = next(calls for calls in calls_of_each if any(call.startswith("accept4") for call in calls))
    accepted = next(place for place, call in enumerate(made) if re.match(r"accept4.* = \d+$", call))
    number = made[accepted].rpartition(" ")[2]
    told = [call.partition("(")[0] for call in made[accepted:] if re.search(rf"\({number}\b", call)]
    assert told == ["recvfrom", "sendto", "recvfrom", "sendto", "recvfrom", "shutdown", "close"]
