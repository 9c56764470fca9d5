"""What a name means: addresses, other names, the service of a port, and the bytes of both on the wire.

How this file works:

1. `byte_order` and `socket_address` are pure: numbers as bytes, in network order and in a machine's own.
2. `Lookups` is what the system is asked; `SystemLookups` asks it. Tests pass one of their own.
3. `resolve_words` puts both together. A question that has no answer leaves its place empty: only a host
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

from bothends.endpoints import Endpoint, from_words
from bothends.errors import EndpointError
from bothends.sockets import NameRefused
from bothends.sockets.socket_errors import unresolved

Order = Literal["little", "big"]

PROTOCOLS: Final = ("tcp", "udp", "sctp", "dccp")  # that the services database knows ports of
REVERSE_WITHIN: Final = 1.0  # seconds for the names of all addresses together: they are an extra


# Bytes


@dataclass(frozen=True, slots=True)
class ByteOrder:
    """A number as bytes: `network` order (the most significant byte first), the `machine`'s own `order`.

    `swapped` is the number that a little-endian machine makes of the network's bytes if it forgets ntohs or
    ntohl (byteorder(3)).
    """

    value: int
    network: bytes
    machine: bytes
    order: Order
    swapped: int


def byte_order(value: int, width: int, order: Order = sys.byteorder) -> ByteOrder:
    """A number of `width` bytes, as htons(3) and htonl(3) see it on a machine of this `order`.

    Raises OverflowError for a number that doesn't fit.
    """
    network = value.to_bytes(width, "big")
    machine = value.to_bytes(width, order)
    return ByteOrder(value, network, machine, order, int.from_bytes(network, "little"))


def socket_address(address: str, port: int, order: Order = sys.byteorder) -> list[tuple[str, bytes]]:
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


class Names(NamedTuple):
    """An official name and the other names that the same entry has."""

    official: str
    aliases: tuple[str, ...]


class Lookups(Protocol):
    """What is asked of the system. What is unknown is None or empty; only `addresses` raises."""

    def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
        """The canonical name and the addresses, without doubles. Raises socket.gaierror."""
        ...

    def names(self, host: str) -> Names | None:
        """Official name and aliases of a host: of IPv4 only, for the call is older than IPv6."""
        ...

    def reverse(self, address: str) -> Names | None:
        """The names of an address."""
        ...

    def port_named(self, service: str, protocol: str) -> int | None:
        """The port of a service."""
        ...

    def service_at(self, port: int, protocol: str) -> str | None:
        """The service of a port."""
        ...


class SystemLookups:
    """This machine's resolver and its services database: nsswitch.conf(5) says where they look."""

    def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
        found: Sequence[Any] = socket.getaddrinfo(
            host, None, family, socket.SOCK_STREAM, flags=socket.AI_CANONNAME
        )
        usable = [each for each in found if each[0] in (socket.AF_INET, socket.AF_INET6)]
        canonical = next((name for _, _, _, name, _ in usable if name), "")
        return canonical, list(dict.fromkeys(str(each[4][0]) for each in usable))

    def names(self, host: str) -> Names | None:
        try:
            official, aliases, _ = socket.gethostbyname_ex(host)
        except (OSError, UnicodeError):
            return None
        return Names(official, tuple(aliases))

    def reverse(self, address: str) -> Names | None:
        try:
            official, aliases, _ = socket.gethostbyaddr(address)
        except (OSError, UnicodeError):
            return None
        return Names(official, tuple(aliases))

    def port_named(self, service: str, protocol: str) -> int | None:
        try:
            return socket.getservbyname(service, protocol)
        except (OSError, UnicodeError, ValueError):
            return None

    def service_at(self, port: int, protocol: str) -> str | None:
        try:
            return socket.getservbyport(port, protocol)
        except OSError:
            return None


# What a name means


@dataclass(frozen=True, slots=True)
class AddressMeaning:
    """One address: `family` 4 or 6, `kind` of network it belongs to in a word, its `names` by reverse lookup.

    `names` is None where the lookup gave nothing in time.
    """

    address: str
    family: int
    kind: str
    names: Names | None

    @property
    def packed(self) -> bytes:
        """Its 4 or 16 bytes, in network order."""
        return ipaddress.ip_address(self.address.partition("%")[0]).packed


@dataclass(frozen=True, slots=True)
class ServiceMeaning:
    """A port and what the services database calls it: `names` holds protocol and name, `asked` the word."""

    asked: str
    port: int
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What words mean. `host` is "" where they name a port only, `service` None where they name none."""

    host: str
    official: str
    aliases: tuple[str, ...]
    addresses: tuple[AddressMeaning, ...]
    service: ServiceMeaning | None


def resolve_words(
    words: Sequence[str],
    lookups: Lookups,
    *,
    family: int | None = None,
    reverse_within: float = REVERSE_WITHIN,
) -> Meaning:
    """What a host, a port, a service or an endpoint means.

    `localhost`, `localhost 80`, `localhost:http`, `tcp://localhost:80`, `::1`, `80`, `:http`. One word that
    is the name of a service, `http`, is that, and a host too if there is one of that name. `family` 4 or 6
    leaves out the other's addresses; `reverse_within` in seconds, 0 for no names of addresses.

    Raises NameRefused for a host without address, EndpointError for words that can't be read.
    """
    host, port, its_family = _host_and_port(words)
    service = _service(port, lookups) if port else None
    if port and service is None:
        hint = "a port is a number from 0 to 65535, or a name of the services database (/etc/services)"
        raise EndpointError(" ".join(words), f"there is no service {port!r}", hint)
    if not host and service is None:
        raise EndpointError(" ".join(words), "it names neither a host nor a port")
    if not host:
        return Meaning("", "", (), (), service)
    if not port:
        service = _service(host, lookups) if not _is_address(host) else None
    try:
        return _meaning(host, service, lookups, family or its_family, reverse_within)
    except NameRefused:
        if port or service is None:
            raise
        return Meaning("", "", (), (), service)


def _host_and_port(words: Sequence[str]) -> tuple[str, str, int | None]:
    """Host, port (as a word, maybe a name) and family; each may be empty."""
    text = " ".join(words)
    if not 1 <= len(words) <= 2:
        raise EndpointError(text, "one name or endpoint is enough", "for example localhost:80")
    first = words[0]
    if len(words) == 2:
        return _checked(text, _bare(first)), words[1], None
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
        return _checked(text, inside), port[1:], None
    if first.count(":") == 1:
        host, _, port = first.partition(":")
        return _checked(text, host), port, None
    return _checked(text, first), "", None


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _checked(text: str, host: str) -> str:
    """The host in its one spelling. Raises EndpointError."""
    if host.isdigit():
        raise EndpointError(text, f"{host!r} is not a host name", "the host stands before the port")
    try:
        (endpoint,) = from_words([f"[{host}]" if ":" in host else host, "0"])
    except EndpointError as error:
        raise EndpointError(text, error.reason, error.hint) from None
    return endpoint.host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _service(word: str, lookups: Lookups) -> ServiceMeaning | None:
    """What the services database says of a port or a name; None for a word that is neither."""
    if word.isascii() and word.isdigit():
        number = int(word) if len(word) <= 5 else 65536
        ports = [number] if number <= 65535 else []
    else:
        ports = [port for each in PROTOCOLS if (port := lookups.port_named(word, each)) is not None]
    if not ports:
        return None
    port = ports[0]  # one name has one port, whatever the protocol, but for a handful of very old ones
    names = [(each, lookups.service_at(port, each)) for each in PROTOCOLS]
    return ServiceMeaning(word, port, tuple((each, name) for each, name in names if name))


def _meaning(
    host: str, service: ServiceMeaning | None, lookups: Lookups, family: int | None, reverse_within: float
) -> Meaning:
    wanted = {4: socket.AF_INET, 6: socket.AF_INET6}.get(family or 0, socket.AF_UNSPEC)
    try:
        canonical, addresses = lookups.addresses(host, wanted)
        if not addresses:
            raise socket.gaierror(socket.EAI_NODATA, "no IPv4 or IPv6 address")
    except socket.gaierror as error:
        refused = unresolved(Endpoint("tcp", host, 0), error)
        raise NameRefused("resolve", host, refused.errno, refused.hint) from error
    names = None if _is_address(host) else lookups.names(host)
    others = [names.official, *names.aliases, host] if names else [host]
    official = canonical or (names.official if names else "") or host
    unique = tuple(dict.fromkeys(each for each in others if each != official))
    reverse = _in_time(lookups.reverse, addresses, reverse_within)
    meanings = tuple(
        AddressMeaning(each, 6 if ":" in each else 4, kind_of(each), reverse.get(each)) for each in addresses
    )
    return Meaning(host, official, unique, meanings, service)


def kind_of(address: str) -> str:
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


Answered = TypeVar("Answered")


def _in_time(
    ask: Callable[[str], Answered | None], questions: Sequence[str], seconds: float
) -> dict[str, Answered]:
    """The answers that come in time, all asked at once.

    gethostbyaddr(3) can't be interrupted: a thread whose answer is too late is left behind, and ends with
    the program.
    """
    if seconds <= 0:
        return {}
    answers: dict[str, Answered] = {}
    left = threading.Semaphore(0)

    def one(question: str) -> None:
        try:
            if (answer := ask(question)) is not None:
                answers[question] = answer
        finally:
            left.release()

    for question in questions:
        threading.Thread(target=one, args=(question,), daemon=True).start()
    end = time.monotonic() + seconds
    for _ in questions:
        if not left.acquire(timeout=max(0.0, end - time.monotonic())):
            break
    return dict(answers)
