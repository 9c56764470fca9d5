"""`bothends serve`: parse, make servers of it, show where they are, run them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from bothends.cli.serve import banner
from bothends.cli.serve.runtime import ServerRuntime
from bothends.cli.wire_options import wire_options
from bothends.configuration import MAX_WORKERS, ServeOptions
from bothends.endpoints import endpoints_from_args
from bothends.engines.access_control import parse_network
from bothends.engines.base import Limits, Network
from bothends.errors import UsageError
from bothends.layers import TlsSettings
from bothends.services import registry as services


class _NetworkType(click.ParamType[Network]):
    """A network, or one address."""

    name = "network"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        try:
            return parse_network(value)
        except ValueError as error:
            self.fail(f"{value!r} is no network; 192.0.2.0/24, for example: {error}", param, ctx)


_SECONDS = click.FloatRange(min=0)

# Options that are called, and read, as in a configuration file.
_COPIED_OPTIONS: Final = ("shell", "engine", "workers", "takeover", "trace", "log", "hex", "quiet")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", metavar="[SERVICE] ENDPOINT...", nargs=-1)
@click.option(
    "-e", "--exec", "command", metavar="CMD", help="Run a command for each connection, as inetd does."
)
@click.option("--shell", is_flag=True, help="Let /bin/sh read that command: pipes, variables, redirections.")
@click.option("--engine", metavar="NAME", help="How to wait: see `bothends engines`. Default: the best here.")
@click.option(
    "--workers", type=click.IntRange(1, MAX_WORKERS), default=1, help="Processes that share the endpoints."
)
@click.option(
    "-m",
    "--max-connections",
    "connections",
    metavar="N",
    type=click.IntRange(1),
    help="Most connections at once, a process.",
)
@click.option(
    "--per-address", metavar="N", type=click.IntRange(1), help="Most connections at once from one address."
)
@click.option(
    "--allow",
    metavar="NET",
    type=_NetworkType(),
    multiple=True,
    help="Networks that may come in, and no others.",
)
@click.option(
    "--deny", metavar="NET", type=_NetworkType(), multiple=True, help="Networks that may not come in."
)
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
    "--life", type=_SECONDS, metavar="S", help="Close a connection after S seconds, whatever happens."
)
@click.option(
    "--rate", metavar="N", type=click.IntRange(1), help="Read at most N bytes a second from one connection."
)
@click.option(
    "--message", metavar="N", type=click.IntRange(1), help="Longest message: a datagram, or a line, in bytes."
)
@click.option(
    "--handshake",
    type=_SECONDS,
    metavar="S",
    default=Limits().handshake,
    show_default=True,
    help="Longest time until TLS, or a PROXY header, is ready.",
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
    "--busy-poll",
    type=_SECONDS,
    metavar="S",
    default=0.0,
    help="Look for news for S seconds before waiting: less latency, for a processor. 0.00005 is a lot.",
)
@click.option(
    "--takeover",
    metavar="PATH",
    help="A UNIX socket: take over the listeners of the server there, and offer ours to the next.",
)
@click.option(
    "--tls-cert",
    "certificate",
    metavar="FILE",
    type=click.Path(),
    help="For tls://: our certificate in PEM, and its chain after it.",
)
@click.option(
    "--tls-key",
    "key",
    metavar="FILE",
    type=click.Path(),
    help="Its key in PEM. Default: in the certificate's file.",
)
@click.option(
    "--tls-self-signed",
    "self_signed",
    is_flag=True,
    help="Make a certificate for this run; clients accept it by its fingerprint.",
)
@click.option(
    "--tls-client-ca",
    "client_ca",
    metavar="FILE",
    type=click.Path(),
    help="Ask clients for a certificate that one of these issued.",
)
@click.option(
    "--alpn", metavar="NAME", multiple=True, help="With TLS: a protocol to offer; the preferred one first."
)
@click.option(
    "--metrics",
    metavar="ENDPOINT",
    multiple=True,
    help="Show metrics and health there, over HTTP: /metrics for Prometheus, /health.",
)
@click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    default="text",
    help="JSON: every event as an object on stdout.",
)
@click.option(
    "--trace",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what happens as a trace, for `bothends trace --open`.",
)
@click.option("--hex", is_flag=True, help="Show the bytes of both directions in hexadecimal.")
@click.option(
    "--config", metavar="FILE", type=click.Path(), help="Serve what this TOML file says, and nothing else."
)
@click.option("--check", is_flag=True, help="Say what would run, or what is wrong with it, and bind nothing.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Show no messages and no comings and goings, only troubles."
)
@wire_options("server", is_server=True)
@click.pass_context
def serve(context: click.Context, /, words: tuple[str, ...], **given: Any) -> None:
    """Serve SERVICE on every ENDPOINT, until ^C.

    SERVICE is a name of `bothends services`, or yours: shout.py:shout. Each message is shown on
    stdout as `IP#port: text`, everything else on stderr. Port 0 lets the system pick.

    \b
    For example:
      bothends serve upper tcp://:12000 udp://:12000
      bothends serve shout.py:shout unix:///tmp/shout.sock --engine threads
      bothends serve --exec "sort -u" tcp://127.0.0.1:0
      bothends serve upper tls://:12000 --tls-self-signed
      bothends serve upper tcp://:12000 --metrics tcp://127.0.0.1:9100
      bothends serve --config servers.toml --check
    """
    if given["config"] is not None:
        _reject_other_options(context)
        from bothends.configuration import read

        found = read(Path(given["config"]))
    else:
        found = [_options(words, given)]
    if given["check"]:
        from bothends.cli.serve.dry_run import show

        show(found)
    elif len(found) == 1:
        serving = ServerRuntime(found[0])
        serving.run(on_ready=lambda: banner.show(serving))
    else:
        from bothends.cli.serve.supervisor import run_all

        run_all(found)


def _options(words: tuple[str, ...], given: dict[str, Any]) -> ServeOptions:
    """What the command line says, as a configuration file would."""
    command = given["command"]
    limits = {each.name: given[each.name] for each in fields(Limits) if each.name in given}
    for name in ("idle", "life"):
        limits[name] = limits[name] or None  # 0 is no limit
    tls = TlsSettings(**{each.name: given[each.name] for each in fields(TlsSettings)})
    service, endpoints = ("", words) if command is not None else _service_and_endpoints(words)
    if command is not None and given["engine"] is not None:
        raise UsageError("--exec runs a process for each connection: there is no engine to choose")
    if command is None and given["shell"]:
        raise UsageError("--shell is for a command: --exec 'sort | uniq -c', for example")
    if not endpoints:
        raise UsageError('serve it where? For example: bothends serve --exec "sort -u" tcp://:12000')
    return ServeOptions(
        service=service,
        exec=command or "",
        endpoints=tuple(endpoints_from_args(endpoints)),
        limits=Limits(**limits),
        tls=None if tls == TlsSettings() else tls,
        metrics=tuple(endpoints_from_args(given["metrics"])),
        **{name: given[name] for name in _COPIED_OPTIONS},
    )


def _service_and_endpoints(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    if not words:
        raise UsageError("serve what? For example: bothends serve upper tcp://:12000; see bothends services")
    if len(words) == 1:
        services.load(words[0])  # the likelier mistake first
        raise UsageError(f"serve {words[0]} where? For example: bothends serve {words[0]} tcp://:12000")
    return words[0], words[1:]


def _reject_other_options(context: click.Context) -> None:
    """Beside a configuration file nothing else says what to serve: it would have to be ignored."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        is_given = source is ParameterSource.COMMANDLINE and context.params.get(name)
        if is_given and name not in ("config", "check", "path", "hosts", "inside"):
            what = (
                parameter.opts[-1] if isinstance(parameter, click.Option) else " ".join(context.params[name])
            )
            raise UsageError(f"--config and {what} don't go together: write it into the file")
