"""Admission control: errors of accept() that are those of one connection."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

import pytest

from bothends.endpoints import Endpoint
from bothends.engines.admission import AdmissionControl
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
