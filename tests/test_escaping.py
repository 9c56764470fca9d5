"""Escaping: no control sequence passes, and the output determines the input."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.escaping import Escaper, escape

ESCAPE_SEQUENCE = re.compile(rb"\\(\\|n|r|t|x[0-9a-f]{2}|u\{[0-9a-f]+\})")


def unescape(text: str) -> bytes:
    """Return the bytes that the escaped text represents."""

    def meant(match: re.Match[bytes]) -> bytes:
        word = match[1].decode()
        if word[0] == "x":
            return bytes.fromhex(word[1:])
        if word[0] == "u":
            return chr(int(word[2:-1], 16)).encode()
        return {"\\": b"\\", "n": b"\n", "r": b"\r", "t": b"\t"}[word]

    return ESCAPE_SEQUENCE.sub(meant, text.encode())


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain text, with spaces", "plain text, with spaces"),
        ("Grüße, 世界 🙂".encode(), "Grüße, 世界 🙂"),
        (b"\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        (b"\x1b]0;title\x07", r"\x1b]0;title\x07"),
        (b"line\r\n", r"line\r\n"),
        (b"a\tb", r"a\tb"),
        (b"\0\x7f\xff", r"\x00\x7f\xff"),
        (rb"\x1b", r"\\x1b"),
        ("\x9b31m".encode(), r"\u{9b}31m"),
        (b"\x9b31m", r"\x9b31m"),
        ("abc\u202egpj.exe".encode(), r"abc\u{202e}gpj.exe"),
        ("a\u200bb\ufeff\u2028".encode(), r"a\u{200b}b\u{feff}\u{2028}"),
        ("a\ufe0f\u3164\U000e0101".encode(), r"a\u{fe0f}\u{3164}\u{e0101}"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # a surrogate is not valid UTF-8
        ("é".encode()[:1], r"\xc3"),
        (b"", ""),
    ],
)
def test_escape(data: bytes, shown: str) -> None:
    assert escape(data) == shown


@given(st.binary() | st.text().map(str.encode))
def test_escape_is_reversible(data: bytes) -> None:
    assert unescape(escape(data)) == data


@given(st.binary() | st.text().map(str.encode))
def test_escape_output_is_printable(data: bytes) -> None:
    shown = escape(data)
    assert shown.isprintable()
    assert not [c for c in shown if unicodedata.category(c)[0] == "C" or c in "\u034f\u3164\ufe0f"]


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"\r", b"\n", b"\r\n", b"\t", b"\xc3", b"\xa9"])))
def test_escaper_is_independent_of_chunking(chunks: list[bytes]) -> None:
    whole, cut = Escaper(), Escaper()
    together = whole.feed(b"".join(chunks)) + whole.end()
    assert "".join(map(cut.feed, chunks)) + cut.end() == together
    assert all(c in "\n\t" or c.isprintable() for c in together)


def test_escaper_keeps_line_ends_and_escapes_lone_cr() -> None:
    escaper = Escaper()
    assert escaper.feed(b"one\r\ntwo\tthree\r") == "one\ntwo\tthree"
    assert escaper.feed(b"four\n\x1b") == "\\rfour\n\\x1b"
    assert escaper.feed("é".encode()[:1]) == ""
    assert escaper.feed("é".encode()[1:]) == "é"
    assert escaper.feed(b"\xe4\xb8") + escaper.end() == r"\xe4\xb8"
