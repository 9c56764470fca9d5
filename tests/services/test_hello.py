from __future__ import annotations

import pytest

from bothends.services.hello import Hello
from tests.services.scripted import WHOLE, talk


@pytest.mark.parametrize("chunks", [[b"hello"], [b"h", b"ello"], [b"hello\n", b"again\n"], []])
def test_one_answer_to_a_message_or_to_eof(chunks: list[bytes]) -> None:
    said = talk(Hello(), chunks)
    assert said.turns == [b"", b"back to ya client\n"]
    assert said.done


def test_a_message_of_its_own_needs_no_newline() -> None:
    assert talk(Hello(), [b"hello"], WHOLE).said == b"back to ya client"
    assert Hello().answer(b"", WHOLE) == Hello().answer(b"hello", WHOLE) == b"back to ya client"
