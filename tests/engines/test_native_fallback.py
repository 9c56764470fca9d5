"""The contract again, with nobody who is told of more than troubles: then the native engine holds
conversations in C alone.

A test of the suite that comes to a point where it waits for another event ends there, as skipped: up to
there, and at its end, where nothing may be left, it has tried what it can.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.events import Troubles  # noqa: E402
from bothends.testing.contract.backpressure import PressureContract  # noqa: E402
from bothends.testing.contract.base import DATAGRAMS, has_ipv6  # noqa: E402
from bothends.testing.contract.datagrams import DatagramContract  # noqa: E402
from bothends.testing.contract.exchange import TalkingContract  # noqa: E402
from bothends.testing.contract.resets import ResetContract  # noqa: E402
from bothends.testing.contract.resource_limits import ScarcityContract  # noqa: E402
from bothends.testing.contract.service_errors import FailingContract  # noqa: E402
from bothends.testing.contract.shutdown import LeavingContract  # noqa: E402
from bothends.testing.harness import Harness  # noqa: E402
from bothends.testing.ipc import ServiceMaker  # noqa: E402


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
        running = super().serve(service, *transports, **named)
        wait_event = running.wait_event

        def wait_trouble(kind: Any, *more: Any, **others: Any) -> Any:
            if kind in Troubles.LEFT_OUT:
                pytest.skip(f"nobody is told of {kind.__name__}")
            return wait_event(kind, *more, **others)

        running.wait_event = wait_trouble  # type: ignore[method-assign]
        return running

    def test_waiting_costs_nothing(self) -> None:
        pytest.skip("it begins with an event")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for argument in metafunc.fixturenames:
            if argument == "datagrams_over":
                over = [each for each in DATAGRAMS if "6" not in each or has_ipv6()]
                metafunc.parametrize(argument, over)
            elif argument.endswith("_over"):
                metafunc.parametrize(argument, ["tcp"])


class TestBlindOnRing(Blind):
    engine: ClassVar[str] = "tests.engines.silent_engines:QuietOnRing"


@pytest.mark.slow  # what is blind to events is so on either
class TestBlindOnEpoll(Blind):
    engine: ClassVar[str] = "tests.engines.silent_engines:QuietOnEpoll"
