"""Open listening and datagram sockets.

One endpoint may need several sockets (localhost has an IPv6 and an IPv4 address); they share one port.
Listening on every interface needs only one socket: an IPv6 socket with IPV6_V6ONLY off accepts IPv4 too, as
mapped addresses (RFC 3493 sections 3.7 and 5.3).
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

# The kernel chooses a port for the first address, which another program may have bound on the second. The
# probability is small each time (the ephemeral range has 28,000 ports), so a few attempts are enough.
_PORT_ATTEMPTS: Final = 16

# A name may have an address that this machine cannot use: /etc/hosts lists ::1 even if IPv6 is disabled.
_ADDRESS_UNAVAILABLE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def open_listeners(endpoint: Endpoint, *, resolver: Resolver = socket.getaddrinfo) -> list[Listener]:
    """Open the sockets of an endpoint, bound and listening, all on one port.

    An empty host means every interface, over IPv6 and IPv4 together, or over IPv4 if there is no IPv6.
    `[::]` means IPv6 only, unless v6only=0. For port 0 the kernel chooses a port. The file of a UNIX socket
    is replaced if it is stale, never if it is in use. stdio: and connected descriptors return a listener with
    the role "connection".

    Returns: the listeners; the caller closes each.

    Raises:
        EndpointError: the inherited descriptor cannot be served.
        ResolveError: the host has no address.
        Unavailable: the kernel lacks the socket family.
        SystemCallFailed: binding or listening failed.
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
        # Port 0 is an ordinary port for vsock; VMADDR_PORT_ANY requests an assigned one (vsock(7)).
        return [_open(endpoint, AddrInfo(socket.AF_VSOCK, (cid, endpoint.port or VMADDR_ANY)))]
    if not endpoint.host:
        return [_open_wildcard(endpoint)]
    return _open_all(endpoint, resolve(endpoint, resolver))


def _open_stdio(endpoint: Endpoint) -> Listener:
    if is_socket(0, endpoint):
        return open_inherited(0, endpoint)
    relay = StdioRelay()
    return Listener(endpoint, relay.service_socket, "connection", endpoint, relay=relay)


def _open_unix(endpoint: Endpoint) -> Listener:
    sock = _new_socket(endpoint, socket.AF_UNIX)
    unlink = None
    try:
        apply_options(sock, endpoint, listening=True)
        unlink = bind_unix(sock, endpoint)
        bound = endpoint
        if endpoint.path == "@":  # the kernel chose a name of five hexadecimal digits (unix(7), autobind)
            name = sock.getsockname()[1:].decode()
            bound = Endpoint(endpoint.scheme, path=f"@{name}", options=endpoint.options)
        return Listener(bound, sock, _listen(sock, endpoint), endpoint, unlink)
    except BaseException:
        if unlink is not None:
            unlink()
        sock.close()
        raise


def _open_wildcard(endpoint: Endpoint) -> Listener:
    port = endpoint.port or 0
    ipv4 = AddrInfo(socket.AF_INET, ("0.0.0.0", port))
    ipv6 = AddrInfo(socket.AF_INET6, ("::", port))
    family = endpoint.number("family")
    if family == 4:
        return _open(endpoint, ipv4)
    try:
        return _open(endpoint, ipv6)
    except SystemCallFailed as error:
        if family == 6 or error.errno not in _ADDRESS_UNAVAILABLE:
            raise
    return _open(endpoint, ipv4)


def _open_all(endpoint: Endpoint, targets: list[AddrInfo]) -> list[Listener]:
    for retries_left in range(_PORT_ATTEMPTS - 1, -1, -1):
        opened: list[Listener] = []
        try:
            _open_on_one_port(endpoint, targets, opened)
        except BaseException as error:
            for listener in opened:
                listener.close()
            in_use = isinstance(error, SystemCallFailed) and error.errno == errno.EADDRINUSE
            if not (in_use and opened and endpoint.port == 0 and retries_left):
                raise
        else:
            return opened
    raise AssertionError("the last iteration returns or raises")


def _open_on_one_port(endpoint: Endpoint, targets: list[AddrInfo], opened: list[Listener]) -> None:
    unavailable: SystemCallFailed | None = None
    for target in targets:
        port = opened[0].endpoint.port if opened else endpoint.port
        with_port = target._replace(sockaddr=(target.sockaddr[0], port, *target.sockaddr[2:]))
        try:
            opened.append(_open(endpoint, with_port))
        except SystemCallFailed as error:
            if error.errno not in _ADDRESS_UNAVAILABLE:
                raise
            unavailable = unavailable or error
    if not opened and unavailable is not None:
        raise unavailable


def _open(endpoint: Endpoint, target: AddrInfo) -> Listener:
    sock = _new_socket(endpoint, target.family)
    try:
        options = endpoint
        if target.family == socket.AF_INET6 and endpoint.number("v6only") is None:
            # An explicit address means only itself: [::] is IPv6; an empty host is every interface.
            options = endpoint.with_options(v6only=endpoint.host == "::" or endpoint.number("family") == 6)
        apply_options(sock, options, listening=True)
        if target.sockaddr[0] in ("0.0.0.0", "::"):
            enable_pktinfo(sock)  # before bind, because the kernel records the address on arrival
        try:
            sock.bind(target.sockaddr)
        except OSError as error:
            raise call_error("bind", endpoint, error) from error
        role = _listen(sock, endpoint)
        name = sock.getsockname()
        bound = endpoint.with_port(name[1])
        if endpoint.host and endpoint.scheme != "vsock":
            bound = bound.with_host(_host(name))
        return Listener(bound, sock, role, endpoint)
    except BaseException:
        sock.close()
        raise


def _host(name: tuple[Any, ...]) -> str:
    """Return the address of a sockaddr; a link-local one with its interface name, as users write it."""
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
