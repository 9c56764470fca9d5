"""The style and the script of the web page of a trace (`html.py`). Text only; the script builds no HTML."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --ground: #ffffff; --faint: #5f6874; --line: #c4cad2;
  --panel: #f4f6f8; --lit: #fff3c4; --kept: #ffe9a8; --data: #17722f; --open: #0b6a88; --end: #855300;
  --reset: #b3261e; --state: #2f5bb7; --note: #7d3c98; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --ground: #101418; --faint: #98a2b0;
  --line: #39424e;
  --panel: #1a2027; --lit: #2c2a16; --kept: #40380f; --data: #6fdd8b; --open: #6fd3ee; --end: #f2bf5e;
  --reset: #ff8a80; --state: #9db9ff; --note: #dba6f2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, .findings { padding: 0 1rem; }
h1 { font-size: 1.15rem; margin: 1rem 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
header p { margin: 0 0 .75rem; color: var(--faint); }
.findings { margin: 0 1rem 1rem; padding: .75rem 1rem; background: var(--panel);
  border-left: 4px solid var(--end); }
.findings ul { margin: 0; padding-left: 1.2rem; }
.findings li { margin: .4rem 0; overflow-wrap: anywhere; }
.remedy, .seen { color: var(--faint); }
.both { display: grid; grid-template-columns: minmax(0, 1fr) 22rem; align-items: start; gap: 1rem;
  padding: 0 1rem 2rem; }
ol { list-style: none; margin: 0; padding: 0;
  font: 12.5px/1.35 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.row { display: grid; grid-template-columns: 4.6rem repeat(var(--lanes), minmax(0, 1fr));
  min-height: 1.5em; }
.row > * { grid-row: 1; }
.row[data-event] { cursor: default; }
.head { position: sticky; top: 0; z-index: 2; background: var(--ground); font-weight: bold;
  padding: .35rem 0; }
.time { grid-column: 1; color: var(--faint); white-space: pre; padding-top: .1em; }
.bar { border-left: 1px solid var(--line); }
.bar.waits { border-left: 1px dashed var(--faint); }
.cell { padding: .1em .4em .1em .65em; overflow-wrap: anywhere; }
.head .cell { padding-left: 0; }
.arrow { position: relative; text-align: center; margin-left: 1px; padding: .1em 1em; overflow: hidden; }
.arrow::before { content: ""; position: absolute; left: 0; right: 0; top: .8em;
  border-top: 1.5px solid currentColor; }
.arrow::after { content: ""; position: absolute; top: .8em; border: 5px solid transparent;
  margin-top: -4px; }
.arrow.right::after { right: 0; border-left: 8px solid currentColor; border-right-width: 0; }
.arrow.left::after { left: 0; border-right: 8px solid currentColor; border-left-width: 0; }
.arrow.leaves.right, .arrow.lost.right, .arrow.arrives.left { margin-right: 30%; }
.arrow.leaves.left, .arrow.lost.left, .arrow.arrives.right { margin-left: 30%; }
.arrow.leaves::before, .arrow.arrives::before, .arrow.lost::before { border-top-style: dashed; }
.arrow.leaves::after { display: none; }
.arrow.lost::after { content: "✗"; border: 0; margin: 0; top: .05em; }
.arrow b { position: relative; font-weight: normal; background: var(--ground); padding: 0 .4em;
  overflow-wrap: anywhere; }
.quiet { color: var(--faint); } .error, .reset { color: var(--reset); } .data { color: var(--data); }
.open { color: var(--open); } .end { color: var(--end); } .state { color: var(--state); } .note {
  color: var(--note); }
.lit, .lit .arrow b { background: var(--lit); }
.chosen, .chosen .arrow b { background: var(--kept); }
.row:focus { outline: 2px solid var(--state); outline-offset: -2px; }
a { color: var(--state); }
aside { position: sticky; top: .5rem; background: var(--panel); border-radius: 6px; padding: .9rem 1rem;
  max-height: calc(100vh - 1rem); overflow: auto; }
aside code { font: 12.5px/1.4 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
aside dl { margin: .5rem 0; } aside dt { color: var(--faint); font-size: .85rem; } aside dd {
  margin: 0 0 .45rem; overflow-wrap: anywhere; }
aside p { margin: .3rem 0 .6rem; }
@media (max-width: 760px) {
  body { padding-bottom: 42vh; }
  .both { display: block; padding: 0 .5rem; }
  ol { font-size: 11px; }
  .row { grid-template-columns: 3.4rem repeat(var(--lanes), minmax(0, 1fr)); scroll-margin-bottom: 42vh; }
  aside { position: fixed; inset: auto 0 0 0; max-height: 40vh; border-radius: 10px 10px 0 0;
    border-top: 1px solid var(--line); z-index: 3; }
}
"""

SCRIPT: Final = """
"use strict";
const events = JSON.parse(document.getElementById("events").textContent);
const details = document.getElementById("details");
const rows = Array.from(document.querySelectorAll(".row[data-event]"));
const byEvent = new Map();
for (const row of rows) {
  const number = row.dataset.event;
  if (!byEvent.has(number)) byEvent.set(number, []);
  byEvent.get(number).push(row);
}
let kept = null;

function reach(number, way) {
  const found = new Set(), waiting = [String(number)];
  while (waiting.length) {
    const next = waiting.pop();
    for (const each of (events[next] || {})[way] || []) {
      if (!found.has(String(each))) { found.add(String(each)); waiting.push(String(each)); }
    }
  }
  return found;
}

function add(parent, name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
  return element;
}

function show(number) {
  for (const row of document.querySelectorAll(".lit, .chosen")) row.classList.remove("lit", "chosen");
  const event = events[number];
  if (!event) return;
  for (const each of [...reach(number, "from"), ...reach(number, "to")])
    for (const row of byEvent.get(each) || []) row.classList.add("lit");
  for (const row of byEvent.get(String(number)) || []) row.classList.add("chosen");
  details.replaceChildren();
  add(details, "h2", event.title);
  if (event.who) add(details, "p", event.who).className = "quiet";
  if (event.means) add(details, "p", event.means);
  if (event.general && event.general !== event.means) add(details, "p", event.general).className = "quiet";
  const list = document.createElement("dl");
  const item = (name, text, code) => {
    if (!text) return;
    add(list, "dt", name);
    const value = add(list, "dd", code ? "" : text);
    if (code) add(value, "code", text);
  };
  item("in C", event.c, true);
  item("in Python", event.python, true);
  for (const [name, value] of event.arguments || []) item(name, value, true);
  item("data", event.data, true);
  item("lasted", event.lasted, false);
  details.append(list);
}

function choose(row) {
  for (const each of rows) each.tabIndex = -1;
  row.tabIndex = 0;
  row.focus({preventScroll: false});
}

if (rows.length) rows[0].tabIndex = 0;
for (const row of rows) {
  row.addEventListener("mouseenter", () => { if (kept === null) show(row.dataset.event); });
  row.addEventListener("focus", () => { if (kept === null) show(row.dataset.event); });
  row.addEventListener("click", () => {
    kept = kept === row.dataset.event ? null : row.dataset.event;
    show(row.dataset.event);
  });
}
document.addEventListener("keydown", (event) => {
  const row = document.activeElement;
  const index = rows.indexOf(row);
  if (index < 0) return;
  const to = {ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: rows.length - 1}[event.key];
  if (to !== undefined && rows[to]) { event.preventDefault(); choose(rows[to]); }
  if (event.key === "Enter") row.click();
  if (event.key === "Escape") { kept = null; show(row.dataset.event); }
});
function follow() {
  const row = document.getElementById(location.hash.slice(1));
  if (row && row.dataset.event) { kept = row.dataset.event; choose(row); show(kept); }
}
window.addEventListener("hashchange", follow);
follow();
"""
