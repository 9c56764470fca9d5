"""The generator in Python: one thread, epoll, for every transport.

It is not the fastest: see `native.py`. What it can drive it says itself, by its processor's share.

1. Each peer is a socket with a ledger. In a closed loop an answer makes room for the next request, which is
   sent at once; in an open loop it makes the peer free for the next request that is due.
2. epoll waits in whole milliseconds, too coarse for a schedule: so select(), which takes microseconds,
   waits for the epoll descriptor itself. The kernel lets a sleeper lie 50 us longer (PR_SET_TIMERSLACK in
   prctl(2)), unless it is asked not to.
3. A connection that ends or breaks is opened again, more and more slowly while nothing is answered. When
   nobody has answered for `GONE` seconds and connections are refused, the run ends.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import ClassVar, Final

import numpy as np

from bothends.bench.generators.base import GONE, Marks, Outcome, Plan, Progress, Watch
from bothends.bench.generators.dialer import Dialer, reason_of
from bothends.bench.request_tracker import CHUNK, Ledger, Ring, Tally
from bothends.bench.schedule import Times

_SECOND: Final = 1_000_000_000
_FIRST_PAUSE: Final = 5_000_000  # nanoseconds before a broken connection is opened again; doubled each time
_LONGEST_PAUSE: Final = 500_000_000
_WATCH: Final = 200_000_000
_LONGEST_WAIT: Final = 0.05  # seconds: so often it is looked what else is due
_LONGEST_TURN: Final = 100_000_000  # ns of waiting that count: the rest is time in which we were held up
_PR_SET_TIMERSLACK: Final = 29  # linux/prctl.h


class State(Enum):
    """Of a peer."""

    CLOSED = 0
    CONNECTING = 1
    SHAKING = 2
    OPEN = 3


class Peer:
    """One connection, or the one that takes its place when it has ended."""

    __slots__ = (
        "answered",
        "descriptor",
        "due",
        "interest",
        "ledger",
        "left",
        "pause",
        "retry",
        "since",
        "sock",
        "state",
        "unsent",
    )

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.descriptor = -1
        self.ledger: Ledger
        self.state = State.CLOSED
        self.unsent: deque[bytes] = deque()
        self.interest = 0
        self.since = 0
        """When it was begun (connecting), or became free."""
        self.due = -1
        """With `reconnect`: when the request is due for which it connects."""
        self.left = 0
        """With `reconnect`: requests that are still to be sent on this connection."""
        self.answered = False
        self.pause = _FIRST_PAUSE
        self.retry = 0


class PythonGenerator:
    """See `plan.Generator`."""

    name: ClassVar[str] = "Python, epoll"

    def run(self, plan: Plan, watch: Watch | None = None, marks: Marks | None = None) -> Outcome:
        """See Generator.run."""
        run = _Run(plan, watch, marks)
        try:
            return run.run()
        finally:
            run.close()


class _Run:
    def __init__(self, plan: Plan, watch: Watch | None, marks: Marks | None) -> None:
        self.plan = plan
        self.watch = watch
        self.marks = marks
        self.dialer = Dialer(
            plan.endpoint, tls=plan.tls, timeout=max(plan.timeout, 1.0), reconnect=plan.reconnect
        )
        self.ring = Ring(plan.workload)
        self.tally = Tally()
        self.outcome = self.tally.outcome
        self.faults = self.outcome.faults
        self.epoll = select.epoll()
        self.peers = [Peer() for _ in range(plan.connections)]
        self.by_descriptor: dict[int, Peer] = {}
        self.free: deque[Peer] = deque()
        self.sleeping: list[Peer] = []  # closed, to be opened again when their time comes
        self.timeout = int(plan.timeout * _SECOND)
        longest = max(map(len, plan.workload.answers))
        self.chunk = min(CHUNK, max(2048, (2 if self.dialer.boundaries else 2 * plan.depth) * longest))
        # One read takes all that a stream has; TLS may keep a record back that epoll knows nothing of. Of
        # datagrams each is a read, and epoll tells again of those that are left.
        self.reads = 1_000_000 if self.dialer.secure else plan.depth if self.dialer.boundaries else 1
        self.each = 1 if plan.workload.name != "script" else len(plan.workload)
        self.last_answer = 0
        self.answered_before = 0
        self.last_refusal = ""
        self.last_count = 0
        self.sending = False  # requests may be sent

    # The run ---------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        plan = self.plan
        if plan.schedule is not None:
            _wake_on_time()
        if not plan.reconnect:
            self._open_all()
        begin = int(plan.begin * _SECOND) if plan.begin is not None else time.monotonic_ns()
        while (left := begin - time.monotonic_ns()) > 0:
            time.sleep(left / _SECOND)
        self.tally.start = begin + int(plan.warmup * _SECOND)
        self.tally.stop = self.tally.start + int(plan.duration * _SECOND)
        self.last_answer = begin
        self.sending = True
        due = _Due(plan, begin) if plan.schedule is not None else None
        if due is None:
            self._fill_all()
        elif plan.reconnect:
            self.free.extend(self.peers)
        else:
            self.free.extend(peer for peer in self.peers if peer.state is State.OPEN)
        self._drive(begin, due)
        self.tally.count()
        if due is not None:
            self.outcome.unsent = due.left_before(self.tally.stop)
        return self.outcome

    def close(self) -> None:
        for peer in self.peers:
            if peer.sock is not None:
                peer.sock.close()
        self.epoll.close()

    def _open_all(self) -> None:
        """Before anything is measured: all connections, or what keeps some of them from being opened."""
        for peer in self.peers:
            self._dial(peer, time.monotonic_ns())
        deadline = time.monotonic_ns() + max(self.timeout, _SECOND)
        while any(peer.state in (State.CONNECTING, State.SHAKING) for peer in self.peers):
            for descriptor, mask in self.epoll.poll(_LONGEST_WAIT):
                self._happened(self.by_descriptor[descriptor], mask)
            if time.monotonic_ns() > deadline:
                break

    def _drive(self, begin: int, due: _Due | None) -> None:
        stop, wall, measured, (cpu, starved) = self.tally.stop, 0, False, (0.0, 0.0)
        watched = swept = last = begin
        listened = 0  # since the last was sent
        sweep_each = max(self.timeout // 8, 5_000_000)
        while True:
            now = time.monotonic_ns()
            if not measured and now >= self.tally.start:
                measured, wall, (cpu, starved) = True, now, processor()
                if self.marks is not None:
                    self.marks.began()
            if self.sending and (now >= stop or self.outcome.ended):
                self.sending = False
                if measured:
                    used, waited = processor()
                    self.outcome.cpu, self.outcome.starved = used - cpu, waited - starved
                    self.outcome.wall = (now - wall) / _SECOND
                    if self.marks is not None:
                        self.marks.ended()
            if not self.sending and (self.outcome.ended or self._settled() or listened > self.timeout):
                break
            if not self.sending:
                listened += min(now - last, _LONGEST_TURN)
            last = now
            if self.sending and due is not None:
                self._send_due(due, now)
            for descriptor, mask in self._wait(due):
                if (peer := self.by_descriptor.get(descriptor)) is not None:
                    self._happened(peer, mask)
            if now - swept >= sweep_each:
                swept = now
                self._sweep(now)
            if self.sleeping:
                self._wake(now)
            if now - watched >= _WATCH:
                watched = now
                self._look(now, begin)
        for peer in self.peers:
            self._give_up(peer, time.monotonic_ns() + 1)

    def _wait(self, due: _Due | None) -> list[tuple[int, int]]:
        if due is None or not self.free or not self.sending:
            return self.epoll.poll(_LONGEST_WAIT)
        if (left := (due.next - time.monotonic_ns()) / _SECOND) > 0:
            select.select([self.epoll], [], [], min(left, _LONGEST_WAIT))
        return self.epoll.poll(0)

    def _settled(self) -> bool:
        return not any(
            peer.state is not State.CLOSED and (peer.due >= 0 or peer.ledger.open) for peer in self.peers
        )

    def _look(self, now: int, begin: int) -> None:
        answered = self.tally.answered
        if answered != self.last_count:
            self.last_count, self.last_answer, self.last_refusal = answered, now, ""
        if self.last_refusal and now - self.last_answer > GONE * _SECOND and self.sending:
            seconds = (self.last_answer - begin) / _SECOND
            self.outcome.ended = f"nobody has answered since {seconds:.1f} s: {self.last_refusal}"
        if self.watch is not None:
            plan = self.plan
            total = plan.warmup + plan.duration
            self.watch(Progress(min((now - begin) / _SECOND, total), total, answered, self.faults.total))

    # Requests --------------------------------------------------------------------------------------

    def _fill_all(self) -> None:
        now = time.monotonic_ns()
        for peer in self.peers:
            if self.plan.reconnect:
                self._dial(peer, now, due=now)
            elif peer.state is State.OPEN:
                self._ask(peer, self.plan.depth, now, now)

    def _send_due(self, due: _Due, now: int) -> None:
        while due.next <= now and self.free and due.next < self.tally.stop:
            peer = self.free.popleft()
            if self.plan.reconnect:
                self.tally.late(now - max(due.next, peer.since), due.next)
                self._dial(peer, now, due=due.next)
                due.advance()
                continue
            if peer.state is not State.OPEN:
                continue
            count = 0
            while due.next <= now and count + len(peer.ledger.open) < self.plan.depth:
                self.tally.late(now - max(due.next, peer.since), due.next)
                self._ask(peer, 1, due.next, now)
                due.advance()
                count += 1
                if self.free:  # spread them: one each while others are idle
                    break
            if len(peer.ledger.open) < self.plan.depth:
                self.free.append(peer)
            now = time.monotonic_ns()

    def _ask(self, peer: Peer, count: int, due: int, now: int) -> None:
        if not self.dialer.boundaries:
            self._write(peer, peer.ledger.send(count, due, now))
            return
        for _ in range(count):
            self._write(peer, peer.ledger.send(1, due, now))

    def _write(self, peer: Peer, data: bytes) -> None:
        if peer.unsent:
            peer.unsent.append(data)
            return
        peer.unsent.append(data)
        self._flush(peer)

    def _flush(self, peer: Peer) -> None:
        assert peer.sock is not None
        unsent = peer.unsent
        while unsent:
            try:
                sent = peer.sock.send(unsent[0])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._watch(peer, select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # unix(7): the receiver's queue is full
                    self._watch(peer, select.EPOLLIN | select.EPOLLOUT)
                    return
                if self.dialer.kind == socket.SOCK_DGRAM:
                    self._datagram_refused(error)  # of an earlier one: this one was not sent
                    unsent.popleft()
                    continue
                self._ended(peer, error)
                return
            if sent < len(unsent[0]) and not self.dialer.boundaries:
                unsent[0] = unsent[0][sent:]
            else:
                unsent.popleft()
        if peer.interest != select.EPOLLIN:
            self._watch(peer, select.EPOLLIN)

    def _freed(self, peer: Peer, count: int, now: int) -> None:
        """So many requests of a peer are no longer open."""
        if self.plan.reconnect:
            if not peer.ledger.open:
                self._next_of_conversation(peer, now)
        elif self.sending:
            if self.plan.schedule is None:
                if now < self.tally.stop:
                    self._ask(peer, count, now, now)
            elif len(peer.ledger.open) + count >= self.plan.depth:
                peer.since = now
                self.free.append(peer)

    def _next_of_conversation(self, peer: Peer, now: int) -> None:
        if peer.left > 0 and self.sending:
            peer.left -= 1
            self._ask(peer, 1, now, now)
            return
        peer.pause = _FIRST_PAUSE
        self._drop(peer)
        self._begin_again(peer, now)

    def _begin_again(self, peer: Peer, now: int) -> None:
        """With `reconnect`: the connection is over, and so is its request."""
        peer.since = now
        if not self.sending or now >= self.tally.stop:
            return
        if self.plan.schedule is None:
            self._dial(peer, now, due=now)
        else:
            self.free.append(peer)

    # Connections -----------------------------------------------------------------------------------

    def _dial(self, peer: Peer, now: int, due: int = -1) -> None:
        peer.ledger = Ledger(self.ring, self.tally, boundaries=self.dialer.boundaries)
        peer.unsent.clear()
        peer.since, peer.due, peer.answered = now, due, False
        try:
            sock, answer = self.dialer.start()
        except OSError as error:
            self._refused(peer, error)
            return
        peer.sock, peer.descriptor, peer.state = sock, sock.fileno(), State.CONNECTING
        self.by_descriptor[peer.descriptor] = peer
        peer.interest = select.EPOLLOUT
        self.epoll.register(peer.descriptor, select.EPOLLOUT)
        if answer == 0:
            self._connected(peer)
        elif answer != errno.EINPROGRESS:
            self._refused(peer, OSError(answer, ""))

    def _happened(self, peer: Peer, mask: int) -> None:
        match peer.state:
            case State.OPEN:
                if mask & select.EPOLLOUT and peer.unsent:
                    self._flush(peer)
                if mask & ~select.EPOLLOUT and peer.sock is not None:  # it may have ended in the meantime
                    self._readable(peer)
            case State.CONNECTING:
                assert peer.sock is not None
                answer = peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if answer:
                    self._refused(peer, OSError(answer, ""))
                else:
                    self._connected(peer)
            case State.SHAKING:
                self._shake(peer)
            case State.CLOSED:
                pass

    def _connected(self, peer: Peer) -> None:
        assert peer.sock is not None
        self.outcome.connections_made += 1
        try:
            peer.sock = self.dialer.connected(peer.sock)
        except OSError as error:
            self._refused(peer, error)
            return
        if self.dialer.secure:
            peer.state = State.SHAKING
            self._shake(peer)
        else:
            self._ready(peer)

    def _shake(self, peer: Peer) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        try:
            peer.sock.do_handshake()
            self.dialer.check(peer.sock)
        except ssl.SSLWantReadError:
            self._watch(peer, select.EPOLLIN)
        except ssl.SSLWantWriteError:
            self._watch(peer, select.EPOLLOUT)
        except OSError as error:
            self._refused(peer, error)
        else:
            self._ready(peer)

    def _ready(self, peer: Peer) -> None:
        peer.state = State.OPEN
        self._watch(peer, select.EPOLLIN)
        now = time.monotonic_ns()
        if peer.due >= 0:  # latency counts from before the connecting; it was begun, so it is finished
            due, peer.due, peer.left = peer.due, -1, self.each - 1
            self._write(peer, peer.ledger.send(1, due, peer.since))
        elif not self.sending:
            return
        elif self.plan.schedule is None:
            self._ask(peer, self.plan.depth, now, now)
        else:
            peer.since = now
            self.free.append(peer)

    def _readable(self, peer: Peer) -> None:
        for _ in range(self.reads):
            assert peer.sock is not None
            try:
                data = peer.sock.recv(self.chunk)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                if self.dialer.kind == socket.SOCK_DGRAM:
                    self._datagram_refused(error)
                    continue
                self._ended(peer, error)
                return
            if not data and self.dialer.kind != socket.SOCK_DGRAM:
                self._ended(peer, None)
                return
            now = time.monotonic_ns()
            count = peer.ledger.receive(data, now)
            if peer.ledger.broken:
                self._ended(peer, None)
                return
            if count:
                peer.answered, peer.pause = True, _FIRST_PAUSE
                self._freed(peer, count, now)
            if peer.state is not State.OPEN:
                return

    def _datagram_refused(self, error: OSError) -> None:
        self.faults.refused += 1
        self.last_refusal = reason_of(error)

    def _refused(self, peer: Peer, error: OSError) -> None:
        """It could not be connected, or the handshake came to nothing."""
        if error.errno == errno.ETIMEDOUT:
            self.faults.silent += 1
        else:
            self.faults.refused += 1
        self.last_refusal = reason_of(error)
        self._drop(peer)
        self._sleep(peer)

    def _ended(self, peer: Peer, error: OSError | None) -> None:
        """A connection that was open is over: reset (or worse), or closed by the server."""
        if error is not None:
            self.faults.reset += 1
            self.last_refusal = reason_of(error)
        peer.ledger.end()
        had_answered = peer.answered
        self._drop(peer)
        if self.plan.reconnect and had_answered:
            self._begin_again(peer, time.monotonic_ns())
        else:
            self._sleep(peer)

    def _sleep(self, peer: Peer) -> None:
        peer.retry = time.monotonic_ns() + peer.pause
        peer.pause = min(2 * peer.pause, _LONGEST_PAUSE)
        self.sleeping.append(peer)

    def _wake(self, now: int) -> None:
        ready = [peer for peer in self.sleeping if peer.retry <= now]
        if not ready:
            return
        self.sleeping = [peer for peer in self.sleeping if peer.retry > now]
        for peer in ready:
            if not self.sending:
                continue
            if self.plan.reconnect:
                self._begin_again(peer, now)
            else:
                self._dial(peer, now)

    def _sweep(self, now: int) -> None:
        """Whoever has waited too long."""
        for peer in self.peers:
            if peer.state is State.OPEN:
                if (count := self._give_up(peer, now - self.timeout)) == 0:
                    continue
                if self.plan.reconnect or peer.ledger.broken:
                    self._ended(peer, None)
                else:
                    self._freed(peer, count, now)
            elif peer.state is not State.CLOSED and now - peer.since > self.timeout:
                self._refused(peer, OSError(errno.ETIMEDOUT, ""))

    def _give_up(self, peer: Peer, before: int) -> int:
        """Count what was sent before then as without an answer."""
        if peer.state is not State.OPEN:
            return 0
        count = peer.ledger.overdue(before)
        if self.dialer.kind == socket.SOCK_STREAM:
            self.faults.timed_out += count
        else:
            self.faults.lost += count
        return count

    def _drop(self, peer: Peer) -> None:
        if peer.sock is not None:
            self.by_descriptor.pop(peer.descriptor, None)
            self.epoll.unregister(peer.descriptor)
            peer.sock.close()
        peer.sock, peer.state, peer.due = None, State.CLOSED, -1

    def _watch(self, peer: Peer, interest: int) -> None:
        if peer.interest != interest:
            peer.interest = interest
            self.epoll.modify(peer.descriptor, interest)


def processor() -> tuple[float, float]:
    """Seconds that this thread has had a processor, and that it has waited for one (/proc/pid/schedstat).

    The waits are 0.0 where the kernel does not count them.
    """
    try:
        with open("/proc/thread-self/schedstat") as line:
            waited = int(line.read().split()[1]) / _SECOND
    except (OSError, IndexError):
        waited = 0.0
    return time.thread_time(), waited


def _wake_on_time() -> None:
    """Ask the kernel to wake this thread when it is time, not up to 50 us later. If it won't, it won't."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


class _Due:
    """The next time of a schedule, in nanoseconds of the clock."""

    def __init__(self, plan: Plan, begin: int) -> None:
        assert plan.schedule is not None
        self._begin = begin
        self._chunks: Iterator[Times] = plan.schedule.times()
        self._times: list[int] = []
        self._at = -1
        self.next = 0
        self.advance()

    def advance(self) -> None:
        """Go on to the one after it."""
        self._at += 1
        while self._at >= len(self._times):
            self._times = (next(self._chunks) + self._begin).tolist()
            self._at = 0
        self.next = self._times[self._at]

    def left_before(self, stop: int) -> int:
        """How many there are from the next on, before `stop`."""
        count = sum(each < stop for each in self._times[self._at :])
        last = self._times[-1]
        while last < stop:
            chunk = next(self._chunks) + self._begin
            count += int(np.searchsorted(chunk, stop))
            last = int(chunk[-1]) if len(chunk) else last
        return count
