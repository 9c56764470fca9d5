"""`bothends connect -z`: which ports are open, one line each, and nothing is sent on them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from bothends.cli import terminal

if TYPE_CHECKING:
    from bothends.client.port_scan import PortResult

SHOW_ALL_LIMIT: Final = 16  # ports: so many are all shown, of more only those that may be open
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
    """Scan the `ports` (words: `80`, `20-25`, `http`, `80,443`) of a host and show what each is.

    `timeout` in seconds for each address of each port; `family` 4 or 6; `verbose` shows closed ports too,
    however many. `as_json` prints one object a port, one a line. For UDP, silence is "open or no answer".

    Raises click's Exit(1) if no port is open (one that may be doesn't count), PortsError, UnknownName,
    EndpointError, NameRefused, SystemRefused.
    """
    from bothends.client.port_scan import parse_ports, scan

    numbers = parse_ports(ports, "udp" if udp else "tcp")
    every = verbose or len(numbers) <= SHOW_ALL_LIMIT
    counted: Counter[str] = Counter()
    for result in scan(host, numbers, "udp" if udp else "tcp", timeout, family=family):
        counted[result.state] += 1
        if as_json:
            print(json.dumps(as_object(result)), flush=True)  # noqa: T201
        elif every or result.state == "open" or (udp and result.state == "open or no answer"):
            print(format_result(result), flush=True)  # noqa: T201
    if not as_json and not every:
        parts = [f"{number:,} {state}" for state, number in counted.most_common()]
        terminal.note(f"{len(numbers):,} ports: {', '.join(parts)}")
    if not counted["open"]:
        raise click.exceptions.Exit(1)


def format_result(result: PortResult) -> str:
    """`127.0.0.1  80/tcp  open  http`."""
    from bothends.client.port_scan import describe_result

    words = describe_result(result)
    if result.state in _STYLE:
        words = terminal.styled(words, _STYLE[result.state], sys.stdout)
    name = service_name(result)
    place = f"{result.port}/{result.transport}"
    return f"{result.address}  {place:<9}  {words}" + (f"  {name}" if name else "")


def as_object(result: PortResult) -> dict[str, object]:
    """A result for JSON; `time_ms` in milliseconds, `errno` by its name."""
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
    """What the services database calls the port; empty for a port that it hasn't got."""
    import socket

    try:
        return socket.getservbyport(result.port, result.transport)
    except OSError:
        return ""
