"""`bothends new`: where the program is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.cli.main import VERBS, run


@pytest.mark.parametrize("name", ["server.py", "notes", "Server.java"])
def test_file_instead_of_a_folder_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text("mine")
    assert run(["new", "server", str(path), "--force"]) == 2
    assert f"bothends: {path} is a file; FOLDER is " in capsys.readouterr().err
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["server.py", "server.c"])
def test_name_of_a_file_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new", "server", str(tmp_path / name)]) == 2
    assert f"{name} looks like a file; FOLDER is " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "new", "v1.2", "old.py"])
def test_folder_is_used_or_made(name: str, tmp_path: Path) -> None:
    (tmp_path / "old.py").mkdir()
    assert run(["new", "client", str(tmp_path / name)]) == 0
    assert (tmp_path / name / "client.py").is_file()


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_has_no_tabs_and_no_marks(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for verb in VERBS:
        assert run([verb, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "\t" not in shown
        assert "\\b" not in shown  # click's mark of a paragraph that stays as it is
