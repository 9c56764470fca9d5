"""Workloads: numbered messages and scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.workload import Expect, describe_sizes, matching_rule, numbered, parse_script
from bothends.errors import UsageError


@given(
    st.integers(1, 3000),
    st.sampled_from(["echo", "upper"]),
    st.booleans(),
    st.sampled_from([1, 16, 300, 2048]),
)
def test_numbered_messages_have_size_terminator_and_number(
    size: int, expect: Expect, newline: bool, depth: int
) -> None:
    workload = numbered(size, expect, newline=newline, depth=depth)
    assert {len(each) for each in workload.requests} == {size} == {workload.uniform_size}
    assert all(each.count(b"\n") == newline and each.endswith(b"\n" * newline) for each in workload.requests)
    assert workload.responses == tuple(e.upper() if expect == "upper" else e for e in workload.requests)
    if workload.is_numbered:
        assert len(set(workload.responses)) == len(workload) >= 2 * depth
        assert len(workload.index_by_number) == len(workload)
    else:
        assert size < 4


@pytest.mark.parametrize(("size", "newline"), [(0, True), (65_508, False), (20_000_000, True)])
def test_numbered_invalid_size_raises(size: int, newline: bool) -> None:
    with pytest.raises(UsageError, match="the message size must be 1 to"):
        numbered(size, "echo", newline=newline)


def test_parse_script() -> None:
    text = "# greet\n> HELO a\\r\n> second \\x41\\\\\n\n< 250 \\t.\\r\n> QUIT\n< bye\n< bye\n"
    workload = parse_script(text, newline=True)
    assert workload.requests == (b"HELO a\r\nsecond A\\\n", b"QUIT\n")
    assert workload.responses == (b"250 \t.\r\n", b"bye\nbye\n")
    assert parse_script("> a\n< b", newline=False).requests == (b"a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it sends nothing"),
        ("< hello", "line 1: a response before the first request"),
        ("> hello", "no response to b'hello"),
        ("> a\n< b\nc", "line 3: does not begin with"),
        (r"> a\q", r"line 1: unknown escape \\q"),
        ("> a\\", r"line 1: unknown escape \\$"),
    ],
)
def test_parse_script_invalid_text_raises(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_script(text, newline=True)


def test_matching_rule() -> None:
    assert matching_rule(b"abc", b"abc") == "echo"
    assert matching_rule(b"abc", b"ABC") == "upper"
    assert matching_rule(b"abc", b"abd") is None


def test_describe_sizes() -> None:
    assert describe_sizes([b"a" * 1000]) == "1,000 bytes"
    assert describe_sizes([b"a", b"abc"]) == "1 to 3 bytes"
