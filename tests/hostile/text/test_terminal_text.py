"""Control characters in text of others: an error of a traced call, a note, an error message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bothends.cli import terminal
from bothends.trace.model import Call
from bothends.trace.rendering import formatting

TITLE = "E\x1b]0;owned\x07\x9b2J\x7f"
ESCAPED = "E\\x1b]0;owned\\x07\\u{9b}2J\\x7f"


def test_error_of_a_call_is_escaped() -> None:
    call = Call(number=1, process=1, thread=1, name="read", at=0, until=1, error=TITLE)
    assert formatting.call_text(call).endswith(f" = {ESCAPED}")


@pytest.mark.parametrize("write", [terminal.note, terminal.error])
def test_messages_on_stderr_have_no_control_characters(
    write: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write(TITLE)
    assert capsys.readouterr().err.rstrip("\n").endswith(ESCAPED)


@pytest.mark.parametrize("write", [terminal.note, terminal.error])
def test_messages_on_stderr_are_one_line(
    write: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write("a name\nbothends: a second message")
    assert capsys.readouterr().err.count("\n") == 1


def test_style_in_a_text_is_escaped_where_there_is_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show("\x1b[31mred\x1b[0m")
    assert capsys.readouterr().out == "\\x1b[31mred\\x1b[0m\n"
