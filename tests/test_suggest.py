"""`suggest.py`: which known name an error offers for a misspelled one."""

from __future__ import annotations

import pytest

from bothends.suggest import nearest


@pytest.mark.parametrize(
    ("name", "expected"), [("eppol", "epoll"), ("EPOLL", "epoll"), ("uvlop", "uvloop"), ("zzz", ""), ("", "")]
)
def test_nearest_known_name(name: str, expected: str) -> None:
    assert nearest(name, ["epoll", "poll", "uvloop"]) == expected


def test_nearest_keeps_the_spelling_of_the_known_name() -> None:
    assert nearest("nodelay", ["NoDelay"]) == "NoDelay"
