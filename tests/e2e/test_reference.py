"""The reference pages of metrics, log and configuration: their commands work, their tables are complete."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from bothends.configuration import ServeOptions
from bothends.engines.base import Limits
from bothends.events import CloseReason
from bothends.layers import TlsSettings
from bothends.metrics import FAMILIES, SLOTS
from tests.interop.running import ROOT
from tests.pages import Page
from tests.tools import needs_tool

REFERENCE = ROOT / "docs" / "reference"


def rows(page: str, section: str = "") -> dict[str, str]:
    """Return the table rows of a page or of one section: the first cell, and the rest of the row."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    if section:
        text = re.split(r"^#+ ", text.partition(f" {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `([\w/]+)` \|(.*)\|$", text, re.MULTILINE))


@pytest.mark.spread("page", one_in=2)
@needs_tool("curl")
@pytest.mark.parametrize("page", ["metrics.md", "log.md", "configuration.md"])
def test_reference_page_commands(page: str, tmp_path: Path) -> None:
    Page(REFERENCE / page, tmp_path).run()


@pytest.mark.parametrize(
    ("section", "cls"), [("Keys", ServeOptions), ("limits", Limits), ("tls", TlsSettings)]
)
def test_reference_lists_every_key(section: str, cls: type[ServeOptions | Limits | TlsSettings]) -> None:
    assert set(rows("configuration.md", section)) == {field.name for field in fields(cls)}


def test_reference_lists_every_counter_and_label_value() -> None:
    counters = rows("metrics.md", "Counters")
    assert set(counters) == {f"{family.name}_total" for family in FAMILIES}
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        label = counters[f"{family.name}_total"].split("|")[0].strip()
        assert label == (f"`{family.label}`" if family.label else "")
        assert all(f"`{value}`" in text for value in family.values if value)
    assert all(f"`{cause.name.lower()}`" in text for cause in CloseReason)
    assert f"{SLOTS - 1:,} processes" in text
