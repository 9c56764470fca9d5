"""Probe transports: ICMP over a ping socket or a raw socket, and UDP to an echo service.

How this file works:

1. ICMP uses a ping socket, which the sysctl net.ipv4.ping_group_range enables for ordinary users (icmp(7)),
   or else a raw socket, which needs CAP_NET_RAW (raw(7)). UDP needs an echo service (RFC 862).
2. All sockets are connected and enable IP_RECVERR (ip(7)). The kernel then quotes the probe that an ICMP
   error refers to, so it can be identified. That works for UDP too, where a plain ECONNREFUSED names no
   probe.
3. A round trip starts just before the probe is built and passed to the kernel, so the local cost of sending
   is included. It ends when the kernel received the reply (SO_TIMESTAMPNS, socket(7)), not when Python read
   it. That timestamp is of the wall clock, so only its age is used; if the age is implausible (the clock was
   set meanwhile), the time of reading is used.
"""

from __future__ import annotations

import contextlib
import errno
import math
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bothends.checksum import checksum
from bothends.client import icmp
from bothends.client.ping import ProbeFailure, RawReply, parse_probe_number
from bothends.endpoints import Endpoint
from bothends.errors import OUT_OF_DESCRIPTORS, EndpointError, SystemCallFailed, Unavailable, errno_text
from bothends.sockets import open_connection
from bothends.sockets.resolve import AddrInfo, Resolver, resolve_host

# linux/in.h, in6.h and asm-generic/socket.h; the socket module lacks these names.
_IP_RECVTTL: Final = 12
_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
_SO_TIMESTAMPNS: Final = 35
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1  # ICMP6_FILTER too
_MSG_ERRQUEUE: Final = 0x2000

_MAX_PACKET: Final = 65535 + 40  # bytes: the maximum of one receive
_CMSG_BUFFER_SIZE: Final = 512  # bytes: a timestamp, a TTL and an extended error with its address take 120
_MAX_BATCH: Final = 256  # messages read before probes are sent again, so that a flood cannot block sending
_MAX_TIMESTAMP_AGE: Final = 60.0  # seconds: a timestamp that seems older means that the clock was set


class _SocketTransport:
    """A connected socket with timestamps, hop counts and quoted errors."""

    def __init__(self, sock: socket.socket, description: str, address: str) -> None:
        self._socket = sock
        self.description = description
        self.address = address
        self.version = 6 if sock.family == socket.AF_INET6 else 4
        self._last_number = 0
        self._failures: list[RawReply | ProbeFailure] = []
        sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        options = [(socket.SOL_SOCKET, _SO_TIMESTAMPNS)]
        if self.version == 4:
            options += [(socket.IPPROTO_IP, _IP_RECVTTL), (socket.IPPROTO_IP, _IP_RECVERR)]
        else:
            options += [(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT)]
            options += [(socket.IPPROTO_IPV6, _IPV6_RECVERR)]
        for level, option in options:
            # All are optional: without them results are less precise, or errors less detailed.
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, 1)

    def send(self, number: int, payload: bytes) -> None:
        self._last_number = number
        message = self._build_probe(number, payload)
        while True:
            try:
                self._socket.send(message)
                return
            except OSError:
                # send() first reports the pending error of an earlier probe (udp(7)), without sending.
                errors = self._read_error_queue()
                self._failures += errors
                if not errors:
                    raise

    def wait(self, timeout: float) -> None:
        if not self._failures:
            # poll(2) takes milliseconds: rounded up, because 0 would spin until the timeout.
            self._poll.poll(math.ceil(timeout * 1000))

    def receive(self) -> list[RawReply | ProbeFailure]:
        found, self._failures = self._failures, []
        found += self._read_error_queue()
        while len(found) < _MAX_BATCH:
            try:
                data, ancillary, _, source = self._socket.recvmsg(_MAX_PACKET, _CMSG_BUFFER_SIZE)
            except BlockingIOError:
                break
            except OSError:
                errors = self._read_error_queue()
                if not errors:
                    break
                found += errors
                continue
            ttl, at = _parse_ancillary(ancillary)
            reply = self._parse_reply(data, source[0] if source else self.address, ttl, at)
            if reply is not None:
                found.append(reply)
        return found

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> _SocketTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_error_queue(self) -> list[ProbeFailure]:
        """Return the contents of the error queue. Reading it also clears the error of the socket."""
        found: list[ProbeFailure] = []
        while len(found) < _MAX_BATCH:
            try:
                quoted, ancillary, _, _ = self._socket.recvmsg(_MAX_PACKET, _CMSG_BUFFER_SIZE, _MSG_ERRQUEUE)
            except OSError:
                break
            for level, kind, data in ancillary:
                if (level, kind) not in (
                    (socket.IPPROTO_IP, _IP_RECVERR),
                    (socket.IPPROTO_IPV6, _IPV6_RECVERR),
                ):
                    continue
                error = icmp.parse_extended_error(data)
                if error is not None and error.version:  # the call itself has raised errors of this machine
                    reason = f"{error.description} [{errno.errorcode.get(error.errno, error.errno)}]"
                    source = icmp.parse_offender(data)
                    found.append(ProbeFailure(self._quoted_number(quoted), reason, source, error.errno))
        return found

    def _build_probe(self, number: int, payload: bytes) -> bytes:
        raise NotImplementedError

    def _parse_reply(self, data: bytes, source: str, ttl: int | None, received_at: float) -> RawReply | None:
        raise NotImplementedError

    def _quoted_number(self, data: bytes) -> int | None:
        raise NotImplementedError


def _parse_ancillary(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int | None, float]:
    """Return the remaining hop count, and the time of reception by the monotonic clock."""
    ttl = None
    at = time.monotonic()
    for level, kind, data in ancillary:
        if (level, kind) in (
            (socket.IPPROTO_IP, socket.IP_TTL),
            (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT),
        ):
            ttl = int(struct.unpack("=i", data[:4])[0])
        elif (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("@ll", data)  # struct timespec
            age = (time.time_ns() - seconds * 1_000_000_000 - nanoseconds) / 1e9
            if 0 <= age < _MAX_TIMESTAMP_AGE:
                at = time.monotonic() - age
    return ttl, at


class IcmpTransport(_SocketTransport):
    """ICMP echo. `raw`: over a raw socket, where this class handles identifiers and checksums itself."""

    def __init__(self, sock: socket.socket, address: str, *, raw: bool, identifier: int) -> None:
        self._raw = raw
        # The identifier of a ping socket is its "port", which the kernel writes into messages and matches.
        self._identifier = identifier if raw else int(sock.getsockname()[1])
        kind = "a raw socket" if raw else "a ping socket"
        super().__init__(
            sock, f"ICMP{'' if sock.family == socket.AF_INET else 'v6'} echo over {kind}", address
        )

    def _build_probe(self, number: int, payload: bytes) -> bytes:
        echo = icmp.IcmpEcho(self._identifier, number % icmp.SEQUENCE_MODULUS, payload)
        return icmp.build_request(self.version, echo)

    def _parse_reply(self, data: bytes, source: str, ttl: int | None, received_at: float) -> RawReply | None:
        message: bytes | None = data
        if self._raw and self.version == 4:
            # A raw socket receives packets before the kernel has verified their checksums.
            message = icmp.strip_ip_header(data)
            if message is None or checksum(message) != 0:
                return None
        echo = icmp.parse_reply(self.version, message or b"")
        if echo is None or echo.identifier != self._identifier:
            return None  # a raw socket also receives the replies for other programs
        number = icmp.unwrap_sequence(echo.sequence, self._last_number)
        return RawReply(number, echo.payload, len(message or b""), source, ttl, received_at)

    def _quoted_number(self, data: bytes) -> int | None:
        echo = icmp.parse_request(self.version, data)
        return None if echo is None else icmp.unwrap_sequence(echo.sequence, self._last_number)


class UdpTransport(_SocketTransport):
    """Numbered datagrams to an echo service."""

    def __init__(self, sock: socket.socket, token: int) -> None:
        super().__init__(sock, "UDP datagrams", sock.getpeername()[0])
        self._token = token

    def _build_probe(self, number: int, payload: bytes) -> bytes:
        return payload

    def _parse_reply(self, data: bytes, source: str, ttl: int | None, received_at: float) -> RawReply | None:
        return RawReply(
            parse_probe_number(self._token, data, self._last_number),
            data,
            len(data),
            source,
            ttl,
            received_at,
        )

    def _quoted_number(self, data: bytes) -> int | None:
        return parse_probe_number(self._token, data, self._last_number)


# Opening


def open_udp(endpoint: Endpoint, *, token: int) -> UdpTransport:
    """Open a transport to an echo service on UDP. Raises as `open_connection` does, or EndpointError."""
    if endpoint.scheme != "udp":
        raise EndpointError(str(endpoint), "ping needs a host, or an echo service on udp://")
    return UdpTransport(open_connection(endpoint), token)


def open_icmp(
    host: str,
    *,
    identifier: int,
    family: int | None = None,
    ttl: int | None = None,
    resolver: Resolver = socket.getaddrinfo,
    socket_factory: Callable[..., socket.socket] = socket.socket,
) -> IcmpTransport:
    """Open a transport to the first address of a host with a route. `family` 4 or 6; `ttl` in hops.

    `identifier` has 16 bits and is used on a raw socket only. `resolver` and `socket_factory` are for tests.

    Raises ResolveError, SystemCallFailed; Unavailable if this process may open neither kind of socket.
    """
    first_error: SystemCallFailed | None = None
    for target in resolve_host(host, "udp", family, resolver):
        try:
            return _open_target(target, host, identifier, ttl, socket_factory)
        except SystemCallFailed as error:
            # The first error is that of the preferred address, unless it is only a lack of permission.
            if first_error is None or not isinstance(error, Unavailable):
                first_error = error
    assert first_error is not None
    raise first_error


def _open_target(
    target: AddrInfo,
    host: str,
    identifier: int,
    ttl: int | None,
    socket_factory: Callable[..., socket.socket],
) -> IcmpTransport:
    version = 6 if target.family == socket.AF_INET6 else 4
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    raw = False
    try:
        sock = socket_factory(target.family, socket.SOCK_DGRAM, protocol)
    except OSError as ping_error:
        try:
            raw = True
            sock = socket_factory(target.family, socket.SOCK_RAW, protocol)
        except OSError as raw_error:
            errors = ExceptionGroup("neither kind of socket", [ping_error, raw_error])
            raise _icmp_unavailable(host, ping_error, raw_error) from errors
    try:
        if raw:
            level = _SOL_RAW if version == 4 else protocol
            sock.setsockopt(level, _ICMP_FILTER, icmp.reply_filter(version))
        if ttl is not None and version == 4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        elif ttl is not None:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
        # A connected socket receives no replies of other hosts, and all errors about its own probes.
        sock.connect(target.sockaddr)
        return IcmpTransport(sock, target.sockaddr[0], raw=raw, identifier=identifier)
    except OSError as error:
        sock.close()
        hint = {errno.ENETUNREACH: "no route to that network", errno.EACCES: "it may be a broadcast address"}
        number = error.errno or 0
        raise SystemCallFailed("ping", host, number, hint.get(number, "")) from error


def _icmp_unavailable(host: str, ping_error: OSError, raw_error: OSError) -> SystemCallFailed:
    numbers = (ping_error.errno or 0, raw_error.errno or 0)
    for number in numbers:
        if number in OUT_OF_DESCRIPTORS:
            return SystemCallFailed("ping", host, number, "too many open files: ulimit -n")
    if numbers[1] == errno.EAFNOSUPPORT:
        return Unavailable("ping", host, numbers[1], "this machine has no IPv6; try -4")
    reason = f"ping sockets fail with {errno_text(numbers[0])}, raw sockets with {errno_text(numbers[1])}"
    permission = "ping sockets need a group in net.ipv4.ping_group_range"
    with contextlib.suppress(OSError):
        limits = Path("/proc/sys/net/ipv4/ping_group_range").read_text(encoding="ascii").split()
        permission += f" (now {'..'.join(limits)}{', none' if int(limits[0]) > int(limits[1]) else ''})"
    hint = f"{permission}, raw sockets CAP_NET_RAW; UDP needs neither: bothends ping --udp {host} PORT"
    return Unavailable("ping", host, numbers[1], hint, reason)
