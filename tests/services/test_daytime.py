from __future__ import annotations

import pytest

from bothends.services.daytime import Daytime
from tests.services.scripted import PEER, run_conversation


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, b"Thursday, January 1, 1970 00:00:00-UTC\r\n"),
        (383_276_263.9, b"Tuesday, February 23, 1982 01:37:43-UTC\r\n"),  # the RFC's own example, in UTC
    ],
)
def test_sent_once_in_utc(seconds: float, text: bytes) -> None:
    service = Daytime(now=lambda: seconds)
    answer = run_conversation(service, [b"never read"])
    assert answer.turns == [text]
    assert answer.done
    assert service.answer(b"", PEER) == text
