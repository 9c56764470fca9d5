"""`bothends impair LISTEN UPSTREAM --latency 50ms±10ms ...`: parse the arguments, create and run proxies."""

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
from bothends.cli.help_layout import lay_out
from bothends.cli.impair.api import VERBS, read_token, token_option
from bothends.cli.impair.toxiproxy import instead_of
from bothends.cli.output_files import output_files
from bothends.endpoints import endpoints_from_args
from bothends.errors import SystemCallFailed, UsageError
from bothends.impair.api import ALLOWED, DEFAULT_PORT, Api, ApiAccess
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

# An attribute of a toxic, given as an argument by mistake (after --blackhole, which takes no value).
_TOXIC_SETTING: Final = re.compile(r"(?:up:|down:)?[a-z_]+=.*")


class _ImpairCommand(click.Command):
    """The command `impair`, with the verbs that control a running one."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if instead := instead_of(args):
            raise UsageError(f"that is a command of Toxiproxy; type {instead}")
        verb = VERBS.get(args[0]) if args else None
        if verb is None:
            return super().make_context(info_name, args, parent, **extra)
        return lay_out(verb).make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)


class _DurationType(click.ParamType[float]):
    """A duration, with a unit or in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = parse_duration(value if not str(value).replace(".", "", 1).isdigit() else f"{value}s")
        if seconds is None or seconds <= 0:
            self.fail(f"{value!r} is not a duration; for example 30s", param, ctx)
        return seconds


def _toxic_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each toxic."""
    for name in reversed(registry.TOXICS):
        kind = registry.load(name)
        flag, help_ = "--" + name.replace("_", "-"), f"{kind.summary[0].upper()}{kind.summary[1:]}."
        if rules_of(kind):
            metavar = "±".join(each.upper() for each in kind.short_form) or "NAME=VALUE,..."
            option = click.option(flag, name, metavar=metavar, multiple=True, help=help_)
        else:
            option = click.option(flag, name, is_flag=True, help=help_)
        command = option(command)
    return command


@click.command(cls=_ImpairCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("args", metavar="[LISTEN UPSTREAM]", nargs=-1)
@_toxic_options
@click.option(
    "--toxic", metavar="TYPE,...", multiple=True, help="Any toxic by its type: down:blackhole,at=5s."
)
@click.option(
    "--framing",
    type=click.Choice(list(FRAMINGS)),
    help="Split streams into messages, for toxics of messages.",
)
@click.option("--name", default="proxy", show_default=True, help="Name of the proxy.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(),
    help="A scenario in TOML, or a configuration of Toxiproxy in JSON.",
)
@click.option("--seed", type=int, metavar="N", help="Seed of all random decisions. Default: random.")
@click.option("--for", "duration", type=_DurationType(), metavar="TIME", help="Exit after this time.")
@click.option(
    "--idle",
    type=_DurationType(),
    metavar="TIME",
    default="120s",
    help="End a UDP session after this time without data.",
)
@click.option("--record", metavar="FILE", type=click.Path(), help="Record the decisions of the toxics.")
@click.option("--replay", metavar="FILE", type=click.Path(), help="Replay recorded decisions.")
@click.option("--api", metavar="ENDPOINT", help=f"Endpoint of the API. Default: 127.0.0.1:{DEFAULT_PORT}.")
@click.option(
    "--api-allow",
    type=click.Choice(ALLOWED),
    multiple=True,
    help="Let clients of the API use UNIX sockets, or privileged ports and marks.",
)
@token_option
@click.option("--no-api", is_flag=True, help="Run without the API.")
@click.option("-q", "--quiet", is_flag=True, help="Only print warnings and errors.")
def impair(args: tuple[str, ...], duration: float | None, **given: Any) -> None:
    """Forward LISTEN to UPSTREAM, applying the given faults, until ^C.

    A toxic applies to both directions or to one: `--latency up:50ms` from the client to the server, `down:`
    from the server to the client. Without LISTEN and UPSTREAM, proxies come from --config, or from the API,
    which is Toxiproxy's.

    \b
    For example:
      bothends impair tcp://:12001 tcp://127.0.0.1:12000 --latency 50ms±10ms
      bothends impair udp://:12001 udp://127.0.0.1:12000 --loss 10%,burst=4
      bothends impair --config scenario.toml --record decisions.jsonl
    While it runs:
      bothends impair list
      bothends impair add db 127.0.0.1:12003 127.0.0.1:12002
      bothends impair toxic db latency down:1s
      bothends impair toggle db
      bothends impair remove db latency_downstream
    """
    scenario = _scenario(args, given)
    seed = next((each for each in (given["seed"], scenario.seed) if each is not None), None)
    seed = secrets.randbits(32) if seed is None else seed
    replay = _replay(given["replay"], scenario) if given["replay"] is not None else None
    _raise_descriptor_limit()
    with output_files() as files, contextlib.ExitStack() as stack:
        loop = stack.enter_context(contextlib.closing(EventLoop()))
        recording = None
        if given["record"] is not None:
            recording = files.closing(RecordingWriter(Path(given["record"]), files.warn))
        proxies = ProxyCollection(
            loop,
            seed=seed,
            notify=files.notify,
            recording=recording,
            replay=replay,
            idle_timeout=given["idle"],
        )
        stack.enter_context(contextlib.closing(proxies))
        created = [(proxies.create(each), each.enabled) for each in scenario.proxies]
        check_placements(scenario.scheduled, (proxy for proxy, _ in created))  # before anything is bound
        for proxy, enabled in created:
            proxies.add(proxy, enabled=enabled)
        api_server = _open_api(loop, proxies, given)
        if api_server is not None:
            stack.enter_context(contextlib.closing(api_server))
        stack.enter_context(contextlib.closing(ToxicScheduler(loop, proxies, scenario.scheduled)))
        stack.enter_context(_stop_on_signals(loop))
        duration = duration or scenario.duration
        if duration is not None:
            loop.call_later(duration, loop.stop)
        if not given["quiet"]:
            _banner(proxies, api_server, seed, replayed=given["replay"])
        with _live_table(proxies, quiet=given["quiet"]):
            loop.run()
        if not given["quiet"]:
            from bothends.cli.impair.live_table import summary

            for line in summary(proxies):
                files.notify(line)


def _scenario(args: tuple[str, ...], given: dict[str, Any]) -> Scenario:
    """Return the scenario of the configuration file and the command line together."""
    scenario = read_scenario(Path(given["config"])) if given["config"] is not None else Scenario()
    own: tuple[ProxyConfig, ...] = ()
    if settings := next(filter(_TOXIC_SETTING.fullmatch, args), None):
        raise click.UsageError(
            f"{settings!r} is not an endpoint; for an attribute of a toxic: --toxic blackhole,at=5s"
        )
    if args:
        endpoints = endpoints_from_args(args)
        if len(endpoints) != 2:
            raise click.UsageError(
                "expected LISTEN and UPSTREAM; for example: bothends impair :12001 127.0.0.1:12000"
            )
        own = (ProxyConfig(given["name"], endpoints[0], endpoints[1], framing=given["framing"] or ""),)
    elif given["config"] is None and given["no_api"]:
        raise click.UsageError("no proxy: give LISTEN and UPSTREAM, or --config, or leave out --no-api")
    scheduled = [*scenario.scheduled, *_scheduled_toxics(given)]
    if scheduled and not (own or scenario.proxies):
        raise click.UsageError("toxics without a proxy: give LISTEN and UPSTREAM, or --config")
    return Scenario(
        (*own, *scenario.proxies), tuple(with_unique_names(scheduled)), scenario.seed, scenario.duration
    )


def _replay(path: str, scenario: Scenario) -> Replay:
    if scenario.scheduled:
        raise UsageError("--replay cannot be combined with toxics: the recorded decisions replace them")
    replay = Replay(Path(path))
    unknown = replay.proxies - {each.name for each in scenario.proxies}
    if unknown:
        names = ", ".join(map(repr, sorted(unknown)))
        raise UsageError(f"{path} has decisions for {names}, but there is no such proxy; try --name")
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
    """Start the API server, unless --no-api is given.

    If the default port is in use, print a note and return None.
    """
    if given["no_api"]:
        if given["api"] is not None:
            raise click.UsageError("--api and --no-api cannot be combined")
        return None
    from importlib.metadata import version

    text = given["api"] if given["api"] is not None else f"tcp://127.0.0.1:{DEFAULT_PORT}"
    endpoint = endpoints_from_args([text])[0]
    names = frozenset({os.uname().nodename.lower(), endpoint.host.lower()} - {""})
    hosts = None if endpoint.is_unix else names  # no browser connects to a UNIX socket
    access = ApiAccess(read_token(given["api_token_file"]), hosts, frozenset(given["api_allow"]))
    try:
        return ApiServer(loop, Api(proxies, version("bothends"), access), endpoint)
    except SystemCallFailed:
        if given["api"] is not None or not len(proxies):
            raise
        terminal.note(f"no API: port {DEFAULT_PORT} is in use; try --api tcp://127.0.0.1:0")
        return None


def _banner(
    proxies: ProxyCollection, api_server: ApiServer | None, seed: int, *, replayed: str | None
) -> None:
    decisions = f"decisions of {replayed}" if replayed is not None else f"seed {seed}"
    terminal.note(f"{terminal.styled('impair', 'strong', sys.stderr)}  {decisions}", "")
    for proxy in proxies:
        listen = terminal.styled(str(proxy.listen), "good", sys.stderr)
        terminal.note(f"  {proxy.name}: {listen} -> {proxy.upstream}", "")
        for spec in proxy.toxics:
            terminal.note(f"    {spec.name}: {spec.toxic.effects[proxy.medium]}")
    if api_server is not None:
        terminal.note(f"  API: {str(api_server.endpoint).replace('tcp://', 'http://')}")


@contextlib.contextmanager
def _stop_on_signals(loop: EventLoop) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP stop the loop inside the context; restore the handlers afterwards."""

    def stop(_number: int, _frame: object) -> None:
        loop.post(loop.stop)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _live_table(proxies: ProxyCollection, *, quiet: bool) -> Iterator[None]:
    """Show the live table if stderr is a terminal."""
    if quiet or not terminal.is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        yield
        return
    from bothends.cli.impair.live_table import live

    with live(proxies):
        yield


def _raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors as far as the hard limit allows (getrlimit(2)).

    Each proxied connection takes two descriptors, and the usual soft limit is 1,024.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * MAX_CONNECTIONS + 256
    wanted = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    with contextlib.suppress(ValueError, OSError):
        if wanted > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
