"""`bothends connect`: the other end, at a prompt, in a pipe, or for one request; with netcat's habits."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bothends.cli.connect.session import ConnectOptions, run_session
from bothends.cli.wire_options import wire_options

if TYPE_CHECKING:
    from bothends.endpoints import Endpoint
    from bothends.events import Observer

CONNECT_TIMEOUT: Final = 10.0
SCAN_TIMEOUT: Final = 2.0  # -z: for each address of each port

# The scheme that words mean, by -u and -U.
_SCHEMES: Final = {
    (False, False): "tcp",
    (True, False): "udp",
    (False, True): "unix",
    (True, True): "unix+dgram",
}

SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(
    short_help="Talk to a server: at a prompt, in a pipe, or once.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("endpoint", nargs=-1)
@click.option(
    "--send", "messages", multiple=True, metavar="TEXT", help="Send this line, show the answer, leave."
)
@click.option("--no-newline", is_flag=True, help="With --send: send the bare text, on a stream too.")
@click.option(
    "-l", "listen", is_flag=True, help="Be the end that is called: wait for a connection, and talk."
)
@click.option("-k", "keep", is_flag=True, help="With -l: wait for the next one when it has ended.")
@click.option("-z", "scan", is_flag=True, help="HOST PORT...: only tell which ports are open (20-25, http).")
@click.option("--resolve", is_flag=True, help="Only show what a name, a port or both mean, to the byte.")
@click.option("--json", "as_json", is_flag=True, help="With -z and --resolve: as JSON, for programs.")
@click.option("-4", "family", flag_value=4, type=int, help="Use IPv4 only.")
@click.option("-6", "family", flag_value=6, type=int, help="Use IPv6 only.")
@click.option("-u", "udp", is_flag=True, help="HOST PORT means UDP.")
@click.option(
    "-U", "unix", is_flag=True, help="The word is the path of a UNIX socket; with -u, of datagrams."
)
@click.option("-n", "numeric", is_flag=True, help="Look no name up: hosts are addresses.")
@click.option("-s", "source_host", metavar="ADDRESS", default="", help="Come from this address of ours.")
@click.option(
    "-p",
    "source_port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="... and port. With -l: the port to listen on.",
)
@click.option(
    "-w", "within", metavar="SECONDS", type=SECONDS, help="Longest wait to connect, and longest silence."
)
@click.option(
    "-q",
    "quit_after",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="After the end of our input, leave when nothing has come for so long.",
)
@click.option(
    "-N",
    "--half-close/--no-half-close",
    default=True,
    help="Tell the peer of the end of our input: the default; or don't, and leave by -q or its close.",
)
@click.option("-C", "--crlf", is_flag=True, help="Lines end with CR LF, as HTTP and SMTP want it.")
@click.option(
    "--hex", "hex_dump", is_flag=True, help="Show what is sent and received as a hex dump on stderr."
)
@click.option(
    "--retries",
    metavar="N",
    type=click.IntRange(0, 16),
    default=2,
    show_default=True,
    help="Datagrams: send again.",
)
@click.option(
    "--insecure", is_flag=True, help="TLS: believe any certificate. Whoever is in between reads it all."
)
@click.option(
    "--tls-fingerprint",
    metavar="SHA256",
    default="",
    help="TLS: accept exactly this certificate, and no other.",
)
@click.option(
    "--tls-ca",
    metavar="FILE",
    type=click.Path(),
    help="TLS: believe these issuers (PEM) instead of the system's.",
)
@click.option(
    "--tls-name", metavar="NAME", default="", help="TLS: ask for this host, and expect its certificate."
)
@click.option("--tls-cert", metavar="FILE", type=click.Path(), help="TLS: our certificate (PEM), if asked.")
@click.option(
    "--tls-key", metavar="FILE", type=click.Path(), help="Its key. Default: in the certificate's file."
)
@click.option(
    "--alpn", metavar="NAME", multiple=True, help="TLS: a protocol to offer; the preferred one first."
)
@click.option(
    "--trace",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what happens as a trace, for `bothends trace --open`.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell both addresses, and how much was moved.")
@wire_options("client")
def connect(
    endpoint: tuple[str, ...],
    messages: tuple[str, ...],
    no_newline: bool,
    listen: bool,
    keep: bool,
    scan: bool,
    resolve: bool,
    as_json: bool,
    family: int | None,
    udp: bool,
    unix: bool,
    numeric: bool,
    source_host: str,
    source_port: int | None,
    within: float | None,
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
    """Connect to ENDPOINT: a URL, or HOST PORT.

    At a terminal each line you type is sent, and ^D ends your side. In a pipe, standard input goes to the
    peer and what it sends to standard output, both at once. On datagram sockets a line is a datagram.

    \b
      bothends connect 127.0.0.1 12000
      bothends connect udp://127.0.0.1:12000 --send hello
      bothends connect unix:///run/a.sock < request > answer
      bothends connect tls://example.org:443 -v
      bothends connect -l :12000 > file
      bothends connect -z 127.0.0.1 20-25 http
      bothends connect --resolve localhost 12000

    Leaves with 0; 1 if the connection is refused or lost; 124 after a time limit (without -w: 10 s to
    connect and for the answer to --send, 2 s for the answer to a datagram).
    """
    modes = {"-l": listen, "-z": scan, "--resolve": resolve}
    _check_options([name for name, given in modes.items() if given], keep, as_json, bool(messages), trace)
    if crlf and no_newline:
        raise click.UsageError("--crlf and --no-newline don't go together")
    if not endpoint and not (listen and source_port is not None):
        raise click.UsageError("missing argument 'ENDPOINT...': a URL, or HOST PORT")
    if resolve:
        from bothends.cli.connect.resolve import show

        show(endpoint, as_json, family=family, numeric=numeric)
        return
    if scan:
        _scan(endpoint, udp, within or SCAN_TIMEOUT, family, numeric, verbose, as_json)
        return
    scheme = _SCHEMES[udp, unix]
    observe = None if trace is None else _trace_observer(trace, "server" if listen else "client")
    manner = ConnectOptions(
        messages, not no_newline, crlf, half_close, hex_dump, within, quit_after, retries, verbose, observe
    )
    if listen:
        from bothends.cli.connect.listen import listen_and_serve, listen_endpoint

        where = listen_endpoint(endpoint, scheme, source_host, source_port)
        listen_and_serve(_restrict_endpoint(where, family, numeric), manner, keep_listening=keep)
        return
    from bothends.client import blocking
    from bothends.client.tls import TlsOptions
    from bothends.endpoints import endpoints_from_args
    from bothends.errors import BothendsError
    from bothends.events import Connected, ConnectFailed

    found = endpoints_from_args(endpoint, scheme)
    if len(found) != 1:
        raise click.UsageError("one endpoint is enough, and there are " + ", ".join(map(str, found)))
    where = _restrict_endpoint(found[0], family, numeric)
    if numeric:
        _check_numeric(source_host)
    source = (source_host, source_port or 0) if source_host or source_port else None
    tls = TlsOptions(tls_ca, tls_fingerprint, not insecure, tls_cert, tls_key, tls_name, alpn)
    began, began_at = time.monotonic(), time.time_ns()
    try:
        connection = blocking.connect(
            where,
            timeout=within or CONNECT_TIMEOUT,
            source=source,
            tls=None if tls == TlsOptions() else tls,
        )
    except BothendsError as error:
        if observe is not None:
            observe(ConnectFailed(where, error, began_at))
        raise
    with connection:
        if observe is not None:
            observe(Connected(1, where, connection.peer, connection.local, began_at))
        run_session(connection, manner, began)


def _trace_observer(path: Path, role: str) -> Observer:
    from bothends.trace.capture.event_recorder import EventRecorder

    return EventRecorder(path, role)


def _check_options(
    modes: Sequence[str], keep: bool, as_json: bool, has_messages: bool, trace: Path | None
) -> None:
    if len(modes) > 1:
        raise click.UsageError(f"{modes[0]} and {modes[1]} don't go together")
    mode = modes[0] if modes else ""
    if keep and mode != "-l":
        raise click.UsageError("-k goes with -l: it waits for the next connection")
    if as_json and mode not in ("-z", "--resolve"):
        raise click.UsageError("--json goes with -z and --resolve: what a peer says stays as it is")
    if trace is not None and mode in ("-z", "--resolve"):
        raise click.UsageError(f"{mode} has no conversation: leave out --trace")
    if has_messages and mode in ("-z", "--resolve"):
        raise click.UsageError(f"{mode} sends nothing: leave out --send")


def _restrict_endpoint(endpoint: Endpoint, family: int | None, numeric: bool) -> Endpoint:
    """The endpoint by one family of addresses, if so asked, and without a name, if so asked."""
    if numeric:
        _check_numeric(endpoint.host if endpoint.scheme != "vsock" else "")
    return endpoint if family is None else endpoint.with_options(family=family)


def _check_numeric(host: str) -> None:
    from bothends.errors import EndpointError

    try:
        if host:
            ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        raise EndpointError(host, "a name, and -n looks none up", "give its address") from None


def _scan(
    words: Sequence[str],
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

    host, *ports = words
    if not ports:  # one word for both
        [where] = endpoints_from_args(words, "udp" if udp else "tcp")
        if where.scheme not in ("tcp", "tls", "mptcp", "udp"):
            raise EndpointError(str(where), "-z tries ports of TCP, and of UDP with -u")
        host, ports, udp = where.host or "localhost", [str(where.port)], where.scheme == "udp"
        if where.number("family"):
            family = where.number("family")
    if numeric:
        _check_numeric(host)
    show(host, ports, udp=udp, timeout=timeout, family=family, verbose=verbose, as_json=as_json)
