"""The lines of the calls of a compiled program, from the table of the compiler."""

from __future__ import annotations

import pytest

from bothends.lab.source_lines.addresses import parse_table

TABLE = """\
Contents of the .debug_line section:

CU: /tmp/x/t.c:
File name                            Line number    Starting address    View    Stmt
t.c                                            8              0x1100               x
t.c                                            9              0x1110               x
/usr/include/byteswap.h:                      33              0x1118               x
t.c                                            9              0x1120        1
t.c                                            -              0x1130
"""


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (0x1100, None),
        (0x1101, 8),
        (0x1110, 8),
        (0x1111, 9),
        (0x1119, None),
        (0x1121, 9),
        (0x1130, 9),
        (0x1131, None),
    ],
)
def test_line_is_that_before_the_return_address(address: int, line: int | None) -> None:
    assert parse_table(TABLE, "t.c")(address) == line


@pytest.mark.parametrize(
    "text", ["", "\0" * 100, "t.c 8", "t.c  99999999999999999999  0x1", "t.c 1 0xfffffffffffffff"]
)
def test_table_that_is_none_gives_no_line(text: str) -> None:
    assert parse_table(text, "t.c")(0x1101) is None


def test_lines_of_other_files_are_not_known() -> None:
    assert parse_table(TABLE, "other.c")(0x1101) is None
