"""Messages with a head and a body: encoded, decoded in any chunks, and said to be wrong."""

from __future__ import annotations

import pytest

from bothends.check.header_framing import HeaderDecoder, HeaderFraming, HeaderMessage, body_of

OK = b"HTTP/1.1 200 OK\r\n"
STREAM = (
    OK + b"Content-Length: 5\r\nX: \t y \r\n\r\nhello"
    + OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n3;a\r\nab\n\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n"
    + b"HTTP/1.1 204 No Content\r\n\r\n"
    + b"HTTP/1.1 100 Continue\r\n\r\n"
    + b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"
    + OK + b"\r\nto the end"
)  # fmt: skip


def decode(data: bytes, size: int = 1, sent: bytes = b"") -> tuple[list[HeaderMessage], HeaderDecoder]:
    decoder = HeaderDecoder()
    if sent:
        decoder.request_sent(sent)
    messages = []
    for at in range(0, len(data), size):
        messages += decoder.feed(data[at : at + size])
    return messages, decoder


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_messages_in_any_chunks(size: int) -> None:
    messages, decoder = decode(STREAM, size)
    assert decoder.describe_unfinished() == "it has no Content-Length and no chunks, so it ends at EOF"
    messages += decoder.end()
    assert [each.body for each in messages] == [b"hello", b"ab\n0123456789", b"", b"", b"", b"to the end"]
    assert messages[0].values(b"x") == [b"y"]
    assert [each.status for each in messages] == [200, 200, 204, 100, 0, 200]
    assert b"".join(each.raw for each in messages) == STREAM
    assert (decoder.error, decoder.unfinished, decoder.end()) == ("", b"", [])


def test_reply_to_head_has_no_body() -> None:
    messages, decoder = decode(
        OK + b"Content-Length: 5\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", 3, b"HEAD / "
    )
    assert [each.body for each in messages] == [b"", b"x"]
    assert not decoder.error


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", "its head does not end with an empty line (CR LF CR LF)"),
        (OK + b"Content-Length: 1200\r\n\r\nabc", "its Content-Length is 1,200, its body has 3"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "its last chunk (0 CR LF CR LF) is missing"),
    ],
)
def test_unfinished_message(data: bytes, missing: str) -> None:
    messages, decoder = decode(data)
    assert (messages, decoder.describe_unfinished(), decoder.end()) == ([], missing, [])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 200 OK\nA: b\n\n", "a line of its head ends with LF, not with CR LF"),
        (OK + b"A: b\n\r\n", "a line of its head ends with LF"),
        (OK + b"A: b\r\n\n", ""),
        (OK + b"no colon\x1b\r\n\r\n", r'its line "no colon\x1b" is not a field'),
        (OK + b"Name : x\r\n\r\n", 'its line "Name : x" is not a field'),
        (OK + b"Content-Length: 5x\r\n\r\n", 'its Content-Length is "5x"'),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 'its Content-Length is "5, 6"'),
        (OK + b"Transfer-Encoding: gzip\r\n\r\n", 'its Transfer-Encoding "gzip" does not end with chunked'),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n", '"hello" is not the size of a chunk'),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "a chunk is longer than its size"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\nab\r\n", "a line of its chunks ends with LF"),
        (b"x" * 70_000, "its head has no end after 65,536 bytes"),
    ],
)
def test_wrong_message_says_why(data: bytes, error: str) -> None:
    messages, decoder = decode(data, 50)
    assert messages == []
    assert decoder.error.startswith(error)
    assert decoder.feed(STREAM) == [] or not error


def test_encode() -> None:
    encode = HeaderFraming(1 << 30).encode
    assert encode(b"GET / HTTP/1.0\nHost: x") == b"GET / HTTP/1.0\r\nHost: x\r\n\r\n"
    assert encode(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n") == b"GET / HTTP/1.0\r\nHost: x\r\n\r\n"
    assert encode(b"POST / HTTP/1.0\n\na\n\nb") == b"POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\na\n\nb"
    assert encode(b"POST / HTTP/1.0") == b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n"
    assert encode(b"A\ncontent-length: 9\n\nab") == b"A\r\ncontent-length: 9\r\n\r\nab"
    chunks = encode(b"A\nTransfer-Encoding: chunked\n\nabc")
    assert chunks == b"A\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    [message], _ = decode(chunks)
    assert message.body == body_of(b"A\n\nabc") == b"abc"
