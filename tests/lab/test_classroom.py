"""The students of a class, their secrets and their work: kept, private, and bounded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bothends.errors import ConfigurationError, UsageError
from bothends.lab import classroom
from bothends.lab.classroom import Classroom, Student, parse_state
from bothends.lab.messages import Program, Work


def join(room: Classroom) -> tuple[str, Student]:
    secret = room.admit(room.join_token, None)
    assert secret is not None
    found = room.visitor(secret)
    assert isinstance(found, Student)
    return secret, found


def test_work_is_kept_over_a_restart_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "class"
    room = Classroom.open(folder)
    secret, student = join(room)
    room.rename(student, "  Ann \x1b[31m\n B ")
    room.keep(student, Work([Program("client", "c.py", "text")], where="lesson 01"))
    room.pass_lesson(student, "01")
    teacher = room.admit(room.teacher_token, None)
    tokens = room.join_token, room.teacher_token
    room.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    for each in folder.iterdir():
        assert each.stat().st_mode & 0o777 == 0o600
        assert secret not in each.read_text(encoding="utf-8")
    again = Classroom.open(folder)
    found = again.visitor(secret)
    assert isinstance(found, Student)
    assert (found.name, found.passed, found.summary()["where"]) == ("Ann \\x1b[31m B", ["01"], "lesson 01")
    assert found.work is not None
    assert found.work.programs[0].text == "text"
    assert again.visitor(teacher or "") is True
    assert (again.join_token, again.teacher_token) == tokens
    again.close()


def test_each_browser_is_a_student_and_a_token_does_not_change_it(tmp_path: Path) -> None:
    room = Classroom.open(tmp_path)
    (first, ann), (second, ben) = join(room), join(room)
    assert first != second
    assert (ann.number, ben.number) == (1, 2)
    assert room.admit(room.join_token, ann) is None
    assert room.admit(room.join_token, True) is None
    assert room.visitor("wrong") is None
    for wrong in ("", "wrong", room.join_token + "x", room.join_token.upper()):
        with pytest.raises(PermissionError):
            room.admit(wrong, None)
    secret = room.admit(room.teacher_token, ann)  # the teacher's own browser was a student's before
    assert room.visitor(secret or "") is True
    room.close()


def test_class_that_is_full_admits_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classroom, "MAX_STUDENTS", 2)
    room = Classroom.open(tmp_path)
    (_, ann), (unused, _) = join(room), join(room)
    room.rename(ann, "Ann")
    third, carl = join(room)  # in place of the one that has no name and no work
    assert room.visitor(unused) is None
    assert carl.number == 2
    room.rename(carl, "Carl")
    with pytest.raises(PermissionError, match="full"):
        room.admit(room.join_token, None)
    assert room.visitor(third) is carl
    room.close()


def test_two_labs_do_not_share_a_class(tmp_path: Path) -> None:
    room = Classroom.open(tmp_path)
    with pytest.raises(UsageError, match="another lab"):
        Classroom.open(tmp_path)
    room.close()
    Classroom.open(tmp_path).close()


def test_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    room = Classroom.open(tmp_path)
    join(room)
    room.close()
    file = tmp_path / "class.json"
    whole = file.read_bytes()
    twice = json.loads(whole)
    twice["students"] *= 2
    newer = whole.replace(b'"version":1', b'"version":2')
    for damaged in (
        b"", whole[:-10], b"[]", newer, json.dumps(twice).encode(), b"\xff" + whole, b"[" * 100_000,
    ):  # fmt: skip
        with pytest.raises(ConfigurationError):
            parse_state(damaged, "class.json")
    file.write_bytes(whole[:-10])
    with pytest.raises(ConfigurationError, match="move it away"):
        Classroom.open(tmp_path)
    file.write_bytes(whole)
    Classroom.open(tmp_path).close()  # the lock was released


def test_saving_replaces_the_file_at_intervals(tmp_path: Path) -> None:
    room = Classroom.open(tmp_path)
    _, student = join(room)
    room.save(at_once=True)
    before = (tmp_path / "class.json").read_bytes()
    room.rename(student, "Ann")
    room.save()  # too soon
    assert (tmp_path / "class.json").read_bytes() == before
    room.close()
    assert b'"Ann"' in (tmp_path / "class.json").read_bytes()
