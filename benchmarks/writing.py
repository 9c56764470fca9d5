"""Measure targets side by side, and format a document as Markdown tables, one per load."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

from bothends.bench import campaign
from bothends.bench.host_info import host_info
from bothends.bench.report import text
from bothends.bench.results import VERSION, Document
from bothends.bench.targets import BenchTarget


def compare(
    name: str,
    targets: Sequence[BenchTarget],
    baseline: str,
    loads: Sequence[str] | None,
    settings: campaign.CampaignSettings,
) -> None:
    """Measure targets under some loads (default: all), and print tables.

    Without options on the command line, which would change what is measured, the tables are also written to
    NAME.md. `name`: of the module in this folder; `baseline`: the target that the others are compared with.
    """

    def show_measurement(done: int, total: int, description: str) -> None:
        print(f"{done + 1} of {total}: {description}", file=sys.stderr)

    profiles = [campaign.LOAD_PROFILES[each] for each in loads or campaign.LOAD_PROFILES]
    entries = campaign.run_campaign(targets, profiles, settings, show_measurement)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = " ".join([f"python -m benchmarks.{name}", *sys.argv[1:]])
    found = tables(Document(VERSION, now, command, host_info(), entries, baseline=baseline))
    if not sys.argv[1:]:
        Path(__file__).with_name(f"{name}.md").write_text(found, encoding="utf-8")
    print(found)


def tables(document: Document) -> str:
    """Return the command, the host and all figures in Markdown."""
    parts = [f"`{document.command}`", "", text.notes(document), ""]
    for load, entries in text.by_load(document):
        heads, rows = text.table(document, entries)
        lines = [heads, ["---"] * len(heads), *rows]
        parts += [f"## {load}", "", *(f"| {' | '.join(row)} |" for row in lines), ""]
    return "\n".join(parts)
