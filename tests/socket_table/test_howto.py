"""Run the commands of the how-to on the socket table and compare their output."""

from __future__ import annotations

from pathlib import Path

from tests.interop.running import ROOT
from tests.pages import Page


def test_sockets_table_page(tmp_path: Path) -> None:
    Page(ROOT / "docs" / "how-to" / "sockets-table.md", tmp_path).run()
