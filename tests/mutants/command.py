"""Judge the project's own tests by mutants of its source: `make mutants`, or `python -m tests.mutants`.

Exit status: 1 if the tests notice less than 90 % of the mutants, 2 if they can't be judged.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.mutants.mutation import Mutation, StaleMutation
from tests.mutants.runner import Outcome, RunFailed, judge_all
from tests.mutants.table import MUTATIONS

ENOUGH: Final = 0.9  # the share of mutants that the tests must notice


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="make mutants", description="Run the tests against small mutations of the source."
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="this mutation; repeatable"
    )
    parser.add_argument(
        "--package", metavar="P", action="append", default=[], help="mutations of this package"
    )
    parser.add_argument(
        "-j", "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="mutants at a time"
    )
    parser.add_argument("--list", action="store_true", help="print the mutations, and run nothing")
    options = parser.parse_args(arguments)
    chosen = choose(options.only, options.package)
    if not chosen:
        parser.error("there is no such mutation; --list prints all")
    if options.list:
        for each in chosen:
            print(f"{each.name:44} {each.breaks}")
        return 0
    outcomes = []
    signal.signal(signal.SIGTERM, _exit)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="bothends-mutants-") as scratch,
            contextlib.closing(judge_all(chosen, Path(scratch), max(1, options.jobs))) as judged,
        ):
            for outcome in judged:
                outcomes.append(outcome)
                word = "noticed" if outcome.noticed else "MISSED "
                print(f"{word} {outcome.seconds:5.1f} s  {outcome.mutation.name}: {outcome.by}", flush=True)
    except (RunFailed, StaleMutation) as error:
        print(error, file=sys.stderr)
        return 2
    print(*report(outcomes), sep="\n")
    return 0 if share(outcomes) >= ENOUGH else 1


def _exit(number: int, _frame: object) -> None:
    """End the runs and remove the scratch folder, instead of leaving both, as SIGTERM would."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def choose(names: Iterable[str], packages: Iterable[str]) -> list[Mutation]:
    """Return the mutations with these names or of these packages; all if neither is given."""
    names, packages = set(names), set(packages)
    if not names and not packages:
        return list(MUTATIONS)
    return [each for each in MUTATIONS if each.name in names or each.package in packages]


def share(outcomes: Iterable[Outcome]) -> float:
    """Return the share of the mutants that were noticed."""
    noticed = [outcome.noticed for outcome in outcomes]
    return sum(noticed) / len(noticed)


def report(outcomes: list[Outcome]) -> Iterable[str]:
    """Yield a table by package, the mutants that were not noticed, and the share of those that were."""
    by_package: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_package[outcome.mutation.package].append(outcome)
    yield f"\n{'package':16} mutants  noticed"
    for package, group in sorted(by_package.items()):
        yield f"{package:16} {len(group):7}  {sum(each.noticed for each in group):7}"
    missed = [each for each in outcomes if not each.noticed]
    if missed:
        yield "\nnot noticed:"
    for each in sorted(missed, key=lambda outcome: outcome.mutation.name):
        yield f"  {each.mutation.name}  {each.mutation.file}: {each.mutation.breaks} ({each.by})"
    yield f"\n{len(outcomes) - len(missed)} of {len(outcomes)} noticed, {share(outcomes):.0%}"
