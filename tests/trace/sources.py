"""The two sources of calls: tests that judge calls run with both, where eBPF can be had.

pytestmark = pytest.mark.spread("call_source", one_in=2)  # half of the tests with each; `make slow` runs all

def test_something(call_source: str) -> None: ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Final

import pytest

from bothends.errors import Unavailable
from bothends.trace.capture.bpf import BpfSource

SOURCES: Final = ("strace", "bpf")
_chosen: list[str] = ["strace"]


@cache
def _why_not_bpf() -> str:
    try:
        BpfSource().close()
    except Unavailable as error:
        return str(error)
    return ""


@contextlib.contextmanager
def open_call_source() -> Iterator[BpfSource | None]:
    """Open the source that the test runs with; None for strace."""
    if _chosen[0] == "strace":
        yield None
        return
    with BpfSource() as source:
        yield source


def source_option() -> tuple[str, str]:
    """Return the option of `bothends trace` for the source that the test runs with."""
    return "--with", _chosen[0]


@pytest.fixture(params=SOURCES)
def call_source(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with each source, which `open_call_source` opens; skip it where eBPF is missing."""
    if request.param == "bpf" and _why_not_bpf():
        pytest.skip(_why_not_bpf())
    previous, _chosen[0] = _chosen[0], str(request.param)
    yield str(request.param)
    _chosen[0] = previous


@pytest.fixture
def bpf() -> Iterator[None]:
    """Run the test with eBPF, or skip it."""
    if _why_not_bpf():
        pytest.skip(_why_not_bpf())
    previous, _chosen[0] = _chosen[0], "bpf"
    yield
    _chosen[0] = previous
