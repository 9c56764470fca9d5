"""What the runner needs of whatever is judged, a server or a client: two small ports."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from bothends.check.case import CheckFailed
from bothends.check.contract import Contract
from bothends.check.oracle import Oracle
from bothends.check.sandbox.launcher import Sandbox
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint


class CaseContext(Protocol):
    """One case under way; the case's `run` is given it."""

    async def diagnose(self, failure: CheckFailed) -> tuple[CheckFailed, str]:
        """The failure with what the process has to say of it, and the last lines of its standard error."""


class ProgramUnderTest(Protocol):
    """A program that is judged."""

    contract: Contract
    sandbox: Sandbox | None
    """Where the program runs, if not among all others."""

    trace: Path | None
    """Where to draw the calls and packets of the next attempt."""

    load_factor: float
    """How much slower this machine is than an idle one."""

    assigns_port: bool
    """Where it listens is ours to choose."""

    fixed_endpoint: Endpoint | None
    """The only place where it listens."""

    @property
    def title(self) -> str:
        """What it is called in a report."""

    @property
    def is_spawned(self) -> bool:
        """Whether we start it."""

    @property
    def parallel(self) -> bool:
        """Whether several can run at once."""

    async def prepare(self) -> float:
        """Find out how it is come by; seconds that it takes to be ready.

        Raises:
            NotReady: it can't be judged at all, and why.
        """

    async def close(self) -> None:
        """All cases are over."""

    def case_context(
        self, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> AbstractAsyncContextManager[CaseContext]:
        """One try of one case; all is closed and ended afterwards.

        Raises:
            NotReady, SystemRefused: the program can't be started.
        """
