"""Run the commands of docs/how-to/impair.md, and compare docs/reference/toxics.md with the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from bothends.toxics import registry
from bothends.toxics.attributes import Rule, rules_of
from bothends.toxics.base import Toxic
from tests.interop.running import ROOT
from tests.pages import Page
from tests.tools import needs_tool


@pytest.mark.slow
@needs_tool("curl")
@pytest.mark.timeout(180)  # about thirty processes in sequence, possibly on a busy machine
def test_impair_guide_commands(tmp_path: Path) -> None:
    Page(ROOT / "docs" / "how-to" / "impair.md", tmp_path).run()


@pytest.mark.slow
@needs_tool("curl")
def test_from_toxiproxy_guide_commands(tmp_path: Path) -> None:
    Page(ROOT / "docs" / "how-to" / "from-toxiproxy.md", tmp_path).run()


REFERENCE = (ROOT / "docs" / "reference" / "toxics.md").read_text(encoding="utf-8")


def test_toxics_reference_sections_match_registry() -> None:
    assert re.findall(r"^## (\w+)$", REFERENCE, re.MULTILINE) == list(registry.TOXICS)


def rows_of(kind: type[Toxic]) -> list[str]:
    rows = [f"| {medium} | {effect} |" for medium, effect in kind.effects.items()]
    rules = rules_of(kind)
    for each in dataclasses.fields(kind):
        rule: Rule = rules[each.name]
        unit = " or ".join(rule.choices) if rule.choices else rule.unit
        rows.append(f"| `{each.name}` | {unit} | {each.default} | {rule.description} |")
    return rows


@pytest.mark.parametrize("name", registry.TOXICS)
def test_toxics_reference_tables_match_code(name: str) -> None:
    kind = registry.load(name)
    section = re.split(r"^## ", REFERENCE.partition(f"## {name}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| .* \|$", section, re.MULTILINE)
    assert [row for row in rows if not re.match(r"\| (medium|attribute) \|", row)] == rows_of(kind)
    assert ("As in Toxiproxy." in section) == kind.in_toxiproxy
    assert kind.incompatibility in section
