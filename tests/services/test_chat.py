from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.errors import MessageTooLong
from bothends.services.base import Conversation, Peer
from bothends.services.chat import LIMIT, Chat
from tests.services.scripted import PEER, WHOLE, cut_anywhere, talk


class Member:
    """A conversation and what was posted to it."""

    def __init__(self, chat: Chat, peer: Peer) -> None:
        self.heard: list[bytes] = []
        self.conversation: Conversation = chat.open(peer, self.heard.append)
        assert self.conversation.start() == b""

    def hears(self) -> bytes:
        heard = b"".join(self.heard)
        self.heard.clear()
        return heard


def someone(port: int) -> Peer:
    return replace(PEER, address=Address("inet", "127.0.0.1", port), connection=port)


def test_a_dialogue_of_three() -> None:
    chat = Chat()
    anna = Member(chat, someone(1))
    bert = Member(chat, someone(2))
    carl = Member(chat, someone(3))
    assert anna.hears() == b"* 127.0.0.1#2 joined\n* 127.0.0.1#3 joined\n"
    assert bert.hears() == b"* 127.0.0.1#3 joined\n"

    assert bert.conversation.receive("grüß go".encode()) == b""
    assert anna.hears() == b""
    bert.conversation.receive(b"tt\r\n\nhm")
    assert anna.hears() == carl.hears() == "127.0.0.1#2: grüß gott\n127.0.0.1#2: \n".encode()
    assert bert.hears() == b""

    bert.conversation.end()
    bert.conversation.closed()
    assert anna.hears() == carl.hears() == b"127.0.0.1#2: hm\n* 127.0.0.1#2 left\n"
    carl.conversation.receive(b"bye\n")
    assert bert.hears() == b""


def test_no_member_reaches_anothers_terminal() -> None:
    chat = Chat()
    anna, eve = Member(chat, someone(1)), Member(chat, someone(2))
    anna.hears()
    eve.conversation.receive(b"\x1b]0;title\x07 \xc2\x9b31m \rover \xff\n")
    assert anna.hears() == rb"127.0.0.1#2: \x1b]0;title\x07 \u{9b}31m \rover \xff" + b"\n"


@given(cut_anywhere(st.lists(st.sampled_from([b"hi", b"\n", b"\r", b"\xc3\xa9", b"\x1b[2J"])).map(b"".join)))
def test_the_cut_changes_nothing(chunks: list[bytes]) -> None:
    heard = []
    for cut in (chunks, [b"".join(chunks)]):
        chat = Chat()
        anna = Member(chat, someone(1))
        talk(chat, cut, someone(2))
        heard.append(anna.hears())
    assert heard[0] == heard[1]
    text = heard[0].replace(b"\n", b"").decode()
    assert text.isprintable()


@pytest.mark.parametrize("rest", [b"", b"\n", b"\nmore\n"])
def test_a_line_over_the_limit_ends_the_membership_after_what_came_before(rest: bytes) -> None:
    chat = Chat()
    anna = Member(chat, someone(1))
    said = talk(chat, [b"first\n" + b"x" * (LIMIT + 1) + rest], someone(2))
    assert isinstance(said.failure, MessageTooLong)
    assert said.done
    assert anna.hears() == b"* 127.0.0.1#2 joined\n127.0.0.1#2: first\n* 127.0.0.1#2 left\n"


def test_a_message_with_boundaries_is_whole_lines() -> None:
    chat = Chat()
    anna = Member(chat, someone(1))
    talk(chat, [b"one", b"two\nthree", b"four\n"], replace(WHOLE, address=Address("unix"), connection=7))
    said = b"unix#7: one\n", b"unix#7: two\nunix#7: three\n", b"unix#7: four\n"
    assert anna.heard == [b"* unix#7 joined\n", *said, b"* unix#7 left\n"]


def test_a_member_may_leave_while_others_are_told() -> None:
    chat = Chat()
    # Closed by the first thing it hears, as an engine closes a peer that doesn't read.
    quitter: Conversation = chat.open(someone(9), lambda _data: quitter.closed())
    quitter.start()
    anna, bert = Member(chat, someone(1)), Member(chat, someone(2))
    anna.hears()
    bert.conversation.receive(b"hi\n")
    assert anna.hears() == b"127.0.0.1#2: hi\n"


def test_who_never_began_leaves_in_silence() -> None:
    chat = Chat()
    anna = Member(chat, someone(1))
    chat.open(someone(2), lambda _data: None).closed()
    assert anna.hears() == b""
