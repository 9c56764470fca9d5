"""A socket that is ready to be served."""

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
    """A socket to serve, where it is, and what to do with it.

    `endpoint`  where it is: with the real port, and a numeric host where the host was a name. For fd:// what
                the descriptor turned out to be, where it has an address.
    `socket`    blocking, and not inherited by child programs.
    `role`      "listener": accept from it; "datagrams": receive from it; "connection": it is one already
                (a connected fd://, and stdio:), to be served once.
    `asked`     the endpoint as it was given.

    Whoever opens it closes it; it is a context manager too.
    """

    endpoint: Endpoint
    socket: socket.socket
    role: Role
    requested_endpoint: Endpoint
    unlink: Callable[[], None] | None = None
    relay: StdioRelay | None = None

    @property
    def address(self) -> Address:
        """The address it is bound to. Raises OSError once it is closed."""
        return Address.from_sockaddr(self.socket.family, self.socket.getsockname())

    @property
    def is_message_oriented(self) -> bool:
        """One send is one receive: datagrams and sequenced packets. Known here for fd:// too."""
        return self.socket.type in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket, and remove the file of a UNIX socket that was made here. May be repeated.

        In a forked child the file stays: it is the parent's.
        """
        remove, self.unlink = self.unlink, None
        if remove is not None:
            remove()
        self.socket.close()

    def wait_flushed(self, timeout: float | None = None) -> bool:
        """Wait until all that was sent has left by standard output; False if it took over `timeout` seconds.

        For stdio: through pipes, once the connection is closed. Elsewhere there is nothing to wait for.
        """
        return self.relay is None or self.relay.wait_flushed(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
