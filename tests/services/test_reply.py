from __future__ import annotations

from bothends.services.reply import Reply
from tests.services.scripted import PEER, WHOLE, talk

ANSWER = b"I am server and this is my message"


def test_each_read_is_a_message() -> None:
    assert talk(Reply(), [b"one", b"two\nthree\n"]).turns[:3] == [b"", ANSWER + b"\n", ANSWER + b"\n"]
    assert talk(Reply(), []).said == b""
    assert not talk(Reply(), [b"one"]).done


def test_a_message_of_its_own_needs_no_newline() -> None:
    assert talk(Reply(), [b"one"], WHOLE).said == ANSWER
    assert Reply().answer(b"", PEER) == ANSWER
