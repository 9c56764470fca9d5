"""What a name means: addresses, other names, the service of a port, and the bytes of both on the wire.

How this file works:

1. `byte_order` and `socket_address` are pure: numbers as bytes, in network order and in a machine's own.
2. `NameService` is what the system is asked; `SystemNameService` asks it. Tests pass one of their own.
3. `resolve_args` puts both together. A question that has no answer leaves its place empty: only a host
   without any address is an error.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

from bothends.endpoints import Endpoint, endpoints_from_args
from bothends.errors import EndpointError
from bothends.sockets import ResolveError
from bothends.sockets.socket_errors import resolve_error

RunSpec = Literal["little", "big"]

SERVICE_PROTOCOLS: Final = ("tcp", "udp", "sctp", "dccp")  # that the services database knows ports of
REVERSE_LOOKUP_TIMEOUT: Final = 1.0  # seconds for the names of all addresses together: they are an extra


# Bytes


@dataclass(frozen=True, slots=True)
class ByteOrder:
    """A number as bytes: `network` order (the most significant byte first), the `machine`'s own `order`.

    `swapped` is the number that a little-endian machine makes of the network's bytes if it forgets ntohs or
    ntohl (byteorder(3)).
    """

    value: int
    network: bytes
    host: bytes
    order: RunSpec
    swapped: int


def byte_order(value: int, width: int, order: RunSpec = sys.byteorder) -> ByteOrder:
    """A number of `width` bytes, as htons(3) and htonl(3) see it on a machine of this `order`.

    Raises OverflowError for a number that doesn't fit.
    """
    network = value.to_bytes(width, "big")
    machine = value.to_bytes(width, order)
    return ByteOrder(value, network, machine, order, int.from_bytes(network, "little"))


def socket_address(address: str, port: int, order: RunSpec = sys.byteorder) -> list[tuple[str, bytes]]:
    """struct sockaddr_in (ip(7)) or sockaddr_in6 (ipv6(7)) of Linux, field by field, as connect(2) takes it.

    The family is the kernel's affair and in the machine's order; port and address go to the network as they
    stand. A zone becomes the scope id, as far as this machine has that interface.
    """
    own = "<" if order == "little" else ">"
    plain, _, zone = address.partition("%")
    parsed = ipaddress.ip_address(plain)
    if parsed.version == 4:
        fields = [("family", struct.pack(f"{own}H", 2))]  # AF_INET
        return [*fields, ("port", struct.pack("!H", port)), ("address", parsed.packed), ("zero", bytes(8))]
    scope = 0
    with contextlib.suppress(OSError):
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone) if zone else 0
    return [
        ("family", struct.pack(f"{own}H", 10)),  # AF_INET6
        ("port", struct.pack("!H", port)),
        ("flowinfo", bytes(4)),
        ("address", parsed.packed),
        ("scope id", struct.pack(f"{own}I", scope)),
    ]


# Lookups


class HostNames(NamedTuple):
    """An official name and the other names that the same entry has."""

    official: str
    aliases: tuple[str, ...]


class NameService(Protocol):
    """What is asked of the system. What is unknown is None or empty; only `addresses` raises."""

    def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
        """The canonical name and the addresses, without doubles. Raises socket.gaierror."""
        ...

    def names(self, host: str) -> HostNames | None:
        """Official name and aliases of a host: of IPv4 only, for the call is older than IPv6."""
        ...

    def reverse(self, address: str) -> HostNames | None:
        """The names of an address."""
        ...

    def service_port(self, service: str, protocol: str) -> int | None:
        """The port of a service."""
        ...

    def service_name(self, port: int, protocol: str) -> str | None:
        """The service of a port."""
        ...


class SystemNameService:
    """This machine's resolver and its services database: nsswitch.conf(5) says where they look."""

    def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
        found: Sequence[Any] = socket.getaddrinfo(
            host, None, family, socket.SOCK_STREAM, flags=socket.AI_CANONNAME
        )
        usable = [each for each in found if each[0] in (socket.AF_INET, socket.AF_INET6)]
        canonical = next((name for _, _, _, name, _ in usable if name), "")
        return canonical, list(dict.fromkeys(str(each[4][0]) for each in usable))

    def names(self, host: str) -> HostNames | None:
        try:
            official, aliases, _ = socket.gethostbyname_ex(host)
        except (OSError, UnicodeError):
            return None
        return HostNames(official, tuple(aliases))

    def reverse(self, address: str) -> HostNames | None:
        try:
            official, aliases, _ = socket.gethostbyaddr(address)
        except (OSError, UnicodeError):
            return None
        return HostNames(official, tuple(aliases))

    def service_port(self, service: str, protocol: str) -> int | None:
        try:
            return socket.getservbyname(service, protocol)
        except (OSError, UnicodeError, ValueError):
            return None

    def service_name(self, port: int, protocol: str) -> str | None:
        try:
            return socket.getservbyport(port, protocol)
        except OSError:
            return None


# What a name means


@dataclass(frozen=True, slots=True)
class ResolvedAddress:
    """One address: `family` 4 or 6, `kind` of network it belongs to in a word, its `names` by reverse lookup.

    `names` is None where the lookup gave nothing in time.
    """

    address: str
    family: int
    kind: str
    names: HostNames | None

    @property
    def packed(self) -> bytes:
        """Its 4 or 16 bytes, in network order."""
        return ipaddress.ip_address(self.address.partition("%")[0]).packed


@dataclass(frozen=True, slots=True)
class ResolvedService:
    """A port and what the services database calls it: `names` holds protocol and name, `asked` the word."""

    query: str
    port: int
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """What words mean. `host` is "" where they name a port only, `service` None where they name none."""

    host: str
    official: str
    aliases: tuple[str, ...]
    addresses: tuple[ResolvedAddress, ...]
    service: ResolvedService | None


def resolve_args(
    args: Sequence[str],
    name_service: NameService,
    *,
    family: int | None = None,
    reverse_timeout: float = REVERSE_LOOKUP_TIMEOUT,
) -> Resolution:
    """What a host, a port, a service or an endpoint means.

    `localhost`, `localhost 80`, `localhost:http`, `tcp://localhost:80`, `::1`, `80`, `:http`. One word that
    is the name of a service, `http`, is that, and a host too if there is one of that name. `family` 4 or 6
    leaves out the other's addresses; `reverse_timeout` in seconds, 0 for no names of addresses.

    Raises NameRefused for a host without address, EndpointError for words that can't be read.
    """
    host, port, its_family = _host_and_port(args)
    service = _lookup_service(port, name_service) if port else None
    if port and service is None:
        hint = "a port is a number from 0 to 65535, or a name of the services database (/etc/services)"
        raise EndpointError(" ".join(args), f"there is no service {port!r}", hint)
    if not host and service is None:
        raise EndpointError(" ".join(args), "it names neither a host nor a port")
    if not host:
        return Resolution("", "", (), (), service)
    if not port:
        service = _lookup_service(host, name_service) if not _is_address(host) else None
    try:
        return _resolve_host(host, service, name_service, family or its_family, reverse_timeout)
    except ResolveError:
        if port or service is None:
            raise
        return Resolution("", "", (), (), service)


def _host_and_port(args: Sequence[str]) -> tuple[str, str, int | None]:
    """Host, port (as a word, maybe a name) and family; each may be empty."""
    text = " ".join(args)
    if not 1 <= len(args) <= 2:
        raise EndpointError(text, "one name or endpoint is enough", "for example localhost:80")
    first = args[0]
    if len(args) == 2:
        return _normalize_host(text, _strip_brackets(first)), args[1], None
    if "://" in first:
        endpoint = Endpoint.parse(first)
        if endpoint.port is None or endpoint.scheme == "vsock":
            raise EndpointError(first, f"{endpoint.kind} has no name to resolve")
        port = str(endpoint.port) if endpoint.port else ""
        return endpoint.host, port, endpoint.number("family")
    if first.startswith(":") and first != "::" and ":" not in first[1:]:
        return "", first[1:], None
    if first.isascii() and first.isdigit():
        return "", first, None
    if first.startswith("["):
        inside, bracket, port = first[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise EndpointError(first, "a bracket is not closed", "for example [::1]:80")
        return _normalize_host(text, inside), port[1:], None
    if first.count(":") == 1:
        host, _, port = first.partition(":")
        return _normalize_host(text, host), port, None
    return _normalize_host(text, first), "", None


def _strip_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _normalize_host(text: str, host: str) -> str:
    """The host in its one spelling. Raises EndpointError."""
    if host.isdigit():
        raise EndpointError(text, f"{host!r} is not a host name", "the host stands before the port")
    try:
        (endpoint,) = endpoints_from_args([f"[{host}]" if ":" in host else host, "0"])
    except EndpointError as error:
        raise EndpointError(text, error.reason, error.hint) from None
    return endpoint.host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _lookup_service(word: str, name_service: NameService) -> ResolvedService | None:
    """What the services database says of a port or a name; None for a word that is neither."""
    if word.isascii() and word.isdigit():
        number = int(word) if len(word) <= 5 else 65536
        ports = [number] if number <= 65535 else []
    else:
        ports = [
            port for each in SERVICE_PROTOCOLS if (port := name_service.service_port(word, each)) is not None
        ]
    if not ports:
        return None
    port = ports[0]  # one name has one port, whatever the protocol, but for a handful of very old ones
    names = [(each, name_service.service_name(port, each)) for each in SERVICE_PROTOCOLS]
    return ResolvedService(word, port, tuple((each, name) for each, name in names if name))


def _resolve_host(
    host: str,
    service: ResolvedService | None,
    name_service: NameService,
    family: int | None,
    reverse_timeout: float,
) -> Resolution:
    wanted = {4: socket.AF_INET, 6: socket.AF_INET6}.get(family or 0, socket.AF_UNSPEC)
    try:
        canonical, addresses = name_service.addresses(host, wanted)
        if not addresses:
            raise socket.gaierror(socket.EAI_NODATA, "no IPv4 or IPv6 address")
    except socket.gaierror as error:
        refused = resolve_error(Endpoint("tcp", host, 0), error)
        raise ResolveError("resolve", host, refused.errno, refused.hint) from error
    names = None if _is_address(host) else name_service.names(host)
    others = [names.official, *names.aliases, host] if names else [host]
    official = canonical or (names.official if names else "") or host
    unique = tuple(dict.fromkeys(each for each in others if each != official))
    reverse = _call_all(name_service.reverse, addresses, reverse_timeout)
    meanings = tuple(
        ResolvedAddress(each, 6 if ":" in each else 4, network_kind(each), reverse.get(each))
        for each in addresses
    )
    return Resolution(host, official, unique, meanings, service)


def network_kind(address: str) -> str:
    """What kind of network an address belongs to, in words (RFC 6890 and the registries that it began)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.is_unspecified:
        return "every interface"
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return "IPv4 in IPv6"
    if parsed == ipaddress.IPv4Address("255.255.255.255"):
        return "broadcast"
    for word in ("loopback", "multicast", "link_local", "private", "global"):
        if getattr(parsed, f"is_{word}"):
            return word.replace("_", "-")
    return "reserved"


Answer = TypeVar("Answer")


def _call_all(
    lookup: Callable[[str], Answer | None], keys: Sequence[str], timeout: float
) -> dict[str, Answer]:
    """The answers that come in time, all asked at once.

    gethostbyaddr(3) can't be interrupted: a thread whose answer is too late is left behind, and ends with
    the program.
    """
    if timeout <= 0:
        return {}
    answers: dict[str, Answer] = {}
    left = threading.Semaphore(0)

    def one(question: str) -> None:
        try:
            if (answer := lookup(question)) is not None:
                answers[question] = answer
        finally:
            left.release()

    for question in keys:
        threading.Thread(target=one, args=(question,), daemon=True).start()
    end = time.monotonic() + timeout
    for _ in keys:
        if not left.acquire(timeout=max(0.0, end - time.monotonic())):
            break
    return dict(answers)
