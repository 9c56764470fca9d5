"""Reports: lines, tables, CSV, HdrHistogram logs, plots and HTML."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from msgspec.structs import replace

from bothends.bench.histogram import HIGHEST, Histogram
from bothends.bench.report import html, plots, text
from bothends.bench.results import (
    BenchEntry,
    Document,
    Faults,
    GeneratorUsage,
    LatencyHeatMap,
    LatencyParts,
    LatencySummary,
    Load,
    Round,
    ServerCost,
    decode,
    encode,
)
from bothends.errors import UsageError


def latency(*microseconds: int, times: int = 1000) -> LatencySummary:
    histogram = Histogram()
    histogram.add([each * 1000 for each in microseconds] * times)
    return LatencySummary.from_histogram(histogram)


def make_round(
    per_s: float, *, limit: str = "", corrected: bool = False, faults: Faults | None = None
) -> Round:
    return Round(
        seconds=1.0,
        completed=3000,
        per_s=per_s,
        bytes_received=192_000,
        faults=faults or Faults(),
        uncorrected=latency(100, 200, 300),
        corrected=latency(100, 200, 9000) if corrected else None,
        own=GeneratorUsage("test", 0.5, limit=limit),
        server=ServerCost(3.5, 0.9, 0.25),
    )


def comparison_document() -> Document:
    fifty, idle = Load("upper", "tcp", 50), Load("idle", "tcp", 10_000)
    memory = make_round(0)
    memory.uncorrected = latency(times=0)
    memory.server = ServerCost(memory_kib_per_connection=1.25)
    entries = [
        BenchEntry("slow", "a", fifty, [make_round(100), make_round(120), make_round(110)]),
        BenchEntry("fast", "b", fifty, [make_round(300, limit="busy"), make_round(240), make_round(330)]),
        BenchEntry("absent", "c", fifty, skipped="<it> is not installed"),
        BenchEntry("slow", "a", idle, [memory]),
    ]
    return Document(1, "2026-01-01T00:00:00Z", "bothends bench engines", {"kernel": "x"}, entries, "slow")


def single_document(corrected: bool = True) -> Document:
    entry = BenchEntry(
        "it", "tcp://h:1", Load("echo", "tcp", rate=500.0), [make_round(500, corrected=corrected)]
    )
    return Document(1, "2026-01-01T00:00:00Z", "bothends bench tcp://h:1", {"kernel": "x"}, [entry])


def test_encode_decode_round_trip() -> None:
    assert decode(encode(comparison_document()), "here") == comparison_document()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a result"),
        (b"{}", "not a result"),
        (b"\xff", "not a result"),
        (
            encode(single_document()).replace(b'"version": 1', b'"version": 9'),
            "version 9 is not supported, only 1",
        ),
    ],
)
def test_decode_invalid_document_raises(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decode(data, "here")


def test_table_ratios_and_empty_columns() -> None:
    document = comparison_document()
    heads, rows = text.table(document, document.entries[:3])
    assert heads[:5] == ("target", "load", "requests/s", "spread", "to slow")
    assert "KiB/connection" not in heads
    assert [row[0] for row in rows] == ["slow", "fast"]
    assert rows[1][2:5] == ["300*", "240 to 330", "3.00"]  # ratios 3, 2, 3
    assert "<it> is not installed (absent)" in text.remarks(document)[1]
    assert text.table(document, document.entries[3:])[0] == ("target", "load", "KiB/connection")


@pytest.mark.parametrize(
    ("limit", "by"),
    [("", "by the server, with these connections"), ("busy", "by the generator or by the server")],
)
def test_rate_that_is_not_held_is_said_with_what_was_held(limit: str, by: str) -> None:
    load = Load("upper", "tcp", 50, rate=9000.0)
    result = make_round(2500, limit=limit, corrected=True)
    held = dict(text.summary_lines(BenchEntry("held", "a", load, [result])))
    assert "rate" not in held
    result.unsent = 6500
    found = dict(text.summary_lines(BenchEntry("not held", "a", load, [result])))
    assert found["rate"].startswith(f"not held {by}: 2,500/s of 9,000/s; 6,500 requests that were due ")


def test_summary_lines_show_corrected_and_uncorrected() -> None:
    found = dict(text.summary_lines(single_document().entries[0]))
    assert "max 9,003 us" in found["latency, corrected"]
    assert "max 300 us" in found["latency, uncorrected"]
    assert found["verified"] == "each answer byte for byte; faults: none"
    assert "3.50 us" in found["server"] or "3.5 us" in found["server"]


def test_csv_has_row_per_round_and_latency_kind() -> None:
    rows = list(csv.DictReader(io.StringIO(text.as_csv(single_document()))))
    assert [row["corrected"] for row in rows] == ["0", "1"]
    assert float(rows[1]["max_us"]) > float(rows[0]["max_us"])
    assert len(list(csv.DictReader(io.StringIO(text.as_csv(comparison_document()))))) == 3 + 3 + 1 + 1


def test_hdr_log_is_readable_by_hdrhistogram(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(text.as_hdr_log(single_document()))
    reader = HistogramLogReader(str(path), HdrHistogram(1, HIGHEST, 3))
    first, second = reader.get_next_interval_histogram(), reader.get_next_interval_histogram()
    reader.input_file.close()
    assert (first.get_tag(), second.get_tag()) == ("it-corrected", "it-uncorrected")
    assert first.get_total_count() == second.get_total_count() == 3000
    assert first.get_max_value() > second.get_max_value()


def test_markdown_rows_have_equal_cells() -> None:
    table = [line for line in text.as_markdown(comparison_document()).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 5


@pytest.mark.parametrize(
    "document", [single_document(), single_document(corrected=False), comparison_document()]
)
def test_html_report_is_self_contained(document: Document) -> None:
    document.knee = single_document().entries
    text = html.render_html(document)
    assert text.count("<svg") == text.count("</svg>") >= 2
    assert "<it>" not in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "src=" not in text
    assert "latency in microseconds" in text


def test_html_report_shows_latency_over_time_and_in_parts() -> None:
    document = single_document()
    result = document.entries[0].rounds[0]
    result.parts = LatencyParts(latency(10), latency(90), latency(0))
    assert "over time" not in html.render_html(document)
    result.heat = LatencyHeatMap(0.01, [[100, 5], [], [100, 2, 120, 1], [10**6, 1, 7]])
    page = html.render_html(document)
    assert "Latency from the due time, over time" in page
    assert page.count("<svg") == 2
    assert "due to sent p50 10.0 p99 10.0; to first byte p50 90.0 p99 90.0 us" in page
    assert decode(encode(document), "here") == document


def test_plot_of_engines_as_they_are_run_has_a_bar_for_each_way() -> None:
    entries = comparison_document().entries[:3]
    names = ("epoll", "epoll, metrics", "epoll, log", "c-epoll")
    shown = [replace(entries[index % 2], name=name) for index, name in enumerate(names)]
    svg = plots.as_run([*shown, entries[2]], "title")
    content = "".join(ElementTree.fromstring(svg).itertext())
    for label in ("quiet", "with metrics", "with a log of connections", "epoll", "c-epoll"):
        assert label in content
    assert "epoll, log" not in content
    assert "with metrics" not in plots.as_run(shown[:1], "title")


def test_plots_are_well_formed_and_deterministic() -> None:
    entries = comparison_document().entries[:2]
    svg = plots.throughput(entries, "a < b")
    ElementTree.fromstring(svg)
    assert svg == plots.throughput(entries, "a < b")
    content = "".join(ElementTree.fromstring(svg).itertext())
    assert "requests per second" in content
    assert "slow" in content
