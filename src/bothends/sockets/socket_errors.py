"""Every errno that opening a socket can give, in words, and what to do about it."""

from __future__ import annotations

import errno
import socket
from typing import Final

from bothends.endpoints import SCHEMES, Endpoint
from bothends.errors import OUT_OF_DESCRIPTORS, SystemCallFailed, Unavailable

# What socket(2) answers for a family, type or protocol that this kernel hasn't got. ENOPROTOOPT is what it
# says for MPTCP where the sysctl net.mptcp.enabled is 0.
_UNSUPPORTED_ERRNOS: Final = frozenset(
    {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENOPROTOOPT, errno.EPFNOSUPPORT}
)

_KERNEL_HINTS: Final = {
    "sctp": "this kernel has no SCTP: load the module sctp, or use tcp://",
    "mptcp": "this kernel has no Multipath TCP, or net.mptcp.enabled is 0: use tcp://",
    "vsock": "this kernel has no VSOCK: load the module vsock",
}

_BIND_HINTS: Final = {
    errno.EADDRINUSE: "another socket has the port; port 0 lets the system pick a free one",
    errno.EADDRNOTAVAIL: "this machine has no such address; an empty host is every interface",
    errno.EACCES: "a port this low needs root or CAP_NET_BIND_SERVICE; take one from 1024 on",
    errno.EINVAL: "a link-local address needs its zone: [fe80::1%25eth0]",
}

_CONNECT_HINTS: Final = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.ETIMEDOUT: "no answer: the host is off, or something on the way drops the packets",
    errno.EHOSTUNREACH: "no way to that host",
    errno.ENETUNREACH: "no route to that network",
    errno.EADDRNOTAVAIL: "no such source address here, or no free port left for it",
    errno.EADDRINUSE: "the source port is taken",
    errno.EACCES: "a broadcast address needs ?broadcast=1; a firewall may answer so too",
    errno.EINVAL: "a link-local address needs its zone: [fe80::1%25eth0]",
    errno.ENODEV: "no virtual machine transport here",
}

_UNIX_HINTS: Final = {
    errno.EADDRINUSE: "a live socket has that name",
    errno.ENAMETOOLONG: "107 bytes at most (unix(7)): change to its directory and use a relative path",
    errno.ECONNREFUSED: "no server has the socket open: it is left from one that has gone",
    errno.EPROTOTYPE: "a UNIX socket of another type: try unix://, unix+dgram:// or unix+seqpacket://",
    errno.EROFS: "the file system is read-only",
}

_OPTION_HINTS: Final = {
    "interface": "`ip link` lists the interfaces",
    "mark": "it needs CAP_NET_ADMIN",
    "congestion": "net.ipv4.tcp_available_congestion_control lists what there is",
}


class ResolveError(SystemCallFailed):
    """A host name for which the resolver has no address.

    Fields as for SystemRefused; `errno` is the EAI_* number (getaddrinfo(3)), which is not an errno;
    `reason` is its name and its words.
    """

    def __init__(self, doing: str, where: str, errno: int, hint: str = "") -> None:
        super().__init__(doing, where, errno, hint)
        self.reason = f"{_eai_name(errno)} ({_eai_text(errno)})"

    def __str__(self) -> str:
        return f"cannot {self.operation} {self.target}: {self.reason}" + (
            f"; {self.hint}" if self.hint else ""
        )


def call_error(doing: str, endpoint: Endpoint, error: OSError, hint: str = "") -> SystemCallFailed:
    """The error to raise `from` an OSError that a call for an endpoint met. `hint` replaces the usual one."""
    number = error.errno or 0
    usual = hint or hint_for(doing, endpoint, number)
    return SystemCallFailed(doing, endpoint.label, number, usual)


def socket_error(endpoint: Endpoint, error: OSError) -> SystemCallFailed:
    """The error for a socket(2) that failed: Unavailable where the kernel lacks the family."""
    number = error.errno or 0
    if number in _UNSUPPORTED_ERRNOS:
        hint = _KERNEL_HINTS.get(endpoint.scheme, "this kernel has no such socket family: try family=4")
        return Unavailable("open a socket for", endpoint.label, number, hint)
    hint = "too many open files: ulimit -n" if number in OUT_OF_DESCRIPTORS else ""
    return SystemCallFailed("open a socket for", endpoint.label, number, hint)


def option_error(name: str, endpoint: Endpoint, error: OSError) -> SystemCallFailed:
    """The error for a setsockopt(2) that failed."""
    return SystemCallFailed(
        f"set option {name} of", str(endpoint), error.errno or 0, _OPTION_HINTS.get(name, "")
    )


def resolve_error(endpoint: Endpoint, error: socket.gaierror) -> ResolveError:
    """The error for a getaddrinfo(3) that failed."""
    number = error.errno or 0
    if "%" in endpoint.host:
        hint = "is there an interface of that name?"
    elif number == socket.EAI_AGAIN:
        hint = "the name server did not answer: try again, or give an address"
    elif endpoint.number("family"):
        hint = f"no IPv{endpoint.number('family')} address, as family={endpoint.number('family')} asks for"
    else:
        hint = "is the name spelled right? an address needs no resolver"
    return ResolveError("resolve the host of", endpoint.label, number, hint)


def hint_for(doing: str, endpoint: Endpoint, number: int) -> str:
    """What to do about an errno; empty where there is no better word than the system's."""
    if endpoint.is_unix:
        if number == errno.ENOENT:
            return "no such socket file" if doing.startswith("connect") else "the directory does not exist"
        if number == errno.EACCES:
            who = "the socket file" if doing.startswith("connect") else "the directory"
            return f"{who} must be writable, and each directory above it searchable"
        return _UNIX_HINTS.get(number, "")
    if SCHEMES[endpoint.scheme].fields != "host and port":
        return ""
    return (_CONNECT_HINTS if doing.startswith("connect") else _BIND_HINTS).get(number, "")


def _eai_name(number: int) -> str:
    names = (name for name in dir(socket) if name.startswith("EAI_"))
    return next((name for name in names if getattr(socket, name) == number), str(number))


def _eai_text(number: int) -> str:
    return {
        socket.EAI_NONAME: "no such name",
        socket.EAI_NODATA: "the name has no address of this family",
        socket.EAI_AGAIN: "the resolver failed for now",
        socket.EAI_FAIL: "the resolver failed for good",
        socket.EAI_ADDRFAMILY: "the host has no address of this family",
        socket.EAI_MEMORY: "out of memory",
    }.get(number, "the resolver failed")
