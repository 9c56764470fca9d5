"""Mutations of `trace` and `why`."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutation import Mutation

_MERGE: Final = "tests/trace/test_correlator.py tests/trace/test_timeline.py tests/trace/test_merge.py"
_WAITS: Final = "tests/trace/test_waits.py"
_PROBLEMS: Final = "tests/why/test_problems.py"

MUTATIONS: Final = (
    # trace: strace
    Mutation(
        name="trace-cut-line-is-a-blocked-call",
        file="src/bothends/trace/capture/strace.py",
        old="        if len(self._buffer) % STDIO_BUFFER == 0 or self._buffer.count(b'\"') % 2:\n"
        "            return None\n",
        new="",
        breaks="a line of which strace has written a part is drawn as a blocked call",
        tests="tests/trace/test_strace.py",
    ),
    Mutation(
        name="trace-full-buffer-is-a-blocked-call",
        file="src/bothends/trace/capture/strace.py",
        old="        if len(self._buffer) % STDIO_BUFFER == 0 or self._buffer",
        new="        if self._buffer",
        breaks="a line that strace's buffer cut is drawn as a blocked call",
        tests="tests/trace/test_strace.py",
    ),
    Mutation(
        name="trace-blocked-line-not-found",
        file="src/bothends/trace/capture/strace.py",
        old="        self._last_unfinished = (started.pid, started.at)\n        return started",
        new="        self._last_unfinished = (started.pid, started.at)\n        return None",
        breaks="a program that blocks is not shown as blocked",
        tests="tests/trace/test_strace.py",
    ),
    Mutation(
        name="trace-resumed-duration",
        file="src/bothends/trace/capture/strace.py",
        old='int(fraction.ljust(9, "0")[:9])',
        new="int(fraction)",
        breaks="a call of 0.5 s took five nanoseconds",
        tests="tests/trace/test_strace.py",
    ),
    # trace: packets
    Mutation(
        name="trace-loopback-packets-twice",
        file="src/bothends/trace/capture/packets.py",
        old="        (_JEQ, 1, 0, _PACKET_OUTGOING),\n        _DROP,\n"
        "        (_LD_B, 0, 0, 0),  # the IP version",
        new="        (_JEQ, 1, 1, _PACKET_OUTGOING),\n        _DROP,\n"
        "        (_LD_B, 0, 0, 0),  # the IP version",
        breaks="each packet on loopback is drawn twice",
        tests="tests/trace/test_packets.py",
        facts=(1,),
    ),
    Mutation(
        name="trace-time-of-the-read",
        file="src/bothends/trace/capture/packets.py",
        old="RawPacket(seconds * 1_000_000_000 + nanoseconds, ",
        new="RawPacket(time.time_ns(), ",
        breaks="packets have the time at which they were read",
        tests="tests/trace/test_packets.py",
        facts=(2,),
    ),
    Mutation(
        name="trace-segment-size-of-the-data-kept",
        file="src/bothends/trace/capture/packets.py",
        old="            max(length - start - header, 0), body[header",
        new="            max(len(body) - header, 0), body[header",
        breaks="a segment of 64 KiB counts with the bytes that are kept of it only",
        tests="tests/trace/test_packets.py",
        facts=(3,),
    ),
    Mutation(
        name="trace-later-fragment-has-ports",
        file="src/bothends/trace/capture/packets.py",
        old='        if int.from_bytes(raw[6:8], "big") & 0x1FFF:\n'
        "            return None  # a later fragment\n",
        new="",
        breaks="the data of a later fragment is taken for ports",
        tests="tests/trace/test_packets.py",
        facts=(4,),
    ),
    Mutation(
        name="trace-extension-header-length",
        file="src/bothends/trace/capture/packets.py",
        old="            step = 8 if following == _FRAGMENT else (raw[start + 1] + 1) * 8",
        new="            step = 8",
        breaks="ports after a long IPv6 extension header are read at the wrong place",
        tests="tests/trace/test_packets.py",
        facts=(4,),
    ),
    # trace: correlation
    Mutation(
        name="trace-failed-send-without-rst",
        file="src/bothends/trace/correlation/correlator.py",
        old="                    self._link_sent_span(socket, span)\n"
        "            if call.error in _RESET_ERRORS:\n"
        "                self._on_reset_error(call, socket)",
        new="                    self._link_sent_span(socket, span)",
        breaks="a failed send() has no link to the RST that made it fail",
        tests=_MERGE,
    ),
    Mutation(
        name="trace-short-send-shifts-nothing",
        file="src/bothends/trace/correlation/correlator.py",
        old="                    later.start, later.end = later.start - surplus, later.end - surplus",
        new="                    pass",
        breaks="after a short send the bytes of the next one, which has begun, are linked to wrong packets",
        tests=_MERGE,
    ),
    Mutation(
        name="trace-short-send-moves-position",
        file="src/bothends/trace/correlation/correlator.py",
        old="                stream.position -= surplus\n",
        new="",
        breaks="after a short send the bytes of all later sends are linked to wrong packets",
        tests=_MERGE,
    ),
    Mutation(
        name="trace-shutdown-read-sends-fin",
        file="src/bothends/trace/correlation/correlator.py",
        old='call.failed or (call.name == "shutdown" and call.arguments[1:2] == ("SHUT_RD",)):',
        new="call.failed:",
        breaks="shutdown(SHUT_RD) is linked to the FIN that a later call sent",
        tests=_MERGE,
    ),
    Mutation(
        name="trace-sequence-numbers-wrap",
        file="src/bothends/trace/correlation/streams.py",
        old="    return number - (1 << 32) if number >> 31 else number",
        new="    return number",
        breaks="packets before the first one seen have offsets of four gigabytes",
        tests=_MERGE,
    ),
    Mutation(
        name="trace-effect-before-cause",
        file="src/bothends/trace/correlation/timeline.py",
        old="            causes.discard(number)\n            if not causes and effect in self._pending:",
        new="            causes.clear()\n            if effect in self._pending:",
        breaks="an event with two causes is drawn after the first of them",
        tests="tests/trace/test_timeline.py",
    ),
    Mutation(
        name="trace-microseconds",
        file="src/bothends/trace/capture/arguments.py",
        old='* (1 if found[2] == "n" else 1000)',
        new="* 1",
        breaks="a time limit in microseconds is read as nanoseconds",
        tests="tests/trace/test_correlator.py",
    ),
    Mutation(
        name="trace-retransmission-of-a-part",
        file="src/bothends/trace/correlation/retransmissions.py",
        old="        if low <= start < high:",
        new="        if start < high:",
        breaks="a lost segment counts as delivered if a later one was",
        tests="tests/trace/test_correlator.py",
    ),
    # trace: waits
    Mutation(
        name="trace-wait-user-is-any-thread",
        file="src/bothends/trace/waits/graph.py",
        old="        return users or self._threads_of(running)",
        new="        return self._threads_of(running)",
        breaks="a thread that only accepts could end each wait: no deadlock of a threaded server is found",
        tests=_WAITS,
    ),
    Mutation(
        name="trace-wait-lost-packet-sent-again",
        file="src/bothends/trace/waits/graph.py",
        old="if each.lost and each.size and (each.offset or 0) + each.size > arrived",
        new="if each.lost and each.size",
        breaks="a packet that was lost and sent again is said to be missing",
        tests=_WAITS,
    ),
    Mutation(
        name="trace-wait-for-an-exited-child",
        file="src/bothends/trace/waits/graph.py",
        old="if each.parent == call.process and self.trace_index.ended_at(each.number) is None",
        new="if each.parent == call.process",
        breaks="a parent is said to wait for a child that has exited",
        tests=_WAITS,
    ),
    Mutation(
        name="trace-wait-with-a-time-limit-is-stuck",
        file="src/bothends/trace/waits/graph.py",
        old="if wait.need in _MUTUAL and not wait.may_end_otherwise and wait.ender_threads",
        new="if wait.need in _MUTUAL and wait.ender_threads",
        breaks="two waits that end by themselves are called a deadlock",
        tests=_WAITS,
    ),
    Mutation(
        name="trace-wait-of-a-pool-is-a-deadlock",
        file="src/bothends/trace/waits/graph.py",
        old='            if any(each.need != "lock" for each in cycle):',
        new="            if cycle:",
        breaks="the idle threads of a pool are called a deadlock",
        tests=_WAITS,
    ),
    Mutation(
        name="trace-wait-for-room-after-any-send",
        file="src/bothends/trace/waits/graph.py",
        old="sends[-1].size < sends[-1].requested",
        new="True",
        breaks="an event loop that has sent everything is said to wait for room",
        tests=_WAITS,
    ),
    # trace: findings
    Mutation(
        name="trace-standstill-thread-ended-by-us",
        file="src/bothends/trace/findings/standstill.py",
        old="            if exited is not None and exited > trace_index.end:\n",
        new="            if False:\n",
        breaks="a thread that bothends ended counts as one that had exited before",
        tests="tests/trace/test_standstill.py",
    ),
    Mutation(
        name="trace-text-as-length-whole-buffer",
        file="src/bothends/trace/findings/framing.py",
        old="            widths = (2, 4, 8) if call.requested not in _BUFFERS else ()",
        new="            widths = (2, 4, 8)",
        breaks="a read with a buffer of the usual size is taken for one of the rest of a message",
        tests="tests/trace/test_text_as_length.py",
    ),
    # why
    Mutation(
        name="why-full-queue-not-full",
        file="src/bothends/why/problems/accept_queue.py",
        old="    return (listener.recv_queue or 0) > (listener.send_queue or 0)",
        new="    return (listener.recv_queue or 0) > (listener.send_queue or 0) + 1",
        breaks="a full accept queue is not said to be full",
        tests=f"{_PROBLEMS}::test_accept_queue_is_full",
        slow=True,
    ),
    Mutation(
        name="why-waiting-reader-leaks",
        file="src/bothends/why/problems/close_wait.py",
        old="            entries = [entry for entry in entries if not graph.waiting(entry)]\n",
        new="",
        breaks="a connection that a thread is about to close counts as leaked",
        tests="tests/why/test_thresholds.py",
    ),
    Mutation(
        name="why-exhaustion-small-limit",
        file="src/bothends/why/problems/exhaustion.py",
        old="_NEARLY * process.file_limit or left < _MIN_LEFT:",
        new="_NEARLY * process.file_limit and left < _MIN_LEFT:",
        breaks="a process with 95 % of a large number of descriptors is said to be fine",
        tests="tests/why/test_thresholds.py",
    ),
    Mutation(
        name="why-drops-of-the-past-are-wrong",
        file="src/bothends/why/problems/drops.py",
        old="            is_wrong=is_full,",
        new="            is_wrong=True,",
        breaks="datagrams that were lost last week are a problem today",
        tests="tests/why/test_thresholds.py",
    ),
    Mutation(
        name="why-edge-triggered-reader",
        file="src/bothends/why/problems/inactivity.py",
        old="wait.need in (Need.DATA, Need.CONNECTION) and not wait.edge",
        new="wait.need in (Need.DATA, Need.CONNECTION)",
        breaks="a thread that waits for an edge which has passed counts as a reader",
        tests=f"{_PROBLEMS}::test_edge_triggered_epoll_that_was_not_drained",
        slow=True,
    ),
)
