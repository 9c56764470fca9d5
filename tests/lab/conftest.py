"""One lab for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.running import Lab, running_lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab() as found:
        yield found
