from __future__ import annotations

from bothends.services.discard import Discard
from tests.services.scripted import PEER, run_conversation


def test_no_answer_and_connection_stays_open() -> None:
    assert run_conversation(Discard(), [b"a", b"b\n"]).output == b""
    assert not run_conversation(Discard(), [b"a"]).done
    assert Discard().answer(b"a", PEER) is None
