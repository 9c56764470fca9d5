"""`engines/command_relay.py`: relaying bytes to a command behind TLS or a PROXY header."""

from __future__ import annotations

import functools
import os
import shlex
import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest

from bothends.endpoints import Address
from bothends.engines.base import Limits
from bothends.engines.command import Command
from bothends.events import Cause, Closed, Ended, Established, Exited, Failed, Opened, Received, Sent
from bothends.layers import TlsSettings, encode
from bothends.osutil import process_info
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.tls_client import TlsClient, trusting

ENGINE = "bothends.engines.command:CommandEngine"
TLS = "tls://127.0.0.1:0"
PROXY = "proxyprotocol+tcp://127.0.0.1:0"
FAR = (Address("inet6", "2001:db8::9", 56324), Address("inet6", "2001:db8::1", 443))


def serving(
    text: str, endpoint: str = TLS, limits: Limits | None = None, *, shell: bool = False, observe: bool = True
) -> Harness:
    tls = TlsSettings(self_signed=True)
    service = functools.partial(Command, text, shell=shell)
    return Harness(ENGINE, service, [endpoint], limits, observe=observe, tls=tls)


def python(program: str) -> str:
    return shlex.join([sys.executable, "-S", "-c", program])


def end(running: Harness) -> None:
    """Nothing is left, and nothing was said on standard error."""
    running.drain()
    assert running.wait_exit().faults() == []


def is_alive(pid: int) -> bool:
    now = process_info.look(pid)
    return now is not None and not now.is_zombie


def command_of(running: Harness) -> int:
    """The command's process: the pump's child."""
    running.wait_for(lambda: len(running.children()) == 2)
    return running.children()[1].pid


# What is carried ---------------------------------------------------------------------------------------


def test_a_filter_hears_the_end_and_answers_after_it() -> None:
    with serving("sort -n") as running:
        with TlsClient(running.endpoints[0]) as client:
            client.say(b"10\n9\n100\n")
            client.finish()
            assert client.hear_all() == b"9\n10\n100\n"
        running.wait_event(Exited, lambda event: event.role == "command" and event.status == 0)
        assert running.wait_event(Established).agreed == "TLS 1.3, SNI localhost"
        assert running.seen(Received)[0].data == b"10\n9\n100\n"
        assert running.seen(Ended)
        assert running.seen(Sent)[0].data == b"9\n10\n100\n"
        assert [each.cause for each in running.seen(Closed)] == [Cause.PEER]
        end(running)


def test_a_megabyte_both_ways_at_once() -> None:
    data = os.urandom(1 << 20)
    with serving("cat", observe=False) as running:
        with TlsClient(running.endpoints[0]) as client:
            client.say(data)
            client.finish()
            assert client.hear_all() == data
        end(running)


def test_the_end_of_the_command_is_the_end_for_the_peer() -> None:
    with serving("echo hello; exit 3", shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            assert client.hear_all() == b"hello\n"
        assert running.wait_event(Closed).cause is Cause.SERVICE
        assert running.wait_event(Exited).status == 3
        end(running)


def test_behind_a_proxy_it_is_told_who_the_peer_is() -> None:
    with serving("printenv PROTO REMOTE_ADDR REMOTE_PORT SERVER_ADDR TCPLOCALPORT", PROXY) as running:
        with Client(running.endpoints[0]) as client:
            client.say(encode(2, *FAR))
            assert client.hear_all() == b"TCP6\n2001:db8::9\n56324\n2001:db8::1\n443\n"
        assert running.wait_event(Closed).peer == FAR[0]
        end(running)


def test_half_close_behind_a_proxy() -> None:
    with serving("sort -n", PROXY) as running:
        with Client(running.endpoints[0]) as client:
            client.say(encode(1, *FAR) + b"2\n1")
            client.finish()
            assert client.hear_all() == b"1\n2\n"
        end(running)


def test_tls_1_2_cannot_half_close_and_that_is_told() -> None:
    with serving("sort -n") as running:
        with TlsClient(running.endpoints[0], trusting(ssl.TLSVersion.TLSv1_2)) as client:
            client.say(b"2\n1\n")
            client.finish()
            assert client.hear_all() == b""
        assert "answer had to be left unsaid" in str(running.wait_event(Failed).error)
        end(running)


def test_who_shakes_no_hands_costs_no_command(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with serving(f"touch {ran}", limits=Limits(handshake=0.2)) as running:
        with Client(running.endpoints[0]) as client:
            client.say(b"\x16\x03\x01")
            assert client.hear_end() == b""
        assert running.wait_event(Closed).cause is Cause.HANDSHAKE
        end(running)
    assert not ran.exists()


def test_what_is_not_there_is_told_for_each_connection(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with serving(str(script)) as running:
        with TlsClient(running.endpoints[0]) as client:
            assert client.hear_all() == b""
        assert isinstance(running.wait_event(Failed).error, FileNotFoundError)
        assert running.wait_event(Closed).cause is Cause.FAILED
        end(running)


# Backpressure ------------------------------------------------------------------------------------------


def test_a_command_that_never_reads_stops_the_peer() -> None:
    with serving("echo begun; sleep 1000", PROXY, shell=True) as running:
        with Client(running.endpoints[0], sndbuf=8192) as client:
            client.say(encode(1, *FAR))
            assert client.hear(6) == b"begun\n"
            taken = client.push(bytes(32_000_000), within=0.3)
            assert taken < 8_000_000
            # It waits for the pipe, and doesn't ask again and again.
            assert running.cpu_over(0.3, enough=0.15) <= 0.15
        running.abort()
        assert running.wait_exit().faults() == []


def test_a_peer_that_never_reads_stops_the_command() -> None:
    program = "import os\nfor size in range(2000): os.write(1, bytes(65536)); os.write(2, b'.')"
    with serving(python(program), PROXY) as running, Client(running.endpoints[0], rcvbuf=8192) as client:
        client.say(encode(1, *FAR))
        assert client.hear(1) == b"\0"
        before = -1
        while before != (now := len(running.printed())):  # each dot is a piece that the command got rid of
            before = now
            assert not client.is_lost(0.2)
        assert now < 400
        assert running.cpu_over(0.3, enough=0.15) <= 0.15
        running.abort()
        assert [fault for fault in running.wait_exit().faults() if "printed" not in fault] == []


def test_who_has_closed_its_input_still_speaks() -> None:
    with serving("exec <&-; sed -n 1p /etc/passwd; echo over", shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            client.say(bytes(300_000))
            assert client.hear_all().endswith(b"over\n")
        end(running)


# Ends --------------------------------------------------------------------------------------------------


def test_a_peer_that_leaves_ends_who_writes() -> None:
    with serving("yes", PROXY) as running:
        with Client(running.endpoints[0]) as client:
            client.say(encode(1, *FAR))
            assert client.hear(4) == b"y\ny\n"
        assert running.wait_event(Closed).cause is Cause.RESET
        assert running.wait_event(Exited).status in (128 + signal.SIGTERM, 128 + signal.SIGPIPE)
        end(running)


def test_an_input_that_is_cut_off_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    done = tmp_path / "done"
    with serving(f"cat; touch {done}", shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            client.say(b"half")
            assert client.hear(4) == b"half"
            client.socket.shutdown(socket.SHUT_WR)  # no close_notify
            client.wait_until(lambda: client.end.ended)
        assert "without close_notify" in str(running.wait_event(Failed).error)
        assert running.wait_event(Exited).status == 128 + signal.SIGTERM
        end(running)
    assert not done.exists()


@pytest.mark.parametrize(
    ("limits", "cause"), [(Limits(idle=0.2), Cause.IDLE), (Limits(life=0.2), Cause.LIFE)]
)
def test_a_limit_ends_the_command_with_the_connection(limits: Limits, cause: Cause) -> None:
    with serving("echo x; sleep 1000 | sleep 1000", limits=limits, shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            assert client.hear_all() == b"x\n"  # told in order, by close_notify
        assert running.wait_event(Closed).cause is cause
        assert running.wait_event(Exited).status == 128 + signal.SIGTERM
        running.wait_for(lambda: not running.children())
        end(running)


def test_draining_lets_it_finish() -> None:
    with serving("cat") as running, TlsClient(running.endpoints[0]) as client:
        client.say(b"x")
        assert client.hear(1) == b"x"
        running.drain()
        client.say(b"y")
        assert client.hear(2) == b"xy"
        client.finish()
        assert client.hear_all() == b"xy"
        assert running.wait_exit().faults() == []
        assert running.seen(Closed)[0].cause is Cause.PEER


@pytest.mark.parametrize("way", ["deadline", "abort"])
def test_at_the_end_all_that_a_command_has_started_is_ended(way: str) -> None:
    text = "sleep 1000 & sleep 1000 | sleep 1000; echo never"
    with serving(text, limits=Limits(drain=0.1), shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            running.wait_for(lambda: len(running.children()) == 5)
            started = [each.pid for each in running.children()]
            running.drain() if way == "deadline" else running.abort()
            assert running.wait_exit().faults() == []
            running.wait_for(lambda: not any(is_alive(pid) for pid in started))
            assert client.heard == b""
        assert running.seen(Closed)[0].cause is Cause.ABORTED
        assert running.seen(Exited)[0].status == 128 + signal.SIGTERM


def test_who_ignores_the_first_signal_gets_the_last() -> None:
    text = python(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"
    )
    with serving(text) as running, TlsClient(running.endpoints[0]) as client:
        assert client.hear(2) == b"1\n"
        command = command_of(running)
        running.abort()
        assert running.wait_exit().faults() == []
        running.wait_for(lambda: not is_alive(command))
        assert running.seen(Exited)[0].status == -signal.SIGKILL


def test_a_command_that_is_killed_ends_its_own_connection_only() -> None:
    with serving("cat") as running:
        with TlsClient(running.endpoints[0]) as client:
            client.say(b"x")
            assert client.hear(1) == b"x"
            with TlsClient(running.endpoints[0]) as other:
                other.say(b"y")
                assert other.hear(1) == b"y"
                first = running.seen(Opened, lambda event: event.peer == client.address)
                assert first
                pump = min(each.pid for each in running.children())
                own = next(each.pid for each in process_info.family(pump)[1:])
                os.kill(own, signal.SIGKILL)
                assert client.hear_all() == b"x"
                other.say(b"z")
                assert other.hear(2) == b"yz"
        running.wait_event(Exited, lambda event: event.status == 128 + signal.SIGKILL)
        end(running)


def test_a_pump_that_is_killed_is_the_end_of_the_connection_for_both() -> None:
    with serving("cat", PROXY) as running:
        with Client(running.endpoints[0]) as client:
            client.say(encode(1, *FAR))
            assert client.ask(b"x") == b"x"
            command = command_of(running)
            os.kill(running.children()[0].pid, signal.SIGKILL)
            assert client.hear_end() == b""
        running.wait_event(Exited, lambda event: event.status == -signal.SIGKILL)
        running.wait_for(lambda: not is_alive(command))
        end(running)
