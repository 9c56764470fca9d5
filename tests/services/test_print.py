from __future__ import annotations

from bothends.services.print import Print
from tests.services.scripted import PEER, talk


def test_it_only_shows() -> None:
    assert Print().shows
    assert talk(Print(), [b"a", b"b\n"]).said == b""
    assert Print().answer(b"", PEER) is None
