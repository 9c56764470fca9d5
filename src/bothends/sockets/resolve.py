"""Resolve endpoints and hosts to socket addresses, in the order in which to try them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final, Literal, NamedTuple, Protocol

from bothends.endpoints import Endpoint, OptionValue
from bothends.errors import EndpointError
from bothends.sockets.socket_errors import ResolveError, resolve_error

# linux/in.h; the socket module has these names only if they were defined when Python was built.
IPPROTO_MPTCP: Final = 262
IPPROTO_SCTP: Final = 132

# vm_sockets.h
VMADDR_ANY: Final = 2**32 - 1
VMADDR_CID_LOCAL: Final = 1

# SCTP in its one-to-one style (RFC 6458 section 4), which has the same API as TCP.
SOCKET_TYPES: Final = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "tls": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "mptcp": (socket.SOCK_STREAM, IPPROTO_MPTCP),
    "sctp": (socket.SOCK_STREAM, IPPROTO_SCTP),
    "vsock": (socket.SOCK_STREAM, 0),
    "unix": (socket.SOCK_STREAM, 0),
    "unix+dgram": (socket.SOCK_DGRAM, 0),
    "unix+seqpacket": (socket.SOCK_SEQPACKET, 0),
}


class AddrInfo(NamedTuple):
    """An address family and a sockaddr for `bind` and `connect`."""

    family: int
    sockaddr: Any


class Resolver(Protocol):
    """The part of the interface of `socket.getaddrinfo` that is used here."""

    def __call__(self, host: str, port: int, family: int, type: int, /) -> Sequence[Any]: ...  # noqa: A002


def resolve(endpoint: Endpoint, resolver: Resolver = socket.getaddrinfo) -> list[AddrInfo]:
    """Return the addresses of an endpoint's host, without duplicates, in the resolver's order (RFC 6724).

    getaddrinfo(3) blocks for as long as /etc/resolv.conf allows, and cannot be interrupted.

    Raises ResolveError.
    """
    family = {4: socket.AF_INET, 6: socket.AF_INET6}.get(endpoint.number("family") or 0, socket.AF_UNSPEC)
    # No protocol is passed, because resolvers know neither MPTCP nor SCTP.
    kind = SOCKET_TYPES[endpoint.scheme][0]
    try:
        found = resolver(endpoint.host, endpoint.port or 0, family, kind)
    except socket.gaierror as error:
        raise resolve_error(endpoint, error) from error
    usable = (socket.AF_INET, socket.AF_INET6)
    targets = list(dict.fromkeys(AddrInfo(int(each[0]), each[4]) for each in found if each[0] in usable))
    if not targets:
        raise resolve_error(endpoint, socket.gaierror(socket.EAI_NODATA, "no IPv4 or IPv6 address"))
    return targets


def resolve_host(
    host: str,
    scheme: Literal["tcp", "udp"],
    family: int | None = None,
    resolver: Resolver = socket.getaddrinfo,
) -> list[AddrInfo]:
    """Resolve a bare host, in the order in which to try its addresses; errors name the host, not an endpoint.

    An IPv6 address may have brackets. `family` is 4, 6 or None for both. The port of each sockaddr is 0.

    Raises EndpointError for an invalid host, ResolveError.
    """
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    options: tuple[tuple[str, OptionValue], ...] = (("family", family),) if family else ()
    try:
        return interleave(resolve(Endpoint(scheme, plain, 0, options=options), resolver))
    except ResolveError as error:
        raise ResolveError("resolve the host", host, error.errno, error.hint) from error.__cause__
    except EndpointError as error:
        raise EndpointError(host, error.reason, error.hint) from None


def loopback_addresses(endpoint: Endpoint) -> list[AddrInfo]:
    """Return the addresses for an empty host: this machine, over loopback."""
    port = endpoint.port or 0
    both = [AddrInfo(socket.AF_INET6, ("::1", port, 0, 0)), AddrInfo(socket.AF_INET, ("127.0.0.1", port))]
    return {4: both[1:], 6: both[:1]}.get(endpoint.number("family") or 0, both)


def interleave(targets: Sequence[AddrInfo]) -> list[AddrInfo]:
    """Alternate between the address families, beginning with the family that the resolver put first.

    RFC 8305 section 4, with a First Address Family Count of 1. The order within a family is unchanged.
    """
    if not targets:
        return []
    first = [target for target in targets if target.family == targets[0].family]
    other = [target for target in targets if target.family != targets[0].family]
    return [target for pair in zip_longest(first, other) for target in pair if target is not None]
