"""`bothends connect -z`: print which ports are open, one line each, without sending data on TCP."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from bothends.cli import terminal

if TYPE_CHECKING:
    from bothends.client.port_scan import PortResult

SHOW_ALL_LIMIT: Final = 16  # with more ports, only those that may be open are printed
_STYLE: Final = {"open": "good", "open or no answer": "warning", "no answer": "warning"}


def show(
    host: str,
    ports: Sequence[str],
    *,
    udp: bool = False,
    timeout: float = 2.0,
    family: int | None = None,
    verbose: bool = False,
    as_json: bool = False,
) -> None:
    """Scan ports of a host and print the state of each.

    Args:
        host: a name or an address.
        ports: port specifications: `80`, `20-25`, `http`, `80,443`.
        udp: scan UDP ports. A UDP port without an answer is "open or no answer".
        timeout: seconds for each address of each port.
        family: 4 or 6; None for both.
        verbose: print closed ports too, even if there are more than SHOW_ALL_LIMIT.
        as_json: print one JSON object per port, one per line.

    Raises:
        click.exceptions.Exit: no port is open; "open or no answer" does not count as open.
        PortSpecError, UnknownName, EndpointError: invalid ports or host.
        SystemCallFailed: the host cannot be resolved, or a system call failed.
    """
    from bothends.client.port_scan import parse_ports, scan

    numbers = parse_ports(ports, "udp" if udp else "tcp")
    show_all = verbose or len(numbers) <= SHOW_ALL_LIMIT
    counted: Counter[str] = Counter()
    for result in scan(host, numbers, "udp" if udp else "tcp", timeout, family=family):
        counted[result.state] += 1
        if as_json:
            terminal.show_json(as_object(result), flush=True)
        elif show_all or result.state == "open" or (udp and result.state == "open or no answer"):
            terminal.show(format_result(result), flush=True)
    if not as_json and not show_all:
        parts = [f"{number:,} {state}" for state, number in counted.most_common()]
        terminal.note(f"{len(numbers):,} ports: {', '.join(parts)}")
    if not counted["open"]:
        raise click.exceptions.Exit(1)


def format_result(result: PortResult) -> str:
    """Return a result as a line: `127.0.0.1  80/tcp  open  http`."""
    from bothends.client.port_scan import describe_result

    state = describe_result(result)
    if result.state in _STYLE:
        state = terminal.styled(state, _STYLE[result.state], sys.stdout)
    name = service_name(result)
    port = f"{result.port}/{result.transport}"
    return f"{result.address}  {port:<9}  {state}" + (f"  {name}" if name else "")


def as_object(result: PortResult) -> dict[str, object]:
    """Return a result as a JSON object: `time_ms` in milliseconds, `errno` as a name such as ECONNREFUSED."""
    import errno

    return {
        "address": result.address,
        "port": result.port,
        "transport": result.transport,
        "state": result.state,
        "errno": errno.errorcode.get(result.errno) if result.errno else None,
        "service": service_name(result) or None,
        "time_ms": round(result.seconds * 1000, 3),
    }


def service_name(result: PortResult) -> str:
    """Return the port's name in services(5), or "" if it has none."""
    import socket

    try:
        return socket.getservbyport(result.port, result.transport)
    except OSError:
        return ""
