"""Admission control: errors of accept() that are those of one connection, and local addresses."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path
from typing import Any

import pytest

from bothends.endpoints import Address, Endpoint
from bothends.engines.admission import AcceptedSocket, AdmissionControl
from bothends.engines.base import EngineContext
from bothends.engines.shutdown import ShutdownFlags
from bothends.sockets import Listener
from bothends.testing.services import EchoService

# accept(2), "Error handling": network errors of a new connection, and one that its client has reset.
ERRORS = ["ECONNABORTED", "EPROTO", "ENETDOWN", "EHOSTUNREACH", "ENONET", "EPERM", "EINTR"]


class FailingListener(socket.socket):
    """A listening socket whose next accepts fail."""

    errors: list[int]

    def _accept(self) -> tuple[int, Any]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, errno.errorcode[number])
        descriptor, address = super()._accept()  # type: ignore[misc]
        return int(descriptor), address


@pytest.mark.parametrize("name", ERRORS)
def test_error_of_one_connection_does_not_end_accepting(name: str) -> None:
    endpoint = Endpoint("tcp", host="127.0.0.1", port=0)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(FailingListener())
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.setblocking(False)
        sock.errors = [getattr(errno, name)] * 3
        stop = stack.enter_context(contextlib.closing(ShutdownFlags()))
        listener = Listener(endpoint, sock, "listener", endpoint)
        admission = AdmissionControl(EngineContext(EchoService(), [listener], stop))
        client = stack.enter_context(socket.create_connection(sock.getsockname()))
        [(connection, peer)] = list(admission.accept(listener))
        with connection:
            assert connection.getpeername() == client.getsockname()
        assert admission.can_accept()
        assert admission.retry_delay() is None
        admission.release(peer)


@pytest.mark.parametrize("family", ["unix", "inet", "inet wildcard"])
def test_local_address_is_asked_for_only_where_it_can_differ(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def getsockname(sock: socket.socket) -> Any:
        asked.append(sock.fileno())
        return socket.socket.getsockname(sock)

    monkeypatch.setattr(AcceptedSocket, "getsockname", getsockname, raising=False)
    path = str(tmp_path / "socket")
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(contextlib.closing(ShutdownFlags()))
        is_unix = family == "unix"
        sock = stack.enter_context(socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET))
        host = "0.0.0.0" if "wildcard" in family else "127.0.0.1"
        sock.bind(path if is_unix else (host, 0))
        sock.listen()
        sock.setblocking(False)
        endpoint = Endpoint("unix", path=path) if is_unix else Endpoint("tcp", host=host, port=0)
        listener = Listener(endpoint, sock, "listener", endpoint)
        admission = AdmissionControl(EngineContext(EchoService(), [listener], stop))
        client = stack.enter_context(socket.socket(sock.family))
        client.connect(path if is_unix else ("127.0.0.1", sock.getsockname()[1]))
        [(connection, peer)] = list(admission.accept(listener))
        with connection:
            assert peer.local == Address.from_sockaddr(sock.family, client.getpeername())
    assert bool(asked) is (family == "inet wildcard")
