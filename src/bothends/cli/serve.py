"""`bothends serve`: parse, make a Server, show where it is, run it."""

from __future__ import annotations

import sys
from typing import Any

import click

from bothends.cli import banner, terminal
from bothends.endpoints import Endpoint, from_words
from bothends.engines.base import Engine, Limits
from bothends.errors import CallerError
from bothends.events import Observer
from bothends.layers import TlsSettings
from bothends.log import TextLog
from bothends.server import Server
from bothends.services import registry as services
from bothends.services.base import Service

_SECONDS = click.FloatRange(min=0)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", metavar="[SERVICE] ENDPOINT...", nargs=-1)
@click.option(
    "-e", "--exec", "command", metavar="CMD", help="Run a command for each connection, as inetd does."
)
@click.option("--engine", metavar="NAME", help="How to wait: see `bothends engines`. Default: the best here.")
@click.option("--workers", type=click.IntRange(1, 512), default=1, help="Processes that share the endpoints.")
@click.option("-m", "--max-connections", type=click.IntRange(1), help="Most connections at once, a process.")
@click.option(
    "--when-full",
    type=click.Choice(["defer", "refuse"]),
    default="defer",
    help="At that limit: leave newcomers in the queue, or close them at once.",
)
@click.option(
    "--idle", type=_SECONDS, metavar="S", help="Close a connection on which nothing moves for S seconds."
)
@click.option(
    "--drain",
    type=_SECONDS,
    metavar="S",
    default=Limits().drain,
    show_default=True,
    help="On SIGTERM or ^C: how long conversations may take to end.",
)
@click.option(
    "--takeover",
    metavar="PATH",
    help="A UNIX socket: take over the listeners of the server there, and offer ours to the next.",
)
@click.option(
    "--tls-cert",
    metavar="FILE",
    type=click.Path(),
    help="For tls://: our certificate in PEM, and its chain after it.",
)
@click.option(
    "--tls-key", metavar="FILE", type=click.Path(), help="Its key in PEM. Default: in the certificate's file."
)
@click.option(
    "--tls-self-signed",
    is_flag=True,
    help="Make a certificate for this run; clients accept it by its fingerprint.",
)
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    type=click.Path(),
    help="Ask clients for a certificate that one of these issued.",
)
@click.option(
    "--alpn", metavar="NAME", multiple=True, help="With TLS: a protocol to offer; the preferred one first."
)
@click.option(
    "-q", "--quiet", is_flag=True, help="Show no messages and no comings and goings, only troubles."
)
def serve(
    words: tuple[str, ...],
    command: str | None,
    engine: str | None,
    workers: int,
    max_connections: int | None,
    when_full: Any,
    idle: float | None,
    drain: float,
    takeover: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_self_signed: bool,
    tls_client_ca: str | None,
    alpn: tuple[str, ...],
    quiet: bool,
) -> None:
    """Serve SERVICE on every ENDPOINT, until ^C.

    SERVICE is a name of `bothends services`, or yours: shout.py:shout. Each message is shown on
    stdout as `IP#port: text`, everything else on stderr. Port 0 lets the system pick.

    \b
    For example:
      bothends serve upper tcp://:12000 udp://:12000
      bothends serve shout.py:shout unix:///tmp/shout.sock --engine threads
      bothends serve --exec "sort -u" tcp://127.0.0.1:0
      bothends serve upper tls://:12000 --tls-self-signed
    """
    limits = Limits(connections=max_connections, when_full=when_full, idle=idle or None, drain=drain)
    service, chosen, places = _what_and_where(words, command, engine)
    tls = TlsSettings(tls_cert, tls_key, tls_client_ca, alpn, tls_self_signed)
    server = Server(
        service,
        places,
        engine=chosen,
        workers=workers,
        limits=limits,
        observe=log(service, quiet=quiet),
        tls=None if tls == TlsSettings() else tls,
        takeover=takeover,
        origin=None if command else words[0],
    )
    server.run(ready=lambda: banner.show(server, what=command))


def _what_and_where(
    words: tuple[str, ...], command: str | None, engine: str | None
) -> tuple[Service, str | type[Engine] | None, list[Endpoint]]:
    if command is None:
        if not words:
            raise CallerError(
                "serve what? For example: bothends serve upper tcp://:12000; see bothends services"
            )
        if len(words) == 1:
            services.load(words[0])  # the likelier mistake first
            raise CallerError(f"serve {words[0]} where? For example: bothends serve {words[0]} tcp://:12000")
        return services.load(words[0]), engine, from_words(words[1:])
    if engine is not None:
        raise CallerError("--exec runs a process for each connection: there is no engine to choose")
    if not words:
        raise CallerError('serve it where? For example: bothends serve --exec "sort -u" tcp://:12000')
    from bothends.engines.command import Command, CommandEngine

    return Command(command), CommandEngine, from_words(words)


def log(service: Service, *, quiet: bool) -> Observer:
    """The log of a server in the foreground."""
    return TextLog(
        messages=sys.stdout if service.shows or not quiet else None,
        happenings=None if quiet else sys.stderr,
        troubles=sys.stderr,
        colour=terminal.has_colour,
    )
