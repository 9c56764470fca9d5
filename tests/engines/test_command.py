"""`engines/command.py`: a command for each connection, as with inetd."""

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
from bothends.engines.base import EngineContext, Limits
from bothends.engines.command import CommandEngine, CommandService, connection_environment
from bothends.engines.shutdown import ShutdownFlags
from bothends.errors import ServiceError, Unavailable, UnsupportedCombination
from bothends.events import Accepted, ChildExited, Closed, CloseReason, ConnectionRejected, ServiceFailed
from bothends.osutil import process_info
from bothends.services.base import Peer, discard_push
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import EchoService

ENGINE = "bothends.engines.command:CommandEngine"
TCP = "tcp://127.0.0.1:0"
UNIX = "unix://{tmp}/socket"


def start_command(
    text: str, endpoint: str = TCP, limits: Limits | None = None, *, shell: bool = False
) -> Harness:
    return Harness(ENGINE, functools.partial(CommandService, text, shell=shell), [endpoint], limits)


def python(program: str) -> str:
    return shlex.join([sys.executable, "-c", program])


# Standard input and output -------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [TCP, "tcp://[::1]:0", UNIX])
def test_connection_is_stdin_and_stdout(endpoint: str) -> None:
    with start_command("sort -r", endpoint) as running:
        with Client(running.endpoints[0]) as client:
            client.send(b"a\nc\nb\n")
            client.shutdown_write()
            assert client.receive_until_eof() == b"c\nb\na\n"
        running.wait_event(ChildExited, lambda event: event.role == "command" and event.status == 0)
        running.wait_event(Closed, lambda event: event.cause is CloseReason.SERVICE)
        running.drain()
        assert running.wait_exit().problems() == []


def test_output_after_peer_eof_is_sent() -> None:
    program = "import sys, time; sys.stdin.read(); time.sleep(0.2); sys.stdout.write('x' * 5_000_000)"
    with start_command(python(program)) as running, Client(running.endpoints[0]) as client:
        client.shutdown_write()
        assert len(client.receive_until_eof()) == 5_000_000


def test_command_exit_closes_connection() -> None:
    with start_command("echo hello") as running, Client(running.endpoints[0]) as client:
        assert client.receive_until_eof() == b"hello\n"


def test_concurrent_commands() -> None:
    with start_command("cat") as running:
        clients = [Client(running.endpoints[0]) for _ in range(10)]
        for number, client in enumerate(clients):
            assert client.request(b"%d" % number) == b"%d" % number
        for client in clients:
            client.close()
        running.wait_for(lambda: not running.children())
        running.drain()
        assert running.wait_exit().problems() == []


def test_command_inherits_only_stdio() -> None:
    program = "import os; print(*os.listdir('/proc/self/fd')); print(os.get_blocking(0), os.get_blocking(1))"
    with start_command(python(program)) as running, Client(running.endpoints[0]) as client:
        # 3 is the descriptor of os.listdir().
        assert client.receive_until_eof() == b"0 1 2 3\nTrue True\n"


def test_command_signal_dispositions_are_default() -> None:
    # Not in Python, which ignores SIGPIPE itself. Compared with a command that this process starts, because
    # it may have inherited ignored signals.
    command = ["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]
    expected = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    with start_command(shlex.join(command)) as running, Client(running.endpoints[0]) as client:
        assert client.receive_until_eof() == expected


def test_peer_close_ends_command_with_sigpipe() -> None:
    with start_command("yes") as running:
        with Client(running.endpoints[0]) as client:
            assert client.receive_exactly(4) == b"y\ny\n"
        assert running.wait_event(ChildExited).status in (
            -signal.SIGPIPE,
            1,
        )  # 1: write() fails with ECONNRESET


def test_command_leads_own_session() -> None:
    program = "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())"
    with start_command(python(program)) as running, Client(running.endpoints[0]) as client:
        assert client.receive_until_eof() == b"True\n"


# Environment -----------------------------------------------------------------------------------------


def receive_environment(running: Harness, client: Client) -> dict[str, str]:
    lines = client.receive_until_eof().decode().splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def test_environment_over_ipv4() -> None:
    with start_command("env") as running, Client(running.endpoints[0]) as client:
        port = str(running.endpoints[0].port)
        found = receive_environment(running, client)
        assert found["PROTO"] == "TCP"
        assert (found["TCPLOCALIP"], found["TCPLOCALPORT"]) == ("127.0.0.1", port)
        assert (found["TCPREMOTEIP"], found["TCPREMOTEPORT"]) == ("127.0.0.1", str(client.address.port))
        assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("127.0.0.1", str(client.address.port))
        assert (found["SERVER_ADDR"], found["SERVER_PORT"]) == ("127.0.0.1", port)
        assert found["PATH"] == os.environ["PATH"]


def test_environment_over_ipv6() -> None:
    with start_command("env", "tcp://[::1]:0") as running, Client(running.endpoints[0]) as client:
        found = receive_environment(running, client)
        assert found["PROTO"] == "TCP6"
        assert found["TCP6REMOTEIP"] == found["TCPREMOTEIP"] == found["REMOTE_ADDR"] == "::1"
        assert found["TCP6LOCALPORT"] == found["TCPLOCALPORT"] == str(running.endpoints[0].port)


def test_environment_over_a_unix_socket() -> None:
    with start_command("env", UNIX) as running, Client(running.endpoints[0]) as client:
        found = receive_environment(running, client)
        assert found["PROTO"] == "UNIX"
        assert found["UNIXLOCALPATH"] == running.endpoints[0].path
        assert found["UNIXREMOTEPID"] == str(os.getpid())
        assert (found["UNIXREMOTEEUID"], found["UNIXREMOTEEGID"]) == (str(os.geteuid()), str(os.getegid()))
        assert "REMOTE_ADDR" not in found


def test_environment_drops_inherited_connection_variables() -> None:
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
        assert connection_environment(inherited, here, peer) == {
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
        found = connection_environment({}, here, scoped)
        assert (found["TCP6REMOTEIP"], found["TCP6INTERFACE"]) == ("fe80::1", "eth0")
        host = Peer(Address("vsock", "2", 5), Address("vsock", "3", 6))
        assert connection_environment({}, here, host)["PROTO"] == "VSOCK"


# Command line ----------------------------------------------------------------------------------------


def test_without_shell_pipe_is_literal() -> None:
    with start_command("echo a | cat '$HOME'") as running, Client(running.endpoints[0]) as client:
        assert client.receive_until_eof() == b"a | cat $HOME\n"


def test_with_shell_pipe_works() -> None:
    with start_command("echo a | tr a b; cat >&2 <&-; exit 3", shell=True) as running:
        with Client(running.endpoints[0]) as client:
            assert client.receive_until_eof() == b"b\n"
        assert running.wait_event(ChildExited).status == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [("echo 'x", "no closing quotation; close the quote"), ("  ", "no command"), ("''", "no command")],
)
def test_invalid_command_line_is_rejected(text: str, words: str) -> None:
    with pytest.raises(ServiceError, match=re.escape(words)):
        CommandService(text)


def test_missing_program_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot run no-such-program: ENOENT") as caught:
        CommandService("no-such-program --help")
    assert caught.value.exit_status == 69
    with pytest.raises(Unavailable, match="need a shell"):
        CommandService("no-such-program | sort")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(Unavailable, match=r"EACCES .*make it executable"):
        CommandService(str(script))


def test_exec_failure_is_reported_per_connection(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with start_command(str(script)) as running:
        for number in (1, 2):
            with Client(running.endpoints[0]) as client:
                assert client.receive_until_closed() == b""
            failed = running.wait_event(
                ServiceFailed,
                lambda event, number=number: event.connection == number,  # type: ignore[misc]
            )
            assert isinstance(failed.error, FileNotFoundError)
            closed = running.wait_event(Closed, lambda event, number=number: event.connection == number)  # type: ignore[misc]
            assert closed.cause is CloseReason.FAILED
        running.drain()
        assert running.wait_exit().problems() == []


# Limits and shutdown ---------------------------------------------------------------------------------


def test_connection_limit_counts_commands() -> None:
    with (
        start_command("cat", limits=Limits(connections=1, when_full="refuse")) as running,
        Client(running.endpoints[0]) as first,
        Client(running.endpoints[0]) as second,
    ):
        assert first.request(b"x") == b"x"
        assert second.receive_until_closed() == b""
        running.wait_event(ConnectionRejected)


def test_drain_waits_for_command() -> None:
    with start_command("cat") as running, Client(running.endpoints[0]) as client:
        assert client.request(b"x") == b"x"
        running.drain()
        running.wait_for(lambda: is_refused(running))
        assert client.request(b"y") == b"y"
        client.shutdown_write()
        assert client.receive_until_eof() == b""
        assert running.wait_exit().problems() == []
    assert running.events_of(Closed)[0].cause is CloseReason.SERVICE


def is_refused(running: Harness) -> bool:
    try:
        Client(running.endpoints[0]).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the listener was closed while the connection was in its queue
        pass
    return False


def test_drain_timeout_kills_process_group() -> None:
    text = "sleep 1000 & sleep 1000 | sleep 1000; echo never"
    with (
        start_command(text, limits=Limits(drain=0.1), shell=True) as running,
        Client(running.endpoints[0]) as client,
    ):
        running.wait_for(lambda: len(running.children()) == 4)
        started = [each.pid for each in running.children()]
        running.drain()
        assert client.receive_until_closed() == b""
        assert running.wait_exit().problems() == []
        running.wait_for(lambda: not any(is_alive(pid) for pid in started))
    assert running.events_of(ChildExited)[0].status == -signal.SIGTERM
    assert running.events_of(Closed)[0].cause is CloseReason.ABORTED


def is_alive(pid: int) -> bool:
    now = process_info.read_process(pid)
    return now is not None and not now.is_zombie


def test_command_ignoring_sigterm_is_killed() -> None:
    text = python(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"
    )
    with start_command(text, limits=Limits(drain=0)) as running, Client(running.endpoints[0]) as client:
        assert client.receive_exactly(2) == b"1\n"
        running.drain()
        assert client.receive_until_closed() == b""
        assert running.wait_exit().problems() == []
    assert running.events_of(ChildExited)[0].status == -signal.SIGKILL


def test_abort_does_not_wait_for_drain() -> None:
    with start_command("cat", limits=Limits(drain=1000)) as running, Client(running.endpoints[0]) as client:
        assert client.request(b"x") == b"x"
        running.abort()
        assert client.receive_until_closed() == b""
        assert running.wait_exit().problems() == []


def test_inherited_connection_ends_run() -> None:
    here, there = socket.socketpair()
    program = (
        "import sys; from bothends.endpoints import Endpoint;"
        "from bothends.engines.base import EngineContext;"
        "from bothends.engines.command import CommandEngine, CommandService;"
        "from bothends.engines.shutdown import ShutdownFlags;"
        "from bothends.sockets import open_listeners;"
        "listeners = open_listeners(Endpoint.parse(sys.argv[1]));"
        "CommandEngine(EngineContext(CommandService('tr a b'), listeners, ShutdownFlags())).run()"
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
        received = b""
        while data := here.recv(100):
            received += data
        assert received == b"bbnbnb"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Unsupported combinations ----------------------------------------------------------------------------


def test_unsupported_endpoint_has_reason() -> None:
    unsupported = CommandEngine.unsupported_reason(CommandService("cat"), Endpoint.parse("udp://:0"))
    assert "datagrams have none" in str(unsupported)
    for url in (TCP, "tls://:0", "proxyprotocol+tls://:0"):
        assert CommandEngine.unsupported_reason(CommandService("cat"), Endpoint.parse(url)) is None


def test_only_command_engine_runs_commands() -> None:
    assert "it only runs commands" in str(
        CommandEngine.unsupported_reason(EchoService(), Endpoint.parse(TCP))
    )
    stop = ShutdownFlags()
    with pytest.raises(UnsupportedCombination, match="it only runs commands"):
        CommandEngine(EngineContext(EchoService(), [], stop))
    stop.close()
    address = Address("inet", "127.0.0.1", 1)
    with pytest.raises(UnsupportedCombination, match="only CommandEngine can"):
        CommandService("cat").open(Peer(address, address), discard_push)


def test_events_report_peer() -> None:
    with start_command("true") as running:
        with Client(running.endpoints[0]) as client, contextlib.suppress(ConnectionError):
            client.receive_until_closed()
        running.wait_event(Closed)
        assert [event.peer for event in running.events_of(Accepted)] == [client.address]
