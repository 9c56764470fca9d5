"""Lines that the core in C answers: as the conversation itself would."""

from __future__ import annotations

from typing import Any

import pytest

from bothends import message
from bothends.engines.base import Engine
from bothends.engines.epoll import EpollEngine
from bothends.engines.native import NativeEngine
from bothends.events import Event, ProblemsOnly, ServiceFailed
from bothends.framing import FixedSize
from bothends.server import Server
from bothends.services import functions
from bothends.services.base import Peer, Service
from bothends.testing.clients import Client
from tests.engines.test_counted import each_backend

pytestmark = pytest.mark.skipif(
    NativeEngine.unavailable_reason() is not None, reason=str(NativeEngine.unavailable_reason())
)


class Text(bytes):
    """Bytes, but not of the type itself."""


def answer(line: bytes) -> Any:
    """Answer as the line says."""
    match line:
        case b"none":
            return None
        case b"text":
            return Text(b"<text>")
        case b"bytearray":
            return bytearray(b"x")
        case b"str":
            return "x"
        case b"raise":
            raise ValueError("asked to")
    return b"<" + line + b">"


@message(limit=20)
def with_peer(line: bytes, peer: Peer) -> bytes:
    return b"%s %d" % (line, peer.connection)


SERVICES: dict[str, Service] = {
    "lines": message(limit=20)(answer),
    "peer": with_peer,
    "fixed": message(framing=FixedSize(3))(lambda data: data[::-1]),
}


def conversation(engine: type[Engine], service: Service, chunks: list[bytes]) -> tuple[bytes, list[str]]:
    """Send chunks one after another. Returns what comes back, and the errors of the service."""
    events: list[Event] = []
    received = b""
    with (
        Server(service, ["tcp://127.0.0.1:0"], engine=engine, observe=ProblemsOnly(events.append)) as server,
        Client(server.endpoints[0]) as client,
    ):
        for chunk in chunks:
            client.send(chunk)
            answers = b""
            while chunk.endswith(b"ping\n") and not answers.endswith((b"ping>\n", b"ping 1\n")):
                answers += client.receive_exactly(1)  # so that the next chunk is one of its own
            received += answers
        client.shutdown_write()
        received += client.receive_until_closed()
    return received, [str(event.error) for event in events if isinstance(event, ServiceFailed)]


@pytest.mark.parametrize(
    "chunks",
    [
        [b"one\ntwo\n\nthree\n"],
        [b"one\nnone\ntext\nlast\n"],
        [b"one\nraise\nnever\n"],
        [b"one\nbytearray\nnever\n"],
        [b"one\nstr\n"],
        [b"one\r\ntwo\n", b"three\n"],
        [b"ping\n", b"half", b" a line\nping\n", b"ping\n", b"the end"],
        [b"ping\n", b"half\nof", b"\nping\n", b"none\nping\n"],
        [b"a line of more than twenty bytes\n"],
        [b"ping\n", b"x" * 19 + b"\n", b"x" * 20 + b"\n", b"x" * 21 + b"\nnever\n"],
        [b"none\n", b"ping\n"],
    ],
    ids=lambda chunks: repr(b"|".join(chunks))[2:40],
)
@each_backend
def test_lines_are_answered_in_c_as_in_python(engine: type[NativeEngine], chunks: list[bytes]) -> None:
    for service in ("lines", "peer"):
        expected = conversation(EpollEngine, SERVICES[service], chunks)
        assert conversation(engine, SERVICES[service], chunks) == expected


@each_backend
def test_messages_that_are_no_lines_are_answered_in_python(engine: type[NativeEngine]) -> None:
    assert conversation(engine, SERVICES["fixed"], [b"ab\nde", b"f12"]) == (b"\nbafed", [])


@each_backend
def test_only_chunks_that_are_not_whole_lines_are_given_to_the_conversation(
    engine: type[NativeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[bytes] = []

    def receive(self: Any, data: bytes) -> bytes:
        chunks.append(data)
        return original(self, data)

    original = functions._MessageConversation.receive
    monkeypatch.setattr(functions._MessageConversation, "receive", receive)
    sent = [b"one\nping\n", b"x\r\nping\n", b"ping\n", b"the end"]
    conversation(engine, SERVICES["lines"], sent)
    assert chunks == [b"x\r\nping\n", b"the end"]


def test_other_conversations_have_no_line_function() -> None:
    peer = Peer(None, None)  # type: ignore[arg-type]
    assert SERVICES["fixed"].open(peer, lambda _: None).line_function is None
    assert SERVICES["lines"].open(peer, lambda _: None).line_function is answer
