"""The guides to judging: their commands run and print what the pages show."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.contract import AnswerSpec, ClientSpec, Contract, ServerSpec
from bothends.check.scenes.spec import SceneSpec
from tests.interop.running import ROOT
from tests.pages import Page
from tests.tools import needs_tool

HOW_TO = ROOT / "docs" / "how-to"


@pytest.mark.spread("page", one_in=4)
@pytest.mark.parametrize(
    "page", ["judge.md", "judge-a-proxy.md", "write-a-contract.md", "write-a-dialogue.md"]
)
def test_how_to_page_commands_run(page: str, tmp_path: Path) -> None:
    Page(HOW_TO / page, tmp_path).run()


@pytest.mark.slow
@pytest.mark.timeout(240)
@needs_tool("strace")
def test_from_the_slide_page_commands_run(tmp_path: Path) -> None:
    Page(HOW_TO / "from-the-slide.md", tmp_path).run()


def test_every_contract_key_is_documented() -> None:
    text = (HOW_TO / "write-a-contract.md").read_text(encoding="utf-8")
    # Set by the loader, a table of its own, or described with `matches`.
    exceptions = {"name", "folder", "answer", "server", "client", "example"}
    for cls in (Contract, AnswerSpec, ServerSpec, ClientSpec):
        for key in set(cls.__struct_fields__) - exceptions:
            assert f"| `{key}` |" in text, key
    text = (HOW_TO / "write-a-dialogue.md").read_text(encoding="utf-8")
    for key in {*SceneSpec.__struct_fields__} - {"why", "mistake"}:  # in one row
        assert f"| `{key}` |" in text, key
