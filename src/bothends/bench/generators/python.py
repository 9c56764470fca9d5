"""The generator in Python: one thread, epoll, for every transport.

`native.py` is faster. The outcome includes this generator's CPU share, which shows whether it was the
bottleneck.

1. Each peer is a socket with a `RequestTracker`. In a closed loop a response triggers the next request at
   once; in an open loop it makes the peer idle, for the next request that is due.
2. epoll_wait(2) takes whole milliseconds, too coarse for a schedule. So select(2), which takes microseconds,
   waits for the epoll descriptor itself. By default the kernel may wake a sleeping thread up to 50 us late
   (PR_SET_TIMERSLACK in prctl(2)); the slack is set to 1 ns.
3. A closed or failed connection is opened again, with exponential backoff while there is no response. After
   `UNRESPONSIVE_AFTER` seconds without a response, while connections fail, the run ends.
"""

from __future__ import annotations

import contextlib
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

from bothends.bench.generators.base import (
    UNRESPONSIVE_AFTER,
    MeasurementHooks,
    Progress,
    ProgressCallback,
    RunOutcome,
    RunPlan,
)
from bothends.bench.generators.dialer import BenchDialer, error_name
from bothends.bench.http_tracker import HttpTracker
from bothends.bench.request_tracker import MAX_READ, RequestTracker, RunCounters, WorkloadBuffer
from bothends.bench.schedule import Times

_SECOND: Final = 1_000_000_000
_MIN_BACKOFF: Final = 5_000_000  # nanoseconds before a failed connection is opened again; doubled each time
_MAX_BACKOFF: Final = 500_000_000
_PROGRESS_INTERVAL: Final = 200_000_000
_MAX_WAIT: Final = 0.05  # seconds: maximum interval between checks of timeouts and progress
_MAX_TURN: Final = 100_000_000  # ns per iteration that count as waiting: beyond it the generator was held up
_PR_SET_TIMERSLACK: Final = 29  # linux/prctl.h


class PeerState(Enum):
    """State of a peer's connection."""

    CLOSED = 0
    CONNECTING = 1
    HANDSHAKING = 2
    OPEN = 3


class PeerConnection:
    """One of the plan's connections, reopened when it ends."""

    __slots__ = (
        "backoff",
        "descriptor",
        "due",
        "has_response",
        "idle_since",
        "interest",
        "remaining",
        "retry_at",
        "sock",
        "state",
        "tracker",
        "write_queue",
    )

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.descriptor = -1
        self.tracker: RequestTracker | HttpTracker
        self.state = PeerState.CLOSED
        self.write_queue: deque[bytes] = deque()
        self.interest = 0
        self.idle_since = 0
        """When the connect started, or the peer became idle, in nanoseconds."""
        self.due = -1
        """With `reconnect`: due time of the request that the connection is opened for; -1: none."""
        self.remaining = 0
        """With `reconnect`: requests left to send on this connection."""
        self.has_response = False
        self.backoff = _MIN_BACKOFF
        self.retry_at = 0


class PythonGenerator:
    """Implements `base.Generator`."""

    name: ClassVar[str] = "Python, epoll"

    def run(
        self,
        plan: RunPlan,
        on_progress: ProgressCallback | None = None,
        hooks: MeasurementHooks | None = None,
    ) -> RunOutcome:
        """Run a plan; see `Generator.run`."""
        run = _Run(plan, on_progress, hooks)
        try:
            return run.run()
        finally:
            run.close()


class _Run:
    def __init__(
        self, plan: RunPlan, on_progress: ProgressCallback | None, hooks: MeasurementHooks | None
    ) -> None:
        self.plan = plan
        self.on_progress = on_progress
        self.hooks = hooks
        self.dialer = BenchDialer(
            plan.endpoint,
            tls=plan.tls,
            timeout=max(plan.timeout, 1.0),
            reconnect=plan.reconnect or plan.http is not None,
        )
        self.buffer = WorkloadBuffer(plan.workload)
        self.counters = RunCounters()
        self.counters.is_open = plan.schedule is not None
        self.outcome = self.counters.outcome
        self.faults = self.outcome.faults
        self.epoll = select.epoll()
        self.peers = [PeerConnection() for _ in range(plan.connections)]
        self.by_descriptor: dict[int, PeerConnection] = {}
        self.idle_peers: deque[PeerConnection] = deque()
        self.reconnecting: list[PeerConnection] = []  # closed, to be reopened at their `retry_at`
        self.timeout = int(plan.timeout * _SECOND)
        longest = max(map(len, plan.workload.responses))
        self.read_size = min(
            MAX_READ, max(2048, (2 if self.dialer.message_oriented else 2 * plan.depth) * longest)
        )
        if plan.http is not None:
            self.read_size = MAX_READ
        # One read drains a stream. TLS may buffer a record that epoll does not know of, so it is read until
        # it would block. Each datagram takes a read; epoll reports the remaining ones again.
        self.reads_per_event = (
            1_000_000 if self.dialer.is_tls else plan.depth if self.dialer.message_oriented else 1
        )
        self.requests_per_connection = 1 if plan.workload.name != "script" else len(plan.workload)
        self.last_response_at = 0
        self.answered_before = 0
        self.last_error = ""
        self.last_response_count = 0
        self.sending = False  # requests may be sent

    # The run ---------------------------------------------------------------------------------------

    def run(self) -> RunOutcome:
        plan = self.plan
        if plan.schedule is not None:
            _set_timer_slack()
        if not plan.reconnect:
            self._connect_all()
        begin = int(plan.begin * _SECOND) if plan.begin is not None else time.monotonic_ns()
        while (remaining := begin - time.monotonic_ns()) > 0:
            time.sleep(remaining / _SECOND)
        self.counters.start = begin + int(plan.warmup * _SECOND)
        self.counters.stop = self.counters.start + int(plan.duration * _SECOND)
        self.last_response_at = begin
        self.sending = True
        due = _DueTimes(plan, begin) if plan.schedule is not None else None
        if due is None:
            self._send_first_requests()
        elif plan.reconnect:
            self.idle_peers.extend(self.peers)
        else:
            self.idle_peers.extend(peer for peer in self.peers if peer.state is PeerState.OPEN)
        self._run_loop(begin, due)
        self.counters.flush()
        if due is not None:
            self.outcome.unsent = due.count_before(self.counters.stop)
        return self.outcome

    def close(self) -> None:
        for peer in self.peers:
            if peer.sock is not None:
                _send_close_notify(peer)
                peer.sock.close()
        self.epoll.close()

    def _connect_all(self) -> None:
        """Open all connections before the measurement starts, or wait until each of them has failed."""
        for peer in self.peers:
            self._connect(peer, time.monotonic_ns())
        deadline = time.monotonic_ns() + max(self.timeout, _SECOND)
        while any(peer.state in (PeerState.CONNECTING, PeerState.HANDSHAKING) for peer in self.peers):
            for descriptor, mask in self.epoll.poll(_MAX_WAIT):
                self._on_event(self.by_descriptor[descriptor], mask)
            if time.monotonic_ns() > deadline:
                break

    def _run_loop(self, begin: int, due: _DueTimes | None) -> None:
        stop, wall, measured, (cpu, starved) = self.counters.stop, 0, False, (0.0, 0.0)
        reported = swept = last = begin
        waited_for_last = 0  # nanoseconds since the last send
        sweep_interval = max(self.timeout // 8, 5_000_000)
        while True:
            now = time.monotonic_ns()
            if not measured and now >= self.counters.start:
                measured, wall, (cpu, starved) = True, now, thread_cpu_times()
                if self.hooks is not None:
                    self.hooks.measurement_started()
            if self.sending and (now >= stop or self.outcome.ended):
                self.sending = False
                if measured:
                    used, waited = thread_cpu_times()
                    self.outcome.cpu, self.outcome.run_queue_wait = used - cpu, waited - starved
                    self.outcome.wall = (now - wall) / _SECOND
                    if self.hooks is not None:
                        self.hooks.measurement_ended()
            timed_out = waited_for_last > self.timeout
            if not self.sending and (self.outcome.ended or self._is_drained() or timed_out):
                break
            if not self.sending:
                waited_for_last += min(now - last, _MAX_TURN)
            last = now
            if self.sending and due is not None:
                self._send_due(due, now)
            for descriptor, mask in self._poll(due):
                if (peer := self.by_descriptor.get(descriptor)) is not None:
                    self._on_event(peer, mask)
            if now - swept >= sweep_interval:
                swept = now
                self._check_timeouts(now)
            if self.reconnecting:
                self._reconnect_due(now)
            if now - reported >= _PROGRESS_INTERVAL:
                reported = now
                self._report_progress(now, begin)
        for peer in self.peers:
            self._expire(peer, time.monotonic_ns() + 1)

    def _poll(self, due: _DueTimes | None) -> list[tuple[int, int]]:
        if due is None or not self.idle_peers or not self.sending:
            return self.epoll.poll(_MAX_WAIT)
        if (remaining := (due.next - time.monotonic_ns()) / _SECOND) > 0:
            select.select([self.epoll], [], [], min(remaining, _MAX_WAIT))
        return self.epoll.poll(0)

    def _is_drained(self) -> bool:
        return not any(
            peer.state is not PeerState.CLOSED and (peer.due >= 0 or peer.tracker.pending)
            for peer in self.peers
        )

    def _report_progress(self, now: int, begin: int) -> None:
        answered = self.counters.response_count
        if answered != self.last_response_count:
            self.last_response_count, self.last_response_at, self.last_error = answered, now, ""
        if self.last_error and now - self.last_response_at > UNRESPONSIVE_AFTER * _SECOND and self.sending:
            seconds = (self.last_response_at - begin) / _SECOND
            self.outcome.ended = f"no response since {seconds:.1f} s: {self.last_error}"
        if self.on_progress is not None:
            plan = self.plan
            total = plan.warmup + plan.duration
            self.on_progress(
                Progress(min((now - begin) / _SECOND, total), total, answered, self.faults.total)
            )

    # Requests --------------------------------------------------------------------------------------

    def _send_first_requests(self) -> None:
        now = time.monotonic_ns()
        for peer in self.peers:
            if self.plan.reconnect:
                self._connect(peer, now, due=now)
            elif peer.state is PeerState.OPEN:
                self._send_requests(peer, self.plan.depth, now, now)

    def _send_due(self, due: _DueTimes, now: int) -> None:
        while due.next <= now and self.idle_peers and due.next < self.counters.stop:
            peer = self.idle_peers.popleft()
            if self.plan.reconnect:
                self.counters.record_lateness(now - max(due.next, peer.idle_since), due.next)
                self._connect(peer, now, due=due.next)
                due.advance()
                continue
            if peer.state is not PeerState.OPEN:
                continue
            count = 0
            while due.next <= now and count + len(peer.tracker.pending) < self.plan.depth:
                self.counters.record_lateness(now - max(due.next, peer.idle_since), due.next)
                self._send_requests(peer, 1, due.next, now)
                due.advance()
                count += 1
                if self.idle_peers:  # spread the load: one request each while other peers are idle
                    break
            if len(peer.tracker.pending) < self.plan.depth:
                self.idle_peers.append(peer)
            now = time.monotonic_ns()

    def _send_requests(self, peer: PeerConnection, count: int, due: int, now: int) -> None:
        if not self.dialer.message_oriented:
            self._write(peer, peer.tracker.send(count, due, now))
            return
        for _ in range(count):
            self._write(peer, peer.tracker.send(1, due, now))

    def _write(self, peer: PeerConnection, data: bytes) -> None:
        if peer.write_queue:
            peer.write_queue.append(data)
            return
        peer.write_queue.append(data)
        self._flush(peer)

    def _flush(self, peer: PeerConnection) -> None:
        assert peer.sock is not None
        unsent = peer.write_queue
        while unsent:
            try:
                sent = peer.sock.send(unsent[0])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._set_interest(peer, select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # the receiver's queue is full (unix(7))
                    self._set_interest(peer, select.EPOLLIN | select.EPOLLOUT)
                    return
                if self.dialer.kind == socket.SOCK_DGRAM:
                    self._on_datagram_error(error)  # reported for an earlier datagram; this one was not sent
                    unsent.popleft()
                    continue
                self._on_closed(peer, error)
                return
            if sent < len(unsent[0]) and not self.dialer.message_oriented:
                unsent[0] = unsent[0][sent:]
            else:
                unsent.popleft()
        if peer.interest != select.EPOLLIN:
            self._set_interest(peer, select.EPOLLIN)

    def _on_slots_freed(self, peer: PeerConnection, count: int, now: int) -> None:
        """Send the next requests after `count` of a peer's requests are no longer pending."""
        if self.plan.reconnect:
            if not peer.tracker.pending:
                self._continue_script(peer, now)
        elif self.sending:
            if self.plan.schedule is None:
                if now < self.counters.stop:
                    self._send_requests(peer, count, now, now)
            elif len(peer.tracker.pending) + count >= self.plan.depth:
                peer.idle_since = now
                self.idle_peers.append(peer)

    def _continue_script(self, peer: PeerConnection, now: int) -> None:
        if peer.remaining > 0 and self.sending:
            peer.remaining -= 1
            self._send_requests(peer, 1, now, now)
            return
        peer.backoff = _MIN_BACKOFF
        _send_close_notify(peer)
        self._close_peer(peer)
        self._restart_conversation(peer, now)

    def _restart_conversation(self, peer: PeerConnection, now: int) -> None:
        """With `reconnect`: open the next connection after one has ended."""
        peer.idle_since = now
        if not self.sending or now >= self.counters.stop:
            return
        if self.plan.schedule is None:
            self._connect(peer, now, due=now)
        else:
            self.idle_peers.append(peer)

    # Connections -----------------------------------------------------------------------------------

    def _connect(self, peer: PeerConnection, now: int, due: int = -1) -> None:
        if self.plan.http is not None:
            peer.tracker = HttpTracker(self.plan.http, self.plan.workload.requests[0], self.counters)
        else:
            peer.tracker = RequestTracker(
                self.buffer, self.counters, message_oriented=self.dialer.message_oriented
            )
        peer.write_queue.clear()
        peer.idle_since, peer.due, peer.has_response = now, due, False
        try:
            sock, status = self.dialer.start_connect()
        except OSError as error:
            self._on_connect_failed(peer, error)
            return
        peer.sock, peer.descriptor, peer.state = sock, sock.fileno(), PeerState.CONNECTING
        self.by_descriptor[peer.descriptor] = peer
        peer.interest = select.EPOLLOUT
        self.epoll.register(peer.descriptor, select.EPOLLOUT)
        if status == 0:
            self._on_connected(peer)
        elif status != errno.EINPROGRESS:
            self._on_connect_failed(peer, OSError(status, ""))

    def _on_event(self, peer: PeerConnection, mask: int) -> None:
        match peer.state:
            case PeerState.OPEN:
                if mask & select.EPOLLOUT and peer.write_queue:
                    self._flush(peer)
                if mask & ~select.EPOLLOUT and peer.sock is not None:  # the flush may have closed it
                    self._on_readable(peer)
            case PeerState.CONNECTING:
                assert peer.sock is not None
                status = peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if status:
                    self._on_connect_failed(peer, OSError(status, ""))
                else:
                    self._on_connected(peer)
            case PeerState.HANDSHAKING:
                self._handshake(peer)
            case PeerState.CLOSED:
                pass

    def _on_connected(self, peer: PeerConnection) -> None:
        assert peer.sock is not None
        self.outcome.connections_made += 1
        try:
            peer.sock = self.dialer.on_connected(peer.sock)
        except OSError as error:
            self._on_connect_failed(peer, error)
            return
        if self.dialer.is_tls:
            peer.state = PeerState.HANDSHAKING
            self._handshake(peer)
        else:
            self._on_open(peer)

    def _handshake(self, peer: PeerConnection) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        try:
            peer.sock.do_handshake()
            self.dialer.check_certificate(peer.sock)
        except ssl.SSLWantReadError:
            self._set_interest(peer, select.EPOLLIN)
        except ssl.SSLWantWriteError:
            self._set_interest(peer, select.EPOLLOUT)
        except OSError as error:
            self._on_connect_failed(peer, error)
        else:
            self._on_open(peer)

    def _on_open(self, peer: PeerConnection) -> None:
        peer.state = PeerState.OPEN
        self._set_interest(peer, select.EPOLLIN)
        now = time.monotonic_ns()
        if peer.due >= 0:  # latency includes the connect, so the request is sent even after the measured time
            due, peer.due, peer.remaining = peer.due, -1, self.requests_per_connection - 1
            self._write(peer, peer.tracker.send(1, due, peer.idle_since, now))
            if not self.plan.reconnect and self.plan.depth > 1 and self.sending and peer.sock is not None:
                self._send_requests(peer, self.plan.depth - 1, now, now)
        elif not self.sending:
            return
        elif self.plan.schedule is None:
            self._send_requests(peer, self.plan.depth, now, now)
        else:
            peer.idle_since = now
            self.idle_peers.append(peer)

    def _on_readable(self, peer: PeerConnection) -> None:
        for _ in range(self.reads_per_event):
            assert peer.sock is not None
            try:
                data = peer.sock.recv(self.read_size)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                if self.dialer.kind == socket.SOCK_DGRAM:
                    self._on_datagram_error(error)
                    continue
                self._on_closed(peer, error)
                return
            now = time.monotonic_ns()
            count = 0
            is_eof = not data and self.dialer.kind != socket.SOCK_DGRAM
            if is_eof:
                peer.tracker.receive_eof(now)
            else:
                count = peer.tracker.receive(data, now)
            if peer.tracker.closing:
                self._on_closed_by_response(peer, now)
                return
            if is_eof or peer.tracker.desynced:
                self._on_closed(peer, None)
                return
            if count:
                peer.has_response, peer.backoff = True, _MIN_BACKOFF
                self._on_slots_freed(peer, count, now)
            if peer.state is not PeerState.OPEN:
                return

    def _on_datagram_error(self, error: OSError) -> None:
        self.faults.refused += 1
        self.last_error = error_name(error)

    def _on_connect_failed(self, peer: PeerConnection, error: OSError) -> None:
        """Handle a failed connect or handshake."""
        if error.errno == errno.ETIMEDOUT:
            self.faults.silent += 1
        elif error.errno == errno.EADDRNOTAVAIL:
            self.faults.out_of_ports += 1
        else:
            self.faults.refused += 1
        self.last_error = error_name(error)
        self._close_peer(peer)
        self._schedule_reconnect(peer)

    def _on_closed(self, peer: PeerConnection, error: OSError | None) -> None:
        """Handle the end of an open connection: an error, or closed by the server if `error` is None."""
        if error is not None:
            self.faults.reset += 1
            self.last_error = error_name(error)
        peer.tracker.connection_closed()
        had_response = peer.has_response
        self._close_peer(peer)
        if self.plan.reconnect and had_response:
            self._restart_conversation(peer, time.monotonic_ns())
        else:
            self._schedule_reconnect(peer)

    def _on_closed_by_response(self, peer: PeerConnection, now: int) -> None:
        """Open the next connection after a response that closes this one.

        Pipelined requests behind it are not answered (RFC 9112, section 9.3.2): a closed loop sends others.
        """
        is_open = self.plan.schedule is not None
        if is_open:
            self.faults.lost += len(peer.tracker.pending)
        peer.tracker.pending.clear()
        peer.backoff = _MIN_BACKOFF
        self._close_peer(peer)
        if self.plan.reconnect:
            self._restart_conversation(peer, now)
        elif self.sending and now < self.counters.stop:
            self._connect(peer, now, due=-1 if is_open else now)

    def _schedule_reconnect(self, peer: PeerConnection) -> None:
        peer.retry_at = time.monotonic_ns() + peer.backoff
        peer.backoff = min(2 * peer.backoff, _MAX_BACKOFF)
        self.reconnecting.append(peer)

    def _reconnect_due(self, now: int) -> None:
        ready = [peer for peer in self.reconnecting if peer.retry_at <= now]
        if not ready:
            return
        self.reconnecting = [peer for peer in self.reconnecting if peer.retry_at > now]
        for peer in ready:
            if not self.sending:
                continue
            if self.plan.reconnect:
                self._restart_conversation(peer, now)
            else:
                self._connect(peer, now)

    def _check_timeouts(self, now: int) -> None:
        """Handle requests, connects and handshakes that exceed the timeout."""
        for peer in self.peers:
            if peer.state is PeerState.OPEN:
                if (count := self._expire(peer, now - self.timeout)) == 0:
                    continue
                if self.plan.reconnect or peer.tracker.desynced:
                    self._on_closed(peer, None)
                else:
                    self._on_slots_freed(peer, count, now)
            elif peer.state is not PeerState.CLOSED and now - peer.idle_since > self.timeout:
                self._on_connect_failed(peer, OSError(errno.ETIMEDOUT, ""))

    def _expire(self, peer: PeerConnection, before: int) -> int:
        """Give up requests sent before a time, and count them as faults. Returns their number."""
        if peer.state is not PeerState.OPEN:
            return 0
        count = peer.tracker.expire(before)
        if self.dialer.kind == socket.SOCK_STREAM:
            self.faults.timed_out += count
        else:
            self.faults.lost += count
        return count

    def _close_peer(self, peer: PeerConnection) -> None:
        if peer.sock is not None:
            self.by_descriptor.pop(peer.descriptor, None)
            self.epoll.unregister(peer.descriptor)
            peer.sock.close()
        peer.sock, peer.state, peer.due = None, PeerState.CLOSED, -1

    def _set_interest(self, peer: PeerConnection, interest: int) -> None:
        if peer.interest != interest:
            peer.interest = interest
            self.epoll.modify(peer.descriptor, interest)


def _send_close_notify(peer: PeerConnection) -> None:
    """Before an open connection is closed: tell a TLS peer that has not closed it (RFC 8446, section 6.1)."""
    if peer.state is PeerState.OPEN and isinstance(peer.sock, ssl.SSLSocket):
        with contextlib.suppress(OSError):  # it would also wait for the peer's
            peer.sock.unwrap()


def thread_cpu_times() -> tuple[float, float]:
    """Return the CPU seconds of this thread, and its seconds in the run queue (/proc/thread-self/schedstat).

    The latter is 0.0 if the kernel does not count it.
    """
    try:
        with open("/proc/thread-self/schedstat") as line:
            waited = int(line.read().split()[1]) / _SECOND
    except (OSError, IndexError):
        waited = 0.0
    return time.thread_time(), waited


def _set_timer_slack() -> None:
    """Set the timer slack of this thread to 1 ns. A failure is ignored: sends are then up to 50 us late."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


class _DueTimes:
    """Iterates over the times of a schedule, in nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self, plan: RunPlan, begin: int) -> None:
        assert plan.schedule is not None
        self._begin = begin
        self._chunks: Iterator[Times] = plan.schedule.times()
        self._times: list[int] = []
        self._index = -1
        self.next = 0
        self.advance()

    def advance(self) -> None:
        """Move to the next time."""
        self._index += 1
        while self._index >= len(self._times):
            self._times = (next(self._chunks) + self._begin).tolist()
            self._index = 0
        self.next = self._times[self._index]

    def count_before(self, stop: int) -> int:
        """Return the number of remaining times before `stop`."""
        count = sum(each < stop for each in self._times[self._index :])
        last = self._times[-1]
        while last < stop:
            chunk = next(self._chunks) + self._begin
            count += int(np.searchsorted(chunk, stop))
            last = int(chunk[-1]) if len(chunk) else last
        return count
