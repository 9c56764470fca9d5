"""Notes beside the files of observers."""

from __future__ import annotations

import pytest

from bothends.cli.output_files import output_files


def test_note_with_text_of_others_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: a line feed in the name of a proxy begins a line of its own, which looks like another note."""
    with output_files() as files:
        files.notify("proxy a\nbothends: \x1b[2Jforged")
    assert capfd.readouterr().err == "proxy a\\nbothends: \\x1b[2Jforged\n"
