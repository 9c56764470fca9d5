"""`bothends wire`: run programs in network namespaces, joined by a path that injects faults."""

from __future__ import annotations

import json
import math
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Final

import click

from bothends.cli import terminal
from bothends.cli.termination import TERMINATION_SIGNALS, exit_on_signal
from bothends.toxics import registry
from bothends.toxics.attributes import parse_duration
from bothends.toxics.base import Medium

if TYPE_CHECKING:
    from bothends.impair.scenario import ScheduledToxic
    from bothends.wire import HostCommand, PacketEvent, Topology, Wire

# Toxic -> a second name for its option, as in tc-netem(8).
_OPTION_ALIASES: Final = {"latency": "--delay", "bandwidth": "--rate"}
_DOWN_PATTERN: Final = re.compile(r"(?P<host>[^@]+)@(?P<at>[^+]+)(?:\+(?P<length>.+))?")
_DOUBLE_INTERRUPT: Final = 1.0  # seconds within which a second ^C ends all commands


def _toxic_options(command: Any) -> Any:
    """Add an option for each toxic that has an effect on packets."""
    for name in reversed(registry.TOXICS):
        kind = registry.load(name)
        if Medium.PACKETS in kind.effects:
            names = [f"--{name.replace('_', '-')}", *filter(None, [_OPTION_ALIASES.get(name)])]
            metavar = "±".join(each.upper() for each in kind.short_form) or "NAME=VALUE"
            meaning = kind.effects[Medium.PACKETS]
            help_ = f"{meaning[0].upper()}{meaning[1:]}."
            command = click.option(*names, name, metavar=metavar, multiple=True, help=help_)(command)
    return command


@click.command(
    short_help="Run programs in isolated network namespaces, with faults.",
    context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False},
)
@click.argument("args", metavar="[--] [CMD [ARGUMENT]...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--host",
    "hosts",
    metavar="NAME[=CMD]",
    multiple=True,
    help="A host and its command; two to eight hosts. Without a command it only forwards.",
)
@click.option("--line", is_flag=True, help="Join the hosts in a line, instead of in a full mesh.")
@_toxic_options
@click.option(
    "--mtu",
    metavar="BYTES",
    type=click.IntRange(68, 1500),
    default=1500,
    help="MTU of the path; the hosts' interfaces keep 1500.",
)
@click.option(
    "--no-icmp",
    is_flag=True,
    help="Send no ICMP errors for packets that are too large or have no destination.",
)
@click.option(
    "--down",
    "link_downs",
    metavar="HOST@AT[+TIME]",
    multiple=True,
    help="Take a host's interfaces down, and up again: client@2s+3s.",
)
@click.option("--seed", type=int, metavar="N", help="Seed of all random decisions. Default: random.")
@click.option(
    "--record", metavar="FILE", type=click.File("w"), help="Write an event for each packet, as JSON lines."
)
@click.option(
    "--time-limit",
    metavar="SECONDS",
    type=click.FloatRange(0.01),
    help="End all commands after this time, and exit with 124.",
)
@click.option("--veth", is_flag=True, help="Use veth pairs even if TUN is available.")
@click.option("-q", "--quiet", is_flag=True, help="Only print warnings and errors.")
def wire(
    args: tuple[str, ...],
    hosts: tuple[str, ...],
    line: bool,
    mtu: int,
    no_icmp: bool,
    link_downs: tuple[str, ...],
    seed: int | None,
    record: IO[str] | None,
    time_limit: float | None,
    veth: bool,
    quiet: bool,
    **toxics: tuple[str, ...],
) -> None:
    """Run CMD in a separate network namespace (a host), or several commands in one host each, without root.

    Every IP packet between the hosts passes through this process, which applies the given faults.

    \b
      bothends wire --delay 40ms --loss 5% \\
                    --host server='python3 -m http.server' \\
                    --host client='curl http://server:8000/'
      bothends wire --rate 10mbit -- make test

    A single CMD connects to itself, at 127.0.0.1 and localhost. With several hosts, each resolves the names
    of the others. Each command starts once the one before it listens. The last one gets standard input; after
    it has exited and all packets have arrived, the others are terminated.

    A toxic applies to both directions or to one: --loss up:5% from a later host to an earlier one, down:5%
    from an earlier to a later. It may be temporary: --blackhole at=5s,for=3s.

    Exit status: that of the last command; 69 if the system forbids user namespaces.
    """
    from dataclasses import replace

    from bothends.wire import build_topology

    topology = replace(build_topology(parse_commands(args, hosts), line=line), mtu=mtu)
    status = run(
        topology,
        parse_toxics(toxics, bidirectional_only=topology.shape == "loop"),
        seed=secrets.randbits(32) if seed is None else seed,
        icmp=not no_icmp,
        link_downs=link_downs,
        record=record,
        limit=math.inf if time_limit is None else time_limit,
        veth=veth,
        quiet=quiet,
    )
    if status:
        raise click.exceptions.Exit(status)


def run(
    topology: Topology,
    scheduled: Sequence[ScheduledToxic],
    *,
    seed: int,
    icmp: bool,
    link_downs: Sequence[str] = (),
    record: IO[str] | None = None,
    limit: float = math.inf,
    veth: bool = False,
    quiet: bool = False,
) -> int:
    """Run the commands of a topology on a wire, and print a summary of the packets.

    Args:
        topology: hosts and commands.
        scheduled: the toxics.
        seed: seed of all random decisions.
        icmp: send ICMP errors for packets that are too large or have no destination.
        link_downs: interfaces to take down, each HOST@AT[+TIME].
        record: file for an event per packet, as JSON lines.
        limit: seconds after which all commands are ended.
        veth: use veth pairs even if TUN is available.
        quiet: print warnings and errors only.

    Returns: the exit status of the last command.

    Raises:
        UsageError: invalid `link_downs` or toxics.
        TimeoutExpired: `limit` has passed.
        Unavailable: the system forbids namespaces.
    """
    from bothends.wire import Wire

    specs = [each.placed for each in scheduled if not each.at and each.duration is None]
    started = time.monotonic()
    notify = _discard_note if quiet else terminal.note
    observe = _PacketRecorder(record, topology, started) if record is not None else None
    with Wire(
        topology, specs, seed=seed, icmp=icmp, observe=observe, notify=notify, veth=veth or None
    ) as opened:
        if not quiet:
            terminal.note(f"wire  {', '.join(format_hosts(topology))}; seed {seed}", "")
        for each in link_downs:
            link_down(opened, each)
        for toxic in scheduled:
            if toxic.placed not in specs:
                add_toxic(opened, toxic, started)
        with _SignalHandlers(notify):
            status = opened.run(time_limit=limit)
        if not quiet:
            for line in summary(opened):
                terminal.note(line)
    return status


def parse_commands(args: Sequence[str], hosts: Sequence[str]) -> list[HostCommand]:
    """Return the hosts and commands that the command line names. Raises click.UsageError."""
    from bothends.wire import HostCommand

    if args and hosts:
        raise click.UsageError("CMD and --host cannot be combined")
    if args:
        return [HostCommand("host", tuple(args), no_shell=True)]
    if not hosts:
        raise click.UsageError("missing CMD or --host; for example: bothends wire --delay 40ms -- make test")
    found = []
    for each in hosts:
        name, _, command = each.partition("=")
        found.append(HostCommand(name, (command,) if command.strip() else ()))
    if len(found) == 1:
        raise click.UsageError("a wire needs at least two hosts, or a single CMD that connects to itself")
    return found


def parse_toxics(toxics: Mapping[str, Sequence[str]], *, bidirectional_only: bool) -> list[ScheduledToxic]:
    """Return the toxics of the options, which have the syntax of impair: `[up:|down:]SHORT[,NAME=VALUE...]`.

    Raises:
        ToxicError: an invalid toxic.
        click.UsageError: a toxic has a direction, but `bidirectional_only` is set.
    """
    from bothends.impair.scenario import parse_toxic, with_unique_names
    from bothends.wire.switch import check_placement

    # One toxic for a single direction, a pair for both.
    parsed = [list(parse_toxic(name, text)) for name, texts in toxics.items() for text in texts]
    if bidirectional_only and any(len(each) == 1 for each in parsed):
        raise click.UsageError("a host that connects to itself has one direction: leave out up: and down:")
    scheduled = list(with_unique_names(each for several in parsed for each in several))
    for each in scheduled:
        check_placement(each.placed)
    return scheduled


def add_toxic(opened: Wire, scheduled: ScheduledToxic, started: float) -> None:
    """Schedule a toxic to be added, and removed if it has a duration."""
    opened.call_at(started + scheduled.at, lambda: opened.add_toxic(scheduled.placed))
    if scheduled.duration is not None:
        opened.call_at(
            started + scheduled.at + scheduled.duration, lambda: opened.remove_toxic(scheduled.placed.name)
        )


def link_down(opened: Wire, text: str) -> None:
    """Plan what `--down` asks for: HOST@AT[+TIME], times with their units. Raises UsageError."""
    found = _DOWN_PATTERN.fullmatch(text)
    at = parse_duration(found["at"]) if found else None
    length = parse_duration(found["length"]) if found and found["length"] else math.inf
    names = [host.name for host in opened.topology.hosts]
    if found is None or at is None or length is None:
        raise click.UsageError(f"--down {text}: expected HOST@AT[+TIME]; for example {names[-1]}@2s+3s")
    if found["host"] not in names:
        raise click.UsageError(
            f"--down {text}: there is no host {found['host']}; there is {', '.join(names)}"
        )
    host = names.index(found["host"])
    now = time.monotonic()
    opened.call_at(now + at, lambda: opened.set_interface(host, up=False))
    if length < math.inf:
        opened.call_at(now + at + length, lambda: opened.set_interface(host, up=True))


def format_hosts(topology: Topology) -> list[str]:
    """Return the name and addresses of each host."""
    return [f"{host.name} {' '.join(map(str, host.addresses))}" for host in topology.hosts]


def summary(opened: Wire) -> list[str]:
    """Return lines that count the packets and faults of each link, and undelivered packets."""
    ports = opened.topology.ports
    lines = []
    for link in opened.switch.links.values():
        faults = {
            f"{toxic_type(spec)} {effect}": count
            for spec, counters in link.toxic_counters.items()
            for effect, count in (
                ("dropped", counters.dropped),
                ("doubled", counters.doubled),
                ("corrupted", counters.corrupted),
            )
            if count
        }
        if link.pipeline.overflowed:
            faults["queue dropped"] = link.pipeline.overflowed
        names = f"{ports[link.sender].name} -> {ports[link.receiver].name}"
        suffix = "".join(f", {fault} {count:,}" for fault, count in faults.items())
        if link.sent:
            lines.append(f"{names}: {_format_packet_count(link.sent)}, {link.sent_bytes:,} bytes{suffix}")
    for reason, count in opened.switch.rejected.items():
        description = {"mtu": "too large for the path", "unreachable": "to an unknown host"}[reason]
        lines.append(f"{_format_packet_count(count)} {description}")
    if opened.undelivered:
        lines.append(f"{_format_packet_count(opened.undelivered)} to a host that was down")
    return lines


def toxic_type(name: str) -> str:
    """Return the type of a toxic: its name without the direction."""
    return name.replace("_upstream", "").replace("_downstream", "")


def _format_packet_count(number: int) -> str:
    return f"{number:,} packet{'' if number == 1 else 's'}"


def _discard_note(line: str) -> None:
    """Discard a note, with --quiet."""


class _PacketRecorder:
    """Write each packet event as a line of JSON."""

    def __init__(self, file: IO[str], topology: Topology, started: float) -> None:
        self._file = file
        self._names = [host.name for host in topology.hosts]
        self._started = started

    def __call__(self, packet_event: PacketEvent) -> None:
        line = {
            "at": round(packet_event.at - self._started, 6),
            "event": packet_event.event,
            "from": self._names[packet_event.sender],
            "to": self._names[packet_event.receiver] if packet_event.receiver >= 0 else None,
            "number": packet_event.number or None,
            "bytes": len(packet_event.packet),
        }
        if packet_event.toxic:
            line["toxic"] = toxic_type(packet_event.toxic)
        self._file.write(json.dumps(line) + "\n")


class _SignalHandlers:
    """Context manager: SIGTERM and SIGHUP end all commands, and so does SIGINT if stdin is no terminal.

    At a terminal, ^C sends SIGINT to the commands too (the foreground process group), and they may handle it.
    So the first one is ignored here, and a second within a second ends all commands.
    """

    def __init__(self, note: Callable[[str], object]) -> None:
        self._note = note
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._last_interrupt = -math.inf

    def __enter__(self) -> None:
        for number in TERMINATION_SIGNALS:
            self._previous_handlers[number] = signal.signal(number, exit_on_signal)
        self._previous_handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if not terminal.is_terminal(sys.stdin) or now - self._last_interrupt < _DOUBLE_INTERRUPT:
            raise KeyboardInterrupt
        self._last_interrupt = now
        self._note("^C was sent to the commands; press it again to end them all")
