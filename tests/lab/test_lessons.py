"""Lessons: what is read, what is refused, what their text becomes, and that each one can be done."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bothends.errors import ConfigurationError
from bothends.lab.lesson_checks import RunRecord, evaluate, judgements
from bothends.lab.lesson_runs import judge_lesson
from bothends.lab.lessons import BUILT_IN, load_lessons, parse_lesson, render
from bothends.lab.messages import Program
from bothends.lab.runs import RunPool
from tests.lab.running import Lab, program
from tests.tools import needs_tool

LESSONS = load_lessons()
FIRST = next(iter(LESSONS))
TEXT = """\
+++
title = "A lesson"

[[program]]
kind = "client"
file = "client.py"

[[check]]
says = "It works"
{check}
+++

Text.
"""


def lesson_text(check: str = "ends = true") -> str:
    return TEXT.format(check=check)


def write_lesson(folder: Path, text: str, **files: str) -> None:
    folder.mkdir(parents=True)
    (folder / "lesson.md").write_text(text, encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content, encoding="utf-8")


@needs_tool("strace")
@pytest.mark.parametrize(
    "name", [each if each == FIRST else pytest.param(each, marks=pytest.mark.slow) for each in LESSONS]
)
def test_lesson_fails_as_it_begins_and_its_solution_passes(name: str) -> None:
    async def judge() -> list[str]:
        pool = RunPool()
        await pool.prepare()
        try:
            return await judge_lesson(LESSONS[name], pool)
        finally:
            await pool.close()

    assert asyncio.run(judge()) == []


def test_built_in_lessons_are_short() -> None:
    assert len(LESSONS) >= 12
    assert sorted(LESSONS) == list(LESSONS)
    for each in LESSONS.values():
        words = each.text.split()
        assert each.about.minutes <= 5
        assert len(words) < 5 * 60, each.id
        assert "**Run it" in each.text, each.id


def test_text_becomes_html_without_html_of_its_own() -> None:
    html = render(
        "<script>alert(1)</script>\n\n<b onclick=x>*a*</b> ![p](http://h/x.png) [j](javascript:alert(1)) "
        "[l](/static/lab.js) [e](//h/x) [w](https://example.org/?a=1&b=2 'q\"t') `<i>`\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    for hostile in ("<script", "<b ", "<img", 'href="javascript', 'href="/', "<i>"):
        assert hostile not in html, hostile
    assert 'href="https://example.org/?a=1&amp;b=2"' in html
    assert 'rel="noopener noreferrer"' in html
    assert "<em>a</em>" in html
    assert "<td>1</td>" in html


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "between two lines"),
        ("+++\ntitle = 1", "between two lines"),
        ("+++\ntitle = \n+++\n", "invalid TOML"),
        ("+++\ntitle = 'a'\n+++\n", "missing required field"),
        (lesson_text("ends = true\nexits = { program = 'client' }"), "exactly one of"),
        (lesson_text(""), "exactly one of"),
        (lesson_text("output = { program = 'client' }"), "contains, matches or lacks"),
        (lesson_text("output = { program = 'client', matches = '(' }"), "unterminated"),
        (lesson_text("output = { program = 'teacher', contains = 'a' }"), "program"),
        (lesson_text("contract = { program = 'client', name = '../x.toml' }"), "there is none named"),
        (lesson_text("ends = true\nmore = 1"), "unknown field"),
        (lesson_text("ends = true") + "x" * 60_000, "longer than"),
    ],
)
def test_what_is_no_lesson_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        parse_lesson(text, "lesson.md")


@pytest.mark.parametrize("file", ["../client.py", "/etc/passwd", "a/b.py", "client", ".py"])
def test_programs_are_files_of_the_lesson_only(tmp_path: Path, file: str) -> None:
    write_lesson(tmp_path / "one", lesson_text().replace("client.py", file), client="")
    with pytest.raises(ConfigurationError, match="program"):
        load_lessons([tmp_path])


def test_solution_replaces_what_it_has(tmp_path: Path) -> None:
    write_lesson(tmp_path / "one", lesson_text(), client="begin")
    found = load_lessons([tmp_path])["one"]
    assert found.solution == found.programs
    (tmp_path / "one" / "solution").mkdir()
    (tmp_path / "one" / "solution" / "client.py.in").write_text("done", encoding="utf-8")
    found = load_lessons([BUILT_IN, tmp_path])["one"]
    assert (found.programs[0].text, found.solution[0].text) == ("begin", "done")
    assert "done" not in json.dumps(found.page())


def test_lesson_in_one_file_is_that_of_the_folder(tmp_path: Path) -> None:
    write_lesson(tmp_path / "a" / "one", lesson_text(), client="begin\n")
    write_lesson(tmp_path / "a" / "one" / "solution", "", client="done\n")
    (tmp_path / "b").mkdir()
    packed = f"{lesson_text()}==> client.py <==\nbegin\n==> solution/client.py <==\ndone\n"
    (tmp_path / "b" / "one.lesson").write_text(packed, encoding="utf-8")
    assert load_lessons([tmp_path / "a"]) == load_lessons([tmp_path / "b"])
    with pytest.raises(ConfigurationError, match="same name"):
        load_lessons([tmp_path / "a", tmp_path / "b"])


def test_missing_programs_and_equal_names_are_refused(tmp_path: Path) -> None:
    write_lesson(tmp_path / "a" / "one", lesson_text())
    with pytest.raises(ConfigurationError, match="no such file"):
        load_lessons([tmp_path / "a"])
    (tmp_path / "a" / "one" / "client.py").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="same name"):
        load_lessons([tmp_path / "a", tmp_path / "a"])
    with pytest.raises(ConfigurationError, match="not a folder"):
        load_lessons([tmp_path / "none"])


def record_of(*replies: dict[str, object]) -> RunRecord:
    record = RunRecord([Program("server", "s.py", ""), Program("client", "c.py", "")])
    ended = {"type": "ended", "reason": "", "findings": [], "waits": [], "notes": [], "seconds": 1.0}
    for each in (*replies, *([] if any(each["type"] == "ended" for each in replies) else [ended])):
        record.add(dict(each))
    return record


FINDING = {
    "rule": "refused",
    "title": "T",
    "consequences": [{"rule": "inner", "title": "I", "consequences": []}],
}
ROWS = {
    "type": "rows",
    "events": {
        "1": {"title": "accept4(3) = 4 from 127.0.0.1:1", "program": 0, "line": 3},
        "2": {"title": "accept4(3) = 5 from 127.0.0.1:2", "program": 0, "line": None},
        "3": {"title": "RST ACK"},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "passes", "fails"),
    [
        ("output = { program = 'client', contains = 'HE' }", {"type": "output", "program": 1, "text": "HEY"},
         {"type": "output", "program": 0, "text": "HEY"}),
        ("output = { program = 'client', matches = '^a+$' }", {"type": "output", "program": 1, "text": "aa"},
         {"type": "output", "program": 1, "text": "ab"}),
        ("output = { program = 'client', lacks = 'bad' }", {"type": "output", "program": 1, "text": "good"},
         {"type": "output", "program": 1, "text": "bad"}),
        ("exits = { program = 'server' }", {"type": "exited", "program": 0, "how": "exit status 0"},
         {"type": "exited", "program": 0, "how": "exit status 1"}),
        ("call = { program = 'server', name = 'accept4', at_least = 2 }", ROWS, None),
        ("call = { program = 'server', name = 'accept4', at_most = 1 }", None, ROWS),
        ("call = { program = 'server', name = 'accept4', contains = ':2' }", ROWS, None),
        ("packets = { contains = 'RST', at_least = 1 }", ROWS, None),
        ("packets = { contains = 'RST', at_most = 0 }", None, ROWS),
        ("ends = true", None, {"type": "ended", "reason": "the time limit", "findings": []}),
        ("without_finding = 'inner'", None, {"type": "ended", "reason": "", "findings": [FINDING]}),
        ("without_finding = 'other'", {"type": "ended", "reason": "", "findings": [FINDING]},
         {"type": "failed", "text": ""}),
    ],
)  # fmt: skip
def test_check_passes_and_fails(
    tmp_path: Path, check: str, passes: dict[str, object] | None, fails: dict[str, object] | None
) -> None:
    write_lesson(tmp_path / "one", lesson_text(check), client="")
    lesson = load_lessons([tmp_path])["one"]
    if "call" in check and fails is None:
        fails = {"type": "rows", "events": {"1": {"title": "connect(3)", "program": 0, "line": 1}}}
    if "at_least = 1" in check:
        fails = {"type": "rows", "events": {}}
    (result,) = evaluate(lesson, record_of(*([passes] if passes else [])))
    assert (result.passed, result.happened) == (True, "")
    record = record_of(*([fails] if fails else []))
    if fails is not None and fails["type"] == "failed":
        record.end = None
    (result,) = evaluate(lesson, record)
    assert not result.passed
    assert result.happened


def test_contract_of_several_checks_is_judged_once(tmp_path: Path) -> None:
    first, second = (
        f"contract = {{ program = 'server', name = 'upper-tcp', cases = ['{case}'] }}" for case in "ab"
    )
    text = lesson_text(first).replace("+++\n\nText", f"[[check]]\nsays = 'b'\n{second}\n+++\n\nText")
    write_lesson(tmp_path / "one", text, client="")
    lesson = load_lessons([tmp_path])["one"]
    record = record_of()
    ((check, job),) = judgements(lesson, record)
    assert (job.name, job.cases) == ("upper-tcp", ["a", "b"])
    record.add_judgement(check, [{"case": "a", "verdict": "PASS"}, {"case": "b", "verdict": "SKIP"}])
    assert [each.passed for each in evaluate(lesson, record)] == [True, False]


@needs_tool("strace")
def test_lessons_are_served_by_name_only(lab: Lab) -> None:
    cookie = {"Cookie": lab.cookie}
    names = [each["id"] for each in json.loads(lab.get("/lessons", cookie)[2])]
    assert names == list(LESSONS)
    page = json.loads(lab.get(f"/lessons/{FIRST}", cookie)[2])
    assert page["checks"]
    assert "solution" not in page
    for path in (
        "/lessons/../server.py",
        "/lessons/%2e%2e%2fserver.py",
        "/lessons/none",
        f"/lessons/{FIRST}/lesson.md",
    ):
        assert lab.get(path, cookie)[0] == 404
    assert lab.get("/lessons")[0] == 403


@needs_tool("strace")
def test_checks_follow_the_run_of_a_lesson(lab: Lab) -> None:
    lesson = LESSONS[FIRST]
    start = {
        "type": "start",
        "programs": [program(each.kind, each.text, each.file) for each in lesson.solution],
        "lesson": lesson.id,
    }
    with lab.connect() as websocket:
        websocket.send(json.dumps(start))
        while (reply := json.loads(websocket.recv(30)))["type"] not in ("checked", "failed"):
            pass
    assert reply["lesson"] == lesson.id
    assert all(each["passed"] for each in reply["checks"])
