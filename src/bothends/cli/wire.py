"""`bothends wire`: hosts of one's own, and a path between them that misbehaves as told."""

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

# The words that everyone knows beside a toxic's own name.
_OPTION_ALIASES: Final = {"latency": "--delay", "bandwidth": "--rate"}
_DOWN_PATTERN: Final = re.compile(r"(?P<host>[^@]+)@(?P<at>[^+]+)(?:\+(?P<length>.+))?")
_DOUBLE_INTERRUPT: Final = 1.0  # seconds in which a second ^C means that all shall end


def _toxic_options(command: Any) -> Any:
    """A switch for each toxic that can do something to packets."""
    for name in reversed(registry.TOXICS):
        kind = registry.load(name)
        if Medium.PACKETS in kind.effects:
            switches = [f"--{name.replace('_', '-')}", *filter(None, [_OPTION_ALIASES.get(name)])]
            metavar = "±".join(each.upper() for each in kind.short_form) or "NAME=VALUE"
            meaning = kind.effects[Medium.PACKETS]
            help_ = f"{meaning[0].upper()}{meaning[1:]}."
            command = click.option(*switches, name, metavar=metavar, multiple=True, help=help_)(command)
    return command


@click.command(
    short_help="Run programs in hosts of their own, joined by a path that misbehaves as told.",
    context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False},
)
@click.argument("words", metavar="[--] [CMD [ARGUMENT]...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--host",
    "hosts",
    metavar="NAME[=CMD]",
    multiple=True,
    help="A host, and what runs in it: two to eight. Without a command it only forwards.",
)
@click.option("--line", is_flag=True, help="Join the hosts in a line, instead of all with each other.")
@_toxic_options
@click.option(
    "--mtu",
    metavar="BYTES",
    type=click.IntRange(68, 1500),
    default=1500,
    help="Of the path; the hosts' interfaces have 1500.",
)
@click.option("--no-icmp", is_flag=True, help="Tell nobody of packets that are too large, or for no host.")
@click.option(
    "--down",
    "cuts",
    metavar="HOST@AT[+TIME]",
    multiple=True,
    help="Turn a host's interfaces off, and on again: client@2s+3s.",
)
@click.option("--seed", type=int, metavar="N", help="Make the same decisions again. Default: a random one.")
@click.option("--record", metavar="FILE", type=click.File("w"), help="Write down what became of each packet.")
@click.option(
    "--time-limit",
    metavar="SECONDS",
    type=click.FloatRange(0.01),
    help="End all after so long, and leave with 124.",
)
@click.option("--veth", is_flag=True, help="No TUN devices, although there are.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but troubles.")
def wire(
    words: tuple[str, ...],
    hosts: tuple[str, ...],
    line: bool,
    mtu: int,
    no_icmp: bool,
    cuts: tuple[str, ...],
    seed: int | None,
    record: IO[str] | None,
    time_limit: float | None,
    veth: bool,
    quiet: bool,
    **toxics: tuple[str, ...],
) -> None:
    """Run CMD in a host of its own, or several commands in a host each, without being root. Every IP packet
    that they send each other passes through here, and what is asked for happens to it.

    \b
      bothends wire --delay 40ms --loss 5% --host server='python3 -m http.server' \\
                    --host client='curl http://server:8000/'
      bothends wire --rate 10mbit -- make test

    One CMD alone talks to itself, at 127.0.0.1 and localhost. Of several hosts each knows the others by
    name. Each command starts when the one before listens; the last one has the keyboard, and when it has
    ended and all that was sent has arrived, the others are ended.

    A toxic is for both directions, or for one: --loss up:5% from a later host to an earlier one, down:5% from
    an earlier to a later. It may come and go: --blackhole at=5s,for=3s.

    Leaves with the status of the last command; 69 where the system forbids user namespaces.
    """
    from dataclasses import replace

    from bothends.wire import build_topology

    layout = replace(build_topology(parse_commands(words, hosts), line=line), mtu=mtu)
    status = run(
        layout,
        parse_toxics(toxics, bidirectional_only=layout.shape == "loop"),
        seed=secrets.randbits(32) if seed is None else seed,
        icmp=not no_icmp,
        link_downs=cuts,
        record=record,
        limit=math.inf if time_limit is None else time_limit,
        veth=veth,
        quiet=quiet,
    )
    if status:
        raise click.exceptions.Exit(status)


def run(
    layout: Topology,
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
    """Run the commands of a plan on a wire, say how it went, and give the status of the last one.

    Raises UsageError, TimeLimit, Unavailable where the system forbids it.
    """
    from bothends.wire import Wire

    specs = [each.placed for each in scheduled if not each.at and each.duration is None]
    begun = time.monotonic()
    say = _discard_note if quiet else terminal.note
    observe = _PacketRecorder(record, layout, begun) if record is not None else None
    with Wire(layout, specs, seed=seed, icmp=icmp, observe=observe, notify=say, veth=veth or None) as opened:
        if not quiet:
            terminal.note(f"wire  {', '.join(format_hosts(layout))}; seed {seed}", "")
        for each in link_downs:
            link_down(opened, each)
        for later in scheduled:
            if later.placed not in specs:
                add_toxic(opened, later, begun)
        with _SignalHandlers(say):
            status = opened.run(time_limit=limit)
        if not quiet:
            for line in summary(opened):
                terminal.note(line)
    return status


def parse_commands(words: Sequence[str], hosts: Sequence[str]) -> list[HostCommand]:
    """The hosts and commands that the command line names. Raises UsageError."""
    from bothends.wire import HostCommand

    if words and hosts:
        raise click.UsageError("either CMD or --host, not both")
    if words:
        return [HostCommand("host", tuple(words), no_shell=True)]
    if not hosts:
        raise click.UsageError("what shall run? For example: bothends wire --delay 40ms -- make test")
    found = []
    for each in hosts:
        name, _, command = each.partition("=")
        found.append(HostCommand(name, (command,) if command.strip() else ()))
    if len(found) == 1:
        raise click.UsageError("one host is no wire: name two, or give CMD alone, which talks to itself")
    return found


def parse_toxics(toxics: Mapping[str, Sequence[str]], *, bidirectional_only: bool) -> list[ScheduledToxic]:
    """The toxics that the switches ask for, in the words of impair: `[up:|down:]SHORT[,NAME=VALUE...]`.

    `both`: each must be for both directions. Raises ToxicError, UsageError.
    """
    from bothends.impair.scenario import parse_toxic, with_unique_names
    from bothends.wire.switch import check_placement

    asked = [list(parse_toxic(name, text)) for name, texts in toxics.items() for text in texts]
    if bidirectional_only and any(len(each) == 1 for each in asked):
        raise click.UsageError("a host that talks to itself has one direction: no up: and no down:")
    planned = list(with_unique_names(each for several in asked for each in several))
    for each in planned:
        check_placement(each.placed)
    return planned


def add_toxic(opened: Wire, scheduled: ScheduledToxic, started: float) -> None:
    """Have a toxic come later, or go again."""
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
        raise click.UsageError(f"--down {text}: when? For example {names[-1]}@2s+3s")
    if found["host"] not in names:
        raise click.UsageError(f"--down {text}: there is no host {found['host']}, only {', '.join(names)}")
    host = names.index(found["host"])
    now = time.monotonic()
    opened.call_at(now + at, lambda: opened.set_interface(host, up=False))
    if length < math.inf:
        opened.call_at(now + at + length, lambda: opened.set_interface(host, up=True))


def format_hosts(layout: Topology) -> list[str]:
    """Each host with its addresses."""
    return [f"{host.name} {' '.join(map(str, host.addresses))}" for host in layout.hosts]


def summary(opened: Wire) -> list[str]:
    """What became of the packets: a line for each way, and one for what went nowhere."""
    layout = opened.topology
    ports = layout.ports
    lines = []
    for way in opened.switch.links.values():
        done = {
            f"{toxic_type(spec)} {word}": count
            for spec, tally in way.toxic_counters.items()
            for word, count in (
                ("dropped", tally.dropped),
                ("doubled", tally.doubled),
                ("corrupted", tally.corrupted),
            )
            if count
        }
        if way.pipeline.overflowed:
            done["queue dropped"] = way.pipeline.overflowed
        names = f"{ports[way.sender].name} -> {ports[way.receiver].name}"
        told = "".join(f", {what} {count:,}" for what, count in done.items())
        if way.sent:
            lines.append(f"{names}: {_format_packet_count(way.sent)}, {way.sent_bytes:,} bytes{told}")
    for why, count in opened.switch.rejected.items():
        words = {"mtu": "too large for the path", "unreachable": "for no host that there is"}[why]
        lines.append(f"{_format_packet_count(count)} {words}")
    if opened.undelivered:
        lines.append(f"{_format_packet_count(opened.undelivered)} for a host that was down")
    return lines


def toxic_type(name: str) -> str:
    """The name of a toxic without its direction."""
    return name.replace("_upstream", "").replace("_downstream", "")


def _format_packet_count(number: int) -> str:
    return f"{number:,} packet{'' if number == 1 else 's'}"


def _discard_note(line: str) -> None:
    """Nobody wants to hear it."""


class _PacketRecorder:
    """Writes down what became of each packet: a line of JSON each."""

    def __init__(self, file: IO[str], layout: Topology, started: float) -> None:
        self._file = file
        self._names = [host.name for host in layout.hosts]
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
    """While it runs: SIGTERM and SIGHUP end all, and so does ^C, unless it came from the keyboard.

    Then the commands have got it too, and it is for them to decide; a second one within a second ends all.
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
        self._note("^C has reached the commands; once more ends them all")
