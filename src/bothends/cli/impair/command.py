"""`bothends impair LISTEN UPSTREAM --latency 50ms±10ms ...`: parse, make the proxies, run them."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from bothends.cli import terminal
from bothends.cli.impair.api import VERBS
from bothends.endpoints import from_words
from bothends.errors import CallerError, SystemRefused
from bothends.impair.api import PORT, Api
from bothends.impair.api_server import Control
from bothends.impair.proxies import Proxies, Wanted
from bothends.impair.proxy import MOST_CONNECTIONS
from bothends.impair.recording import Journal, Replay
from bothends.impair.scenario import Conductor, Planned, Scenario, check, from_text, read, unique
from bothends.impair.sockets import FRAMINGS
from bothends.osutil.event_loop import Loop
from bothends.toxics import registry
from bothends.toxics.attributes import read_seconds, rules_of

# What someone writes behind --blackhole, which takes nothing.
_SETTINGS: Final = re.compile(r"(?:up:|down:)?[a-z_]+=.*")

_FLUSH = 0.5  # seconds: what a record may lack that is looked at while it is being written


class _Impair(click.Command):
    """`impair`, and behind it the verbs that talk to one that runs."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        verb = VERBS.get(args[0]) if args else None
        if verb is None:
            return super().make_context(info_name, args, parent, **extra)
        return verb.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)


class _Seconds(click.ParamType[float]):
    """A time, with its unit or in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = read_seconds(value if not str(value).replace(".", "", 1).isdigit() else f"{value}s")
        if seconds is None or seconds <= 0:
            self.fail(f"{value!r} is no time such as 30s", param, ctx)
        return seconds


def _toxic_options(command: Callable[..., None]) -> Callable[..., None]:
    """A switch for each toxic of the registry."""
    for name in reversed(registry.TOXICS):
        kind = registry.load(name)
        switch = "--" + name.replace("_", "-")
        if rules_of(kind):
            metavar = "±".join(each.upper() for each in kind.short) or "NAME=VALUE,..."
            option = click.option(switch, name, metavar=metavar, multiple=True, help=kind.summary)
        else:
            option = click.option(switch, name, is_flag=True, help=kind.summary)
        command = option(command)
    return command


@click.command(cls=_Impair, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", metavar="[LISTEN UPSTREAM]", nargs=-1)
@_toxic_options
@click.option("--toxic", metavar="TYPE,...", multiple=True, help="Any toxic, in words: down:blackhole,at=5s.")
@click.option(
    "--framing", type=click.Choice(list(FRAMINGS)), help="Cut streams into messages, so that they have some."
)
@click.option("--name", default="proxy", show_default=True, help="What the proxy is called.")
@click.option(
    "--config", metavar="FILE", type=click.Path(), help="A scenario in TOML, or Toxiproxy's file in JSON."
)
@click.option("--seed", type=int, metavar="N", help="Make the same decisions again. Default: a random one.")
@click.option("--for", "lasts", type=_Seconds(), metavar="TIME", help="Leave after so long.")
@click.option(
    "--idle", type=_Seconds(), metavar="TIME", default="120s", help="End a UDP session after such a silence."
)
@click.option("--record", metavar="FILE", type=click.Path(), help="Write down what the toxics decide.")
@click.option("--replay", metavar="FILE", type=click.Path(), help="Decide as was written down.")
@click.option("--api", metavar="ENDPOINT", help=f"Where the API is. Default: 127.0.0.1:{PORT}.")
@click.option("--no-api", is_flag=True, help="No API.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but troubles.")
def impair(words: tuple[str, ...], lasts: float | None, **given: Any) -> None:
    """Carry bytes from LISTEN to UPSTREAM and back, as badly as told, until ^C.

    A toxic is put in both directions, or in one: `--latency up:50ms` from the client to the server,
    `down:` back. Without LISTEN and UPSTREAM, proxies are made by --config, or by the API: it is
    Toxiproxy's.

    \b
    For example:
      bothends impair tcp://127.0.0.1:12001 tcp://127.0.0.1:12000 --latency 50ms±10ms
      bothends impair udp://127.0.0.1:12001 udp://127.0.0.1:12000 --loss 10%,burst=4 --seed 7
      bothends impair --config scenario.toml --record decisions.jsonl
    While it runs:
      bothends impair list
      bothends impair add db 127.0.0.1:12003 127.0.0.1:12002
      bothends impair toxic db latency down:1s
      bothends impair remove db latency_downstream
    """
    scenario = _scenario(words, given)
    seed = next((each for each in (given["seed"], scenario.seed) if each is not None), None)
    seed = secrets.randbits(32) if seed is None else seed
    replay = _replay(given["replay"], scenario) if given["replay"] is not None else None
    tell = terminal.note
    _allow_many_descriptors()
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(contextlib.closing(Loop()))
        journal = None
        if given["record"] is not None:
            journal = stack.enter_context(contextlib.closing(Journal(Path(given["record"]))))
            _flush_again_and_again(loop, journal)
        proxies = Proxies(loop, seed=seed, tell=tell, journal=journal, replay=replay, idle=given["idle"])
        stack.enter_context(contextlib.closing(proxies))
        made = [(proxies.make(each), each.enabled) for each in scenario.proxies]
        check(scenario.planned, (proxy for proxy, _ in made))  # before anything is bound
        for proxy, enabled in made:
            proxies.add(proxy, enabled=enabled)
        control = _control(loop, proxies, given)
        if control is not None:
            stack.enter_context(contextlib.closing(control))
        stack.enter_context(contextlib.closing(Conductor(loop, proxies, scenario.planned)))
        stack.enter_context(_told_to_stop(loop))
        lasts = lasts or scenario.lasts
        if lasts is not None:
            loop.later(lasts, loop.stop)
        if not given["quiet"]:
            _banner(proxies, control, seed, replayed=given["replay"])
        with _watching(proxies, quiet=given["quiet"]):
            loop.run()
        if not given["quiet"]:
            from bothends.cli.impair.live_table import summary

            for line in summary(proxies):
                tell(line)


def _scenario(words: tuple[str, ...], given: dict[str, Any]) -> Scenario:
    """What the file and the command line say together."""
    scenario = read(Path(given["config"])) if given["config"] is not None else Scenario()
    own: tuple[Wanted, ...] = ()
    if settings := next(filter(_SETTINGS.fullmatch, words), None):
        raise click.UsageError(f"{settings!r} is no endpoint; if it is of a toxic: --toxic blackhole,at=5s")
    if words:
        endpoints = from_words(words)
        if len(endpoints) != 2:
            raise click.UsageError(
                "where from, and where to? For example: bothends impair :12001 127.0.0.1:12000"
            )
        own = (Wanted(given["name"], endpoints[0], endpoints[1], framing=given["framing"] or ""),)
    elif given["config"] is None and given["no_api"]:
        raise click.UsageError("without LISTEN and UPSTREAM, --config or the API there is nothing to do")
    planned = [*scenario.planned, *_planned(given)]
    if planned and not (own or scenario.proxies):
        raise click.UsageError("toxics, but no proxy: give LISTEN and UPSTREAM, or --config")
    return Scenario((*own, *scenario.proxies), tuple(unique(planned)), scenario.seed, scenario.lasts)


def _replay(path: str, scenario: Scenario) -> Replay:
    if scenario.planned:
        raise CallerError("--replay decides what was written down, and toxics would have to be ignored")
    replay = Replay(Path(path))
    strange = replay.proxies - {each.name for each in scenario.proxies}
    if strange:
        names = ", ".join(map(repr, sorted(strange)))
        raise CallerError(f"{path} has decisions of {names}, and no proxy is called so: see --name")
    return replay


def _planned(given: dict[str, Any]) -> Iterator[Planned]:
    for name in registry.TOXICS:
        texts = given[name]
        for text in ("",) * texts if isinstance(texts, bool) else texts:
            yield from from_text(name, text)
    for text in given["toxic"]:
        first, _, rest = text.partition(",")
        prefix, colon, kind = first.rpartition(":")
        yield from from_text(kind.replace("-", "_"), f"{prefix}{colon}{rest}")


def _control(loop: Loop, proxies: Proxies, given: dict[str, Any]) -> Control | None:
    """The API, if there is to be one. At its usual port another one may have been quicker: that is told."""
    if given["no_api"]:
        if given["api"] is not None:
            raise click.UsageError("--api and --no-api don't go together")
        return None
    from importlib.metadata import version

    words = given["api"] if given["api"] is not None else f"tcp://127.0.0.1:{PORT}"
    try:
        return Control(loop, Api(proxies, version("bothends")), from_words([words])[0])
    except SystemRefused:
        if given["api"] is not None or not len(proxies):
            raise
        terminal.note(f"no API: port {PORT} is taken; --api tcp://127.0.0.1:0 takes another")
        return None


def _banner(proxies: Proxies, control: Control | None, seed: int, *, replayed: str | None) -> None:
    decided = f"decisions of {replayed}" if replayed is not None else f"seed {seed}"
    terminal.note(f"{terminal.styled('impair', 'strong', sys.stderr)}  {decided}", "")
    for proxy in proxies:
        where = terminal.styled(str(proxy.listen), "good", sys.stderr)
        terminal.note(f"  {proxy.name}: {where} -> {proxy.upstream}", "")
        for spec in proxy.specs:
            terminal.note(f"    {spec.name}: {spec.toxic.meaning[proxy.medium]}")
    if control is not None:
        terminal.note(f"  API: {str(control.endpoint).replace('tcp://', 'http://')}")


@contextlib.contextmanager
def _told_to_stop(loop: Loop) -> Iterator[None]:
    """SIGINT, SIGTERM and a lost terminal end it, all alike; afterwards they do what they did before."""

    def stop(_number: int, _frame: object) -> None:
        loop.post(loop.stop)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watching(proxies: Proxies, *, quiet: bool) -> Iterator[None]:
    """The live table, where somebody looks."""
    if quiet or not terminal.is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        yield
        return
    from bothends.cli.impair.live_table import live

    with live(proxies):
        yield


def _allow_many_descriptors() -> None:
    """A connection takes two, and the usual limit is 1,024: raise it as far as an ordinary user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * MOST_CONNECTIONS + 256
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    with contextlib.suppress(ValueError, OSError):
        if wanted > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _flush_again_and_again(loop: Loop, journal: Journal) -> None:
    journal.flush()
    loop.later(_FLUSH, lambda: _flush_again_and_again(loop, journal))
