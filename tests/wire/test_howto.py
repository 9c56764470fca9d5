"""The commands of docs/how-to/wire.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.running import ROOT
from tests.pages import Page
from tests.wire.hosts import needs_hosts


@pytest.mark.slow
@needs_hosts
def test_wire_guide_commands(tmp_path: Path) -> None:
    Page(ROOT / "docs" / "how-to" / "wire.md", tmp_path).run()
