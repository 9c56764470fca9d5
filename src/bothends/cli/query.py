"""`bothends query`: answer a question about a saved trace, as a table or as JSON."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bothends import suggest
from bothends.cli import terminal
from bothends.errors import UnknownName

if TYPE_CHECKING:
    from bothends.trace.model import Trace

_VERSION = 1  # of the JSON


@click.command(
    short_help="Answer a question about a saved trace, as a table or as JSON.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("trace", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("question", default="")
@click.argument("event", type=click.IntRange(min=0), required=False)
@click.option("--connection", metavar="N", type=click.IntRange(1), help="Only this connection.")
@click.option("--process", default="", metavar="NAME|PID", help="Only this process.")
@click.option("--call", "calls", default="", metavar="CALLS", help="Only these calls: recvfrom,close.")
@click.option("--failed", is_flag=True, help="Only calls that returned an error.")
@click.option("--rule", default="", metavar="RULE", help="Only findings of this rule.")
@click.option(
    "--from", "begin", metavar="SECONDS", type=click.FloatRange(min=0), help="Only from this time on."
)
@click.option("--to", "end", metavar="SECONDS", type=click.FloatRange(min=0), help="Only up to this time.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="At most this many rows; for a table of waits 20."
)
@click.option(
    "--compare",
    "other",
    metavar="TRACE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare with another run: print what differs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def query(
    trace: Path,
    question: str,
    event: int | None,
    connection: int | None,
    process: str,
    calls: str,
    failed: bool,
    rule: str,
    begin: float | None,
    end: float | None,
    limit: int | None,
    other: Path | None,
    as_json: bool,
) -> None:
    """Answer a QUESTION about a trace that was saved with --save or --trace.

    \b
      bothends query run.trace                        connections, in figures
      bothends query run.trace processes              processes, in figures
      bothends query run.trace calls --connection 1   system calls, in order
      bothends query run.trace packets                packets, in order
      bothends query run.trace waits                  the calls that took longest
      bothends query run.trace sockets --to 0.5       TCP states and buffers then
      bothends query run.trace causes 1042            all that led to event 1042
      bothends query run.trace effects 1042           all that followed from it
      bothends query run.trace findings               likely mistakes
      bothends query run.trace --compare later.trace  what two runs do differently

    --json prints one object, whose keys are stable: {"bothends-query": 1, "question": ..., "rows": [...]}.
    Times in it are nanoseconds since the beginning of the trace.
    """
    from bothends.errors import UsageError
    from bothends.osutil.collection import rare_collection
    from bothends.trace.model import Trace
    from bothends.trace.opening import open_trace
    from bothends.trace.query import QUESTIONS, Selection, ask
    from bothends.trace.trace_file import Period

    if other is not None:
        if question or begin is not None or end is not None:
            raise UsageError("--compare takes two whole traces, and no question")
        _compare(trace, other, limit, as_json=as_json)
        return
    question = question or "connections"
    if question not in QUESTIONS:
        nearest = suggest.nearest(question, QUESTIONS)
        raise UnknownName("question", question, nearest, f"ask for {', '.join(QUESTIONS)}")
    if question == "findings" and (begin is not None or end is not None):
        raise UsageError("findings need the whole trace: without --from and --to")
    names = frozenset(name for each in calls.split(",") if (name := each.strip()))
    chosen = Selection(connection, process, names, rule, failed, event)
    opened = Trace()
    period = Period.from_seconds(begin, end)
    with rare_collection():
        with open_trace(trace) as file:
            file.read(lambda _: None, opened, period)
        rows = ask(opened, question, chosen)
        if limit is None and question == "waits" and not as_json:
            limit = 20
        shown = list(islice(rows, limit))
    if as_json:
        terminal.show_json({"bothends-query": _VERSION, "question": question, "rows": shown}, indent=1)
        return
    for note in opened.notes:
        terminal.note(note, "warning")
    if not shown:
        terminal.show(f"no {question}")
        return
    columns = QUESTIONS[question].columns
    terminal.table(
        [each.heading for each in columns],
        [[each.show(row[each.key]) for each in columns] for row in shown],
    )


def _compare(first: Path, second: Path, limit: int | None, *, as_json: bool) -> None:
    from bothends.trace.comparison import compare, sequence

    pairs = compare(*(sequence(_read(path)) for path in (first, second)))
    if as_json:
        rows = [
            {
                "lane": each.lane,
                "difference": each.difference,
                **{
                    f"{name}_{key}": None if step is None else value
                    for name, step in (("first", each.first), ("second", each.second))
                    for key, value in (
                        ("event", step and step.event),
                        ("at_ns", step and step.at),
                        ("took_ns", step and step.took),
                        ("text", step and step.text),
                    )
                },
            }
            for each in islice(pairs, limit)
        ]
        terminal.show_json({"bothends-query": _VERSION, "question": "compare", "rows": rows}, indent=1)
        return
    for lane in dict.fromkeys(each.lane for each in pairs):
        of_lane = [each for each in pairs if each.lane == lane]
        same = sum(each.difference == "same" for each in of_lane)
        differ = len(of_lane) - same
        terminal.show(f"{lane}: {same:,} the same, " + (f"{differ:,} differ" if differ else "none differs"))
    differing = [each for each in pairs if each.difference != "same"]
    if not differing:
        return
    terminal.show()
    terminal.table(
        ["lane", "seconds", "first run", "seconds", "second run"],
        [
            [
                each.lane,
                *(
                    text
                    for step in (each.first, each.second)
                    for text in ((f"{step.at / 1e9:.6f}", step.text) if step is not None else ("", "-"))
                ),
            ]
            for each in islice(differing, limit)
        ],
    )


def _read(path: Path) -> Trace:
    from bothends.osutil.collection import rare_collection
    from bothends.trace.model import Trace
    from bothends.trace.opening import open_trace

    opened = Trace()
    with rare_collection(), open_trace(path) as file:
        file.read(lambda _: None, opened)
    return opened
