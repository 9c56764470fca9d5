"""The command line, on mutants whose tests take less than a second."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.mutation import ROOT

MUTANTS = ("hexdump-offset-in-messages", "hexdump-del-printed")


@pytest.mark.slow
def test_sigterm_ends_the_runs_and_removes_the_scratch_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "tests.mutants", "--jobs=1"]
    for name in MUTANTS:
        command += ["--only", name]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"noticed")
        assert [*tmp_path.iterdir()]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert [*tmp_path.iterdir()] == []
