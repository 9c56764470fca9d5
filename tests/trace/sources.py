"""The two sources of calls: tests that judge calls run with both, where eBPF can be had.

pytestmark = pytest.mark.spread("call_source", one_in=2)  # half of the tests with each; `make slow` runs all

def test_something(call_source: str) -> None: ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import pytest

from bothends.errors import Unavailable
from bothends.trace.capture.bpf import BpfSource

SOURCES: Final = ("strace", "bpf")
_chosen: list[str] = ["strace"]


@contextlib.contextmanager
def open_call_source() -> Iterator[BpfSource | None]:
    """Open the source that the test runs with; None for strace. Skips the test without eBPF."""
    if _chosen[0] == "strace":
        yield None
        return
    try:
        source = BpfSource()
    except Unavailable as error:
        pytest.skip(str(error))
    with source:
        yield source


@pytest.fixture(params=SOURCES)
def call_source(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with each source: `open_call_source` opens it."""
    previous, _chosen[0] = _chosen[0], str(request.param)
    yield str(request.param)
    _chosen[0] = previous
