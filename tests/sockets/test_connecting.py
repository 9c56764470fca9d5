"""Connections: which address wins, how long it may take, and what is said when none answers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, SystemRefused, TimeLimit
from bothends.sockets import open_connection
from tests.sockets.tools import Names, listening, needs_vsock

SOMEWHERE = Endpoint.parse("tcp://somewhere:1")
NOBODY = "203.0.113.1"  # for documentation (RFC 5737): nobody has it


@contextlib.contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address that drops every SYN: its listener's queue is full (a backlog of 0 has room for one)."""
    with socket.socket() as sock, socket.socket() as filler:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        filler.connect(sock.getsockname())
        yield sock.getsockname()


@contextlib.contextmanager
def refusing() -> Iterator[tuple[str, int]]:
    """An address at which nobody listens, and that nobody else can be given."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


def test_a_connection_blocks_and_is_not_inherited() -> None:
    with listening("tcp://127.0.0.1:0") as listener, open_connection(listener.endpoint, timeout=5) as sock:
        assert sock.gettimeout() is None
        assert not os.get_inheritable(sock.fileno())
        assert sock.getpeername() == listener.socket.getsockname()


def test_no_host_is_this_machine() -> None:
    with listening("tcp://127.0.0.1:0") as listener, open_connection(listener.endpoint.with_host("")) as sock:
        assert sock.getpeername() == listener.socket.getsockname()


def test_a_refusal_starts_the_next_at_once() -> None:
    with refusing() as dead, listening("tcp://127.0.0.1:0") as listener:
        names = Names(dead, listener.socket.getsockname())
        # A delay of a minute would run into the time limit of this test.
        with open_connection(SOMEWHERE, resolver=names, attempt_delay=60) as sock:
            assert sock.getpeername() == listener.socket.getsockname()


def test_silence_starts_the_next_after_the_delay() -> None:
    with silent() as first, listening("tcp://127.0.0.1:0") as listener:
        names = Names(first, listener.socket.getsockname())
        began = time.monotonic()
        with open_connection(SOMEWHERE, resolver=names, attempt_delay=0.02) as sock:
            assert time.monotonic() - began >= 0.02
            assert sock.getpeername() == listener.socket.getsockname()


def test_the_first_that_answers_wins_though_a_silent_one_is_still_waited_for() -> None:
    with silent() as first, refusing() as dead, listening("tcp://127.0.0.1:0") as listener:
        names = Names(first, dead, dead, listener.socket.getsockname())
        with open_connection(SOMEWHERE, resolver=names, attempt_delay=0.01, timeout=30) as sock:
            assert sock.getpeername() == listener.socket.getsockname()


def test_a_time_limit() -> None:
    with silent() as address, pytest.raises(TimeLimit) as caught:
        open_connection(SOMEWHERE, resolver=Names(address), timeout=0.02)
    assert str(caught.value) == "tcp://somewhere:1: time limit of 0.02 s passed while connecting"
    assert caught.value.exit_status == 124


def test_a_time_limit_says_what_was_tried() -> None:
    with (
        refusing() as dead,
        silent() as address,
        pytest.raises(TimeLimit, match=r"tried 127\.0\.0\.1 \(ECONNREFUSED .*\(no answer\)"),
    ):
        open_connection(SOMEWHERE, resolver=Names(dead, address), timeout=0.02)


def test_one_address_that_refuses() -> None:
    with refusing() as dead, pytest.raises(SystemRefused) as caught:
        open_connection(Endpoint.parse(f"tcp://127.0.0.1:{dead[1]}"))
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.hint == "nobody listens there"
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_several_that_fail_give_the_most_telling_errno_and_name_them_all() -> None:
    with refusing() as dead, pytest.raises(SystemRefused) as caught:
        # Multicast is no address to connect to: ENETUNREACH, or EINVAL.
        open_connection(SOMEWHERE, resolver=Names(("224.0.0.1", 1), dead))
    assert caught.value.errno == errno.ECONNREFUSED
    assert "tried 224.0.0.1 (" in caught.value.hint
    assert "127.0.0.1 (ECONNREFUSED (Connection refused))" in caught.value.hint
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert len(caught.value.__cause__.exceptions) == 2


def test_several_that_fail_alike_are_told_in_short() -> None:
    with refusing() as one, refusing() as other, pytest.raises(SystemRefused) as caught:
        open_connection(SOMEWHERE, resolver=Names(one, other))
    assert caught.value.hint == "nobody listens there; tried 127.0.0.1, 127.0.0.1"


def test_a_socket_that_met_itself_is_refused() -> None:
    with refusing() as dead:
        port = dead[1]
    with pytest.raises(SystemRefused) as caught:
        open_connection(Endpoint.parse(f"tcp://127.0.0.1:{port}"), source=("127.0.0.1", port))
    assert caught.value.errno == errno.ECONNREFUSED


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_a_source_address(scheme: str) -> None:
    with (
        listening(f"{scheme}://127.0.0.1:0") as listener,
        open_connection(listener.endpoint, source=("127.0.0.2", 0)) as sock,
    ):
        assert sock.getsockname()[0] == "127.0.0.2"
        assert sock.getsockname()[1] != 0


def test_a_source_port() -> None:
    with refusing() as free:
        port = free[1]
    with (
        listening("tcp://127.0.0.1:0") as listener,
        open_connection(listener.endpoint, source=("", port)) as sock,
    ):
        assert sock.getsockname()[1] == port


def test_a_source_that_is_not_here() -> None:
    with listening("tcp://127.0.0.1:0") as listener, pytest.raises(SystemRefused) as caught:
        open_connection(listener.endpoint, source=(NOBODY, 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_source_of_another_family() -> None:
    with pytest.raises(EndpointError, match="no address of the same family as the source ::1"):
        open_connection(Endpoint.parse("tcp://127.0.0.1:1"), source=("::1", 0))


def test_udp_sends_nothing_and_takes_the_first_way_there_is() -> None:
    with listening("udp://127.0.0.1:0") as listener:
        names = Names(("127.255.255.255", 1), listener.socket.getsockname())
        # A broadcast address needs ?broadcast=1: EACCES, and the next is tried.
        with open_connection(Endpoint.parse("udp://somewhere:1"), resolver=names) as sock:
            assert sock.getpeername() == listener.socket.getsockname()
        listener.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.socket.recv(1)
    with open_connection(Endpoint.parse("udp://127.255.255.255:9?broadcast=1")) as sock:
        assert sock.getpeername()[0] == "127.255.255.255"


def test_stdio_is_nobody() -> None:
    with pytest.raises(EndpointError, match="it is nobody to connect to"):
        open_connection(Endpoint.parse("stdio:"))


@needs_vsock
def test_vsock_to_nobody() -> None:
    # Without a loopback transport nothing answers; with one it refuses.
    with pytest.raises((SystemRefused, TimeLimit)):
        open_connection(Endpoint.parse("vsock://:4294967294"), timeout=0.02)
