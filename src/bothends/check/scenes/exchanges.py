"""Read from a scene what is asked before each of its lines: what a failure needs to be compared. Pure.

Requests are compared by their kind: the first word of letters, as in "GET name" or "*2\\r\\n$3\\r\\nGET", or
else the first two bytes. Of a JSON object it is the value of the key that names the request, such as "type"
or "command". A text that a client receives is the reply to the first request of its own without
one; if there is none, it follows the last request of any client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from bothends.check.same_cause import BINARY, Due, Exchange, Instead, WrongAnswer
from bothends.check.scenes.spec import Scene
from bothends.check.scenes.steps import (
    EndConnection,
    ExpectEnding,
    ExpectInAnyOrder,
    ExpectNothing,
    ExpectText,
    Restart,
    SendTexts,
    Step,
)
from bothends.check.scenes.template import TextTemplate

_WORD: Final = re.compile(rb"[A-Za-z]{2,}")
_NAME: Final = re.compile(rb"[A-Za-z]\w+")
_JSON_KIND: Final = re.compile(
    rb'"(?:type|command|cmd|action|method|request|op|operation|kind)"\s*:\s*"([^"\\]+)"', re.IGNORECASE
)
_KIND_BYTES: Final = 64  # of a text: its kind is at its beginning
_COMPARED_BYTES: Final = 256  # of a wrong answer, and of a JSON object
_DUE: Final = {
    ExpectText: Due.TEXT,
    ExpectInAnyOrder: Due.TEXT,
    ExpectNothing: Due.SILENCE,
    ExpectEnding: Due.ENDING,
}


def request_kind(text: TextTemplate) -> str:
    """Return the kind of a request."""
    literal = b"".join(part if isinstance(part, bytes) else b" " for part in text.parts)
    head = literal[:_COMPARED_BYTES]
    if head.lstrip().startswith(b"{") and (named := _JSON_KIND.search(head)):
        return named[1].decode(errors="replace").upper()
    head = literal[:_KIND_BYTES]
    word = _WORD.search(head)
    return word[0].decode().upper() if word else f"{BINARY}{head[:2].hex()}"


def exchanges_of(scene: Scene) -> tuple[Exchange, ...]:
    """Return the lines of a scene that demand something of a server, and what is asked before each."""
    found: list[Exchange] = []
    requests: list[str] = []
    unanswered: dict[str, list[int]] = {}  # by client: its requests without a reply, sent in a row
    replies: dict[str, int] = {}  # by client, since the last of them
    clients: set[str] = set()
    sent: list[bytes] = []
    interruptions = 0
    previous: Step | None = None
    for step in scene.steps:
        clients |= _clients(step)
        if isinstance(step, SendTexts):
            in_a_row = isinstance(previous, SendTexts) and previous.client == step.client
            earlier = unanswered.get(step.client, []) if in_a_row else []
            unanswered[step.client] = [*earlier, len(requests)]
            requests.append(request_kind(step.texts[0]))
            sent += [_literal_bytes(text) for text in step.texts]
            replies.clear()
        elif isinstance(step, EndConnection | Restart):
            interruptions += 1
        elif due := _DUE.get(type(step)):
            client = step.expected[0].client if isinstance(step, ExpectInAnyOrder) else step.client
            at, number = len(requests) - 1, replies.get(client, 0)
            if own := unanswered.get(client):
                at, number = own.pop(0), 0
            replies[client] = number + 1
            before = frozenset(requests[: max(0, at)])
            request = requests[at] if requests else ""
            texts = _right_texts(step, sent)
            found.append(
                Exchange(step.line, due, request, number, before, interruptions, len(clients), texts)
            )
        previous = step
    return tuple(found)


def _literal_bytes(text: TextTemplate) -> bytes:
    return b"".join(part for part in text.parts if isinstance(part, bytes))


def _right_texts(step: Step, sent: Sequence[bytes]) -> frozenset[bytes]:
    """Return the texts without patterns that are right at a line, as `text_instead` compares them."""
    choices = step.choices if isinstance(step, ExpectText) else ()
    literal = [each for each in choices if all(isinstance(part, bytes) for part in each.parts)]
    return frozenset(_compared(_literal_bytes(each), sent).rstrip(b"\r\n") for each in literal)


def _clients(step: Step) -> set[str]:
    if isinstance(step, ExpectInAnyOrder):
        return {each.client for each in step.expected}
    return {step.client} if step.client else set()


def exchanges_of_client(scene: Scene) -> tuple[Exchange, ...]:
    """Return the lines of a scene that demand something of a client under test: the texts that it sends."""
    found: list[Exchange] = []
    for step in scene.steps:
        if isinstance(step, SendTexts):
            before = frozenset(each.request for each in found)
            found.append(Exchange(step.line, Due.REQUEST, request_kind(step.texts[0]), before=before))
    return tuple(found)


def text_instead(line: int, received: bytes, sent: Sequence[bytes]) -> WrongAnswer:
    """Return a wrong text as an answer that can be compared with that in another scene.

    Args:
        received: what was received at the line.
        sent: what the other side had sent before: its words may be anything.
    """
    return WrongAnswer(line, Instead.TEXT, _compared(received, sent))


def _compared(text: bytes, sent: Sequence[bytes]) -> bytes:
    words = {word for each in sent for word in _NAME.findall(each[:_COMPARED_BYTES])}
    return _NAME.sub(lambda found: b"*" if found[0] in words else found[0], text[:_COMPARED_BYTES])
