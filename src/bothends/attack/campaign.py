"""Run one attack after the other on a server, each with a quiet phase before it and a recovery after it.

    quiet          honest requests only: how it is when nothing happens
    attack         the attacker's process runs, the honest client goes on
    recovery       honest requests only, until they are answered again
    idle           no client: descriptors, threads and memory should be back, the processor unused
    SIGTERM        if bothends started the server; the next attack gets a new one

A server that was running before is attacked as it is, and stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar, cast

from bothends.attack import health
from bothends.attack.attacks.base import Attack
from bothends.attack.expectation import Expectation
from bothends.attack.health import Health
from bothends.attack.honest import HonestClient, Sample, learn
from bothends.attack.judging import SPARE_DESCRIPTORS, Observation, judge
from bothends.attack.permission import permitted_endpoint
from bothends.attack.results import AttackOutcome, AttackResult, Hold, HonestFigures, ServerFigures
from bothends.check.case import NotListening
from bothends.check.contract import AnswerSpec, Contract, make_oracle
from bothends.check.runner import load_factor
from bothends.check.subjects.placeholders import fill_placeholders
from bothends.check.subjects.server_context import ServerContext
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.transcript import Transcript
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import UsageError
from bothends.escaping import escape_text
from bothends.osutil.process_info import limit_descriptors, set_descriptor_limit
from bothends.osutil.reexec import self_command

T = TypeVar("T")

QUIET: Final = 1.0  # seconds
RECOVERY: Final = 3.0  # seconds within which honest clients must be served again
_RECOVERED: Final = 8  # right answers in a row
IDLE: Final = 4.0  # seconds within which resources should be back: more than a lingering close takes
_IDLE_WINDOW: Final = 0.4  # seconds over which the processor's use is measured
SIGTERM_TIMEOUT: Final = 10.0  # seconds; bothends itself drains for up to 5
_SPARE_WHEN_STARVED: Final = 8  # descriptors that the server may still open
_ATTACKER_EXIT: Final = 5.0  # seconds after its deadline until the attacker is killed
_SAMPLING: Final = 0.1  # seconds between two looks at the server's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignPlan:
    """What to attack, and how.

    `endpoint`: with `command` it may hold {port} or {path}. `request` is what the honest client sends; None
    for a line with a number. `duration` of each attack and `timeout` of an honest request in seconds.
    `allowed`: the address of `--i-may`. `expectation`, if the right answer is known and not learned.
    """

    endpoint: str
    attacks: Sequence[Attack]
    command: Sequence[str] = ()
    request: bytes | None = None
    duration: float = 3.0
    timeout: float = 1.0
    seed: int = 1
    allowed: str = ""
    expectation: Expectation | None = None


@dataclass
class Campaign:
    """A run of a plan. `progress` is called with the name of each attack, then with its outcome.

    `outcomes` holds what was seen so far, also after an interrupt.
    """

    plan: CampaignPlan
    progress: Callable[[str | AttackOutcome], None] = lambda _event: None
    outcomes: list[AttackOutcome] = field(default_factory=list)
    expectation: Expectation | None = None
    notes: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _honest: HonestClient | None = None

    async def run(self) -> AttackResult:
        """Run all attacks.

        Raises:
            BothendsError: the server can't be started or reached, or doesn't answer before any attack.
            UsageError, EndpointError: its address may not be attacked.
        """
        subject = self._subject() if self.plan.command else None
        try:
            if subject is not None:
                await subject.prepare()
            for attack in self.plan.attacks:
                self.progress(attack.id)
                outcome = await self._run_attack(attack, subject)
                self.outcomes.append(outcome)
                self.progress(outcome)
        finally:
            if self._honest is not None:
                self._honest.cancel()
            if subject is not None:
                await subject.close()
        return self.result()

    def result(self) -> AttackResult:
        """Return what was seen so far."""
        return AttackResult(
            program=escape_text(" ".join(self.plan.command) or self.plan.endpoint),
            compared=self.expectation.description if self.expectation else "",
            outcomes=tuple(self.outcomes),
            seed=self.plan.seed,
            seconds=round(time.monotonic() - self._started, 2),
            notes=tuple(self.notes),
        )

    def _subject(self) -> ServerUnderTest:
        text = self.plan.endpoint
        example = Endpoint.parse(fill_placeholders(text, {"port": "1", "path": "/path", "host": "127.0.0.1"}))
        transport = {"tls": "tcp"}.get(example.scheme, example.scheme)
        if transport not in ("tcp", "udp", "unix", "unix+dgram"):
            raise UsageError(f"{text}: a command can be started for tcp, tls, udp and unix endpoints")
        permitted_endpoint(example, self.plan.allowed)
        contract = Contract(transport=transport, answer=AnswerSpec(service="echo"))  # type: ignore[arg-type]
        # The endpoint without TLS and PROXY, because only its address matters here.
        bare = text if "{" not in text else ""
        if bare and not example.is_unix:
            bare = f"{transport}://{bare.partition('://')[2].partition('?')[0]}"
        # A full disk must not be a signal: without a handler, SIGXFSZ ends a program (setrlimit(2)).
        shell = ("/bin/sh", "-c", 'trap "" XFSZ; exec "$@"', "sh")
        return ServerUnderTest(contract, (*shell, *self.plan.command), bare)

    @asynccontextmanager
    async def _server(
        self, subject: ServerUnderTest | None
    ) -> AsyncIterator[tuple[Endpoint, ServerContext | None]]:
        """Start the server, or find it. Yields its endpoint, and its processes if bothends started it."""
        if subject is None:
            yield permitted_endpoint(Endpoint.parse(self.plan.endpoint), self.plan.allowed), None
            return
        async with subject.case_context(make_oracle(subject.contract), Transcript(), 3.0) as context:
            found = context.server.endpoint
            values = {"port": str(found.port), "path": str(found.path), "host": str(found.host)}
            endpoint = Endpoint.parse(fill_placeholders(self.plan.endpoint, values))
            if not endpoint.is_unix:
                endpoint = endpoint.with_port(found.port or 0).with_host(found.host)
            yield permitted_endpoint(endpoint, self.plan.allowed), context

    async def _run_attack(self, attack: Attack, subject: ServerUnderTest | None) -> AttackOutcome:
        started = time.monotonic()
        try:
            async with self._server(subject) as (endpoint, context):
                if reason := _skip_reason(attack, endpoint, context):
                    return AttackOutcome(attack=attack.id, hold=Hold.SKIPPED, reason=reason)
                outcome = await self._attack_server(attack, endpoint, context)
        except NotListening as error:
            if not self.outcomes:
                raise
            reason = f"the server didn't start again: {error}"
            return AttackOutcome(attack=attack.id, hold=Hold.FAILED, reason=reason, does=attack.does)
        return replace(outcome, seconds=round(time.monotonic() - started, 2))

    async def _attack_server(
        self, attack: Attack, endpoint: Endpoint, context: ServerContext | None
    ) -> AttackOutcome:
        tls = TlsOptions(verify=False) if endpoint.scheme == "tls" else None
        expectation = self.expectation or self.plan.expectation
        if expectation is None:
            expectation = await _in_thread(functools.partial(learn, endpoint, self.plan.request, tls=tls))
        self.expectation = expectation
        pids = [context.program.pid] if context else health.find_server(endpoint)
        honest = self._honest = HonestClient(endpoint, expectation, self.plan.timeout, tls)
        honest.start()
        quiet_start = time.monotonic()
        await asyncio.sleep(QUIET)
        before, quiet_end = health.read_health(pids), time.monotonic()
        restore = _starve(attack, context)
        try:
            used = health.processor_time(pids)
            counts, peak = await self._run_attacker(attack, endpoint, pids)
            used = health.processor_time(pids) - used
        finally:
            restore()
        attack_end = time.monotonic()
        recovered = await self._wait_recovered(honest, attack_end)
        await _in_thread(honest.stop)
        ended = _how_ended(context, pids)
        server = None
        if pids and before.processes and not ended:
            after = await _wait_idle(pids, before)
            share = round(max(0.0, used) / (attack_end - quiet_end), 3)
            idle = await _idle_processor(pids)
            server = ServerFigures(before, after, max(peak, before.memory), share, idle)
        elif pids and before.processes:
            server = ServerFigures(before, Health(), peak)
        ending, complaint = await _terminate(context) if context and not ended else (ended, "")
        attacked = honest.taken(quiet_end, attack_end)
        seen = Observation(
            HonestFigures.of(honest.taken(quiet_start, quiet_end)),
            HonestFigures.of(attacked),
            recovered,
            ended=ended,
            wrong=_first(attacked, "wrong"),
            unserved=_first(attacked, "refused", "lost"),
            server=server,
            sigterm=complaint,
            load=load_factor(),
        )
        verdict = judge(seen, attack)
        return AttackOutcome(
            attack=attack.id, hold=verdict.hold, reason=verdict.reason, meaning=verdict.meaning,
            mistake=attack.mistake if verdict.hold is not Hold.HELD else "", others=verdict.others,
            does=attack.does, quiet=seen.quiet, attacked=seen.attacked,
            counts=tuple(sorted(counts.items())), server=server, ending=ending,
            stderr_tail=context.program.stderr_tail if context and ended else "",
        )  # fmt: skip

    async def _run_attacker(
        self, attack: Attack, endpoint: Endpoint, pids: list[int]
    ) -> tuple[dict[str, int], int]:
        """Run the attacker's process. Returns: its counts, and the server's largest memory meanwhile."""
        assert self.expectation is not None
        plan: dict[str, Any] = {
            "attack": attack.id,
            "endpoint": str(endpoint),
            "request": self.expectation.message(0).hex(),
            "seed": f"{self.plan.seed}:{attack.id}",
            "duration": self.plan.duration,
        }
        process = _start_attacker()
        assert process.stdin is not None
        assert process.stdout is not None
        peak, text = 0, b""
        try:
            process.stdin.write(json.dumps(plan).encode() + b"\n")
            process.stdin.flush()
            reading = _in_thread(process.stdout.read)
            deadline = time.monotonic() + self.plan.duration + _ATTACKER_EXIT
            while not reading.done() and time.monotonic() < deadline:
                peak = max(peak, health.read_memory_usage(pids))
                await asyncio.wait([reading], timeout=_SAMPLING)
            text = reading.result() if reading.done() else b""
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
        counts: dict[str, int] = json.loads(text) if text.strip() else {}
        if not counts:
            self.notes.append(f"{attack.id}: the attacker ended early")
        return counts, peak

    async def _wait_recovered(self, honest: HonestClient, since: float) -> bool:
        """Wait until honest requests are answered again. Returns whether they are."""
        while True:
            await asyncio.sleep(0.1)
            last = honest.taken(since, float("inf"))[-_RECOVERED:]
            if len(last) == _RECOVERED and all(each.outcome == "right" for each in last):
                return True
            if time.monotonic() > since + RECOVERY + self.plan.timeout:
                return bool(last) and last[-1].outcome == "right"


def _start_attacker() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        self_command("bothends.attack.attacker_process"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def _in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Run a function in a thread that doesn't delay the exit, so that ^C ends at once."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("T", result))

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, daemon=True).start()
    return future


def _skip_reason(attack: Attack, endpoint: Endpoint, context: ServerContext | None) -> str:
    if attack.kind != ("stream" if endpoint.is_stream else "datagram"):
        return f"it is for {attack.kind} endpoints"
    if attack.inet_only and endpoint.is_unix:
        return "UNIX sockets don't have it"
    if attack.starves and context is None:
        return "it needs a server that bothends starts: give its command after --"
    return ""


def _starve(attack: Attack, context: ServerContext | None) -> Callable[[], None]:
    """Deprive the server of what the attack names. Returns a function that gives it back."""
    limits: list[tuple[int, int, int]] = []
    if context is not None and attack.starves:
        for pid in context.program.process_tree():
            with contextlib.suppress(OSError, ValueError):
                if attack.starves == "descriptors":
                    soft = limit_descriptors(pid, _SPARE_WHEN_STARVED)
                    limits.append((pid, resource.RLIMIT_NOFILE, soft))
                else:
                    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
                    limits.append((pid, resource.RLIMIT_FSIZE, soft))

    def restore() -> None:
        for pid, kind, soft in limits:
            with contextlib.suppress(OSError, ValueError):
                if kind == resource.RLIMIT_NOFILE:
                    set_descriptor_limit(pid, soft)
                else:
                    resource.prlimit(pid, kind, (soft, resource.prlimit(pid, kind)[1]))

    return restore


async def _wait_idle(pids: list[int], before: Health) -> Health:
    """Wait until descriptors, threads and processes are as before, up to `IDLE` seconds."""
    deadline = time.monotonic() + IDLE
    while True:
        now = health.read_health(pids)
        kept = max(
            getattr(now, name) - getattr(before, name)
            for name in ("descriptors", "threads", "processes", "zombies")
        )
        if kept <= SPARE_DESCRIPTORS // 2 or time.monotonic() > deadline:
            return now
        await asyncio.sleep(0.1)


async def _idle_processor(pids: list[int]) -> float:
    """Return the share of a processor that the server uses: the lowest of three windows of time."""
    lowest = float("inf")
    for _ in range(3):
        used, started = health.processor_time(pids), time.monotonic()
        await asyncio.sleep(_IDLE_WINDOW)
        share = (health.processor_time(pids) - used) / (time.monotonic() - started)
        lowest = min(lowest, max(0.0, share))
        if lowest < 0.05:
            break
    return round(lowest, 3)


def _how_ended(context: ServerContext | None, pids: list[int]) -> str:
    """Return how the server has ended by itself; "" if it runs, or if that is not known."""
    if context is not None:
        return context.program.exit_description if not context.program.running else ""
    return "its process is gone" if pids and not health.read_health(pids).processes else ""


async def _terminate(context: ServerContext) -> tuple[str, str]:
    """Send SIGTERM. Returns: how the server ended, and what is wrong with that, or ""."""
    started = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(context.program.pid, signal.SIGTERM)
    limit = SIGTERM_TIMEOUT * context.load_factor
    if not await context.program.wait(limit):
        return "still running", f"it still runs {limit:g} s after SIGTERM"
    return f"{context.program.exit_description} {time.monotonic() - started:.1f} s after SIGTERM", ""


def _first(samples: Sequence[Sample], *outcomes: str) -> str:
    return next((each.detail for each in samples if each.outcome in outcomes), "")
