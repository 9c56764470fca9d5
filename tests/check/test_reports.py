"""Reports on one result: each format is valid, and program output in it is harmless."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

from bothends.check.case import Verdict
from bothends.check.reports import render
from bothends.check.results import CaseOutcome, SuiteResult, from_object
from bothends.check.transcript import Transcript, TranscriptEntry, quote_bytes

HTML_INJECTION = "<script>alert(1)</script> & ]]>"

RESULT = SuiteResult(
    f"./server {HTML_INJECTION}",
    "upper-tcp",
    "tcp",
    (
        CaseOutcome("tcp-one-message", Verdict.PASS, 0.1, points=1, max_points=1),
        CaseOutcome(
            "tcp-reset", Verdict.FAIL, 0.2, 2, expected="a reply", happened=HTML_INJECTION, likely_cause="m",
            stderr_tail=HTML_INJECTION, transcript=(TranscriptEntry(0.001, "client", HTML_INJECTION),),
            max_points=2,
        ),
        CaseOutcome("tcp-prints", Verdict.SKIP, detail="not run", max_points=0),
        CaseOutcome("tcp-burst", Verdict.NON_STRICT, detail="few", points=1, max_points=1),
    ),
    1.5,
    ("a note",),
)  # fmt: skip


def test_json_report_round_trips() -> None:
    value = json.loads(render(RESULT, "json"))
    assert value["counts"]["FAIL"] == 1
    assert (value["points"], value["most"]) == (2, 4)
    failed = value["outcomes"][1]
    assert (failed["mistake"], failed["complaint"], failed["most"]) == ("m", HTML_INJECTION, 2)
    assert failed["transcript"] == [{"seconds": 0.001, "who": "client", "what": HTML_INJECTION}]
    assert from_object(value) == RESULT


def test_junit_report_contains_evidence() -> None:
    suite = ElementTree.fromstring(render(RESULT, "junit"))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert HTML_INJECTION in (failure.text or "")


# Attributes and children of each element in the schema of CI servers (junit-10.xsd of Jenkins' xUnit plugin).
SCHEMA = {
    "testsuite": ({"name", "tests", "failures", "errors", "skipped", "time"}, {"testcase"}),
    "testcase": ({"name", "classname", "time"}, {"failure", "skipped", "system-out"}),
    "failure": ({"message"}, set()),
    "skipped": ({"message"}, set()),
    "system-out": (set(), set()),
}


def test_junit_report_conforms_to_schema() -> None:
    for element in ElementTree.fromstring(render(RESULT, "junit")).iter():
        attributes, children = SCHEMA[element.tag]
        assert set(element.keys()) == attributes
        assert {child.tag for child in element} <= children
        assert re.fullmatch(r"\d+\.\d+", element.get("time", "0.0"))


def test_tap_report_has_line_per_case() -> None:
    lines = render(RESULT, "tap").splitlines()
    assert lines[:2] == ["TAP version 14", "1..4"]
    assert "not ok 2 - tcp-reset" in lines
    assert "ok 3 - tcp-prints # SKIP not run" in lines


def test_gradescope_report_has_points() -> None:
    value = json.loads(render(RESULT, "gradescope"))
    assert value["score"] == 2
    assert [each["max_score"] for each in value["tests"]] == [1, 2, 1]
    assert value["tests"][1]["status"] == "failed"


def test_html_report_escapes_program_output() -> None:
    page = render(RESULT, "html")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page


def test_transcript_is_bounded_and_escaped() -> None:
    transcript = Transcript(lambda: 0.0)
    observed: list[tuple[str, str]] = []
    transcript.observer = lambda *entry: observed.append(entry)
    for number in range(1000):
        transcript.add("client", f"line {number}")
    entries = transcript.entries()
    assert observed[50] == ("client", "line 50")  # which is not retained
    assert len(entries) < 60
    assert any("952 more" in entry.event for entry in entries)
    assert quote_bytes(b"\x1b[2J" + b"x" * 500).startswith('"\\x1b[2Jxxx')
    assert len(quote_bytes(b"\x00" * 100_000)) < 400
