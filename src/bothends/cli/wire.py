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
from bothends.cli.termination import SIGNALS, leave
from bothends.toxics import registry
from bothends.toxics.attributes import read_seconds
from bothends.toxics.base import Medium

if TYPE_CHECKING:
    from bothends.impair.scenario import Planned
    from bothends.wire import Command, Passage, Plan, Wire

# The words that everyone knows beside a toxic's own name.
_ALSO: Final = {"latency": "--delay", "bandwidth": "--rate"}
_DOWN: Final = re.compile(r"(?P<host>[^@]+)@(?P<at>[^+]+)(?:\+(?P<length>.+))?")
_TWICE: Final = 1.0  # seconds in which a second ^C means that all shall end


def _toxic_options(command: Any) -> Any:
    """A switch for each toxic that can do something to packets."""
    for name in reversed(registry.TOXICS):
        kind = registry.load(name)
        if Medium.PACKETS in kind.meaning:
            switches = [f"--{name.replace('_', '-')}", *filter(None, [_ALSO.get(name)])]
            metavar = "±".join(each.upper() for each in kind.short) or "NAME=VALUE"
            meaning = kind.meaning[Medium.PACKETS]
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

    from bothends.wire import plan

    layout = replace(plan(commands_of(words, hosts), line=line), mtu=mtu)
    status = run(
        layout,
        planned_of(toxics, both=layout.shape == "loop"),
        seed=secrets.randbits(32) if seed is None else seed,
        icmp=not no_icmp,
        cuts=cuts,
        record=record,
        limit=math.inf if time_limit is None else time_limit,
        veth=veth,
        quiet=quiet,
    )
    if status:
        raise click.exceptions.Exit(status)


def run(
    layout: Plan,
    planned: Sequence[Planned],
    *,
    seed: int,
    icmp: bool,
    cuts: Sequence[str] = (),
    record: IO[str] | None = None,
    limit: float = math.inf,
    veth: bool = False,
    quiet: bool = False,
) -> int:
    """Run the commands of a plan on a wire, say how it went, and give the status of the last one.

    Raises UsageError, TimeLimit, Unavailable where the system forbids it.
    """
    from bothends.wire import Wire

    specs = [each.spec for each in planned if not each.at and each.lasts is None]
    begun = time.monotonic()
    say = _silent if quiet else terminal.note
    observe = _Record(record, layout, begun) if record is not None else None
    with Wire(layout, specs, seed=seed, icmp=icmp, observe=observe, tell=say, veth=veth or None) as opened:
        if not quiet:
            terminal.note(f"wire  {', '.join(shown_hosts(layout))}; seed {seed}", "")
        for each in cuts:
            cut(opened, each)
        for later in planned:
            if later.spec not in specs:
                put_on(opened, later, begun)
        with _Signals(say):
            status = opened.run(limit=limit)
        if not quiet:
            for line in summary(opened):
                terminal.note(line)
    return status


def commands_of(words: Sequence[str], hosts: Sequence[str]) -> list[Command]:
    """The hosts and commands that the command line names. Raises UsageError."""
    from bothends.wire import Command

    if words and hosts:
        raise click.UsageError("either CMD or --host, not both")
    if words:
        return [Command("host", tuple(words), plain=True)]
    if not hosts:
        raise click.UsageError("what shall run? For example: bothends wire --delay 40ms -- make test")
    found = []
    for each in hosts:
        name, _, command = each.partition("=")
        found.append(Command(name, (command,) if command.strip() else ()))
    if len(found) == 1:
        raise click.UsageError("one host is no wire: name two, or give CMD alone, which talks to itself")
    return found


def planned_of(toxics: Mapping[str, Sequence[str]], *, both: bool) -> list[Planned]:
    """The toxics that the switches ask for, in the words of impair: `[up:|down:]SHORT[,NAME=VALUE...]`.

    `both`: each must be for both directions. Raises ToxicError, UsageError.
    """
    from bothends.impair.scenario import from_text, unique
    from bothends.wire.switch import check_spec

    asked = [list(from_text(name, text)) for name, texts in toxics.items() for text in texts]
    if both and any(len(each) == 1 for each in asked):
        raise click.UsageError("a host that talks to itself has one direction: no up: and no down:")
    planned = list(unique(each for several in asked for each in several))
    for each in planned:
        check_spec(each.spec)
    return planned


def put_on(opened: Wire, planned: Planned, begun: float) -> None:
    """Have a toxic come later, or go again."""
    opened.at(begun + planned.at, lambda: opened.add(planned.spec))
    if planned.lasts is not None:
        opened.at(begun + planned.at + planned.lasts, lambda: opened.remove(planned.spec.name))


def cut(opened: Wire, text: str) -> None:
    """Plan what `--down` asks for: HOST@AT[+TIME], times with their units. Raises UsageError."""
    found = _DOWN.fullmatch(text)
    at = read_seconds(found["at"]) if found else None
    length = read_seconds(found["length"]) if found and found["length"] else math.inf
    names = [host.name for host in opened.plan.hosts]
    if found is None or at is None or length is None:
        raise click.UsageError(f"--down {text}: when? For example {names[-1]}@2s+3s")
    if found["host"] not in names:
        raise click.UsageError(f"--down {text}: there is no host {found['host']}, only {', '.join(names)}")
    host = names.index(found["host"])
    now = time.monotonic()
    opened.at(now + at, lambda: opened.set_interface(host, up=False))
    if length < math.inf:
        opened.at(now + at + length, lambda: opened.set_interface(host, up=True))


def shown_hosts(layout: Plan) -> list[str]:
    """Each host with its addresses."""
    return [f"{host.name} {' '.join(map(str, host.addresses))}" for host in layout.hosts]


def summary(opened: Wire) -> list[str]:
    """What became of the packets: a line for each way, and one for what went nowhere."""
    layout = opened.plan
    ports = layout.ports
    lines = []
    for way in opened.link.ways.values():
        done = {
            f"{type_of(spec)} {word}": count
            for spec, tally in way.tallies.items()
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
            lines.append(f"{names}: {_packets(way.sent)}, {way.sent_bytes:,} bytes{told}")
    for why, count in opened.link.refused.items():
        words = {"mtu": "too large for the path", "unreachable": "for no host that there is"}[why]
        lines.append(f"{_packets(count)} {words}")
    if opened.undelivered:
        lines.append(f"{_packets(opened.undelivered)} for a host that was down")
    return lines


def type_of(name: str) -> str:
    """The name of a toxic without its direction."""
    return name.replace("_upstream", "").replace("_downstream", "")


def _packets(number: int) -> str:
    return f"{number:,} packet{'' if number == 1 else 's'}"


def _silent(line: str) -> None:
    """Nobody wants to hear it."""


class _Record:
    """Writes down what became of each packet: a line of JSON each."""

    def __init__(self, file: IO[str], layout: Plan, begun: float) -> None:
        self._file = file
        self._names = [host.name for host in layout.hosts]
        self._begun = begun

    def __call__(self, passage: Passage) -> None:
        line = {
            "at": round(passage.at - self._begun, 6),
            "event": passage.event,
            "from": self._names[passage.sender],
            "to": self._names[passage.receiver] if passage.receiver >= 0 else None,
            "number": passage.number or None,
            "bytes": len(passage.packet),
        }
        if passage.toxic:
            line["toxic"] = type_of(passage.toxic)
        self._file.write(json.dumps(line) + "\n")


class _Signals:
    """While it runs: SIGTERM and SIGHUP end all, and so does ^C, unless it came from the keyboard.

    Then the commands have got it too, and it is for them to decide; a second one within a second ends all.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._before: dict[signal.Signals, Any] = {}
        self._last = -math.inf

    def __enter__(self) -> None:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, leave)
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if not terminal.is_terminal(sys.stdin) or now - self._last < _TWICE:
            raise KeyboardInterrupt
        self._last = now
        self._say("^C has reached the commands; once more ends them all")
