"""`bothends connect`: a client at a prompt, in a pipe, or for one request; with netcat's options."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bothends.cli.connect.options import ConnectOptions
from bothends.cli.connect.session import run_session
from bothends.cli.wire_options import wire_options

if TYPE_CHECKING:
    from bothends.endpoints import Endpoint
    from bothends.events import Observer

CONNECT_TIMEOUT: Final = 10.0  # seconds
SCAN_TIMEOUT: Final = 2.0  # -z: seconds for each address of each port

# The scheme of HOST PORT or of a path, by -u and -U.
_SCHEMES: Final = {
    (False, False): "tcp",
    (True, False): "udp",
    (False, True): "unix",
    (True, True): "unix+dgram",
}

SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(
    short_help="Connect to a server: at a prompt, in a pipe, or for one request.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("endpoint", nargs=-1)
@click.option(
    "--send",
    "messages",
    multiple=True,
    metavar="TEXT",
    help="Send this line, print the reply and exit; may be repeated.",
)
@click.option("--no-newline", is_flag=True, help="With --send: add no newline to the text.")
@click.option("-l", "listen", is_flag=True, help="Listen, and accept one connection.")
@click.option("-k", "keep_listening", is_flag=True, help="With -l: accept another connection after each.")
@click.option("-z", "scan", is_flag=True, help="HOST PORT...: only print which ports are open (20-25, http).")
@click.option("--resolve", is_flag=True, help="Only resolve a name, a port or both, down to the bytes.")
@click.option("--json", "as_json", is_flag=True, help="With -z and --resolve: print JSON.")
@click.option("-4", "family", flag_value=4, type=int, help="Use IPv4 only.")
@click.option("-6", "family", flag_value=6, type=int, help="Use IPv6 only.")
@click.option("-u", "udp", is_flag=True, help="HOST PORT means UDP.")
@click.option(
    "-U", "unix", is_flag=True, help="ENDPOINT is the path of a UNIX socket; with -u, of a datagram socket."
)
@click.option("-n", "numeric", is_flag=True, help="Don't resolve names: hosts are addresses.")
@click.option("-s", "source_host", metavar="ADDRESS", default="", help="Local address to connect from.")
@click.option(
    "-p",
    "source_port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Local port to connect from. With -l: the port to listen on.",
)
@click.option(
    "-w",
    "timeout",
    metavar="SECONDS",
    type=SECONDS,
    help="Timeout to connect, and for inactivity afterwards.",
)
@click.option(
    "-q",
    "quit_after",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="After EOF on standard input, exit once nothing has been received for this long.",
)
@click.option(
    "-N",
    "--half-close/--no-half-close",
    default=True,
    help="Half-close at EOF on standard input (the default), or wait for -q or the peer's close.",
)
@click.option("-C", "--crlf", is_flag=True, help="End lines with CR LF, as HTTP and SMTP require.")
@click.option("--hex", "hex_dump", is_flag=True, help="Print a hex dump of both directions on stderr.")
@click.option(
    "--retries",
    metavar="N",
    type=click.IntRange(0, 16),
    default=2,
    show_default=True,
    help="Retransmissions of a datagram without a reply.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="TLS: skip certificate verification (a man in the middle can read everything).",
)
@click.option(
    "--tls-fingerprint",
    metavar="SHA256",
    default="",
    help="TLS: accept only the certificate with this fingerprint.",
)
@click.option(
    "--tls-ca",
    metavar="FILE",
    type=click.Path(),
    help="TLS: trust these CA certificates (PEM) instead of the system's.",
)
@click.option("--tls-name", metavar="NAME", default="", help="TLS: host name to send (SNI) and to verify.")
@click.option("--tls-cert", metavar="FILE", type=click.Path(), help="TLS: client certificate (PEM).")
@click.option(
    "--tls-key",
    metavar="FILE",
    type=click.Path(),
    help="TLS: its private key. Default: in the certificate's file.",
)
@click.option(
    "--alpn", metavar="NAME", multiple=True, help="TLS: a protocol to offer, the preferred one first."
)
@click.option(
    "--trace",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the events to a trace file, for `bothends trace --open`.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print both addresses and byte counts.")
@wire_options("client")
def connect(
    endpoint: tuple[str, ...],
    messages: tuple[str, ...],
    no_newline: bool,
    listen: bool,
    keep_listening: bool,
    scan: bool,
    resolve: bool,
    as_json: bool,
    family: int | None,
    udp: bool,
    unix: bool,
    numeric: bool,
    source_host: str,
    source_port: int | None,
    timeout: float | None,
    quit_after: float | None,
    half_close: bool,
    crlf: bool,
    hex_dump: bool,
    retries: int,
    insecure: bool,
    tls_fingerprint: str,
    tls_ca: str | None,
    tls_name: str,
    tls_cert: str | None,
    tls_key: str | None,
    alpn: tuple[str, ...],
    trace: Path | None,
    verbose: bool,
) -> None:
    """Connect to ENDPOINT: a URL, HOST PORT, or the path of a UNIX socket.

    At a terminal each line you type is sent, and ^D half-closes. In a pipe, standard input is sent to the
    peer while received data goes to standard output. On datagram sockets each line is a datagram.

    \b
      bothends connect 127.0.0.1 12000
      bothends connect udp://127.0.0.1:12000 --send hello
      bothends connect unix:///run/a.sock < request > reply
      bothends connect tls://example.org:443 -v
      bothends connect -l :12000 > file
      bothends connect -z 127.0.0.1 20-25 http
      bothends connect --resolve localhost 12000

    Exit status: 0 on success, 1 if the connection is refused or lost, 124 after a timeout (without -w: 10 s
    to connect and for the reply to --send, 2 s for the reply to a datagram).
    """
    modes = {"-l": listen, "-z": scan, "--resolve": resolve}
    given_modes = [name for name, given in modes.items() if given]
    _check_options(given_modes, keep_listening, as_json, bool(messages), trace)
    if crlf and no_newline:
        raise click.UsageError("--crlf and --no-newline cannot be combined")
    if not endpoint and not (listen and source_port is not None):
        raise click.UsageError("missing argument 'ENDPOINT...': a URL, or HOST PORT")
    if resolve:
        from bothends.cli.connect.resolve import show

        show(endpoint, as_json, family=family, numeric=numeric)
        return
    if scan:
        _scan(endpoint, udp, timeout or SCAN_TIMEOUT, family, numeric, verbose, as_json)
        return
    scheme = _SCHEMES[udp, unix]
    observe = None if trace is None else _trace_observer(trace, "server" if listen else "client")
    options = ConnectOptions(
        messages, not no_newline, crlf, half_close, hex_dump, timeout, quit_after, retries, verbose, observe
    )
    if listen:
        from bothends.cli.connect.listen import listen_and_serve, listen_endpoint

        target = listen_endpoint(endpoint, scheme, source_host, source_port)
        target = _restrict_endpoint(target, family, numeric)
        listen_and_serve(target, options, keep_listening=keep_listening)
        return
    from bothends.client import blocking
    from bothends.client.tls import TlsOptions
    from bothends.endpoints import endpoints_from_args
    from bothends.errors import BothendsError
    from bothends.events import Connected, ConnectFailed

    found = endpoints_from_args(with_port_numbers(endpoint, "udp" if udp else "tcp"), scheme)
    if len(found) != 1:
        raise click.UsageError("expected one endpoint, but got " + ", ".join(map(str, found)))
    target = _restrict_endpoint(found[0], family, numeric)
    if numeric:
        _check_numeric(source_host)
    source = (source_host, source_port or 0) if source_host or source_port else None
    tls = TlsOptions(tls_ca, tls_fingerprint, not insecure, tls_cert, tls_key, tls_name, alpn)
    started, started_at = time.monotonic(), time.time_ns()
    try:
        connection = blocking.connect(
            target,
            timeout=timeout or CONNECT_TIMEOUT,
            source=source,
            tls=None if tls == TlsOptions() else tls,
        )
    except BothendsError as error:
        if observe is not None:
            observe(ConnectFailed(target, error, started_at))
        raise
    with connection:
        if observe is not None:
            observe(Connected(1, target, connection.peer, connection.local, started_at))
        run_session(connection, options, started)


def with_port_numbers(
    args: Sequence[str],
    protocol: str,
    lookup: Callable[[str, str], int] | None = None,
) -> list[str]:
    """Return the arguments with the port of `HOST http` or `HOST:http` as a number.

    `lookup` finds the port of a service name; default: the services database (services(5)).

    Raises EndpointError for an unknown service.
    """
    import socket

    from bothends.endpoints import SCHEMES
    from bothends.errors import EndpointError

    first, *rest = args
    if first.partition(":")[0] in SCHEMES:
        return list(args)
    host, colon, name = first.rpartition(":") if not rest else (first, "", rest[0])
    is_host = host and "/" not in host and (":" not in host or rest or host.endswith("]"))
    if (
        len(rest) > 1
        or not is_host
        or "/" in name
        or ":" in name
        or not name.strip()
        or name[0] in "-0123456789"
    ):
        return list(args)
    try:
        port = (lookup or socket.getservbyname)(name, protocol)
    except (OSError, UnicodeError):
        hint = "a port is a number from 0 to 65535, or a name in the services database (/etc/services)"
        raise EndpointError(" ".join(args), f"there is no {protocol} service {name!r}", hint) from None
    return [f"{host}:{port}"] if colon else [host, str(port)]


def _trace_observer(path: Path, role: str) -> Observer:
    from bothends.cli.output_files import output_files
    from bothends.trace.capture.event_recorder import EventRecorder

    files = click.get_current_context().with_resource(output_files())
    return files.closing(EventRecorder(path, role, report=files.warn))


def _check_options(
    modes: Sequence[str], keep_listening: bool, as_json: bool, has_messages: bool, trace: Path | None
) -> None:
    if len(modes) > 1:
        raise click.UsageError(f"{modes[0]} and {modes[1]} cannot be combined")
    mode = modes[0] if modes else ""
    if keep_listening and mode != "-l":
        raise click.UsageError("-k needs -l: it accepts another connection after each")
    if as_json and mode not in ("-z", "--resolve"):
        raise click.UsageError("--json needs -z or --resolve: received data is not converted")
    if trace is not None and mode in ("-z", "--resolve"):
        raise click.UsageError(f"{mode} opens no session: leave out --trace")
    if has_messages and mode in ("-z", "--resolve"):
        raise click.UsageError(f"{mode} sends nothing: leave out --send")


def _restrict_endpoint(endpoint: Endpoint, family: int | None, numeric: bool) -> Endpoint:
    """Return the endpoint limited to an address family; with `numeric`, check that its host is an address.

    Raises:
        EndpointError: the host is a name, but `numeric` is set.
        click.UsageError: the host is an address of the other family.
    """
    if numeric:
        _check_numeric(endpoint.host if endpoint.scheme != "vsock" else "")
    if family is None:
        return endpoint
    if (version := _ip_version(endpoint.host)) not in (0, family):
        raise click.UsageError(f"-{family} was given, but {endpoint.host} is an IPv{version} address")
    return endpoint.with_options(family=family)


def _check_numeric(host: str) -> None:
    from bothends.errors import EndpointError

    if host and not _ip_version(host):
        raise EndpointError(host, "a name, but -n resolves no names", "give its address")


def _ip_version(host: str) -> int:
    """Return 4 or 6 for an IP address, 0 for a name or an empty host."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).version
    except ValueError:
        return 0


def _scan(
    args: Sequence[str],
    udp: bool,
    timeout: float,
    family: int | None,
    numeric: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    from bothends.cli.connect.scan import show
    from bothends.endpoints import endpoints_from_args
    from bothends.errors import EndpointError

    host, *ports = args
    if not ports:  # host and port in one argument
        [target] = endpoints_from_args(args, "udp" if udp else "tcp")
        if target.scheme not in ("tcp", "tls", "mptcp", "udp"):
            raise EndpointError(str(target), "-z scans TCP ports, or UDP ports with -u")
        host, ports, udp = target.host or "localhost", [str(target.port)], target.scheme == "udp"
        if target.number("family"):
            family = target.number("family")
    if numeric:
        _check_numeric(host)
    show(host, ports, udp=udp, timeout=timeout, family=family, verbose=verbose, as_json=as_json)
