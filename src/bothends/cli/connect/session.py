"""Run one open connection: at a prompt, in a pipe, or for one request."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Final

from bothends.cli import terminal
from bothends.cli.connect.options import ConnectOptions
from bothends.cli.connect.watchers import EventBridge, add_watcher, hex_dump_watcher

if TYPE_CHECKING:
    from bothends.client.blocking import Connection
    from bothends.client.stdio_relay import OutputSink, TransferTotals

REPLY_TIMEOUT: Final = 10.0  # seconds for the reply to --send on a stream
REPLY_IDLE_TIMEOUT: Final = 2.0  # --send: seconds without a byte after which a reply is complete


def is_interactive(options: ConnectOptions) -> bool:
    """Whether to show a prompt: standard input and output are terminals, and there is no --send."""
    return not options.messages and terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)


def run_session(
    connection: Connection, options: ConnectOptions, started: float | None = None, *, number: int = 1
) -> None:
    """Exchange data over a connection until one side ends it.

    Args:
        connection: the open connection.
        options: how to use it.
        started: when connecting began (time.monotonic); default: now.
        number: the connection's number in events.

    Raises:
        ConnectionLost, TimeoutExpired, SystemCallFailed: the connection failed.
        KeyboardInterrupt: ^C.
        BrokenPipeError: the reader of standard output has closed it.
    """
    started = time.monotonic() if started is None else started
    interactive = is_interactive(options)
    if interactive or options.verbose:
        terminal.note(f"connected {connection.local} -> {connection.peer}")
    report_tls(connection, options)
    with (
        contextlib.nullcontext()
        if options.observe is None
        else EventBridge(connection, options.observe, number)
    ):
        if interactive:
            from bothends.cli.connect.prompt import run_prompt  # prompt_toolkit takes long to import

            totals = run_prompt(connection, options)
        else:
            totals = relay_stdio(connection, options)
    if options.verbose:
        took = time.monotonic() - started
        terminal.note(f"sent {totals.sent:,} bytes, received {totals.received:,} bytes, in {took:.2f} s")


def report_tls(connection: Connection, options: ConnectOptions) -> None:
    """Print the TLS parameters (with --verbose), and a warning if TLS cannot half-close."""
    from bothends.client.tls import TlsSocket, describe_session

    if not isinstance(connection.socket, TlsSocket):
        return
    if options.verbose:
        for line in describe_session(connection.socket):
            terminal.note(line)
    if options.half_close and not connection.core.supports_half_close:
        terminal.note("TLS 1.2 cannot half-close: the peer sees no EOF when standard input ends", "warning")


def relay_stdio(connection: Connection, options: ConnectOptions) -> TransferTotals:
    """Send the messages, or else standard input, and copy received bytes to standard output.

    Returns: the number of bytes sent and received. Raises as `run_session` does.
    """
    from bothends.client.datagram_requests import DatagramRequests
    from bothends.client.stdio_relay import ClientRelay, ExitPolicy, RequestExitPolicy

    message_oriented = connection.core.message_oriented
    messages = options.messages
    end = options.line_end(message_oriented=message_oriented) if options.newline else b""
    first = [os.fsencode(message) + end for message in messages]
    source = None if messages or sys.stdin is None else sys.stdin.fileno()
    sink = stdout_sink(separate=message_oriented and len(messages) != 1)
    if options.hex_dump:
        add_watcher(connection, hex_dump_watcher(terminal.note, message_oriented=message_oriented))
    if connection.core.datagrams:
        return DatagramRequests(
            connection,
            source,
            sink,
            first=first,
            line_end=end,
            timeout=options.datagram_timeout,
            retries=options.retries,
            quit_after=options.quit_after or 0.0,
            notify=terminal.note,
        ).run()
    now = time.monotonic()
    if messages:
        idle = REPLY_IDLE_TIMEOUT if options.quit_after is None else options.quit_after
        policy: ExitPolicy = RequestExitPolicy(
            idle, options.timeout or REPLY_TIMEOUT, now, expected_messages=len(messages)
        )
    else:
        policy = ExitPolicy(options.quit_after, options.timeout, now)
    return ClientRelay(
        connection, source, sink, policy, first, crlf=options.crlf, half_close=options.half_close
    ).run()


def stdout_sink(*, separate: bool) -> OutputSink:
    """Return a sink for standard output; it escapes the bytes if that is a terminal.

    `separate` ends each message with a newline.
    """
    from bothends.client.stdio_relay import OutputSink
    from bothends.escaping import Escaper

    if sys.stdout is None:  # the caller closed it, and another file may have its descriptor by now
        return OutputSink(os.open(os.devnull, os.O_WRONLY), terminate_messages=separate)
    escaper = Escaper() if terminal.is_terminal(sys.stdout) else None
    return OutputSink(sys.stdout.fileno(), escaper, terminate_messages=separate)
