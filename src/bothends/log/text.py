"""The server's log: events as lines of text. What peers say goes to one stream, as
`IP#port: text`, and everything else to another: so `bothends serve ... > messages` keeps the
messages and leaves the rest on the terminal.

Bytes from a peer are hostile until shown otherwise: they are escaped, and cut at SHOWN bytes, so
that nobody can drive the reader's terminal or fill their disk with one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TextIO

from bothends.errors import HandshakeFailed, StreamBroken, errno_text
from bothends.escaping import escape, escape_text
from bothends.events import (
    Cause,
    Closed,
    Draining,
    Dropped,
    Ended,
    Established,
    Event,
    Exited,
    Failed,
    NotReloaded,
    Opened,
    Received,
    Refused,
    Relieved,
    Reloaded,
    Sent,
    Slowed,
    Strained,
)
from bothends.hexdump import Direction, HexDump
from bothends.log.throttle import Repeated

# A line of a log is read by a person: beyond this, its length says more than its bytes.
SHOWN: Final = 1024

_RED: Final = "31"
_YELLOW: Final = "33"
_CYAN: Final = "36"
_DIM: Final = "2"

_ALARMING: Final = frozenset({Cause.RESET, Cause.STALLED, Cause.FAILED, Cause.ABORTED})


class TextLog:
    """An observer that writes events as lines.

    Args:
        messages: where `IP#port: text` goes, or None to leave messages out.
        happenings: where everything else goes, or None to leave out what is merely going on;
            what went wrong is then still told on `troubles`.
        troubles: where what went wrong goes.
        colour: decides for each stream whether to colour.
        dump: show both directions of every connection in hexadecimal, instead of messages as text.
        name: what the server is called, where several write into one log.
    """

    def __init__(
        self,
        *,
        messages: TextIO | None,
        happenings: TextIO | None,
        troubles: TextIO,
        colour: Callable[[TextIO], bool],
        dump: bool = False,
        name: str = "",
    ) -> None:
        self._dumping = dump
        self._dumps: dict[int, HexDump] = {}
        self._name = f"[{name}] " if name else ""
        self._messages = messages
        self._happenings = happenings
        self._troubles = troubles
        self._colour = {
            id(stream): colour(stream) for stream in (messages, happenings, troubles) if stream is not None
        }

    def __call__(self, event: Event) -> None:
        """Take one event."""
        write = _WRITERS.get(type(event))
        if write is not None:
            write(self, event)

    def _write(self, stream: TextIO | None, *parts: tuple[str, str]) -> None:
        """One line of (style, text) parts, in one write: lines of several processes don't mix."""
        if stream is None:
            return
        self._put(stream, self._styled(stream, parts))

    def _styled(self, stream: TextIO, parts: Iterable[tuple[str, str]]) -> str:
        if self._colour.get(id(stream)):
            line = "".join(f"\x1b[{style}m{text}\x1b[0m" if style else text for style, text in parts)
        else:
            line = "".join(text for _, text in parts)
        return f"{self._name}{line}\n"

    def _put(self, stream: TextIO, lines: str) -> None:
        try:
            stream.write(lines)
            stream.flush()
        except (OSError, ValueError):
            # Whoever read the log has gone, or its disk is full. Serving matters more.
            self._colour.pop(id(stream), None)
            self._messages = None if stream is self._messages else self._messages
            self._happenings = None if stream is self._happenings else self._happenings

    def _received(self, event: Received) -> None:
        if self._messages is None:
            return
        if self._dumping:
            self._dump("received", event)
            return
        name = (_CYAN, _name(event))
        for line in message_lines(event.data):
            self._write(self._messages, name, ("", f": {line}"))

    def _sent(self, event: Sent) -> None:
        if self._dumping:
            self._dump("sent", event)

    def _dump(self, direction: Direction, event: Received | Sent) -> None:
        if self._messages is None:
            return
        if event.connection:
            dump = self._dumps.setdefault(event.connection, HexDump())
        else:
            dump = HexDump(boundaries=True)
        name = (_CYAN, f"{_name(event)} ")
        lines = [
            self._styled(self._messages, (name, ("", line))) for line in dump.lines(direction, event.data)
        ]
        self._put(self._messages, "".join(lines))

    def _opened(self, event: Opened) -> None:
        self._write(self._happenings, (_CYAN, _name(event)), (_DIM, " connected"))

    def _established(self, event: Established) -> None:
        through = f" calls through {event.was}:" if event.peer != event.was else ""
        agreed = escape(event.agreed.encode())
        self._write(self._happenings, (_CYAN, _name(event)), (_DIM, f"{through} {agreed}"))

    def _ended(self, event: Ended) -> None:
        self._write(self._happenings, (_CYAN, _name(event)), (_DIM, " has finished sending"))

    def _closed(self, event: Closed) -> None:
        self._dumps.pop(event.connection, None)
        style = _RED if event.cause in _ALARMING else _DIM
        counts = f" ({event.received} bytes in, {event.sent} out)"
        self._write(
            self._happenings, (_CYAN, _name(event)), (style, f" closed: {event.cause}"), (_DIM, counts)
        )

    def _failed(self, event: Failed) -> None:
        if isinstance(event.error, HandshakeFailed):
            self._trouble(_name(event), f" handshake failed: {event.error.reason}", _RED)
            return
        if isinstance(event.error, StreamBroken):
            self._trouble(_name(event), f" stream broken: {event.error.reason}", _RED)
            return
        kind = type(event.error).__name__
        text = escape(str(event.error).encode("utf-8", "surrogateescape"))
        where = f" ({at})" if (at := raised_at(event.error)) else ""
        self._trouble(_name(event), f" the service failed: {kind}: {text}{where}", _RED)

    def _refused(self, event: Refused) -> None:
        self._trouble(str(event.peer), f" refused: {event.reason}")

    def _slowed(self, event: Slowed) -> None:
        self._trouble(
            _name(event), f" sends more than {event.rate} bytes a second, the limit: read at that rate"
        )

    def _dropped(self, event: Dropped) -> None:
        self._trouble(str(event.peer), f" gets no answer: {event.reason}")

    def _strained(self, event: Strained) -> None:
        answer = errno_text(event.errno)
        self._write(
            self._troubles,
            (_RED, f"accepting stops: {answer} with {event.open} connections open; newcomers wait"),
        )

    def _relieved(self, _event: Relieved) -> None:
        self._write(self._troubles, (_YELLOW, "accepting goes on"))

    def _draining(self, event: Draining) -> None:
        if event.open:
            plural = "" if event.open == 1 else "s"
            self._write(
                self._troubles,
                (_YELLOW, f"draining: {event.open} connection{plural} may end within {event.deadline:g} s"),
            )

    def _reloaded(self, event: Reloaded) -> None:
        self._write(self._troubles, (_YELLOW, f"reloaded {event.service}: new conversations are its"))

    def _not_reloaded(self, event: NotReloaded) -> None:
        self._write(self._troubles, (_RED, f"not reloaded, the old one serves on: {event.reason}"))

    def _exited(self, event: Exited) -> None:
        if event.status:
            how = f"status {event.status}" if event.status > 0 else f"signal {-event.status}"
            self._write(self._troubles, (_YELLOW, f"{event.role} {event.pid} ended with {how}"))

    def _repeated(self, event: Repeated) -> None:
        like = event.like
        how, why = "", ""
        if isinstance(like, Refused | Dropped):
            how, why = "refused" if isinstance(like, Refused) else "got no answer", like.reason
        elif isinstance(like, Slowed):
            how, why = "sent too fast", f"more than {like.rate} bytes a second"
        elif isinstance(like, Failed):
            how, why = "failed", escape_text(str(getattr(like.error, "reason", like.error)))
        peer = str(getattr(like, "peer", ""))
        self._write(
            self._troubles,
            (_YELLOW, f"{event.count:,} more {how} in the last {event.seconds:.0f} s; the last: "),
            (_CYAN, peer),
            (_YELLOW, f", {why}"),
        )

    def _trouble(self, peer: str, text: str, style: str = _YELLOW) -> None:
        self._write(self._troubles, (_CYAN, peer), (style, text))


_WRITERS: Final[dict[type[Event], Callable[..., None]]] = {
    Received: TextLog._received,
    Repeated: TextLog._repeated,
    Sent: TextLog._sent,
    Opened: TextLog._opened,
    Ended: TextLog._ended,
    Established: TextLog._established,
    Closed: TextLog._closed,
    Failed: TextLog._failed,
    Refused: TextLog._refused,
    Dropped: TextLog._dropped,
    Slowed: TextLog._slowed,
    Strained: TextLog._strained,
    Relieved: TextLog._relieved,
    Draining: TextLog._draining,
    Exited: TextLog._exited,
    NotReloaded: TextLog._not_reloaded,
    Reloaded: TextLog._reloaded,
}


def _name(event: Opened | Established | Received | Sent | Ended | Closed | Failed | Slowed) -> str:
    """Who it is: `IP#port`. Most UNIX clients have no name, so the connection's number tells them apart."""
    if event.peer.family == "unix" and not event.peer.host and event.connection:
        return f"unix#{event.connection}"
    return str(event.peer)


def message_lines(data: bytes) -> list[str]:
    """What to show of one read or one datagram: its lines, escaped, SHOWN bytes in all.

    An empty datagram is one empty line. Trailing NULs, as of a program that sends its whole
    fixed-size buffer, are counted instead of shown.
    """
    text, nuls = data, 0
    if data.endswith(b"\0\0"):
        text = data.rstrip(b"\0")
        nuls = len(data) - len(text)
    shown = text[:SHOWN]
    lines = [escape(line.removesuffix(b"\r")) for line in shown.removesuffix(b"\n").split(b"\n")]
    if nuls:
        lines[-1] += f" [and {nuls} NULs]"
    if len(text) > SHOWN:
        lines[-1] += f" [and {len(text) - SHOWN} bytes more]"
    return lines


def raised_at(error: BaseException) -> str:
    """`shout.py, line 4`: where the innermost frame of the traceback stands."""
    step = error.__traceback__
    if step is None:
        return ""
    while step.tb_next is not None:
        step = step.tb_next
    filename = step.tb_frame.f_code.co_filename.rsplit("/", 1)[-1]
    return f"{filename}, line {step.tb_lineno}"
