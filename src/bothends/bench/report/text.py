"""Format results as lines, tables, CSV and HdrHistogram logs. Pure: returns text, prints and writes nothing.

Percentiles of several rounds are those of the merged histograms. Rates and costs are medians, with minimum
and maximum.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from bothends.bench.rate_search import is_fully_sent
from bothends.bench.results import (
    STARVED_SHARE,
    BenchEntry,
    BulkTransfer,
    Document,
    Faults,
    HttpCounts,
    LatencyParts,
    LatencySummary,
    Round,
)
from bothends.escaping import escape_controls, escape_line
from bothends.foreign_text import csv_cell

PERCENTILES = ("p50", "p90", "p99", "p99.9")


def summary_lines(entry: BenchEntry) -> Iterator[tuple[str, str]]:
    """Yield a full description of an entry as pairs of label and value."""
    if entry.skipped:
        yield "skipped", entry.skipped
        return
    load, rounds = entry.load, entry.rounds
    if load.is_bulk:
        yield from _bulk_lines(entry)
        return
    loop = f"open loop, {load.rate:,.0f}/s {load.arrivals}" if load.rate is not None else "closed loop"
    plural = "s" * (load.connections != 1)
    parts = [f"{load.connections:,} connection{plural}", f"depth {load.depth}", load.size, loop]
    if load.reconnect:
        parts.append("one connection per request")
    yield "load", ", ".join(parts)
    span = f"{load.duration_s:g} s after {load.warmup_s:g} s of warm-up"
    yield "measured", f"{len(rounds)} rounds of {span}" if len(rounds) > 1 else span
    yield "answered", f"{format_number(entry.median(per_s))} requests/s{spread(entry)}"
    if load.rate is not None and not all(map(is_fully_sent, rounds)):
        yield "rate", _explain_rate_not_held(entry, load.rate)
    corrected = [each.corrected for each in rounds if each.corrected is not None]
    if corrected:
        yield "latency, corrected", format_latency(LatencySummary.merge(corrected))
    uncorrected = format_latency(LatencySummary.merge(each.uncorrected for each in rounds))
    yield "latency, uncorrected" if corrected else "latency", uncorrected
    if in_parts := _format_parts([each.parts for each in rounds if each.parts is not None]):
        yield "in parts", in_parts
    yield "verified", f"{load.verified or 'each answer byte for byte'}; faults: {entry.faults}"
    yield from _http_lines(
        [each.http for each in rounds if each.http is not None], is_wrong=bool(entry.faults.wrong_status)
    )
    cpu, switches = entry.median(server_us), entry.median(server_switches)
    if cpu is not None and switches is not None:
        yield "server", f"{cpu:.1f} us of CPU time and {switches:.2f} context switches per request"
    yield "generator", format_generator(rounds)
    for each in rounds:
        if each.ended:
            yield "ended early", each.ended


def _bulk_lines(entry: BenchEntry) -> Iterator[tuple[str, str]]:
    load, transfers = entry.load, [each.bulk for each in entry.rounds if each.bulk is not None]
    yield "load", f"{load.workload}, {load.connections:,} connection" + "s" * (load.connections != 1)
    span = f"{load.duration_s:g} s after {load.warmup_s:g} s of warm-up"
    yield "measured", f"{len(transfers)} rounds of {span}" if len(transfers) > 1 else span
    speeds = [each.bytes_per_s / 1e6 for each in transfers]
    speed = statistics.median(speeds) if speeds else 0.0
    ways = {"echo": ", there and back", "upper": ", there and back", "discard": ", sent"}
    way = ways.get(load.workload.removeprefix("bulk "), ", received")
    low, high = format_number(min(speeds, default=0)), format_number(max(speeds, default=0))
    several = f" (median of {len(speeds)} rounds: {low} to {high})" if len(speeds) > 1 else ""
    yield "transfer", f"{format_number(speed)} MB/s, {_format_bits(speed * 8)}{way}{several}"
    if tcp := _format_tcp(transfers):
        yield "TCP here", tcp
    yield "verified", f"{load.verified}; faults: {entry.faults}"
    yield "generator", format_generator(entry.rounds)
    for each in entry.rounds:
        if each.ended:
            yield "ended early", each.ended


def _format_bits(megabits: float) -> str:
    if megabits >= 1000:
        return f"{format_number(megabits / 1000)} Gbit/s"
    return f"{format_number(megabits)} Mbit/s"


def _format_tcp(transfers: Sequence[BulkTransfer]) -> str:
    """Format the figures of TCP over all samples; "" without any."""
    found = [tcp for each in transfers for sample in each.samples for tcp in sample.connections]
    if not found or transfers[0].kind == "chargen":  # this end sends ACKs only
        return ""
    rtts, windows = [each.rtt_us / 1000 for each in found], [each.cwnd for each in found]
    last = [each.samples[-1].connections for each in transfers if each.samples]
    again = sum(tcp.retransmissions for connections in last for tcp in connections)
    rtt = f"rtt {format_number(min(rtts))} to {format_number(max(rtts))} ms"
    return f"{rtt}, cwnd {min(windows):,} to {max(windows):,} segments, {again:,} retransmissions"


_PARTS = {"wait": "due to sent", "first_byte": "to first byte", "transfer": "to last byte"}


def _format_parts(rounds: Sequence[LatencyParts]) -> str:
    """Format the parts with p50 and the highest percentile; without a part that is zero."""
    shown = []
    for name, label in _PARTS.items():
        part = LatencySummary.merge(getattr(each, name) for each in rounds)
        found = {each: value for each, value in part.percentiles_us.items() if each in ("p50", "p99")}
        if found and (part.max_us > 0 or name == "first_byte"):
            shown.append(f"{label} " + " ".join(f"{each} {format_number(v)}" for each, v in found.items()))
    return "; ".join(shown) + " us" if shown else ""


def _http_lines(rounds: Sequence[HttpCounts], *, is_wrong: bool) -> Iterator[tuple[str, str]]:
    """Yield statuses (if `is_wrong` or several), reasons of malformed responses, and closed connections."""
    statuses, malformed = Counter[str](), Counter[str]()
    for each in rounds:
        statuses.update(each.statuses)
        malformed.update(each.malformed)
    if is_wrong or len(statuses) > 1:
        yield "statuses", ", ".join(f"{status}: {statuses[status]:,}" for status in sorted(statuses))
    if malformed:
        yield "malformed", ", ".join(f"{reason}: {count:,}" for reason, count in malformed.items())
    if closes := sum(each.closes for each in rounds):
        yield "closed by server", f"{closes:,} connections after a response, each replaced by a new one"


def _explain_rate_not_held(entry: BenchEntry, rate: float) -> str:
    """Say that a rate was not held, what was held instead, and what limited it."""
    unsent = sum(each.unsent for each in entry.rounds)
    limited = any(each.own.limit for each in entry.rounds)
    by = "by the generator or by the server" if limited else "by the server, with these connections"
    held = f"{format_number(entry.median(per_s))}/s of {rate:,.0f}/s"
    waiting = f"{unsent:,} requests that were due had no free connection"
    return f"not held {by}: {held}; {waiting}, so the latencies grow with the duration"


def heat_map_title(entry: BenchEntry) -> str:
    """Return the title of the latencies over time, which says where they start."""
    start = "the due time" if entry.load.rate is not None else "the send"
    rounds = f", {len(entry.rounds)} rounds in one" if len(entry.rounds) > 1 else ""
    return f"Latency from {start}, over time{rounds}"


def format_generator(rounds: Sequence[Round]) -> str:
    """Describe the generator's resource usage, and whether it was the bottleneck."""
    busiest = max(rounds, key=lambda each: each.own.cpu_share)
    usage = f"{busiest.own.name}, {busiest.own.cpu_share:.0%} of a CPU"
    late = [each.own.lateness for each in rounds if each.own.lateness is not None]
    if late and (found := LatencySummary.merge(late).percentiles_us.get("p99")) is not None:
        usage += f", sends late by {found:,.0f} us (p99)"
    limits = [each.own.limit for each in rounds if each.own.limit]
    return f"{usage}; the generator was the limit: {limits[0]}" if limits else usage


def format_latency(latency: LatencySummary) -> str:
    """Format a latency summary: `p50 139  p90 201  p99 262  max 1,204 us, n 328,113`."""
    if not latency.n:
        return "no response to a request that was due in the measured time"
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
    """Return heads and rows: a row for each entry with rounds, without empty columns."""
    rows = [_row(document, entry) for entry in entries if entry.rounds]
    shown = [index for index in range(len(COLUMNS)) if any(row[index] not in ("", "-") for row in rows)]
    heads = [head.replace("baseline", document.baseline) for head in COLUMNS]
    return tuple(heads[index] for index in shown), [[row[index] for index in shown] for row in rows]


def by_load(document: Document) -> list[tuple[str, list[BenchEntry]]]:
    """Group the entries by load, with the highest throughput first."""
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
    """Format why entries were skipped: `gevent is not installed (gevent); no UDP support (fork, threads)`."""
    reasons: dict[str, dict[str, None]] = {}  # reason -> names, each once for all loads
    for entry in entries:
        if entry.skipped:
            reasons.setdefault(entry.skipped, {})[entry.name] = None
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
    """Return the median ratio of a figure to the baseline's in the same round; None without a baseline."""
    bases = (each for each in document.entries if each.load == entry.load and each.name == document.baseline)
    base = next(bases, None)
    if base is None or entry.load.is_idle:
        return None
    pairs = ((figure(one), figure(other)) for one, other in zip(entry.rounds, base.rounds, strict=False))
    ratios = [one / other for one, other in pairs if one is not None and other]
    return statistics.median(ratios) if ratios else None


def as_markdown(document: Document) -> str:
    """Format the table (for a single entry its lines), the host and the notes as Markdown."""
    if len(document.entries) == 1:
        entry = document.entries[0]
        heads: Sequence[str] = (entry.name, entry.target)
        rows: Sequence[Sequence[str]] = [list(pair) for pair in summary_lines(entry)]
    else:
        heads, rows = table(document, document.entries)
    lines = [heads, ["---"] * len(heads), *rows]
    body = "\n".join(
        "| " + " | ".join(escape_line(cell).replace("|", "\\|") for cell in row) + " |" for row in lines
    )
    return f"{body}\n\n{notes(document)}\n"


def notes(document: Document) -> str:
    """Format the host in one line, followed by notes and remarks."""
    host = "; ".join(f"{name} {value}" for name, value in document.machine.items())
    return escape_controls("\n".join([f"{document.made}: {host}.", *document.notes, *remarks(document)]))


def remarks(document: Document) -> list[str]:
    """Return remarks on the table of several entries: where the generator was the limit, what was skipped."""
    lines = []
    limited = [each for entry in document.entries for each in entry.rounds if each.own.limit]
    if len(document.entries) > 1 and limited:
        was_starved = any(each.own.starved_share >= STARVED_SHARE for each in limited)
        starved = "; other processes were running" if was_starved else ""
        lines.append(
            f"* The generator was the limit in at least one round: the server may be faster{starved}."
        )
    if reasons := skip_reasons(document.entries):
        lines.append(f"Not measured: {reasons}.")
    return lines


CSV_COLUMNS = (
    *("name", "target", "workload", "transport", "connections", "depth", "reconnect", "rate_per_s", "round"),
    *("seconds", "completed", "per_s", "bytes_received", "unsent", "corrected", "n", "mean_us"),
    *(f"{name}_us" for name in PERCENTILES),
    *("max_us", "generator", "generator_cpu_share", "generator_limit", "server_us_per_request"),
    *("switches_per_request", "memory_kib_per_connection"),
    *Faults.__struct_fields__,
    *("ended", "skipped"),
)


def as_csv(document: Document) -> str:
    """Format a row for each round and kind of latency; the column `corrected` is 0 or 1."""
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
            writer.writerow(_cells({**common, "skipped": entry.skipped}))
        for number, each in enumerate(entry.rounds, 1):
            for corrected, latency in ((0, each.uncorrected), (1, each.corrected)):
                if latency is not None:
                    writer.writerow(_cells({**common, "round": number, **_figures(each, latency, corrected)}))
    return written.getvalue()


def _cells(row: Mapping[str, object]) -> dict[str, object]:
    return {name: csv_cell(value) if isinstance(value, str) else value for name, value in row.items()}


def _figures(each: Round, latency: LatencySummary, corrected: int) -> dict[str, object]:
    figures: dict[str, object] = {
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
        figures["server_us_per_request"] = each.server.cpu_us_per_request
        figures["switches_per_request"] = each.server.switches_per_request
        figures["memory_kib_per_connection"] = each.server.memory_kib_per_connection
    return figures


def as_hdr_log(document: Document) -> str:
    """Format a log in HdrHistogram's format 1.2: a tagged interval for each round and kind of latency.

    Values are in nanoseconds; the maximum of an interval is in milliseconds, as the format has it.
    """
    written = [
        "#[Histogram log format version 1.2]",
        escape_line(f"#[{document.command}, {document.made}]"),
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
    """Return the requests per second."""
    return each.per_s


def server_us(each: Round) -> float | None:
    """Return the server's CPU time per request in microseconds, or None."""
    return each.server.cpu_us_per_request if each.server is not None else None


def server_switches(each: Round) -> float | None:
    """Return the server's context switches per request, or None."""
    return each.server.switches_per_request if each.server is not None else None


def server_memory(each: Round) -> float | None:
    """Return the server's user-space memory per connection in KiB, or None."""
    return each.server.memory_kib_per_connection if each.server is not None else None


def rate_range(entry: BenchEntry) -> tuple[float, float]:
    """Return the minimum and maximum requests per second over the rounds."""
    rates = [each.per_s for each in entry.rounds]
    return min(rates), max(rates)


def spread(entry: BenchEntry) -> str:
    """Format the range: ` (median of 5 rounds: 320,113 to 331,204)`; empty for one round."""
    if len(entry.rounds) < 2:
        return ""
    low, high = rate_range(entry)
    return f" (median of {len(entry.rounds)} rounds: {format_number(low)} to {format_number(high)})"


def format_number(value: float | None) -> str:
    """Format with at least three significant digits: `0.48`, `13.4`, `262`, `328,113`; "-" for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
