"""Submissions that try to end a batch: each must get 0 points, and the others their own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

SERVER = 'run = "true {port}"\n'
MANIFESTS = {
    "quote": 'run = "./server \'"\n',
    "nul": 'run = "./server \\u0000"\n',
    "no-words": 'build = [""]\n' + SERVER,
    "deep": "run = " + "[" * 3000 + "]" * 3000 + "\n",
}


def test_hostile_submissions_show_in_their_own_rows_only(tmp_path: Path) -> None:
    for name, text in MANIFESTS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "check.toml").write_text(text)
    for name, size in (("sparse", 1 << 40), ("large", 17 << 20)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "data").open("wb") as file:
            file.truncate(size)
    (tmp_path / "tree" / "/".join(["d"] * 100)).mkdir(parents=True)
    (tmp_path / "\x1b[31m").mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    folders = sorted(os.fsencode(each) for each in tmp_path.iterdir())
    command = [sys.executable, "-m", "bothends", "check", "batch", "--contract", "upper-tcp", "--no-sandbox"]
    done = subprocess.run(
        [*map(os.fsencode, command), b"--out", os.fsencode(tmp_path / "out"), *folders],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.reader(table))
    assert len(rows) == len(folders) + 1
