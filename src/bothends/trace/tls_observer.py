"""TLS in plain text during a run: the probes on libssl, the secrets, and the calls that they become.

    TlsSource ──> records ──> TlsMatcher ──> calls ──> Correlator
    SecretsFile ──> Trace.tls_secrets

A record is read before the system calls of its thread are, and added when they are known: so the calls that
it made are there, as those that caused a packet are (`session.py`, rule 1).
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from bothends.trace.capture.tls_secrets import SecretsFile
from bothends.trace.capture.tls_source import TlsRecord, TlsSource
from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.tls_calls import TlsMatcher
from bothends.trace.model import CausalLink, Point, Trace

MAX_NAMED: Final = 4  # processes that a note names


class TlsObserver:
    """Observes TLS for a `TraceSession`.

    Args:
        source: sees the plaintext; None if that cannot be had.
        secrets: collects the secrets of the programs that bothends starts.
    """

    def __init__(self, source: TlsSource | None, secrets: SecretsFile) -> None:
        self._source = source
        self._secrets = secrets
        self._matcher: TlsMatcher | None = None
        self._trace = Trace()
        self._waiting: deque[TlsRecord] = deque()

    @property
    def variables(self) -> Mapping[str, str]:
        """What the environment of the programs has in addition."""
        return self._secrets.variables

    @property
    def has_source(self) -> bool:
        """Whether plaintext is seen, so that `fileno` can be watched."""
        return self._source is not None

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are new records."""
        assert self._source is not None
        return self._source.fileno()

    def begin(self, trace: Trace) -> None:
        """Add what is seen to a trace from now on."""
        self._trace = trace
        self._matcher = TlsMatcher(trace)

    @contextlib.contextmanager
    def starting(self, argv: Sequence[str]) -> Iterator[None]:
        """Observe the program that is started meanwhile."""
        if self._source is None:
            yield
            return
        path = shutil.which(argv[0]) if argv else None
        if path is not None:
            self._source.attach_program(path)
        with self._source.spawning():
            yield

    def look(self, pids: Iterable[int], started: Iterable[int]) -> float:
        """Look for the libraries of processes. Returns seconds until the next look."""
        return self._source.look(pids, started) if self._source is not None else math.inf

    def read(self) -> None:
        """Read new records and secrets. Called before the system calls are read."""
        if self._source is not None:
            self._waiting.extend(self._source.read())
        self._trace.tls_secrets += self._secrets.read()

    def observe(self, point: Point, correlator: Correlator) -> None:
        """Note a call."""
        if self._matcher is not None:
            for call, effect, kind in self._matcher.observe(point):
                correlator.link_library_call(CausalLink(call.number, effect, kind))

    def add_to(self, correlator: Correlator, numbers: Iterator[int], horizon: int) -> bool:
        """Add the calls that have ended by `horizon`, in nanoseconds. Returns whether there were any."""
        has_added = False
        while self._matcher is not None and self._waiting and self._waiting[0].until <= horizon:
            found = self._matcher.add(self._waiting.popleft(), next(numbers))
            if found is not None:
                correlator.add_library_call(*found)
                has_added = True
        return has_added

    def notes(self) -> Iterator[str]:
        """Return what the user should know at the end of a run: what was not seen."""
        if self._source is None or self._matcher is None:
            return
        if lost := self._source.count_lost():
            yield f"{lost:,} pieces of plaintext are missing: they came faster than they were read"
        roles: dict[str, set[str]] = {}  # by the reason
        for number in self._matcher.processes_not_seen():
            process = self._trace.processes[number]
            if process.role:
                roles.setdefault(self._source.why_not_seen(process.pid), set()).add(process.role)
        for reason, found in sorted(roles.items()):
            names = sorted(found)
            named = ", ".join(names[:MAX_NAMED]) + (" and others" if names[MAX_NAMED:] else "")
            yield f"TLS of {named} is drawn encrypted only: {reason}"
