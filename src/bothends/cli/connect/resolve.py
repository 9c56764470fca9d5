"""`bothends connect --resolve`: what a name means, and its bytes in network order beside the host's."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bothends.cli import terminal

if TYPE_CHECKING:
    from bothends.client.resolve import NameService, Resolution, ResolvedAddress, ResolvedService


def show(
    words: Sequence[str],
    as_json: bool = False,
    *,
    family: int | None = None,
    numeric: bool = False,
    lookups: NameService | None = None,
) -> None:
    """Show what a host, a port, a service or an endpoint means. Nothing is connected to.

    `words` as on the command line; `family` 4 or 6; `numeric` asks for no names of addresses. `lookups`
    stands in for the system.

    Raises NameRefused, EndpointError, UnknownName.
    """
    from bothends.client.resolve import REVERSE_LOOKUP_TIMEOUT, SystemNameService, resolve_args

    within = 0.0 if numeric else REVERSE_LOOKUP_TIMEOUT
    meaning = resolve_args(words, lookups or SystemNameService(), family=family, reverse_timeout=within)
    if as_json:
        print(json.dumps(as_object(meaning), indent=2, ensure_ascii=False))  # noqa: T201
        return
    sections = [section for section in (_names(meaning), _service(meaning), _bytes(meaning)) if section]
    for place, section in enumerate(sections):
        if place:
            print()  # noqa: T201
        for line in section:
            print(line)  # noqa: T201


def hexadecimal(data: bytes) -> str:
    """`2e e0`."""
    return data.hex(" ")


def _names(meaning: Resolution) -> list[str]:
    if not meaning.host:
        return []
    rows = [("host", meaning.host), ("official name", meaning.official)]
    rows += [("alias", _escaped(alias)) for alias in meaning.aliases if alias != meaning.host]
    width = max(len(each.address) for each in meaning.addresses)
    kinds = max(len(each.kind) for each in meaning.addresses)
    for each in meaning.addresses:
        names = [each.names.official, *each.names.aliases] if each.names else []
        known = ", ".join(_escaped(name) for name in dict.fromkeys(names))
        row = f"{each.address:<{width}}  IPv{each.family}  {each.kind:<{kinds}}  {known}"
        rows.append(("address", row.rstrip()))
    return _aligned(rows)


def _service(meaning: Resolution) -> list[str]:
    service = meaning.service
    if service is None:
        return []
    rows = [("port", f"{service.port}")]
    if service.query != str(service.port):
        rows.insert(0, ("service", _escaped(service.query)))
    for name in dict.fromkeys(name for _, name in service.names):
        protocols = ", ".join(protocol for protocol, its in service.names if its == name)
        rows.append(("known as", f"{_escaped(name)} ({protocols})"))
    if not service.names:
        rows.append(("known as", "no service: nobody has it in the services database"))
    return _aligned(rows)


def _bytes(meaning: Resolution) -> list[str]:
    from bothends.client.resolve import socket_address

    rows = [*_port_bytes(meaning.service), *(_address_bytes(each) for each in meaning.addresses)]
    if not rows:
        return []
    heads = (
        "",
        "hexadecimal",
        "network order",
        f"this machine ({sys.byteorder} endian)",
        "in the wrong order",
    )
    lines = _table(heads, rows)
    port = meaning.service.port if meaning.service else 0
    for each in meaning.addresses:
        fields = socket_address(each.address, port)
        kind = "sockaddr_in" if each.family == 4 else "sockaddr_in6"
        names = [name for name, _ in fields]
        packed = [hexadecimal(data) for _, data in fields]
        widths = [max(map(len, both)) for both in zip(names, packed, strict=True)]
        lines.append("")
        label = f"struct {kind}"
        for start, cells in ((label, names), ("", packed)):
            padded = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
            lines.append(f"{start:<{len(label)}}  {padded}".rstrip())
    return lines


def _port_bytes(service: ResolvedService | None) -> list[tuple[str, ...]]:
    from bothends.client.resolve import byte_order

    if service is None:
        return []
    its = byte_order(service.port, 2)
    row = (
        f"port {its.value}",
        f"0x{its.value:04x}",
        hexadecimal(its.network),
        hexadecimal(its.host),
        str(its.swapped),
    )
    return [row]


def _address_bytes(each: ResolvedAddress) -> tuple[str, ...]:
    import ipaddress

    from bothends.client.resolve import byte_order

    network = hexadecimal(each.packed)
    if each.family == 6:
        # in6_addr is an array of bytes (RFC 3493 section 3.2): no machine turns it round.
        return (each.address, "", network, "the same: an array of bytes", "")
    its = byte_order(int.from_bytes(each.packed, "big"), 4)
    wrong = str(ipaddress.IPv4Address(its.swapped))
    return (each.address, f"0x{its.value:08x}", network, hexadecimal(its.host), wrong)


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Labels and values; a label that repeats is said once."""
    width = max(len(label) for label, _ in rows)
    lines, last = [], ""
    for label, value in rows:
        start = "" if label == last else label
        lines.append(f"{terminal.styled(f'{start:<{width}}', 'quiet', sys.stdout)}  {value}")
        last = label
    return lines


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        lines.append(terminal.styled(line, "quiet", sys.stdout) if row is heads else line)
    return lines


def _escaped(name: str) -> str:
    """A name that somebody else's name server may have sent."""
    from bothends.escaping import escape_text

    return escape_text(name)


def as_object(meaning: Resolution) -> dict[str, Any]:
    """The meaning for JSON; bytes as hexadecimal digits, in the order in which they stand in memory."""
    from bothends.client.resolve import byte_order, socket_address

    service = meaning.service
    port = service.port if service else 0
    addresses = []
    for each in meaning.addresses:
        entry: dict[str, Any] = {
            "address": each.address,
            "family": "inet6" if each.family == 6 else "inet",
            "kind": each.kind,
            "names": [each.names.official, *each.names.aliases] if each.names else [],
            "network_order": each.packed.hex(),
        }
        if each.family == 4:
            entry["machine_order"] = byte_order(int.from_bytes(each.packed, "big"), 4).host.hex()
        entry["sockaddr"] = {name: data.hex() for name, data in socket_address(each.address, port)}
        addresses.append(entry)
    found: dict[str, Any] = {
        "host": meaning.host or None,
        "official_name": meaning.official or None,
        "aliases": list(meaning.aliases),
        "addresses": addresses,
        "byte_order": sys.byteorder,
        "port": None,
    }
    if service is not None:
        its = byte_order(service.port, 2)
        found["port"] = {
            "number": its.value,
            "services": dict(service.names),
            "network_order": its.network.hex(),
            "machine_order": its.host.hex(),
            "wrong_order": its.swapped,
        }
    return found
