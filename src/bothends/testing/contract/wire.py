"""How a connection ends, as the peer's socket shows it: EOF or ECONNRESET, and after which bytes.

An answer that is sent whole ends with FIN, so that the peer reads EOF, whatever happens to the server
afterwards. A conversation that is cut off with data unsent ends with RST, because EOF would make a truncated
answer look whole (RFC 9293, section 3.10.5). The events of an engine cannot show the difference, so these
tests read the peer's socket: errno, and TCP_INFO where a FIN hides a later RST from recv().
"""

from __future__ import annotations

import functools
import time

import pytest

from bothends.engines.base import Limits
from bothends.events import CloseReason
from bothends.testing.contract.base import QUIET_PERIOD, SMALL_BUFFER, ContractBase, check_cause
from bothends.testing.harness import Harness
from bothends.testing.ipc import ServiceMaker
from bothends.testing.services import (
    EchoService,
    LargeReply,
    PullProducer,
    RaisingEcho,
    UppercaseLines,
    message_echo,
    pattern,
)

_SMALL_BUFFERS = f"?sndbuf={SMALL_BUFFER}&rcvbuf={SMALL_BUFFER}"

# Bytes: more than the small buffers of both ends and the server's write buffer hold.
_SIZE = 1_000_000

# Seconds: the limit that expires in a test, and the one that does not.
_SHORT = 0.3
_LONG = 60.0

# Seconds: the linger timeout, much shorter than the limits, so that it passes in each test.
_LINGER = 0.05

_CAUSES = {
    "life": CloseReason.LIFE,
    "idle": CloseReason.IDLE,
    "drain": CloseReason.ABORTED,
    "abort": CloseReason.ABORTED,
}


class WireContract(ContractBase):
    """Part of the suite: FIN and RST."""

    # A finished answer never ends in RST ------------------------------------------------------------

    @pytest.mark.parametrize("reading", ["fast", "slowly", "late"])
    def test_finished_answer_ends_with_eof(self, reading: str) -> None:
        """The peer receives the whole answer, then EOF, and no RST follows. Bugs: closing with unread input;
        a linger timeout that discards what the kernel has not sent yet."""
        self.require_transports("tcp")
        size = 4_000 if reading == "late" else _SIZE // 2
        running = self.serve(
            functools.partial(LargeReply, size, done=True),
            "tcp",
            options=_SMALL_BUFFERS,
            limits=Limits(linger=_LINGER),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        if reading == "late":
            # The server has half-closed, lingered and closed before the peer reads anything.
            assert not client.is_hung_up(QUIET_PERIOD + _LINGER)
        end = client.receive_end(0.002 if reading == "slowly" else 0.0)
        assert end.data == pattern(size)
        assert not end.is_reset
        assert not client.is_hung_up(QUIET_PERIOD), "RST after a finished answer"
        assert client.has_received_fin()

    @pytest.mark.parametrize("cut", ["life", "idle", "drain", "abort"])
    def test_finished_answer_survives_later_cut(self, cut: str) -> None:
        """While the server waits for the peer's FIN, no limit and no shutdown destroys the answer. Bug: RST
        for every connection that is still open, which empties the peer's receive buffer on some systems."""
        self.require_transports("tcp")
        limits = Limits(
            linger=2 * _SHORT,
            drain=_SHORT,
            life=_SHORT if cut == "life" else None,
            idle=_SHORT if cut == "idle" else None,
        )
        running = self.serve(UppercaseLines, "tcp", limits=limits)
        client = self.connect(running)
        client.send(b"!\n")
        running.wait_for(client.has_received_fin)
        self._shut_down(running, cut)
        assert not client.is_hung_up(3 * _SHORT), "RST after a finished answer"
        assert client.receive_end() == (b"bye\n", False)
        assert client.has_received_fin()

    @pytest.mark.parametrize("cut", ["life", "idle", "drain"])
    def test_end_without_unsent_data_is_eof(self, cut: str) -> None:
        """A conversation that a limit or a drain ends, and that has answered everything, ends with EOF, not
        before the limit. Bug: RST for every end that the peer has not asked for."""
        self.require_transports("tcp")
        began = time.monotonic()
        running = self.serve(EchoService, "tcp", limits=self._limits(cut))
        client = self.connect(running)
        assert client.request(b"hello") == b"hello"
        self._shut_down(running, cut)
        assert client.receive_end() == (b"", False)
        assert cut == "drain" or time.monotonic() - began >= _SHORT, f"{cut} ended it early"
        assert not client.is_hung_up(QUIET_PERIOD), "RST after EOF"
        assert client.has_received_fin()

    @pytest.mark.parametrize("ending", ["done", "peer's EOF"])
    def test_drain_sends_whole_answer(self, ending: str) -> None:
        """While a server drains, an answer that is produced piece by piece is sent to its end. Bug: draining
        stops every producer, and EOF makes the truncated answer look whole."""
        self.require_transports("tcp")
        running = self.serve(
            functools.partial(PullProducer, _SIZE // 2),
            "tcp",
            options=_SMALL_BUFFERS,
            limits=Limits(drain=_LONG, linger=_LINGER),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        if ending != "done":
            client.shutdown_write()
        data = client.receive_exactly(50_000)
        running.drain()
        assert not client.is_hung_up(QUIET_PERIOD)
        end = client.receive_end(0.001)
        assert not end.is_reset
        assert len(data + end.data) == _SIZE // 2
        assert data + end.data == pattern(_SIZE // 2)

    # Cut off with unsent data means RST -----------------------------------------------------------

    @pytest.mark.parametrize("cut", ["life", "idle", "drain", "abort"])
    @pytest.mark.parametrize("answer", ["echo", "finished", "produced"])
    def test_cut_off_with_unsent_answer_is_reset(self, answer: str, cut: str) -> None:
        """A peer that does not read gets RST when its conversation is cut off. Bugs: EOF after a part of the
        answer; a limit that does not apply to a conversation that has nothing more to say."""
        self.require_transports("tcp")
        services: dict[str, ServiceMaker] = {
            "echo": EchoService,
            "finished": functools.partial(LargeReply, 4 * _SIZE, done=True),
            "produced": PullProducer,
        }
        began = time.monotonic()
        running = self.serve(services[answer], "tcp", options=_SMALL_BUFFERS, limits=self._limits(cut))
        client = self.connect(running, rcvbuf=SMALL_BUFFER, sndbuf=SMALL_BUFFER)
        if answer == "echo":
            client.send_until_blocked(pattern(4 * _SIZE), timeout=_SHORT / 6)
        else:
            client.send(b"go")
        assert client.is_readable(10)
        self._shut_down(running, cut)
        assert client.is_hung_up(10 * _SHORT), "not ended"
        assert cut == "abort" or time.monotonic() - began >= _SHORT, f"{cut} ended it early"
        assert client.has_received_rst()
        end = client.receive_end()
        assert end.is_reset, f"EOF after {len(end.data)} bytes of an unfinished answer"
        if answer != "produced":
            assert pattern(4 * _SIZE).startswith(end.data)

    def test_cut_off_producer_is_reset_with_large_buffers(self) -> None:
        """The same if the kernel has taken every piece so far: the producer has more. Bug: EOF, because no
        byte happens to be in the engine's own queue."""
        self.require_transports("tcp")
        running = self.serve(PullProducer, "tcp", limits=self._limits("life"))
        client = self.connect(running)
        assert client.is_hung_up(10 * _SHORT), "not ended"
        assert client.has_received_rst()
        assert client.receive_end().is_reset

    @pytest.mark.parametrize("cut", ["life", "abort"])
    @pytest.mark.parametrize("answer", ["large", "produced"])
    def test_cut_off_while_peer_reads_is_reset(self, answer: str, cut: str) -> None:
        """The same if the peer is reading. Bug: a FIN that overtakes the RST, by shutdown() or close() before
        SO_LINGER is set."""
        self.require_transports("tcp")
        running = self.serve(
            functools.partial(LargeReply, 8 * _SIZE) if answer == "large" else PullProducer,
            "tcp",
            options=_SMALL_BUFFERS,
            limits=self._limits(cut),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        assert client.is_readable(10)
        self._shut_down(running, cut)
        end = client.receive_end(0.001 if answer == "large" else 0.0)
        assert end.is_reset, f"EOF after {len(end.data)} more bytes of an unfinished answer"

    def test_failed_producer_is_reset(self) -> None:
        """An exception of `produce` cuts the answer off. Bug: EOF makes it look whole."""
        self.require_transports("tcp")
        running = self.serve(functools.partial(RaisingEcho, "produce", everywhere=True), "tcp")
        assert self.connect(running, may_be_reset=True).receive_end() == (b"", True)

    def test_abort_of_open_conversation_is_reset(self) -> None:
        """An aborted conversation that has not ended may owe an answer, so its peer gets RST. Bug: FIN."""
        self.require_transports("tcp")
        running = self.serve(UppercaseLines, "tcp", limits=Limits(drain=_LONG, linger=_LONG))
        client = self.connect(running)
        assert client.request(b"whole\nha", 6) == b"WHOLE\n"
        running.abort()
        end = client.receive_end()
        # An abort begins with draining, which may end the conversation first, with its last answer.
        assert end in [(b"", True), (b"HA", False)]
        assert client.has_received_rst() == end.is_reset

    # A message that is too long -------------------------------------------------------------------

    @pytest.mark.parametrize("reading", ["fast", "late"])
    def test_too_long_message_ends_after_earlier_answers(self, reading: str) -> None:
        """The answers to the messages before it are sent whole, then EOF. Bug: they are discarded."""
        self.require_transports("tcp")
        running = self.serve(message_echo, "tcp", limits=Limits(message=100, linger=_LINGER))
        client = self.connect(running)
        client.send(b"one\ntwo\n")
        assert client.is_readable(10)
        client.send(b"x" * 101 + b"\nnever\n")
        if reading == "late":
            assert not client.is_hung_up(QUIET_PERIOD), "RST after finished answers"
        assert client.receive_end() == (b"one\ntwo\n", False)
        assert not client.is_hung_up(QUIET_PERIOD), "RST after finished answers"

    def test_too_long_message_with_unsent_answers_keeps_limits(self) -> None:
        """If the peer does not read those answers, the idle timeout cuts it off. Bug: it stays open."""
        self.require_transports("tcp")
        running = self.serve(
            message_echo,
            "tcp",
            options=_SMALL_BUFFERS,
            limits=Limits(message=100, idle=_SHORT, linger=_LINGER, unsent=64 * _SIZE),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER, sndbuf=SMALL_BUFFER)
        lines = (b"y" * 99 + b"\n") * 5_000
        client.send_until_blocked(lines + b"x" * 101, timeout=_SHORT / 2)
        assert client.is_hung_up(20 * _SHORT), "not ended"
        end = client.receive_end()
        assert end.is_reset
        assert lines.startswith(end.data)

    # Other transports -----------------------------------------------------------------------------

    @pytest.mark.parametrize("cut", ["life", "idle", "abort"])
    def test_cut_off_never_adds_bytes(self, cut: str, stream_transport: str) -> None:
        """Whatever ends it, a peer receives a prefix of its answer and nothing else, and the engine reports
        the cause. A UNIX socket has no RST, so there this is all that a peer can see."""
        running = self.serve(
            functools.partial(LargeReply, 4 * _SIZE),
            stream_transport,
            options=_SMALL_BUFFERS,
            limits=self._limits(cut),
        )
        client = self.connect(running, rcvbuf=SMALL_BUFFER)
        client.send(b"go")
        data = client.receive_exactly(5_000)
        self._shut_down(running, cut)
        check_cause(running, client, _CAUSES[cut])
        end = client.receive_end()
        assert pattern(4 * _SIZE).startswith(data + end.data)
        assert len(data + end.data) < 4 * _SIZE

    # Helpers --------------------------------------------------------------------------------------

    def _limits(self, cut: str) -> Limits:
        return Limits(
            linger=_LINGER,
            drain=_SHORT,
            life=_SHORT if cut == "life" else None,
            idle=_SHORT if cut == "idle" else None,
        )

    def _shut_down(self, running: Harness, cut: str) -> None:
        if cut == "drain":
            running.drain()
        elif cut == "abort":
            running.abort()
