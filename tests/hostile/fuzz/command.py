"""Fuzz all targets for some minutes, on all processors: `make fuzz`, or `python -m tests.hostile.fuzz`.

Exit status: 1 if an input failed. Each such input is saved in the corpus, shrunk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import traceback
from pathlib import Path
from typing import Final

from tests.hostile.fuzz.fuzzer import Report, describe, fuzz, save
from tests.hostile.fuzz.targets import TARGETS

MAX_MEMORY: Final = 4 << 30  # bytes of address space of a process


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="make fuzz", description="Fuzz everything that reads input of others."
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="for all targets together (600)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the inputs; default: another one each time"
    )
    parser.add_argument("--target", action="append", choices=[each.name for each in TARGETS], default=[])
    parser.add_argument("--keep", action="store_true", help="save inputs that reach new lines in the corpus")
    parser.add_argument("--input", type=Path, help="run this input of the corpus only")
    options = parser.parse_args()
    if options.input is not None:
        return run_input(options.input)
    names = options.target or [each.name for each in TARGETS]
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    processes = min(len(names), len(os.sched_getaffinity(0)))
    seconds = options.seconds * processes / len(names)
    print(f"seed {seed}, {seconds:.0f} s for each of {len(names)} targets", flush=True)
    failed = 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=1) as pool:
        for report in pool.imap_unordered(run_target, [(name, seed, seconds) for name in names]):
            share = 100 * report.refused / max(1, report.runs)
            print(
                f"{report.target:15} {report.runs:9,} inputs, {share:3.0f} % refused, "
                f"{report.lines:5,} lines, {len(report.kept):3} of them new, {len(report.failures)} failures",
                flush=True,
            )
            for failure in report.failures:
                failed += 1
                print(describe(report, failure, save(report.target, failure.data, "failure")), flush=True)
            for data in report.kept if options.keep else ():
                save(report.target, data, "kept")
    print(f"{failed} failures" if failed else "nothing failed")
    return 1 if failed else 0


def run_target(work: tuple[str, int, float]) -> Report:
    """Fuzz one target in a process of its own."""
    name, seed, seconds = work
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    return fuzz(next(each for each in TARGETS if each.name == name), seed, seconds=seconds)


def run_input(path: Path) -> int:
    """Run one input, whose folder is named after its target."""
    target = next(each for each in TARGETS if each.name == path.absolute().parent.name)
    try:
        accepted = target.check(path.read_bytes())
    except Exception:
        traceback.print_exc()
        return 1
    print("accepted" if accepted else "refused")
    return 0
