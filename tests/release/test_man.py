"""The man pages: one for each verb, without a complaint of mandoc, and complete."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bothends.cli.main import VERBS
from release.make_man import write_pages
from tests.tools import needs_tool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("man")
    write_pages(found)
    return found


def test_each_verb_has_a_page(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"bothends.1", *(f"bothends-{verb}.1" for verb in VERBS)} <= names
    assert "bothends-check-server.1" in names
    listed = (folder / "bothends.1").read_text()
    assert all(f"bothends\\-{verb}" in listed for verb in VERBS)
    assert "141" in listed
    assert "NO_COLOR" in listed


def test_page_has_options_examples_and_statuses(folder: Path) -> None:
    page = (folder / "bothends-serve.1").read_text()
    assert re.search(r"\.TP\n\\fB\\-e\\fR, \\fB\\-\\-exec\\fR CMD\nRun a command", page)
    assert (
        "--tls-self-signed" in page.replace("\\-", "-").partition(".SH EXAMPLES")[2].partition(".SH OPT")[0]
    )
    statuses = (folder / "bothends-wire.1").read_text().partition(".SH EXIT STATUS")[2]
    assert "69 if the system forbids" in statuses.partition(".SH")[0]


@needs_tool("mandoc")
def test_mandoc_has_no_complaint(folder: Path) -> None:
    pages = sorted(str(path) for path in folder.iterdir())
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)
