from __future__ import annotations

from bothends.services.reply import Reply
from tests.services.scripted import MESSAGE_PEER, PEER, run_conversation

ANSWER = b"I am server and this is my message"


def test_each_read_is_answered() -> None:
    assert run_conversation(Reply(), [b"one", b"two\nthree\n"]).turns[:3] == [
        b"",
        ANSWER + b"\n",
        ANSWER + b"\n",
    ]
    assert run_conversation(Reply(), []).output == b""
    assert not run_conversation(Reply(), [b"one"]).done


def test_message_answer_has_no_newline() -> None:
    assert run_conversation(Reply(), [b"one"], MESSAGE_PEER).output == ANSWER
    assert Reply().answer(b"", PEER) == ANSWER
