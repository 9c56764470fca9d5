"""`bothends serve`: parse the arguments, bind the servers, print where they listen, run them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from bothends.cli import terminal
from bothends.cli.output_files import output_files
from bothends.cli.serve import banner
from bothends.cli.serve.runtime import ServerRuntime, dry_run
from bothends.cli.wire_options import wire_options
from bothends.configuration import MAX_WORKERS, ServeOptions
from bothends.endpoints import Endpoint, endpoints_from_args
from bothends.engines.base import Limits, Network
from bothends.engines.client_limits import parse_network
from bothends.errors import BothendsError, UsageError
from bothends.layers import TlsSettings
from bothends.services import registry as services


class _NetworkType(click.ParamType[Network]):
    """A network, or a single address."""

    name = "network"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        try:
            return parse_network(value)
        except ValueError as error:
            self.fail(f"{value!r} is not a network: {error}; for example 192.0.2.0/24", param, ctx)


_SECONDS = click.FloatRange(min=0)

# Options with the same names and values as keys of a configuration file.
_COPIED_OPTIONS: Final = (
    "shell", "engine", "workers", "takeover", "trace", "log", "log_level", "hex", "quiet"
)  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("args", metavar="[SERVICE] ENDPOINT...", nargs=-1)
@click.option(
    "-e", "--exec", "command", metavar="CMD", help="Run a command for each connection, as inetd does."
)
@click.option("--shell", is_flag=True, help="Run that command with /bin/sh: pipes, variables, redirections.")
@click.option(
    "--engine", metavar="NAME", help="I/O engine: see `bothends engines`. Default: the best available."
)
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=1,
    help="Number of processes that share the endpoints.",
)
@click.option(
    "-m",
    "--max-connections",
    "connections",
    metavar="N",
    type=click.IntRange(1),
    help="Limit of concurrent connections, for each process.",
)
@click.option(
    "--per-address",
    metavar="N",
    type=click.IntRange(1),
    help="Limit of concurrent connections from one address.",
)
@click.option(
    "--allow",
    metavar="NET",
    type=_NetworkType(),
    multiple=True,
    help="Accept connections from this network only; may be repeated.",
)
@click.option(
    "--deny",
    metavar="NET",
    type=_NetworkType(),
    multiple=True,
    help="Reject connections from this network; may be repeated.",
)
@click.option(
    "--when-full",
    type=click.Choice(["defer", "refuse", "evict"]),
    default="defer",
    help="At that limit, leave new connections in the accept queue, close them at once, or close the one "
    "that has been idle for longest.",
)
@click.option("--idle", type=_SECONDS, metavar="S", help="Close a connection after S seconds without data.")
@click.option("--life", type=_SECONDS, metavar="S", help="Close every connection after S seconds.")
@click.option(
    "--rate", metavar="N", type=click.IntRange(1), help="Read at most N bytes per second from one connection."
)
@click.option(
    "--message",
    metavar="N",
    type=click.IntRange(1),
    help="Maximum size of a message (a datagram or a line), in bytes.",
)
@click.option(
    "--handshake",
    type=_SECONDS,
    metavar="S",
    default=Limits().handshake,
    show_default=True,
    help="Timeout of the TLS handshake or PROXY header.",
)
@click.option(
    "--drain",
    type=_SECONDS,
    metavar="S",
    default=Limits().drain,
    show_default=True,
    help="On SIGTERM or ^C, close connections that are still open after S seconds.",
)
@click.option(
    "--busy-poll",
    type=_SECONDS,
    metavar="S",
    default=0.0,
    help="Busy-poll for S seconds before blocking (lower latency, burns a CPU core). 0.00005 is a lot.",
)
@click.option(
    "--takeover",
    metavar="PATH",
    help="A UNIX socket: take over the listeners of the server there, and offer them to the next one.",
)
@click.option(
    "--tls-cert",
    "certificate",
    metavar="FILE",
    type=click.Path(),
    help="TLS: the certificate (PEM), followed by its chain.",
)
@click.option(
    "--tls-key",
    "key",
    metavar="FILE",
    type=click.Path(),
    help="TLS: its private key (PEM). Default: in the certificate's file.",
)
@click.option(
    "--tls-self-signed",
    "self_signed",
    is_flag=True,
    help="TLS: generate a certificate for this run; clients accept it by its fingerprint.",
)
@click.option(
    "--tls-client-ca",
    "client_ca",
    metavar="FILE",
    type=click.Path(),
    help="TLS: require a client certificate issued by one of these.",
)
@click.option(
    "--alpn",
    metavar="NAME",
    multiple=True,
    help="TLS: a protocol to offer, the preferred one first; may be repeated.",
)
@click.option(
    "--metrics",
    metavar="ENDPOINT",
    multiple=True,
    help="Serve metrics and health over HTTP: /metrics for Prometheus, /health.",
)
@click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Log format; json writes every event as an object to stdout.",
)
@click.option(
    "--log-level",
    type=click.Choice(["messages", "connections", "problems"]),
    default="messages",
    help="Log messages, connections and problems; or connections and problems; or problems only.",
)
@click.option(
    "--trace",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the events to a trace file, for `bothends trace --open`.",
)
@click.option("--hex", is_flag=True, help="Log the bytes of both directions in hexadecimal.")
@click.option("--config", metavar="FILE", type=click.Path(), help="Run the servers of this TOML file.")
@click.option(
    "--check", is_flag=True, help="Check the arguments and print what would run, without binding anything."
)
@click.option(
    "-q", "--quiet", is_flag=True, help="Don't log messages or connections: the same as --log-level problems."
)
@wire_options("server", is_server=True)
@click.pass_context
def serve(context: click.Context, /, args: tuple[str, ...], **given: Any) -> None:
    """Serve SERVICE on every ENDPOINT, until ^C.

    SERVICE is a name listed by `bothends services`, or your own: shout.py:shout. Messages are logged to
    stdout as `IP#port: text`, everything else to stderr. Port 0 lets the kernel choose a port.

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

        servers = read(Path(given["config"]))
    else:
        servers = [_options(args, given)]
    if given["check"]:
        _print_dry_run(servers)
    elif len(servers) == 1:
        with output_files() as files:
            runtime = ServerRuntime(servers[0], files)
            runtime.run(on_ready=lambda: banner.show(runtime))
    else:
        from bothends.cli.serve.supervisor import run_all

        run_all(servers)


def _options(args: tuple[str, ...], given: dict[str, Any]) -> ServeOptions:
    """Return the options that the command line gives."""
    command = given["command"]
    limits = {each.name: given[each.name] for each in fields(Limits) if each.name in given}
    for name in ("idle", "life"):
        limits[name] = limits[name] or None  # 0 means no limit
    tls = TlsSettings(**{each.name: given[each.name] for each in fields(TlsSettings)})
    service, endpoints = ("", args) if command is not None else _service_and_endpoints(args)
    if command is not None and given["engine"] is not None:
        raise UsageError("--engine has no effect with --exec, which runs a process for each connection")
    if command is None and given["shell"]:
        raise UsageError("--shell needs --exec; for example --exec 'sort | uniq -c'")
    if not endpoints:
        raise UsageError('missing ENDPOINT; for example: bothends serve --exec "sort -u" tcp://:12000')
    return ServeOptions(
        service=service,
        exec=command or "",
        endpoints=tuple(endpoints_from_args(endpoints)),
        limits=Limits(**limits),
        tls=None if tls == TlsSettings() else tls,
        metrics=tuple(endpoints_from_args(given["metrics"])),
        **{name: given[name] for name in _COPIED_OPTIONS},
    )


def _service_and_endpoints(args: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    if not args:
        raise UsageError(
            "missing SERVICE; for example: bothends serve upper tcp://:12000; see bothends services"
        )
    if _is_endpoint(args[0]):
        example = f"bothends serve upper {' '.join(args)}"
        raise UsageError(f"missing SERVICE before {args[0]}; for example: {example}; see bothends services")
    if len(args) == 1:
        services.load(args[0])  # an unknown service is the more likely mistake: report it first
        raise UsageError(f"missing ENDPOINT; for example: bothends serve {args[0]} tcp://:12000")
    return args[0], args[1:]


def _is_endpoint(text: str) -> bool:
    """Return whether a text is an endpoint, not the name of a service."""
    if text.removesuffix(".py") != text or ".py:" in text:
        return False
    try:
        endpoints_from_args([text])
    except BothendsError:
        return "://" in text
    return True


def _reject_other_options(context: click.Context) -> None:
    """Reject other options and arguments beside --config, because they would have no effect."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        is_given = source is ParameterSource.COMMANDLINE and context.params.get(name)
        if is_given and name not in ("config", "check", "path", "hosts", "inside"):
            what = (
                parameter.opts[-1] if isinstance(parameter, click.Option) else " ".join(context.params[name])
            )
            raise UsageError(f"--config and {what} cannot be combined: write it into the file")


def _print_dry_run(servers: Sequence[ServeOptions]) -> None:
    """Check servers without binding anything, and print a table of them. Raises BothendsError."""
    rows = [
        (
            options.title,
            _join_endpoints(options.endpoints),
            dry_run(options).name,
            str(options.workers),
            _join_endpoints(options.metrics) or "-",
        )
        for options in servers
    ]
    terminal.table(("name", "endpoints", "engine", "processes", "metrics"), rows)


def _join_endpoints(endpoints: Iterable[Endpoint]) -> str:
    return " ".join(map(str, endpoints))
