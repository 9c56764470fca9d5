"""Opening what welcomes peers.

One endpoint may need several sockets (localhost has an IPv6 and an IPv4 address), and they share one port.
Every interface needs one socket only: an IPv6 socket with IPV6_V6ONLY off takes IPv4 too, as mapped addresses
(RFC 3493 sections 3.7 and 5.3).
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed
from bothends.sockets.datagrams import enable_pktinfo
from bothends.sockets.inherited import is_socket, open_inherited
from bothends.sockets.listener import Listener, Role
from bothends.sockets.options import DEFAULT_BACKLOG, apply_options
from bothends.sockets.resolve import SOCKET_TYPES, VMADDR_ANY, AddrInfo, Resolver, resolve
from bothends.sockets.socket_errors import call_error, socket_error
from bothends.sockets.stdio import StdioRelay
from bothends.sockets.systemd import open_activated
from bothends.sockets.unix import bind_unix

# The system picks a port for the first address; now and then another program has it on the second. The
# chance is small each time (the ephemeral range has 28,000 ports), so a few tries are plenty.
_PORT_ATTEMPTS: Final = 16

# An address of a name that this machine cannot use, though it has others: /etc/hosts names ::1 also where
# IPv6 is switched off.
_ADDRESS_UNAVAILABLE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def open_listeners(endpoint: Endpoint, *, resolver: Resolver = socket.getaddrinfo) -> list[Listener]:
    """Open the sockets of an endpoint, bound and listening, all on one port.

    An empty host is every interface, by IPv6 and IPv4 together; where there is no IPv6, by IPv4. `[::]` is
    IPv6 alone unless v6only=0. Port 0 is picked by the system. A stale UNIX socket is replaced, a live one
    isn't. stdio: and connected descriptors give a listener whose role is "connection".

    The caller closes each. Raises SystemRefused, NameRefused, Unavailable where the kernel lacks the family,
    EndpointError for a descriptor that cannot be served.
    """
    if endpoint.fd is not None:
        return [open_inherited(endpoint.fd, endpoint)]
    if endpoint.scheme == "systemd":
        return open_activated(endpoint)
    if endpoint.scheme == "stdio":
        return [_open_stdio(endpoint)]
    if endpoint.is_unix:
        return [_open_unix(endpoint)]
    if endpoint.scheme == "vsock":
        cid = int(endpoint.host) if endpoint.host else VMADDR_ANY
        # Port 0 is an ordinary one here; "the system picks" has another number (vsock(7)).
        return [_open(endpoint, AddrInfo(socket.AF_VSOCK, (cid, endpoint.port or VMADDR_ANY)))]
    if not endpoint.host:
        return [_open_wildcard(endpoint)]
    return _open_all(endpoint, resolve(endpoint, resolver))


def _open_stdio(endpoint: Endpoint) -> Listener:
    if is_socket(0, endpoint):
        return open_inherited(0, endpoint)
    pump = StdioRelay()
    return Listener(endpoint, pump.service_socket, "connection", endpoint, relay=pump)


def _open_unix(endpoint: Endpoint) -> Listener:
    sock = _new_socket(endpoint, socket.AF_UNIX)
    remove = None
    try:
        apply_options(sock, endpoint, listening=True)
        remove = bind_unix(sock, endpoint)
        real = endpoint
        if endpoint.path == "@":  # the kernel picked a name: five hexadecimal digits (unix(7))
            picked = sock.getsockname()[1:].decode()
            real = Endpoint(endpoint.scheme, path=f"@{picked}", options=endpoint.options)
        return Listener(real, sock, _listen(sock, endpoint), endpoint, remove)
    except BaseException:
        if remove is not None:
            remove()
        sock.close()
        raise


def _open_wildcard(endpoint: Endpoint) -> Listener:
    port = endpoint.port or 0
    four = AddrInfo(socket.AF_INET, ("0.0.0.0", port))
    six = AddrInfo(socket.AF_INET6, ("::", port))
    family = endpoint.number("family")
    if family == 4:
        return _open(endpoint, four)
    try:
        return _open(endpoint, six)
    except SystemCallFailed as refused:
        if family == 6 or refused.errno not in _ADDRESS_UNAVAILABLE:
            raise
    return _open(endpoint, four)


def _open_all(endpoint: Endpoint, targets: list[AddrInfo]) -> list[Listener]:
    for last in range(_PORT_ATTEMPTS - 1, -1, -1):
        opened: list[Listener] = []
        try:
            _open_on_one_port(endpoint, targets, opened)
        except BaseException as error:
            for listener in opened:
                listener.close()
            taken = isinstance(error, SystemCallFailed) and error.errno == errno.EADDRINUSE
            if not (taken and opened and endpoint.port == 0 and last):
                raise
        else:
            return opened
    raise AssertionError("the last turn returns or raises")


def _open_on_one_port(endpoint: Endpoint, targets: list[AddrInfo], opened: list[Listener]) -> None:
    missing: SystemCallFailed | None = None
    for target in targets:
        port = opened[0].endpoint.port if opened else endpoint.port
        here = target._replace(sockaddr=(target.sockaddr[0], port, *target.sockaddr[2:]))
        try:
            opened.append(_open(endpoint, here))
        except SystemCallFailed as refused:
            if refused.errno not in _ADDRESS_UNAVAILABLE:
                raise
            missing = missing or refused
    if not opened and missing is not None:
        raise missing


def _open(endpoint: Endpoint, target: AddrInfo) -> Listener:
    sock = _new_socket(endpoint, target.family)
    try:
        options = endpoint
        if target.family == socket.AF_INET6 and endpoint.number("v6only") is None:
            # An address that was written means itself: [::] is IPv6, every interface has no host.
            options = endpoint.with_options(v6only=endpoint.host == "::" or endpoint.number("family") == 6)
        apply_options(sock, options, listening=True)
        if target.sockaddr[0] in ("0.0.0.0", "::"):
            enable_pktinfo(sock)  # before a datagram can come: the kernel notes it on arrival
        try:
            sock.bind(target.sockaddr)
        except OSError as error:
            raise call_error("bind", endpoint, error) from error
        role = _listen(sock, endpoint)
        name = sock.getsockname()
        real = endpoint.with_port(name[1])
        if endpoint.host and endpoint.scheme != "vsock":
            real = real.with_host(_host(name))
        return Listener(real, sock, role, endpoint)
    except BaseException:
        sock.close()
        raise


def _host(name: tuple[Any, ...]) -> str:
    """The address of a socket; a link-local one with the name of its interface, as a user writes it."""
    scope = name[3] if len(name) == 4 else 0
    return f"{name[0]}%{socket.if_indextoname(scope)}" if scope else str(name[0])


def _new_socket(endpoint: Endpoint, family: int) -> socket.socket:
    kind, protocol = SOCKET_TYPES[endpoint.scheme]
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        raise socket_error(endpoint, error) from error


def _listen(sock: socket.socket, endpoint: Endpoint) -> Role:
    if sock.type == socket.SOCK_DGRAM:
        return "datagrams"
    try:
        sock.listen(endpoint.number("backlog") or DEFAULT_BACKLOG)
    except OSError as error:
        raise call_error("listen on", endpoint, error) from error
    return "listener"
