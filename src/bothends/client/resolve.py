"""Explain names: addresses, aliases, the service of a port, and the bytes of both in network byte order.

How this file works:

1. `byte_order` and `socket_address` are pure: numbers as bytes, in network and in host byte order.
2. `NameService` is the interface to the resolver; `SystemNameService` implements it. Tests pass their own.
3. `resolve_args` combines both. A failed lookup leaves its field empty; only a host without any address is an
   error.
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

Endianness = Literal["little", "big"]

SERVICE_PROTOCOLS: Final = ("tcp", "udp", "sctp", "dccp")  # protocols of the services database
REVERSE_LOOKUP_TIMEOUT: Final = 1.0  # seconds for all reverse lookups together, which are optional


# Bytes


@dataclass(frozen=True, slots=True)
class ByteOrder:
    """A number as bytes: in `network` byte order (most significant byte first) and in `host` byte order.

    `order` is the host's byte order. `swapped` is the number that a little-endian host reads from the network
    bytes if it omits ntohs or ntohl (byteorder(3)).
    """

    value: int
    network: bytes
    host: bytes
    order: Endianness
    swapped: int


def byte_order(value: int, width: int, order: Endianness = sys.byteorder) -> ByteOrder:
    """Convert a number of `width` bytes, as htons(3) and htonl(3) do on a host with this byte `order`.

    Raises OverflowError for a number that does not fit.
    """
    network = value.to_bytes(width, "big")
    host = value.to_bytes(width, order)
    return ByteOrder(value, network, host, order, int.from_bytes(network, "little"))


def socket_address(address: str, port: int, order: Endianness = sys.byteorder) -> list[tuple[str, bytes]]:
    """Return the fields of Linux's struct sockaddr_in (ip(7)) or sockaddr_in6 (ipv6(7)) for connect(2).

    The family is only for the kernel and in host byte order; port and address are sent as they are. A zone
    becomes the scope ID if this machine has that interface, else 0.
    """
    host_order = "<" if order == "little" else ">"
    plain, _, zone = address.partition("%")
    parsed = ipaddress.ip_address(plain)
    if parsed.version == 4:
        fields = [("family", struct.pack(f"{host_order}H", 2))]  # AF_INET
        return [*fields, ("port", struct.pack("!H", port)), ("address", parsed.packed), ("zero", bytes(8))]
    scope = 0
    with contextlib.suppress(OSError):
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone) if zone else 0
    return [
        ("family", struct.pack(f"{host_order}H", 10)),  # AF_INET6
        ("port", struct.pack("!H", port)),
        ("flowinfo", bytes(4)),
        ("address", parsed.packed),
        ("scope id", struct.pack(f"{host_order}I", scope)),
    ]


# Lookups


class HostNames(NamedTuple):
    """The official name and the aliases of one entry."""

    official: str
    aliases: tuple[str, ...]


class NameService(Protocol):
    """Lookups by the system. Unknown results are None or empty; only `addresses` raises."""

    def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
        """Return the canonical name and the addresses, without duplicates. Raises socket.gaierror."""
        ...

    def names(self, host: str) -> HostNames | None:
        """Return official name and aliases of a host. IPv4 only, because the call predates IPv6."""
        ...

    def reverse(self, address: str) -> HostNames | None:
        """Return the names of an address."""
        ...

    def service_port(self, service: str, protocol: str) -> int | None:
        """Return the port of a service."""
        ...

    def service_name(self, port: int, protocol: str) -> str | None:
        """Return the service of a port."""
        ...


class SystemNameService:
    """The resolver and the services database of this machine, configured by nsswitch.conf(5)."""

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


# Results


@dataclass(frozen=True, slots=True)
class ResolvedAddress:
    """One address: `family` 4 or 6, the `kind` of its network, and its `names` by reverse lookup.

    `names` is None if the lookup found nothing in time.
    """

    address: str
    family: int
    kind: str
    names: HostNames | None

    @property
    def packed(self) -> bytes:
        """The 4 or 16 bytes of the address, in network byte order."""
        return ipaddress.ip_address(self.address.partition("%")[0]).packed


@dataclass(frozen=True, slots=True)
class ResolvedService:
    """A port with its service names: pairs of protocol and name. `query` is the word looked up."""

    query: str
    port: int
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """The result of `resolve_args`. `host` is "" for a port alone, `service` is None for a host alone."""

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
    """Resolve a host, a port, a service or an endpoint.

    The arguments may be `localhost`, `localhost 80`, `localhost:http`, `tcp://localhost:80`, `::1`, `80`,
    `:http`. A single word such as `http` is looked up as a service, and as a host if there is one of that
    name. `family` 4 or 6 limits the addresses. `reverse_timeout` in seconds; 0 for no reverse lookups.

    Raises ResolveError for a host without address, EndpointError for invalid arguments.
    """
    host, port, parsed_family = _host_and_port(args)
    service = _lookup_service(port, name_service) if port else None
    if port and service is None:
        hint = "a port is a number from 0 to 65535, or a name in the services database (/etc/services)"
        raise EndpointError(" ".join(args), f"there is no service {port!r}", hint)
    if not host and service is None:
        raise EndpointError(" ".join(args), "neither a host nor a port is given")
    if not host:
        return Resolution("", "", (), (), service)
    if not port:
        service = _lookup_service(host, name_service) if not _is_address(host) else None
    try:
        return _resolve_host(host, service, name_service, family or parsed_family, reverse_timeout)
    except ResolveError:
        if port or service is None:
            raise
        return Resolution("", "", (), (), service)


def _host_and_port(args: Sequence[str]) -> tuple[str, str, int | None]:
    """Split arguments into host, port (a number or a name) and family; each may be empty."""
    text = " ".join(args)
    if not 1 <= len(args) <= 2:
        raise EndpointError(text, "give one name or endpoint", "for example localhost:80")
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
            raise EndpointError(first, "'[' without ']'", "for example [::1]:80")
        return _normalize_host(text, inside), port[1:], None
    if first.count(":") == 1:
        host, _, port = first.partition(":")
        return _normalize_host(text, host), port, None
    return _normalize_host(text, first), "", None


def _strip_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _normalize_host(text: str, host: str) -> str:
    """Return the host in its canonical spelling. Raises EndpointError."""
    if host.isdigit():
        raise EndpointError(text, f"{host!r} is not a host name", "the host comes before the port")
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
    """Look up a port or a service name. Returns None for a word that is neither."""
    if word.isascii() and word.isdigit():
        number = int(word) if len(word) <= 5 else 65536
        ports = [number] if number <= 65535 else []
    else:
        ports = [
            port for each in SERVICE_PROTOCOLS if (port := name_service.service_port(word, each)) is not None
        ]
    if not ports:
        return None
    port = ports[0]  # a name has the same port for all protocols, except for a few very old services
    names = [(each, name_service.service_name(port, each)) for each in SERVICE_PROTOCOLS]
    return ResolvedService(word, port, tuple((each, name) for each, name in names if name))


def _resolve_host(
    host: str,
    service: ResolvedService | None,
    name_service: NameService,
    family: int | None,
    reverse_timeout: float,
) -> Resolution:
    address_family = {4: socket.AF_INET, 6: socket.AF_INET6}.get(family or 0, socket.AF_UNSPEC)
    try:
        canonical, addresses = name_service.addresses(host, address_family)
        if not addresses:
            raise socket.gaierror(socket.EAI_NODATA, "no IPv4 or IPv6 address")
    except socket.gaierror as error:
        translated = resolve_error(Endpoint("tcp", host, 0), error)
        raise ResolveError("resolve", host, translated.errno, translated.hint) from error
    names = None if _is_address(host) else name_service.names(host)
    others = [names.official, *names.aliases, host] if names else [host]
    official = canonical or (names.official if names else "") or host
    unique = tuple(dict.fromkeys(each for each in others if each != official))
    reverse = _call_all(name_service.reverse, addresses, reverse_timeout)
    resolved = tuple(
        ResolvedAddress(each, 6 if ":" in each else 4, network_kind(each), reverse.get(each))
        for each in addresses
    )
    return Resolution(host, official, unique, resolved, service)


def network_kind(address: str) -> str:
    """Return the kind of network that an address belongs to (RFC 6890 and its registries)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.is_unspecified:
        return "every interface"
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return "IPv4 in IPv6"
    if parsed == ipaddress.IPv4Address("255.255.255.255"):
        return "broadcast"
    for kind in ("loopback", "multicast", "link_local", "private", "global"):
        if getattr(parsed, f"is_{kind}"):
            return kind.replace("_", "-")
    return "reserved"


T = TypeVar("T")


def _call_all(lookup: Callable[[str], T | None], keys: Sequence[str], timeout: float) -> dict[str, T]:
    """Look up all keys concurrently. Returns the results that arrive in time.

    gethostbyaddr(3) cannot be interrupted, so a thread that is too late continues until the process exits.
    """
    if timeout <= 0:
        return {}
    results: dict[str, T] = {}
    completed = threading.Semaphore(0)

    def look_up(key: str) -> None:
        try:
            if (result := lookup(key)) is not None:
                results[key] = result
        finally:
            completed.release()

    for key in keys:
        threading.Thread(target=look_up, args=(key,), daemon=True).start()
    deadline = time.monotonic() + timeout
    for _ in keys:
        if not completed.acquire(timeout=max(0.0, deadline - time.monotonic())):
            break
    return dict(results)
