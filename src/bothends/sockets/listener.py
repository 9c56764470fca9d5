"""A socket that is ready to be served: listening, for datagrams, or connected."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from bothends.endpoints import Address, Endpoint
from bothends.sockets.stdio import StdioRelay

Role = Literal["listener", "datagrams", "connection"]


@dataclass(slots=True, eq=False)
class Listener:
    """A socket to serve, with its endpoint and its role.

    `endpoint`  the bound endpoint: with the actual port, and a numeric host if the host was a name. For fd://
                the endpoint found on the descriptor, if it has an address.
    `socket`    blocking, and not inherited by child programs.
    `role`      "listener": accept from it; "datagrams": receive from it; "connection": a single connection
                (a connected fd://, or stdio:), to be served once.
    `requested_endpoint`  the endpoint as the caller gave it.
    `unlink`    removes the file of a UNIX socket created here; None if there is none.
    `relay`     the relay of stdio: through pipes; None for every other endpoint.

    The caller that opened it closes it. It is also a context manager.
    """

    endpoint: Endpoint
    socket: socket.socket
    role: Role
    requested_endpoint: Endpoint
    unlink: Callable[[], None] | None = None
    relay: StdioRelay | None = None

    @property
    def address(self) -> Address:
        """The address the socket is bound to. Raises OSError once it is closed."""
        return Address.from_sockaddr(self.socket.family, self.socket.getsockname())

    @property
    def is_message_oriented(self) -> bool:
        """Whether message boundaries are preserved: datagrams and sequenced packets. Known for fd:// too."""
        return self.socket.type in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket, and remove the file of a UNIX socket that was created here. Idempotent.

        In a forked child the file stays, because the parent still serves it.
        """
        remove, self.unlink = self.unlink, None
        if remove is not None:
            remove()
        self.socket.close()

    def wait_flushed(self, timeout: float | None = None) -> bool:
        """Wait until everything sent has been written to standard output.

        Only stdio: through pipes has something to wait for, once the connection is closed.

        Returns: False if `timeout` seconds passed first, True otherwise.
        """
        return self.relay is None or self.relay.wait_flushed(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
