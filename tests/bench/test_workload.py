"""What is sent and what must come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.workload import Expect, lengths, numbered, recognised, scripted
from bothends.errors import CallerError


@given(
    st.integers(1, 3000),
    st.sampled_from(["echo", "upper"]),
    st.booleans(),
    st.sampled_from([1, 16, 300, 2048]),
)
def test_messages_have_their_size_their_end_and_their_number(
    size: int, expect: Expect, newline: bool, depth: int
) -> None:
    workload = numbered(size, expect, newline=newline, depth=depth)
    assert {len(each) for each in workload.sends} == {size} == {workload.uniform}
    assert all(each.count(b"\n") == newline and each.endswith(b"\n" * newline) for each in workload.sends)
    assert workload.answers == tuple(e.upper() if expect == "upper" else e for e in workload.sends)
    if workload.numbers:
        assert len(set(workload.answers)) == len(workload) >= 2 * depth
        assert len(workload.heads) == len(workload)
    else:
        assert size < 4


@pytest.mark.parametrize(("size", "newline"), [(0, True), (65_508, False), (20_000_000, True)])
def test_sizes_that_cannot_be(size: int, newline: bool) -> None:
    with pytest.raises(CallerError, match="a message has 1 to"):
        numbered(size, "echo", newline=newline)


def test_a_script() -> None:
    text = "# greet\n> HELO a\\r\n> second \\x41\\\\\n\n< 250 \\t.\\r\n> QUIT\n< bye\n< bye\n"
    workload = scripted(text, newline=True)
    assert workload.sends == (b"HELO a\r\nsecond A\\\n", b"QUIT\n")
    assert workload.answers == (b"250 \t.\r\n", b"bye\nbye\n")
    assert scripted("> a\n< b", newline=False).sends == (b"a",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it sends nothing"),
        ("< hello", "line 1: an answer before anything is sent"),
        ("> hello", "no answer is expected to b'hello"),
        ("> a\n< b\nc", "line 3: it begins with neither"),
        (r"> a\q", r"line 1: \\q is no escape"),
        ("> a\\", r"line 1: \\ is no escape"),
    ],
)
def test_what_is_no_script(text: str, words: str) -> None:
    with pytest.raises(CallerError, match=words):
        scripted(text, newline=True)


def test_rules_are_recognised() -> None:
    assert recognised(b"abc", b"abc") == "echo"
    assert recognised(b"abc", b"ABC") == "upper"
    assert recognised(b"abc", b"abd") is None


def test_lengths_in_words() -> None:
    assert lengths([b"a" * 1000]) == "1,000 bytes"
    assert lengths([b"a", b"abc"]) == "1 to 3 bytes"
