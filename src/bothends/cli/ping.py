"""`bothends ping`: print round-trip times, one line per reply, and a summary."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from bothends.cli import terminal

if TYPE_CHECKING:
    from bothends.client.ping import ProbeEvent, ProbeReply, Summary
    from bothends.client.ping_transports import IcmpTransport, UdpTransport

DEFAULT_SIZE: Final = 56  # bytes; 64 with the ICMP header, as in ping(8)


@click.command(
    short_help="Measure round-trip times with ICMP or UDP.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("args", metavar="HOST | --udp HOST PORT", nargs=-1, required=True)
@click.option(
    "--udp", is_flag=True, help="Send UDP datagrams to an echo service; needs no permission for ICMP."
)
@click.option(
    "-c", "count", metavar="COUNT", type=click.IntRange(1), help="Number of probes [default: no limit]."
)
@click.option(
    "-i",
    "interval",
    metavar="SECONDS",
    type=click.FloatRange(0.001, 86400),
    default=1.0,
    show_default=True,
    help="Time between probes.",
)
@click.option(
    "-W",
    "timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.001, 86400),
    default=2.0,
    show_default=True,
    help="Timeout after which a probe counts as lost.",
)
@click.option(
    "-s",
    "size",
    metavar="BYTES",
    type=click.IntRange(0, 65507),
    default=DEFAULT_SIZE,
    show_default=True,
    help="Payload size.",
)
@click.option("-4", "family", flag_value=4, type=int, help="Use IPv4 only.")
@click.option("-6", "family", flag_value=6, type=int, help="Use IPv6 only.")
@click.option(
    "-t",
    "ttl",
    metavar="HOPS",
    type=click.IntRange(1, 255),
    help="TTL (IPv4) or hop limit (IPv6) of the probes.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print the summary only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one event per line, the summary last.")
def ping(
    args: tuple[str, ...],
    udp: bool,
    count: int | None,
    interval: float,
    timeout: float,
    size: int,
    family: int | None,
    ttl: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure round-trip times to HOST with ICMP echo, or to an echo service with UDP.

    \b
      bothends ping 127.0.0.1 -c 3
      bothends serve echo udp://127.0.0.1:12000   in another terminal
      bothends ping --udp 127.0.0.1 12000

    Each reply is compared with its probe, byte for byte. ^C prints the summary and exits.

    Exit status: 0 if at least one intact reply arrived, 1 if none did; 69 if the system permits no ICMP
    sockets.
    """
    import secrets
    import time

    from bothends.client.ping import TOKEN_BITS, Pinger, ProbeTracker

    token = secrets.randbits(TOKEN_BITS)
    with open_transport(args, udp=udp, family=family, ttl=ttl, token=token, size=size) as transport:
        tracker = ProbeTracker(count=count, interval=interval, timeout=timeout, now=time.monotonic)
        output = _Output(transport.address, timeout, quiet=quiet, as_json=as_json)
        if not quiet and not as_json:
            terminal.note(f"ping {transport.address}: {size} bytes, {transport.description}")
        with contextlib.suppress(KeyboardInterrupt):
            for event in Pinger(transport, tracker, token=token, size=size).run():
                output.event(event)
    summary = tracker.summary()
    output.summary(summary)
    if not summary.intact:
        raise click.exceptions.Exit(1)


def open_transport(
    args: tuple[str, ...], *, udp: bool, family: int | None, ttl: int | None, token: int, size: int
) -> IcmpTransport | UdpTransport:
    """Open the transport that the arguments name.

    Raises:
        click.UsageError: too many arguments, or a `size` that is too small.
        BothendsError: the transport cannot be opened.
    """
    from bothends.client import ping_transports
    from bothends.client.ping import PROBE_HEADER
    from bothends.endpoints import endpoints_from_args

    if udp or any("://" in arg for arg in args):
        endpoints = endpoints_from_args(args, "udp")
        if len(endpoints) != 1:
            raise click.UsageError("expected one endpoint, but got " + ", ".join(map(str, endpoints)))
        endpoint = endpoints[0]
        if endpoint.scheme == "udp":
            endpoint = endpoint.with_options(
                family=family or endpoint.number("family"), ttl=ttl or endpoint.number("ttl")
            )
        if size < PROBE_HEADER.size:
            raise click.UsageError(
                f"a UDP probe has at least {PROBE_HEADER.size} bytes; try -s {PROBE_HEADER.size}"
            )
        return ping_transports.open_udp(endpoint, token=token)
    if len(args) > 1:
        raise click.UsageError(
            f"expected one host: ICMP has no ports; for UDP, try bothends ping --udp {' '.join(args)}"
        )
    return ping_transports.open_icmp(args[0], identifier=token & 0xFFFF, family=family, ttl=ttl)


class _Output:
    """Print events and the summary, as text or as JSON."""

    def __init__(self, address: str, timeout: float, *, quiet: bool, as_json: bool) -> None:
        self._address = address
        self._timeout = timeout
        self._quiet = quiet
        self._as_json = as_json

    def event(self, event: ProbeEvent) -> None:
        if self._quiet:
            return
        if self._as_json:
            terminal.show_json(as_object(event), flush=True)
        else:
            terminal.show(self._format_event(event), flush=True)

    def summary(self, summary: Summary) -> None:
        if self._as_json:
            terminal.show_json(summary_object(self._address, summary), flush=True)
            return
        if not self._quiet and terminal.is_terminal(sys.stdout):
            terminal.show()  # (a newline after the ^C that the terminal has echoed)
        for line in summary_lines(self._address, summary):
            terminal.show(line)

    def _format_event(self, event: ProbeEvent) -> str:
        from bothends.client.ping import ProbeFailure, ProbeReply, ProbeTimeout

        match event:
            case ProbeReply():
                line = f"{event.size} bytes from {event.source}: seq={event.number}"
                line += f" ttl={event.ttl}" if event.ttl is not None else ""
                line += f" time={event.seconds * 1000:.3f} ms"
                marks = reply_marks(event)
                return line + (" " + terminal.styled(f"({marks})", "warning", sys.stdout) if marks else "")
            case ProbeFailure():
                source = f"from {event.source}: " if event.source else ""
                number = "" if event.number is None else f"seq={event.number} "
                return source + number + terminal.styled(event.reason, "error", sys.stdout)
            case ProbeTimeout():
                reason = f"no reply within {self._timeout:g} s"
                return f"seq={event.number} " + terminal.styled(reason, "warning", sys.stdout)
            case _:
                line = f"{event.size} bytes from {event.source}: "
                return line + terminal.styled("matches no probe", "warning", sys.stdout)


def reply_marks(reply: ProbeReply) -> str:
    """Return the anomalies of a reply as text, or "" if there are none."""
    marks = [word for word in ("duplicate", "reordered", "late") if getattr(reply, word)]
    if reply.mismatch:
        marks.append(f"corrupted: {reply.mismatch}")
    return ", ".join(marks)


def as_object(event: ProbeEvent) -> dict[str, Any]:
    """Return an event as a JSON object. Times are in milliseconds."""
    from bothends.client.ping import ProbeFailure, ProbeReply, ProbeTimeout

    match event:
        case ProbeReply():
            return {
                "event": "reply",
                "seq": event.number,
                "bytes": event.size,
                "address": event.source,
                "ttl": event.ttl,
                "time_ms": round(event.seconds * 1000, 6),
                "duplicate": event.duplicate,
                "reordered": event.reordered,
                "late": event.late,
                "corrupted": event.mismatch or None,
            }
        case ProbeFailure():
            import errno

            return {
                "event": "error",
                "seq": event.number,
                "address": event.source or None,
                "errno": errno.errorcode.get(event.errno, str(event.errno)),
                "words": event.reason,
            }
        case ProbeTimeout():
            return {"event": "lost", "seq": event.number}
        case _:
            return {"event": "stray", "bytes": event.size, "address": event.source}


def summary_object(address: str, summary: Summary) -> dict[str, Any]:
    """Return the summary as a JSON object. `loss` is a fraction from 0 to 1, times are in milliseconds."""
    import dataclasses

    counts = dataclasses.asdict(summary)
    trips = counts.pop("round_trips")
    return {
        "event": "summary",
        "address": address,
        **counts,
        "loss": summary.loss,
        "time_ms": trips and {name: round(value * 1000, 6) for name, value in trips.items()},
    }


def summary_lines(address: str, summary: Summary) -> list[str]:
    """Return the summary as text: the usual counts, those of other events if not 0, and the times."""
    received = f"{summary.received:,} received"
    if summary.late:
        received += f" ({summary.late:,} late)"
    parts = [f"{summary.sent:,} sent", received, f"{summary.lost:,} lost ({summary.loss * 100:.3g}%)"]
    for name in ("duplicates", "reordered", "corrupted", "errors", "strays", "waiting"):
        number = getattr(summary, name)
        if number or name in ("duplicates", "reordered"):
            word = "pending" if name == "waiting" else name
            word = word[:-1] if number == 1 and word.endswith("s") else word
            parts.append(f"{number:,} {word}")
    lines = [f"{terminal.styled(address, 'strong', sys.stdout)}: {', '.join(parts)}"]
    if (trips := summary.round_trips) is not None:
        names = ("min", "median", "mean", "max", "mdev")
        times = ", ".join(f"{name} {getattr(trips, name) * 1000:.3f}" for name in names)
        lines.append(f"round trips in ms: {times}")
    return lines
