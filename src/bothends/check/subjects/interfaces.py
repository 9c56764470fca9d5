"""The runner's interface to a program under test, a server or a client."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from bothends.check.case import CaseContext
from bothends.check.contract import Contract
from bothends.check.oracle import Oracle
from bothends.check.sandbox.launcher import Sandbox
from bothends.check.transcript import Transcript
from bothends.endpoints import Endpoint

ContextT_co = TypeVar("ContextT_co", bound=CaseContext, covariant=True)


class ProgramUnderTest(Protocol[ContextT_co]):
    """A program to judge. Its cases run in contexts of type ContextT_co."""

    contract: Contract
    sandbox: Sandbox | None
    """The sandbox that the program runs in, if any."""

    trace: Path | None
    """The HTML page for the calls and packets of the next attempt, if it is traced."""

    load_factor: float
    """How much slower this machine is than an idle one: 1 or more."""

    assigns_port: bool
    """The checker chooses the port or path."""

    fixed_endpoint: Endpoint | None
    """The only endpoint on which the program listens, if it is fixed."""

    notes: list[str]
    """What a report must say about how the program was run."""

    own_network: bool
    """Whether the program may be started in a network namespace of its own."""

    def wants_own_network(self) -> bool:
        """Whether network namespaces of its own are of use for this program."""

    def can_start(self) -> bool:
        """Whether the program can be started from where this process is, which runs no event loop."""

    @property
    def title(self) -> str:
        """The program's name in a report."""

    @property
    def is_spawned(self) -> bool:
        """Whether the checker starts the program."""

    @property
    def parallel(self) -> bool:
        """Whether several instances can run at the same time."""

    async def prepare(self) -> float:
        """Find out how the program is started and where it listens.

        Returns: seconds until it was ready.

        Raises:
            NotListening: it cannot be judged.
            UsageError: the command or the endpoint is unusable.
        """

    @property
    def takes_host(self) -> bool:
        """Whether the checker tells the program its host."""

    async def explain_gate(self, oracle: Oracle, timeout: float) -> str:
        """Return why the first case fails, found out by trying, or "" if that shows nothing."""

    async def leaves_after_one_client(self, oracle: Oracle, timeout: float) -> bool:
        """Whether the program, a server, exits after one client that was served: found out by trying."""

    def answering(self, oracle: Oracle, timeout: float) -> AbstractAsyncContextManager[None]:
        """Return a context in which an oracle that asks a reference server has one.

        Raises:
            UsageError: it needs one, and none was given.
        """

    async def close(self) -> None:
        """Release everything after the last case."""

    def case_context(
        self, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> AbstractAsyncContextManager[ContextT_co]:
        """Return the context of one attempt at one case; on exit, its sockets and processes are ended.

        Args:
            timeout: seconds for each step.

        Raises:
            NotListening, SystemCallFailed: the program cannot be started.
        """
