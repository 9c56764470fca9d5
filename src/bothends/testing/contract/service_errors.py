"""Failing: a service's mistake ends one conversation, and is told."""

from __future__ import annotations

import functools

import pytest

from bothends.events import Cause, Failed
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, check_cause, closed, of
from bothends.testing.services import UNLUCKY, LastWord, Raising, Where


class FailingContract(ContractBase):
    """Part of the suite: services that raise."""

    @pytest.mark.parametrize("where", ["open", "start", "more"])
    def test_raises_before_it_hears_anything(self, where: Where) -> None:
        """That conversation ends, the others go on. Mistake: an exception ends the loop, or is
        swallowed, and the peer waits for ever."""
        self.needs("tcp")
        running = self.serve(functools.partial(Raising, where), "tcp")
        witness = self.dial(running) if self.engine_class().concurrent else None
        assert witness is None or witness.ask(b"before") == b"before"
        client = self.dial(running, source=UNLUCKY)
        assert client.hear_end() == b""
        client.close()
        event = running.wait_event(Failed, of(client))
        assert str(event.error) == where
        check_cause(running, client, Cause.FAILED)
        assert witness is None or witness.ask(b"after") == b"after"
        assert self.dial(running).ask(b"next") == b"next"

    @pytest.mark.parametrize("where", ["receive", "end"])
    def test_raises_at_what_it_hears(self, where: Where, bytes_over: str) -> None:
        """As above, where the peer is to blame as well."""
        running = self.serve(functools.partial(Raising, where), bytes_over)
        witness = self.dial(running) if self.engine_class().concurrent else None
        assert witness is None or witness.ask(b"before") == b"before"
        client = self.dial(running)
        client.say(b"x")
        client.finish()
        assert client.hear_end() == (b"" if where == "receive" else b"x")
        client.close()
        event = running.wait_event(Failed, of(client))
        assert str(event.error) == where
        check_cause(running, client, Cause.FAILED)
        assert witness is None or witness.ask(b"after") == b"after"
        assert self.dial(running).ask(b"next") == b"next"

    def test_raises_when_it_is_closed(self, bytes_over: str) -> None:
        """`closed` may fail too. Mistake: what is done after it is not done: a descriptor, or a
        place, that is never given back."""
        running = self.serve(functools.partial(Raising, "closed"), bytes_over)
        for _ in range(3):
            with Client(running.endpoints[0]) as client:
                assert client.ask(b"x") == b"x"
            event = running.wait_event(Failed, of(client))
            assert str(event.error) == "closed"
            closed(running, client)
        assert self.dial(running).ask(b"next") == b"next"

    def test_fails_with_a_last_word(self, connection_over: str) -> None:
        """An error may come with an answer, and then the answer is sent. Mistake: closing first."""
        running = self.serve(LastWord, connection_over)
        client = self.dial(running)
        client.say(b"nonsense\n")
        assert client.hear_all() == b"500 no such command\n"
        client.close()
        assert str(running.wait_event(Failed, of(client)).error) == "no such command"
        check_cause(running, client, Cause.FAILED)
