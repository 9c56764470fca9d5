"""make bench: all engines beside what others would use, kept for the README beside this file.

It is `bothends bench engines`, and writes engines.md (every figure) and engines.svg (requests a second by 50
connections). Give it a quiet machine and a quarter of an hour; its options are those of the command.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.writing import tables
from bothends.bench.report import plots
from bothends.bench.report.text import by_load
from bothends.bench.results import decode

HERE = Path(__file__).resolve().parent
PICTURED = "tcp, 50 connections"


def main() -> None:
    command = [sys.executable, "-m", "bothends", "bench", "engines", "--json", *sys.argv[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not done.stdout:
        sys.exit(done.returncode)
    document = decode(done.stdout, "bothends bench engines")
    for load, entries in by_load(document):
        if load == PICTURED:
            measured = [entry for entry in entries if entry.rounds]
            (HERE / "engines.svg").write_text(plots.throughput(measured, PICTURED), encoding="utf-8")
    text = tables(document)
    (HERE / "engines.md").write_text(text, encoding="utf-8")
    print(text)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
