"""Helpers shared by the tests of sockets: capability marks, a context for one listener, a fake resolver."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from bothends.endpoints import Endpoint
from bothends.sockets import Listener, open_listeners


def supports_socket(family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> bool:
    """Whether this kernel supports such sockets."""
    try:
        socket.socket(family, kind, protocol).close()
    except OSError:
        return False
    return True


def has_ipv6() -> bool:
    """Whether an IPv6 socket can be bound to loopback."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")
needs_mptcp = pytest.mark.skipif(
    not supports_socket(socket.AF_INET, socket.SOCK_STREAM, 262), reason="this kernel has no Multipath TCP"
)
needs_vsock = pytest.mark.skipif(not supports_socket(40), reason="this kernel has no VSOCK")
needs_no_sctp = pytest.mark.skipif(
    supports_socket(socket.AF_INET, socket.SOCK_STREAM, 132),
    reason="this kernel has SCTP; the test is for kernels without it",
)


@contextlib.contextmanager
def listening(text: str, **kwargs: Any) -> Iterator[Listener]:
    """Context: the single listener of an endpoint, closed on exit."""
    (listener,) = open_listeners(Endpoint.parse(text), **kwargs)
    with listener:
        yield listener


class FakeResolver:
    """A resolver that returns fixed addresses and records its queries."""

    def __init__(self, *addresses: tuple[str, int] | str) -> None:
        self._addresses = addresses
        self.queries: list[tuple[str, int, int, int]] = []

    def __call__(self, host: str, port: int, family: int, type: int, /) -> Sequence[Any]:  # noqa: A002
        self.queries.append((host, port, family, type))
        answers: list[Any] = []
        for each in self._addresses:
            address, actual_port = each if isinstance(each, tuple) else (each, port)
            if ":" in address:
                answers.append((socket.AF_INET6, type, 0, "", (address, actual_port, 0, 0)))
            else:
                answers.append((socket.AF_INET, type, 0, "", (address, actual_port)))
        return [answer for answer in answers if family in (socket.AF_UNSPEC, answer[0])]
