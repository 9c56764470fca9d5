"""How long `bothends check` takes: suites with several scenes, and a batch. The table is in `judge.md`.

`python -m benchmarks.judge [--programs N]` needs redis-server and node for the suites that judge them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

NODE_ECHO: Final = """require("node:http").createServer((request, response) => request.pipe(response))
.listen(Number(process.argv[2]), "127.0.0.1", 511);"""
SUITES: Final = (
    (
        "key-value-resp",
        ["redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--dir", "{dir}"],
    ),
    ("http-body", ["node", "NODE_ECHO", "{port}"]),
    (
        "http-keep-alive",
        [
            sys.executable, "-m", "http.server", "--protocol", "HTTP/1.1", "-d", "{dir}", "-b", "127.0.0.1",
            "{port}",
        ],
    ),
)  # fmt: skip


def check(*words: str) -> None:
    """Run `bothends check`."""
    command = [sys.executable, "-m", "bothends", "check", *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def measure_suites(folder: Path) -> None:
    """Print the time of each suite."""
    script = folder / "echo.js"
    script.write_text(NODE_ECHO, encoding="utf-8")
    print("| contract | program | scenes | cases asked | s |\n|---|---|---|---|---|")
    for contract, words in SUITES:
        if shutil.which(words[0]) is None:
            continue
        report = folder / f"{contract}.json"
        command = [str(script) if word == "NODE_ECHO" else word for word in words]
        check("server", "--contract", contract, "--report", f"json={report}", "--", *command)
        result = json.loads(report.read_text(encoding="utf-8"))
        rows = result["outcomes"]
        asked = [each for each in rows if each["verdict"] not in ("SKIP", "INFO")]
        scenes = sum(
            each["stimulus"].startswith("scene ") and " steps of " in each["stimulus"] for each in rows
        )
        seconds = result["seconds"]
        print(f"| {contract} | {Path(words[0]).name} | {scenes} | {len(asked)} | {seconds:.1f} |")


def used_seconds() -> float:
    """Return the processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_batch(folder: Path, programs: int, workers: list[int]) -> None:
    """Print the time of a batch with different numbers of programs at a time."""
    subprocess.run(
        [sys.executable, "-m", "bothends", "new", "server", "--transport", "udp", str(folder / "starter")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    submissions = [folder / f"program-{number:03}" for number in range(programs)]
    for each in submissions:
        shutil.copytree(folder / "starter", each)
    processors = os.cpu_count() or 1
    print(
        "| programs | at a time | s | processor time, s | of all processors | load before |\n"
        "|---|---|---|---|---|---|"
    )
    for count in workers:
        out = folder / f"out-{count}"
        load, before, started_at = os.getloadavg()[0], used_seconds(), time.monotonic()
        check(
            "batch", *map(str, submissions), "--contract", "upper-udp", "--out", str(out),
            "--workers", str(count),
        )  # fmt: skip
        elapsed, used = time.monotonic() - started_at, used_seconds() - before
        share = used / elapsed / processors
        print(f"| {programs} | {count} | {elapsed:.0f} | {used:.0f} | {share:.0%} | {load:.1f} |")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=0, help="the size of the batch; 0: no batch")
    parser.add_argument("--workers", type=int, nargs="*", default=[2 * (os.cpu_count() or 1)])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.programs:
            measure_batch(Path(folder), arguments.programs, arguments.workers)
        else:
            measure_suites(Path(folder))


if __name__ == "__main__":
    main()
