"""`bothends impair LISTEN UPSTREAM --latency 50ms±10ms ...`: parse, make a proxy of it, run it."""

from __future__ import annotations

import secrets
import signal
from typing import Any

import click

from bothends.cli import terminal
from bothends.endpoints import from_words
from bothends.toxics import registry
from bothends.toxics.attributes import from_words as toxic_from_words
from bothends.toxics.spec import DIRECTIONS, Spec


def _toxic_options(command: Any) -> Any:
    """A switch for each toxic of the registry."""
    for name in reversed(registry.TOXICS):
        kind = registry.load(name)
        metavar = "±".join(each.upper() for each in kind.short) or "NAME=VALUE"
        switch = "--" + name.replace("_", "-")
        command = click.option(switch, name, metavar=metavar, multiple=True, help=kind.summary)(command)
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", metavar="LISTEN UPSTREAM", nargs=-1)
@_toxic_options
@click.option("--seed", type=int, metavar="N", help="Makes the same decisions again. Default: a random one.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but troubles.")
def impair(words: tuple[str, ...], seed: int | None, quiet: bool, **toxics: tuple[str, ...]) -> None:
    """Carry bytes from LISTEN to UPSTREAM and back, as badly as told, until ^C.

    \b
    For example:
      bothends impair tcp://127.0.0.1:12001 tcp://127.0.0.1:12000 --latency 50ms±10ms
    """
    from bothends.impair.loop import Loop
    from bothends.impair.proxy import Proxy

    endpoints = from_words(words)
    if len(endpoints) != 2:
        raise click.UsageError("where from and where to? For example: bothends impair :12001 127.0.0.1:12000")
    seed = secrets.randbits(32) if seed is None else seed
    loop = Loop()
    proxy = Proxy(loop, "proxy", endpoints[0], endpoints[1], seed=seed, tell=terminal.note)
    for name, texts in toxics.items():
        for text in texts:
            for spec in specs_of(name, text):
                proxy.add(spec)
    proxy.enable()
    terminal.note(f"impair  {proxy.listen} -> {proxy.upstream}, seed {seed}", "")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: loop.post(loop.stop))
    try:
        loop.run()
    finally:
        proxy.disable()
        loop.close()


def specs_of(name: str, text: str) -> list[Spec]:
    """The toxics that a switch asks for: `[up:|down:]SHORT`."""
    where, colon, rest = text.partition(":")
    directions = {"up": DIRECTIONS[:1], "down": DIRECTIONS[1:]}.get(where if colon else "", DIRECTIONS)
    toxic = toxic_from_words(registry.load(name), rest if colon and len(directions) == 1 else text)
    return [Spec(f"{name}_{direction}", direction, toxic) for direction in directions]
