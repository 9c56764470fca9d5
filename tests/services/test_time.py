from __future__ import annotations

import pytest

from bothends.services.time import Time
from tests.services.scripted import PEER, run_conversation


@pytest.mark.parametrize(
    ("since_1970", "since_1900"),
    [
        (0.0, 2_208_988_800),  # the RFC's examples
        (189_302_400.0, 2_398_291_200),
        (315_532_800.0, 2_524_521_600),
        (420_595_200.0, 2_629_584_000),
        (-3_506_716_800.0, -1_297_728_000 % (1 << 32)),
        (2_085_978_495.9, 0xFFFF_FFFF),
        (2_085_978_496.0, 0),  # 7 February 2036, 06:28:16
    ],
)
def test_sent_once_and_wraps(since_1970: float, since_1900: int) -> None:
    service = Time(now=lambda: since_1970)
    answer = run_conversation(service, [b"never read"])
    assert answer.turns == [since_1900.to_bytes(4, "big")]
    assert answer.done
    assert service.answer(b"", PEER) == answer.output
