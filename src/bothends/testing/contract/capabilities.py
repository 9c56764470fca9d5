"""Claims: what an engine says about itself, and what it costs to have it idle."""

from __future__ import annotations

from bothends.endpoints import Endpoint
from bothends.engines.base import Engine
from bothends.testing.contract.base import ALL_URLS, DATAGRAM_URLS, ContractBase, supported_transports
from bothends.testing.services import BroadcastChat, EchoService


class CapabilitiesContract(ContractBase):
    """Part of the suite: the face that an engine shows before it runs, and while nothing happens."""

    def test_name_and_summary_are_set(self) -> None:
        """A name, and one line that says what waits for what."""
        engine = self.engine_class()
        assert engine.name
        assert engine.summary
        assert "\n" not in engine.summary

    def test_unsupported_capability_has_reason(self) -> None:
        """Each thing that it can't do has a reason in words. Mistake: a KeyError where one was due."""
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
        """Before it runs, and with the reason; and nothing else is refused."""
        engine = self.engine_class()
        for name, text in ALL_URLS.items():
            endpoint = Endpoint.parse(text.replace("{tmp}", "/tmp"))
            refusal = engine.unsupported_reason(EchoService(), endpoint)
            if _supports(engine, name):
                assert refusal is None
                continue
            assert refusal is not None
            assert refusal.reason
            assert engine.name in str(refusal)

    def test_push_service_without_push_support_is_rejected(self) -> None:
        """A chat on an engine whose connections can't reach each other is refused, not half served."""
        engine = self.engine_class()
        if not engine.streams:
            return
        refusal = engine.unsupported_reason(BroadcastChat(), Endpoint.parse("tcp://127.0.0.1:0"))
        if engine.supports_push:
            assert refusal is None
        else:
            assert refusal is not None
            assert refusal.reason

    def test_idle_server_uses_no_cpu(self) -> None:
        """No events, no work. Mistake: a loop that looks again and again."""
        running = self.serve(EchoService, *supported_transports(self.engine_class()))
        used = running.cpu_used(0.3, limit=0.1)
        assert used <= 0.1, f"{used:g} s of processor time, with nobody there"

    def test_idle_connections_use_no_cpu(self) -> None:
        """Peers that say nothing are waited for. Mistake: asking each of them, again and again."""
        self.require_transports("tcp")
        running = self.serve(EchoService, "tcp")
        clients = [self.connect(running) for _ in range(3 if self.engine_class().concurrent else 1)]
        for client in clients:
            assert client.request(b"hello") == b"hello"
        used = running.cpu_used(0.3, limit=0.1)
        assert used <= 0.1, f"{used:g} s of processor time, for {len(clients)} idle connections"


def _supports(engine: type[Engine], transport: str) -> bool:
    return engine.datagrams if transport in DATAGRAM_URLS else engine.streams
