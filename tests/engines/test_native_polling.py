"""Busy polling by the core in C."""

from __future__ import annotations

import time

import pytest

from bothends.engines.base import Limits
from bothends.engines.native import NativeUringEngine
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import EchoService

POLLS = 3.0  # seconds


@pytest.mark.skipif(
    NativeUringEngine.unavailable_reason() is not None, reason=str(NativeUringEngine.unavailable_reason())
)
def test_request_is_answered_while_the_core_polls() -> None:
    engine, limits = "bothends.engines.native:NativeUringEngine", Limits(busy_poll=POLLS)
    with (
        Harness(engine, EchoService, ["tcp://127.0.0.1:0"], limits, observe=False) as running,
        Client(running.endpoints[0]) as client,
    ):
        started = time.monotonic()
        for _ in range(3):
            assert client.request(b"hello") == b"hello"
        assert time.monotonic() - started < POLLS
