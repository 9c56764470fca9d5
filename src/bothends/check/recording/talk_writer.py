"""Turn recorded events into the lines of scenes, and those into the text of a contract. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bothends.check.header_framing import HeaderDecoder, comparable_text
from bothends.check.recording.relay import Happening, RecordedEvent
from bothends.check.scenes.template import CapturedText, RecalledText, TextPart
from bothends.framing import Decoder, Lines

NAMES: Final = ("ann", "ben", "cem", "dan", "eva", "fay", "gil", "hal")
_SHORT: Final = {10: r"\n", 13: r"\r", 9: r"\t", 0: r"\0", 92: r"\\"}
_TOKEN: Final = re.compile(rb"\d+|[A-Za-z]+|.", re.DOTALL)
# Values that a client sends back are remembered if they are no words, but have digits.
_VALUE: Final = re.compile(rb"(?<![\w-])(?=[\w-]*\d)[\w-]{4,64}(?![\w-])")
_LEAST_SIMILAR: Final = 0.3  # of 0 to 1: below that, a whole text is a pattern


@dataclass
class TalkLine:
    """A line of a talk: a text that is sent (`>`) or received (`<`), or an event in parentheses.

    `varying`: the tokens of a received text that differ in other playings, by their index, with a pattern.
    """

    client: str
    sign: str
    text: bytes = b""
    event: str = ""
    parts: list[TextPart] = field(default_factory=list)
    varying: dict[int, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.event:
            return f"{self.client}{self.sign} ({self.event})"
        return f"{self.client}{self.sign} {write_text(self._current_parts())}".rstrip()

    def _current_parts(self) -> list[TextPart]:
        if not self.varying:
            return self.parts or [self.text]
        parts: list[TextPart] = []
        for at, token in enumerate(_TOKEN.findall(self.text)):
            pattern = self.varying.get(at)
            if pattern is None:
                parts.append(token)
            elif not (parts and isinstance(parts[-1], CapturedText)):
                parts.append(CapturedText("", pattern))
            elif parts[-1].pattern != pattern:
                parts[-1] = CapturedText("", b".*")
        return parts

    def vary(self, received: bytes) -> bool:
        """Let the text match what was received in another playing, too. Returns: whether it changes."""
        mine, other = _TOKEN.findall(self.text), _TOKEN.findall(received)
        matcher = difflib.SequenceMatcher(None, mine, other, autojunk=False)
        before = dict(self.varying)
        if self.parts:  # it remembers values, which later lines need
            return False
        if matcher.ratio() < _LEAST_SIMILAR:
            self.varying = dict.fromkeys(range(max(1, len(mine))), b".*")
        else:
            for kind, first, last, start, end in matcher.get_opcodes():
                if kind == "equal":
                    continue
                pattern = _pattern_for(mine[first:last], other[start:end])
                for at in range(first, max(last, first + 1)):
                    if at < len(mine):
                        self.varying[at] = pattern if self.varying.get(at, pattern) == pattern else b".*"
        return self.varying != before


def _pattern_for(mine: list[bytes], other: list[bytes]) -> bytes:
    if len(mine) == len(other) == 1:
        if mine[0].isdigit() and other[0].isdigit():
            return rb"\d+"
        if mine[0].isalnum() and other[0].isalnum():
            return rb"\w+"
    if mine and other and b"".join(mine + other).isalnum():
        return rb"\w+"
    return b".*"


@dataclass
class RecordedScene:
    """A scene that was recorded. `note`: what a reader must know about it."""

    name: str
    lines: list[TalkLine]
    note: str = ""


def write_text(parts: Sequence[TextPart]) -> str:
    """Return a text of a talk, with escapes."""
    written = ""
    for part in parts:
        if isinstance(part, bytes):
            written += _write_literal(part)
        elif isinstance(part, CapturedText):
            written += f"{{{part.name}={part.pattern.decode()}}}"
        else:
            written += f"{{{part.name}}}"
    if written.startswith(("(", " ", "hex:")):
        written = f"\\x{ord(written[0]):02x}{written[1:]}"
    if written.endswith(" "):
        written = written[:-1] + r"\x20"
    return written.replace("'''", r"''\x27")


def _write_literal(data: bytes) -> str:
    written = ""
    for character in data.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if short := _SHORT.get(code):
            written += short
        elif 0xDC80 <= code <= 0xDCFF:
            written += f"\\x{code - 0xDC00:02x}"
        elif not character.isprintable():
            written += "".join(f"\\x{byte:02x}" for byte in character.encode())
        else:
            written += character
    return written.replace("{", r"\{")


def choose_framing(scenes: Sequence[Sequence[RecordedEvent]]) -> tuple[str, str]:
    """Return the framing and the line end that all recorded streams have: headers, lines or none."""
    streams: dict[tuple[int, int, Happening], bytes] = {}
    for number, events in enumerate(scenes):
        for event in events:
            if event.data:
                key = (number, event.client, event.happening)
                streams[key] = streams.get(key, b"") + event.data
    sent = [data for (_, _, kind), data in streams.items() if kind is Happening.SEND]
    received = [data for (_, _, kind), data in streams.items() if kind is Happening.RECEIVE]
    if sent and all(re.match(rb"[A-Z]+ \S+ HTTP/1\.[01]\r\n", data) for data in sent):
        return "headers", "\n"
    if streams and all(data.endswith(b"\n") and b"\0" not in data for data in (*sent, *received)):
        crlf = sent and all(data.count(b"\n") == data.count(b"\r\n") for data in sent)
        return "lines", "\r\n" if crlf else "\n"
    return "none", "\n"


class _Splitter:
    """Splits one direction of a stream into texts."""

    def __init__(self, framing: str) -> None:
        self._lines: Decoder | None = Lines(1 << 30).decoder() if framing == "lines" else None
        self.headers = HeaderDecoder() if framing == "headers" else None

    def feed(self, data: bytes) -> list[bytes]:
        if self._lines is not None:
            return self._lines.feed(data)
        if self.headers is not None:
            return [comparable_text(each) for each in self.headers.feed(data)]
        return [data]

    def end(self) -> list[bytes]:
        return [comparable_text(each) for each in self.headers.end()] if self.headers else []


def write_lines(events: Sequence[RecordedEvent], framing: str, *, datagrams: bool) -> list[TalkLine]:
    """Return the lines of a scene for its events."""
    lines: list[TalkLine] = []
    splitters: dict[tuple[int, Happening], _Splitter] = {}
    ended: dict[int, set[Happening]] = {}
    for event in events:
        client = NAMES[event.client] if event.client < len(NAMES) else f"client{event.client + 1}"
        gone = ended.setdefault(event.client, set())
        kind = event.happening
        if kind in (Happening.SEND, Happening.RECEIVE):
            splitter = splitters.setdefault((event.client, kind), _Splitter("none" if datagrams else framing))
            texts = splitter.feed(event.data)
            if kind is Happening.SEND and framing == "headers":
                other = splitters.setdefault((event.client, Happening.RECEIVE), _Splitter(framing))
                for text in texts:
                    if other.headers:
                        other.headers.request_sent(text)
            _add_texts(
                lines, client, ">" if kind is Happening.SEND else "<", texts, datagrams or framing != "none"
            )
            continue
        if kind is Happening.SERVER_EOF and (event.client, Happening.RECEIVE) in splitters:
            _add_texts(lines, client, "<", splitters[event.client, Happening.RECEIVE].end(), whole=True)
        _add_ending(lines, client, kind, gone)
        gone.add(kind)
    return lines


def _add_texts(lines: list[TalkLine], client: str, sign: str, texts: list[bytes], whole: bool) -> None:
    for text in texts:
        last = lines[-1] if lines else None
        if not whole and last is not None and (last.client, last.sign, last.event) == (client, sign, ""):
            last.text += text
        else:
            lines.append(TalkLine(client, sign, text))


def _add_ending(lines: list[TalkLine], client: str, kind: Happening, gone: set[Happening]) -> None:
    """Add the line for an end of a connection, unless it has ended already."""
    over = gone & {Happening.CLIENT_RESET, Happening.SERVER_RESET, Happening.CLIENT_GONE}
    if over:
        return
    if kind is Happening.CONNECT:
        lines.append(TalkLine(client, ">", event="connects"))
    elif kind is Happening.CLIENT_EOF and Happening.SERVER_EOF not in gone:
        lines.append(TalkLine(client, ">", event="half-closes"))
    elif kind is Happening.CLIENT_GONE:
        for line in reversed(lines):
            if line.client == client and line.event == "half-closes":
                line.event = "closes"
                break
    elif kind is Happening.CLIENT_RESET and Happening.SERVER_EOF not in gone:
        lines.append(TalkLine(client, ">", event="reset"))
    elif kind is Happening.SERVER_EOF:
        lines.append(TalkLine(client, "<", event="closes"))
    elif kind is Happening.SERVER_RESET:
        lines.append(TalkLine(client, "<", event="reset"))


def remember_values(lines: list[TalkLine]) -> int:
    """Remember values that clients receive and send back later. Returns: their number."""
    names: dict[bytes, str] = {}
    sent = b""
    for at, line in enumerate(lines):
        if line.event:
            continue
        if line.sign == ">":
            line.parts = _replace(line.text, names)
            sent += line.text
            continue
        for value in _VALUE.findall(line.text):
            later = any(value in each.text for each in lines[at + 1 :] if each.sign == ">")
            if later and value not in sent and value not in names and not line.parts:
                names[value] = name = f"value{len(names) + 1}"
                before, _, after = line.text.partition(value)
                pattern = rb"\d+" if value.isdigit() else rb"[\w-]+"
                parts: list[TextPart] = [before, CapturedText(name, pattern), after]
                line.parts = [part for part in parts if part != b""]
    return len(names)


def _replace(text: bytes, names: dict[bytes, str]) -> list[TextPart]:
    if not names:
        return []
    pieces = re.split(b"(" + b"|".join(map(re.escape, names)) + b")", text)
    return [RecalledText(names[piece]) if piece in names else piece for piece in pieces if piece]


def write_contract(
    scenes: Sequence[RecordedScene], *, transport: str, framing: str, line_end: str, command: str
) -> str:
    """Return the text of a contract with these scenes."""
    head = [f"# Recorded from: {_comment(command)}", f'transport = "{transport}"']
    if framing != "none":
        head.append(f'framing = "{framing}"')
    if framing == "lines" and line_end == "\r\n":
        head.append(r'line_end = "\r\n"')
    blocks = []
    for scene in scenes:
        note = f"# {_comment(scene.note)}\n" if scene.note else ""
        talk = "\n".join(map(str, scene.lines))
        blocks.append(f"{note}[[scene]]\nname = \"{scene.name}\"\ntalk = '''\n{talk}\n'''\n")
    return "\n".join(("\n".join(head) + "\n", *blocks))


def _comment(text: str) -> str:
    """Return a text for a comment of TOML, which has no control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)[:200]
