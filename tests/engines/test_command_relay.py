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
from bothends.engines.command import CommandService
from bothends.events import (
    Accepted,
    ChildExited,
    Closed,
    CloseReason,
    HandshakeCompleted,
    PeerEof,
    Received,
    Sent,
    ServiceFailed,
)
from bothends.layers import TlsSettings, encode_header
from bothends.osutil import process_info
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.tls_client import TlsClient, insecure_context

ENGINE = "bothends.engines.command:CommandEngine"
TLS = "tls://127.0.0.1:0"
PROXY = "proxyprotocol+tcp://127.0.0.1:0"
PROXIED_ADDRESSES = (Address("inet6", "2001:db8::9", 56324), Address("inet6", "2001:db8::1", 443))


def start_command(
    text: str, endpoint: str = TLS, limits: Limits | None = None, *, shell: bool = False, observe: bool = True
) -> Harness:
    tls = TlsSettings(self_signed=True)
    service = functools.partial(CommandService, text, shell=shell)
    return Harness(ENGINE, service, [endpoint], limits, observe=observe, tls=tls)


def python(program: str) -> str:
    return shlex.join([sys.executable, "-S", "-c", program])


def check_clean_exit(running: Harness) -> None:
    """Drain, and check that no resource is left open and nothing was printed."""
    running.drain()
    assert running.wait_exit().problems() == []


def is_alive(pid: int) -> bool:
    now = process_info.read_process(pid)
    return now is not None and not now.is_zombie


def command_pid(running: Harness) -> int:
    """Return the pid of the command, which is the child of the relay."""
    running.wait_for(lambda: len(running.children()) == 2)
    return running.children()[1].pid


# Exchange ----------------------------------------------------------------------------------------------


def test_tls_half_close_reaches_command() -> None:
    with start_command("sort -n") as running:
        with TlsClient(running.endpoints[0]) as client:
            client.send(b"10\n9\n100\n")
            client.shutdown_write()
            assert client.receive_until_eof() == b"9\n10\n100\n"
        running.wait_event(ChildExited, lambda event: event.role == "command" and event.status == 0)
        assert running.wait_event(HandshakeCompleted).agreed == "TLS 1.3, SNI localhost"
        assert running.events_of(Received)[0].data == b"10\n9\n100\n"
        assert running.events_of(PeerEof)
        assert running.events_of(Sent)[0].data == b"9\n10\n100\n"
        assert [each.cause for each in running.events_of(Closed)] == [CloseReason.PEER]
        check_clean_exit(running)


def test_tls_megabyte_echo() -> None:
    data = os.urandom(1 << 20)
    with start_command("cat", observe=False) as running:
        with TlsClient(running.endpoints[0]) as client:
            client.send(data)
            client.shutdown_write()
            assert client.receive_until_eof() == data
        check_clean_exit(running)


def test_command_exit_closes_tls_connection() -> None:
    with start_command("echo hello; exit 3", shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            assert client.receive_until_eof() == b"hello\n"
        assert running.wait_event(Closed).cause is CloseReason.SERVICE
        assert running.wait_event(ChildExited).status == 3
        check_clean_exit(running)


def test_proxy_header_sets_environment() -> None:
    with start_command("printenv PROTO REMOTE_ADDR REMOTE_PORT SERVER_ADDR TCPLOCALPORT", PROXY) as running:
        with Client(running.endpoints[0]) as client:
            client.send(encode_header(2, *PROXIED_ADDRESSES))
            assert client.receive_until_eof() == b"TCP6\n2001:db8::9\n56324\n2001:db8::1\n443\n"
        assert running.wait_event(Closed).peer == PROXIED_ADDRESSES[0]
        check_clean_exit(running)


def test_half_close_with_proxy_header() -> None:
    with start_command("sort -n", PROXY) as running:
        with Client(running.endpoints[0]) as client:
            client.send(encode_header(1, *PROXIED_ADDRESSES) + b"2\n1")
            client.shutdown_write()
            assert client.receive_until_eof() == b"1\n2\n"
        check_clean_exit(running)


def test_tls_1_2_half_close_is_reported() -> None:
    with start_command("sort -n") as running:
        with TlsClient(running.endpoints[0], insecure_context(ssl.TLSVersion.TLSv1_2)) as client:
            client.send(b"2\n1\n")
            client.shutdown_write()
            assert client.receive_until_eof() == b""
        assert "output could not be sent" in str(running.wait_event(ServiceFailed).error)
        check_clean_exit(running)


def test_handshake_timeout_starts_no_command(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with start_command(f"touch {ran}", limits=Limits(handshake=0.2)) as running:
        with Client(running.endpoints[0]) as client:
            client.send(b"\x16\x03\x01")
            assert client.receive_until_closed() == b""
        assert running.wait_event(Closed).cause is CloseReason.HANDSHAKE
        check_clean_exit(running)
    assert not ran.exists()


def test_exec_failure_is_reported_per_connection(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with start_command(str(script)) as running:
        with TlsClient(running.endpoints[0]) as client:
            assert client.receive_until_eof() == b""
        assert isinstance(running.wait_event(ServiceFailed).error, FileNotFoundError)
        assert running.wait_event(Closed).cause is CloseReason.FAILED
        check_clean_exit(running)


# Backpressure ------------------------------------------------------------------------------------------


def test_command_that_never_reads_pauses_peer() -> None:
    with start_command("echo begun; sleep 1000", PROXY, shell=True) as running:
        with Client(running.endpoints[0], sndbuf=8192) as client:
            client.send(encode_header(1, *PROXIED_ADDRESSES))
            assert client.receive_exactly(6) == b"begun\n"
            taken = client.send_until_blocked(bytes(32_000_000), timeout=0.3)
            assert taken < 8_000_000
            # The relay blocks until the pipe is writable.
            assert running.cpu_used(0.3, limit=0.15) <= 0.15
        running.abort()
        assert running.wait_exit().problems() == []


def test_peer_that_never_reads_pauses_command() -> None:
    program = "import os\nfor size in range(2000): os.write(1, bytes(65536)); os.write(2, b'.')"
    with (
        start_command(python(program), PROXY) as running,
        Client(running.endpoints[0], rcvbuf=8192) as client,
    ):
        client.send(encode_header(1, *PROXIED_ADDRESSES))
        assert client.receive_exactly(1) == b"\0"
        before = -1
        while before != (now := len(running.output())):  # each dot is a piece that the command has written
            before = now
            assert not client.is_hung_up(0.2)
        assert now < 400
        assert running.cpu_used(0.3, limit=0.15) <= 0.15
        running.abort()
        assert [each for each in running.wait_exit().problems() if "printed" not in each] == []


def test_output_after_command_closes_stdin() -> None:
    with start_command("exec <&-; sed -n 1p /etc/passwd; echo over", shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            client.send(bytes(300_000))
            assert client.receive_until_eof().endswith(b"over\n")
        check_clean_exit(running)


# Ends --------------------------------------------------------------------------------------------------


def test_peer_close_ends_writing_command() -> None:
    with start_command("yes", PROXY) as running:
        with Client(running.endpoints[0]) as client:
            client.send(encode_header(1, *PROXIED_ADDRESSES))
            assert client.receive_exactly(4) == b"y\ny\n"
        assert running.wait_event(Closed).cause is CloseReason.RESET
        assert running.wait_event(ChildExited).status in (128 + signal.SIGTERM, 128 + signal.SIGPIPE)
        check_clean_exit(running)


def test_truncated_input_terminates_command(tmp_path: Path) -> None:
    done = tmp_path / "done"
    with start_command(f"cat; touch {done}", shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            client.send(b"half")
            assert client.receive_exactly(4) == b"half"
            client.socket.shutdown(socket.SHUT_WR)  # no close_notify
            client.wait_until(lambda: client.tls.close_notify_received)
        assert "without close_notify" in str(running.wait_event(ServiceFailed).error)
        assert running.wait_event(ChildExited).status == 128 + signal.SIGTERM
        check_clean_exit(running)
    assert not done.exists()


@pytest.mark.parametrize(
    ("limits", "cause"), [(Limits(idle=0.2), CloseReason.IDLE), (Limits(life=0.2), CloseReason.LIFE)]
)
def test_time_limit_terminates_command(limits: Limits, cause: CloseReason) -> None:
    with start_command("echo x; sleep 1000 | sleep 1000", limits=limits, shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            assert client.receive_until_eof() == b"x\n"  # followed by close_notify
        assert running.wait_event(Closed).cause is cause
        assert running.wait_event(ChildExited).status == 128 + signal.SIGTERM
        running.wait_for(lambda: not running.children())
        check_clean_exit(running)


def test_drain_waits_for_command() -> None:
    with start_command("cat") as running, TlsClient(running.endpoints[0]) as client:
        client.send(b"x")
        assert client.receive_exactly(1) == b"x"
        running.drain()
        client.send(b"y")
        assert client.receive_exactly(2) == b"xy"
        client.shutdown_write()
        assert client.receive_until_eof() == b"xy"
        assert running.wait_exit().problems() == []
        assert running.events_of(Closed)[0].cause is CloseReason.PEER


@pytest.mark.parametrize("cause", ["deadline", "abort"])
def test_drain_timeout_or_abort_kills_process_group(cause: str) -> None:
    text = "sleep 1000 & sleep 1000 | sleep 1000; echo never"
    with start_command(text, limits=Limits(drain=0.1), shell=True) as running:
        with TlsClient(running.endpoints[0]) as client:
            running.wait_for(lambda: len(running.children()) == 5)
            started = [each.pid for each in running.children()]
            running.drain() if cause == "deadline" else running.abort()
            assert running.wait_exit().problems() == []
            running.wait_for(lambda: not any(is_alive(pid) for pid in started))
            assert client.received == b""
        # On a busy machine the end of the killed command can be seen before the connection is cut off.
        assert running.events_of(Closed)[0].cause in (CloseReason.ABORTED, CloseReason.SERVICE)
        assert running.events_of(ChildExited)[0].status == 128 + signal.SIGTERM


def test_command_ignoring_sigterm_is_killed() -> None:
    text = python(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"
    )
    with start_command(text) as running, TlsClient(running.endpoints[0]) as client:
        assert client.receive_exactly(2) == b"1\n"
        command = command_pid(running)
        running.abort()
        assert running.wait_exit().problems() == []
        running.wait_for(lambda: not is_alive(command))
        assert running.events_of(ChildExited)[0].status == -signal.SIGKILL


def test_killed_command_ends_one_connection() -> None:
    with start_command("cat") as running:
        with TlsClient(running.endpoints[0]) as client:
            client.send(b"x")
            assert client.receive_exactly(1) == b"x"
            with TlsClient(running.endpoints[0]) as other:
                other.send(b"y")
                assert other.receive_exactly(1) == b"y"
                first = running.events_of(Accepted, lambda event: event.peer == client.address)
                assert first
                relay = running.children()[0].pid  # the oldest one; process ids may have wrapped around
                command = next(each.pid for each in process_info.process_tree(relay)[1:])
                os.kill(command, signal.SIGKILL)
                assert client.receive_until_eof() == b"x"
                other.send(b"z")
                assert other.receive_exactly(2) == b"yz"
        running.wait_event(ChildExited, lambda event: event.status == 128 + signal.SIGKILL)
        check_clean_exit(running)


def test_killed_relay_ends_connection_and_command() -> None:
    with start_command("cat", PROXY) as running:
        with Client(running.endpoints[0]) as client:
            client.send(encode_header(1, *PROXIED_ADDRESSES))
            assert client.request(b"x") == b"x"
            command = command_pid(running)
            os.kill(running.children()[0].pid, signal.SIGKILL)
            assert client.receive_until_closed() == b""
        running.wait_event(ChildExited, lambda event: event.status == -signal.SIGKILL)
        running.wait_for(lambda: not is_alive(command))
        check_clean_exit(running)
