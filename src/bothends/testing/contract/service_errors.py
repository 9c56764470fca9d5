"""Service errors: an exception of a service ends one conversation, and is reported."""

from __future__ import annotations

import functools

import pytest

from bothends.events import CloseReason, ServiceFailed
from bothends.testing.clients import Client
from bothends.testing.contract.base import ContractBase, check_cause, of_client, wait_closed
from bothends.testing.services import ALTERNATE_SOURCE, ErrorReply, RaisePoint, RaisingEcho


class ServiceErrorContract(ContractBase):
    """Part of the suite: services that raise."""

    @pytest.mark.parametrize("point", ["open", "start", "produce"])
    def test_raise_before_first_receive_ends_one_conversation(self, point: RaisePoint) -> None:
        """The conversation ends, and the others continue. Bug: the exception ends the loop, or is ignored, so
        that the peer waits forever."""
        self.require_transports("tcp")
        running = self.serve(functools.partial(RaisingEcho, point), "tcp")
        witness = self.connect(running) if self.engine_class().concurrent else None
        assert witness is None or witness.request(b"before") == b"before"
        client = self.connect(running, source=ALTERNATE_SOURCE, may_be_reset=True)
        assert client.receive_until_closed() == b""
        client.close()
        event = running.wait_event(ServiceFailed, of_client(client))
        assert str(event.error) == point
        check_cause(running, client, CloseReason.FAILED)
        assert witness is None or witness.request(b"after") == b"after"
        assert self.connect(running).request(b"next") == b"next"

    @pytest.mark.parametrize("point", ["receive", "end"])
    def test_raise_on_received_data_ends_one_conversation(
        self, point: RaisePoint, stream_transport: str
    ) -> None:
        """The same if the exception is caused by the peer's input."""
        running = self.serve(functools.partial(RaisingEcho, point), stream_transport)
        witness = self.connect(running) if self.engine_class().concurrent else None
        assert witness is None or witness.request(b"before") == b"before"
        client = self.connect(running)
        client.send(b"x")
        client.shutdown_write()
        assert client.receive_until_closed() == (b"" if point == "receive" else b"x")
        client.close()
        event = running.wait_event(ServiceFailed, of_client(client))
        assert str(event.error) == point
        check_cause(running, client, CloseReason.FAILED)
        assert witness is None or witness.request(b"after") == b"after"
        assert self.connect(running).request(b"next") == b"next"

    def test_raise_in_closed_releases_connection(self, stream_transport: str) -> None:
        """`closed` may raise, too. Bug: the descriptor, or the slot, is never released."""
        running = self.serve(functools.partial(RaisingEcho, "closed"), stream_transport)
        for _ in range(3):
            with Client(running.endpoints[0]) as client:
                assert client.request(b"x") == b"x"
            event = running.wait_event(ServiceFailed, of_client(client))
            assert str(event.error) == "closed"
            wait_closed(running, client)
        assert self.connect(running).request(b"next") == b"next"

    def test_failure_with_reply_sends_reply_first(self, connection_transport: str) -> None:
        """If a conversation fails with a reply, the reply is sent first. Bug: closing at once."""
        running = self.serve(ErrorReply, connection_transport)
        client = self.connect(running)
        client.send(b"nonsense\n")
        assert client.receive_until_eof() == b"500 no such command\n"
        client.close()
        assert str(running.wait_event(ServiceFailed, of_client(client)).error) == "no such command"
        check_cause(running, client, CloseReason.FAILED)
