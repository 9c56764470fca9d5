"""Helpers to judge programs, for the tests of `check`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import Contract, load
from bothends.check.results import SuiteResult
from bothends.check.runner import DEFAULT_TIMEOUT, SuiteRun
from bothends.check.subjects.client_under_test import ClientUnderTest
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.suites.registry import cases, suite_for
from bothends.starters.writing import Starter
from tests.tools import find_tool

COMPILERS = {"py": None, "c": "cc", "java": "javac"}
BOTHENDS_COMMAND = [sys.executable, "-m", "bothends"]


def judge(
    command: list[str],
    contract: str | Contract = "upper-tcp",
    *only: str,
    endpoint: str = "",
    timeout: float = DEFAULT_TIMEOUT,
    thorough: bool = False,
) -> SuiteResult:
    """Judge a server by its command, or by its endpoint if it is running."""
    loaded = load(contract) if isinstance(contract, str) else contract
    suite = suite_for(loaded, "server")
    server = ServerUnderTest(loaded, command, endpoint)
    run = SuiteRun(server, cases(suite, loaded), suite, only=only, thorough=thorough, timeout=timeout)
    return asyncio.run(run.run())


def write_server_script(folder: Path, text: str) -> list[str]:
    """Write a Python server. Returns: its command."""
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return [sys.executable, "-u", str(path), "{port}"]


def failed_cases(result: SuiteResult) -> set[str]:
    """Return the ids of the failed cases."""
    return {each.case for each in result.outcomes if each.verdict is Verdict.FAIL}


def format_failures(result: SuiteResult) -> str:
    """Return a description of all failures, for an assertion's message."""
    return "\n".join(
        f"{each.verdict} {each.case}: expected {each.expected}; {each.happened} {each.stderr_tail}"
        + "".join(f"\n    {entry.seconds:.3f} {entry.actor}: {entry.event}" for entry in each.transcript)
        for each in result.outcomes
        if each.verdict is Verdict.FAIL
    )


def judge_client(command: list[str], contract: str | Contract = "upper-tcp", *only: str) -> SuiteResult:
    """Judge a client by its command."""
    loaded = load(contract) if isinstance(contract, str) else contract
    suite = suite_for(loaded, "client")
    return asyncio.run(
        SuiteRun(ClientUnderTest(loaded, command), cases(suite, loaded), suite, only=only).run()
    )


def build_starter(folder: Path, starter: Starter) -> list[str]:
    """Write and build a starter. Returns: its command, with absolute paths."""
    compiler = COMPILERS[starter.file.rpartition(".")[2]]
    if compiler and not find_tool(compiler):
        pytest.skip(f"{compiler} is not installed")
    (folder / starter.file).write_text(starter.text, encoding="utf-8")
    if starter.build:
        done = subprocess.run(starter.build, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    paths = {"python3": sys.executable, ".": str(folder), starter.file: str(folder / starter.file)}
    return [paths.get(word, str(folder / word[2:]) if word[:2] == "./" else word) for word in starter.run]
