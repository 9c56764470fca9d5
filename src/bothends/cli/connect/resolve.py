"""`bothends connect --resolve`: resolve names and ports, and show their bytes in network and host order."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bothends.cli import terminal

if TYPE_CHECKING:
    from bothends.client.resolve import NameService, Resolution, ResolvedAddress, ResolvedService


def show(
    args: Sequence[str],
    as_json: bool = False,
    *,
    family: int | None = None,
    numeric: bool = False,
    name_service: NameService | None = None,
) -> None:
    """Print the addresses and ports of a host, a service or an endpoint, without connecting to them.

    Args:
        args: HOST, PORT or ENDPOINT, as on the command line.
        as_json: print JSON.
        family: 4 or 6; None for both.
        numeric: do no reverse lookup of addresses.
        name_service: used instead of the system's, for tests.

    Raises:
        SystemCallFailed: the name cannot be resolved.
        EndpointError, UnknownName: invalid arguments.
    """
    from bothends.client.resolve import REVERSE_LOOKUP_TIMEOUT, SystemNameService, resolve_args

    timeout = 0.0 if numeric else REVERSE_LOOKUP_TIMEOUT
    found = resolve_args(args, name_service or SystemNameService(), family=family, reverse_timeout=timeout)
    if as_json:
        terminal.show_json(as_object(found), indent=2)
        return
    sections = [section for section in (_names(found), _service(found), _bytes(found)) if section]
    for index, section in enumerate(sections):
        if index:
            terminal.show()
        for line in section:
            terminal.show(line)


def hexadecimal(data: bytes) -> str:
    """Return bytes as hexadecimal digits: `2e e0`."""
    return data.hex(" ")


def _names(resolution: Resolution) -> list[str]:
    if not resolution.host:
        return []
    rows = [("host", resolution.host), ("official name", resolution.official)]
    rows += [("alias", _escaped(alias)) for alias in resolution.aliases if alias != resolution.host]
    width = max(len(each.address) for each in resolution.addresses)
    kinds = max(len(each.kind) for each in resolution.addresses)
    for each in resolution.addresses:
        names = [each.names.official, *each.names.aliases] if each.names else []
        known = ", ".join(_escaped(name) for name in dict.fromkeys(names))
        row = f"{each.address:<{width}}  IPv{each.family}  {each.kind:<{kinds}}  {known}"
        rows.append(("address", row.rstrip()))
    return _aligned(rows)


def _service(resolution: Resolution) -> list[str]:
    service = resolution.service
    if service is None:
        return []
    rows = [("port", f"{service.port}")]
    if service.query != str(service.port):
        rows.insert(0, ("service", _escaped(service.query)))
    for name in dict.fromkeys(name for _, name in service.names):
        protocols = ", ".join(protocol for protocol, each in service.names if each == name)
        rows.append(("known as", f"{_escaped(name)} ({protocols})"))
    if not service.names:
        rows.append(("known as", "no service (not in the services database)"))
    return _aligned(rows)


def _bytes(resolution: Resolution) -> list[str]:
    from bothends.client.resolve import socket_address

    rows = [*_port_bytes(resolution.service), *(_address_bytes(each) for each in resolution.addresses)]
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
    port = resolution.service.port if resolution.service else 0
    for each in resolution.addresses:
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
    orders = byte_order(service.port, 2)
    row = (
        f"port {orders.value}",
        f"0x{orders.value:04x}",
        hexadecimal(orders.network),
        hexadecimal(orders.host),
        str(orders.swapped),
    )
    return [row]


def _address_bytes(each: ResolvedAddress) -> tuple[str, ...]:
    import ipaddress

    from bothends.client.resolve import byte_order

    network = hexadecimal(each.packed)
    if each.family == 6:
        # in6_addr is an array of bytes (RFC 3493 section 3.2), so it has the same order on every machine.
        return (each.address, "", network, "the same: an array of bytes", "")
    orders = byte_order(int.from_bytes(each.packed, "big"), 4)
    wrong = str(ipaddress.IPv4Address(orders.swapped))
    return (each.address, f"0x{orders.value:08x}", network, hexadecimal(orders.host), wrong)


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return aligned lines of label and value; a repeated label is printed once."""
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
    """Escape a name, because it may come from any name server."""
    from bothends.escaping import escape_text

    return escape_text(name)


def as_object(resolution: Resolution) -> dict[str, Any]:
    """Return a resolution as a JSON object. Bytes are hexadecimal digits, in memory order."""
    from bothends.client.resolve import byte_order, socket_address

    service = resolution.service
    port = service.port if service else 0
    addresses = []
    for each in resolution.addresses:
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
    result: dict[str, Any] = {
        "host": resolution.host or None,
        "official_name": resolution.official or None,
        "aliases": list(resolution.aliases),
        "addresses": addresses,
        "byte_order": sys.byteorder,
        "port": None,
    }
    if service is not None:
        orders = byte_order(service.port, 2)
        result["port"] = {
            "number": orders.value,
            "services": dict(service.names),
            "network_order": orders.network.hex(),
            "machine_order": orders.host.hex(),
            "wrong_order": orders.swapped,
        }
    return result
