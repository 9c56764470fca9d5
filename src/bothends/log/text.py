"""Log events as lines of text.

Messages of peers go to one stream, as `IP#port: text`, and everything else to another: `bothends serve ... >
messages` keeps the messages and leaves the rest on the terminal.

Bytes of a peer are untrusted. They are escaped, and cut at MAX_MESSAGE_TEXT, so a peer can neither control
the reader's terminal nor fill the disk with one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from bothends.endpoints import Address
from bothends.errors import HandshakeFailed, ProtocolViolation, errno_text
from bothends.escaping import escape, escape_line, escape_text
from bothends.events import (
    Accepted,
    AcceptPaused,
    AcceptResumed,
    ChildExited,
    Closed,
    CloseReason,
    ConnectionRejected,
    DatagramDropped,
    Draining,
    Event,
    HandshakeCompleted,
    LineField,
    LineFormat,
    PeerEof,
    RateLimited,
    Received,
    Reloaded,
    ReloadFailed,
    Sent,
    ServiceFailed,
)
from bothends.hexdump import ByteDirection, HexDump
from bothends.log.throttle import Repeated

# Bytes of a message in the log. People do not read longer ones; the length is logged instead.
MAX_MESSAGE_TEXT: Final = 1024

_RED: Final = "31"
_YELLOW: Final = "33"
_CYAN: Final = "36"
_DIM: Final = "2"

_ALARMING: Final = frozenset(
    {CloseReason.RESET, CloseReason.STALLED, CloseReason.FAILED, CloseReason.ABORTED}
)


class LineStream(Protocol):
    """Where a log writes its lines: a text stream, or a file of lines that never fails."""

    def write(self, text: str, /) -> object:
        """Write whole lines."""

    def flush(self) -> None:
        """Pass buffered lines on."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""


class TextLog:
    """An observer that writes events as lines.

    Args:
        messages: stream for messages, as `IP#port: text`; None to omit them.
        activity: stream for connects, closes and the like; None to omit them.
        problems: stream for problems.
        colour: returns for a stream whether to use colours.
        dump: log both directions of every connection in hexadecimal, instead of messages as text.
        name: the server's name, if several servers write to one log.
    """

    def __init__(
        self,
        *,
        messages: LineStream | None,
        activity: LineStream | None,
        problems: LineStream,
        colour: Callable[[LineStream], bool],
        dump: bool = False,
        name: str = "",
    ) -> None:
        self._dump_enabled = dump
        self._dumps: dict[int, HexDump] = {}
        self._name = f"[{escape_line(name)}] " if name else ""
        self._messages = messages
        self._activity = activity
        self._problems = problems
        self._colour = {
            id(stream): colour(stream) for stream in (messages, activity, problems) if stream is not None
        }

    def __call__(self, event: Event) -> None:
        """Write one event."""
        write = _HANDLERS.get(type(event))
        if write is not None:
            write(self, event)

    def line_format(self, *, is_one_file: bool = False) -> LineFormat | None:
        """Return the form of the lines of connections and messages; None if all bytes are in them.

        `is_one_file`: messages and activity are written to one file.
        """
        if self._dump_enabled:
            return None
        field = LineField
        peer = field.PEER.decode()
        messages, activity = self._messages, self._activity

        def template(stream: LineStream | None, *parts: tuple[str, str]) -> bytes:
            # Of the fields, which escape_line() would escape.
            return b"" if stream is None else self._styled(stream, parts, str).encode()

        counts = f" ({field.RECEIVED.decode()} bytes in, {field.SENT.decode()} out)"
        return LineFormat(
            write=self._write_numbered,
            address=lambda address, number: escape_line(_address_name(address, number)).encode(),
            inet=field.TEXT + b"#" + field.LENGTH,
            opened=template(activity, (_CYAN, peer), (_DIM, " connected")),
            received=template(messages, (_CYAN, peer), ("", f": {field.TEXT.decode()}")),
            sent=b"",
            ended=template(activity, (_CYAN, peer), (_DIM, " has finished sending")),
            closed={
                cause: template(
                    activity, (_CYAN, peer), (_closed_style(cause), f" closed: {cause}"), (_DIM, counts)
                )
                for cause in CloseReason
            },
            is_json=False,
            limit=MAX_MESSAGE_TEXT,
            message_stream=0,
            activity_stream=0 if is_one_file else 1,
            line_by_line=any(stream is not None and stream.isatty() for stream in (messages, activity)),
        )

    def _write_numbered(self, number: int, lines: bytes) -> None:
        """Write lines to a stream of the LineFormat."""
        stream = self._activity if number or self._messages is None else self._messages
        if stream is not None:
            self._write_lines(stream, lines.decode())

    def _write(self, stream: LineStream | None, *parts: tuple[str, str]) -> None:
        """Write a line of (style, text) parts in one write, so lines of several processes do not mix."""
        if stream is None:
            return
        self._write_lines(stream, self._styled(stream, parts))

    def _styled(
        self,
        stream: LineStream,
        parts: Iterable[tuple[str, str]],
        escaped: Callable[[str], str] = escape_line,
    ) -> str:
        if not self._colour.get(id(stream)):
            return f"{self._name}{escaped(''.join(text for _, text in parts))}\n"
        parts = [(style, escaped(text)) for style, text in parts]  # names and reasons of others too
        line = "".join(f"\x1b[{style}m{text}\x1b[0m" if style else text for style, text in parts)
        return f"{self._name}{line}\n"

    def _write_lines(self, stream: LineStream, lines: str) -> None:
        try:
            stream.write(lines)
            stream.flush()
        except (OSError, ValueError):
            # EPIPE or ENOSPC: a broken log must not stop the server.
            self._colour.pop(id(stream), None)
            self._messages = None if stream is self._messages else self._messages
            self._activity = None if stream is self._activity else self._activity

    def _on_received(self, event: Received) -> None:
        if self._messages is None:
            return
        if self._dump_enabled:
            self._dump("received", event)
            return
        name = (_CYAN, _peer_name(event))
        for line in message_lines(event.data):
            self._write(self._messages, name, ("", f": {line}"))

    def _on_sent(self, event: Sent) -> None:
        if self._dump_enabled:
            self._dump("sent", event)

    def _dump(self, direction: ByteDirection, event: Received | Sent) -> None:
        if self._messages is None:
            return
        if event.connection:
            dump = self._dumps.setdefault(event.connection, HexDump())
        else:
            dump = HexDump(message_oriented=True)
        name = (_CYAN, f"{_peer_name(event)} ")
        lines = [
            self._styled(self._messages, (name, ("", line))) for line in dump.lines(direction, event.data)
        ]
        self._write_lines(self._messages, "".join(lines))

    def _on_accepted(self, event: Accepted) -> None:
        self._write(self._activity, (_CYAN, _peer_name(event)), (_DIM, " connected"))

    def _on_handshake_completed(self, event: HandshakeCompleted) -> None:
        proxy = f" via {event.was}:" if event.peer != event.was else ""
        agreed = escape_text(event.agreed)
        self._write(self._activity, (_CYAN, _peer_name(event)), (_DIM, f"{proxy} {agreed}"))

    def _on_peer_eof(self, event: PeerEof) -> None:
        self._write(self._activity, (_CYAN, _peer_name(event)), (_DIM, " has finished sending"))

    def _on_closed(self, event: Closed) -> None:
        self._dumps.pop(event.connection, None)
        style = _closed_style(event.cause)
        counts = f" ({event.received} bytes in, {event.sent} out)"
        self._write(
            self._activity, (_CYAN, _peer_name(event)), (style, f" closed: {event.cause}"), (_DIM, counts)
        )

    def _on_service_failed(self, event: ServiceFailed) -> None:
        if isinstance(event.error, HandshakeFailed):
            self._write_problem(_peer_name(event), f" handshake failed: {event.error.reason}", _RED)
            return
        if isinstance(event.error, ProtocolViolation):
            self._write_problem(_peer_name(event), f" protocol violation: {event.error.reason}", _RED)
            return
        kind = type(event.error).__name__
        text = escape_text(str(event.error))
        where = f" ({at})" if (at := raised_at(event.error)) else ""
        self._write_problem(_peer_name(event), f" the service failed: {kind}: {text}{where}", _RED)

    def _on_connection_rejected(self, event: ConnectionRejected) -> None:
        self._write_problem(str(event.peer), f" refused: {event.reason}")

    def _on_rate_limited(self, event: RateLimited) -> None:
        self._write_problem(_peer_name(event), f" exceeds the rate limit, reading {event.rate} bytes/s")

    def _on_datagram_dropped(self, event: DatagramDropped) -> None:
        self._write_problem(str(event.peer), f" gets no answer: {event.reason}")

    def _on_accept_paused(self, event: AcceptPaused) -> None:
        reason = errno_text(event.errno)
        text = f"accepting paused: {reason} with {event.open} connections open; clients wait"
        self._write(self._problems, (_RED, text))

    def _on_accept_resumed(self, _event: AcceptResumed) -> None:
        self._write(self._problems, (_YELLOW, "accepting resumed"))

    def _on_draining(self, event: Draining) -> None:
        if event.open:
            plural = "" if event.open == 1 else "s"
            self._write(
                self._problems,
                (
                    _YELLOW,
                    f"draining: waiting up to {event.deadline:g} s for {event.open} connection{plural}",
                ),
            )

    def _on_reloaded(self, event: Reloaded) -> None:
        self._write(self._problems, (_YELLOW, f"reloaded {event.service}: new connections use it"))

    def _on_reload_failed(self, event: ReloadFailed) -> None:
        self._write(self._problems, (_RED, f"reload failed, still serving the old service: {event.reason}"))

    def _on_child_exited(self, event: ChildExited) -> None:
        if event.status:
            how = (
                f"exited with status {event.status}"
                if event.status > 0
                else f"killed by signal {-event.status}"
            )
            self._write(self._problems, (_YELLOW, f"{event.role} {event.pid} {how}"))

    def _on_repeated(self, event: Repeated) -> None:
        like = event.like
        how, why = "", ""
        if isinstance(like, ConnectionRejected | DatagramDropped):
            how, why = "refused" if isinstance(like, ConnectionRejected) else "got no answer", like.reason
        elif isinstance(like, RateLimited):
            how, why = "sent too fast", f"more than {like.rate} bytes/s"
        elif isinstance(like, ServiceFailed):
            how, why = "failed", escape_text(str(getattr(like.error, "reason", like.error)))
        peer = str(getattr(like, "peer", ""))
        self._write(
            self._problems,
            (_YELLOW, f"{event.count:,} more {how} in the last {event.seconds:.0f} s; most recent: "),
            (_CYAN, peer),
            (_YELLOW, f", {why}"),
        )

    def _write_problem(self, peer: str, text: str, style: str = _YELLOW) -> None:
        self._write(self._problems, (_CYAN, peer), (style, text))


_HANDLERS: Final[dict[type[Event], Callable[..., None]]] = {
    Received: TextLog._on_received,
    Repeated: TextLog._on_repeated,
    Sent: TextLog._on_sent,
    Accepted: TextLog._on_accepted,
    PeerEof: TextLog._on_peer_eof,
    HandshakeCompleted: TextLog._on_handshake_completed,
    Closed: TextLog._on_closed,
    ServiceFailed: TextLog._on_service_failed,
    ConnectionRejected: TextLog._on_connection_rejected,
    DatagramDropped: TextLog._on_datagram_dropped,
    RateLimited: TextLog._on_rate_limited,
    AcceptPaused: TextLog._on_accept_paused,
    AcceptResumed: TextLog._on_accept_resumed,
    Draining: TextLog._on_draining,
    ChildExited: TextLog._on_child_exited,
    ReloadFailed: TextLog._on_reload_failed,
    Reloaded: TextLog._on_reloaded,
}


def _peer_name(
    event: Accepted | HandshakeCompleted | Received | Sent | PeerEof | Closed | ServiceFailed | RateLimited,
) -> str:
    return _address_name(event.peer, event.connection)


def _address_name(peer: Address, connection: int) -> str:
    """Return `IP#port`, or `unix#N` by the connection's number for a UNIX client without a name."""
    if peer.family == "unix" and not peer.host and connection:
        return f"unix#{connection}"
    return str(peer)


def _closed_style(cause: CloseReason) -> str:
    return _RED if cause in _ALARMING else _DIM


def message_lines(data: bytes) -> list[str]:
    """Return the escaped lines of one read or datagram, up to MAX_MESSAGE_TEXT bytes.

    An empty datagram is one empty line. Trailing NULs, which a program sends with its whole fixed-size
    buffer, are counted instead of shown.
    """
    text, nuls = data, 0
    if data.endswith(b"\0\0"):
        text = data.rstrip(b"\0")
        nuls = len(data) - len(text)
    shown = text[:MAX_MESSAGE_TEXT]
    lines = [escape(line.removesuffix(b"\r")) for line in shown.removesuffix(b"\n").split(b"\n")]
    if nuls:
        lines[-1] += f" [and {nuls} NULs]"
    if len(text) > MAX_MESSAGE_TEXT:
        lines[-1] += f" [and {len(text) - MAX_MESSAGE_TEXT} bytes more]"
    return lines


def missing_line(count: int, reason: str) -> str:
    """Return the line that says in a text log that lines are missing there."""
    return f"[{count:,} {'line is' if count == 1 else 'lines are'} missing here: {reason}]\n"


def raised_at(error: BaseException) -> str:
    """Return file and line of the innermost traceback frame (`shout.py, line 4`), or an empty string."""
    traceback = error.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    filename = traceback.tb_frame.f_code.co_filename.rsplit("/", 1)[-1]
    return f"{filename}, line {traceback.tb_lineno}"
