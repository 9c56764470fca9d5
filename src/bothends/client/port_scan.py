"""Scan ports: find the open ports of a host by connecting to many ports concurrently, without sending data.

Results:

- TCP: a port that accepts the connection is *open*, and the connection is closed at once. A reset means
  *refused*. *No answer*: the host is down, or a firewall drops the packets.
- UDP: no server has to reply to an empty datagram. A reply means *open*; an ICMP "port unreachable" means
  *refused* (udp(7)). No reply means *open or no answer*, which never counts as a success. Hosts limit their
  rate of ICMP errors (RFC 1812 section 4.3.2.8), so each datagram is sent twice, and some ports of a closed
  range may still give no answer.

The result of a port is the best result among the host's addresses, because a server may listen on one only.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bothends.errors import OUT_OF_DESCRIPTORS, PortSpecError, SystemCallFailed, UnknownName
from bothends.sockets.connecting import is_self_connected
from bothends.sockets.resolve import AddrInfo, Resolver, resolve_host

Transport = Literal["tcp", "udp"]
PortState = Literal["open", "open or no answer", "no answer", "refused", "failed"]

MAX_CONCURRENT: Final = 128  # ports at the same time: fast, and far below the usual limit of descriptors
RESERVED_DESCRIPTORS: Final = 32  # descriptors left for other uses
_RETRANSMIT_AFTER: Final = 0.5  # the fraction of the timeout after which the datagram is sent again

# Best first: the best result of any address is the result of the port.
_STATE_PRIORITY: Final[dict[PortState, int]] = {
    "open": 0,
    "open or no answer": 1,
    "no answer": 2,
    "refused": 3,
    "failed": 4,
}


@dataclass(frozen=True, slots=True)
class PortResult:
    """The result of one port. `errno` is 0 if it is open; `seconds` is the time until the result."""

    port: int
    transport: Transport
    state: PortState
    errno: int
    address: str
    seconds: float


def parse_ports(
    specs: Sequence[str],
    transport: Transport = "tcp",
    *,
    lookup: Callable[[str, str], int] = socket.getservbyname,
) -> list[int]:
    """Parse port specifications such as `80`, `20-25`, `http`, `80,443` into ports, in order, each once.

    `lookup` finds the port of a service name; default: the services database (services(5)).

    Raises PortSpecError, or UnknownName for an unknown service.
    """
    found: dict[int, None] = {}
    for part in (part.strip() for spec in specs for part in spec.split(",")):
        first, dash, last = part.partition("-")
        if not part:
            raise PortSpecError(",".join(specs), "an empty item between commas")
        if dash and not first and _is_number(last):
            raise PortSpecError(part, "a range without a start", f"for example 1-{last}")
        if dash and _is_number(first) and not last:
            raise PortSpecError(part, "a range without an end", f"for example {first}-65535")
        if dash and _is_number(first) and _is_number(last):
            low, high = _parse_port(part, first), _parse_port(part, last)
            if low > high:
                raise PortSpecError(part, "the range ends before it starts", f"write {high}-{low}")
            found.update(dict.fromkeys(range(low, high + 1)))
        elif _is_number(part):
            found[_parse_port(part, part)] = None
        else:
            found[_lookup_service(part, transport, lookup)] = None
    if not found:
        raise PortSpecError("", "no ports given", "for example 80, 20-25, http, or 80,443")
    return list(found)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _parse_port(part: str, digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else 65536  # int() refuses thousands of digits
    if not 1 <= number <= 65535:
        raise PortSpecError(part, "a port to connect to is between 1 and 65535")
    return number


def _lookup_service(name: str, transport: Transport, lookup: Callable[[str, str], int]) -> int:
    try:
        return lookup(name, transport)
    except (OSError, ValueError, UnicodeError):
        hint = "a port is a number, a range such as 20-25, or a name in the services database (/etc/services)"
        raise UnknownName(f"{transport} service", name, "", hint) from None


def scan(
    host: str,
    ports: Sequence[int],
    transport: Transport = "tcp",
    timeout: float = 2.0,
    *,
    family: int | None = None,
    max_concurrent: int = MAX_CONCURRENT,
    resolver: Resolver = socket.getaddrinfo,
) -> Iterator[PortResult]:
    """Scan ports of a host. Yields the results in the order of `ports`, each as early as possible.

    `timeout` in seconds, for each address of each port. At most `max_concurrent` sockets are open.

    Raises EndpointError for an invalid host, ResolveError, SystemCallFailed if no socket can be opened.
    """
    targets = resolve_host(host, transport, family, resolver)
    results: dict[int, PortResult] = {}
    scanner = _Scanner(targets, ports, transport, timeout, _concurrency_limit(max_concurrent))
    try:
        for port in ports:
            while port not in results:
                results.update((each.port, each) for each in scanner.run_once())
            yield results.pop(port)
    finally:
        scanner.close()


def _concurrency_limit(requested: int) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        max(1, min(requested, soft - RESERVED_DESCRIPTORS))
        if soft != resource.RLIM_INFINITY
        else max(1, requested)
    )


@dataclass(slots=True)
class _Attempt:
    """The scan of one port over the addresses of the host."""

    port: int
    remaining: deque[AddrInfo]
    started: float
    target: AddrInfo | None = None
    sock: socket.socket | None = None
    deadline: float = 0.0
    retransmit_at: float = math.inf  # when to send the datagram again
    best: PortResult | None = field(default=None)


class _Scanner:
    """Concurrent attempts on non-blocking sockets in one poll loop."""

    def __init__(
        self,
        targets: Sequence[AddrInfo],
        ports: Sequence[int],
        transport: Transport,
        timeout: float,
        max_concurrent: int,
    ) -> None:
        self._targets = targets
        self._queue = deque(ports)
        self._transport: Transport = transport
        self._timeout = timeout
        self._max_concurrent = max_concurrent
        self._running: dict[int, _Attempt] = {}
        self._poll = select.poll()

    def run_once(self) -> list[PortResult]:
        """Start new attempts up to the limit, and wait for events. Returns the ports with a result."""
        found = []
        while self._queue and len(self._running) < self._max_concurrent:
            attempt = _Attempt(self._queue[0], deque(self._targets), time.monotonic())
            result = self._start(attempt)
            if result is None and attempt.sock is None:
                break  # out of descriptors: retried when another port is done
            self._queue.popleft()
            if result is not None:
                found.append(result)
        if found or not self._running:
            return found
        next_deadline = min(min(each.deadline, each.retransmit_at) for each in self._running.values())
        milliseconds = math.ceil(max(0.0, next_deadline - time.monotonic()) * 1000)
        for descriptor, _ in self._poll.poll(milliseconds):
            result = self._on_ready(self._running[descriptor])
            if result is not None:
                found.append(result)
        return found + self._expire()

    def close(self) -> None:
        """Close all sockets."""
        for attempt in self._running.values():
            if attempt.sock is not None:
                attempt.sock.close()
        self._running.clear()

    def _start(self, attempt: _Attempt) -> PortResult | None:
        """Try the next addresses. Returns the result if the last one has failed already, or None."""
        while attempt.remaining:
            attempt.target = target = attempt.remaining.popleft()
            kind = socket.SOCK_STREAM if self._transport == "tcp" else socket.SOCK_DGRAM
            now = time.monotonic()
            try:
                sock = socket.socket(target.family, kind)
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    if not self._running:
                        hint = "too many open files: ulimit -n"
                        raise SystemCallFailed("scan", target.sockaddr[0], error.errno, hint) from error
                    if attempt.best is None and len(attempt.remaining) == len(self._targets) - 1:
                        return None
                result = self._record(attempt, "failed", error.errno or 0)
                if result is not None:
                    return result
                continue
            sock.setblocking(False)
            sockaddr = (target.sockaddr[0], attempt.port, *target.sockaddr[2:])
            number = sock.connect_ex(sockaddr)
            if number == 0 and self._transport == "udp":
                number = _send_empty(sock)
                attempt.retransmit_at = now + self._timeout * _RETRANSMIT_AFTER
            if number in (0, errno.EINPROGRESS):
                attempt.sock, attempt.deadline = sock, now + self._timeout
                self._running[sock.fileno()] = attempt
                self._poll.register(sock, select.POLLOUT if self._transport == "tcp" else select.POLLIN)
                return None
            sock.close()
            result = self._record(attempt, _state_for_errno(number), number)
            if result is not None:
                return result
        return attempt.best

    def _on_ready(self, attempt: _Attempt) -> PortResult | None:
        assert attempt.sock is not None
        number = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number == 0 and self._transport == "udp":
            try:
                attempt.sock.recv(1)
            except BlockingIOError:
                return None  # poll() reported a datagram with a wrong checksum (select(2), BUGS)
            except OSError as error:
                number = error.errno or 0
        elif number == 0 and is_self_connected(attempt.sock):
            number = errno.ECONNREFUSED
        return self._try_next(attempt, "open" if number == 0 else _state_for_errno(number), number)

    def _expire(self) -> list[PortResult]:
        now = time.monotonic()
        found = []
        for attempt in list(self._running.values()):
            result = None
            if now >= attempt.deadline:
                state: PortState = "no answer" if self._transport == "tcp" else "open or no answer"
                result = self._try_next(attempt, state, errno.ETIMEDOUT)
            elif now >= attempt.retransmit_at:
                attempt.retransmit_at = math.inf
                assert attempt.sock is not None
                if number := _send_empty(attempt.sock):
                    result = self._try_next(attempt, _state_for_errno(number), number)
            if result is not None:
                found.append(result)
        return found

    def _try_next(self, attempt: _Attempt, state: PortState, number: int) -> PortResult | None:
        """Record the result of one address. Returns the result of the port, or None if another is tried."""
        assert attempt.sock is not None
        del self._running[attempt.sock.fileno()]
        self._poll.unregister(attempt.sock)
        attempt.sock.close()
        attempt.sock, attempt.retransmit_at = None, math.inf
        return self._record(attempt, state, number) or self._start(attempt)

    def _record(self, attempt: _Attempt, state: PortState, number: int) -> PortResult | None:
        assert attempt.target is not None
        seconds = time.monotonic() - attempt.started
        address = attempt.target.sockaddr[0]
        result = PortResult(attempt.port, self._transport, state, number, address, seconds)
        if attempt.best is None or _STATE_PRIORITY[state] < _STATE_PRIORITY[attempt.best.state]:
            attempt.best = result
        return attempt.best if state == "open" or not attempt.remaining else None


def _state_for_errno(number: int) -> PortState:
    if number in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused"
    return "no answer" if number in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN) else "failed"


def _send_empty(sock: socket.socket) -> int:
    """Send an empty datagram. Returns the errno, or 0."""
    try:
        sock.send(b"")
    except OSError as error:
        return error.errno or 0
    return 0


def describe_result(result: PortResult) -> str:
    """Return the state as text, with the name of the errno if there is one."""
    if result.state in ("open", "open or no answer"):
        return result.state
    name = errno.errorcode.get(result.errno, str(result.errno))
    if result.state == "failed":
        return f"failed: {name} ({os.strerror(result.errno)})"
    return f"{result.state} ({name})"
