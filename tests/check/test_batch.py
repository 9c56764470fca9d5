"""Batches: detection of a submission's language, hostile builds, reports, and resuming."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bothends.check.batch import grading
from bothends.check.batch.build_plan import NoRecipe
from bothends.check.batch.build_recipes import find_recipe
from bothends.check.batch.grading import BatchSettings, judge_all, pack, unpack
from bothends.check.reports.batch_report import as_csv, as_html, common_failures
from bothends.errors import ConfigurationError
from bothends.starters.writing import make_starter
from tests.check.helpers import format_failures
from tests.check.test_sandbox import sandbox_unavailable_reason
from tests.tools import needs_tool

FIRST_CASE = "udp-one-message"
needs_sandbox = pytest.mark.skipif(
    bool(sandbox_unavailable_reason()), reason=f"no sandbox here: {sandbox_unavailable_reason()}"
)


def write_file(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("language", "name"), [("python", "Python"), pytest.param("c", "C", marks=needs_tool("cc")),
                           pytest.param("java", "Java", marks=needs_tool("javac"))],
)  # fmt: skip
def test_recipe_detects_starter_language(language: str, name: str, tmp_path: Path) -> None:
    for role in ("server", "client"):
        made = make_starter(role, language, "tcp")
        write_file(tmp_path, made.file, made.text)
    server = find_recipe(tmp_path, "server")
    assert server.language == name
    assert server.run[-1] == "{port}"
    client = find_recipe(tmp_path, "client")
    assert client.run[-2:] == ("{host}", "{port}")
    assert client.run[:-2] != server.run[:-1] or client.build != server.build


def test_recipe_reads_manifest(tmp_path: Path) -> None:
    write_file(tmp_path, "check.toml", 'build = ["make -s"]\nrun = "./mine --port {port}"')
    found = find_recipe(tmp_path, "server")
    assert (found.build, found.run) == ((("make", "-s"),), ("./mine", "--port", "{port}"))
    write_file(tmp_path, "check.toml", 'ran = "./mine"')
    with pytest.raises(ConfigurationError, match="did you mean 'run'"):
        find_recipe(tmp_path, "server")


HOSTILE_BUILDS = {
    "connects to the internet": (
        "import socket\nsocket.create_connection(('192.0.2.1', 80), 5)",
        "Network is unreachable",
    ),
    "fills the disk": (
        "for number in range(100):\n    open(str(number), 'wb').write(bytes(1 << 25))",
        "killed by the checker: over the limit of 512 MiB on disk",
    ),
    "uses all memory": (
        "chunks = [bytes([1]) * (1 << 28) for _ in range(20)]",
        "killed by the checker: over the limit of 2048 MiB of memory",
    ),
    "writes elsewhere": ("open('/etc/intruder', 'w')", "Read-only file system"),
    "kills all processes": (
        "import os\nos.kill(-1, 9)",
        "No such process",
    ),
    "sends escape sequences": (
        "import sys\nsys.exit('\\x1b]0;gone\\x07')",
        r"\x1b]0;gone\x07",
    ),
}


SLOW_BUILDS = {"fills the disk", "uses all memory"}


@needs_sandbox
@pytest.mark.parametrize(
    "build",
    [pytest.param(each, marks=pytest.mark.slow if each in SLOW_BUILDS else ()) for each in HOSTILE_BUILDS],
)
def test_hostile_build_is_confined(build: str, tmp_path: Path) -> None:
    text, message = HOSTILE_BUILDS[build]
    folder = write_file(tmp_path / "one", "build.py", text)
    write_file(folder, "check.toml", 'build = ["python3 build.py"]\nrun = "python3 server.py {port}"')
    [found] = judge_all([folder], BatchSettings("server", "upper-udp"), tmp_path / "out", workers=1)
    [outcome] = found.result.outcomes
    assert outcome.happened.startswith("the build failed: python3 exited with status ")
    assert message in outcome.stderr_tail


@pytest.mark.spread("sandbox", one_in=2)
@pytest.mark.parametrize("sandbox", [pytest.param(True, marks=needs_sandbox), False])
def test_submission_modules_do_not_shadow_checker_imports(sandbox: bool, tmp_path: Path) -> None:
    made = make_starter("server", "python", "udp")
    folder = write_file(tmp_path / "one", made.file, made.text)
    write_file(
        folder, "check.toml", f'build = ["python3 -I -c pass"]\nrun = "python3 -I {made.file} {{port}}"'
    )
    for module in ("asyncio", "json", "bothends", "click"):
        write_file(folder, f"{module}.py", f"open({str(tmp_path / module)!r}, 'w')")
    settings = BatchSettings("server", "upper-udp", sandbox=sandbox)
    [found] = judge_all([folder], settings, tmp_path / "out", workers=1)
    assert not found.result.failed, format_failures(found.result)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "out"}


def test_recipe_without_source_file_raises_no_recipe(tmp_path: Path) -> None:
    write_file(tmp_path, "notes.txt", "later")
    with pytest.raises(NoRecipe, match="no source file"):
        find_recipe(tmp_path, "server")


def test_recipe_without_known_main_falls_back_to_only_source(tmp_path: Path) -> None:
    write_file(
        tmp_path, "part.py", "import socketserver\nsocketserver.TCPServer(('', 0), None).serve_forever()"
    )
    assert find_recipe(tmp_path, "server").run == ("python3", "part.py", "{port}")


def test_pack_omits_symlinks_and_hidden_files(tmp_path: Path) -> None:
    folder = write_file(tmp_path / "one" / "src", "server.py", "print()").parent
    write_file(folder, ".secret", "x")
    (folder / "link").symlink_to("/etc/passwd")
    unpack(pack(folder), tmp_path / "again")
    assert [path.name for path in (tmp_path / "again").rglob("*") if path.is_file()] == ["server.py"]


def test_time_limit_grows_with_the_load_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "JUDGE_TIMEOUT", 0.01)
    monkeypatch.setattr(grading, "load_factor", lambda: 3.0)
    made = make_starter("server", "python", "udp")
    folder = write_file(tmp_path / "one", made.file, made.text)
    settings = BatchSettings("server", "upper-udp", sandbox=False)
    [found] = judge_all([folder], settings, tmp_path / "out", workers=1)
    [failure] = found.result.outcomes
    assert failure.happened == "the check did not finish within 0.03 s"
    assert failure.likely_cause.startswith("the program or this machine is too slow")


@pytest.mark.slow
def test_batch_reports_all_and_reuses_results(tmp_path: Path) -> None:
    minimal = make_starter("server", "python", "udp", style="minimal")
    folders = [
        write_file(tmp_path / "ada", minimal.file, minimal.text),
        write_file(tmp_path / "bob", "server.py", "import socket  # .bind(\nraise SystemExit(3)"),
        write_file(tmp_path / "<b>", "notes.txt", "nothing"),
    ]
    settings = BatchSettings("server", "upper-udp", sandbox=False)
    judged: list[str] = []
    found = judge_all(
        folders, settings, tmp_path / "out", workers=2, progress=lambda one, _: judged.append(one.name)
    )
    assert sorted(judged) == ["<b>", "ada", "bob"]
    assert [one.language for one in found] == ["Python", "Python", ""]
    assert {case for case, _, _ in common_failures(found)} >= {
        "udp-largest",
        "udp-source",
        "udp-malformed",  # and not udp-binary, which fails for the same exception
        FIRST_CASE,
        "build",
    }
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [(row["name"], row[FIRST_CASE]) for row in rows] == [("ada", "PASS"), ("bob", "FAIL"), ("<b>", "")]
    page = as_html(found, "upper-udp")
    assert "<b>" not in page.replace("<b>udp", "")
    assert "0 of 3 programs pass every case" in page
    reused = judge_all(
        folders, settings, tmp_path / "out", workers=2, progress=lambda *_: judged.append("a second time")
    )
    assert reused == found
    assert "a second time" not in judged
