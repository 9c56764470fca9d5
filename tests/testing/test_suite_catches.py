"""The contract suite fails for engines with a bug, and passes for the same engine without it."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.testing.faulty_contracts import FAULTS

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = "tests/testing/faulty_contracts.py"


def run(tests: list[str], tmp_path: Path) -> dict[tuple[str, str], str]:
    """Run tests in a separate pytest. Returns: (class, test) -> the failure message, or ""."""
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", "-o", "addopts="]
    command += ["--import-mode=importlib", f"--junitxml={report}", *(f"{FILE}::{test}" for test in tests)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean, check=False)
    assert report.exists(), done.stdout + done.stderr
    outcomes = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        wrong = [each.get("message", "") for each in case if each.tag in ("failure", "error", "skipped")]
        outcomes[case.get("classname", "").rpartition(".")[2], case.get("name", "")] = "\n".join(wrong)
    return outcomes


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_contract_suite_catches_each_fault(tmp_path: Path) -> None:
    outcomes = run([f"Test{fault}::{test}" for fault, test in FAULTS.items()], tmp_path)
    missed = [
        f"{fault} passes {test}" for fault, test in FAULTS.items() if not outcomes[f"Test{fault}", test]
    ]
    assert not missed, "\n".join(missed)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_contract_suite_passes_without_fault(tmp_path: Path) -> None:
    tests = sorted(set(FAULTS.values()) - {"test_peer_that_never_reads_is_idle"})
    outcomes = run([f"TestFaultyEngine::{test}" for test in tests], tmp_path)
    assert {name for _, name in outcomes} == set(tests)
    wrong = [f"{test}: {what}" for (_, test), what in outcomes.items() if what]
    assert not wrong, "\n".join(wrong)
