"""A trace as an animated picture, as PDF, as a recording of a terminal, and step by step."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from bothends.trace.findings import Finding, run_rules
from bothends.trace.model import Trace
from bothends.trace.opening import open_trace
from bothends.trace.rendering import pace
from bothends.trace.rendering.cast import render_cast
from bothends.trace.rendering.comments import comment_rows
from bothends.trace.rendering.formatting import display_width
from bothends.trace.rendering.layout import Cell, Filter, Row, rows_of
from bothends.trace.rendering.pdf import LARGE_ROWS_PER_PAGE, render_pdf
from bothends.trace.rendering.picture_style import PALETTES, PictureStyle
from bothends.trace.rendering.steps import Steps
from bothends.trace.rendering.svg import render_svg
from bothends.trace.rendering.terminal import Painter
from tests.interop.running import ROOT

LECTURE = ROOT / "examples" / "lecture"


def opened(path: Path) -> tuple[Trace, list[Row], list[Finding]]:
    """Open a saved trace. Returns it with the rows of its picture, and its findings."""
    trace = Trace()
    with open_trace(path) as file:
        file.read(lambda _point: None, trace)
    found = run_rules(trace, lambda name, error: pytest.fail(f"{name}: {error}"))
    return trace, [*rows_of(trace, Filter(hide_quiet_calls=True), fold=True)], found


@pytest.fixture(scope="module")
def deadlock() -> tuple[Trace, list[Row], list[Finding]]:
    return opened(LECTURE / "deadlock.trace")


Opened = tuple[Trace, list[Row], list[Finding]]


def row(at: int | None, text: str = "x", *, bars: bool = True) -> Row:
    return Row(at, ("runs", "runs") if bars else (), (Cell(0, text),))


def test_pause_has_a_minimum_and_a_maximum() -> None:
    rows = [row(0), row(1), row(5_000_000_000), row(5_700_000_000), row(None), row(None, bars=False)]
    starts = pace.start_times([*rows, row(None, bars=False)])
    gaps = [round(after - before, 6) for before, after in pairwise(starts)]
    assert starts[0] == pace.FIRST_PAUSE
    assert gaps == [pace.MIN_PAUSE, pace.MAX_PAUSE, 0.7, 0.0, pace.COMMENT_PAUSE, 0.0]


def test_animation_shows_each_row_once_and_in_order(deadlock: Opened) -> None:
    _, rows, found = deadlock
    picture = render_svg(rows, "t", PictureStyle(is_animated=True), comment_rows(found))
    root = ElementTree.fromstring(picture)
    groups = [each for each in root if each.get("class") == "row"]
    assert len(groups) >= len(rows)
    shown = [
        float(percent)
        for percent in re.findall(
            r"@keyframes r\d+ .* ([\d.]+)% {{ opacity: 1; }}".replace("{{", "{").replace("}}", "}"), picture
        )
    ]
    assert shown == sorted(shown)
    assert shown[0] > 0
    assert shown[-1] < 100
    assert "prefers-reduced-motion: reduce) { .row { animation: none; } }" in picture
    assert "<script" not in picture
    text = "".join(root.itertext())
    assert found[0].title in text
    assert "Remedy:" in text


def test_still_picture_has_no_animation_and_no_findings(deadlock: Opened) -> None:
    picture = render_svg(deadlock[1])
    assert "animation" not in picture
    assert "@media (prefers-color-scheme: dark)" in picture


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_theme_fixes_the_colours(deadlock: Opened, theme: str) -> None:
    picture = render_svg(deadlock[1], "", PictureStyle(theme=theme))  # type: ignore[arg-type]
    other = PALETTES["dark" if theme == "light" else "light"]
    assert PALETTES[theme]["background"] in picture
    assert other["background"] not in picture
    assert "@media" not in picture


def test_large_picture_has_narrower_lanes(deadlock: Opened) -> None:
    widths = [
        int(
            ElementTree.fromstring(render_svg(deadlock[1], "", PictureStyle(is_large=large)))
            .attrib["viewBox"]
            .split()[2]
        )
        for large in (False, True)
    ]
    assert widths[1] < 0.8 * widths[0]


def content_of(document: bytes) -> list[str]:
    """Return the content streams of a PDF file, after checking its table of offsets."""
    start = int(document.rpartition(b"startxref\n")[2].split()[0])
    lines = document[start:].splitlines()
    assert lines[0] == b"xref"
    count = int(lines[1].split()[1])
    for number in range(1, count):
        offset = int(lines[2 + number].split()[0])
        assert document[offset:].startswith(b"%d 0 obj\n" % number)
    streams = re.findall(rb"/Length (\d+) /Filter /FlateDecode >>\nstream\n", document)
    found, position = [], 0
    for length in streams:
        position = document.index(b">>\nstream\n", position) + len(b">>\nstream\n")
        found.append(zlib.decompress(document[position : position + int(length)]).decode())
    return found


def texts_of(page: str) -> list[str]:
    return [bytes.fromhex(text).decode("cp1252", "replace") for text in re.findall(r"<([0-9a-f]*)> Tj", page)]


def test_pdf_has_the_rows_and_the_findings(deadlock: Opened) -> None:
    _, rows, found = deadlock
    document = render_pdf(rows, "t", comments=comment_rows(found))
    picture, comments = content_of(document)
    assert b"/Count 2 " in document
    assert any(text.startswith("recvfrom(3, 1024) waits") for text in texts_of(picture))
    assert f"finding: {found[0].title}" in texts_of(comments)
    assert not any("finding" in text for text in texts_of(picture))
    red, green, blue = (f"{int(PALETTES['light']['data'][i : i + 2], 16) / 255:.3f}" for i in (1, 3, 5))
    assert f"{red} {green} {blue} rg" in picture


def test_large_pdf_repeats_the_names_of_the_lanes_on_each_page(deadlock: Opened) -> None:
    rows = deadlock[1]
    pages = content_of(render_pdf(rows, style=PictureStyle("dark", is_large=True)))
    assert len(pages) == -(-(len(rows) - 1) // (LARGE_ROWS_PER_PAGE - 1))
    for page in pages[1:]:
        assert any(text.startswith("client ") for text in texts_of(page))


def test_pdf_draws_characters_beyond_its_code_page() -> None:
    page = content_of(render_pdf([row(0, "a → b ✗ 漢 é")]))[0]
    assert "/F2 12 Tf" in page  # Symbol has the arrow
    assert "<ae> Tj" in page
    assert "<37> Tj" in page
    assert any("? é" in text for text in texts_of(page))


def test_recording_is_asciicast_version_2(deadlock: Opened) -> None:
    _, rows, found = deadlock
    header, *events = map(json.loads, render_cast(rows, "t", 100, comment_rows(found)).splitlines())
    assert (header["version"], header["width"], header["title"]) == (2, 100, "t")
    assert all(kind == "o" for _, kind, _ in events)
    times = [at for at, _, _ in events]
    assert times == sorted(times)
    output = "".join(text for _, _, text in events)
    assert found[0].title in output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert max(map(display_width, plain.split("\r\n"))) <= 100


# Step by step -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 8), (80, 24), (130, 40), (10, 2)])
def test_screens_fit_the_terminal(deadlock: Opened, size: tuple[int, int]) -> None:
    trace, rows, found = deadlock
    steps = Steps(trace, rows, found, colour=False)
    width, height = max(size[0], 40), max(size[1], 8)
    for position in range(len(steps)):
        screen = steps.screen(position, *size)
        assert len(screen) == height
        assert max(map(display_width, screen)) <= width
        assert sum(line.startswith("▶") for line in screen) == 1
        assert screen[-1].startswith(f" {position + 1}/{len(steps)}")


def test_screen_explains_the_current_row_and_names_its_finding(deadlock: Opened) -> None:
    trace, rows, found = deadlock
    steps = Steps(trace, rows, found, colour=False)
    position = steps.next_finding(0)
    screen = steps.screen(position, 100, 30)
    assert f"  finding: {found[0].title}" in screen
    assert any(line.startswith("  C: ssize_t ") for line in screen)
    last = steps.screen(len(steps) - 1, 100, 30)
    assert any(found[0].title in line and line.startswith("▶") for line in last)
    assert any("Remedy: Call shutdown(SHUT_WR)" in line for line in last)
    assert steps.next_finding(len(steps) - 1) == len(steps) - 1


def test_screen_shows_no_row_after_the_current_one(deadlock: Opened) -> None:
    trace, rows, found = deadlock
    steps = Steps(trace, rows, found, colour=False)
    assert not any("connect" in line for line in steps.screen(1, 100, 40)[:25])


def test_row_is_drawn_once_for_all_screens(deadlock: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[Row]()
    draw = Painter.lines

    def lines(painter: Painter, row: Row) -> Iterator[str]:
        drawn.append(row)
        return draw(painter, row)

    monkeypatch.setattr(Painter, "lines", lines)
    trace, rows, found = deadlock
    steps = Steps(trace, rows, found, colour=False)
    forward = [steps.screen(position, 80, 24) for position in range(len(steps))]
    count = len(drawn)
    assert [steps.screen(position, 80, 24) for position in reversed(range(len(steps)))] == forward[::-1]
    assert len(drawn) == count == len({id(each) for each in drawn})
    assert steps.screen(5, 100, 24) == Steps(trace, rows, found, colour=False).screen(5, 100, 24)


# The ready traces -------------------------------------------------------------------------------------

READY = {
    "handshake": (["SYN", "SYN ACK", "FIN ACK", "accept4(3) = 4", "TIME-WAIT"], ""),
    "half-close": (["shutdown(3, SHUT_WR)", "= 0 (EOF)", '"21\\n"'], ""),
    "reset": (["RST", "ECONNRESET"], "A connection was closed with unread data, and so reset"),
    "loss": (["resent", "✗"], "The path loses segments, and TCP retransmits them"),
    "nagle": (['sendto(3, "header "', 'sendto(3, "body"', '7-12 "body\\n"'], ""),
    "select": (['"ONE"', '"THREE"', '"TWO"'], ""),
    "deadlock": (
        ["recvfrom(3, 1024) waits", "recvfrom(4, 1024) waits"],
        "Each end waits for the other: no EOF was sent",
    ),
}


def test_every_lecture_trace_is_listed() -> None:
    assert {path.stem for path in LECTURE.glob("*.trace")} == set(READY)
    readme = (LECTURE / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z-]+)\.trace`", readme, re.MULTILINE) == list(READY)


@pytest.mark.parametrize("name", READY)
def test_lecture_trace_shows_what_it_is_for(name: str) -> None:
    path = LECTURE / f"{name}.trace"
    assert path.stat().st_size < 8000
    _, rows, found = opened(path)
    drawn = "\n".join(
        text
        for each in rows
        for text in (
            *(cell.text for cell in each.cells),
            each.arrow.text if each.arrow else "",
            "✗" if each.arrow and each.arrow.part == "lost" else "",
        )
    )
    expected, title = READY[name]
    assert [text for text in expected if text not in drawn] == []
    assert title in [each.title for each in found] or (not title and not found)
