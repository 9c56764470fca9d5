"""Findings that follow from others are put under them."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from bothends.cli.trace.output import show_findings
from bothends.trace.findings import registry
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.model import Socket, SocketAddress, Trace
from bothends.trace.rendering.html import render_page

HERE, THERE = SocketAddress("127.0.0.1", 1), SocketAddress("127.0.0.1", 2)


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    """A trace with both ends of a connection (1 and 2), and another socket."""
    monkeypatch.setattr(
        registry, "EXPLAINS", {"cause": frozenset({"effect"}), "effect": frozenset({"cause"})}
    )
    trace = Trace()
    trace.sockets[1] = Socket(1, "inet", "stream", local=HERE, peer=THERE)
    trace.sockets[2] = Socket(2, "inet", "stream", local=THERE, peer=HERE)
    trace.sockets[3] = Socket(3, "inet", "stream", local=HERE)
    return trace


def finding(rule: str, *sockets: int, **attributes: str) -> Finding:
    base = Finding(rule, f"Title of {rule}", "Text", "Change it", (), sockets=sockets)
    return replace(base, **attributes)  # type: ignore[arg-type]


def test_consequence_at_the_other_end_is_under_its_cause(trace: Trace) -> None:
    (root,) = registry.group([finding("cause", 1), finding("effect", 2)], TraceIndex(trace))
    assert root.rule == "cause"
    assert [each.rule for each in root.consequences] == ["effect"]


def test_finding_on_another_connection_stands_alone(trace: Trace) -> None:
    found = registry.group([finding("cause", 1), finding("effect", 3)], TraceIndex(trace))
    assert [each.rule for each in found] == ["cause", "effect"]


def test_output_has_basis_lines_and_consequences(trace: Trace) -> None:
    cause = finding("cause", 1, certainty="inferred", basis="the bytes look like TLS", in_c="recv(<s>);")
    found = registry.group([cause, finding("effect", 2, in_python="s.recv()")], TraceIndex(trace))
    stream = io.StringIO()
    show_findings(found, trace, stream)
    lines = [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]
    assert lines == [
        "finding  Title of cause",
        "  Text",
        "  Inferred: the bytes look like TLS",
        "  Remedy: Change it",
        "  In C: recv(<s>);",
        "    follows  Title of effect",
        "      Text",
        "      Remedy: Change it",
        "      In Python: s.recv()",
    ]
    page = render_page(trace, [], found)
    assert "<code>recv(&lt;s&gt;);</code>" in page
    assert "Title of effect" in page
