"""Mutations of `toxics`, `impair` and `wire`."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutation import Mutation

_SESSIONS: Final = "tests/impair/test_sessions.py"

MUTATIONS: Final = (
    # toxics
    Mutation(
        name="toxics-lowered-latency-still-delays",
        file="src/bothends/toxics/pipeline.py",
        old="        self.held = 0\n        self._last_due = -math.inf\n        return released",
        new="        self.held = 0\n        return released",
        breaks="after a latency of 10 s was lowered to 0, new data is still delayed by 10 s",
        tests="tests/toxics/test_pipeline.py tests/toxics/test_latency.py tests/impair/test_api.py",
    ),
    Mutation(
        name="toxics-overtaking-on-a-stream",
        file="src/bothends/toxics/pipeline.py",
        old="            due = self._last_due = max(due, self._last_due, at)",
        new="            due = max(due, at)",
        breaks="with jitter, later bytes of a stream overtake earlier ones",
        tests="tests/toxics/test_pipeline.py tests/toxics/test_latency.py",
    ),
    Mutation(
        name="toxics-datagrams-held-without-limit",
        file="src/bothends/toxics/pipeline.py",
        old="            and self.held + len(item) > MAX_HELD_BYTES\n",
        new="            and False\n",
        breaks="datagrams that are held fill the memory",
        tests="tests/toxics/test_pipeline.py",
    ),
    Mutation(
        name="toxics-removed-toxic-drops",
        file="src/bothends/toxics/pipeline.py",
        old="                self._push(index, [(now, item) for item in released if item is not None], out)",
        new="                self._push(index, [(now, item) for item in released[:-1][:1] if item "
        "is not None], out)",
        breaks="removing a toxic loses what it held",
        tests="tests/toxics/test_pipeline.py",
    ),
    Mutation(
        name="toxics-bandwidth-kibibytes",
        file="src/bothends/toxics/bandwidth.py",
        old="        self._rate = toxic.rate * 1000",
        new="        self._rate = toxic.rate * 1024",
        breaks="a kilobyte has 1,024 bytes",
        tests="tests/toxics/test_bandwidth.py",
    ),
    Mutation(
        name="toxics-bandwidth-no-burst",
        file="src/bothends/toxics/bandwidth.py",
        old="        self._free_at = max(self._free_at, now - self._burst_seconds)",
        new="        self._free_at = max(self._free_at, now)",
        breaks="the token bucket is always empty",
        tests="tests/toxics/test_bandwidth.py",
    ),
    Mutation(
        name="toxics-limit-starts-again",
        file="src/bothends/toxics/limit_data.py",
        old="            self._bytes_passed = previous._bytes_passed",
        new="            pass",
        breaks="changing the limit starts the count again",
        tests="tests/toxics/test_connections.py tests/toxics/test_pipeline.py",
    ),
    Mutation(
        name="toxics-timeout-removed-goes-on",
        file="src/bothends/toxics/timeout.py",
        old="        return Signal.CLOSE if self._has_dropped else None",
        new="        return None",
        breaks="a stream with a gap goes on after the toxic is removed",
        tests="tests/toxics/test_connections.py",
    ),
    Mutation(
        name="toxics-markov-starts-good",
        file="src/bothends/toxics/random_processes.py",
        old="        self.is_bad = bool(total) and random.random() < enter / total",
        new="        self.is_bad = bool(total) and random.random() < 0",
        breaks="short runs are biased towards the good state",
        tests="tests/toxics/test_random_processes.py tests/toxics/test_statistics.py "
        "tests/toxics/test_loss.py",
    ),
    Mutation(
        name="toxics-slicer-milliseconds",
        file="src/bothends/toxics/slicer.py",
        old="        self._delay = toxic.delay / 1e6",
        new="        self._delay = toxic.delay / 1e3",
        breaks="the delay between two pieces is a thousand times too long",
        tests="tests/toxics",
    ),
    # impair
    Mutation(
        name="impair-early-datagrams-unlimited",
        file="src/bothends/impair/sessions.py",
        old="        elif len(self._pending_datagrams) < _MAX_PENDING:\n"
        "            self._pending_datagrams.append(data)",
        new="        else:\n            self._pending_datagrams.append(data)",
        breaks="datagrams that arrive before the server is known fill the memory",
        tests=_SESSIONS,
    ),
    Mutation(
        name="impair-session-never-idle",
        file="src/bothends/impair/sessions.py",
        old="        if remaining <= 0:",
        new="        if False:",
        breaks="sessions of clients that are gone are never closed",
        tests=_SESSIONS,
    ),
    Mutation(
        name="impair-replies-do-not-count-as-activity",
        file="src/bothends/impair/sessions.py",
        old="            self._last_activity = self.loop.now\n            for data in messages:",
        new="            for data in messages:",
        breaks="a session whose server sends all the time is closed as idle",
        tests=_SESSIONS,
    ),
    Mutation(
        name="impair-reset-becomes-eof",
        file="src/bothends/impair/connection.py",
        old="        if any(end.is_reset for end in self._ends()):\n            self.reset()\n"
        "            return\n",
        new="",
        breaks="a reset of one end reaches the other end as EOF",
        tests="tests/impair/test_streams.py",
    ),
    Mutation(
        name="impair-no-server-closes-quietly",
        file="src/bothends/impair/connection.py",
        old="            self._client_end.reset_on_close()\n",
        new="",
        breaks="a client of a proxy without a server reads EOF, as from a server that answers nothing",
        tests="tests/impair/test_streams.py",
    ),
    Mutation(
        name="impair-partial-send-repeats",
        file="src/bothends/impair/link.py",
        old="                queue[0] = memoryview(piece)[count:]",
        new="                queue[0] = memoryview(piece)",
        breaks="the beginning of a piece that was sent in part is sent again",
        tests="tests/impair/test_link.py",
    ),
    Mutation(
        name="impair-queue-unlimited",
        file="src/bothends/impair/link.py",
        old="        return self.queued < QUEUE_LIMIT and not",
        new="        return not",
        breaks="a sender is not made to wait for a receiver that does not read",
        tests="tests/impair/test_link.py tests/impair/test_streams.py",
    ),
    Mutation(
        name="impair-api-slow-request",
        file="src/bothends/impair/api_server.py",
        old="        self._loop.schedule_wakeup(self, self._loop.now + _REQUEST_TIMEOUT)\n\n    def on_timer",
        new="\n    def on_timer",
        breaks="connections to the API that send nothing are kept for ever",
        tests="tests/hostile/api",
    ),
    # wire
    Mutation(
        name="wire-fragment-offset",
        file="src/bothends/wire/packets.py",
        old="    size = (mtu - head) // 8 * 8  # offsets are in units of eight bytes",
        new="    size = mtu - head",
        breaks="fragments overlap or leave gaps, where the MTU is no multiple of eight",
        tests="tests/wire/test_packets.py",
    ),
    Mutation(
        name="wire-error-about-an-error",
        file="src/bothends/wire/packets.py",
        old="packet[head] in _IPV4_ERRORS)",
        new="False)",
        breaks="an ICMP error is answered with an ICMP error",
        tests="tests/wire/test_packets.py",
    ),
    Mutation(
        name="wire-too-large-forwarded",
        file="src/bothends/wire/switch.py",
        old="        if largest > self._mtu:\n            return -1",
        new="        if False:\n            return -1",
        breaks="packets larger than the MTU cross the wire",
        tests="tests/wire/test_switch.py tests/wire/test_offload.py",
    ),
    Mutation(
        name="wire-broadcast-to-sender",
        file="src/bothends/wire/switch.py",
        old="            return [other for other in range(len(self._host_of)) if other != port]",
        new="            return list(range(len(self._host_of)))",
        breaks="a broadcast comes back to its sender",
        tests="tests/wire/test_switch.py",
    ),
    Mutation(
        name="wire-fin-in-each-segment",
        file="src/bothends/wire/offload.py",
        old="(_FIN | _PUSH if at + size < len(packet) else 0)",
        new="(_PUSH if at + size < len(packet) else 0)",
        breaks="each segment of the last write carries FIN",
        tests="tests/wire/test_offload.py",
    ),
    Mutation(
        name="wire-udp-checksum-zero",
        file="src/bothends/wire/offload.py",
        old="    if not value and checksum_offset == 6:\n        value = 0xFFFF",
        new="    if False:\n        value = 0xFFFF",
        breaks="a UDP datagram whose checksum is 0 has none",
        tests="tests/wire/test_offload.py",
    ),
    Mutation(
        name="impair-framing-medium-of-the-other-end",
        file="src/bothends/impair/proxy.py",
        old='return Medium.DATAGRAMS if from_type == "datagrams"',
        new='return Medium.DATAGRAMS if from_type != "datagrams"',
        breaks="the datagrams of a framed proxy are taken for messages of a stream",
        tests="tests/impair/test_sockets.py",
    ),
)
