"""The whole suite as one class."""

from __future__ import annotations

from typing import ClassVar

import pytest

from bothends.testing.contract.backpressure import PressureContract
from bothends.testing.contract.base import BYTES, BYTES6, DATAGRAMS, PACKETS, carried
from bothends.testing.contract.capabilities import ClaimsContract
from bothends.testing.contract.datagrams import DatagramContract
from bothends.testing.contract.exchange import TalkingContract
from bothends.testing.contract.limits import LimitContract
from bothends.testing.contract.packets import PacketContract
from bothends.testing.contract.push import PostingContract
from bothends.testing.contract.resets import ResetContract
from bothends.testing.contract.resource_limits import ScarcityContract
from bothends.testing.contract.service_errors import FailingContract
from bothends.testing.contract.shutdown import LeavingContract
from bothends.testing.contract.tls_and_proxy import WrappedContract

# What a test's argument stands for: one run for each of these, if the engine carries it. To an engine
# IPv6 differs in its addresses only, so it is tried with what is basic.
_OVER = {
    "any_connection_over": ("streams", [*BYTES, *BYTES6, *PACKETS]),
    "bytes_over": ("streams", [*BYTES]),
    "connection_over": ("streams", [*BYTES, *PACKETS]),
    "posted_over": ("posts", [*BYTES]),
    "datagrams_over": ("datagrams", [*DATAGRAMS]),
}


class EngineContract(
    TalkingContract,
    PressureContract,
    ResetContract,
    FailingContract,
    ScarcityContract,
    LimitContract,
    WrappedContract,
    LeavingContract,
    DatagramContract,
    PacketContract,
    PostingContract,
    ClaimsContract,
):
    """What every engine must do, tried with real sockets. Subclass it in a test file:

        class TestMine(EngineContract):
            engine = "mine.engines:MyEngine"

    Each test runs the engine in a process of its own, over each transport that it claims to carry. An
    engine that can't run here is skipped with its own reason; so is what it says that it can't do.
    Each test's docstring says the rule, and the mistake that a failure shows.
    """

    engine: ClassVar[str]
    """The engine: a name of the registry, or "module:Class"."""

    kept_descriptors: ClassVar[int] = 0
    """How many descriptors may still be open after run(): those that a library opens once for the whole
    process, and keeps. Name the library where you set it."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test over the transports that the engine carries."""
        engine = self.engine_class()
        for argument, (ability, transports) in _OVER.items():
            if argument not in metafunc.fixturenames:
                continue
            if getattr(engine, ability) and engine.streams + engine.datagrams:
                metafunc.parametrize(argument, [name for name in transports if name in carried(engine)])
            else:
                reason = engine.why_not.get(ability, f"it has no {ability}")
                mark = pytest.mark.skip(reason=f"engine {engine.name}: {reason}")
                metafunc.parametrize(argument, [pytest.param("none", marks=mark)])
