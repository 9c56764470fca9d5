"""`engines/connection_state.py`: the table of states, random lives of a connection, and its words in C."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothends.endpoints import Address, Endpoint
from bothends.engines.base import DRAIN_IDLE, EngineContext, Limits
from bothends.engines.connection_state import TRANSITIONS, Action, ConnectionState, Input, State
from bothends.engines.driver import ConversationDriver
from bothends.engines.native import NativeEngine
from bothends.events import Closed, CloseReason, Event, Sent
from bothends.services.base import Conversation, Peer, Push, Service
from bothends.sockets import Listener
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import UppercaseLines

ROOT = Path(__file__).resolve().parent.parent.parent
PEER = Peer(Address("inet", "192.0.2.1", 5000), Address("inet", "192.0.2.2", 12000), connection=7)
LISTENER = cast(Listener, None)  # unused here
LIMITS = Limits(idle=10.0, life=60.0, linger=2.0, unsent=100)


# The table --------------------------------------------------------------------------------------------


def test_every_state_but_closed_can_be_cut_off_and_lost() -> None:
    for state in State:
        for what in (Input.CUT, Input.LOST):
            assert ((state, what) in TRANSITIONS) == (state is not State.CLOSED)


def test_every_state_reaches_closed() -> None:
    reached = {State.CLOSED}
    for _ in State:
        reached |= {state for (state, _), (after, _) in TRANSITIONS.items() if after in reached}
    assert reached == set(State)


def test_socket_is_closed_exactly_when_state_is_closed() -> None:
    for (before, what), (after, action) in TRANSITIONS.items():
        closes = action in (Action.CLOSE, Action.RESET)
        assert closes == (after is State.CLOSED), (before, what)


def test_fin_is_sent_once_and_never_followed_by_reset() -> None:
    assert [key for key, (_, action) in TRANSITIONS.items() if action is Action.SHUTDOWN] == [
        (State.FLUSHING, Input.FLUSHED)
    ]
    after_fin = [action for (state, _), (_, action) in TRANSITIONS.items() if state is State.LINGERING]
    assert set(after_fin) == {Action.CLOSE}


def test_reset_is_only_for_what_is_cut_off() -> None:
    assert {what for (_, what), (_, action) in TRANSITIONS.items() if action is Action.RESET} == {Input.CUT}


def test_page_has_the_table() -> None:
    def words(value: State | Input | Action) -> str:
        return value.name.lower().replace("_", " ")

    def cell(state: State, what: Input) -> str:
        after, action = TRANSITIONS.get((state, what), (None, Action.NONE))
        then = f", `{words(action)}`" if action else ""
        return f" {words(after)}{then} " if after is not None else " "

    rows = [
        "| in state | " + " | ".join(map(words, Input)) + " |",
        "|---|" + "---|" * len(Input),
        *(
            f"| {words(state)} |" + "".join(f"{cell(state, what)}|" for what in Input)
            for state in State
            if state is not State.CLOSED
        ),
    ]
    assert "\n".join(rows) in (ROOT / "docs" / "explanation" / "design.md").read_text()


@pytest.mark.skipif(NativeEngine.unavailable_reason() is not None, reason="the C core is not built")
def test_bind_rejects_a_state_that_c_does_not_know() -> None:
    from bothends.engines import _native

    table = {(State.OPEN, Input.LOST): (cast(State, len(State)), Action.CLOSE)}
    with pytest.raises(ValueError, match="unknown state"):
        _native.bind(Address, Peer, Conversation, table)


@pytest.mark.parametrize(
    ("words", "prefix"),
    [(State, "STATE"), (Input, "INPUT"), (Action, "ACTION")],
    ids=["states", "inputs", "actions"],
)
def test_numbers_in_c_are_the_same(words: type[State] | type[Input] | type[Action], prefix: str) -> None:
    header = (ROOT / "native" / "connection_state.h").read_text()
    in_c = [name for name in re.findall(rf"\b{prefix}_(\w+)", header) if name != "COUNT"]
    assert in_c == [each.name for each in words]


RANDOM_SEQUENCES = 25


@pytest.mark.skipif(NativeEngine.unavailable_reason() is not None, reason="the C core is not built")
@pytest.mark.parametrize("backend", ["epoll", "io_uring"])
def test_core_in_c_ends_connections_alike(backend: str) -> None:
    """The same random sequences of a peer's steps against both cores: the peer's socket shows the same."""
    from bothends.engines.native import choose_backend

    if choose_backend(backend)[0] is None:
        pytest.skip(choose_backend(backend)[1])
    engine = f"tests.engines.silent_engines:Silent{'Epoll' if backend == 'epoll' else 'Uring'}Engine"
    rng = random.Random(15)
    limits = Limits(idle=1.0, linger=0.15, message=100, unsent=20_000)
    small = "?sndbuf=4096&rcvbuf=4096"
    with (
        Harness("epoll", UppercaseLines, [f"tcp://127.0.0.1:0{small}"], limits) as python,
        Harness(engine, UppercaseLines, [f"tcp://127.0.0.1:0{small}"], limits) as native,
    ):
        lives = [[rng.choice(PEER_STEPS) for _ in range(rng.randint(1, 6))] for _ in range(RANDOM_SEQUENCES)]
        with ThreadPoolExecutor(2 * RANDOM_SEQUENCES) as threads:
            ends = [
                list(threads.map(functools.partial(life_of_peer, each.endpoints[0]), lives))
                for each in (python, native)
            ]
    assert ends[0] == ends[1]
    assert len(set(ends[0])) > RANDOM_SEQUENCES / 4


PEER_STEPS = [
    b"one\n",
    b"a longer line\n",
    b"half",
    b"!\n",
    b"x" * 40 + b"\n",
    b"EOF",
    b"read",
    b"wait",
    b"large",
]


def life_of_peer(endpoint: Endpoint, steps: list[bytes]) -> tuple[bytes, bool, bool]:
    """Take these steps as a client. Returns what it received, whether by ECONNRESET, and the FIN's fate."""
    with Client(endpoint, rcvbuf=4096, sndbuf=4096) as client:
        received = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for step in steps:
                if step == b"EOF":
                    client.shutdown_write()
                    break
                if step == b"read":
                    received += client.socket.recv(100_000) if client.is_readable(0.05) else b""
                elif step == b"wait":
                    client.is_hung_up(0.05)
                elif step == b"large":
                    client.send((b"y" * 99 + b"\n") * 100)
                else:
                    client.send(step)
        end = client.receive_end()
        return received + end.data, end.is_reset, client.has_received_rst()


# Random lives -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Script:
    """What the conversation does: decided by the test, so that every combination occurs."""

    answer: int = 1
    done_after: int | None = None
    raise_after: int | None = None
    pieces: int | None = None
    last_answer: int = 0
    ends_producer: bool = True


class ScriptedConversation(Conversation):
    """Answers each chunk with `answer` bytes; ends after some chunks; produces some pieces if it pulls."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.chunks = 0
        self.pieces = script.pieces or 0
        self.ended = 0
        self.closed_count = 0
        self.returned = 0

    @property
    def wants_pull(self) -> bool:
        return self.script.pieces is not None

    def _return(self, size: int) -> bytes:
        self.returned += size
        return bytes(size)

    def receive(self, data: bytes) -> bytes:
        assert not self.done
        assert not self.ended
        self.chunks += 1
        if self.chunks == self.script.raise_after:
            raise RuntimeError("scripted")
        self.done = self.chunks == self.script.done_after
        return self._return(self.script.answer)

    def end(self) -> bytes:
        assert not self.done
        self.ended += 1
        self.done = self.wants_pull and self.script.ends_producer
        return self._return(self.script.last_answer)

    def produce(self) -> bytes:
        assert not self.done
        if not self.pieces:
            return b""
        self.pieces -= 1
        return self._return(20)

    def closed(self) -> None:
        self.closed_count += 1


class OnlyService(Service):
    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def open(self, peer: Peer, push: Push) -> Conversation:
        return self.conversation


class Socket:
    """A model of a socket and its adapter: what the core is told, and what it makes the adapter do."""

    def __init__(self, script: Script, limits: Limits = LIMITS) -> None:
        self.now = 1000.0
        self.events: list[Event] = []
        self.conversation = ScriptedConversation(script)
        context = EngineContext(
            OnlyService(self.conversation),
            [],
            stop=None,  # type: ignore[arg-type]
            limits=limits,
            observe=self.events.append,
        )
        self.driver = ConversationDriver(context, LISTENER, PEER)
        self.core = ConnectionState(self.driver, limits, self.now)
        self.unsent = self.sent = 0
        self.fin_sent = False
        self.end: Action | None = None
        self.peer_eof = False
        self.last_check = 0.0
        self.write(self.driver.start())

    @property
    def is_open(self) -> bool:
        return self.end is None

    def write(self, data: bytes) -> None:
        if data:
            assert not self.fin_sent, "data after FIN"
            self.unsent += len(data)
            self.core.last_sent = self.now
        self.settle()

    def settle(self) -> None:
        if self.driver.wants_pull and not self.unsent and (data := self.core.produce()):
            assert not self.fin_sent, "data after FIN"
            self.unsent += len(data)
        owes = self.unsent > 0 or not self.driver.finished or self.driver.truncated
        action = self.core.settle(self.now, self.unsent)
        if action is Action.SHUTDOWN:
            assert not self.fin_sent
            assert not self.unsent, "FIN before the last byte"
            assert self.sent == self.conversation.returned, "an answer was lost"
            self.fin_sent = True
        elif action is not Action.NONE:
            if action is Action.RESET:
                assert owes, "RST after a finished answer"
                assert not self.fin_sent, "RST after FIN"
            self.end = action
            self.core.closed()

    # Steps of a life ----------------------------------------------------------------------------

    def receive(self) -> None:
        if self.core.wants_read and not self.peer_eof:
            self.write(self.core.receive(b"x", self.now))

    def receive_eof(self) -> None:
        if self.core.wants_read and not self.peer_eof:
            self.peer_eof = True
            self.write(self.core.receive_eof(self.now))

    def send(self, size: int) -> None:
        count = min(size, self.unsent)
        if count:
            self.unsent -= count
            self.sent += count
            self.core.last_sent = self.now
            self.driver.bytes_sent(bytes(count))
            self.settle()

    def wait(self, seconds: float) -> None:
        """Let time pass as a timer wheel does: `expire` is called at each deadline."""
        until = self.now + seconds
        while self.is_open:
            deadline = self.core.next_deadline(self.now)
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.write(self.core.expire(self.now, self.unsent))
        self.now = until

    def drain(self) -> None:
        self.write(self.core.drain(self.last_check, self.unsent))
        self.last_check = self.now

    def abort(self) -> None:
        self.core.abort(CloseReason.ABORTED)
        self.settle()

    def lose(self) -> None:
        self.core.lose(CloseReason.RESET)
        self.settle()


def state_of(socket: Socket) -> State:
    return socket.core.state


SCRIPTS = st.builds(
    Script,
    answer=st.sampled_from([0, 1, 30, 150]),
    done_after=st.none() | st.integers(1, 4),
    raise_after=st.none() | st.integers(1, 4),
    pieces=st.none() | st.integers(0, 6),
    last_answer=st.sampled_from([0, 1, 150]),
    ends_producer=st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        st.just(("receive",)),
        st.just(("receive",)),
        st.just(("receive_eof",)),
        st.tuples(st.just("send"), st.sampled_from([1, 20, 1000])),
        st.tuples(st.just("wait"), st.sampled_from([0.05, DRAIN_IDLE, 1.0, 5.0, 30.0])),
        st.just(("drain",)),
        st.just(("abort",)),
        st.just(("lose",)),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(SCRIPTS, STEPS)
def test_random_life_keeps_invariants(script: Script, steps: list[tuple[str, float]]) -> None:
    socket = Socket(script)
    for name, *arguments in steps:
        if not socket.is_open:
            break
        getattr(socket, name)(*arguments)
        if socket.core.state is State.OPEN:
            assert not (socket.core.wants_read and socket.unsent > LIMITS.unsent), "no backpressure"
    # Whatever has happened, a peer that does nothing more is rid of after the limits.
    idle, linger = LIMITS.idle or 0.0, LIMITS.linger
    socket.wait(idle + 2 * linger)
    assert not socket.is_open, f"still {socket.core.state.name}"
    assert socket.conversation.closed_count == 1
    assert socket.conversation.ended <= 1
    closed = [each for each in socket.events if isinstance(each, Closed)]
    assert len(closed) == 1
    assert (
        closed[0].sent
        == socket.sent
        == sum(len(each.data) for each in socket.events if isinstance(each, Sent))
    )


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_reading_resumes_at_half_the_high_water_mark(amounts: list[int]) -> None:
    core = Socket(Script()).core
    paused = False
    for unsent in amounts:
        core.settle(1000.0, unsent)
        paused = unsent > LIMITS.unsent or (paused and unsent > LIMITS.unsent // 2)
        assert core.wants_read is not paused


def test_lingering_ends_at_its_timeout() -> None:
    socket = Socket(Script(done_after=1))
    socket.receive()
    socket.send(1)
    assert socket.core.state is State.LINGERING
    socket.wait(LIMITS.linger - 0.01)
    assert socket.is_open
    socket.wait(0.02)
    assert socket.end is Action.CLOSE


def test_last_answer_at_a_limit_gets_the_linger_timeout() -> None:
    socket = Socket(Script(last_answer=5))
    socket.wait(10.0)
    assert socket.core.state is State.FLUSHING
    socket.wait(LIMITS.linger - 0.01)
    assert socket.is_open
    socket.wait(0.02)
    assert socket.end is Action.RESET
    assert socket.driver.cause is CloseReason.IDLE


def test_drain_does_not_wait_for_silent_peer_after_fin() -> None:
    socket = Socket(Script(done_after=1))
    socket.receive()
    socket.send(1)
    socket.drain()
    assert socket.is_open
    socket.wait(2 * DRAIN_IDLE)
    socket.drain()
    socket.drain()
    assert socket.end is Action.CLOSE


def test_drain_lets_producer_finish() -> None:
    socket = Socket(Script(pieces=3, ends_producer=False))
    socket.last_check = socket.now + 1
    socket.drain()
    assert socket.core.state is State.STOPPED
    while not socket.fin_sent:
        socket.send(20)
    assert socket.sent == 60


def test_failed_producer_is_cut_off() -> None:
    class Failing(ScriptedConversation):
        def produce(self) -> bytes:
            if self.pieces == 1:
                raise RuntimeError("scripted")
            return super().produce()

    socket = Socket(Script(pieces=2))
    socket.conversation.__class__ = Failing
    socket.send(20)
    assert socket.end is Action.RESET
    assert socket.driver.cause is CloseReason.FAILED


def test_producer_with_empty_queue_is_cut_off_by_a_limit() -> None:
    socket = Socket(Script(pieces=3))
    assert socket.core.expire(socket.now + 60.0, 0) == b""
    assert socket.core.settle(socket.now + 60.0, 0) is Action.RESET


def test_drain_ends_idle_conversation_only() -> None:
    socket = Socket(Script())
    socket.receive()
    socket.send(1)
    socket.last_check = socket.now + DRAIN_IDLE / 2
    socket.drain()
    assert state_of(socket) is State.OPEN
    socket.wait(2 * DRAIN_IDLE)
    socket.last_check = socket.now
    socket.drain()
    assert state_of(socket) is State.LINGERING
    assert socket.driver.cause is CloseReason.DRAINED


def test_drain_waits_for_unsent_answer() -> None:
    socket = Socket(Script(answer=150))
    socket.receive()
    socket.last_check = socket.now + 1
    socket.drain()
    assert state_of(socket) is State.OPEN


def test_input_after_the_last_answer_is_discarded() -> None:
    socket = Socket(Script(answer=150, done_after=1))
    socket.receive()
    assert state_of(socket) is State.FLUSHING
    assert socket.core.wants_read
    socket.receive()
    assert (socket.conversation.chunks, socket.unsent) == (1, 150)
    socket.receive_eof()
    assert state_of(socket) is State.CLOSING
    assert not socket.core.wants_read


def test_rate_limit_pauses_reading_until_its_deadline() -> None:
    socket = Socket(Script(), Limits(rate=1, idle=100.0))
    socket.receive()
    socket.receive()
    until = socket.driver.paused_until
    assert until is not None
    assert not socket.core.wants_read
    assert socket.core.next_deadline(socket.now) == until
    socket.wait(until - socket.now + 0.01)
    assert socket.core.wants_read


class Handshake(Conversation):
    """Takes its first chunk as its handshake."""

    def __init__(self) -> None:
        self.handshaking = True

    def receive(self, data: bytes) -> bytes:
        self.handshaking = False
        return b""


def core_with_limits(conversation: Conversation, **values: float) -> ConnectionState:
    """Return the state of a connection that was established at 10.0, and last active at 12.0."""
    limits = Limits(**values)  # type: ignore[arg-type]
    context = EngineContext(OnlyService(conversation), [], stop=None, limits=limits)  # type: ignore[arg-type]
    core = ConnectionState(ConversationDriver(context, LISTENER, PEER), limits, now=10.0)
    core.last_sent = 12.0
    return core


def test_deadline_is_that_of_the_first_limit() -> None:
    core = core_with_limits(Handshake(), handshake=5, idle=1, life=100)
    assert core.deadline() == (15, CloseReason.HANDSHAKE)
    assert core.next_deadline(12.0) == 13  # the handshake may be complete by then
    core.receive(b"hi", 12.0)
    assert core.deadline() == (13, CloseReason.IDLE)
    core.last_sent = 109.5
    assert core.deadline() == (110, CloseReason.LIFE)


def test_deadline_without_limits_is_none() -> None:
    core = core_with_limits(ScriptedConversation(Script()))
    assert core.deadline() is None
    assert core.next_deadline(12.0) is None
