"""Results as lines, tables, CSV and HdrHistogram logs. Pure: text out, nothing is printed or written.

Percentiles of several rounds come from their merged histograms; rates and costs are medians, with the
least and the most beside them.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterator, Sequence

from bothends.bench.results import BenchEntry, Document, LatencySummary, Round

PERCENTILES = ("p50", "p90", "p99", "p99.9")


def summary_lines(entry: BenchEntry) -> Iterator[tuple[str, str]]:
    """One entry in full: pairs of a label and what it is."""
    if entry.skipped:
        yield "skipped", entry.skipped
        return
    load, rounds = entry.load, entry.rounds
    loop = f"open loop, {load.rate:,.0f}/s {load.arrivals}" if load.rate is not None else "closed loop"
    plural = "s" * (load.connections != 1)
    words = [f"{load.connections:,} connection{plural}", f"depth {load.depth}", load.size, loop]
    if load.reconnect:
        words.append("a connection for each request")
    yield "load", ", ".join(words)
    span = f"{load.duration_s:g} s after {load.warmup_s:g} s of warm-up"
    yield "measured", f"{len(rounds)} rounds of {span}" if len(rounds) > 1 else span
    unsent = sum(each.unsent for each in rounds)
    rate = f"{format_number(entry.median(per_s))} requests/s{spread(entry)}"
    if load.rate is not None and unsent:
        rate += f"; {unsent:,} were due and not sent: no connection was free"
    yield "answered", rate
    corrected = [each.corrected for each in rounds if each.corrected is not None]
    if corrected:
        yield "latency, corrected", format_latency(LatencySummary.merge(corrected))
    uncorrected = format_latency(LatencySummary.merge(each.uncorrected for each in rounds))
    yield "latency, uncorrected" if corrected else "latency", uncorrected
    answers = "each answer byte for byte"
    yield "verified", f"{answers}; faults: {entry.faults}"
    cpu, switches = entry.median(server_us), entry.median(server_switches)
    if cpu is not None and switches is not None:
        yield "server", f"{cpu:.1f} us of processor a request, {switches:.2f} context switches a request"
    yield "generator", format_generator(rounds)
    for each in rounds:
        if each.ended:
            yield "ended early", each.ended


def format_generator(rounds: Sequence[Round]) -> str:
    """How the generator itself fared: what a reader must know to believe the figure."""
    busiest = max(rounds, key=lambda each: each.own.cpu_share)
    words = f"{busiest.own.name}, {busiest.own.cpu_share:.0%} of a processor"
    late = [each.own.lateness for each in rounds if each.own.lateness is not None]
    if late and (found := LatencySummary.merge(late).percentiles_us.get("p99")) is not None:
        words += f", sends late by {found:,.0f} us (p99)"
    limits = [each.own.limit for each in rounds if each.own.limit]
    return f"{words}; the generator was the limit: {limits[0]}" if limits else words


def format_latency(latency: LatencySummary) -> str:
    """`p50 139  p90 201  p99 262  max 1,204 us, n 328,113`."""
    if not latency.n:
        return "no answers to requests of that time"
    found = "  ".join(f"{name} {format_number(value)}" for name, value in latency.percentiles_us.items())
    return f"{found}  max {format_number(latency.max_us)} us, n {latency.n:,}".strip()


COLUMNS = (
    "target",
    "load",
    "requests/s",
    "spread",
    "to baseline",
    "p50 us",
    "p99 us",
    "max us",
    "server us/request",
    "us to baseline",
    "switches/request",
    "KiB/connection",
    "faults",
)


def table(document: Document, entries: Sequence[BenchEntry]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Heads and rows: a row for each of these entries that has rounds. Empty columns are left out."""
    rows = [_row(document, entry) for entry in entries if entry.rounds]
    kept = [place for place in range(len(COLUMNS)) if any(row[place] not in ("", "-") for row in rows)]
    heads = [head.replace("baseline", document.baseline) for head in COLUMNS]
    return tuple(heads[place] for place in kept), [[row[place] for place in kept] for row in rows]


def by_load(document: Document) -> list[tuple[str, list[BenchEntry]]]:
    """The entries under each load, those with the most requests a second first."""
    loads = dict.fromkeys(each.load.title for each in document.entries)
    return [
        (
            load,
            sorted(
                (each for each in document.entries if each.load.title == load),
                key=lambda each: (each.median(per_s) or 0, -(each.median(server_memory) or 0)),
                reverse=True,
            ),
        )
        for load in loads
    ]


def skip_reasons(entries: Sequence[BenchEntry]) -> str:
    """`gevent isn't installed (gevent); it has no udp (fork, threads)`: what was not measured, and why."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        if entry.skipped:
            reasons.setdefault(entry.skipped, []).append(entry.name)
    return "; ".join(f"{reason} ({', '.join(names)})" for reason, names in reasons.items())


def _row(document: Document, entry: BenchEntry) -> list[str]:
    latency = LatencySummary.merge(each.latency for each in entry.rounds)
    found = latency.percentiles_us
    low, high = rate_range(entry)
    ratio = ratio_to_baseline(document, entry, per_s)
    costs = (
        entry.median(server_us),
        ratio_to_baseline(document, entry, server_us),
        entry.median(server_switches),
        entry.median(server_memory),
    )
    limited = "*" if any(each.own.limit for each in entry.rounds) else ""
    return [
        entry.name,
        entry.load.title,
        format_number(entry.median(per_s)) + limited if not entry.load.is_idle else "",
        f"{format_number(low)} to {format_number(high)}"
        if len(entry.rounds) > 1 and not entry.load.is_idle
        else "",
        f"{ratio:.2f}" if ratio is not None else "",
        *(format_number(found.get(name)) for name in ("p50", "p99")),
        format_number(latency.max_us if latency.n else None),
        *(f"{value:.2f}" if value is not None else "" for value in costs),
        ""
        if not entry.failed
        else "; ".join([str(entry.faults), *(e.ended for e in entry.rounds if e.ended)]),
    ]


def ratio_to_baseline(
    document: Document, entry: BenchEntry, figure: Callable[[Round], float | None]
) -> float | None:
    """The median over rounds of a figure's ratio to the baseline's in the same round; None without one."""
    same = (each for each in document.entries if each.load == entry.load and each.name == document.baseline)
    base = next(same, None)
    if base is None or entry.load.is_idle:
        return None
    pairs = ((figure(one), figure(other)) for one, other in zip(entry.rounds, base.rounds, strict=False))
    ratios = [one / other for one, other in pairs if one is not None and other]
    return statistics.median(ratios) if ratios else None


def as_markdown(document: Document) -> str:
    """The table, or for one entry its lines, and what machine it was."""
    if len(document.entries) == 1:
        entry = document.entries[0]
        heads: Sequence[str] = (entry.name, entry.target)
        rows: Sequence[Sequence[str]] = [list(pair) for pair in summary_lines(entry)]
    else:
        heads, rows = table(document, document.entries)
    drawn = [heads, ["---"] * len(heads), *rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in drawn)
    return f"{body}\n\n{notes(document)}\n"


def notes(document: Document) -> str:
    """The machine, in one line, and what else must be known."""
    words = "; ".join(f"{name} {value}" for name, value in document.machine.items())
    return "\n".join([f"{document.made}: {words}.", *document.notes, *remarks(document)])


def remarks(document: Document) -> list[str]:
    """What must be known to read the table of several entries."""
    found = []
    limited = [each for entry in document.entries for each in entry.rounds if each.own.limit]
    if len(document.entries) > 1 and limited:
        starved = "; this machine was not quiet" if any("else" in each.own.limit for each in limited) else ""
        found.append(f"* The generator was the limit in a round or more: the server may be faster{starved}.")
    if words := skip_reasons(document.entries):
        found.append(f"Not measured: {words}.")
    return found


CSV_COLUMNS = (
    *("name", "target", "workload", "transport", "connections", "depth", "reconnect", "rate_per_s", "round"),
    *("seconds", "completed", "per_s", "bytes_received", "unsent", "corrected", "n", "mean_us"),
    *(f"{name}_us" for name in PERCENTILES),
    *("max_us", "generator", "generator_cpu_share", "generator_limit", "server_us_per_request"),
    *("switches_per_request", "memory_kib_per_connection"),
    *("refused", "reset", "silent", "timed_out", "lost", "short", "wrong", "duplicated", "reordered", "late"),
    *("ended", "skipped"),
)


def as_csv(document: Document) -> str:
    """A row for each round, both ways of counting latency told apart by `corrected`."""
    written = io.StringIO()
    writer = csv.DictWriter(written, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for entry in document.entries:
        load = entry.load
        common: dict[str, object] = {
            "name": entry.name,
            "target": entry.target,
            "workload": load.workload,
            "transport": load.transport,
            "connections": load.connections,
            "depth": load.depth,
            "reconnect": int(load.reconnect),
            "rate_per_s": load.rate if load.rate is not None else "",
        }
        if entry.skipped:
            writer.writerow({**common, "skipped": entry.skipped})
        for place, each in enumerate(entry.rounds, 1):
            for corrected, latency in ((0, each.uncorrected), (1, each.corrected)):
                if latency is not None:
                    writer.writerow({**common, "round": place, **_figures(each, latency, corrected)})
    return written.getvalue()


def _figures(each: Round, latency: LatencySummary, corrected: int) -> dict[str, object]:
    found: dict[str, object] = {
        "seconds": each.seconds,
        "completed": each.completed,
        "per_s": each.per_s,
        "bytes_received": each.bytes_received,
        "unsent": each.unsent,
        "corrected": corrected,
        "n": latency.n,
        "mean_us": latency.mean_us,
        "max_us": latency.max_us,
        "generator": each.own.name,
        "generator_cpu_share": each.own.cpu_share,
        "generator_limit": each.own.limit,
        "ended": each.ended,
        **{f"{name}_us": value for name, value in latency.percentiles_us.items()},
        **each.faults.as_dict(),
    }
    if each.server is not None:
        found["server_us_per_request"] = each.server.cpu_us_per_request
        found["switches_per_request"] = each.server.switches_per_request
        found["memory_kib_per_connection"] = each.server.memory_kib_per_connection
    return found


def as_hdr_log(document: Document) -> str:
    """A log of HdrHistogram's format 1.2: an interval for each round and way of counting, told by its tag.

    Values are nanoseconds, the interval's largest is in milliseconds, as is the format's habit.
    """
    written = [
        "#[Histogram log format version 1.2]",
        f"#[{document.command}, {document.made}]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for entry in document.entries:
        start = 0.0
        for each in entry.rounds:
            for name, latency in (("corrected", each.corrected), ("uncorrected", each.uncorrected)):
                if latency is not None:
                    tag = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{entry.name}-{name}")
                    interval = f"{start:.3f},{each.seconds:.3f},{latency.max_us / 1000:.3f}"
                    written.append(f"Tag={tag},{interval},{latency.histogram}")
            start += each.seconds
    return "\n".join(written) + "\n"


def per_s(each: Round) -> float | None:
    """Requests a second."""
    return each.per_s


def server_us(each: Round) -> float | None:
    """Microseconds of the server's processors a request."""
    return each.server.cpu_us_per_request if each.server is not None else None


def server_switches(each: Round) -> float | None:
    """The server's context switches a request."""
    return each.server.switches_per_request if each.server is not None else None


def server_memory(each: Round) -> float | None:
    """The server's KiB a connection, in user space."""
    return each.server.memory_kib_per_connection if each.server is not None else None


def rate_range(entry: BenchEntry) -> tuple[float, float]:
    """The least and the most requests a second of its rounds."""
    found = [each.per_s for each in entry.rounds]
    return min(found), max(found)


def spread(entry: BenchEntry) -> str:
    """` (5 rounds: 320,113 to 331,204)`; empty for one round."""
    if len(entry.rounds) < 2:
        return ""
    low, high = rate_range(entry)
    return f" (median of {len(entry.rounds)} rounds: {format_number(low)} to {format_number(high)})"


def format_number(value: float | None) -> str:
    """Three significant digits at least, thousands apart: `0.48`, `13.4`, `262`, `328,113`; "-" for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
