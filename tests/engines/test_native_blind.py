"""The contract again, with nobody who observes: then the native engine holds conversations in C alone.

A test of the suite that comes to a point where it waits for an event ends there, as skipped: up to there,
and at its end, where nothing may be left, it has tried what it can.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.testing.contract.base import DATAGRAMS, has_ipv6  # noqa: E402
from bothends.testing.contract.datagrams import DatagramContract  # noqa: E402
from bothends.testing.contract.failing import FailingContract  # noqa: E402
from bothends.testing.contract.leaving import LeavingContract  # noqa: E402
from bothends.testing.contract.pressure import PressureContract  # noqa: E402
from bothends.testing.contract.resets import ResetContract  # noqa: E402
from bothends.testing.contract.scarcity import ScarcityContract  # noqa: E402
from bothends.testing.contract.talking import TalkingContract  # noqa: E402
from bothends.testing.harness import Harness  # noqa: E402
from bothends.testing.reports import ServiceMaker  # noqa: E402


def no_event(*_args: Any, **_named: Any) -> NoReturn:
    pytest.skip("nobody observes")


class NoEvents(list[Any]):
    """Where events would be: who looks for one has come to where its test ends."""

    def __iter__(self) -> NoReturn:
        no_event()


class Blind(
    TalkingContract,
    PressureContract,
    ResetContract,
    FailingContract,
    ScarcityContract,
    LeavingContract,
    DatagramContract,
):
    def serve(self, service: ServiceMaker, *transports: str, **named: Any) -> Harness:
        running = super().serve(service, *transports, **(named | {"observe": False}))
        running.wait_event = no_event  # type: ignore[method-assign]
        running.events = NoEvents()
        return running

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for argument in metafunc.fixturenames:
            if argument == "datagrams_over":
                over = [each for each in DATAGRAMS if "6" not in each or has_ipv6()]
                metafunc.parametrize(argument, over)
            elif argument.endswith("_over"):
                metafunc.parametrize(argument, ["tcp"])


class TestBlindOnRing(Blind):
    engine: ClassVar[str] = "bothends.engines.native:NativeOnRing"


class TestBlindOnEpoll(Blind):
    engine: ClassVar[str] = "bothends.engines.native:NativeOnEpoll"
