"""The descriptions of what is wrong with relayed bytes, and the mistakes that they name."""

from __future__ import annotations

import pytest

from bothends.check.subjects.relayed_bytes import describe_damage, first_difference, make_bytes, make_text

SENT = make_bytes("sent", 5000)
TEXT = b"one line\r\nanother line\r\n" + make_text("text", 500)


def test_made_bytes_are_seeded_and_differ() -> None:
    assert make_bytes("a", 100) == make_bytes("a", 100) != make_bytes("b", 100)
    text = make_text("a", 1000)
    assert (len(text), text[-1:], text.isascii()) == (1000, b"\n", True)


@pytest.mark.parametrize("at", [0, 1, 2, 7, 4998, 4999])
def test_first_difference_is_found_everywhere(at: int) -> None:
    damaged = bytearray(SENT)
    damaged[at] ^= 1
    assert first_difference(SENT, bytes(damaged)) == at
    assert first_difference(SENT, SENT[:at]) == at
    assert first_difference(SENT[:at], SENT) == at


@pytest.mark.parametrize(
    ("sent", "received", "happened", "mistake"),
    [
        (SENT, b"", "nothing arrived", ""),
        (SENT, SENT[:100], "only the first 100 of 5,000 bytes arrived", ""),
        (SENT, SENT[:100] + SENT[300:], "200 bytes are missing from byte 100", "ignores the result"),
        (SENT, SENT[:300] + SENT[100:], "bytes 100 to 300 arrived a second time", "sends data again"),
        (SENT, SENT + bytes(50), "all 5,000 bytes arrived, and then more", "the whole buffer"),
        (SENT, SENT + SENT[-60:], "all 5,000 bytes arrived, and then more", "the rest of its buffer"),
        (SENT, SENT + b"OK\n", "all 5,000 bytes arrived, and then more", "adds something"),
        (b"a\xffb", "a\N{REPLACEMENT CHARACTER}b".encode(), "differ from byte 1", "decodes the bytes"),
        (b"a\xe9b", "a\xe9b".encode(), "differ from byte 1 on", "as a character of UTF-8"),
        (TEXT, TEXT.replace(b"\r\n", b"\n"), "differ from byte 8 on", "makes LF of CR LF"),
        (b"a\nb", b"a\r\nb", "differ from byte 1 on", "makes CR LF of LF"),
        (b"a\0b", b"ab", "differ from byte 1 on", "ends at NUL"),
    ],
)  # fmt: skip
def test_damage_is_described(sent: bytes, received: bytes, happened: str, mistake: str) -> None:
    found = describe_damage(sent, received)
    assert happened in found[0]
    assert mistake in found[1]
    assert bool(mistake) == bool(found[1])
