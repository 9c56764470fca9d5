"""Descriptors opened by another program: fd://3, and standard input under inetd.

The descriptor itself is used, not a duplicate: while a duplicate is open, closing the other refuses no new
connections and sends no EOF to the peer. Descriptors 0 to 2 are duplicated all the same, because the next
file to be opened would otherwise get their number, and later output would go into that file.

An inherited socket keeps the options set by the program that opened it.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Final

from bothends.endpoints import Address, Endpoint
from bothends.errors import EndpointError
from bothends.sockets.listener import Listener, Role
from bothends.sockets.resolve import IPPROTO_MPTCP, IPPROTO_SCTP
from bothends.sockets.socket_errors import call_error

_SCHEMES: Final = {
    (socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP): "mptcp",
    (socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP): "sctp",
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP): "tcp",
    (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP): "udp",
    (socket.AF_UNIX, socket.SOCK_STREAM, 0): "unix",
    (socket.AF_UNIX, socket.SOCK_DGRAM, 0): "unix+dgram",
    (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0): "unix+seqpacket",
    (socket.AF_VSOCK, socket.SOCK_STREAM, 0): "vsock",
}

_FILE_TYPES: Final = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a terminal or another character device"),
    (stat.S_ISDIR, "a directory"),
)


def is_socket(descriptor: int, endpoint: Endpoint) -> bool:
    """Whether a descriptor is a socket. Raises SystemCallFailed if it is not open."""
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError as error:
        hint = "the parent process must leave it open and inheritable"
        raise call_error("adopt", endpoint, error, hint) from error


def open_inherited(descriptor: int, endpoint: Endpoint) -> Listener:
    """Take over an inherited socket: a listening socket, a datagram socket or a connection.

    Raises EndpointError if the descriptor is none of these (it then stays open and unchanged),
    SystemCallFailed.
    """
    if not is_socket(descriptor, endpoint):
        mode = os.fstat(descriptor).st_mode
        kind = next((name for test, name in _FILE_TYPES if test(mode)), "another kind of file")
        raise EndpointError(str(endpoint), f"descriptor {descriptor} is {kind}, not a socket")
    sock = socket.socket(fileno=os.dup(descriptor) if descriptor <= 2 else descriptor)
    try:
        role = _role(sock, endpoint)
        sock.set_inheritable(False)
        sock.setblocking(True)
    except BaseException:
        if descriptor <= 2:
            sock.close()
        else:
            sock.detach()
        raise
    return Listener(_actual_endpoint(sock, endpoint), sock, role, endpoint)


def _role(sock: socket.socket, endpoint: Endpoint) -> Role:
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "listener"
    try:
        sock.getpeername()
    except OSError as error:
        if sock.type == socket.SOCK_DGRAM:
            return "datagrams"
        text = "the socket is neither listening nor connected (or its peer has reset it)"
        raise EndpointError(str(endpoint), text) from error
    return "connection"


def _actual_endpoint(sock: socket.socket, endpoint: Endpoint) -> Endpoint:
    """Return the endpoint that describes the socket; the requested one if the socket has no address."""
    family = socket.AF_INET if sock.family == socket.AF_INET6 else sock.family
    scheme = _SCHEMES.get((family, sock.type, sock.proto))
    address = Address.from_sockaddr(sock.family, sock.getsockname())
    if scheme is None or not address.host or endpoint.scheme == "stdio":
        return endpoint
    host = address.host
    if host == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        host = ""
    if address.family == "unix":
        return Endpoint(scheme, path=host, wrappers=endpoint.wrappers)
    return Endpoint(scheme, host=host, port=address.port, wrappers=endpoint.wrappers)
