"""Plot a document as SVG, with matplotlib and without a display.

The colours are distinguishable for most colour-blind readers (Okabe and Ito), and every line has its own
marker. Text is kept as text, so that it can be searched and read by screen readers.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bothends.bench.heat_map import COLUMNS, HeatMap, merge_heat_maps, row_bound
from bothends.bench.rate_search import is_fully_sent
from bothends.bench.report.text import format_number
from bothends.bench.results import BenchEntry, BulkSample, BulkTransfer, Document, LatencySummary
from bothends.escaping import escape_line

_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999933")
_MARKERS: Final = "os^Dvp*X"
MAX_LINES: Final = 8
_MAX_LABEL: Final = 80  # characters
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bothends",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "font.family": ["sans-serif"],
}
_CURVE_PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999)


def throughput(entries: Sequence[BenchEntry], title: str) -> str:
    """Plot requests per second of each target: bars of the medians, error bars from minimum to maximum."""
    shown = sorted((each for each in entries if each.rounds), key=lambda each: each.median(_rate) or 0)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.34 * len(shown) + 1.3), layout="constrained")
        axes = figure.subplots()
        medians = [each.median(_rate) or 0 for each in shown]
        spans = [[m - min(_rates(e)) for m, e in zip(medians, shown, strict=True)]]
        spans.append([max(_rates(e)) - m for m, e in zip(medians, shown, strict=True)])
        axes.barh([_label(each.name) for each in shown], medians, color=_COLOURS[0], height=0.7)
        axes.errorbar(medians, range(len(shown)), xerr=spans, fmt="none", ecolor="#333333", capsize=3, lw=1)
        highest = max((max(_rates(each)) for each in shown), default=1) or 1
        for index, (median, each) in enumerate(zip(medians, shown, strict=True)):
            axes.text(
                max(_rates(each)) + highest * 0.012, index, format_number(median), va="center", fontsize=9
            )
        axes.set_xlim(0, highest * 1.14)
        axes.set_xlabel("requests per second (median of the rounds; line: minimum to maximum)")
        axes.xaxis.set_major_formatter(FuncFormatter(_tick_label))
        axes.grid(axis="y", visible=False)
        axes.set_title(_label(title), loc="left", fontsize=11)
        return _svg(figure)


def as_run(entries: Sequence[BenchEntry], title: str) -> str:
    """Plot requests per second of each target as it is run: bars of NAME, "NAME, metrics" and "NAME, log"."""
    ways = {"": "quiet", "metrics": "with metrics", "log": "with a log of connections"}
    found: dict[str, dict[str, BenchEntry]] = {}
    for entry in sorted(entries, key=lambda each: each.median(_rate) or 0):
        name, _, way = entry.name.partition(", ")
        if entry.rounds:
            found.setdefault(name, {})[way] = entry
    names = sorted(found, key=lambda name: max(each.median(_rate) or 0 for each in found[name].values()))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.44 * len(names) + 1.6), layout="constrained")
        axes = figure.subplots()
        for index, (way, label) in enumerate(ways.items()):
            shown = [(at, found[name][way]) for at, name in enumerate(names) if way in found[name]]
            if not shown:
                continue
            # A target that is run in one way has one bar in the middle, in grey.
            is_several = [len(found[names[at]]) > 1 for at, _ in shown]
            places = [at + 0.27 * (1 - index) * each for (at, _), each in zip(shown, is_several, strict=True)]
            colours = [_COLOURS[index] if each else "#999999" for each in is_several]
            rates = [each.median(_rate) or 0 for _, each in shown]
            spans = [
                [rate - min(_rates(each)) for rate, (_, each) in zip(rates, shown, strict=True)],
                [max(_rates(each)) - rate for rate, (_, each) in zip(rates, shown, strict=True)],
            ]
            axes.barh(places, rates, color=colours, height=0.25)
            axes.barh([0], [0], color=_COLOURS[index], label=label)  # for the legend
            axes.errorbar(rates, places, xerr=spans, fmt="none", ecolor="#333333", capsize=1.5, lw=0.7)
        axes.set_yticks(range(len(names)), [_label(each) for each in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel("requests per second (median of the rounds; line: minimum to maximum)")
        axes.xaxis.set_major_formatter(FuncFormatter(_tick_label))
        axes.grid(axis="y", visible=False)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        axes.set_title(_label(title), loc="left", fontsize=11)
        return _svg(figure)


def percentiles(entries: Sequence[BenchEntry], title: str) -> str:
    """Plot latency by percentile on logarithmic axes, up to the last percentile that each n supports."""
    lines: list[tuple[str, LatencySummary, str]] = []
    several = len(entries) > 1
    for entry in entries[:MAX_LINES]:
        corrected = [each.corrected for each in entry.rounds if each.corrected is not None]
        uncorrected = LatencySummary.merge(each.uncorrected for each in entry.rounds)
        if corrected:
            lines.append(
                (entry.name if several else "from the due time", LatencySummary.merge(corrected), "-")
            )
        if not corrected or not several:
            label = entry.name if several else "from the send" if corrected else "from the send (closed loop)"
            lines.append((label, uncorrected, "-" if not corrected else "--"))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        last_percent = 50.0
        for index, (label, latency, style) in enumerate(lines):
            curve = _curve(latency)
            if not curve:
                continue
            last_percent = max(last_percent, curve[-1][0])
            axes.plot(
                [_nines(percent) for percent, _ in curve],
                [value for _, value in curve],
                style,
                label=_label(label),
                color=_COLOURS[index % len(_COLOURS)],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=5,
            )
        ticks = [50.0, *(each for each in (90.0, 99.0, 99.9, 99.99, 99.999) if each <= last_percent)]
        axes.set_xticks([_nines(each) for each in ticks], [f"{each:g} %" for each in ticks])
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_tick_label))
        axes.yaxis.set_minor_formatter(FuncFormatter(_minor_tick_label))
        axes.set_xlabel("percentile of requests")
        axes.set_ylabel("latency in microseconds")
        axes.grid(axis="y", which="minor", color="#eeeeee")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9, ncols=1 if len(lines) < 5 else 2)
        axes.set_title(_label(title), loc="left", fontsize=11)
        return _svg(figure)


def has_heat_map(entry: BenchEntry) -> bool:
    """Whether an entry has latencies over time."""
    return any(each.heat is not None and any(each.heat.columns) for each in entry.rounds)


def heat_map(entry: BenchEntry, title: str) -> str:
    """Plot the latencies over time, all rounds in one, and beside it their histogram with the same axis."""
    found = [each.heat for each in entry.rounds if each.heat is not None]
    counts = merge_heat_maps(HeatMap.from_columns(each.columns) for each in found).counts
    filled = np.flatnonzero(counts.sum(axis=0))
    first, last = int(filled[0]), int(filled[-1]) + 1
    bounds = [row_bound(row) / 1000 for row in range(first, last + 1)]
    shown = counts[:, first:last].T
    seconds = found[0].slice_s * np.arange(COLUMNS + 1)
    # Without the palest quarter, in which single requests, the outliers, would not be seen.
    colours = ListedColormap(mpl.colormaps["Blues"](np.linspace(0.25, 1, 256)))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes, side = figure.subplots(1, 2, sharey=True, width_ratios=[4, 1])
        mesh = axes.pcolormesh(
            seconds,
            bounds,
            np.ma.masked_equal(shown, 0),
            cmap=colours,
            norm=LogNorm(1, max(2, shown.max())),
            rasterized=True,
        )
        axes.set_yscale("log")
        axes.set_ylim(bounds[0] / 1.1, bounds[-1] * 1.1)
        axes.yaxis.set_major_formatter(FuncFormatter(_tick_label))
        axes.yaxis.set_minor_formatter(FuncFormatter(_minor_tick_label))
        axes.set_xlabel("time at which the request was due, in seconds")
        axes.set_ylabel("latency in microseconds")
        axes.set_title(_label(title), loc="left", fontsize=11)
        bar = figure.colorbar(mesh, ax=side, label="requests in a cell", pad=0.15)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(_tick_label))
        side.stairs(
            shown.sum(axis=1), bounds, orientation="horizontal", fill=True, color=_COLOURS[0], baseline=0.5
        )
        side.set_xscale("log")
        side.set_xlim(left=0.5)
        side.xaxis.set_major_formatter(FuncFormatter(_tick_label))
        side.xaxis.set_minor_formatter(NullFormatter())
        side.set_xlabel("requests")
        side.tick_params(axis="y", which="both", left=False)
        return _svg(figure)


def bulk(transfer: BulkTransfer, title: str) -> str:
    """Plot a bulk transfer over time: its speed and TCP's figures, a line for each connection."""
    samples = transfer.samples
    seconds = [each.at_s for each in samples]
    count = max(len(each.connections) for each in samples)
    with mpl.rc_context(_STYLE):
        if transfer.kind == "chargen":  # this end sends ACKs only, so its TCP has no figures of interest
            count = 0
        panels = 4 if count else 1
        figure = Figure(figsize=(8, 1.9 * panels + 0.6), layout="constrained")
        speed, *others = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        shown = {"echo": "sr", "upper": "sr", "chargen": "r"}.get(transfer.kind, "s")
        if "s" in shown:
            sent = [each.sent_per_s / 1e6 for each in samples]
            speed.plot(seconds, sent, color=_COLOURS[1], label="sent", drawstyle="steps-pre")
        if "r" in shown:
            received = [each.received_per_s / 1e6 for each in samples]
            speed.plot(seconds, received, color=_COLOURS[0], label="received", drawstyle="steps-pre")
        rates = [sum(tcp.delivery_rate or 0 for tcp in each.connections) / 1e6 for each in samples]
        if "s" in shown and any(rates):
            speed.plot(seconds, rates, ":", color="#333333", label="delivery rate (TCP_INFO)")
        speed.set_ylabel("MB/s")
        speed.legend(frameon=False, fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98))
        speed.set_title(_label(title), loc="left", fontsize=11)
        if count:
            _plot_tcp(others, samples, count)
        for axes in (speed, *others):
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(_tick_label))
        axes.set_xlim(0, seconds[-1])
        axes.set_xlabel("seconds")
        return _svg(figure)


def _plot_tcp(panels: Sequence[Any], samples: Sequence[BulkSample], count: int) -> None:
    alpha = max(0.4, 1 / count)
    for index in range(count):
        found = [(each.at_s, each.connections[index]) for each in samples if index < len(each.connections)]
        seconds, figures = [at for at, _ in found], [tcp for _, tcp in found]
        panels[0].plot(seconds, [tcp.cwnd for tcp in figures], color=_COLOURS[2], alpha=alpha)
        panels[1].plot(seconds, [tcp.rtt_us / 1000 for tcp in figures], color=_COLOURS[3], alpha=alpha)
    totals = [sum(tcp.retransmissions for tcp in each.connections) for each in samples]
    added = [max(0, total - before) for before, total in zip([totals[0], *totals], totals, strict=False)]
    width = samples[-1].at_s / len(samples)
    panels[2].bar([each.at_s - width / 2 for each in samples], added, width=width, color=_COLOURS[5])
    panels[0].set_ylabel("cwnd (segments)")
    panels[1].set_ylabel("rtt (ms)")
    panels[2].set_ylabel("retransmitted\n(segments)")


def saturation(document: Document) -> str:
    """Plot latency against the requested rate. The target saturates where p99 departs from p50."""
    tried = sorted(document.knee, key=lambda each: each.load.rate or 0)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        for index, (name, label) in enumerate((("p50", "p50"), ("p99", "p99"), ("max", "maximum"))):
            points = [(e.load.rate, v) for e in tried if (v := _latency_figure(e, name)) is not None]
            axes.plot(
                [rate or 0 for rate, _ in points],
                [value for _, value in points],
                label=label,
                color=_COLOURS[index],
                marker=_MARKERS[index],
                markersize=5,
            )
        bad = [each for each in tried if each.failed or not all(map(is_fully_sent, each.rounds))]
        failed = [(each.load.rate, _latency_figure(each, "max")) for each in bad]
        if failed:
            points = [(rate, value) for rate, value in failed if value is not None]
            axes.plot(
                [rate or 0 for rate, _ in points],
                [value for _, value in points],
                "x",
                color="#D55E00",
                markersize=11,
                markeredgewidth=2,
                label="with faults or unsent requests",
            )
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_tick_label))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick_label))
        axes.set_xlabel("requested rate in requests per second")
        axes.set_ylabel("latency from the due time in microseconds")
        axes.set_xlim(left=0)
        axes.legend(frameon=False, fontsize=9)
        axes.set_title(
            _label(tried[0].load.title.rpartition(",")[0]) if tried else "", loc="left", fontsize=11
        )
        return _svg(figure)


def _label(text: str) -> str:
    """Escape a name for matplotlib, which sets text between dollars as a formula, and truncate it."""
    return escape_line(text[:_MAX_LABEL]).replace("$", r"\$")


def _rates(entry: BenchEntry) -> list[float]:
    return [each.per_s for each in entry.rounds]


def _rate(each: Any) -> float | None:
    found: float = each.per_s
    return found


def _latency_figure(entry: BenchEntry, name: str) -> float | None:
    latency = LatencySummary.merge(each.latency for each in entry.rounds)
    if not latency.n:
        return None
    return latency.max_us if name == "max" else latency.percentiles_us.get(name)


def _curve(latency: LatencySummary) -> list[tuple[float, float]]:
    from bothends.bench.histogram import Histogram

    found = Histogram.decode(latency.histogram).curve(_CURVE_PERCENTILES)
    return [(percent, max(value, 1) / 1000) for percent, value in found]


def _nines(percent: float) -> float:
    """Return the number of nines of a percentile: 1 for 90 %, 2 for 99 %."""
    return -math.log10(1 - percent / 100)


def _tick_label(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}"


def _minor_tick_label(value: float, _: object) -> str:
    """Label only 2 and 5 between the powers of ten."""
    digit = value / 10 ** math.floor(math.log10(value)) if value > 0 else 0
    return _tick_label(value, None) if round(digit) in (2, 5) else ""


def _svg(figure: Figure) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    return text[text.index("<svg") :]
