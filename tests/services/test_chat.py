from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.errors import MessageTooLong
from bothends.services.base import Conversation, Peer
from bothends.services.chat import MAX_LINE, Chat
from tests.services.scripted import MESSAGE_PEER, PEER, random_chunks, run_conversation


class Member:
    """A conversation, and the data pushed to it."""

    def __init__(self, chat: Chat, peer: Peer) -> None:
        self.received: list[bytes] = []
        self.conversation: Conversation = chat.open(peer, self.received.append)
        assert self.conversation.start() == b""

    def take_received(self) -> bytes:
        data = b"".join(self.received)
        self.received.clear()
        return data


def peer_on_port(port: int) -> Peer:
    return replace(PEER, address=Address("inet", "127.0.0.1", port), connection=port)


def test_three_members_exchange_lines() -> None:
    chat = Chat()
    anna = Member(chat, peer_on_port(1))
    bert = Member(chat, peer_on_port(2))
    carl = Member(chat, peer_on_port(3))
    assert anna.take_received() == b"* 127.0.0.1#2 joined\n* 127.0.0.1#3 joined\n"
    assert bert.take_received() == b"* 127.0.0.1#3 joined\n"

    assert bert.conversation.receive("grüß go".encode()) == b""
    assert anna.take_received() == b""
    bert.conversation.receive(b"tt\r\n\nhm")
    assert anna.take_received() == carl.take_received() == "127.0.0.1#2: grüß gott\n127.0.0.1#2: \n".encode()
    assert bert.take_received() == b""

    bert.conversation.end()
    bert.conversation.closed()
    assert anna.take_received() == carl.take_received() == b"127.0.0.1#2: hm\n* 127.0.0.1#2 left\n"
    carl.conversation.receive(b"bye\n")
    assert bert.take_received() == b""


def test_lines_are_escaped() -> None:
    chat = Chat()
    anna, eve = Member(chat, peer_on_port(1)), Member(chat, peer_on_port(2))
    anna.take_received()
    eve.conversation.receive(b"\x1b]0;title\x07 \xc2\x9b31m \rover \xff\n")
    assert anna.take_received() == rb"127.0.0.1#2: \x1b]0;title\x07 \u{9b}31m \rover \xff" + b"\n"


@given(random_chunks(st.lists(st.sampled_from([b"hi", b"\n", b"\r", b"\xc3\xa9", b"\x1b[2J"])).map(b"".join)))
def test_output_is_independent_of_chunking(chunks: list[bytes]) -> None:
    outputs = []
    for cut in (chunks, [b"".join(chunks)]):
        chat = Chat()
        anna = Member(chat, peer_on_port(1))
        run_conversation(chat, cut, peer_on_port(2))
        outputs.append(anna.take_received())
    assert outputs[0] == outputs[1]
    text = outputs[0].replace(b"\n", b"").decode()
    assert text.isprintable()


@pytest.mark.parametrize("rest", [b"", b"\n", b"\nmore\n"])
def test_line_over_limit_ends_after_preceding_lines(rest: bytes) -> None:
    chat = Chat()
    anna = Member(chat, peer_on_port(1))
    result = run_conversation(chat, [b"first\n" + b"x" * (MAX_LINE + 1) + rest], peer_on_port(2))
    assert isinstance(result.failure, MessageTooLong)
    assert result.done
    assert anna.take_received() == b"* 127.0.0.1#2 joined\n127.0.0.1#2: first\n* 127.0.0.1#2 left\n"


def test_message_peer_sends_whole_lines() -> None:
    chat = Chat()
    anna = Member(chat, peer_on_port(1))
    run_conversation(
        chat, [b"one", b"two\nthree", b"four\n"], replace(MESSAGE_PEER, address=Address("unix"), connection=7)
    )
    lines = b"unix#7: one\n", b"unix#7: two\nunix#7: three\n", b"unix#7: four\n"
    assert anna.received == [b"* unix#7 joined\n", *lines, b"* unix#7 left\n"]


def test_member_closed_during_broadcast() -> None:
    chat = Chat()
    # Closed by the first push, as an engine closes a peer that does not read.
    quitter: Conversation = chat.open(peer_on_port(9), lambda _data: quitter.closed())
    quitter.start()
    anna, bert = Member(chat, peer_on_port(1)), Member(chat, peer_on_port(2))
    anna.take_received()
    bert.conversation.receive(b"hi\n")
    assert anna.take_received() == b"127.0.0.1#2: hi\n"


def test_close_before_start_is_not_announced() -> None:
    chat = Chat()
    anna = Member(chat, peer_on_port(1))
    chat.open(peer_on_port(2), lambda _data: None).closed()
    assert anna.take_received() == b""
