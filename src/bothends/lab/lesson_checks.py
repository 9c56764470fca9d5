"""Whether a lesson is done: its checks, on what a run has shown."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from bothends.lab.lessons import CallCheck, ContractCheck, Lesson, LessonCheck, OutputCheck, PacketCheck
from bothends.lab.messages import Judge, Program, Start
from bothends.lab.sources import roles_of

_MAX_QUOTED: Final = 60  # characters of a program's output in a result
_MAX_OUTPUT: Final = 100_000  # characters of a program's output that are searched


@dataclass
class RunRecord:
    """What the replies of a run say. `add` takes each reply, as decoded JSON."""

    programs: list[Program]
    outputs: dict[int, str] = field(default_factory=lambda: defaultdict(str))
    exits: dict[int, str] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    cases: dict[str, dict[str, str]] = field(default_factory=dict)  # contract -> case -> verdict

    def add(self, reply: dict[str, Any]) -> None:
        """Add a reply."""
        match reply["type"]:
            case "output":
                kept = self.outputs[reply["program"]]
                self.outputs[reply["program"]] = (kept + reply["text"])[:_MAX_OUTPUT]
            case "exited":
                self.exits[reply["program"]] = reply["how"]
            case "rows":
                self.events |= reply["events"]
            case "ended":
                self.end = reply

    def add_judgement(self, check: ContractCheck, outcomes: list[dict[str, Any]]) -> None:
        """Add the outcomes of a contract, as `bothends check --json` has them."""
        known = self.cases.setdefault(f"{check.program}/{check.name}", {})
        known |= {each["case"]: each["verdict"] for each in outcomes}

    def place(self, role: str) -> int | None:
        """Return the place of a program on the page, or None."""
        roles = roles_of(self.programs)
        return roles.index(role) if role in roles else None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a check of a lesson has passed, and what happened instead."""

    says: str
    passed: bool
    happened: str = ""


def evaluate(lesson: Lesson, record: RunRecord) -> list[CheckResult]:
    """Return the results of all checks of a lesson, in order."""
    results = []
    for check in lesson.about.check:
        happened = _failure(check, record)
        results.append(CheckResult(check.says, not happened, happened))
    return results


def start_of(lesson: Lesson, programs: list[Program]) -> Start:
    """Return the run of a lesson, with these programs."""
    return Start(programs, lesson.about.seconds, lesson.about.path)


def judgements(lesson: Lesson, record: RunRecord) -> list[tuple[ContractCheck, Judge]]:
    """Return what is to be judged after the run: each program once by each contract."""
    found: dict[tuple[str, str], tuple[ContractCheck, Judge]] = {}
    for each in lesson.about.check:
        if (check := each.contract) is None or (place := record.place(check.program)) is None:
            continue
        key = check.program, check.name
        if key not in found:
            found[key] = check, Judge(record.programs[place], check.name, cases=list(check.cases))
        elif check.cases and found[key][1].cases:
            found[key][1].cases.extend(check.cases)
        else:
            found[key][1].cases.clear()  # all of them
    return list(found.values())


def _failure(check: LessonCheck, record: RunRecord) -> str:
    """Return why a check has not passed, or ""."""
    if record.end is None:
        return "the programs have not run to their end"
    if check.output is not None:
        return _output_failure(check.output, record)
    if check.exits is not None:
        place = record.place(check.exits.program)
        how = record.exits.get(-1 if place is None else place, "no such program")
        return "" if how == f"exit status {check.exits.status}" else f"{check.exits.program}: {how}"
    if check.call is not None:
        return _call_failure(check.call, record)
    if check.packets is not None:
        return _packet_failure(check.packets, record)
    if check.without_finding is not None:
        found = _find(record.end["findings"], check.without_finding)
        return found["title"] if found else ""
    if check.contract is not None:
        return _contract_failure(check.contract, record)
    reason = record.end["reason"]
    return f"the run was ended by {reason}" if reason else ""


def _output_failure(check: OutputCheck, record: RunRecord) -> str:
    place = record.place(check.program)
    text = record.outputs.get(-1 if place is None else place, "")
    lines = text.split("\n")
    shown = next((each.strip() for each in reversed(lines) if each.strip()), "")[:_MAX_QUOTED]
    instead = f"its last line is: {shown}" if shown else f"{check.program} has printed nothing"
    if check.contains and check.contains not in text:
        return instead
    if check.matches and re.search(check.matches, text) is None:
        return instead
    return f"{check.program} has printed {check.lacks!r}" if check.lacks and check.lacks in text else ""


def _call_failure(check: CallCheck, record: RunRecord) -> str:
    place = record.place(check.program)
    count = sum(
        each["title"].startswith(f"{check.name}(") and check.contains in each["title"]
        for each in record.events.values()
        if "line" in each and each.get("program") == place
    )
    if check.allows(count):
        return ""
    times = {0: "has not called", 1: "has called once"}.get(count, f"has called {count} times")
    return f"{check.program} {times}: {check.name}"


def _packet_failure(check: PacketCheck, record: RunRecord) -> str:
    count = sum(check.contains in each["title"] for each in record.events.values() if "line" not in each)
    if check.at_least <= count <= check.at_most:
        return ""
    return f"there {'was' if count == 1 else 'were'} {count or 'none'} with {check.contains}"


def _contract_failure(check: ContractCheck, record: RunRecord) -> str:
    verdicts = record.cases.get(f"{check.program}/{check.name}")
    if verdicts is None:
        return "it could not be judged"
    wanted = check.cases or [name for name, verdict in verdicts.items() if verdict == "FAIL"]
    failed = [name for name in wanted if verdicts.get(name) not in ("PASS", "INFO", "NON-STRICT")]
    if not failed:
        return ""
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"it does not pass {failed[0]}{more}; the Judge view shows why"


def _find(findings: list[dict[str, Any]], rule: str) -> dict[str, Any] | None:
    for each in findings:
        if each["rule"] == rule:
            return each
        if (inner := _find(each["consequences"], rule)) is not None:
            return inner
    return None
