"""open_connection: the order of attempts, timeouts, source addresses and error texts."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, SystemCallFailed, TimeoutExpired
from bothends.sockets import open_connection
from tests.sockets.tools import FakeResolver, listening, needs_vsock

FAKE_HOST = Endpoint.parse("tcp://somewhere:1")
UNASSIGNED_ADDRESS = "203.0.113.1"  # for documentation (RFC 5737): no host has it


@contextlib.contextmanager
def unresponsive_address() -> Iterator[tuple[str, int]]:
    """An address that drops every SYN: its accept queue is full (a backlog of 0 has room for one)."""
    with socket.socket() as sock, socket.socket() as filler:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        filler.connect(sock.getsockname())
        yield sock.getsockname()


@contextlib.contextmanager
def refusing_address() -> Iterator[tuple[str, int]]:
    """A bound address without a listener: connecting is refused, and no other socket can get the port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


def test_connection_is_blocking_and_not_inheritable() -> None:
    with listening("tcp://127.0.0.1:0") as listener, open_connection(listener.endpoint, timeout=5) as sock:
        assert sock.gettimeout() is None
        assert not os.get_inheritable(sock.fileno())
        assert sock.getpeername() == listener.socket.getsockname()


def test_connect_empty_host_uses_loopback() -> None:
    with listening("tcp://127.0.0.1:0") as listener, open_connection(listener.endpoint.with_host("")) as sock:
        assert sock.getpeername() == listener.socket.getsockname()


def test_happy_eyeballs_refused_attempt_starts_next_immediately() -> None:
    with refusing_address() as refusing, listening("tcp://127.0.0.1:0") as listener:
        resolver = FakeResolver(refusing, listener.socket.getsockname())
        # A delay of a minute would exceed the timeout of this test.
        with open_connection(FAKE_HOST, resolver=resolver, attempt_delay=60) as sock:
            assert sock.getpeername() == listener.socket.getsockname()


def test_happy_eyeballs_failure_starts_next_while_another_is_under_way() -> None:
    """RFC 8305, section 5: the second attempt fails while the first is under way."""
    with (
        unresponsive_address() as first,
        refusing_address() as refusing,
        listening("tcp://127.0.0.1:0") as listener,
    ):
        resolver = FakeResolver(first, refusing, refusing, listener.socket.getsockname())
        # After another delay it would be too late.
        with open_connection(FAKE_HOST, resolver=resolver, attempt_delay=0.8, timeout=1.5) as sock:
            assert sock.getpeername() == listener.socket.getsockname()


def test_happy_eyeballs_next_attempt_after_delay() -> None:
    with unresponsive_address() as first, listening("tcp://127.0.0.1:0") as listener:
        resolver = FakeResolver(first, listener.socket.getsockname())
        began = time.monotonic()
        with open_connection(FAKE_HOST, resolver=resolver, attempt_delay=0.02) as sock:
            assert time.monotonic() - began >= 0.02
            assert sock.getpeername() == listener.socket.getsockname()


def test_happy_eyeballs_first_connected_wins_over_pending() -> None:
    with (
        unresponsive_address() as first,
        refusing_address() as refusing,
        listening("tcp://127.0.0.1:0") as listener,
    ):
        resolver = FakeResolver(first, refusing, refusing, listener.socket.getsockname())
        with open_connection(FAKE_HOST, resolver=resolver, attempt_delay=0.01, timeout=30) as sock:
            assert sock.getpeername() == listener.socket.getsockname()


def test_connect_times_out() -> None:
    with unresponsive_address() as address, pytest.raises(TimeoutExpired) as caught:
        open_connection(FAKE_HOST, resolver=FakeResolver(address), timeout=0.02)
    error = caught.value
    assert (error.target, error.operation, error.seconds) == ("tcp://somewhere:1", "connecting", 0.02)
    assert caught.value.exit_status == 124


def test_connect_timeout_lists_attempts() -> None:
    with (
        refusing_address() as refusing,
        unresponsive_address() as address,
        pytest.raises(TimeoutExpired, match=r"tried 127\.0\.0\.1 \(ECONNREFUSED .*\(no answer\)"),
    ):
        open_connection(FAKE_HOST, resolver=FakeResolver(refusing, address), timeout=0.02)


def test_connect_single_address_refused() -> None:
    with refusing_address() as refusing, pytest.raises(SystemCallFailed) as caught:
        open_connection(Endpoint.parse(f"tcp://127.0.0.1:{refusing[1]}"))
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.hint == "nothing is listening there"
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_connect_all_failed_reports_highest_priority_errno_and_all_addresses() -> None:
    with refusing_address() as refusing, pytest.raises(SystemCallFailed) as caught:
        # TCP cannot connect to a multicast address: ENETUNREACH, or EINVAL.
        open_connection(FAKE_HOST, resolver=FakeResolver(("224.0.0.1", 1), refusing))
    assert caught.value.errno == errno.ECONNREFUSED
    assert "tried 224.0.0.1 (" in caught.value.hint
    assert "127.0.0.1 (ECONNREFUSED (Connection refused))" in caught.value.hint
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert len(caught.value.__cause__.exceptions) == 2


def test_connect_all_failed_with_same_errno_is_summarized() -> None:
    with refusing_address() as one, refusing_address() as other, pytest.raises(SystemCallFailed) as caught:
        open_connection(FAKE_HOST, resolver=FakeResolver(one, other))
    assert caught.value.hint == "nothing is listening there; tried 127.0.0.1, 127.0.0.1"


def test_connect_self_connection_is_refused() -> None:
    with refusing_address() as refusing:
        port = refusing[1]
    with pytest.raises(SystemCallFailed) as caught:
        open_connection(Endpoint.parse(f"tcp://127.0.0.1:{port}"), source=("127.0.0.1", port))
    assert caught.value.errno == errno.ECONNREFUSED


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_connect_source_address(scheme: str) -> None:
    with (
        listening(f"{scheme}://127.0.0.1:0") as listener,
        open_connection(listener.endpoint, source=("127.0.0.2", 0)) as sock,
    ):
        assert sock.getsockname()[0] == "127.0.0.2"
        assert sock.getsockname()[1] != 0


def test_connect_source_port() -> None:
    with refusing_address() as free:
        port = free[1]
    with (
        listening("tcp://127.0.0.1:0") as listener,
        open_connection(listener.endpoint, source=("", port)) as sock,
    ):
        assert sock.getsockname()[1] == port


def test_connect_source_address_not_local_raises() -> None:
    with listening("tcp://127.0.0.1:0") as listener, pytest.raises(SystemCallFailed) as caught:
        open_connection(listener.endpoint, source=(UNASSIGNED_ADDRESS, 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_connect_source_of_other_family_raises() -> None:
    with pytest.raises(EndpointError, match="no address of the same family as the source ::1"):
        open_connection(Endpoint.parse("tcp://127.0.0.1:1"), source=("::1", 0))


def test_connect_udp_sends_nothing_and_uses_first_routable_address() -> None:
    with listening("udp://127.0.0.1:0") as listener:
        resolver = FakeResolver(("127.255.255.255", 1), listener.socket.getsockname())
        # A broadcast address needs ?broadcast=1: connect fails with EACCES, and the next address is tried.
        with open_connection(Endpoint.parse("udp://somewhere:1"), resolver=resolver) as sock:
            assert sock.getpeername() == listener.socket.getsockname()
        listener.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.socket.recv(1)
    with open_connection(Endpoint.parse("udp://127.255.255.255:9?broadcast=1")) as sock:
        assert sock.getpeername()[0] == "127.255.255.255"


@pytest.mark.parametrize("scheme", ["unix", "unix+seqpacket", "unix+dgram"])
def test_connect_timeout_does_not_limit_later_sends(scheme: str, tmp_path: Path) -> None:
    with (
        listening(f"{scheme}://{tmp_path}/socket") as listener,
        open_connection(listener.endpoint, timeout=5) as sock,
    ):
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            assert sock.getsockopt(socket.SOL_SOCKET, option, 16) == bytes(16)


def test_connect_stdio_raises() -> None:
    with pytest.raises(EndpointError, match="it cannot be connected to"):
        open_connection(Endpoint.parse("stdio:"))


@needs_vsock
def test_connect_vsock_without_listener_fails() -> None:
    # Without a loopback transport there is no reply; with one the connection is refused.
    with pytest.raises((SystemCallFailed, TimeoutExpired)):
        open_connection(Endpoint.parse("vsock://:4294967294"), timeout=0.02)
