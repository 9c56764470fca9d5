"""Parse the talk of a scene. Pure.

    # A comment.
    alice> JOIN alice               alice sends
    alice< WELCOME alice            alice must receive
    alice| HELLO alice              ... or this
    alice< (nothing for 0.3 s)      an event, in parentheses
    alice< (eventually) END         other texts may precede this one
    alice< (checked by even)        a Python function judges the text
    (any order)                     the lines until (end) may come in any order
    bob< alice: hello
    bob< carol: hello
    (end)
    (optional)                      a client may send the first of the lines until (end), or not
    alice> HELP
    alice< {=.*}
    (end)
    (the server restarts)           by SIGTERM; all connections have ended
    alice/2> (connects to {port})   to another port of the server

An upstream is a server that the checker runs, to which the program connects:

    origin< GET / HTTP/1.0          the upstream must receive
    origin> HTTP/1.0 200 OK         the upstream sends
    origin< (connects)              the program must connect to it again

`alice/2` is a second connection of alice. One space after the sign and the spaces at the end of a line do not
belong to a text.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from bothends import suggest
from bothends.check.scenes.steps import (
    Connect,
    EndConnection,
    Ending,
    ExpectEnding,
    ExpectInAnyOrder,
    ExpectNothing,
    ExpectSame,
    ExpectText,
    Optional,
    Pause,
    Restart,
    SendTexts,
    Step,
)
from bothends.check.scenes.template import NO_SOURCES, TextError, TextSources, TextTemplate, parse_text

MAX_WAIT: Final = 30.0  # seconds of one step; a case ends after 60
_LINE: Final = re.compile(r"(?P<client>[A-Za-z]\w*(?:/\d+)?)(?P<sign>[<>|]) ?(?P<text>.*)", re.DOTALL)
_EVENT: Final = re.compile(r"\((?P<words>[^()]*(?:\(\)[^()]*)*)\)(?: (?P<rest>.*))?", re.DOTALL)
_DURATION: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>s|ms)")
_ENDINGS: Final = {ending.value: ending for ending in Ending}
_CLIENT_EVENTS: Final = ("connects", "connects to PORT", "closes", "half-closes", "reset", "waits 0.1 s")
_SERVER_EVENTS: Final = (
    "nothing for 0.3 s",
    "anything for 0.3 s",
    "within 2 s",
    "eventually",
    "checked by NAME",
    "as the reference",
    "closes",
    "half-closes",
    "reset",
)
_CONNECTS_TO: Final = "connects to "
_CHECKED: Final = "checked by "
_ANY_ORDER: Final = "(any order)"
_OPTIONAL: Final = "(optional)"
_BLOCK_END: Final = "(end)"
_RESTART: Final = "(the server restarts)"


class TalkError(ValueError):
    """A line of a talk is invalid. Fields: `line` (its number from 1), `reason`, `hint`."""

    def __init__(self, line: int, reason: str, hint: str = "") -> None:
        super().__init__(line, reason, hint)
        self.line = line
        self.reason = reason
        self.hint = hint


class _State(enum.Enum):
    """Which directions of a client's connection are open."""

    NEW = "has not connected yet"
    OPEN = "is connected"
    WRITE_SHUT = "has shut down its write side"
    READ_SHUT = "has received the end of the stream"
    ENDED = "has no connection any more"


_CAN_SEND: Final = {_State.NEW, _State.OPEN, _State.READ_SHUT}
_CAN_RECEIVE: Final = {_State.NEW, _State.OPEN, _State.WRITE_SHUT}


@dataclass
class _Parser:
    """The state after the lines so far. `is_datagram`: whether a client's messages are datagrams.

    `of_client`: it judges clients only, so what they send may have patterns; `upstreams`: the names of those.
    """

    is_datagram: Callable[[str], bool]
    sources: TextSources = NO_SOURCES
    of_client: bool = False
    upstreams: tuple[str, ...] = ()
    steps: list[Step] = field(default_factory=list)
    states: dict[str, _State] = field(default_factory=dict)
    remembered: set[str] = field(default_factory=set)
    block: list[Step] | None = None
    block_kind: str = ""
    block_line: int = 0
    remembered_before: set[str] = field(default_factory=set)

    def add(self, number: int, source: str) -> None:
        """Parse a line."""
        if source in (_ANY_ORDER, _OPTIONAL):
            if self.block is not None:
                raise TextError(f"{source} inside {self.block_kind}", "end the first with (end)")
            self.block, self.block_kind, self.block_line = [], source, number
            self.remembered_before = set(self.remembered)
            return
        if source == _BLOCK_END:
            self._end_block()
            return
        if source == _RESTART:
            self._restart(number)
            return
        found = _LINE.fullmatch(source)
        if found is None:
            raise TextError(
                f"{source!r} is not a line of a scene",
                "write NAME> TEXT for what a client sends, NAME< TEXT for what it must receive, # for a"
                r" comment; inside ''' ''' a text may contain \n, elsewhere TOML makes it a new line",
            )
        client, sign, text = found["client"], found["sign"], found["text"]
        if sign == "|":
            self._add_choice(client, text)
            return
        event = _EVENT.fullmatch(text)
        if text.startswith("(") and event is None:
            raise TextError(f"{text!r} is not an event", r"write \( if the text begins with a parenthesis")
        step: Step
        if event is not None:
            words, rest = event["words"].strip(), event["rest"]
            if sign == ">" and words == "eventually" and rest:
                step = self._send(number, source, client, rest, eventually=True)
            else:
                make = self._client_event if sign == ">" else self._server_event
                step = make(number, source, client, words, rest)
        elif sign == ">":
            step = self._send(number, source, client, text)
        else:
            step = self._expect(number, source, client, self._received_text(text))
        if self.block is not None:
            self._check_in_block(step, self.block)
            self.block.append(step)
        else:
            self._check_after_optional(step)
            self.steps.append(step)

    def _check_in_block(self, step: Step, block: list[Step]) -> None:
        """Check that a step may stand in the block."""
        if self.block_kind == _ANY_ORDER:
            if not isinstance(step, ExpectText):
                raise TextError(
                    "only texts that are received can be in any order", "put (end) before this line"
                )
        elif not isinstance(step, SendTexts if not block else SendTexts | ExpectText):
            raise TextError(
                "(optional) has a text that a client sends, and texts after it",
                f"put (end) before this line, or write {step.client}> TEXT",
            )
        elif block and step.client != block[0].client:
            raise TextError(f"(optional) is for one client, here {block[0].client}")

    def _check_after_optional(self, step: Step | None) -> None:
        """Check that what follows (optional) shows whether the client left it out."""
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, Optional):
            return
        client = last.first.client
        shown = isinstance(step, SendTexts) or (
            isinstance(step, EndConnection) and step.ending is not Ending.RESET
        )
        if step is None or not shown or step.client != client:
            raise TextError(
                "what follows (optional) must show that it is over",
                f"{client} must send a text next, or close: write {client}> TEXT or {client}> (closes)",
            )

    def end(self) -> None:
        """Check the end of the talk."""
        if self.block is not None:
            raise TalkError(
                self.block_line, f"{self.block_kind} has no end", "write (end) after the last of its lines"
            )
        try:
            self._check_after_optional(None)
        except TextError as error:
            raise TalkError(self.block_line, error.reason, error.hint) from error

    def _end_block(self) -> None:
        if self.block is None:
            raise TextError(f"(end) without {_ANY_ORDER} or {_OPTIONAL}")
        if not self.block:
            raise TextError(f"nothing is between {self.block_kind} and (end)")
        line, source = self.block_line, self.block_kind
        if source == _OPTIONAL:
            steps = tuple(self.block)
            self.steps.append(Optional(line=line, source=source, client=steps[0].client, steps=steps))
            self.remembered = self.remembered_before  # it may have been left out
        else:
            expected = tuple(step for step in self.block if isinstance(step, ExpectText))
            self._check_after_optional(expected[0])
            self.steps.append(ExpectInAnyOrder(line=line, source=source, client="", expected=expected))
        self.block = None

    def _restart(self, number: int) -> None:
        if self.block is not None:
            raise TextError(f"{_RESTART} inside {self.block_kind}", "put (end) before this line")
        self._check_after_optional(None)
        self.steps.append(Restart(line=number, source=_RESTART, client=""))
        self.states.clear()

    def _send(
        self, number: int, source: str, client: str, text: str, *, eventually: bool = False
    ) -> SendTexts:
        template = parse_text(text, self.sources)
        if eventually and not self.of_client:
            raise TextError(
                "(eventually) is for texts that are received",
                'write role = "client" for a scene that judges clients only',
            )
        if template.captures and not self.of_client:
            raise TextError(
                "a pattern cannot be sent",
                r"write {NAME} for a remembered value, \{ for the text {, or"
                ' role = "client" for a scene that judges clients only',
            )
        self._check_remembered(template)
        self._require(client, _CAN_SEND, "send")
        self._open(client)
        self._remember(template)
        return SendTexts(line=number, source=source, client=client, texts=(template,), eventually=eventually)

    def _received_text(self, text: str) -> TextTemplate:
        """Parse a text that is received, or `(checked by NAME)`."""
        event = _EVENT.fullmatch(text)
        if event is None or not event["words"].startswith(_CHECKED):
            return parse_text(text, self.sources)
        if event["rest"]:
            raise TextError(f"{event['rest']!r} follows an event", "write it on a line of its own")
        name = event["words"].removeprefix(_CHECKED).strip()
        if not name.isidentifier():
            raise TextError(f"({event['words']}) names no Python function", "write (checked by NAME)")
        return TextTemplate((), self.sources.find_function(name))

    def _expect(
        self,
        number: int,
        source: str,
        client: str,
        template: TextTemplate,
        *,
        within: float | None = None,
        eventually: bool = False,
    ) -> ExpectText:
        self._check_remembered(template)
        self._require(client, _CAN_RECEIVE, "receive")
        self._open(client)
        self._remember(template)
        return ExpectText(
            line=number, source=source, client=client, choices=(template,), within=within,
            eventually=eventually,
        )  # fmt: skip

    def _add_choice(self, client: str, text: str) -> None:
        """Add an alternative to the line before."""
        steps = self.steps if self.block is None else self.block
        last = steps[-1] if steps else None
        if not isinstance(last, ExpectText) or last.client != client:
            raise TextError(
                f"{client}| gives an alternative to the line before it",
                f"write it right below {client}< TEXT",
            )
        template = self._received_text(text)
        self._check_remembered(template)
        self._remember(template)
        steps[-1] = replace(last, choices=(*last.choices, template))

    def _check_remembered(self, template: TextTemplate) -> None:
        for name in template.recalls:
            if name not in self.remembered:
                guess = suggest.nearest(name, self.remembered)
                raise TextError(
                    f"no line before this one remembers {{{name}}}",
                    (f"did you mean {{{guess}}}? " if guess else "")
                    + rf"write \{{{name}}} for this text, or {{{name}=PATTERN}} in a text that is received",
                )

    def _remember(self, template: TextTemplate) -> None:
        self.remembered |= {each.name for each in template.captures if each.name}

    # Events --------------------------------------------------------------------------------------

    def _client_event(self, number: int, source: str, client: str, words: str, rest: str | None) -> Step:
        if rest:
            raise TextError(f"{rest!r} follows an event", "write it on a line of its own")
        place = {"line": number, "source": source, "client": client}
        if words == "connects" or words.startswith(_CONNECTS_TO):
            if self._is_upstream(client):
                raise TextError(f"{client} does not connect: the program does", f"write {client}< (connects)")
            port = None if words == "connects" else parse_text(words.removeprefix(_CONNECTS_TO), self.sources)
            return self._connect(Connect(line=number, source=source, client=client, port=port))
        if words.startswith("waits "):
            return Pause(**place, seconds=_seconds(words, "waits"))  # type: ignore[arg-type]
        ending = _ENDINGS.get(words)
        if ending is None:
            raise _unknown_event(words, ">", _CLIENT_EVENTS, _SERVER_EVENTS)
        state = self.states.get(client, _State.NEW)
        if state in (_State.NEW, _State.ENDED):
            raise TextError(f"{client} {state.value}", f"write {client}> (connects) before this line")
        self._check_ending(client, ending)
        if ending is Ending.HALF_CLOSE:
            self._require(client, _CAN_SEND, "shut down its write side")
            self.states[client] = _State.WRITE_SHUT if state is _State.OPEN else _State.ENDED
        else:
            self.states[client] = _State.ENDED
        return EndConnection(**place, ending=ending)  # type: ignore[arg-type]

    def _server_event(self, number: int, source: str, client: str, words: str, rest: str | None) -> Step:
        place = {"line": number, "source": source, "client": client}
        within = None
        eventually = False
        while words.startswith("within ") or words == "eventually":
            if not rest:
                raise TextError(f"({words}) has no text after it", f"write {client}< ({words}) TEXT")
            if words == "eventually":
                eventually = True
            else:
                within = _seconds(words, "within")
            event = _EVENT.fullmatch(rest)
            if event is None or event["words"].startswith(_CHECKED):
                template = self._received_text(rest)
                return self._expect(number, source, client, template, within=within, eventually=eventually)
            words, rest = event["words"].strip(), event["rest"]
            if words not in ("eventually", *_ENDINGS) and not words.startswith("within "):
                raise _unknown_event(words, "<", ("eventually", *_ENDINGS), ())
        if eventually:
            raise TextError(f"(eventually) is for texts, not for ({words})")
        if words.startswith(_CHECKED):
            template = self._received_text(f"({words})" + (f" {rest}" if rest else ""))
            return self._expect(number, source, client, template)
        if rest:
            raise TextError(f"{rest!r} follows an event", "write it on a line of its own")
        if words == "connects" and self._is_upstream(client):
            return self._connect(Connect(line=number, source=source, client=client))
        self._require(client, _CAN_RECEIVE, "receive")
        self._open(client)
        if words == "as the reference":
            return ExpectSame(**place)  # type: ignore[arg-type]
        for discard, verb in enumerate(("nothing for", "anything for")):
            if words.startswith(verb):
                seconds = _seconds(words, verb)
                return ExpectNothing(**place, seconds=seconds, discard=bool(discard))  # type: ignore[arg-type]
        ending = _ENDINGS.get(words)
        if ending is None:
            raise _unknown_event(words, "<", _SERVER_EVENTS, _CLIENT_EVENTS)
        self._check_ending(client, ending)
        half = ending is Ending.HALF_CLOSE and self.states[client] is _State.OPEN
        self.states[client] = _State.READ_SHUT if half else _State.ENDED
        return ExpectEnding(**place, ending=ending, within=within)  # type: ignore[arg-type]

    def _is_upstream(self, client: str) -> bool:
        return client.partition("/")[0] in self.upstreams

    def _connect(self, step: Connect) -> Connect:
        """Note that a client, or the program with an upstream, has connected."""
        client = step.client
        if self.states.get(client, _State.NEW) not in (_State.NEW, _State.ENDED):
            raise TextError(f"{client} is connected already", f"write {client}/2> for a second connection")
        if step.port is not None:
            if step.port.captures:
                raise TextError("a port cannot be a pattern", f"write {client}> (connects to {{NAME}})")
            self._check_remembered(step.port)
        self.states[client] = _State.OPEN
        return step

    def _check_ending(self, client: str, ending: Ending) -> None:
        if self.is_datagram(client):
            raise TextError(
                f"({ending.value}) is for connections, and {client} uses datagrams",
                f"remove the line, or write {client}/2> for another socket",
            )

    def _require(self, client: str, allowed: set[_State], what: str) -> None:
        state = self.states.get(client, _State.NEW)
        if state not in allowed:
            raise TextError(
                f"{client} {state.value}, so it cannot {what}",
                f"write {client}> (connects) before this line" if state is _State.ENDED else "",
            )

    def _open(self, client: str) -> None:
        if self.states.get(client, _State.NEW) is _State.NEW:
            self.states[client] = _State.OPEN


def _unknown_event(words: str, sign: str, known: tuple[str, ...], other: tuple[str, ...]) -> TextError:
    verb = words.partition(" ")[0]
    if any(each.partition(" ")[0] == verb for each in other if each not in known):
        opposite = "<" if sign == ">" else ">"
        return TextError(f"({words}) does not follow NAME{sign}", f"write NAME{opposite} ({words})")
    guess = suggest.nearest(words, known)
    texts = ", ".join(f"({each})" for each in known)
    return TextError(
        f"there is no event ({words})",
        (f"did you mean ({guess})? " if guess else "") + rf"known: {texts}; write \( if it is text",
    )


def _seconds(words: str, verb: str) -> float:
    """Return the seconds of an event such as `nothing for 0.3 s`."""
    found = _DURATION.fullmatch(words.removeprefix(verb).strip())
    if found is None:
        raise TextError(f"({words}) has no duration", f"write ({verb} 0.3 s) or ({verb} 300 ms)")
    seconds = float(found["number"]) / (1000 if found["unit"] == "ms" else 1)
    if not 0 < seconds <= MAX_WAIT:
        raise TextError(f"({words}) is not between 0 and {MAX_WAIT:g} s")
    return seconds


def _numbered_lines(talk: str) -> Iterator[tuple[int, str]]:
    """Return the number and text of each line that is neither empty nor a comment."""
    for number, line in enumerate(talk.split("\n"), start=1):
        text = line.strip(" \t\r")
        if text and not text.startswith("#"):
            yield number, text


def parse_talk(
    talk: str,
    is_datagram: Callable[[str], bool],
    sources: TextSources = NO_SOURCES,
    *,
    of_client: bool = False,
    upstreams: tuple[str, ...] = (),
) -> tuple[Step, ...]:
    """Parse a talk.

    Args:
        is_datagram: whether the messages of a client are datagrams, by its name.
        sources: the files and functions that texts may name.
        of_client: it judges clients only, so the texts that they send may have patterns.
        upstreams: the names that are servers which the checker runs. Their addresses are values: {NAME} is
            HOST:PORT, and {NAME_port} the port.

    Raises:
        TalkError: a line is invalid, or the talk has no line.
    """
    parser = _Parser(is_datagram, sources, of_client, upstreams)
    parser.remembered |= {value for name in upstreams for value in (name, f"{name}_port")}
    for number, source in _numbered_lines(talk):
        try:
            parser.add(number, source)
        except TextError as error:
            raise TalkError(number, error.reason, error.hint) from error
    parser.end()
    if not parser.steps:
        raise TalkError(1, "the talk is empty", "write lines such as alice> hello")
    return tuple(parser.steps)
