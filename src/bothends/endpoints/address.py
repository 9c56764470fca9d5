"""The address of one end of a socket, as the kernel returns it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bothends.endpoints.endpoint import Endpoint
from bothends.endpoints.schemes import OptionValue


@dataclass(frozen=True, slots=True)
class Address:
    """The address of one end of a socket, as the kernel returns it.

    `family` is "inet", "inet6", "unix", "vsock" or "none". `host` is the numeric address, a path, or "@name"
    for an abstract name; "" for an unnamed UNIX socket. `port` is 0 for a family without ports.
    `str()` gives the form used in logs: `127.0.0.1#5000`, `::1#5000`, a path, `@name`, or `unix` for an
    unnamed socket.
    """

    family: Literal["inet", "inet6", "unix", "vsock", "none"]
    host: str = ""
    port: int = 0

    @classmethod
    def from_sockaddr(cls, family: int, sockaddr: Any) -> Address:
        """Convert the result of `getsockname`, `accept` or `recvfrom` on a socket of `family` (AF_*).

        An IPv4 peer of a dual-stack socket (`::ffff:127.0.0.1`, RFC 4291 section 2.5.5.2) becomes plain IPv4.
        Python returns the name of a UNIX socket as str (a path), bytes (an abstract name) or None.
        """
        if isinstance(sockaddr, tuple):
            host, port = sockaddr[0], sockaddr[1]
            if len(sockaddr) == 4:
                if host.startswith("::ffff:") and "." in host:
                    return cls("inet", host[7:], port)
                # A link-local address is unique only within its zone, so the zone is part of it
                # (RFC 4007 section 11).
                zone = f"%{sockaddr[3]}" if sockaddr[3] and "%" not in host else ""
                return cls("inet6", host + zone, port)
            if family == _AF_INET:
                return cls("inet", host, port)
            return cls("vsock", str(host), port)
        if family != _AF_UNIX:
            return cls("none")
        if not sockaddr:
            return cls("unix")
        if isinstance(sockaddr, bytes):
            text = sockaddr.decode("utf-8", "surrogateescape")
            return cls("unix", "@" + text[1:] if text[0] == "\0" else text)
        return cls("unix", sockaddr)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can send to it over IP (127.0.0.0/8, ::1)."""
        return self.host == "::1" or (self.family == "inet" and self.host.startswith("127."))

    def __str__(self) -> str:
        if self.family == "unix":
            return _printable(self.host) or "unix"
        return f"{self.host}#{self.port}" if self.family != "none" else self.host or "none"

    def to_endpoint(self, scheme: str, options: Iterable[tuple[str, OptionValue]] = ()) -> Endpoint:
        """Return this address as an endpoint of `scheme`.

        Raises EndpointError if the address does not fit the scheme, or if the socket has no name.
        """
        if self.family == "unix":
            return Endpoint(scheme, path=self.host, options=tuple(options))
        return Endpoint(scheme, host=self.host, port=self.port, options=tuple(options))


# These two numbers are the same on every system. AF_INET6 is not: its sockaddr is recognized by its four
# elements instead.
_AF_UNIX, _AF_INET = 1, 2


def _printable(name: str) -> str:
    """Escape a socket name for printing; any local user may have chosen it."""
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")
