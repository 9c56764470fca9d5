"""`engines/command.py`: a command for each connection, as inetd does it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.endpoints import Address, Endpoint
from bothends.engines.base import Job, Limits
from bothends.engines.command import Command, CommandEngine, environment
from bothends.engines.shutdown import Stop
from bothends.errors import CannotCarry, ServiceError, Unavailable
from bothends.events import Cause, Closed, Exited, Failed, Opened, Refused
from bothends.osutil import process_info
from bothends.services.base import Peer, nowhere
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import Echo

ENGINE = "bothends.engines.command:CommandEngine"
TCP = "tcp://127.0.0.1:0"
UNIX = "unix://{tmp}/socket"


def serving(text: str, endpoint: str = TCP, limits: Limits | None = None, *, shell: bool = False) -> Harness:
    return Harness(ENGINE, functools.partial(Command, text, shell=shell), [endpoint], limits)


def python(program: str) -> str:
    return shlex.join([sys.executable, "-c", program])


# What a command is given -----------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [TCP, "tcp://[::1]:0", UNIX])
def test_the_connection_is_its_input_and_its_output(endpoint: str) -> None:
    with serving("sort -r", endpoint) as running:
        with Client(running.endpoints[0]) as client:
            client.say(b"a\nc\nb\n")
            client.finish()
            assert client.hear_all() == b"c\nb\na\n"
        running.wait_event(Exited, lambda event: event.role == "command" and event.status == 0)
        running.wait_event(Closed, lambda event: event.cause is Cause.SERVICE)
        running.drain()
        assert running.wait_exit().faults() == []


def test_what_it_says_after_the_peers_end_is_not_cut() -> None:
    program = "import sys, time; sys.stdin.read(); time.sleep(0.2); sys.stdout.write('x' * 5_000_000)"
    with serving(python(program)) as running, Client(running.endpoints[0]) as client:
        client.finish()
        assert len(client.hear_all()) == 5_000_000


def test_the_peer_hears_of_its_end_at_once() -> None:
    with serving("echo hello") as running, Client(running.endpoints[0]) as client:
        assert client.hear_all() == b"hello\n"


def test_many_at_once() -> None:
    with serving("cat") as running:
        clients = [Client(running.endpoints[0]) for _ in range(10)]
        for number, client in enumerate(clients):
            assert client.ask(b"%d" % number) == b"%d" % number
        for client in clients:
            client.close()
        running.wait_for(lambda: not running.children())
        running.drain()
        assert running.wait_exit().faults() == []


def test_its_descriptors_are_the_connection_and_our_standard_error() -> None:
    program = "import os; print(*os.listdir('/proc/self/fd')); print(os.get_blocking(0), os.get_blocking(1))"
    with serving(python(program)) as running, Client(running.endpoints[0]) as client:
        # 3 is the listing's own.
        assert client.hear_all() == b"0 1 2 3\nTrue True\n"


def test_signals_are_as_in_a_fresh_process() -> None:
    # Not asked in Python, which ignores SIGPIPE itself; nor compared with nothing: we may inherit something.
    asking = ["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]
    fresh = subprocess.run(asking, stdout=subprocess.PIPE, check=True).stdout
    with serving(shlex.join(asking)) as running, Client(running.endpoints[0]) as client:
        assert client.hear_all() == fresh


def test_a_filter_whose_reader_leaves_is_ended() -> None:
    with serving("yes") as running:
        with Client(running.endpoints[0]) as client:
            assert client.hear(4) == b"y\ny\n"
        assert running.wait_event(Exited).status in (-signal.SIGPIPE, 1)  # 1: a reset comes before


def test_its_own_session() -> None:
    program = "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())"
    with serving(python(program)) as running, Client(running.endpoints[0]) as client:
        assert client.hear_all() == b"True\n"


# Its environment --------------------------------------------------------------------------------------


def heard_environment(running: Harness, client: Client) -> dict[str, str]:
    lines = client.hear_all().decode().splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def test_environment_over_ipv4() -> None:
    with serving("env") as running, Client(running.endpoints[0]) as client:
        port = str(running.endpoints[0].port)
        found = heard_environment(running, client)
        assert found["PROTO"] == "TCP"
        assert (found["TCPLOCALIP"], found["TCPLOCALPORT"]) == ("127.0.0.1", port)
        assert (found["TCPREMOTEIP"], found["TCPREMOTEPORT"]) == ("127.0.0.1", str(client.address.port))
        assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("127.0.0.1", str(client.address.port))
        assert (found["SERVER_ADDR"], found["SERVER_PORT"]) == ("127.0.0.1", port)
        assert found["PATH"] == os.environ["PATH"]


def test_environment_over_ipv6() -> None:
    with serving("env", "tcp://[::1]:0") as running, Client(running.endpoints[0]) as client:
        found = heard_environment(running, client)
        assert found["PROTO"] == "TCP6"
        assert found["TCP6REMOTEIP"] == found["TCPREMOTEIP"] == found["REMOTE_ADDR"] == "::1"
        assert found["TCP6LOCALPORT"] == found["TCPLOCALPORT"] == str(running.endpoints[0].port)


def test_environment_over_a_unix_socket() -> None:
    with serving("env", UNIX) as running, Client(running.endpoints[0]) as client:
        found = heard_environment(running, client)
        assert found["PROTO"] == "UNIX"
        assert found["UNIXLOCALPATH"] == running.endpoints[0].path
        assert found["UNIXREMOTEPID"] == str(os.getpid())
        assert (found["UNIXREMOTEEUID"], found["UNIXREMOTEEGID"]) == (str(os.geteuid()), str(os.getegid()))
        assert "REMOTE_ADDR" not in found


def test_what_describes_another_connection_is_not_passed_on() -> None:
    inherited = {
        "TCPREMOTEINFO": "x",
        "TCP6INTERFACE": "x",
        "UNIXREMOTEPID": "1",
        "LISTEN_FDS": "3",
        "HOME": "/h",
    }
    here, there = socket.socketpair()
    with here, there:
        peer = Peer(Address("inet", "10.0.0.1", 5), Address("inet", "10.0.0.2", 6))
        assert environment(inherited, here, peer) == {
            "HOME": "/h",
            "PROTO": "TCP",
            "TCPLOCALIP": "10.0.0.2",
            "TCPLOCALPORT": "6",
            "TCPREMOTEIP": "10.0.0.1",
            "TCPREMOTEPORT": "5",
            "REMOTE_ADDR": "10.0.0.1",
            "REMOTE_PORT": "5",
            "SERVER_ADDR": "10.0.0.2",
            "SERVER_PORT": "6",
        }
        scoped = Peer(Address("inet6", "fe80::1%eth0", 5), Address("inet6", "fe80::2%eth0", 6))
        found = environment({}, here, scoped)
        assert (found["TCP6REMOTEIP"], found["TCP6INTERFACE"]) == ("fe80::1", "eth0")
        host = Peer(Address("vsock", "2", 5), Address("vsock", "3", 6))
        assert environment({}, here, host)["PROTO"] == "VSOCK"


# Its command line ------------------------------------------------------------------------------------


def test_without_a_shell_nothing_is_a_pipe() -> None:
    with serving("echo a | cat '$HOME'") as running, Client(running.endpoints[0]) as client:
        assert client.hear_all() == b"a | cat $HOME\n"


def test_with_a_shell_everything_is() -> None:
    with serving("echo a | tr a b; cat >&2 <&-; exit 3", shell=True) as running:
        with Client(running.endpoints[0]) as client:
            assert client.hear_all() == b"b\n"
        assert running.wait_event(Exited).status == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [("echo 'x", "no closing quotation; quotes come in pairs"), ("  ", "no command"), ("''", "no command")],
)
def test_says_what_is_no_command(text: str, words: str) -> None:
    with pytest.raises(ServiceError, match=re.escape(words)):
        Command(text)


def test_says_at_once_which_program_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot run no-such-program: ENOENT") as caught:
        Command("no-such-program --help")
    assert caught.value.exit_status == 69
    with pytest.raises(Unavailable, match="need a shell"):
        Command("no-such-program | sort")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(Unavailable, match=r"EACCES .*make it executable"):
        Command(str(script))


def test_what_cannot_be_executed_after_all_fails_for_each_connection(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with serving(str(script)) as running:
        for number in (1, 2):
            with Client(running.endpoints[0]) as client:
                assert client.hear_end() == b""
            failed = running.wait_event(Failed, lambda event, number=number: event.connection == number)  # type: ignore[misc]
            assert isinstance(failed.error, FileNotFoundError)
            closed = running.wait_event(Closed, lambda event, number=number: event.connection == number)  # type: ignore[misc]
            assert closed.cause is Cause.FAILED
        running.drain()
        assert running.wait_exit().faults() == []


# Limits and leaving ----------------------------------------------------------------------------------


def test_the_limit_counts_commands() -> None:
    with (
        serving("cat", limits=Limits(connections=1, when_full="refuse")) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.ask(b"x") == b"x"
        assert second.hear_end() == b""
        running.wait_event(Refused)


def test_draining_lets_a_command_finish() -> None:
    with serving("cat") as running, Client(running.endpoints[0]) as client:
        assert client.ask(b"x") == b"x"
        running.drain()
        running.wait_for(lambda: is_refused(running))
        assert client.ask(b"y") == b"y"
        client.finish()
        assert client.hear_all() == b""
        assert running.wait_exit().faults() == []
    assert running.seen(Closed)[0].cause is Cause.SERVICE


def is_refused(running: Harness) -> bool:
    try:
        Client(running.endpoints[0]).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the queue was closed over us
        pass
    return False


def test_at_the_deadline_all_that_a_command_has_started_is_ended() -> None:
    text = "sleep 1000 & sleep 1000 | sleep 1000; echo never"
    with (
        serving(text, limits=Limits(drain=0.1), shell=True) as running,
        Client(running.endpoints[0]) as client,
    ):
        running.wait_for(lambda: len(running.children()) == 4)
        started = [each.pid for each in running.children()]
        running.drain()
        assert client.hear_end() == b""
        assert running.wait_exit().faults() == []
        running.wait_for(lambda: not any(is_alive(pid) for pid in started))
    assert running.seen(Exited)[0].status == -signal.SIGTERM
    assert running.seen(Closed)[0].cause is Cause.ABORTED


def is_alive(pid: int) -> bool:
    now = process_info.look(pid)
    return now is not None and not now.is_zombie


def test_who_ignores_the_first_signal_gets_the_last() -> None:
    text = python(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"
    )
    with serving(text, limits=Limits(drain=0)) as running, Client(running.endpoints[0]) as client:
        assert client.hear(2) == b"1\n"
        running.drain()
        assert client.hear_end() == b""
        assert running.wait_exit().faults() == []
    assert running.seen(Exited)[0].status == -signal.SIGKILL


def test_aborting_does_not_wait() -> None:
    with serving("cat", limits=Limits(drain=1000)) as running, Client(running.endpoints[0]) as client:
        assert client.ask(b"x") == b"x"
        running.abort()
        assert client.hear_end() == b""
        assert running.wait_exit().faults() == []


def test_a_ready_made_connection_ends_the_run() -> None:
    here, there = socket.socketpair()
    program = (
        "import sys; from bothends.endpoints import Endpoint; from bothends.engines.base import Job;"
        "from bothends.engines.command import Command, CommandEngine;"
        "from bothends.engines.shutdown import Stop;"
        "from bothends.sockets import open_listeners;"
        "CommandEngine(Job(Command('tr a b'), open_listeners(Endpoint.parse(sys.argv[1])), Stop())).run()"
    )
    with here, there:
        os.set_blocking(there.fileno(), False)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", program, "fd://9"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, there.fileno(), 9)],
        )
        there.close()
        here.settimeout(20)
        here.sendall(b"banana")
        here.shutdown(socket.SHUT_WR)
        heard = b""
        while data := here.recv(100):
            heard += data
        assert heard == b"bbnbnb"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# What it refuses -------------------------------------------------------------------------------------


def test_says_why_it_cannot_carry_an_endpoint() -> None:
    refusal = CommandEngine.refusal(Command("cat"), Endpoint.parse("udp://:0"))
    assert "datagrams have none" in str(refusal)
    for url in (TCP, "tls://:0", "proxyprotocol+tls://:0"):
        assert CommandEngine.refusal(Command("cat"), Endpoint.parse(url)) is None


def test_carries_commands_only_and_nobody_else_carries_them() -> None:
    assert "it runs commands only" in str(CommandEngine.refusal(Echo(), Endpoint.parse(TCP)))
    stop = Stop()
    with pytest.raises(CannotCarry, match="it runs commands only"):
        CommandEngine(Job(Echo(), [], stop))
    stop.close()
    address = Address("inet", "127.0.0.1", 1)
    with pytest.raises(CannotCarry, match="only CommandEngine can"):
        Command("cat").open(Peer(address, address), nowhere)


def test_events_tell_who_came() -> None:
    with serving("true") as running:
        with Client(running.endpoints[0]) as client, contextlib.suppress(ConnectionError):
            client.hear_end()
        running.wait_event(Closed)
        assert [event.peer for event in running.seen(Opened)] == [client.address]
