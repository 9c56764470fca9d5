"""No false alarms: the robust starters pass every case on a busy machine.

`BOTHENDS_ROUNDS=20` runs each 20 times; `make slow` has time for once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bothends.starters.writing import ENGINES, LANGUAGES, ROLES, TRANSPORTS, make_starter
from tests.check.helpers import build_starter, failed_cases, format_failures, judge, judge_client

ROUNDS = int(os.environ.get("BOTHENDS_ROUNDS", "1"))
BUSY_PROCESSES_PER_CPU = 1  # processes in a busy loop, per processor
STARTERS = [
    (role, transport, language, engine)
    for role in ROLES
    for transport in TRANSPORTS
    for language in LANGUAGES
    for engine in (ENGINES[language] if role == "server" and transport != "udp" else ("",))
]


@pytest.fixture
def busy_machine() -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(BUSY_PROCESSES_PER_CPU * (os.cpu_count() or 1)):
            program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(program.wait)
            stack.callback(program.kill)
        yield


@pytest.mark.slow
@pytest.mark.timeout(300 * ROUNDS)
@pytest.mark.usefixtures("busy_machine")
@pytest.mark.parametrize(("role", "transport", "language", "engine"), STARTERS)
def test_correct_starter_under_cpu_load_fails_nothing(
    role: str, transport: str, language: str, engine: str, tmp_path: Path
) -> None:
    command = build_starter(tmp_path, make_starter(role, language, transport, engine=engine or None))
    judge_program = judge if role == "server" else judge_client
    for _ in range(ROUNDS):
        result = judge_program(command, f"upper-{transport}")
        assert not failed_cases(result), format_failures(result)
