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
from bothends.events import Cause, Closed, Ended, Finished, Received, Sent
from bothends.hexdump import Direction, HexDump

if TYPE_CHECKING:
    from bothends.client._core import Ends
    from bothends.client.blocking import Connection
    from bothends.client.stdio_relay import Sink, Totals
    from bothends.events import Observer

ANSWER_WITHIN: Final = 10.0  # one request on a connection
DATAGRAM_WITHIN: Final = 2.0  # the answer to one datagram, repeats included
QUIET: Final = 2.0  # one request: after this long without another byte, its answer is complete

# How what we sent and what came differ in a hex dump, where there is colour.
_STYLES: Final[dict[Direction, str]] = {"sent": "quiet", "received": ""}

Watch: TypeAlias = Callable[[Direction, bytes], None]  # see `client.steps`


@dataclass(frozen=True, slots=True)
class Manner:
    """How to talk. The fields are the options of `bothends connect`; times are seconds, None means never.

    `observe` is told of everything.
    """

    messages: tuple[str, ...] = ()
    newline: bool = True
    crlf: bool = False
    half_close: bool = True
    hex_dump: bool = False
    within: float | None = None
    quit_after: float | None = None
    retries: int = 2
    verbose: bool = False
    observe: Observer | None = None

    @property
    def datagram_within(self) -> float:
        """How long the answer to a datagram may take."""
        return self.within or DATAGRAM_WITHIN

    def line_end(self, *, boundaries: bool) -> bytes:
        """What ends a line that is sent: on a socket with boundaries nothing, unless CR LF is asked for."""
        if self.crlf:
            return b"\r\n"
        return b"" if boundaries else b"\n"


def at_prompt(manner: Manner) -> bool:
    """Whether someone sits at both ends of this program."""
    return not manner.messages and terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)


def converse(connection: Connection, manner: Manner, began: float | None = None, *, number: int = 1) -> None:
    """Talk over a connection until one side ends it.

    `began` (time.monotonic) is when the connecting did; `number` is the connection's, for whoever observes.

    Raises ConnectionLost, TimeLimit, SystemRefused, KeyboardInterrupt, BrokenPipeError.
    """
    began = time.monotonic() if began is None else began
    interactive = at_prompt(manner)
    if interactive or manner.verbose:
        terminal.note(f"connected {connection.local} -> {connection.peer}")
    tell_tls(connection, manner)
    with contextlib.nullcontext() if manner.observe is None else Told(connection, manner.observe, number):
        if interactive:
            from bothends.cli.connect.prompt import talk

            totals = talk(connection, manner)
        else:
            totals = move(connection, manner)
    if manner.verbose:
        took = time.monotonic() - began
        terminal.note(f"sent {totals.sent:,} bytes, received {totals.received:,} bytes, in {took:.2f} s")


def tell_tls(connection: Connection, manner: Manner) -> None:
    """What was agreed, for whoever wants to know; and what everybody should know."""
    from bothends.client.tls import TlsSocket, terms

    if not isinstance(connection.socket, TlsSocket):
        return
    if manner.verbose:
        for line in terms(connection.socket):
            terminal.note(line)
    if manner.half_close and not connection.steps.half_closes:
        terminal.note("TLS 1.2 cannot half-close: the peer is not told of the end of our input", "warning")


def move(connection: Connection, manner: Manner) -> Totals:
    """Send the messages, or standard input where there are none; the peer's bytes go to standard output."""
    from bothends.client.datagram_requests import Questions
    from bothends.client.stdio_relay import AnswerEnding, Ending, Pump

    boundaries = connection.steps.boundaries
    messages = manner.messages
    end = manner.line_end(boundaries=boundaries) if manner.newline else b""
    first = [os.fsencode(message) + end for message in messages]
    source = None if messages or sys.stdin is None else sys.stdin.fileno()
    sink = standard_output(separate=boundaries and len(messages) != 1)
    if manner.hex_dump:
        watch_too(connection, dumping(terminal.note, boundaries=boundaries))
    if connection.steps.datagrams:
        return Questions(
            connection,
            source,
            sink,
            first=first,
            line_end=end,
            within=manner.datagram_within,
            retries=manner.retries,
            quit_after=manner.quit_after or 0.0,
            tell=terminal.note,
        ).run()
    now = time.monotonic()
    if messages:
        quiet = QUIET if manner.quit_after is None else manner.quit_after
        ending: Ending = AnswerEnding(quiet, manner.within or ANSWER_WITHIN, now, expected=len(messages))
    else:
        ending = Ending(manner.quit_after, manner.within, now)
    return Pump(connection, source, sink, ending, first, crlf=manner.crlf, half_close=manner.half_close).run()


class Told:
    """A context in which an observer is told what a connection moves, and at its end that it is over."""

    def __init__(self, connection: Connection, observe: Observer, number: int) -> None:
        self._connection = connection
        self._observe = observe
        self._number = number
        self._moved = {"sent": 0, "received": 0}

    def __enter__(self) -> None:
        watch_too(self._connection, self._watch)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        was_lost = kind is not None and issubclass(kind, ConnectionLost)
        cause = Cause.RESET if was_lost else Cause.PEER
        received, sent = self._moved["received"], self._moved["sent"]
        self._observe(Closed(self._number, self._connection.peer, cause, received, sent))

    def _watch(self, direction: Direction, data: bytes) -> None:
        self._moved[direction] += len(data)
        peer, is_end = self._connection.peer, not data and not self._connection.steps.datagrams
        if is_end:
            self._observe((Ended if direction == "received" else Finished)(self._number, peer))
        else:
            self._observe((Received if direction == "received" else Sent)(self._number, peer, data))


def watch_too(connection: Ends, watch: Watch) -> None:
    """Let somebody watch a connection, beside whoever does already."""
    other = connection.steps.watch

    def both(direction: Direction, data: bytes) -> None:
        if other is not None:
            other(direction, data)
        watch(direction, data)

    connection.steps.watch = both


def dumping(tell: Callable[[str, str], None], *, boundaries: bool) -> Watch:
    """A `watch` for a connection that gives `tell` the lines of a hex dump, and their style."""
    dump = HexDump(boundaries=boundaries)

    def watch(direction: Direction, data: bytes) -> None:
        for line in dump.lines(direction, data):
            tell(line, _STYLES[direction])

    return watch


def standard_output(*, separate: bool) -> Sink:
    """Standard output as it is, or escaped where it is a terminal."""
    from bothends.client.stdio_relay import Sink
    from bothends.escaping import Escaper

    if sys.stdout is None:  # closed by the caller; its number may be another file's by now
        return Sink(os.open(os.devnull, os.O_WRONLY), separate=separate)
    escaper = Escaper() if terminal.is_terminal(sys.stdout) else None
    return Sink(sys.stdout.fileno(), escaper, separate=separate)
