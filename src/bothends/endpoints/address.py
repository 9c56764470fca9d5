"""One end of a socket, as the system gives it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bothends.endpoints.endpoint import Endpoint
from bothends.endpoints.schemes import OptionValue


@dataclass(frozen=True, slots=True)
class Address:
    """One end of a socket, as the system gives it.

    `family` is "inet", "inet6", "unix", "vsock" or "none"; `host` is the numeric address, a path, or "@name"
    for an abstract name ("" for an unnamed UNIX socket); `port` is 0 where there is none.
    `str()` is the form for logs: `127.0.0.1#5000`, `::1#5000`, a path, `@name`, `unix` for an unnamed one.
    """

    family: Literal["inet", "inet6", "unix", "vsock", "none"]
    host: str = ""
    port: int = 0

    @classmethod
    def from_sockaddr(cls, family: int, sockaddr: Any) -> Address:
        """From what `getsockname`, `accept` or `recvfrom` gave for a socket of this `family` (AF_*).

        An IPv4 peer of a dual-stack socket (`::ffff:127.0.0.1`, RFC 4291 section 2.5.5.2) becomes plain IPv4.
        The name of a UNIX socket comes as str (a path), bytes (an abstract name) or nothing.
        """
        if isinstance(sockaddr, tuple):
            host, port = sockaddr[0], sockaddr[1]
            if len(sockaddr) == 4:
                if host.startswith("::ffff:") and "." in host:
                    return cls("inet", host[7:], port)
                # A link-local address is one per interface: its zone belongs to it (RFC 4007 section 11).
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

    def __str__(self) -> str:
        if self.family == "unix":
            return _printable(self.host) or "unix"
        return f"{self.host}#{self.port}" if self.family != "none" else self.host or "none"

    def to_endpoint(self, scheme: str, options: Iterable[tuple[str, OptionValue]] = ()) -> Endpoint:
        """This address as an endpoint of `scheme`. Raises EndpointError where the two don't go together, or
        where the socket has no name.
        """
        if self.family == "unix":
            return Endpoint(scheme, path=self.host, options=tuple(options))
        return Endpoint(scheme, host=self.host, port=self.port, options=tuple(options))


# Both have one number on every system; AF_INET6, which hasn't, is told by its address of four parts.
_AF_UNIX, _AF_INET = 1, 2


def _printable(name: str) -> str:
    """A name that anyone may have chosen, safe to print."""
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")
