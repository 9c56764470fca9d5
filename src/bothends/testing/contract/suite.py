"""The contract suite as one class."""

from __future__ import annotations

from typing import ClassVar

import pytest

from bothends.testing.contract.backpressure import BackpressureContract
from bothends.testing.contract.base import (
    DATAGRAM_URLS,
    SEQPACKET_URLS,
    STREAM_URLS,
    STREAM_URLS_IPV6,
    supported_transports,
)
from bothends.testing.contract.capabilities import CapabilitiesContract
from bothends.testing.contract.datagrams import DatagramContract
from bothends.testing.contract.exchange import ExchangeContract
from bothends.testing.contract.limits import LimitContract
from bothends.testing.contract.packets import SeqpacketContract
from bothends.testing.contract.push import PushContract
from bothends.testing.contract.resets import ResetContract
from bothends.testing.contract.resource_limits import ResourceLimitContract
from bothends.testing.contract.service_errors import ServiceErrorContract
from bothends.testing.contract.shutdown import ShutdownContract
from bothends.testing.contract.tls_and_proxy import TlsAndProxyContract
from bothends.testing.contract.wire import WireContract

# Fixture -> the capability that it needs, and the transports for which a test runs. For an engine IPv6
# differs in its addresses only, so only basic tests run over it.
_TRANSPORTS_BY_FIXTURE = {
    "any_connection_transport": ("streams", [*STREAM_URLS, *STREAM_URLS_IPV6, *SEQPACKET_URLS]),
    "stream_transport": ("streams", [*STREAM_URLS]),
    "connection_transport": ("streams", [*STREAM_URLS, *SEQPACKET_URLS]),
    "push_transport": ("supports_push", [*STREAM_URLS]),
    "datagram_transport": ("datagrams", [*DATAGRAM_URLS]),
}


class EngineContract(
    ExchangeContract,
    BackpressureContract,
    ResetContract,
    WireContract,
    ServiceErrorContract,
    ResourceLimitContract,
    LimitContract,
    TlsAndProxyContract,
    ShutdownContract,
    DatagramContract,
    SeqpacketContract,
    PushContract,
    CapabilitiesContract,
):
    """What every engine must do, tested with real sockets. Subclass it in a test file:

        class TestMine(EngineContract):
            engine = "mine.engines:MyEngine"

    Each test runs the engine in its own process, over each transport that the engine supports. Tests are
    skipped with the engine's reason if it is not available on this machine, or does not support a capability.
    Each docstring has the rule, and the bug that a failure usually means.
    """

    engine: ClassVar[str]
    """The engine: a name of the registry, or "module:Class"."""

    retained_descriptors: ClassVar[int] = 0
    """The number of descriptors that may still be open after run(), because a library opens them once for the
    whole process. Name the library in a comment."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test over the transports that the engine supports."""
        engine = self.engine_class()
        for fixture, (capability, transports) in _TRANSPORTS_BY_FIXTURE.items():
            if fixture not in metafunc.fixturenames:
                continue
            if getattr(engine, capability) and engine.streams + engine.datagrams:
                metafunc.parametrize(
                    fixture, [name for name in transports if name in supported_transports(engine)]
                )
            else:
                reason = engine.why_not.get(capability, f"{capability} is False")
                mark = pytest.mark.skip(reason=f"engine {engine.name}: {reason}")
                metafunc.parametrize(fixture, [pytest.param("none", marks=mark)])
