"""The kept set of mutations applies to the source as it is, and covers all of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.mutation import FACTS_HEADER, ROOT, Mutation, stated_facts
from tests.mutants.table import MUTATIONS
from tests.test_architecture import RANKS

SOURCES = sorted([*(ROOT / "src/bothends").rglob("*.py"), *(ROOT / "native").rglob("*.[ch]")])
STATING = [path for path in SOURCES if FACTS_HEADER in path.read_text(encoding="utf-8")]
UNTESTED = {"__init__", "__main__"}  # exports, and a call of the command line


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[each.name for each in MUTATIONS])
def test_mutation_applies_once_and_still_parses(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    changed = mutation.apply(text)
    assert changed != text
    if mutation.file.endswith(".py"):
        compile(changed, mutation.file, "exec")
    for test in mutation.tests.split():
        assert (ROOT / test.partition("::")[0]).exists(), test


def test_names_are_unique_and_begin_with_their_package() -> None:
    assert max(Counter(each.name for each in MUTATIONS).values()) == 1
    for each in MUTATIONS:
        assert each.name.startswith(each.package.replace("_", "-")), each.name


def test_each_package_has_mutations() -> None:
    counts = Counter(each.package for each in MUTATIONS)
    for unit in {*RANKS, "native"} - UNTESTED:
        is_package = unit == "native" or (ROOT / "src/bothends" / unit).is_dir()
        assert counts[unit] >= (2 if is_package else 1), unit


@pytest.mark.parametrize("path", STATING, ids=[str(path.relative_to(ROOT)) for path in STATING])
def test_each_stated_fact_of_the_kernel_has_a_mutation(path: Path) -> None:
    stated = stated_facts(path.read_text(encoding="utf-8"))
    covered = {fact for each in MUTATIONS if ROOT / each.file == path for fact in each.facts}
    assert stated
    assert covered == stated
