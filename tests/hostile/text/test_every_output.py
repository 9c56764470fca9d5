"""Hostile text through every output: terminal, logs, reports, pages, pictures, tables, metrics.

Nothing of it may reach the output as a control character, an invisible or reordering character, or a lone
surrogate, and no text may become a formula of a spreadsheet or an element of a page.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bothends.attack.results import AttackOutcome, AttackResult, Hold
from bothends.bench.report import text as bench_text
from bothends.bench.results import BenchEntry, Document, decode, encode
from bothends.check.batch.grading import JudgedSubmission
from bothends.check.case import Verdict
from bothends.check.reports import batch_report, render
from bothends.check.results import CaseOutcome, SuiteResult
from bothends.check.transcript import TranscriptEntry
from bothends.cli import attack as attack_cli
from bothends.cli import main, terminal
from bothends.cli.bench import output as bench_output
from bothends.cli.check import output as check_output
from bothends.cli.impair.live_table import summary
from bothends.endpoints import Address
from bothends.errors import HandshakeFailed
from bothends.events import ConnectionRejected, Event, HandshakeCompleted, ReloadFailed, ServiceFailed
from bothends.log.json import JsonLog
from bothends.log.text import TextLog
from bothends.trace.findings.base import Finding
from bothends.trace.rendering.cast import render_cast
from bothends.trace.rendering.html import render_page
from bothends.trace.rendering.layout import Arrow, Cell, Row, rows_of
from bothends.trace.rendering.picture_style import PictureStyle
from bothends.trace.rendering.svg import render_svg
from bothends.trace.rendering.terminal import Painter
from tests.bench.test_report import comparison_document, single_document
from tests.impair.api_client import ApiClient
from tests.impair.conftest import api_client
from tests.impair.test_api import create_proxy
from tests.trace.test_trace_file import hostile_trace

__all__ = ["api_client"]  # a fixture

HOSTILE = {
    "clears the screen": "a\x1b[2J\x1b[1;1Hb",
    "sets the title": "a\x1b]0;owned\x07b\x1b\\",
    "8-bit CSI": "a\x9b2Jb",
    "overwrites the line": "FAIL\rPASS",
    "adds a line": "a\nPASS  everything",
    "reverses the text": "a\u202egpj.exe\u202c\u2066b",
    "lone surrogates": "a\ud800b\udc80c\udfff",
    "NUL and DEL": "a\0b\x7f\b\b",
    "invisible": "a\u200b\u2060\ufe0f\u00ad\U000e0041\u2028b",
    "not a character": "a\ufdd0\uffff\U0010ffffb",
    "element": "]]></text><script>alert(1)</script>\x1b",
    "formula": "=HYPERLINK(\"http://h\")\x1b",
    "formula after a blank": "\t@SUM(1)",
}  # fmt: skip
MEGABYTE = "\x1b[1m\u202e" * 150_000

Output = Callable[[str, pytest.CaptureFixture[str]], str]


def assert_harmless(shown: str) -> None:
    shown.encode()  # raises for a lone surrogate
    left = {each for each in set(shown) if not each.isprintable() and each not in "\n\t"}
    assert not left, f"not escaped: {left!r}"
    assert not re.search("[\u034f\u115f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]", shown)


def result(text: str) -> SuiteResult:
    failed = CaseOutcome(
        text, Verdict.FAIL, detail=text, expected=text, happened=text, likely_cause=text, stderr_tail=text,
        transcript=(TranscriptEntry(0.1, text, text),), evidence=text,
    )  # fmt: skip
    skipped = CaseOutcome(text, Verdict.SKIP, detail=text)
    informs = CaseOutcome(text, Verdict.INFO, detail=text, transcript=failed.transcript)
    return SuiteResult(text, text, "tcp", (failed, skipped, informs), notes=(text,))


def attack_result(text: str) -> AttackResult:
    outcome = AttackOutcome(
        attack=text, hold=Hold.FAILED, reason=text, meaning=text, mistake=text, others=(text,), does=text,
        counts=((text, 1),), ending=text, stderr_tail=text,
    )  # fmt: skip
    skipped = AttackOutcome(attack=text, hold=Hold.SKIPPED, reason=text)
    return AttackResult(
        program=text, compared=text, outcomes=(outcome, skipped), seed=1, seconds=1.0, notes=(text,)
    )


def submissions(text: str) -> list[JudgedSubmission]:
    return [JudgedSubmission(text, "0", text, result(text))]


def document(text: str, entries: int) -> Document:
    made = comparison_document() if entries > 1 else single_document()
    made.command, made.made, made.machine, made.notes = text, text, {text: text}, [text]
    for entry in made.entries:
        entry.name, entry.target, entry.load.workload = text, text, text
        for one in entry.rounds:
            one.ended, one.own.name, one.own.limit = text, text, text
    made.baseline = text
    made.entries.append(BenchEntry(text, text, made.entries[0].load, skipped=text)) if entries > 1 else None
    return made


def rows(text: str) -> list[Row]:
    bars = ("runs", "waits")
    return [
        Row(None, bars, (Cell(0, text), Cell(1, text)), is_header=True),  # type: ignore[arg-type]
        Row(1, bars, (Cell(0, text, wraps=True),)),  # type: ignore[arg-type]
        Row(2, bars, arrow=Arrow(0, 1, text, "data", "lost", text)),  # type: ignore[arg-type]
    ]


def log_lines(text: str, make: Callable[[io.StringIO], Callable[[Event], None]]) -> str:
    stream = io.StringIO()
    log = make(stream)
    peer, local = Address("unix", text, 0), Address("unix", text, 0)
    for error in (ValueError(text), HandshakeFailed(text, text)):
        log(ServiceFailed(1, peer, error))
    log(ConnectionRejected(peer, text))
    log(ReloadFailed(text, text))
    log(HandshakeCompleted(1, peer, local, text))
    return stream.getvalue()


def text_log(stream: io.StringIO) -> TextLog:
    return TextLog(messages=stream, activity=stream, problems=stream, colour=lambda _: False, name="a\x1bb")


def printed(write: Callable[[str], object]) -> Output:
    def run(text: str, capsys: pytest.CaptureFixture[str]) -> str:
        write(text)
        captured = capsys.readouterr()
        return captured.out + captured.err.replace("\r\x1b[K", "", 1)  # our own: `progress_line`

    return run


def returned(make: Callable[[str], str]) -> Output:
    return lambda text, _: make(text)


def painted(text: str) -> str:
    painter = Painter(100, colour=False)
    return "\n".join(line for row in rows(text) for line in painter.lines(row))


def trace_page(text: str) -> str:
    trace = hostile_trace()
    trace.notes.append(text)
    finding = Finding("rule", text, text, text, (1,), "inferred", text, in_c=text, in_python=text)
    findings = [dataclasses.replace(finding, consequences=(finding,))]
    return render_page(trace, [*rows(text), *rows_of(trace)], findings, text, [text])


OUTPUTS: dict[str, Output] = {
    "show": printed(terminal.show),
    "note": printed(terminal.note),
    "error": printed(terminal.error),
    "progress line": printed(terminal.progress_line),
    "table": printed(lambda text: terminal.table(("a", "b"), [(text, text)])),
    "JSON on stdout": printed(lambda text: terminal.show_json({text: [text]})),
    "usage error": printed(lambda text: main.run(["sockets", text])),
    "unknown verb": printed(lambda text: main.run([text])),
    "text log": returned(lambda text: log_lines(text, text_log)),
    "JSON log": returned(lambda text: log_lines(text, JsonLog)),
    **{
        f"check, {form}": returned(lambda text, form=form: render(result(text), form))  # type: ignore[misc]
        for form in ("text", "json", "junit", "tap", "gradescope", "html")
    },
    "check on the terminal": printed(lambda text: check_output.show(result(text), verbose=True)),
    **{
        f"attack, {form}": printed(lambda text, form=form: attack_cli._write(attack_result(text), form, None))  # type: ignore[misc]
        for form in ("text", "json", "junit", "tap", "html")
    },
    "batch, CSV": returned(lambda text: batch_report.as_csv(submissions(text))),
    "batch, page": returned(lambda text: batch_report.as_html(submissions(text), text)),
    **{
        f"bench, {form}, {count}": printed(
            lambda text, form=form, count=count: bench_output.show(  # type: ignore[misc]
                document(text, count), form, as_table=count > 1
            )
        )
        for form in (None, "csv", "markdown", "json")
        for count in (1, 2)
    },
    "bench, HdrHistogram log": returned(lambda text: bench_text.as_hdr_log(document(text, 2))),
    "trace, diagram": returned(painted),
    "trace, SVG": returned(lambda text: render_svg(rows(text), text)),
    "trace, animated SVG": returned(
        lambda text: render_svg(rows(text), text, PictureStyle(is_animated=True))
    ),
    "trace, recording": returned(lambda text: render_cast(rows(text), text, 100)),
    "trace, page": returned(trace_page),
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_output_is_harmless(output: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = OUTPUTS[output](HOSTILE[kind], capsys)
    assert shown
    assert_harmless(shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    "output",
    ["show", "note", "error", "table", "unknown verb", "text log", "JSON log", "trace, SVG", "trace, page"],
)
def test_megabyte_is_harmless(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_harmless(OUTPUTS[output](MEGABYTE, capsys))


def test_every_hostile_text_is_found_when_it_is_not_escaped() -> None:
    for kind, text in HOSTILE.items():
        if kind not in ("adds a line", "formula after a blank"):
            with pytest.raises((AssertionError, UnicodeEncodeError)):
                assert_harmless(text)


@pytest.mark.parametrize("kind", HOSTILE)
def test_xml_is_well_formed(kind: str) -> None:
    text = HOSTILE[kind]
    suite = ElementTree.fromstring(render(result(text), "junit"))
    assert len(suite.findall("testcase")) == 3
    picture = ElementTree.fromstring(render_svg(rows(text), text))
    assert not [each for each in picture.iter() if each.tag.endswith("script")]


@pytest.mark.parametrize("kind", HOSTILE)
def test_pages_have_no_element_of_others(kind: str) -> None:
    text = HOSTILE[kind]
    assert "<script>alert" not in render(result(text), "html")
    assert "<script>alert" not in batch_report.as_html(submissions(text), text)
    assert "<script>alert" not in trace_page(text)


@pytest.mark.parametrize("kind", HOSTILE)
def test_json_reports_keep_the_text(kind: str) -> None:
    outcomes = json.loads(render(result(HOSTILE[kind]), "json"))["outcomes"]
    assert outcomes[0]["complaint"] == HOSTILE[kind]
    assert decode(encode(document("a\u202e\x1b", 2)), "here").baseline == "a\u202e\x1b"
    decode(encode(document(HOSTILE[kind], 2)), "here")


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", " =1", "\uff1d1"])
def test_csv_has_no_formula(text: str) -> None:
    written = (batch_report.as_csv(submissions(text)), bench_text.as_csv(document(text, 2)))
    cells = [cell for each in written for row in csv.reader(io.StringIO(each)) for cell in row]
    assert any(cell.startswith("'") for cell in cells)
    assert not [cell for cell in cells if re.match(r"\s*[=+@\uff1d]|\s*-\D|\s*-1\+", cell)]


def test_csv_numbers_stay_numbers() -> None:
    from bothends.foreign_text import csv_cell

    assert [csv_cell(each) for each in (-1.5, "-2", "+3e5", 0)] == ["-1.5", "-2", "+3e5", "0"]


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_given_through_the_api_are_harmless(kind: str, api_client: ApiClient) -> None:
    name = HOSTILE[kind]
    status, _ = api_client(
        "POST", "/proxies", {"name": name, "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}
    )
    if status == 400:  # a name that is refused reaches no output
        return
    status, metrics = api_client("GET", "/metrics")
    assert status == 200
    assert_harmless(metrics)
    lines = metrics.splitlines()
    assert all(line.startswith(("#", "toxiproxy_", "bothends_")) for line in lines)


@pytest.mark.parametrize("kind", HOSTILE)
def test_impair_list_and_summary_are_harmless(
    kind: str, api_client: ApiClient, capsys: pytest.CaptureFixture[str]
) -> None:
    name = HOSTILE[kind]
    body = {"name": name, "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}
    if api_client("POST", "/proxies", body)[0] == 400:
        create_proxy(api_client, listen="127.0.0.1:0")
    api = f"tcp://127.0.0.1:{api_client.server.endpoint.port}"
    for arguments in (["list"], ["list", "--json"], ["toxic", "redis\x1b", "latency", "down:5ms"]):
        main.run(["impair", *arguments, "--api", api])
        captured = capsys.readouterr()
        assert captured.out + captured.err
        assert_harmless(captured.out + captured.err)
    for line in api_client.proxies.run_on_loop(lambda: list(summary(api_client.proxies.proxies))):
        terminal.note(line)
    assert_harmless(capsys.readouterr().err)


NAMED_PROGRAM = """
import socket, sys
open("/proc/self/comm", "wb").write(bytes.fromhex(sys.argv[1]))
listener = socket.create_server(("127.0.0.1", 0))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names of processes in /proc")
@pytest.mark.parametrize("comm", [b"a\x1b]0;x\x07b", "a\u202eb\u200b".encode(), b"a\xff\nPASS", b"=1+1\r"])
def test_names_of_processes_are_harmless(comm: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", NAMED_PROGRAM, comm.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid = str(process.pid)
        for arguments in (["sockets", pid], ["sockets", pid, "--json"], ["why", pid], ["why", pid, "--json"]):
            main.run(arguments)
            captured = capsys.readouterr()
            assert captured.out
            assert_harmless(captured.out + captured.err)
        assert main.run(["sockets", os.fsdecode(comm[:-1]) + "?"]) == 2  # suggests the nearest name
        assert_harmless(capsys.readouterr().err)
        process.communicate()


@pytest.mark.parametrize("kind", HOSTILE)
def test_bench_page_is_harmless(kind: str) -> None:
    pytest.importorskip("matplotlib")
    from bothends.bench.report.html import render_html

    page = render_html(document(HOSTILE[kind], 1))
    assert_harmless(page)
    assert "<script>alert" not in page


@pytest.mark.skipif(os.name != "posix", reason="names of files as bytes")
def test_new_prints_a_harmless_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main.run(["new", "server", "python", "--to", os.fsdecode(b"a\x1b]0;x\x07\xff.py")])
    captured = capsys.readouterr()
    assert_harmless(captured.out + captured.err)
