"""Submissions that try to end a batch: each gets 0 points and a reason, and the others their own points."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.check.batch.grading import BatchSettings, judge_one, pack, submission_name, unpack
from bothends.errors import SystemCallFailed
from bothends.starters.writing import make_starter

SERVER = 'run = "true {port}"\n'
MAKE_TREE = "python3 -c 'import os\\nfor _ in range(1500): os.mkdir(str(1)); os.chdir(str(1))'"
MANIFESTS = {  # folder: check.toml, and the reason that must be given
    "quote": ('run = "./server \'"\n', "No closing quotation"),
    "nul": ('run = "./server \\u0000"\n', "a NUL in a command"),
    "no-words": ('build = [""]\n' + SERVER, "a command is empty"),
    "deep": ("run = " + "[" * 3000 + "]" * 3000 + "\n", "nested too deeply"),
    "escape": ("'\x1b[31m' = 1\n", "invalid TOML"),
    "deep-build": (f'build = ["{MAKE_TREE}"]\nrun = "/nowhere {{port}}"\n', "/nowhere"),
}


def write_hostile_folders(top: Path) -> dict[str, str]:
    """Return the reason that must be given, by the folder's name as reported."""
    reasons = {}
    for name, (text, reason) in MANIFESTS.items():
        (top / name).mkdir(parents=True)
        (top / name / "check.toml").write_text(text)
        reasons[name] = reason
    for name, size in (("sparse", 1 << 40), ("large", 17 << 20)):
        (top / name).mkdir()
        with (top / name / "data").open("wb") as file:
            file.truncate(size)
        reasons[name] = "at most 16 MiB"
    (top / "tree" / "/".join(["d"] * 100)).mkdir(parents=True)
    reasons["tree"] = "at most 64 folders"
    for raw in (b"\x1b[31m", b"caf\xe9", b"x" * 255, b"\x01" * 255):
        folder = top / os.fsdecode(raw)
        folder.mkdir()
        reasons[submission_name(folder)] = "no source file"
    return reasons


def test_hostile_submissions_show_in_their_own_rows_only(tmp_path: Path) -> None:
    reasons = write_hostile_folders(tmp_path / "all")
    starter = make_starter("server", "python", "udp")
    (tmp_path / "all" / "good").mkdir()
    (tmp_path / "all" / "good" / starter.file).write_text(starter.text)
    (tmp_path / "tmp").mkdir()
    folders = sorted(os.fsencode(each) for each in (tmp_path / "all").iterdir())
    command = [sys.executable, "-m", "bothends", "check", "batch", "--contract", "upper-udp", "--no-sandbox"]
    done = subprocess.run(
        [*map(os.fsencode, command), b"--out", os.fsencode(tmp_path / "out"), *folders],
        capture_output=True, timeout=120, check=False, env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert not list((tmp_path / "tmp").iterdir())
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as table:
        rows = {row["name"]: row for row in csv.DictReader(table)}
    good = rows.pop("good")
    assert good["failed"] == "0"
    assert good["points"] == good["most"] != "0"
    assert {name: row["points"] for name, row in rows.items()} == dict.fromkeys(reasons, "0")
    for name, reason in reasons.items():
        result = json.loads((tmp_path / "out" / f"{name}.json").read_text(encoding="utf-8"))
        assert reason in result["outcomes"][0]["happened"], name
        assert f"{name}: 0 of {good['most']} points".encode() in done.stderr


@pytest.mark.parametrize("archive", [b"", b"not an archive" * 100], ids=["empty", "garbage"])
def test_judge_one_turns_any_exception_into_a_failed_case(archive: bytes) -> None:
    found = judge_one("one", archive, BatchSettings("server", "upper-udp", sandbox=False))
    [outcome] = found["outcomes"]
    assert (outcome["verdict"], outcome["points"]) == ("FAIL", 0.0)
    assert "ReadError" in outcome["happened"]
    assert found["digest"] == ""


def test_pack_opens_neither_links_nor_special_files(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    (folder / "inside").mkdir(parents=True)
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "linked-folder").symlink_to("/etc")
    (folder / "inside" / os.fsdecode(b"caf\xe9.py")).write_text("print()")
    unpack(pack(folder), tmp_path / "again")
    found = [path for path in (tmp_path / "again").rglob("*") if not path.is_dir()]
    assert found == [tmp_path / "again" / "inside" / os.fsdecode(b"caf\xe9.py")]


def test_pack_refuses_more_entries_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothends.check.batch.grading.MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(SystemCallFailed, match="at most 10 files and folders"):
        pack(tmp_path)


def test_build_of_many_commands_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothends.check.batch.grading.BUILD_TOTAL", 0.0)
    (tmp_path / "check.toml").write_text("build = [" + '"true", ' * 5000 + "]\nrun = 'true {port}'\n")
    found = judge_one("one", pack(tmp_path), BatchSettings("server", "upper-udp", sandbox=False))
    assert found["outcomes"][0]["happened"] == "the build failed: its commands did not finish within 0 s"
