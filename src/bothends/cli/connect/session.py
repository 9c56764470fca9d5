"""What is said on a connection, whoever opened it: at a prompt, in a pipe, or as one request."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from bothends.cli import terminal
from bothends.errors import ConnectionLost
from bothends.events import Closed, CloseReason, PeerEof, Received, Sent, WriteShutdown
from bothends.hexdump import ByteDirection, HexDump

if TYPE_CHECKING:
    from bothends.client._core import BaseConnection
    from bothends.client.blocking import Connection
    from bothends.client.stdio_relay import OutputSink, TransferTotals
    from bothends.events import Observer

ANSWER_TIMEOUT: Final = 10.0  # one request on a connection
DATAGRAM_TIMEOUT: Final = 2.0  # the answer to one datagram, repeats included
ANSWER_IDLE_TIMEOUT: Final = 2.0  # one request: after this long without another byte, its answer is complete

# How what we sent and what came differ in a hex dump, where there is colour.
_STYLES: Final[dict[ByteDirection, str]] = {"sent": "quiet", "received": ""}

TrafficWatcher: TypeAlias = Callable[[ByteDirection, bytes], None]  # see `client.steps`


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """How to talk. The fields are the options of `bothends connect`; times are seconds, None means never.

    `observe` is told of everything.
    """

    messages: tuple[str, ...] = ()
    newline: bool = True
    crlf: bool = False
    half_close: bool = True
    hex_dump: bool = False
    timeout: float | None = None
    quit_after: float | None = None
    retries: int = 2
    verbose: bool = False
    observe: Observer | None = None

    @property
    def datagram_timeout(self) -> float:
        """How long the answer to a datagram may take."""
        return self.timeout or DATAGRAM_TIMEOUT

    def line_end(self, *, message_oriented: bool) -> bytes:
        """What ends a line that is sent: on a socket with boundaries nothing, unless CR LF is asked for."""
        if self.crlf:
            return b"\r\n"
        return b"" if message_oriented else b"\n"


def is_interactive(options: ConnectOptions) -> bool:
    """Whether someone sits at both ends of this program."""
    return not options.messages and terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)


def run_session(
    connection: Connection, options: ConnectOptions, started: float | None = None, *, number: int = 1
) -> None:
    """Talk over a connection until one side ends it.

    `began` (time.monotonic) is when the connecting did; `number` is the connection's, for whoever observes.

    Raises ConnectionLost, TimeLimit, SystemRefused, KeyboardInterrupt, BrokenPipeError.
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
            from bothends.cli.connect.prompt import run_prompt

            totals = run_prompt(connection, options)
        else:
            totals = relay_stdio(connection, options)
    if options.verbose:
        took = time.monotonic() - started
        terminal.note(f"sent {totals.sent:,} bytes, received {totals.received:,} bytes, in {took:.2f} s")


def report_tls(connection: Connection, options: ConnectOptions) -> None:
    """What was agreed, for whoever wants to know; and what everybody should know."""
    from bothends.client.tls import TlsSocket, describe_session

    if not isinstance(connection.socket, TlsSocket):
        return
    if options.verbose:
        for line in describe_session(connection.socket):
            terminal.note(line)
    if options.half_close and not connection.core.supports_half_close:
        terminal.note("TLS 1.2 cannot half-close: the peer is not told of the end of our input", "warning")


def relay_stdio(connection: Connection, options: ConnectOptions) -> TransferTotals:
    """Send the messages, or standard input where there are none; the peer's bytes go to standard output."""
    from bothends.client.datagram_requests import DatagramRequests
    from bothends.client.stdio_relay import ClientRelay, ExitPolicy, RequestExitPolicy

    boundaries = connection.core.message_oriented
    messages = options.messages
    end = options.line_end(message_oriented=boundaries) if options.newline else b""
    first = [os.fsencode(message) + end for message in messages]
    source = None if messages or sys.stdin is None else sys.stdin.fileno()
    sink = stdout_sink(separate=boundaries and len(messages) != 1)
    if options.hex_dump:
        add_watcher(connection, hex_dump_watcher(terminal.note, message_oriented=boundaries))
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
        quiet = ANSWER_IDLE_TIMEOUT if options.quit_after is None else options.quit_after
        ending: ExitPolicy = RequestExitPolicy(
            quiet, options.timeout or ANSWER_TIMEOUT, now, expected_messages=len(messages)
        )
    else:
        ending = ExitPolicy(options.quit_after, options.timeout, now)
    return ClientRelay(
        connection, source, sink, ending, first, crlf=options.crlf, half_close=options.half_close
    ).run()


class EventBridge:
    """A context in which an observer is told what a connection moves, and at its end that it is over."""

    def __init__(self, connection: Connection, observe: Observer, number: int) -> None:
        self._connection = connection
        self._observe = observe
        self._number = number
        self._byte_counts = {"sent": 0, "received": 0}

    def __enter__(self) -> None:
        add_watcher(self._connection, self._on_data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        was_lost = kind is not None and issubclass(kind, ConnectionLost)
        cause = CloseReason.RESET if was_lost else CloseReason.PEER
        received, sent = self._byte_counts["received"], self._byte_counts["sent"]
        self._observe(Closed(self._number, self._connection.peer, cause, received, sent))

    def _on_data(self, direction: ByteDirection, data: bytes) -> None:
        self._byte_counts[direction] += len(data)
        peer, is_end = self._connection.peer, not data and not self._connection.core.datagrams
        if is_end:
            self._observe((PeerEof if direction == "received" else WriteShutdown)(self._number, peer))
        else:
            self._observe((Received if direction == "received" else Sent)(self._number, peer, data))


def add_watcher(connection: BaseConnection, watcher: TrafficWatcher) -> None:
    """Let somebody watch a connection, beside whoever does already."""
    other = connection.core.watcher

    def both(direction: ByteDirection, data: bytes) -> None:
        if other is not None:
            other(direction, data)
        watcher(direction, data)

    connection.core.watcher = both


def hex_dump_watcher(write_line: Callable[[str, str], None], *, message_oriented: bool) -> TrafficWatcher:
    """A `watch` for a connection that gives `tell` the lines of a hex dump, and their style."""
    dump = HexDump(message_oriented=message_oriented)

    def watch(direction: ByteDirection, data: bytes) -> None:
        for line in dump.lines(direction, data):
            write_line(line, _STYLES[direction])

    return watch


def stdout_sink(*, separate: bool) -> OutputSink:
    """Standard output as it is, or escaped where it is a terminal."""
    from bothends.client.stdio_relay import OutputSink
    from bothends.escaping import Escaper

    if sys.stdout is None:  # closed by the caller; its number may be another file's by now
        return OutputSink(os.open(os.devnull, os.O_WRONLY), terminate_messages=separate)
    escaper = Escaper() if terminal.is_terminal(sys.stdout) else None
    return OutputSink(sys.stdout.fileno(), escaper, terminate_messages=separate)
