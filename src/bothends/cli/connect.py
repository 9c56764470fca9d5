"""`bothends connect`: the other end, at a prompt, in a pipe, or for one request."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from bothends.cli import terminal

if TYPE_CHECKING:
    from bothends.client.blocking import Connection
    from bothends.client.pump import Sink, Totals

CONNECT_WITHIN: Final = 10.0
ANSWER_WITHIN: Final = 10.0  # one request on a connection
DATAGRAM_WITHIN: Final = 2.0  # the answer to one datagram, repeats included
QUIET: Final = 2.0  # one request: after this long without another byte, its answer is complete

SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Talk to a server: at a prompt, in a pipe, or once.")
@click.argument("endpoint", nargs=-1, required=True)
@click.option(
    "--send", "messages", multiple=True, metavar="TEXT", help="Send this line, show the answer, leave."
)
@click.option("--no-newline", is_flag=True, help="With --send: send the bare text, on a stream too.")
@click.option("-4", "family", flag_value=4, type=int, help="Use IPv4 only.")
@click.option("-6", "family", flag_value=6, type=int, help="Use IPv6 only.")
@click.option("-u", "scheme", flag_value="udp", default=None, help="HOST PORT means UDP.")
@click.option("-U", "scheme", flag_value="unix", help="The word is the path of a UNIX socket.")
@click.option("-s", "source_host", metavar="ADDRESS", default="", help="Come from this address of ours.")
@click.option(
    "-p", "source_port", metavar="PORT", type=click.IntRange(0, 65535), default=0, help="... and port."
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
@click.option("-v", "--verbose", is_flag=True, help="Tell both addresses, and how much was moved.")
def connect(
    endpoint: tuple[str, ...],
    messages: tuple[str, ...],
    no_newline: bool,
    family: int | None,
    scheme: str | None,
    source_host: str,
    source_port: int,
    within: float | None,
    quit_after: float | None,
    retries: int,
    insecure: bool,
    tls_fingerprint: str,
    tls_ca: str | None,
    tls_name: str,
    tls_cert: str | None,
    tls_key: str | None,
    alpn: tuple[str, ...],
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

    Leaves with 0; 1 if the connection is refused or lost; 124 after a time limit (without -w: 10 s to
    connect and for the answer to --send, 2 s for the answer to a datagram).
    """
    from bothends.client import blocking
    from bothends.client.tls import TlsOptions
    from bothends.endpoints import from_words

    found = from_words(endpoint, scheme or "tcp")
    if len(found) != 1:
        raise click.UsageError("one endpoint is enough, and there are " + ", ".join(map(str, found)))
    where = found[0] if family is None else found[0].with_options(family=family)
    source = (source_host, source_port) if source_host or source_port else None
    began = time.monotonic()
    tls = TlsOptions(tls_ca, tls_fingerprint, not insecure, tls_cert, tls_key, tls_name, alpn)
    connection = blocking.connect(
        where,
        timeout=within or CONNECT_WITHIN,
        source=source,
        tls=None if tls == TlsOptions() else tls,
    )
    with connection:
        at_prompt = not messages and terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)
        if at_prompt or verbose:
            terminal.note(f"connected {connection.local} -> {connection.peer}")
        tell_tls(connection, verbose)
        if at_prompt:
            from bothends.cli.prompt import talk

            totals = talk(connection, within or DATAGRAM_WITHIN, retries, quit_after, within)
        else:
            totals = move(connection, messages, no_newline, within, quit_after, retries)
        if verbose:
            took = time.monotonic() - began
            terminal.note(f"sent {totals.sent:,} bytes, received {totals.received:,} bytes, in {took:.2f} s")


def tell_tls(connection: Connection, verbose: bool) -> None:
    """What was agreed, for whoever wants to know; and what everybody should know."""
    from bothends.client.tls import TlsSocket, terms

    if not isinstance(connection.socket, TlsSocket):
        return
    if verbose:
        for line in terms(connection.socket):
            terminal.note(line)
    if not connection.steps.half_closes:
        terminal.note("TLS 1.2 cannot half-close: the peer is not told of the end of our input", "warning")


def move(
    connection: Connection,
    messages: tuple[str, ...],
    no_newline: bool,
    within: float | None,
    quit_after: float | None,
    retries: int,
) -> Totals:
    """Send the messages, or standard input where there are none; the peer's bytes go to standard output."""
    from bothends.client.datagrams import Questions
    from bothends.client.pump import AnswerEnding, Ending, Pump

    boundaries = connection.steps.boundaries
    end = b"" if no_newline or boundaries else b"\n"
    first = [os.fsencode(message) + end for message in messages]
    source = None if messages or sys.stdin is None else sys.stdin.fileno()
    sink = standard_output(separate=boundaries and len(messages) != 1)
    if connection.steps.datagrams:
        return Questions(
            connection,
            source,
            sink,
            first=first,
            within=within or DATAGRAM_WITHIN,
            retries=retries,
            quit_after=quit_after or 0.0,
            tell=terminal.note,
        ).run()
    now = time.monotonic()
    if not messages:
        return Pump(connection, source, sink, Ending(quit_after, within, now)).run()
    quiet = QUIET if quit_after is None else quit_after
    ending = AnswerEnding(quiet, within or ANSWER_WITHIN, now, expected=len(messages))
    return Pump(connection, None, sink, ending, first).run()


def standard_output(*, separate: bool) -> Sink:
    """Standard output as it is, or escaped where it is a terminal."""
    from bothends.client.pump import Sink
    from bothends.text import Escaper

    if sys.stdout is None:  # closed by the caller; its number may be another file's by now
        return Sink(os.open(os.devnull, os.O_WRONLY), separate=separate)
    escaper = Escaper() if terminal.is_terminal(sys.stdout) else None
    return Sink(sys.stdout.fileno(), escaper, separate=separate)
