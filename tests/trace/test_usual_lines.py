"""The fast path for usual lines of strace gives what the general one gives."""

from __future__ import annotations

import itertools
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.trace.capture import strace
from bothends.trace.capture.calls import CallDecoder
from bothends.trace.capture.descriptors import SocketRegistry
from bothends.trace.capture.strace import DataMoved, StraceParser
from bothends.trace.model import Point, Trace

LABELS: Final = (
    "TCP:[127.0.0.1:5000->127.0.0.1:12000]",
    "TCPv6:[[::1]:5000->[::1]:12000]",
    "UDP:[0.0.0.0:5000]",
    "TCP:[77]",
    'UNIX-STREAM:[17->18,"\\x61"]',
    "UNIX-STREAM:[17->18]",
    "NETLINK:[ROUTE:9]",
    "\\x2f\\x74\\x6d\\x70",
)
ENDS: Final = (
    ", {}, 0, NULL, 0", ", {}, 0, NULL, NULL", ", {}, MSG_DONTWAIT|MSG_NOSIGNAL, NULL, NULL", ", {}",
    ", {}, MSG_PEEK, NULL, NULL", ", {}, 0", ", {}, 0, 0x7ffc, [16]",
    ', {}, 0, {{sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("\\x31")}}, [128 => 16]',
)  # fmt: skip
RESULTS: Final = (
    "{}",
    "-1 EAGAIN (Resource temporarily unavailable)",
    "0",
    "?",
    "-1 EBADF (Bad file descriptor)",
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    """Return a line of strace: a send or a receive, mostly a usual one."""
    data = draw(st.binary(max_size=80)) * draw(st.sampled_from([1, 1, 1, 60]))
    shown = "".join(f"\\x{byte:02x}" for byte in data)
    text = draw(
        st.sampled_from([f'"{shown}"', f'"{shown}"...', "0x7ffd", f'[{{iov_base="{shown}", iov_len=9}}]'])
    )
    name = draw(st.sampled_from(["sendto", "recvfrom", "read", "write", "close", "recvmsg"]))
    end = draw(st.sampled_from(ENDS)).format(draw(st.integers(0, 100)))
    result = draw(st.sampled_from(RESULTS)).format(draw(st.integers(0, len(data))))
    number, label = draw(st.integers(0, 5)), draw(st.sampled_from(LABELS))
    rest = draw(st.sampled_from([" <0.000012345>", "", " <unavailable>"]))
    pid = draw(st.integers(7, 8))
    if draw(st.integers(0, 9)) == 0:
        return f"{pid} @ {name}({number}<{label}>, <unfinished ...>"
    return f"{pid} @ {name}({number}<{label}>, {text}{end}) = {result}{rest}"


def decoded(text: str) -> tuple[list[tuple[str, bool]], list[str]]:
    """Return the points of a text, and the sockets."""
    trace = Trace()
    decoder = CallDecoder(trace, SocketRegistry(), itertools.count(1), "client")
    parser = StraceParser()
    points: list[Point] = []
    for chunk in (text[:200], text[200:]):
        points += decoder.decode(parser.feed(chunk.encode()))
    points += decoder.decode(parser.feed_eof())
    points += decoder.finish()
    return [(repr(point.event), point.is_end) for point in points], [
        repr(each) for each in trace.sockets.values()
    ]


@given(st.lists(lines(), max_size=12))
def test_fast_path_and_general_path_agree(texts: list[str]) -> None:
    times = (f"1795255220.{number:09d}" for number in itertools.count(1, 50_000))
    text = "".join(each.replace("@", next(times)) + "\n" for each in texts)
    with pytest.MonkeyPatch.context() as patched:
        fast = decoded(text)
        patched.setattr(strace, "_split_lines", lambda data: data.split(b"\n"))
        assert decoded(text) == fast


@pytest.mark.parametrize("escaped", [0, 30, 31, 32])
@pytest.mark.parametrize("name", ["sendto", "recvfrom"])
def test_cut_data_takes_the_fast_path(escaped: int, name: str) -> None:
    data = (b"a" * (64 - escaped) + b"\1" * escaped) * 64
    shown = "".join(f"\\x{byte:02x}" for byte in data)
    line = f'4<{LABELS[0]}>, "{shown}"..., 8192, 0, NULL, NULL) = 8192 <0.000000009>\n'
    # The first two lines show which socket the descriptor refers to.
    first = f'4<{LABELS[0]}>, "", 1, 0, NULL, NULL) = 0 <0.000000009>\n'
    starts = (f"7 1795255220.00000{number}000 {name}(" for number in (1, 2, 3))
    text = "".join(start + rest for start, rest in zip(starts, (first, first, line), strict=True))
    (*_, found) = StraceParser().feed(text.encode())
    assert isinstance(found, DataMoved)
    assert (found.data, found.rest, found.result) == (data, "..., 8192, 0, NULL, NULL", 8192)
    fast = decoded(text)
    assert len(fast[0]) == 7
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CallDecoder, "_moved", lambda self, line: None)
        assert decoded(text) == fast


def test_usual_line_takes_the_fast_path() -> None:
    arguments = f'4<{LABELS[0]}>, "\\x68\\x69", 2, MSG_NOSIGNAL, NULL, 0'
    line = f"7 1795255220.000000001 sendto({arguments}) = 2 <0.000000009>\n"
    (found,) = StraceParser().feed(line.encode())
    assert isinstance(found, DataMoved)
    assert (found.data, found.rest, found.until - found.at) == (b"hi", ", 2, MSG_NOSIGNAL, NULL, 0", 9)
    (other,) = StraceParser().feed(line.replace("NULL, 0", "0x7ff, 0").encode())
    assert not isinstance(other, DataMoved)
