from __future__ import annotations

from bothends.services.print import Print
from tests.services.scripted import PEER, run_conversation


def test_logs_messages_and_answers_nothing() -> None:
    assert Print().log_messages
    assert run_conversation(Print(), [b"a", b"b\n"]).output == b""
    assert Print().answer(b"", PEER) is None
