"""How the tests of `check` judge a program."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bothends.check.case import Verdict
from bothends.check.client import Client
from bothends.check.contract import Contract, load
from bothends.check.results import Result
from bothends.check.runner import PATIENCE, Run
from bothends.check.suites.registry import cases, suite_for
from bothends.check.target import Target

OURS = [sys.executable, "-m", "bothends"]


def judge(
    command: list[str],
    contract: str | Contract = "upper-tcp",
    *only: str,
    endpoint: str = "",
    patience: float = PATIENCE,
) -> Result:
    """Judge a server by its command."""
    agreed = load(contract) if isinstance(contract, str) else contract
    suite = suite_for(agreed, "server")
    target = Target(agreed, command, endpoint)
    return asyncio.run(Run(target, cases(suite), suite, only=only, patience=patience).run())


def script(folder: Path, text: str) -> list[str]:
    """A server in Python, as a command."""
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return [sys.executable, "-u", str(path), "{port}"]


def failed(result: Result) -> set[str]:
    """The cases that failed."""
    return {each.case for each in result.outcomes if each.verdict is Verdict.FAIL}


def told(result: Result) -> str:
    """All that went wrong, for an assertion's message."""
    return "\n".join(
        f"{each.verdict} {each.case}: expected {each.expected}; {each.happened} {each.complaint}"
        + "".join(f"\n    {entry.seconds:.3f} {entry.who}: {entry.what}" for entry in each.transcript)
        for each in result.outcomes
        if each.verdict is Verdict.FAIL
    )


def judge_client(command: list[str], contract: str | Contract = "upper-tcp", *only: str) -> Result:
    """Judge a client by its command."""
    agreed = load(contract) if isinstance(contract, str) else contract
    suite = suite_for(agreed, "client")
    return asyncio.run(Run(Client(agreed, command), cases(suite), suite, only=only).run())
