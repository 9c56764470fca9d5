"""Problems and descriptions of a snapshot, as text lines and as JSON objects. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from bothends.why import phrases
from bothends.why.explain import Statement, Subject, describe
from bothends.why.model import Snapshot
from bothends.why.problems import reach
from bothends.why.problems.problem import Problem
from bothends.why.problems.table import find_problems
from bothends.why.wait_graph import WaitGraph

_MAX_PER_KIND: Final = 20  # problems of one kind in the text; JSON has all


@dataclass(slots=True)
class Report:
    """What is wrong, and the description of the subject if there is one.

    `found` is False if no process or socket matches the subject.
    """

    problems: list[Problem]
    statements: list[Statement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    found: bool = True

    @property
    def is_wrong(self) -> bool:
        """Whether there is a problem, information aside."""
        return any(problem.is_wrong for problem in self.problems)


def make_report(snapshot: Snapshot, subject: Subject | None = None) -> Report:
    """Find the problems of a snapshot: those that concern the subject, or all."""
    graph = WaitGraph(snapshot)
    problems = find_problems(graph)
    if subject is None:
        return Report(problems, notes=list(snapshot.notes))
    statements = describe(graph, subject)
    pids = set(subject.pids)
    inodes = {entry.inode for entry in snapshot.sockets if entry.inode and subject.selects(entry)}
    port = {subject.port} - {0}
    chosen = [
        problem
        for problem in problems
        if problem.pids & pids or problem.inodes & inodes or (not pids and problem.ports & port)
    ]
    if subject.port and not statements:
        chosen = [_no_socket(graph, subject)]
    elif subject.port and not subject.host and subject.protocol in ("", "tcp"):
        chosen = [problem for problem in chosen if problem.kind != reach.KIND]
        # The last: a problem of a connection shows that a client has reached the port.
        chosen += reach.find_port(graph, subject.port)
    return Report(chosen, statements, list(snapshot.notes), found=bool(statements))


def _no_socket(graph: WaitGraph, subject: Subject) -> Problem:
    """Return the problem that no socket has the address, with the sockets that have its port, if any."""
    others = [
        entry
        for entry in graph.snapshot.sockets
        if entry.local.port == subject.port and (entry.state == "LISTEN" or entry.type == "dgram")
    ]
    served = [f"{phrases.owner(graph, entry)} has {phrases.connection(entry)}" for entry in others[:3]]
    where = f"; {', '.join(served)}" if served else ""
    name = f"address {subject.host}:{subject.port}" if subject.host else f"port {subject.port}"
    return Problem(
        "no listener",
        f"No {subject.protocol or 'TCP or UDP'} socket of this machine has {name}{where}.",
        seen="the socket table",
        ports=frozenset([subject.port]),
    )


def text_lines(report: Report) -> list[tuple[str, str]]:
    """Return the lines of a report, each with a style of `cli.terminal` ("" for none)."""
    lines = [("  " * statement.depth + statement.text, "") for statement in report.statements]
    if report.statements and report.problems:
        lines.append(("", ""))
    shown: dict[str, int] = {}
    for problem in report.problems:
        shown[problem.kind] = shown.get(problem.kind, 0) + 1
        if shown[problem.kind] > _MAX_PER_KIND:
            continue
        label = problem.kind if problem.is_wrong else f"{problem.kind} (information)"
        text = f"{problem.text} {problem.remedy}".rstrip()
        lines.append((f"{label}: {text}", "strong" if problem.is_wrong else ""))
        if problem.seen:
            lines.append((f"  seen: {problem.seen}", "quiet"))
        if problem.inferred:
            lines.append((f"  inferred: {problem.inferred}", "quiet"))
    for kind, number in shown.items():
        if number > _MAX_PER_KIND:
            lines.append((f"{kind}: {number - _MAX_PER_KIND:,} more; --json shows all", ""))
    if not report.is_wrong and not report.statements:
        lines.append(("Nothing is wrong, as far as this user can see.", ""))
    elif any(problem.kind != reach.KIND for problem in report.problems) and not report.is_wrong:
        lines.append(("Nothing is certainly wrong there; the information above may be the reason.", ""))
    elif not report.is_wrong:
        lines.append(("No problem was found there; the first lines show what it waits for.", ""))
    return lines


def as_object(report: Report) -> dict[str, Any]:
    """Return a report as a JSON object."""
    return {
        "wrong": report.is_wrong,
        "problems": [problem_object(problem) for problem in report.problems],
        "description": [
            {"text": each.text, "depth": each.depth, "certainty": each.certainty}
            for each in report.statements
        ],
        "notes": report.notes,
    }


def problem_object(problem: Problem) -> dict[str, Any]:
    """Return a problem as a JSON object."""
    return {
        "kind": problem.kind,
        "level": "problem" if problem.is_wrong else "information",
        "certainty": problem.certainty,
        "text": problem.text,
        "remedy": problem.remedy or None,
        "seen": problem.seen,
        "inferred": problem.inferred or None,
        "seconds": None if problem.seconds is None else round(problem.seconds, 3),
        "pids": sorted(problem.pids),
        "ports": sorted(problem.ports),
        "inodes": sorted(problem.inodes),
    }
