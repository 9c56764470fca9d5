"""Mutations of `bench`, `check`, `attack`, `testing` and `starters`."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutation import Mutation

_TRACKER: Final = "tests/bench/test_request_tracker.py"
_SANDBOX: Final = "tests/check/test_sandbox.py tests/hostile/sandbox"

MUTATIONS: Final = (
    # bench
    Mutation(
        name="bench-script-desynced-kept",
        file="src/bothends/bench/request_tracker.py",
        old="            self._counters.outcome.faults.wrong += 1\n        self.desynced = True\n\n    # One",
        new="            self._counters.outcome.faults.wrong += 1\n\n    # One",
        breaks="after a wrong answer of a script, which has no line ends, its connection is used on",
        tests=f"{_TRACKER} tests/bench/test_faults.py",
    ),
    Mutation(
        name="bench-script-timeout-kept",
        file="src/bothends/bench/request_tracker.py",
        old="            self.desynced = not self._buffer.workload.terminator",
        new="            self.desynced = False",
        breaks="after a timeout of a script, which has no line ends, its connection is used on",
        tests=f"{_TRACKER} tests/bench/test_faults.py",
    ),
    Mutation(
        name="bench-script-broken-not-counted",
        file="src/bothends/bench/request_tracker.py",
        old="            if self.pending:\n                self.pending.popleft()\n"
        "            self._counters.outcome.faults.wrong += 1\n"
        "        self.desynced",
        new="            if self.pending:\n                self.pending.popleft()\n        self.desynced",
        breaks="a script without line ends never counts a connection whose answers break off",
        tests=f"{_TRACKER} tests/bench/test_faults.py",
    ),
    Mutation(
        name="bench-closed-connection-loses-nothing",
        file="src/bothends/bench/request_tracker.py",
        old="        faults.lost += len(self.pending)",
        new="        faults.lost += 0",
        breaks="requests on connections that the server closed are not counted as lost",
        tests=f"{_TRACKER} tests/bench/test_faults.py",
    ),
    Mutation(
        name="bench-latency-from-sending",
        file="src/bothends/bench/request_tracker.py",
        old="            self._corrected.append(at - due)",
        new="            self._corrected.append(at - sent)",
        breaks="the corrected latency leaves out the time that a request waited for its turn",
        tests=f"{_TRACKER} tests/bench/test_faults.py tests/bench/test_transports.py",
    ),
    Mutation(
        name="bench-percentile-of-chance",
        file="src/bothends/bench/histogram.py",
        old="    return n * (100 - percent) / 100 >= MIN_VALUES_BEYOND - 1e-9",
        new="    return n * (100 - percent) / 100 >= 1",
        breaks="p99.9 is reported for a thousand requests",
        tests="tests/bench/test_histogram.py",
    ),
    Mutation(
        name="bench-schedule-drifts",
        file="src/bothends/bench/schedule.py",
        old="            skip = (skip - len(chunk)) % self.step",
        new="            skip = self.first",
        breaks="generators that share a schedule send some requests twice and others never",
        tests="tests/bench/test_schedule.py",
    ),
    Mutation(
        name="bench-one-sided-test",
        file="src/bothends/bench/significance.py",
        old="    return min(1.0, 2 * sum(counts",
        new="    return min(1.0, sum(counts",
        breaks="a difference by chance counts as significant twice as often",
        tests="tests/bench/test_significance.py",
    ),
    # check
    Mutation(
        name="check-case-tried-again-once",
        file="src/bothends/check/runner.py",
        old="_MAX_ATTEMPTS: Final = 3",
        new="_MAX_ATTEMPTS: Final = 2",
        breaks="a case that failed is tried again once, and not twice: one more stroke of luck passes it",
        tests="tests/check/test_flaky.py",
    ),
    Mutation(
        name="check-flaky-fails",
        file="src/bothends/check/runner.py",
        old="            failure, verdict=Verdict.NON_STRICT, attempts=_MAX_ATTEMPTS, "
        "points=failure.max_points,",
        new="            failure, verdict=Verdict.NON_STRICT, attempts=_MAX_ATTEMPTS, points=0.0,",
        breaks="a case that failed once in three attempts costs its points",
        tests="tests/check/test_flaky.py",
    ),
    Mutation(
        name="check-pattern-without-limit",
        file="src/bothends/check/patterns.py",
        old="        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)\n",
        new="",
        breaks="a pattern that takes for ever hangs the checker",
        tests="tests/hostile/contracts/test_patterns.py",
    ),
    Mutation(
        name="check-sandbox-x32-calls",
        file="src/bothends/check/sandbox/seccomp.py",
        old="        steps += [_step(_JUMP_IF_GREATER_OR_EQUAL, _X32_BIT, 0, 1), _fail(errno.ENOSYS)]",
        new="        pass",
        breaks="forbidden calls can be made by their numbers of the x32 ABI",
        tests=_SANDBOX,
    ),
    Mutation(
        name="check-sandbox-new-namespaces",
        file="src/bothends/check/sandbox/seccomp.py",
        old="        _step(_JUMP_IF_SET, _NEW_NAMESPACES, 0, 1),",
        new="        _step(_JUMP_IF_SET, 0, 0, 1),",
        breaks="a program makes a user namespace, in which it has all capabilities",
        tests=_SANDBOX,
    ),
    Mutation(
        name="check-sandbox-writable-root",
        file="src/bothends/check/sandbox/init.py",
        old='        check("mount_setattr", set_attributes(AT_FDCWD, base, AT_RECURSIVE, on=on))\n',
        new="",
        breaks="a program changes its own sources, and files of the machine",
        tests=_SANDBOX,
        slow=True,
    ),
    Mutation(
        name="check-sandbox-memory-unlimited",
        file="src/bothends/check/sandbox/monitor.py",
        old="        if group is None and sum(map(_memory_usage, pids)) > limits.memory:",
        new="        if False:",
        breaks="without cgroups a program takes the memory of the machine",
        tests=_SANDBOX,
    ),
    Mutation(
        name="check-head-has-body",
        file="src/bothends/check/header_framing.py",
        old='        if bodiless or (self._requests and self._requests[0] == b"HEAD"):',
        new="        if bodiless:",
        breaks="the response to HEAD is said to lack its body",
        tests="tests/check/test_header_framing.py",
    ),
    Mutation(
        name="check-comment-is-evidence",
        file="src/bothends/check/batch/source_evidence.py",
        old='    return _COMMENTS.get(suffix, _COMMENTS[""]).sub(b" ", text)',
        new="    return text",
        breaks="a client whose comment mentions listen() is judged as a server",
        tests="tests/check/test_submissions.py tests/check/test_as_handed_in.py",
    ),
    Mutation(
        name="check-tap-skip-fails",
        file="src/bothends/check/reports/formats.py",
        old='        status = "not ok" if outcome.verdict is Verdict.FAIL else "ok"',
        new='        status = "ok" if outcome.verdict is Verdict.PASS else "not ok"',
        breaks="a case that was skipped fails in TAP",
        tests="tests/check/test_reports.py",
    ),
    # attack
    Mutation(
        name="attack-other-machines",
        file="src/bothends/attack/permission.py",
        old="    if not allowed:\n        raise UsageError(",
        new="    if not allowed:\n        return endpoint.with_host(str(address))\n        raise UsageError(",
        breaks="a machine on the internet is attacked without a question",
        tests="tests/attack",
    ),
    Mutation(
        name="attack-multicast",
        file="src/bothends/attack/permission.py",
        old="    if address.is_multicast:",
        new="    if False:",
        breaks="all hosts of a network are attacked by way of a multicast address",
        tests="tests/attack",
    ),
    Mutation(
        name="attack-wrong-answer-is-degraded",
        file="src/bothends/attack/judging.py",
        old="            Hold.FAILED, f\"{_count(figures.wrong, 'wrong answer')}",
        new="            Hold.DEGRADED, f\"{_count(figures.wrong, 'wrong answer')}",
        breaks="a server that gives a user another one's answer only degrades",
        tests="tests/attack/test_judging.py",
    ),
    Mutation(
        name="attack-leak-unnoticed",
        file="src/bothends/attack/judging.py",
        old="            if kept > SPARE_DESCRIPTORS:",
        new="            if kept > 1000 * SPARE_DESCRIPTORS:",
        breaks="descriptors that a server does not close after the attack are not reported",
        tests="tests/attack/test_judging.py",
    ),
    Mutation(
        name="attack-slowdown-without-noise",
        file="src/bothends/attack/judging.py",
        old="    limit = max(NOISE * seen.load, MAX_SLOWDOWN * quiet.p99, 2 * attacked.late)",
        new="    limit = max(NOISE, MAX_SLOWDOWN * quiet.p99)",
        breaks="a slow or busy machine makes a server look slow",
        tests="tests/attack/test_judging.py",
    ),
    # testing
    Mutation(
        name="testing-leftover-descriptors-pass",
        file="src/bothends/testing/harness.py",
        old='                found += [f"{kind} left after run(): {name}" for name in names]',
        new="                found += []",
        breaks="the contract suite passes an engine that leaks descriptors",
        tests="tests/testing/test_suite_catches.py tests/testing/test_harness.py",
    ),
    Mutation(
        name="testing-reset-looks-like-eof",
        file="src/bothends/testing/streams.py",
        old="        for offsets in combinations(range(1, len(data)), count):",
        new="        for offsets in combinations(range(1, len(data) - 1), count):",
        breaks="replays never split before the last byte",
        tests="tests/testing/test_streams.py",
    ),
    Mutation(
        name="testing-closed-not-called",
        file="src/bothends/testing/streams.py",
        old="    finally:\n        conversation.closed()",
        new="    finally:\n        pass",
        breaks="a replay does not close its conversation",
        tests="tests/testing/test_streams.py",
    ),
    # starters
    Mutation(
        name="starters-line-of-another-transport",
        file="src/bothends/starters/writing.py",
        old="        elif match[1] in tags:",
        new="        else:",
        breaks="a starter has the lines of all transports",
        tests="tests/starters/test_starters.py",
    ),
    Mutation(
        name="starters-datagram-is-stream",
        file="src/bothends/starters/writing.py",
        old='    kind = "datagram" if transport == "udp" else "stream"',
        new='    kind = "stream"',
        breaks="the starter for UDP speaks TCP",
        tests="tests/starters/test_starters.py",
    ),
    Mutation(
        name="starters-port-before-host",
        file="src/bothends/starters/writing.py",
        old='    return ("{host}", "{port}") if role == "client" else ("{port}",)',
        new='    return ("{port}", "{host}") if role == "client" else ("{port}",)',
        breaks="the usage of a client names its arguments in the wrong order",
        tests="tests/starters/test_starters.py",
    ),
)
