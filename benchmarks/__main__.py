"""make bench: compare all engines, as they are run, with the reference servers.

Runs `bothends bench engines --as-run`, which measures each engine quiet, with metrics and with a log of its
connections, and writes engines.md (all figures) and engines.svg (requests per second over 50 connections). It
takes three quarters of an hour and needs an idle machine. Options are those of the command.
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
PLOTTED_LOAD = "tcp, 50 connections"


def main() -> None:
    command = [sys.executable, "-m", "bothends", "bench", "engines", "--as-run", "--json", *sys.argv[1:]]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not result.stdout:
        sys.exit(result.returncode)
    document = decode(result.stdout, "bothends bench engines")
    for load, entries in by_load(document):
        if load == PLOTTED_LOAD:
            measured = [entry for entry in entries if entry.rounds]
            (HERE / "engines.svg").write_text(plots.as_run(measured, PLOTTED_LOAD), encoding="utf-8")
    text = tables(document)
    (HERE / "engines.md").write_text(text, encoding="utf-8")
    print(text)
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
