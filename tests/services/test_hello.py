from __future__ import annotations

import pytest

from bothends.services.hello import Hello
from tests.services.scripted import MESSAGE_PEER, run_conversation


@pytest.mark.parametrize("chunks", [[b"hello"], [b"h", b"ello"], [b"hello\n", b"again\n"], []])
def test_one_answer_to_a_message_or_to_eof(chunks: list[bytes]) -> None:
    result = run_conversation(Hello(), chunks)
    assert result.turns == [b"", b"back to ya client\n"]
    assert result.done


def test_message_answer_has_no_newline() -> None:
    assert run_conversation(Hello(), [b"hello"], MESSAGE_PEER).output == b"back to ya client"
    assert Hello().answer(b"", MESSAGE_PEER) == Hello().answer(b"hello", MESSAGE_PEER) == b"back to ya client"
