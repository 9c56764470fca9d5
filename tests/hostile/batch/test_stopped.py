"""Batches that are stopped or killed: the rows so far are written, and no process or folder is left."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.osutil.reaper import has_tag
from bothends.osutil.scratch import remove_leftovers

# It shows that it runs, and has a child that does not end with it.
BUILD = """import signal, subprocess, sys
if {ignores_sigterm}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "1000"])
with open(sys.argv[1], "w") as fifo:
    fifo.write("runs")
signal.pause()
"""


@pytest.mark.parametrize(
    ("number", "ignores_sigterm"),
    [
        (signal.SIGINT, False),
        (signal.SIGTERM, False),
        (signal.SIGKILL, True),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.slow),
    ],
)
def test_stopped_batch_writes_rows_and_leaves_nothing(
    number: signal.Signals, ignores_sigterm: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for name in ("tmp", "first", "second"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "second" / "build.py").write_text(BUILD.format(ignores_sigterm=ignores_sigterm))
    (tmp_path / "second" / "check.toml").write_text(
        f'build = ["python3 build.py {tmp_path / "fifo"}"]\nrun = "true"\n'
    )
    batch = subprocess.Popen(
        [sys.executable, "-m", "bothends", "check", "batch", "--contract", "upper-udp", "--no-sandbox",
         "--workers", "1", "first", "second"],
        cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path / "tmp")}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert (tmp_path / "fifo").read_text() == "runs"  # so `first` has been judged
    batch.send_signal(number)
    output, _ = batch.communicate(timeout=60)
    assert batch.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert "Traceback" not in output
    tagged = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    if number is signal.SIGKILL:
        assert list((tmp_path / "tmp").glob("bothends-*"))
        remove_leftovers()
    else:
        with (tmp_path / "results" / "results.csv").open(newline="") as table:
            assert [row["name"] for row in csv.DictReader(table)] == ["first"]
        assert not [pid for pid in tagged if has_tag(pid, [f"BOTHENDS_BATCH={batch.pid}-".encode()])]
    assert not list((tmp_path / "tmp").glob("bothends-*"))


def test_next_batch_removes_sources_of_a_killed_one_although_it_judges_nothing(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "one").mkdir()
    command = [
        sys.executable,
        "-m",
        "bothends",
        "check",
        "batch",
        "--contract",
        "upper-udp",
        "--no-sandbox",
        "one",
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    for _ in range(2):  # the second one reuses the results of the first one
        leftover = tmp_path / "tmp" / f"bothends-batch-{os.getuid()}-x"
        leftover.mkdir(mode=0o700)
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 1, done.stderr
        assert not leftover.exists()
