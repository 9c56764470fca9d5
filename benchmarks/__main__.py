"""make bench: measure, show a table, and keep it in benchmarks/latest.md for the README beside it."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from benchmarks.engines import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each workload of each engine")
    parser.add_argument("--seed", type=int, default=1, help="of the order in each round")
    asked = parser.parse_args()
    heads = ["workload", "engine", "requests/s", "to epoll", "server us/request", "to epoll"]
    rows = run(asked.rounds, asked.seconds, asked.seed)
    lines = [f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows]]
    machine = (
        f"Linux {platform.release()}, {os.cpu_count()} processors, Python {platform.python_version()}; "
        f"{asked.rounds} rounds of {asked.seconds:g} s, seed {asked.seed}; medians of the ratios in a round."
    )
    text = "\n".join([machine, "", *lines, ""])
    Path(__file__).with_name("latest.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
