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
from bothends.endpoints import endpoints_from_args
from bothends.errors import SystemCallFailed, UsageError
from bothends.impair.api import DEFAULT_PORT, Api
from bothends.impair.api_server import ApiServer
from bothends.impair.proxies import ProxyCollection, ProxyConfig
from bothends.impair.proxy import MAX_CONNECTIONS
from bothends.impair.recording import RecordingWriter, Replay
from bothends.impair.scenario import (
    Scenario,
    ScheduledToxic,
    ToxicScheduler,
    check_placements,
    parse_toxic,
    read_scenario,
    with_unique_names,
)
from bothends.impair.sockets import FRAMINGS
from bothends.osutil.event_loop import EventLoop
from bothends.toxics import registry
from bothends.toxics.attributes import parse_duration, rules_of

# What someone writes behind --blackhole, which takes nothing.
_TOXIC_SETTING: Final = re.compile(r"(?:up:|down:)?[a-z_]+=.*")

_FLUSH_INTERVAL = 0.5  # seconds: what a record may lack that is looked at while it is being written


class _ImpairCommand(click.Command):
    """`impair`, and behind it the verbs that talk to one that runs."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        verb = VERBS.get(args[0]) if args else None
        if verb is None:
            return super().make_context(info_name, args, parent, **extra)
        return verb.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)


class _DurationType(click.ParamType[float]):
    """A time, with its unit or in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = parse_duration(value if not str(value).replace(".", "", 1).isdigit() else f"{value}s")
        if seconds is None or seconds <= 0:
            self.fail(f"{value!r} is no time such as 30s", param, ctx)
        return seconds


def _toxic_options(command: Callable[..., None]) -> Callable[..., None]:
    """A switch for each toxic of the registry."""
    for name in reversed(registry.TOXICS):
        kind = registry.load(name)
        switch = "--" + name.replace("_", "-")
        if rules_of(kind):
            metavar = "±".join(each.upper() for each in kind.short_form) or "NAME=VALUE,..."
            option = click.option(switch, name, metavar=metavar, multiple=True, help=kind.summary)
        else:
            option = click.option(switch, name, is_flag=True, help=kind.summary)
        command = option(command)
    return command


@click.command(cls=_ImpairCommand, context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option("--for", "lasts", type=_DurationType(), metavar="TIME", help="Leave after so long.")
@click.option(
    "--idle",
    type=_DurationType(),
    metavar="TIME",
    default="120s",
    help="End a UDP session after such a silence.",
)
@click.option("--record", metavar="FILE", type=click.Path(), help="Write down what the toxics decide.")
@click.option("--replay", metavar="FILE", type=click.Path(), help="Decide as was written down.")
@click.option("--api", metavar="ENDPOINT", help=f"Where the API is. Default: 127.0.0.1:{DEFAULT_PORT}.")
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
    _raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(contextlib.closing(EventLoop()))
        journal = None
        if given["record"] is not None:
            journal = stack.enter_context(contextlib.closing(RecordingWriter(Path(given["record"]))))
            _flush_periodically(loop, journal)
        proxies = ProxyCollection(
            loop, seed=seed, notify=tell, recording=journal, replay=replay, idle_timeout=given["idle"]
        )
        stack.enter_context(contextlib.closing(proxies))
        made = [(proxies.create(each), each.enabled) for each in scenario.proxies]
        check_placements(scenario.scheduled, (proxy for proxy, _ in made))  # before anything is bound
        for proxy, enabled in made:
            proxies.add(proxy, enabled=enabled)
        control = _open_api(loop, proxies, given)
        if control is not None:
            stack.enter_context(contextlib.closing(control))
        stack.enter_context(contextlib.closing(ToxicScheduler(loop, proxies, scenario.scheduled)))
        stack.enter_context(_stop_on_signals(loop))
        lasts = lasts or scenario.duration
        if lasts is not None:
            loop.call_later(lasts, loop.stop)
        if not given["quiet"]:
            _banner(proxies, control, seed, replayed=given["replay"])
        with _live_table(proxies, quiet=given["quiet"]):
            loop.run()
        if not given["quiet"]:
            from bothends.cli.impair.live_table import summary

            for line in summary(proxies):
                tell(line)


def _scenario(words: tuple[str, ...], given: dict[str, Any]) -> Scenario:
    """What the file and the command line say together."""
    scenario = read_scenario(Path(given["config"])) if given["config"] is not None else Scenario()
    own: tuple[ProxyConfig, ...] = ()
    if settings := next(filter(_TOXIC_SETTING.fullmatch, words), None):
        raise click.UsageError(f"{settings!r} is no endpoint; if it is of a toxic: --toxic blackhole,at=5s")
    if words:
        endpoints = endpoints_from_args(words)
        if len(endpoints) != 2:
            raise click.UsageError(
                "where from, and where to? For example: bothends impair :12001 127.0.0.1:12000"
            )
        own = (ProxyConfig(given["name"], endpoints[0], endpoints[1], framing=given["framing"] or ""),)
    elif given["config"] is None and given["no_api"]:
        raise click.UsageError("without LISTEN and UPSTREAM, --config or the API there is nothing to do")
    planned = [*scenario.scheduled, *_scheduled_toxics(given)]
    if planned and not (own or scenario.proxies):
        raise click.UsageError("toxics, but no proxy: give LISTEN and UPSTREAM, or --config")
    return Scenario(
        (*own, *scenario.proxies), tuple(with_unique_names(planned)), scenario.seed, scenario.duration
    )


def _replay(path: str, scenario: Scenario) -> Replay:
    if scenario.scheduled:
        raise UsageError("--replay decides what was written down, and toxics would have to be ignored")
    replay = Replay(Path(path))
    strange = replay.proxies - {each.name for each in scenario.proxies}
    if strange:
        names = ", ".join(map(repr, sorted(strange)))
        raise UsageError(f"{path} has decisions of {names}, and no proxy is called so: see --name")
    return replay


def _scheduled_toxics(given: dict[str, Any]) -> Iterator[ScheduledToxic]:
    for name in registry.TOXICS:
        texts = given[name]
        for text in ("",) * texts if isinstance(texts, bool) else texts:
            yield from parse_toxic(name, text)
    for text in given["toxic"]:
        first, _, rest = text.partition(",")
        prefix, colon, kind = first.rpartition(":")
        yield from parse_toxic(kind.replace("-", "_"), f"{prefix}{colon}{rest}")


def _open_api(loop: EventLoop, proxies: ProxyCollection, given: dict[str, Any]) -> ApiServer | None:
    """The API, if there is to be one. At its usual port another one may have been quicker: that is told."""
    if given["no_api"]:
        if given["api"] is not None:
            raise click.UsageError("--api and --no-api don't go together")
        return None
    from importlib.metadata import version

    words = given["api"] if given["api"] is not None else f"tcp://127.0.0.1:{DEFAULT_PORT}"
    try:
        return ApiServer(loop, Api(proxies, version("bothends")), endpoints_from_args([words])[0])
    except SystemCallFailed:
        if given["api"] is not None or not len(proxies):
            raise
        terminal.note(f"no API: port {DEFAULT_PORT} is taken; --api tcp://127.0.0.1:0 takes another")
        return None


def _banner(
    proxies: ProxyCollection, api_server: ApiServer | None, seed: int, *, replayed: str | None
) -> None:
    decided = f"decisions of {replayed}" if replayed is not None else f"seed {seed}"
    terminal.note(f"{terminal.styled('impair', 'strong', sys.stderr)}  {decided}", "")
    for proxy in proxies:
        where = terminal.styled(str(proxy.listen), "good", sys.stderr)
        terminal.note(f"  {proxy.name}: {where} -> {proxy.upstream}", "")
        for spec in proxy.toxics:
            terminal.note(f"    {spec.name}: {spec.toxic.effects[proxy.medium]}")
    if api_server is not None:
        terminal.note(f"  API: {str(api_server.endpoint).replace('tcp://', 'http://')}")


@contextlib.contextmanager
def _stop_on_signals(loop: EventLoop) -> Iterator[None]:
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
def _live_table(proxies: ProxyCollection, *, quiet: bool) -> Iterator[None]:
    """The live table, where somebody looks."""
    if quiet or not terminal.is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        yield
        return
    from bothends.cli.impair.live_table import live

    with live(proxies):
        yield


def _raise_descriptor_limit() -> None:
    """A connection takes two, and the usual limit is 1,024: raise it as far as an ordinary user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * MAX_CONNECTIONS + 256
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    with contextlib.suppress(ValueError, OSError):
        if wanted > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _flush_periodically(loop: EventLoop, journal: RecordingWriter) -> None:
    journal.flush()
    loop.call_later(_FLUSH_INTERVAL, lambda: _flush_periodically(loop, journal))
