from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any, assert_type

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bothends
from bothends.errors import MessageTooLong, ServiceError
from bothends.framing import DEFAULT_LIMIT, LengthPrefixed, Lines
from bothends.services.base import Conversation, Peer, Service, discard_push
from bothends.services.functions import (
    DatagramService,
    MessageService,
    StreamService,
    datagram,
    message,
    stream,
)
from tests.services.scripted import MESSAGE_PEER, PEER, cuts, random_chunks, run_conversation


@message
def shout(message: bytes) -> bytes:
    """Answers louder.

    This is not in the summary.
    """
    return message.upper()


@message(limit=8)
def whoami(_message: bytes, peer: Peer) -> bytes:
    return str(peer.address).encode()


@message
def picky(message: bytes) -> bytes | None:
    """Answers some messages, ignores others, and fails on one."""
    if message == b"fail":
        raise ValueError("as told")
    return None if message == b"hush" else message


# --- results of the decorators ---


def test_decorated_function_is_service_and_callable() -> None:
    assert isinstance(shout, Service)
    assert (shout.name, shout.summary) == ("shout", "Answers louder.")
    assert (shout.streams, shout.datagrams) == (True, True)
    assert shout(b"hi") == b"HI"
    assert shout.__name__ == "shout"  # type: ignore[attr-defined]
    assert repr(shout) == "<service shout>"
    assert whoami(b"", PEER) == b"127.0.0.1#5000"
    assert bothends.message is message


def test_the_types_are_kept() -> None:
    assert_type(shout, MessageService[[bytes]])
    assert_type(whoami, MessageService[[bytes, Peer]])
    assert_type(shout(b""), bytes | None)
    assert_type(stream(bytes.lower), StreamService[[bytes]])
    assert_type(datagram()(bytes.lower), DatagramService[[bytes]])


def test_stream_and_datagram_transports() -> None:
    assert (stream(bytes.lower).streams, stream(bytes.lower).datagrams) == (True, False)
    assert (datagram(bytes.lower).streams, datagram(bytes.lower).datagrams) == (False, True)


# --- messages ---


def test_each_line_is_answered_with_a_line() -> None:
    assert run_conversation(shout, [b"on", b"e\r\ntwo\n\nla", b"st"]).turns[:5] == [
        b"",
        b"",
        b"ONE\nTWO\n\n",
        b"",
        b"LAST\n",
    ]


def test_none_sends_nothing_and_empty_sends_empty_message() -> None:
    assert run_conversation(picky, [b"a\nhush\n\nb\n"]).output == b"a\n\nb\n"
    assert picky.answer(b"hush", MESSAGE_PEER) is None
    assert picky.answer(b"", MESSAGE_PEER) == b""


def test_peer_is_passed_if_accepted() -> None:
    assert run_conversation(whoami, [b"?\n"]).output == b"127.0.0.1#5000\n"
    assert whoami.answer(b"", MESSAGE_PEER) == b"127.0.0.1#5000"


def test_whole_messages_need_no_framing() -> None:
    assert shout.answer(b"a\nb\n", MESSAGE_PEER) == b"A\nB\n"
    assert run_conversation(shout, [b"a\nb", b"c"], MESSAGE_PEER).turns[1:3] == [b"A\nB", b"C"]
    assert run_conversation(picky, [b"hush"], MESSAGE_PEER).output == b""


def test_custom_framing() -> None:
    framing = LengthPrefixed(2)
    service = message(framing=framing)(bytes.upper)
    asked = framing.encode(b"one") + framing.encode(b"") + framing.encode(b"t\nw")
    answer = framing.encode(b"ONE") + framing.encode(b"") + framing.encode(b"T\nW")
    for chunks in cuts(asked):
        assert run_conversation(service, chunks).output == answer


def test_default_limit() -> None:
    assert DEFAULT_LIMIT == 65_536
    line = b"x" * 65_536 + b"\n"
    assert run_conversation(shout, [line]).failure is None
    assert isinstance(run_conversation(shout, [b"x" + line]).failure, MessageTooLong)


# --- errors ---


@pytest.mark.parametrize("cut", list(cuts(b"a\nb\nfail\nc\n")))
def test_answers_before_exception_are_sent(cut: tuple[bytes, bytes]) -> None:
    result = run_conversation(picky, cut)
    assert result.output == b"a\nb\n"
    assert result.done
    assert isinstance(result.failure, ValueError)


@pytest.mark.parametrize("cut", list(cuts(b"a\nb\n123456789\nc\n")))
def test_answers_before_too_long_message_are_sent(cut: tuple[bytes, bytes]) -> None:
    result = run_conversation(message(limit=8)(bytes.upper), cut)
    assert result.output == b"A\nB\n"
    assert result.done
    assert isinstance(result.failure, MessageTooLong)


def test_first_failure_in_chunk_is_reported() -> None:
    assert isinstance(run_conversation(picky, [b"fail\n" + b"x" * DEFAULT_LIMIT * 2]).failure, ValueError)


def test_failure_at_eof_is_reported() -> None:
    assert isinstance(run_conversation(picky, [b"fail"]).failure, ValueError)
    assert isinstance(run_conversation(whoami, [b"123456789"]).failure, MessageTooLong)


def test_answer_over_frame_limit_ends_after_preceding_answers() -> None:
    framing = LengthPrefixed(1)
    result = run_conversation(message(framing=framing)(lambda data: data * 100), [b"\1a", b"\0\3abc\1a"])
    assert result.output == framing.encode(b"a" * 100) + framing.encode(b"")
    assert isinstance(result.failure, MessageTooLong)


LETTERS = st.lists(st.sampled_from([b"hush", b"fail", b"\n", b"\r", b"x" * 5, b"x" * 9])).map(b"".join)


@given(random_chunks(LETTERS))
def test_result_is_independent_of_chunking(chunks: list[bytes]) -> None:
    service = message(limit=8)(picky.__wrapped__)  # type: ignore[attr-defined]
    cut, whole = run_conversation(service, chunks), run_conversation(service, [b"".join(chunks)])
    assert cut.output == whole.output
    assert cut.done == whole.done
    assert type(cut.failure) is type(whole.failure)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("hi", "service wrong: returned str, not bytes: .encode() it"),
        (bytearray(b"hi"), "service wrong: returned bytearray, not bytes: wrap it in bytes()"),
        (memoryview(b"hi"), "service wrong: returned memoryview, not bytes: wrap it in bytes()"),
        (7, "service wrong: returned int, not bytes"),
    ],
)
def test_wrong_answer_type_raises_service_error(answer: Any, text: str) -> None:
    def wrong(data: bytes) -> Any:
        return data if data == b"good" else answer

    result = run_conversation(message(wrong), [b"good\nbad\n"])
    assert (result.output, str(result.failure)) == (b"good\n", text)
    assert isinstance(result.failure, ServiceError)
    for service, peer in ((stream(wrong), PEER), (message(wrong), MESSAGE_PEER)):
        with pytest.raises(ServiceError, match=r"returned"):
            run_conversation(service, [b"bad"], peer)
    with pytest.raises(ServiceError, match=r"returned"):
        datagram(wrong).answer(b"bad", MESSAGE_PEER)


class BytesSubclass(bytes):
    pass


def test_a_subclass_of_bytes_is_bytes() -> None:
    def mine(data: bytes) -> bytes:
        return BytesSubclass(data)

    assert run_conversation(message(mine), [b"a\n"]).output == b"a\n"


# --- streams and datagrams ---


def test_a_stream_function_answers_each_chunk() -> None:
    @stream
    def swap(data: bytes) -> bytes | None:
        return None if data == b"hush" else data.swapcase()

    assert run_conversation(swap, [b"aB", b"hush", b"\n"]).turns[:4] == [b"", b"Ab", b"", b"\n"]


def test_a_conversation_is_made_for_each_connection() -> None:
    @stream
    class Counting(Conversation):
        """Counts received bytes."""

        count = 0

        def receive(self, data: bytes) -> bytes:
            self.count += len(data)
            return str(self.count).encode()

    assert isinstance(Counting, Service)
    service: Any = Counting
    assert (service.name, service.summary, service.datagrams) == ("Counting", "Counts received bytes.", False)
    assert run_conversation(service, [b"ab", b"c"]).output == b"23"
    assert run_conversation(service, [b"a"]).output == b"1"
    assert service().receive(b"x") == b"1"


def test_a_conversation_may_take_the_peer() -> None:
    class Greeting(Conversation):
        def __init__(self, peer: Peer) -> None:
            self.name = str(peer.address)

        def start(self) -> bytes:
            return f"hello {self.name}".encode()

        def receive(self, data: bytes) -> bytes:
            return data

    service = stream(Greeting)
    assert service.summary == ""
    assert run_conversation(service, [b"!"]).output == b"hello 127.0.0.1#5000!"
    assert run_conversation(stream()(Greeting), [b"?"]).output == b"hello 127.0.0.1#5000?"


def test_a_datagram_function_answers_whole_datagrams() -> None:
    @datagram
    def where(_data: bytes, peer: Peer) -> bytes:
        return str(peer.local).encode()

    assert where.answer(b"", MESSAGE_PEER) == b"127.0.0.1#12000"
    assert where.open(MESSAGE_PEER, discard_push).receive(b"x") == b"127.0.0.1#12000"


# --- rejected by the decorators ---


async def waits(data: bytes) -> bytes:
    return data


async def yields(data: bytes) -> AsyncIterator[bytes]:
    yield data


class Waits:
    async def __call__(self, data: bytes) -> bytes:
        return data


@pytest.mark.parametrize("decorate", [message, stream, datagram, message(limit=9)])
@pytest.mark.parametrize("function", [waits, yields, Waits(), functools.partial(waits)])
def test_async_function_is_rejected(decorate: Any, function: Any) -> None:
    with pytest.raises(ServiceError, match="it is async"):
        decorate(function)


def takes_nothing() -> bytes:
    return b""


def takes_three(a: bytes, b: bytes, c: bytes) -> bytes:
    return a + b + c


def takes_a_keyword(data: bytes, *, peer: Peer) -> bytes:
    return data


@pytest.mark.parametrize("function", [takes_nothing, takes_three, takes_a_keyword])
def test_function_with_wrong_signature_is_rejected(function: Any) -> None:
    with pytest.raises(ServiceError, match=rf"service {function.__name__}: it takes .*must take the bytes"):
        message(function)


def test_conversation_with_wrong_signature_is_rejected() -> None:
    class Two(Conversation):
        def __init__(self, one: int, two: int) -> None:
            pass

        def receive(self, data: bytes) -> bytes:
            return data

    with pytest.raises(ServiceError, match=r"service Two: it takes .*must take nothing or the peer"):
        stream(Two)


class Abstract(Conversation):
    pass


@pytest.mark.parametrize(
    ("decorate", "thing", "text"),
    [
        (stream, Abstract, "it lacks receive"),
        (message, Abstract, "it is a class"),
        (stream, int, "it is a class"),
        (message, 7, "7 is not a function"),
        (message, "shout", "'shout' is not a function"),
    ],
)
def test_non_function_is_rejected(decorate: Any, thing: Any, text: str) -> None:
    with pytest.raises(ServiceError, match=text):
        decorate(thing)


def test_conflicting_options_are_rejected() -> None:
    options: dict[str, Any] = {"limit": 9, "framing": Lines()}
    with pytest.raises(ServiceError, match="both a limit and a framing"):
        message(**options)
    with pytest.raises(ServiceError, match="limit=0"):
        message(limit=0)


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (lambda data: data, False),
        (lambda data, peer: data, True),
        (lambda data, who: data, True),
        (lambda data, peer=None: data, True),
        (lambda data, factor=2: data, False),
        (lambda *all_of_it: b"", False),
        (bytes.upper, False),
        (functools.partial(lambda key, data: data, b"key"), False),
        (functools.partial(lambda data, peer, key: data, key=1), True),
        (min, False),  # written in C, without a signature
    ],
)
def test_takes_peer(function: Any, takes: bool) -> None:
    assert message(function)._takes_peer is takes
