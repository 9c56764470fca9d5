"""The lines that a Python program reports: read in order, overwritten, and forged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.lab.source_lines import records
from bothends.lab.source_lines.records import HOOK, LineRecords


@pytest.fixture
def lines() -> Iterator[LineRecords]:
    made = LineRecords()
    yield made
    made.close()


def write(lines: LineRecords, count: int, *entries: tuple[int, int, int]) -> None:
    """Write records to the first region, as the program does: the last of them has the number `count`."""
    memory = lines._memory
    for number, entry in enumerate(entries, count - len(entries)):
        place = records._HEADER.size + number % records._ROOM * records._RECORD.size
        records._RECORD.pack_into(memory, place, *entry)
    records._HEADER.pack_into(memory, 0, count, 1)


def test_line_is_that_of_the_last_record_before(lines: LineRecords) -> None:
    write(lines, 4, (100, 7, 1), (200, 7, 2), (250, 8, 9), (300, 7, 0))
    assert [lines.line_at(7, at) for at in (99, 100, 199, 200, 299, 300)] == [None, 1, 1, 2, 2, None]
    assert lines.line_at(8, 260) == 9
    assert lines.line_at(9, 260) is None
    write(lines, 5, (400, 7, 5))
    assert lines.line_at(7, 500) == 5


def test_overwritten_records_leave_no_wrong_line(lines: LineRecords) -> None:
    write(lines, 1, (100, 7, 1))
    assert lines.line_at(7, 150) == 1
    write(lines, records._ROOM * 3, *((1000 + at, 8, 2) for at in range(records._ROOM)))
    assert lines.line_at(7, 150) is None
    assert lines.line_at(7, 5000) is None
    assert lines.line_at(8, 999) is None
    assert lines.line_at(8, 1000 + records._ROOM) == 2


@pytest.mark.parametrize("count", [0, 1 << 63, (1 << 64) - 1, records._ROOM + 1])
def test_forged_counts_are_harmless(lines: LineRecords, count: int) -> None:
    write(lines, 2, (100, 7, 1), (50, 7, 2))  # the clock goes backwards
    assert lines.line_at(7, 150) == 1
    write(lines, count)
    lines.line_at(7, 150)
    write(lines, 3, (1 << 62, 1 << 31, 1 << 31))
    lines.line_at(7, 150)


def test_hook_leaves_nothing_for_the_program_to_see(lines: LineRecords, tmp_path: Path) -> None:
    hook = tmp_path / "added"
    hook.mkdir()
    (hook / HOOK.name).write_bytes(HOOK.read_bytes())
    file = tmp_path / "own.py"
    file.write_text(
        "import os, sys\n"
        "first = os.open('/dev/null', os.O_RDONLY)\n"
        "print(first, [each for each in sys.path if 'added' in each])\n"
        "print([name for name in os.environ if name in ('PYTHONPATH', 'BOTHENDS_LINES')])\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "own.py"],
        cwd=tmp_path,
        env={**os.environ, **lines.variables("own.py", PYTHONPATH=str(hook))},
        pass_fds=(lines.descriptor,),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "3 []\n[]\n"
    lines.read()
    ((_, thread),) = lines._threads.items()
    assert list(dict.fromkeys(thread.lines)) == [0, 1, 2, 3, 4]
