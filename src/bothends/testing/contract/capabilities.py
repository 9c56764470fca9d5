"""Claims: what an engine says about itself, and what it costs to have it idle."""

from __future__ import annotations

from bothends.endpoints import Endpoint
from bothends.engines.base import Engine
from bothends.testing.contract.base import ALL, DATAGRAMS, ContractBase, carried
from bothends.testing.services import Chat, Echo


class ClaimsContract(ContractBase):
    """Part of the suite: the face that an engine shows before it runs, and while nothing happens."""

    def test_says_what_it_is(self) -> None:
        """A name, and one line that says what waits for what."""
        engine = self.engine_class()
        assert engine.name
        assert engine.summary
        assert "\n" not in engine.summary

    def test_gives_its_reasons(self) -> None:
        """Each thing that it can't do has a reason in words. Mistake: a KeyError where one was due."""
        engine = self.engine_class()
        for ability in ("streams", "datagrams", "posts", "concurrent", "turns_away", "adopts"):
            if not getattr(engine, ability):
                assert engine.why_not.get(ability), f"no reason for {ability} = False"

    def test_refuses_what_it_does_not_carry(self) -> None:
        """Before it runs, and with the reason; and nothing else is refused."""
        engine = self.engine_class()
        for name, text in ALL.items():
            endpoint = Endpoint.parse(text.replace("{tmp}", "/tmp"))
            refusal = engine.refusal(Echo(), endpoint)
            if _claims(engine, name):
                assert refusal is None
                continue
            assert refusal is not None
            assert refusal.reason
            assert engine.name in str(refusal)

    def test_refuses_posts_that_it_can_not_deliver(self) -> None:
        """A chat on an engine whose connections can't reach each other is refused, not half served."""
        engine = self.engine_class()
        if not engine.streams:
            return
        refusal = engine.refusal(Chat(), Endpoint.parse("tcp://127.0.0.1:0"))
        if engine.posts:
            assert refusal is None
        else:
            assert refusal is not None
            assert refusal.reason

    def test_idle_server_costs_nothing(self) -> None:
        """No events, no work. Mistake: a loop that looks again and again."""
        running = self.serve(Echo, *carried(self.engine_class()))
        used = running.cpu_over(0.3, enough=0.1)
        assert used <= 0.1, f"{used:g} s of processor time, with nobody there"

    def test_idle_connections_cost_nothing(self) -> None:
        """Peers that say nothing are waited for. Mistake: asking each of them, again and again."""
        self.needs("tcp")
        running = self.serve(Echo, "tcp")
        clients = [self.dial(running) for _ in range(3 if self.engine_class().concurrent else 1)]
        for client in clients:
            assert client.ask(b"hello") == b"hello"
        used = running.cpu_over(0.3, enough=0.1)
        assert used <= 0.1, f"{used:g} s of processor time, for {len(clients)} idle connections"


def _claims(engine: type[Engine], transport: str) -> bool:
    return engine.datagrams if transport in DATAGRAMS else engine.streams
