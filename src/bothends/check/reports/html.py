"""The HTML report: a self-contained page without scripts, web fonts or external images. Pure.

All texts from a program are escaped twice: by `escaping.escape` when they are recorded, and by `markup` here.
"""

from __future__ import annotations

from typing import Final

from bothends.check.case import Verdict
from bothends.check.results import CaseOutcome, SuiteResult
from bothends.foreign_text import markup

_CSS_CLASSES: Final = {
    Verdict.PASS: "pass",
    Verdict.NON_STRICT: "nonstrict",
    Verdict.INFO: "info",
    Verdict.FAIL: "fail",
    Verdict.SKIP: "skip",
}
STYLE: Final = """
:root { --text: #1c2024; --background: #fff; --border: #d8dde3; --muted: #5b6570; --panel: #f5f7f9;
  --pass: #1a7f4b; --fail: #c0272d; --nonstrict: #9a6700; --info: #0b63b5; --skip: #6b7580; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --background: #15181c; --border: #333a42;
  --muted: #9aa5b1; --panel: #1d2126; --pass: #4cc38a; --fail: #ff7a7a; --nonstrict: #e2b04a; --info: #6db3f2;
  --skip: #8b96a2; } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--background);
  max-width: 62rem; margin: 2rem auto; padding: 0 1.25rem }
h1 { font-size: 1.4rem; margin: 0 0 .2rem } h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem }
.muted, .about { color: var(--muted) } .about { font-size: .85rem }
code, pre { font: 13px/1.5 ui-monospace, monospace }
.program { display: block; overflow-wrap: anywhere }
.bar { display: flex; height: .6rem; border-radius: .3rem; overflow: hidden; margin: 1rem 0 .5rem; gap: 2px }
.bar span.pass { background: var(--pass) } .bar span.fail { background: var(--fail) }
.bar span.nonstrict { background: var(--nonstrict) } .bar span.info { background: var(--info) }
.bar span.skip { background: var(--border) }
.counts b { margin-right: .35rem } .counts span { margin-right: 1.2rem }
table { border-collapse: collapse; width: 100% } th { text-align: left; font-weight: 600 }
td, th { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--border); vertical-align: top }
td:last-child { color: var(--muted); overflow-wrap: anywhere }
.verdict { font-weight: 600; white-space: nowrap } a { color: inherit }
.pass .verdict, b.pass { color: var(--pass) } .fail .verdict, b.fail { color: var(--fail) }
.nonstrict .verdict, b.nonstrict { color: var(--nonstrict) } .info .verdict, b.info { color: var(--info) }
.skip .verdict, b.skip { color: var(--skip) }
details { border: 1px solid var(--border); border-radius: .4rem; margin: .6rem 0; padding: .5rem .9rem }
summary { cursor: pointer } summary .verdict { margin-right: .6rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .7rem 0 }
dt { color: var(--muted) } dd { margin: 0; overflow-wrap: anywhere }
pre { background: var(--panel); padding: .7rem .9rem; border-radius: .3rem; overflow-x: auto;
  margin: .6rem 0 }
.long { max-height: 26rem; overflow-y: auto }
.transcript { width: 100%; font: 13px/1.5 ui-monospace, monospace; background: var(--panel);
  border-radius: .3rem }
.transcript td { border: 0; padding: .08rem .9rem; color: inherit }
.transcript td:first-child { text-align: right; color: var(--muted); width: 5rem }
.transcript td:nth-child(2) { width: 7rem; font-weight: 600; white-space: nowrap }
.transcript td:last-child { overflow-wrap: anywhere }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .5rem }
  body { margin: 1rem auto; padding: 0 .8rem } details { padding: .5rem .6rem }
  .cases td:nth-child(4), .cases th:nth-child(4) { display: none }
  .transcript td, .transcript td:first-child, .transcript td:nth-child(2) {
    padding: .08rem .3rem; width: auto } }
"""


def as_html(result: SuiteResult) -> str:
    """Return the page for a result."""
    failed = [each for each in result.outcomes if each.verdict is Verdict.FAIL]
    non_strict = [each for each in result.outcomes if each.verdict is Verdict.NON_STRICT and each.transcript]
    title = f"{result.contract}: {'failed' if failed else 'passed'}"
    lost = [each for each in result.outcomes if each.points < each.max_points]
    parts = [
        f"<h1>{markup(title)}</h1>",
        f'<code class="program muted">{markup(result.program)}</code>',
        verdict_bar(result),
        f'<p class="muted">{result.points:g} of {result.max_points:g} points, in {result.seconds:.1f} s</p>',
        *(f'<p class="muted">Note: {markup(note)}.</p>' for note in result.notes),
    ]
    if lost:
        items = "".join(map(_lost_points, lost))
        parts.append(f"<h2>Lost points</h2><ul>{items}</ul>")
    if failed:
        parts += ["<h2>Failures</h2>", *(_details(each, expanded=True) for each in failed)]
    if non_strict:
        parts += ["<h2>Non-strict behaviour</h2>", *(_details(each, expanded=False) for each in non_strict)]
    rows = "".join(_row(each) for each in result.outcomes)
    head = "<tr><th>verdict</th><th>case</th><th>points</th><th>s</th><th>what happened</th></tr>"
    parts += [
        "<h2>All cases</h2>",
        f'<table class="cases"><thead>{head}</thead><tbody>{rows}</tbody></table>',
    ]
    return document(title, "\n".join(parts))


def _lost_points(outcome: CaseOutcome) -> str:
    reason = outcome.happened or outcome.detail
    if outcome.verdict is Verdict.FAIL and outcome.likely_cause:
        reason += f" ({outcome.likely_cause})"
    points = f"{outcome.max_points - outcome.points:g}"
    return f"<li>{points}: <b>{markup(outcome.case)}</b>: {markup(reason)}</li>"


def document(title: str, body: str) -> str:
    """Return a complete HTML document with this body."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{markup(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def verdict_bar(result: SuiteResult) -> str:
    """Return the number of cases by verdict, as a bar and as text."""
    counted = [(verdict, result.counts[verdict]) for verdict in _CSS_CLASSES if result.counts[verdict]]
    pieces = "".join(f'<span class="{_CSS_CLASSES[v]}" style="flex:{n}"></span>' for v, n in counted)
    words = "".join(f'<span><b class="{_CSS_CLASSES[v]}">{n}</b>{v.value}</span>' for v, n in counted)
    return f'<div class="bar">{pieces}</div><div class="counts">{words}</div>'


def _row(outcome: CaseOutcome) -> str:
    name = markup(outcome.case)
    if outcome.transcript:
        name = f'<a href="#{name}">{name}</a>'
    points = f"{outcome.points:g} of {outcome.max_points:g}" if outcome.max_points else "-"
    test = f"{outcome.stimulus}: {outcome.expectation}. {outcome.why}" if outcome.stimulus else ""
    about = f'<br><span class="about">{markup(test)}</span>' if test else ""
    return (
        f'<tr class="{_CSS_CLASSES[outcome.verdict]}"><td class="verdict">{outcome.verdict.value}</td>'
        f"<td>{name}{about}</td><td>{points}</td><td>{outcome.seconds:.2f}</td>"
        f"<td>{markup(outcome.summary)}</td></tr>"
    )


def _details(outcome: CaseOutcome, *, expanded: bool) -> str:
    facts = "".join(
        f"<dt>{head}</dt><dd>{markup(text)}</dd>"
        for head, text in (
            ("test", outcome.stimulus),
            ("why", outcome.why),
            ("expected", outcome.expected),
            ("happened", outcome.happened or outcome.detail),
            ("likely cause", outcome.likely_cause),
            ("calls and packets", outcome.evidence),
            ("attempts", f"{outcome.attempts}" if outcome.attempts > 1 else ""),
        )
        if text
    )
    transcript = "".join(
        f"<tr><td>{entry.seconds:.3f}</td><td>{markup(entry.actor)}</td><td>{markup(entry.event)}</td></tr>"
        for entry in outcome.transcript
    )
    name = markup(outcome.case)
    stderr = f"<p>Standard error:</p><pre>{markup(outcome.stderr_tail)}</pre>" if outcome.stderr_tail else ""
    return (
        f'<details id="{name}" class="{_CSS_CLASSES[outcome.verdict]}"{" open" if expanded else ""}>'
        f'<summary><span class="verdict">{outcome.verdict.value}</span><b>{name}</b></summary>'
        f'<dl>{facts}</dl><div class="long"><table class="transcript">{transcript}</table></div>'
        f"{stderr}</details>"
    )
