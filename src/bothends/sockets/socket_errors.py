"""Errors of opening sockets: an explanation of each errno, and a hint at the remedy."""

from __future__ import annotations

import errno
import socket
from typing import Final

from bothends.endpoints import SCHEMES, Endpoint
from bothends.errors import OUT_OF_DESCRIPTORS, SystemCallFailed, Unavailable

# socket(2) fails with these for a family, type or protocol that the kernel lacks. ENOPROTOOPT: MPTCP while
# the sysctl net.mptcp.enabled is 0.
_UNSUPPORTED_ERRNOS: Final = frozenset(
    {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENOPROTOOPT, errno.EPFNOSUPPORT}
)

_KERNEL_HINTS: Final = {
    "sctp": "this kernel has no SCTP: load the module sctp, or use tcp://",
    "mptcp": "this kernel has no Multipath TCP, or net.mptcp.enabled is 0: use tcp://",
    "vsock": "this kernel has no VSOCK: load the module vsock",
}

_BIND_HINTS: Final = {
    errno.EADDRINUSE: "another socket has the port; port 0 lets the kernel choose a free one",
    errno.EADDRNOTAVAIL: "this machine has no such address; an empty host means every interface",
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE; use a higher one",
    errno.EINVAL: "a link-local address needs its zone: [fe80::1%25eth0]",
}

_CONNECT_HINTS: Final = {
    errno.ECONNREFUSED: "nothing is listening there",
    errno.ETIMEDOUT: "no answer: the host is down, or a firewall drops the packets",
    errno.EHOSTUNREACH: "no route to that host",
    errno.ENETUNREACH: "no route to that network",
    errno.EADDRNOTAVAIL: "this machine has no such source address, or no free port for it",
    errno.EADDRINUSE: "the source port is in use",
    errno.EACCES: "a broadcast address needs ?broadcast=1; or a firewall rejects the packets",
    errno.EINVAL: "a link-local address needs its zone: [fe80::1%25eth0]",
    errno.ENODEV: "this machine has no VSOCK transport: no hypervisor, and no virtual machines",
}

_UNIX_HINTS: Final = {
    errno.EADDRINUSE: "an open socket has that name",
    errno.ENAMETOOLONG: "at most 107 bytes (unix(7)): change to its directory and use a relative path",
    errno.ECONNREFUSED: "no server has the socket open: the file is left over from one that exited",
    errno.EPROTOTYPE: "a UNIX socket of another type: try unix://, unix+dgram:// or unix+seqpacket://",
    errno.EROFS: "the file system is read-only",
}

_OPTION_HINTS: Final = {
    "interface": "`ip link` lists the interfaces",
    "mark": "it needs CAP_NET_ADMIN",
    "congestion": "net.ipv4.tcp_available_congestion_control lists the algorithms",
}


class ResolveError(SystemCallFailed):
    """A host name for which the resolver found no address.

    Fields as for SystemCallFailed; `errno` is the EAI_* number (getaddrinfo(3)), which is not an errno, and
    `reason` is its name with an explanation.
    """

    def __init__(self, operation: str, target: str, errno: int, hint: str = "") -> None:
        super().__init__(operation, target, errno, hint)
        self.reason = f"{_eai_name(errno)} ({_eai_text(errno)})"

    def __str__(self) -> str:
        return f"cannot {self.operation} {self.target}: {self.reason}" + (
            f"; {self.hint}" if self.hint else ""
        )


def call_error(operation: str, endpoint: Endpoint, error: OSError, hint: str = "") -> SystemCallFailed:
    """Return the error to raise from a failed call for an endpoint. `hint` replaces the default hint."""
    number = error.errno or 0
    return SystemCallFailed(operation, endpoint.label, number, hint or hint_for(operation, endpoint, number))


def socket_error(endpoint: Endpoint, error: OSError) -> SystemCallFailed:
    """Return the error for a failed socket(2): Unavailable if the kernel lacks the family."""
    number = error.errno or 0
    if number in _UNSUPPORTED_ERRNOS:
        hint = _KERNEL_HINTS.get(endpoint.scheme, "this kernel has no such socket family: try family=4")
        return Unavailable("open a socket for", endpoint.label, number, hint)
    hint = "too many open files: ulimit -n" if number in OUT_OF_DESCRIPTORS else ""
    return SystemCallFailed("open a socket for", endpoint.label, number, hint)


def option_error(name: str, endpoint: Endpoint, error: OSError) -> SystemCallFailed:
    """Return the error for a failed setsockopt(2)."""
    return SystemCallFailed(
        f"set option {name} of", str(endpoint), error.errno or 0, _OPTION_HINTS.get(name, "")
    )


def resolve_error(endpoint: Endpoint, error: socket.gaierror) -> ResolveError:
    """Return the error for a failed getaddrinfo(3)."""
    number = error.errno or 0
    if "%" in endpoint.host:
        hint = "check that an interface of that name exists"
    elif number == socket.EAI_AGAIN:
        hint = "the name server did not answer: try again, or use an address"
    elif endpoint.number("family"):
        hint = f"family={endpoint.number('family')} is given: the host may have other addresses"
    else:
        hint = "check the spelling; an address needs no resolver"
    return ResolveError("resolve the host of", endpoint.label, number, hint)


def hint_for(operation: str, endpoint: Endpoint, number: int) -> str:
    """Return a hint for an errno, or "" if the system's text needs none."""
    connecting = operation.startswith("connect")
    if endpoint.is_unix:
        if number == errno.ENOENT:
            return "no such socket file" if connecting else "the directory does not exist"
        if number == errno.EACCES:
            file = "the socket file" if connecting else "the directory"
            return f"{file} must be writable, and each directory above it searchable"
        return _UNIX_HINTS.get(number, "")
    if SCHEMES[endpoint.scheme].fields != "host and port":
        return ""
    return (_CONNECT_HINTS if connecting else _BIND_HINTS).get(number, "")


def _eai_name(number: int) -> str:
    names = (name for name in dir(socket) if name.startswith("EAI_"))
    return next((name for name in names if getattr(socket, name) == number), str(number))


def _eai_text(number: int) -> str:
    return {
        socket.EAI_NONAME: "no such name",
        socket.EAI_NODATA: "the name has no address of this family",
        socket.EAI_AGAIN: "the resolver failed temporarily",
        socket.EAI_FAIL: "the resolver failed permanently",
        socket.EAI_ADDRFAMILY: "the host has no address of this family",
        socket.EAI_MEMORY: "out of memory",
    }.get(number, "the resolver failed")
