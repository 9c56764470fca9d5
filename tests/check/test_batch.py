"""Batches: how a submission is taken for what it is, and several judged, summed up and gone on with."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bothends.check.batch.build_recipes import NoRecipe, recipe
from bothends.check.batch.grading import Settings, judge_all, pack, unpack
from bothends.check.reports.batch_report import as_csv, as_page, commonest
from bothends.errors import ConfigurationError
from bothends.starters.writing import starter
from tests.check.helpers import told
from tests.check.test_sandbox import unavailable
from tests.tools import needs_tool

ONE = "udp-one-message"
confined = pytest.mark.skipif(bool(unavailable()), reason=f"no sandbox here: {unavailable()}")


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("language", "name"), [("python", "Python"), pytest.param("c", "C", marks=needs_tool("cc")),
                           pytest.param("java", "Java", marks=needs_tool("javac"))],
)  # fmt: skip
def test_a_starter_is_taken_for_what_it_is(language: str, name: str, tmp_path: Path) -> None:
    for role in ("server", "client"):
        made = starter(role, language, "tcp")
        write(tmp_path, made.file, made.text)
    server = recipe(tmp_path, "server")
    assert server.language == name
    assert server.run[-1] == "{port}"
    client = recipe(tmp_path, "client")
    assert client.run[-2:] == ("{host}", "{port}")
    assert client.run[:-2] != server.run[:-1] or client.build != server.build


def test_a_manifest_says_how(tmp_path: Path) -> None:
    write(tmp_path, "check.toml", 'build = ["make -s"]\nrun = "./mine --port {port}"')
    found = recipe(tmp_path, "server")
    assert (found.build, found.run) == ((("make", "-s"),), ("./mine", "--port", "{port}"))
    write(tmp_path, "check.toml", 'ran = "./mine"')
    with pytest.raises(ConfigurationError, match="did you mean 'run'"):
        recipe(tmp_path, "server")


BUILDS = {
    "asks somebody far away": (
        "import socket\nsocket.create_connection(('192.0.2.1', 80), 5)",
        "Network is unreachable",
    ),
    "fills the disk": (
        "for number in range(100):\n    open(str(number), 'wb').write(bytes(1 << 25))",
        "stopped: it writes more than 512 MiB",
    ),
    "takes all memory": (
        "held = [bytes([1]) * (1 << 28) for _ in range(20)]",
        "stopped: it takes more than 2048 MiB of memory",
    ),
    "writes elsewhere": ("open('/etc/intruder', 'w')", "Read-only file system"),
    "ends all that it sees": (
        "import os\nos.kill(-1, 9)",
        "No such process",
    ),
    "speaks to the terminal": (
        "import sys\nsys.exit('\\x1b]0;gone\\x07')",
        r"\x1b]0;gone\x07",
    ),
}


HEAVY = {"fills the disk", "takes all memory"}


@confined
@pytest.mark.parametrize(
    "what", [pytest.param(each, marks=pytest.mark.slow if each in HEAVY else ()) for each in BUILDS]
)
def test_what_builds_a_submission_is_trusted_as_little(what: str, tmp_path: Path) -> None:
    text, said = BUILDS[what]
    folder = write(tmp_path / "one", "build.py", text)
    write(folder, "check.toml", 'build = ["python3 build.py"]\nrun = "python3 server.py {port}"')
    [found] = judge_all([folder], Settings("server", "upper-udp"), tmp_path / "out", workers=1)
    [outcome] = found.result.outcomes
    assert outcome.happened.startswith("it doesn't build: python3 ended with ")
    assert said in outcome.complaint


@pytest.mark.parametrize("sandbox", [pytest.param(True, marks=confined), False])
def test_nothing_of_a_submission_runs_but_its_program(sandbox: bool, tmp_path: Path) -> None:
    made = starter("server", "python", "udp")
    folder = write(tmp_path / "one", made.file, made.text)
    write(folder, "check.toml", f'build = ["python3 -I -c pass"]\nrun = "python3 -I {made.file} {{port}}"')
    for module in ("asyncio", "json", "bothends", "click"):
        write(folder, f"{module}.py", f"open({str(tmp_path / module)!r}, 'w')")
    settings = Settings("server", "upper-udp", sandbox=sandbox)
    [found] = judge_all([folder], settings, tmp_path / "out", workers=1)
    assert not found.result.failed, told(found.result)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "out"}


def test_a_folder_without_a_program_is_told(tmp_path: Path) -> None:
    write(tmp_path, "notes.txt", "later")
    with pytest.raises(NoRecipe, match="no source file"):
        recipe(tmp_path, "server")


def test_a_program_whose_main_part_nobody_knows_is_tried(tmp_path: Path) -> None:
    write(tmp_path, "part.py", "import socketserver\nsocketserver.TCPServer(('', 0), None).serve_forever()")
    assert recipe(tmp_path, "server").run == ("python3", "part.py", "{port}")


def test_a_submission_is_packed_without_links_and_what_is_hidden(tmp_path: Path) -> None:
    folder = write(tmp_path / "one" / "src", "server.py", "print()").parent
    write(folder, ".secret", "x")
    (folder / "link").symlink_to("/etc/passwd")
    unpack(pack(folder), tmp_path / "again")
    assert [path.name for path in (tmp_path / "again").rglob("*") if path.is_file()] == ["server.py"]


def test_a_batch_is_judged_summed_up_and_not_judged_again(tmp_path: Path) -> None:
    minimal = starter("server", "python", "udp", style="minimal")
    folders = [
        write(tmp_path / "ada", minimal.file, minimal.text),
        write(tmp_path / "bob", "server.py", "import socket  # .bind(\nraise SystemExit(3)"),
        write(tmp_path / "<b>", "notes.txt", "nothing"),
    ]
    settings = Settings("server", "upper-udp", sandbox=False)
    told: list[str] = []
    found = judge_all(
        folders, settings, tmp_path / "out", workers=2, progress=lambda one, left: told.append(one.name)
    )
    assert sorted(told) == ["<b>", "ada", "bob"]
    assert [one.language for one in found] == ["Python", "Python", ""]
    assert {case for case, _, _ in commonest(found)} >= {
        "udp-largest",
        "udp-source",
        "udp-binary",
        ONE,
        "build",
    }
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [(row["name"], row[ONE]) for row in rows] == [("ada", "PASS"), ("bob", "FAIL"), ("<b>", "")]
    page = as_page(found, "upper-udp")
    assert "<b>" not in page.replace("<b>udp", "")
    assert "0 of 3 programs fail nothing" in page
    again = judge_all(
        folders, settings, tmp_path / "out", workers=2, progress=lambda *_: told.append("again")
    )
    assert again == found
    assert "again" not in told
