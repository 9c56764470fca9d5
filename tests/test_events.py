"""The reasons in events differ from each other: for programs by their names, for people by their texts."""

from __future__ import annotations

from enum import StrEnum

import pytest

from bothends.events import CloseReason, RejectReason


@pytest.mark.parametrize("reasons", [CloseReason, RejectReason])
def test_reasons_are_different(reasons: type[StrEnum]) -> None:
    # A member with the value of another one would be an alias of it.
    assert len(reasons.__members__) == len({each.value for each in reasons})
