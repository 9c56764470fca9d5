"""Capabilities: what an engine states about itself, and the CPU time that it uses when idle."""

from __future__ import annotations

from bothends.endpoints import Endpoint
from bothends.engines.base import Engine
from bothends.testing.contract.base import ALL_URLS, DATAGRAM_URLS, ContractBase, supported_transports
from bothends.testing.services import BroadcastChat, EchoService


class CapabilitiesContract(ContractBase):
    """Part of the suite: an engine before it runs, and while nothing happens."""

    def test_name_and_summary_are_set(self) -> None:
        """An engine has a name, and one line that describes how it waits."""
        engine = self.engine_class()
        assert engine.name
        assert engine.summary
        assert "\n" not in engine.summary

    def test_unsupported_capability_has_reason(self) -> None:
        """Each unsupported capability has a reason in words. Bug: a KeyError in place of the reason."""
        engine = self.engine_class()
        for capability in (
            "streams",
            "datagrams",
            "supports_push",
            "concurrent",
            "rejects_when_full",
            "accepts_inherited",
        ):
            if not getattr(engine, capability):
                assert engine.why_not.get(capability), f"no reason for {capability} = False"

    def test_unsupported_endpoint_is_rejected_with_reason(self) -> None:
        """An unsupported endpoint is rejected before the engine runs, with the reason; others are not."""
        engine = self.engine_class()
        for name, text in ALL_URLS.items():
            endpoint = Endpoint.parse(text.replace("{tmp}", "/tmp"))
            unsupported = engine.unsupported_reason(EchoService(), endpoint)
            if _supports(engine, name):
                assert unsupported is None
                continue
            assert unsupported is not None
            assert unsupported.reason
            assert engine.name in str(unsupported)

    def test_push_service_without_push_support_is_rejected(self) -> None:
        """A service that pushes is rejected by an engine that cannot deliver pushes, not partly served."""
        engine = self.engine_class()
        if not engine.streams:
            return
        unsupported = engine.unsupported_reason(BroadcastChat(), Endpoint.parse("tcp://127.0.0.1:0"))
        if engine.supports_push:
            assert unsupported is None
        else:
            assert unsupported is not None
            assert unsupported.reason

    def test_idle_server_uses_no_cpu(self) -> None:
        """Without events a server does nothing. Bug: busy polling."""
        running = self.serve(EchoService, *supported_transports(self.engine_class()))
        used = running.cpu_used(0.3, limit=0.1)
        assert used <= 0.1, f"{used:g} s of CPU time without connections"

    def test_idle_connections_use_no_cpu(self) -> None:
        """The engine blocks while its peers are idle. Bug: it polls each of them."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp")
        clients = [self.connect(running) for _ in range(3 if self.engine_class().concurrent else 1)]
        for client in clients:
            assert client.request(b"hello") == b"hello"
        used = running.cpu_used(0.3, limit=0.1)
        assert used <= 0.1, f"{used:g} s of CPU time with {len(clients)} idle connections"


def _supports(engine: type[Engine], transport: str) -> bool:
    return engine.datagrams if transport in DATAGRAM_URLS else engine.streams
