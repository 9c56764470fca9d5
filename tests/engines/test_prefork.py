"""`engines/prefork.py`: a fixed number of processes, each serving one connection after another."""

from __future__ import annotations

import os
import signal

from bothends.endpoints import Endpoint
from bothends.engines.base import Job
from bothends.engines.prefork import SIZE, PreforkEngine
from bothends.events import Cause, Closed, Exited, Opened
from bothends.osutil import process_info
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import Chat, Echo, Lines

TCP = "tcp://127.0.0.1:0"
UDP = "udp://127.0.0.1:0"


class Three(PreforkEngine):
    """Of three processes."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, size=3)


class One(PreforkEngine):
    """Of one process."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, size=1)


def test_as_many_are_served_at_once_as_there_are_processes() -> None:
    with Harness(f"{__name__}:Three", Lines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(4)]
        for client in clients[:3]:
            assert client.ask(b"x\n") == b"X\n"
        clients[3].say(b"y\n")
        assert not clients[3].is_readable(0.1)
        clients[1].close()
        assert clients[3].hear(2) == b"Y\n"
        assert len(running.children()) == 3
        for client in clients:
            client.close()
        running.drain()
        assert running.wait_exit().faults() == []


def test_a_process_that_is_killed_is_replaced() -> None:
    with Harness(f"{__name__}:One", Lines, [TCP]) as running:
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"x\n") == b"X\n"
            (victim,) = running.children()
            os.kill(victim.pid, signal.SIGKILL)
            client.hear_end()
        assert running.wait_event(Exited).status == -signal.SIGKILL
        with Client(running.endpoints[0]) as client:
            assert client.ask(b"x\n") == b"X\n"
        assert [each.pid for each in running.children()] != [victim.pid]
        assert running.zombies() == []


def test_draining_serves_who_waits_and_refuses_who_comes() -> None:
    with Harness(f"{__name__}:One", Lines, [TCP]) as running:
        busy, waiting = Client(running.endpoints[0]), Client(running.endpoints[0])
        assert busy.ask(b"x\n") == b"X\n"
        waiting.say(b"y\n")
        running.drain()

        def refused() -> bool:
            assert busy.ask(b"x\n") == b"X\n"  # it never comes to rest, so its process never looks up
            try:
                Client(running.endpoints[0]).close()
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:  # the queue was closed over us
                pass
            return False

        running.wait_for(refused)
        busy.close()
        assert waiting.hear(2) == b"Y\n"
        waiting.close()
        assert running.wait_exit().faults() == []


def test_datagrams_are_answered_by_whoever_is_free() -> None:
    with Harness(f"{__name__}:Three", Echo, [TCP, UDP]) as running:
        tcp, udp = running.endpoints
        with Client(tcp) as one, Client(tcp) as two, Client(udp) as caller:
            assert one.ask(b"one") == b"one"
            assert two.ask(b"two") == b"two"
            for number in range(50):
                caller.say(b"%d" % number)
                assert caller.hear_message() == b"%d" % number


def test_children_do_not_outlive_a_parent_that_is_killed() -> None:
    with Harness(f"{__name__}:Three", Lines, [TCP]) as running, Client(running.endpoints[0]) as client:
        assert client.ask(b"x\n") == b"X\n"
        children = running.children()
        os.kill(running.pid, signal.SIGKILL)
        client.hear_end()
        running.wait_for(lambda: not any(is_alive(each.pid) for each in children))


def is_alive(pid: int) -> bool:
    now = process_info.look(pid)
    return now is not None and not now.is_zombie


def test_aborting_ends_all_of_them() -> None:
    with Harness(f"{__name__}:Three", Lines, [TCP]) as running:
        clients = [Client(running.endpoints[0]) for _ in range(3)]
        for client in clients:
            assert client.ask(b"x\n") == b"X\n"
        running.abort()
        for client in clients:
            client.hear_end()
            client.close()
        assert running.wait_exit().faults() == []
    assert {event.cause for event in running.seen(Closed)} == {Cause.ABORTED}


def test_there_are_more_processes_than_processors() -> None:
    with Harness("prefork", Lines, [TCP]) as running:
        running.wait_for(lambda: len(running.children()) == SIZE)
        assert running.seen(Opened) == []
    assert (os.cpu_count() or 1) < SIZE


def test_says_what_it_cannot_carry() -> None:
    assert "share nothing" in str(PreforkEngine.refusal(Chat(), Endpoint.parse(TCP)))
    assert not PreforkEngine.turns_away
    assert not PreforkEngine.adopts
