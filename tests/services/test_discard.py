from __future__ import annotations

from bothends.services.discard import Discard
from tests.services.scripted import PEER, talk


def test_nothing_is_answered_and_nobody_is_sent_away() -> None:
    assert talk(Discard(), [b"a", b"b\n"]).said == b""
    assert not talk(Discard(), [b"a"]).done
    assert Discard().answer(b"a", PEER) is None
