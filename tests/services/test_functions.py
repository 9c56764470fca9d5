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
from bothends.services.base import Conversation, Peer, Service, nowhere
from bothends.services.functions import (
    DatagramService,
    MessageService,
    StreamService,
    datagram,
    message,
    stream,
)
from tests.services.scripted import PEER, WHOLE, cut_anywhere, cuts, talk


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
    """Answers some, not others, and fails at one."""
    if message == b"fail":
        raise ValueError("as told")
    return None if message == b"hush" else message


# --- what the decorators make ---


def test_a_decorated_function_is_a_service_and_still_a_function() -> None:
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


def test_stream_and_datagram_refuse_each_others_place() -> None:
    assert (stream(bytes.lower).streams, stream(bytes.lower).datagrams) == (True, False)
    assert (datagram(bytes.lower).streams, datagram(bytes.lower).datagrams) == (False, True)


# --- messages ---


def test_each_line_is_answered_with_a_line() -> None:
    assert talk(shout, [b"on", b"e\r\ntwo\n\nla", b"st"]).turns[:5] == [
        b"",
        b"",
        b"ONE\nTWO\n\n",
        b"",
        b"LAST\n",
    ]


def test_none_is_no_answer_and_empty_is_one() -> None:
    assert talk(picky, [b"a\nhush\n\nb\n"]).said == b"a\n\nb\n"
    assert picky.answer(b"hush", WHOLE) is None
    assert picky.answer(b"", WHOLE) == b""


def test_the_peer_is_given_to_who_takes_it() -> None:
    assert talk(whoami, [b"?\n"]).said == b"127.0.0.1#5000\n"
    assert whoami.answer(b"", WHOLE) == b"127.0.0.1#5000"


def test_whole_messages_need_no_framing() -> None:
    assert shout.answer(b"a\nb\n", WHOLE) == b"A\nB\n"
    assert talk(shout, [b"a\nb", b"c"], WHOLE).turns[1:3] == [b"A\nB", b"C"]
    assert talk(picky, [b"hush"], WHOLE).said == b""


def test_another_framing() -> None:
    framing = LengthPrefixed(2)
    service = message(framing=framing)(bytes.upper)
    asked = framing.encode(b"one") + framing.encode(b"") + framing.encode(b"t\nw")
    answer = framing.encode(b"ONE") + framing.encode(b"") + framing.encode(b"T\nW")
    for chunks in cuts(asked):
        assert talk(service, chunks).said == answer


def test_the_limit_is_what_the_documentation_says() -> None:
    assert DEFAULT_LIMIT == 65_536
    line = b"x" * 65_536 + b"\n"
    assert talk(shout, [line]).failure is None
    assert isinstance(talk(shout, [b"x" + line]).failure, MessageTooLong)


# --- what goes wrong ---


@pytest.mark.parametrize("cut", list(cuts(b"a\nb\nfail\nc\n")))
def test_what_came_before_an_exception_is_still_said(cut: tuple[bytes, bytes]) -> None:
    said = talk(picky, cut)
    assert said.said == b"a\nb\n"
    assert said.done
    assert isinstance(said.failure, ValueError)


@pytest.mark.parametrize("cut", list(cuts(b"a\nb\n123456789\nc\n")))
def test_what_came_before_a_message_too_long_is_still_said(cut: tuple[bytes, bytes]) -> None:
    said = talk(message(limit=8)(bytes.upper), cut)
    assert said.said == b"A\nB\n"
    assert said.done
    assert isinstance(said.failure, MessageTooLong)


def test_the_first_failure_of_a_chunk_counts() -> None:
    assert isinstance(talk(picky, [b"fail\n" + b"x" * DEFAULT_LIMIT * 2]).failure, ValueError)


def test_a_failure_at_the_end_is_told_too() -> None:
    assert isinstance(talk(picky, [b"fail"]).failure, ValueError)
    assert isinstance(talk(whoami, [b"123456789"]).failure, MessageTooLong)


def test_an_answer_that_does_not_fit_its_frame_ends_it_after_the_others() -> None:
    framing = LengthPrefixed(1)
    said = talk(message(framing=framing)(lambda data: data * 100), [b"\1a", b"\0\3abc\1a"])
    assert said.said == framing.encode(b"a" * 100) + framing.encode(b"")
    assert isinstance(said.failure, MessageTooLong)


LETTERS = st.lists(st.sampled_from([b"hush", b"fail", b"\n", b"\r", b"x" * 5, b"x" * 9])).map(b"".join)


@given(cut_anywhere(LETTERS))
def test_no_cut_changes_what_is_said_nor_how_it_ends(chunks: list[bytes]) -> None:
    service = message(limit=8)(picky.__wrapped__)  # type: ignore[attr-defined]
    cut, whole = talk(service, chunks), talk(service, [b"".join(chunks)])
    assert cut.said == whole.said
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
def test_a_wrong_answer_is_named_wherever_it_is_given(answer: Any, text: str) -> None:
    def wrong(data: bytes) -> Any:
        return data if data == b"good" else answer

    said = talk(message(wrong), [b"good\nbad\n"])
    assert (said.said, str(said.failure)) == (b"good\n", text)
    assert isinstance(said.failure, ServiceError)
    for service, peer in ((stream(wrong), PEER), (message(wrong), WHOLE)):
        with pytest.raises(ServiceError, match=r"returned"):
            talk(service, [b"bad"], peer)
    with pytest.raises(ServiceError, match=r"returned"):
        datagram(wrong).answer(b"bad", WHOLE)


class BytesOfMine(bytes):
    pass


def test_a_subclass_of_bytes_is_bytes() -> None:
    def mine(data: bytes) -> bytes:
        return BytesOfMine(data)

    assert talk(message(mine), [b"a\n"]).said == b"a\n"


# --- streams and datagrams ---


def test_a_stream_function_answers_each_chunk() -> None:
    @stream
    def swap(data: bytes) -> bytes | None:
        return None if data == b"hush" else data.swapcase()

    assert talk(swap, [b"aB", b"hush", b"\n"]).turns[:4] == [b"", b"Ab", b"", b"\n"]


def test_a_conversation_is_made_for_each_connection() -> None:
    @stream
    class Counting(Conversation):
        """Counts what has come."""

        count = 0

        def receive(self, data: bytes) -> bytes:
            self.count += len(data)
            return str(self.count).encode()

    assert isinstance(Counting, Service)
    service: Any = Counting
    assert (service.name, service.summary, service.datagrams) == ("Counting", "Counts what has come.", False)
    assert talk(service, [b"ab", b"c"]).said == b"23"
    assert talk(service, [b"a"]).said == b"1"
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
    assert talk(service, [b"!"]).said == b"hello 127.0.0.1#5000!"
    assert talk(stream()(Greeting), [b"?"]).said == b"hello 127.0.0.1#5000?"


def test_a_datagram_function_answers_whole_datagrams() -> None:
    @datagram
    def where(_data: bytes, peer: Peer) -> bytes:
        return str(peer.local).encode()

    assert where.answer(b"", WHOLE) == b"127.0.0.1#12000"
    assert where.open(WHOLE, nowhere).receive(b"x") == b"127.0.0.1#12000"


# --- what is refused when it is decorated ---


async def waits(data: bytes) -> bytes:
    return data


async def yields(data: bytes) -> AsyncIterator[bytes]:
    yield data


class Waits:
    async def __call__(self, data: bytes) -> bytes:
        return data


@pytest.mark.parametrize("decorate", [message, stream, datagram, message(limit=9)])
@pytest.mark.parametrize("function", [waits, yields, Waits(), functools.partial(waits)])
def test_async_is_refused(decorate: Any, function: Any) -> None:
    with pytest.raises(ServiceError, match="it is async"):
        decorate(function)


def takes_nothing() -> bytes:
    return b""


def takes_three(a: bytes, b: bytes, c: bytes) -> bytes:
    return a + b + c


def takes_a_keyword(data: bytes, *, peer: Peer) -> bytes:
    return data


@pytest.mark.parametrize("function", [takes_nothing, takes_three, takes_a_keyword])
def test_a_function_that_takes_the_wrong_things_is_refused(function: Any) -> None:
    with pytest.raises(ServiceError, match=rf"service {function.__name__}: it takes .*must take the bytes"):
        message(function)


def test_a_conversation_that_takes_the_wrong_things_is_refused() -> None:
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
        (message, 7, "7 is no function"),
        (message, "shout", "'shout' is no function"),
    ],
)
def test_what_is_no_function_is_refused(decorate: Any, thing: Any, text: str) -> None:
    with pytest.raises(ServiceError, match=text):
        decorate(thing)


def test_options_that_contradict_each_other_are_refused() -> None:
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
        (min, False),  # written in C, and says nothing of what it takes
    ],
)
def test_whether_the_peer_is_wanted(function: Any, takes: bool) -> None:
    assert message(function)._takes_peer is takes
