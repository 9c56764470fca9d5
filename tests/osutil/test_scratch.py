"""Temporary folders: locked while in use, removed at the end, or later if their process was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.osutil.scratch import (
    remove_leftovers,
    scratch_folder,
)

OWN = f"bothends-check-{os.getuid()}-"
HOLD = """
from bothends.osutil.scratch import make_scratch_folder
folder = make_scratch_folder("check")
(folder / "secret").write_text("source")
print(folder, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_folder_is_private_and_removed_with_its_contents(tmp_path: Path) -> None:
    with scratch_folder("check") as folder:
        assert folder.name.startswith(OWN)
        assert folder.stat().st_mode & 0o777 == 0o700
        deep = folder
        for _ in range(300):
            deep /= "deep"
        deep.mkdir(parents=True)
        deep.chmod(0o500)
    assert not names(tmp_path)


def test_leftovers_are_removed_but_not_folders_in_use_and_links(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / f"{OWN}link").symlink_to(tmp_path / "other")
    (tmp_path / f"{OWN}old" / "program").mkdir(parents=True)
    (tmp_path / f"bothends-check-{os.getuid() + 1}-x").mkdir()
    with scratch_folder("check") as folder:
        remove_leftovers()
        kept = {"other", f"{OWN}link", f"bothends-check-{os.getuid() + 1}-x"}
        assert names(tmp_path) == {*kept, folder.name}
    assert names(tmp_path) == kept


def test_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        remove_leftovers()
        assert (folder / "secret").exists()  # its process runs
        process.kill()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        own = Path(other.stdout.readline().strip())  # the first folder of a process: it looks for leftovers
        assert names(tmp_path) == {own.name}
        other.kill()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
def test_root_removes_what_it_gave_away_and_nothing_else_of_others(tmp_path: Path) -> None:
    for name, owner, mode in (("given", 65534, 0o700), ("theirs", 12345, 0o700), ("open", 65534, 0o755)):
        folder = tmp_path / f"{OWN}{name}"
        folder.mkdir()
        folder.chmod(mode)
        os.chown(folder, owner, owner)
    remove_leftovers()
    assert names(tmp_path) == {f"{OWN}theirs", f"{OWN}open"}
