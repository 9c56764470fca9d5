"""Bulk transfers in Python; see `bulk_base.py`. Most of the CPU time is the kernel's copying."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import ClassVar, Final

from bothends.bench.bulk_pattern import CHUNK, BulkCheck, BulkKind, period, sent_block
from bothends.bench.generators.base import Progress, ProgressCallback
from bothends.bench.generators.bulk_base import (
    SAMPLE_INTERVAL,
    SERVER_CLOSED,
    BulkOutcome,
    BulkPlan,
    ended_by,
    not_sent,
    other_bytes,
)
from bothends.bench.generators.dialer import error_name
from bothends.bench.generators.python import thread_cpu_times
from bothends.bench.results import BulkSample, Faults, TcpSample
from bothends.client.dial import open_stream
from bothends.client.tls import TlsSocket
from bothends.errors import BothendsError
from bothends.socket_table import TcpInfo
from bothends.socket_table.sock_diag import parse_tcp_info

_TCP_INFO_SIZE: Final = 512
_INFO: Final = 2  # INET_DIAG_INFO: struct tcp_info among the attributes of sock_diag(7)
_PROGRESS_INTERVAL: Final = 0.2


class PythonBulkGenerator:
    """Implements `bulk_base.BulkGenerator`."""

    name: ClassVar[str] = "Python, epoll"

    def run(self, plan: BulkPlan, on_progress: ProgressCallback | None = None) -> BulkOutcome:
        """Run a plan; see `BulkGenerator.run`."""
        run = _BulkRun(plan, on_progress)
        try:
            return run.run()
        finally:
            run.close()


class _Stream:
    """One connection of a transfer."""

    __slots__ = ("acked_before", "check", "closed", "sent", "sock")

    def __init__(self, sock: socket.socket, kind: BulkKind) -> None:
        self.sock = sock
        self.check = BulkCheck(kind)
        self.sent = 0
        self.acked_before = 0
        """tcpi_bytes_acked of the TLS handshake, and of the SYN."""
        self.closed = False


class _BulkRun:
    def __init__(self, plan: BulkPlan, on_progress: ProgressCallback | None) -> None:
        self.plan = plan
        self.on_progress = on_progress
        self.faults = Faults()
        self.ended = ""
        self.block = memoryview(sent_block(plan.kind))
        self.period = period(sent_block(plan.kind))
        self.samples: list[BulkSample] = []
        self.streams: list[_Stream] = []
        self.by_descriptor: dict[int, _Stream] = {}
        self.epoll = select.epoll()
        self.sends = self.sending = plan.kind != "chargen"

    def close(self) -> None:
        for stream in self.streams:
            self._close(stream)
        self.epoll.close()

    def run(self) -> BulkOutcome:
        plan = self.plan
        for _ in range(plan.connections):
            self._open()
        begin = time.monotonic()
        self._transfer(begin + plan.warmup, lambda: False)
        start, before, cpu = time.monotonic(), self._totals(), thread_cpu_times()
        self._transfer(start + plan.duration, self._sampler(start), start)
        seconds, after, cpu_after = time.monotonic() - start, self._totals(), thread_cpu_times()
        self._drain()
        sent, received = (int(each - first) for each, first in zip(after, before, strict=True))
        cpu_used, waited = (each - first for each, first in zip(cpu_after, cpu, strict=True))
        return BulkOutcome(seconds, sent, received, cpu_used, waited, self.faults, self.ended, self.samples)

    # Connections -----------------------------------------------------------------------------------

    def _open(self) -> None:
        plan = self.plan
        sock = open_stream(plan.endpoint, timeout=plan.timeout, tls=plan.tls)
        sock.setblocking(False)
        stream = _Stream(sock, plan.kind)
        info = tcp_info(sock)
        stream.acked_before = (info.bytes_acked or 0) if info is not None else 0
        self.streams.append(stream)
        self.by_descriptor[sock.fileno()] = stream
        self.epoll.register(sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if self.sending else 0))

    def _close(self, stream: _Stream) -> None:
        if not stream.closed:
            stream.closed = True
            self.by_descriptor.pop(stream.sock.fileno(), None)
            stream.sock.close()

    def _fail(self, stream: _Stream, fault: str, reason: str) -> None:
        setattr(self.faults, fault, getattr(self.faults, fault) + 1)
        self._close(stream)
        if not self.by_descriptor:
            self.ended = ended_by(reason)

    # Data ------------------------------------------------------------------------------------------

    def _transfer(self, until: float, done: Callable[[], bool], start: float | None = None) -> None:
        """Move data until a time, or until `done` (called several times per interval) returns True."""
        reported = time.monotonic()
        while (now := time.monotonic()) < until and self.by_descriptor and not done():
            for descriptor, mask in self.epoll.poll(min(until - now, SAMPLE_INTERVAL / 4)):
                if (stream := self.by_descriptor.get(descriptor)) is not None:
                    self._on_event(stream, mask)
            if self.on_progress is not None and start is not None and now - reported >= _PROGRESS_INTERVAL:
                reported = now
                elapsed, total = now - start + self.plan.warmup, self.plan.warmup + self.plan.duration
                moved = sum(each.check.count or each.sent for each in self.streams)
                self.on_progress(Progress(min(elapsed, total), total, moved, self.faults.total))

    def _on_event(self, stream: _Stream, mask: int) -> None:
        try:
            if mask & ~select.EPOLLOUT:
                self._receive(stream)
            if not stream.closed and mask & select.EPOLLOUT:
                self._send(stream)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(stream, "reset", error_name(error))
        except BothendsError as error:  # of TLS
            self._fail(stream, "reset", str(error))

    def _receive(self, stream: _Stream) -> None:
        data = stream.sock.recv(CHUNK)
        if not data:
            self._fail(stream, "lost", SERVER_CLOSED)
        elif self.plan.kind == "discard" or (
            self.plan.kind != "chargen" and stream.check.count + len(data) > stream.sent + _unreported(stream)
        ):
            self._fail(stream, "wrong", not_sent(len(data)))
        elif not stream.check.receive(data):
            self._fail(stream, "wrong", other_bytes(stream.check.count))

    def _send(self, stream: _Stream) -> None:
        if not self.sending:
            if isinstance(stream.sock, TlsSocket) and stream.sock.has_unsent:
                stream.sock.flush()
                return
            self.epoll.modify(stream.sock.fileno(), select.EPOLLIN)
            return
        start = stream.sent % self.period
        stream.sent += stream.sock.send(self.block[start : start + CHUNK])

    def _drain(self) -> None:
        """Stop sending, and await the echo of what was sent. A connection without it counts as lost."""
        self.sending = False
        if self.plan.kind not in ("echo", "upper"):
            return

        last = time.monotonic(), self._totals()[1]

        def is_done() -> bool:
            nonlocal last
            received = self._totals()[1]
            if received != last[1]:
                last = time.monotonic(), received
            silent = time.monotonic() - last[0] > self.plan.timeout
            return silent or all(each.check.count >= each.sent for each in self.by_descriptor.values())

        self._transfer(float("inf"), is_done)
        self.faults.lost += sum(each.check.count < each.sent for each in self.by_descriptor.values())

    # Figures ---------------------------------------------------------------------------------------

    def _totals(self) -> tuple[int, int]:
        """Return the bytes sent (over TCP: acknowledged) and received by all connections so far."""
        return sum(map(self._sent, self.streams)), sum(each.check.count for each in self.streams)

    def _sent(self, stream: _Stream) -> int:
        if self.sends and not stream.closed and self.plan.tls is None:
            info = tcp_info(stream.sock)
            if info is not None and info.bytes_acked is not None:
                return info.bytes_acked - stream.acked_before
        return stream.sent

    def _sampler(self, start: float) -> Callable[[], bool]:
        """Return a function to call often, which takes a sample every `SAMPLE_INTERVAL`."""
        previous, last = self._totals(), start
        due = start + SAMPLE_INTERVAL

        def sample() -> bool:
            nonlocal previous, last, due
            now = time.monotonic()
            if now < due:
                return False
            totals = self._totals()
            sent, received = (
                max(0.0, (each - before) / (now - last))
                for each, before in zip(totals, previous, strict=True)
            )
            figures = [found for each in self.by_descriptor.values() if (found := tcp_sample(each.sock))]
            self.samples.append(BulkSample(now - start, sent, received, figures))
            previous, last = totals, now
            due = max(due + SAMPLE_INTERVAL, now + SAMPLE_INTERVAL / 2)
            return False

        return sample


def _unreported(stream: _Stream) -> int:
    """Return the bytes that may have been sent beyond `stream.sent`: TLS reports whole records only."""
    return CHUNK if isinstance(stream.sock, TlsSocket) else 0


def tcp_info(sock: socket.socket) -> TcpInfo | None:
    """Return struct tcp_info of a socket (tcp(7)); None if it is not of TCP."""
    try:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return None
    return parse_tcp_info({_INFO: data})


def tcp_sample(sock: socket.socket) -> TcpSample | None:
    """Return the figures of a sample; None if the socket is not of TCP."""
    info = tcp_info(sock)
    if info is None:
        return None
    return TcpSample(info.cwnd, info.mss, info.rtt, info.min_rtt, info.retransmissions, info.delivery_rate)
