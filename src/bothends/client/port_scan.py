"""Which ports of a host are open: connecting without a word, many at once, and nothing left unsaid.

What an answer means:

- TCP: a connection that is accepted is *open*, and closed again at once; a reset is *refused*. Silence is
  *no answer*: the host is off, or something on the way drops the packets.
- UDP: nobody has to answer an empty datagram. One that does shows an *open* port; an ICMP "port unreachable"
  a *refused* one (udp(7)). Silence says neither, so it is called *open or no answer*, and never a success.
  Hosts limit how many ICMP errors they send (RFC 1812 section 4.3.2.8): so each datagram is sent twice,
  and of a range that is all closed some ports may still stay silent.

A port counts as what the best of the host's addresses says: a server may listen on one of them only.
"""

from __future__ import annotations

import contextlib
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
from typing import Any, Final, Literal

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, PortsError, SystemRefused, UnknownName
from bothends.sockets import NameRefused
from bothends.sockets.resolve import Resolver, Target, interleave, resolve

Transport = Literal["tcp", "udp"]
State = Literal["open", "open or no answer", "no answer", "refused", "failed"]

AT_ONCE: Final = 128  # ports tried at the same time: quick, and far below any limit of descriptors
SPARE: Final = 32  # descriptors that are left to others
_DATAGRAM_SHARE: Final = 0.5  # of the time limit after which the datagram is sent again

# The best first: what any address says of a port, the port is.
_RANK: Final[dict[State, int]] = {
    "open": 0,
    "open or no answer": 1,
    "no answer": 2,
    "refused": 3,
    "failed": 4,
}


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of one port. `errno` is 0 for one that is open, `seconds` how long it took to know."""

    port: int
    transport: Transport
    state: State
    errno: int
    address: str
    seconds: float


def parse_ports(
    words: Sequence[str],
    transport: Transport = "tcp",
    *,
    named: Callable[[str, str], int] = socket.getservbyname,
) -> list[int]:
    """The ports that words mean: `80`, `20-25`, `http`, `80,443`; each once, in the order of the words.

    `named` looks a name up in the services database (services(5)).

    Raises PortsError, UnknownName for a service that the database hasn't got.
    """
    found: dict[int, None] = {}
    for part in (part.strip() for word in words for part in word.split(",")):
        first, dash, last = part.partition("-")
        if not part:
            raise PortsError(",".join(words), "a port is missing between the commas")
        if dash and not first and _is_number(last):
            raise PortsError(part, "a range without a start", f"1-{last}, perhaps?")
        if dash and _is_number(first) and not last:
            raise PortsError(part, "a range without an end", f"{first}-65535, perhaps?")
        if dash and _is_number(first) and _is_number(last):
            low, high = _port(part, first), _port(part, last)
            if low > high:
                raise PortsError(part, "the range ends before it starts", f"{high}-{low}, perhaps?")
            found.update(dict.fromkeys(range(low, high + 1)))
        elif _is_number(part):
            found[_port(part, part)] = None
        else:
            found[_named(part, transport, named)] = None
    if not found:
        raise PortsError("", "none are named", "for example 80, 20-25, http, or 80,443")
    return list(found)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _port(part: str, digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else 65536  # int() refuses thousands of digits
    if not 1 <= number <= 65535:
        raise PortsError(part, "a port that one can connect to is between 1 and 65535")
    return number


def _named(name: str, transport: Transport, named: Callable[[str, str], int]) -> int:
    try:
        return named(name, transport)
    except (OSError, ValueError, UnicodeError):
        hint = "a port is a number, a range such as 20-25, or a name of the services database (/etc/services)"
        raise UnknownName(f"{transport} service", name, "", hint) from None


def scan(
    host: str,
    ports: Sequence[int],
    transport: Transport = "tcp",
    timeout: float = 2.0,
    *,
    family: int | None = None,
    at_once: int = AT_ONCE,
    resolver: Resolver = socket.getaddrinfo,
) -> Iterator[Result]:
    """Try each port of a host; results come in the order of `ports`, each as soon as it is its turn.

    `timeout` in seconds, for each address of each port. At most `at_once` sockets are open.

    Raises NameRefused for the host, EndpointError for a word that is none, SystemRefused where no socket
    can be had at all.
    """
    targets = _addresses(host, transport, family, resolver)
    results: dict[int, Result] = {}
    trying = _Scan(targets, ports, transport, timeout, _bounded(at_once))
    try:
        for port in ports:
            while port not in results:
                results.update((each.port, each) for each in trying.turn())
            yield results.pop(port)
    finally:
        trying.close()


def _bounded(at_once: int) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(at_once, soft - SPARE)) if soft != resource.RLIM_INFINITY else max(1, at_once)


def _addresses(host: str, transport: Transport, family: int | None, resolver: Resolver) -> list[Target]:
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    options: tuple[tuple[str, Any], ...] = (("family", family),) if family else ()
    try:
        return interleave(resolve(Endpoint(transport, plain, 0, options=options), resolver))
    except NameRefused as error:
        raise NameRefused("resolve the host", host, error.errno, error.hint) from error.__cause__
    except EndpointError as error:
        raise EndpointError(host, error.reason, error.hint) from None


@dataclass(slots=True)
class _Try:
    """A port on its way through the addresses."""

    port: int
    left: deque[Target]
    began: float
    target: Target | None = None
    sock: socket.socket | None = None
    deadline: float = 0.0
    again: float = math.inf  # when the datagram is sent once more
    best: Result | None = field(default=None)


class _Scan:
    """Attempts in one poll loop: non-blocking sockets, a few at a time."""

    def __init__(
        self,
        targets: Sequence[Target],
        ports: Sequence[int],
        transport: Transport,
        timeout: float,
        at_once: int,
    ) -> None:
        self._targets = targets
        self._queue = deque(ports)
        self._transport: Transport = transport
        self._timeout = timeout
        self._at_once = at_once
        self._running: dict[int, _Try] = {}
        self._poll = select.poll()

    def turn(self) -> list[Result]:
        """Start what may start, wait until something happens; the ports that are decided since."""
        found = []
        while self._queue and len(self._running) < self._at_once:
            trying = _Try(self._queue[0], deque(self._targets), time.monotonic())
            result = self._start(trying)
            if result is None and trying.sock is None:
                break  # out of descriptors: it has its turn when another port is done
            self._queue.popleft()
            if result is not None:
                found.append(result)
        if found or not self._running:
            return found
        next_end = min(min(each.deadline, each.again) for each in self._running.values())
        milliseconds = math.ceil(max(0.0, next_end - time.monotonic()) * 1000)
        for descriptor, _ in self._poll.poll(milliseconds):
            result = self._answered(self._running[descriptor])
            if result is not None:
                found.append(result)
        return found + self._too_late()

    def close(self) -> None:
        """Leave no socket open."""
        for trying in self._running.values():
            if trying.sock is not None:
                trying.sock.close()
        self._running.clear()

    def _start(self, trying: _Try) -> Result | None:
        """Try the next address; the result if that was the last and is decided already."""
        while trying.left:
            trying.target = target = trying.left.popleft()
            kind = socket.SOCK_STREAM if self._transport == "tcp" else socket.SOCK_DGRAM
            now = time.monotonic()
            try:
                sock = socket.socket(target.family, kind)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    if not self._running:
                        hint = "too many open files: ulimit -n"
                        raise SystemRefused("scan", target.sockaddr[0], error.errno, hint) from error
                    if trying.best is None and len(trying.left) == len(self._targets) - 1:
                        return None
                result = self._closed(trying, "failed", error.errno or 0)
                if result is not None:
                    return result
                continue
            sock.setblocking(False)
            sockaddr = (target.sockaddr[0], trying.port, *target.sockaddr[2:])
            number = sock.connect_ex(sockaddr)
            if number == 0 and self._transport == "udp":
                number = _send_nothing(sock)
                trying.again = now + self._timeout * _DATAGRAM_SHARE
            if number in (0, errno.EINPROGRESS):
                trying.sock, trying.deadline = sock, now + self._timeout
                self._running[sock.fileno()] = trying
                self._poll.register(sock, select.POLLOUT if self._transport == "tcp" else select.POLLIN)
                return None
            sock.close()
            result = self._closed(trying, _state(number), number)
            if result is not None:
                return result
        return trying.best

    def _answered(self, trying: _Try) -> Result | None:
        assert trying.sock is not None
        number = trying.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number == 0 and self._transport == "udp":
            try:
                trying.sock.recv(1)
            except BlockingIOError:
                return None  # a datagram with a wrong checksum woke us (select(2), BUGS)
            except OSError as error:
                number = error.errno or 0
        elif number == 0 and _met_itself(trying.sock):
            number = errno.ECONNREFUSED
        return self._next(trying, "open" if number == 0 else _state(number), number)

    def _too_late(self) -> list[Result]:
        now = time.monotonic()
        found = []
        for trying in list(self._running.values()):
            result = None
            if now >= trying.deadline:
                state: State = "no answer" if self._transport == "tcp" else "open or no answer"
                result = self._next(trying, state, errno.ETIMEDOUT)
            elif now >= trying.again:
                trying.again = math.inf
                assert trying.sock is not None
                if number := _send_nothing(trying.sock):
                    result = self._next(trying, _state(number), number)
            if result is not None:
                found.append(result)
        return found

    def _next(self, trying: _Try, state: State, number: int) -> Result | None:
        """One address has said its word: the result, or None where another address is tried now."""
        assert trying.sock is not None
        del self._running[trying.sock.fileno()]
        self._poll.unregister(trying.sock)
        trying.sock.close()
        trying.sock, trying.again = None, math.inf
        return self._closed(trying, state, number) or self._start(trying)

    def _closed(self, trying: _Try, state: State, number: int) -> Result | None:
        assert trying.target is not None
        took = time.monotonic() - trying.began
        address = trying.target.sockaddr[0]
        result = Result(trying.port, self._transport, state, number, address, took)
        if trying.best is None or _RANK[state] < _RANK[trying.best.state]:
            trying.best = result
        return trying.best if state == "open" or not trying.left else None


def _state(number: int) -> State:
    if number in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused"
    return "no answer" if number in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN) else "failed"


def _send_nothing(sock: socket.socket) -> int:
    """Send an empty datagram, which UDP carries as any other; the errno, or 0."""
    try:
        sock.send(b"")
    except OSError as error:
        return error.errno or 0
    return 0


def _met_itself(sock: socket.socket) -> bool:
    """Whether it is connected to itself: a free port of this machine as source and as destination.

    RFC 9293 section 3.5, simultaneous open.
    """
    with contextlib.suppress(OSError):
        return bool(sock.getsockname() == sock.getpeername())
    return False


def words_for(result: Result) -> str:
    """The state in words, with the errno's name where it says more."""
    if result.state in ("open", "open or no answer"):
        return result.state
    name = errno.errorcode.get(result.errno, str(result.errno))
    if result.state == "failed":
        return f"failed: {name} ({os.strerror(result.errno)})"
    return f"{result.state} ({name})"
