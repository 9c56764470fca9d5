"""The style sheet and the script of the web page of a trace (`html.py`).

The script creates elements and sets their textContent; it never parses HTML.
"""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --text: #1b1f24; --background: #ffffff; --muted: #5f6874; --line: #c4cad2;
  --panel: #f4f6f8; --related: #fff3c4; --selected: #ffe9a8; --data: #17722f; --open: #0b6a88; --end: #855300;
  --reset: #b3261e; --state: #2f5bb7; --note: #7d3c98; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --background: #101418; --muted: #98a2b0;
  --line: #39424e;
  --panel: #1a2027; --related: #2c2a16; --selected: #40380f; --data: #6fdd8b; --open: #6fd3ee; --end: #f2bf5e;
  --reset: #ff8a80; --state: #9db9ff; --note: #dba6f2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--background); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
header, .findings { padding: 0 1rem; }
h1 { font-size: 1.15rem; margin: 1rem 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
header p { margin: 0 0 .75rem; color: var(--muted); }
.findings { margin: 0 1rem 1rem; padding: .75rem 1rem; background: var(--panel);
  border-left: 4px solid var(--end); }
.findings ul { margin: 0; padding-left: 1.2rem; }
.findings li { margin: .4rem 0; overflow-wrap: anywhere; }
.remedy, .evidence { color: var(--muted); }
.columns { display: grid; grid-template-columns: minmax(0, 1fr) 22rem; align-items: start; gap: 1rem;
  padding: 0 1rem 2rem; }
ol { list-style: none; margin: 0; padding: 0;
  font: 12.5px/1.35 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.row { display: grid; grid-template-columns: 4.6rem repeat(var(--lanes), minmax(0, 1fr));
  min-height: 1.5em; }
.row > * { grid-row: 1; }
.row[data-event] { cursor: default; }
.lanes { position: sticky; top: 0; z-index: 2; background: var(--background); font-weight: bold;
  padding: .35rem 0; }
.time { grid-column: 1; color: var(--muted); white-space: pre; padding-top: .1em; }
.bar { border-left: 1px solid var(--line); }
.bar.waits { border-left: 1px dashed var(--muted); }
.cell { padding: .1em .4em .1em .65em; overflow-wrap: anywhere; }
.lanes .cell { padding-left: 0; }
.arrow { position: relative; text-align: center; margin-left: 1px; padding: .1em 1em; overflow: hidden; }
.arrow::before { content: ""; position: absolute; left: 0; right: 0; top: .8em;
  border-top: 1.5px solid currentColor; }
.arrow::after { content: ""; position: absolute; top: .8em; border: 5px solid transparent;
  margin-top: -4px; }
.arrow.right::after { right: 0; border-left: 8px solid currentColor; border-right-width: 0; }
.arrow.left::after { left: 0; border-right: 8px solid currentColor; border-left-width: 0; }
.arrow.sent.right, .arrow.lost.right, .arrow.arrived.left { margin-right: 30%; }
.arrow.sent.left, .arrow.lost.left, .arrow.arrived.right { margin-left: 30%; }
.arrow.sent::before, .arrow.arrived::before, .arrow.lost::before { border-top-style: dashed; }
.arrow.sent::after { display: none; }
.arrow.lost::after { content: "✗"; border: 0; margin: 0; top: .05em; }
.arrow b { position: relative; font-weight: normal; background: var(--background); padding: 0 .4em;
  overflow-wrap: anywhere; }
.quiet { color: var(--muted); } .error, .reset { color: var(--reset); } .data { color: var(--data); }
.open { color: var(--open); } .end { color: var(--end); } .state { color: var(--state); } .note {
  color: var(--note); }
.related, .related .arrow b { background: var(--related); }
.selected, .selected .arrow b { background: var(--selected); }
.row:focus { outline: 2px solid var(--state); outline-offset: -2px; }
a { color: var(--state); }
aside { position: sticky; top: .5rem; background: var(--panel); border-radius: 6px; padding: .9rem 1rem;
  max-height: calc(100vh - 1rem); overflow: auto; }
aside code { font: 12.5px/1.4 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
aside dl { margin: .5rem 0; } aside dt { color: var(--muted); font-size: .85rem; } aside dd {
  margin: 0 0 .45rem; overflow-wrap: anywhere; }
aside p { margin: .3rem 0 .6rem; }
@media (max-width: 760px) {
  body { padding-bottom: 42vh; }
  .columns { display: block; padding: 0 .5rem; }
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
const rowsByEvent = new Map();
for (const row of rows) {
  const number = row.dataset.event;
  if (!rowsByEvent.has(number)) rowsByEvent.set(number, []);
  rowsByEvent.get(number).push(row);
}
let pinned = null;  // the event that stays selected when the pointer leaves it, if any

// All events that can be reached from one event through its "causes", or through its "effects".
function related(number, relation) {
  const found = new Set(), pending = [String(number)];
  while (pending.length) {
    const next = pending.pop();
    for (const each of (events[next] || {})[relation] || []) {
      if (!found.has(String(each))) { found.add(String(each)); pending.push(String(each)); }
    }
  }
  return found;
}

function append(parent, name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
  return element;
}

function select(number) {
  for (const row of document.querySelectorAll(".related, .selected"))
    row.classList.remove("related", "selected");
  const event = events[number];
  if (!event) return;
  for (const each of [...related(number, "causes"), ...related(number, "effects")])
    for (const row of rowsByEvent.get(each) || []) row.classList.add("related");
  for (const row of rowsByEvent.get(String(number)) || []) row.classList.add("selected");
  details.replaceChildren();
  append(details, "h2", event.title);
  if (event.subject) append(details, "p", event.subject).className = "quiet";
  if (event.explanation) append(details, "p", event.explanation);
  if (event.summary && event.summary !== event.explanation)
    append(details, "p", event.summary).className = "quiet";
  const list = document.createElement("dl");
  const addItem = (name, text, isCode) => {
    if (!text) return;
    append(list, "dt", name);
    const value = append(list, "dd", isCode ? "" : text);
    if (isCode) append(value, "code", text);
  };
  addItem("in C", event.c, true);
  addItem("in Python", event.python, true);
  for (const [name, value] of event.arguments || []) addItem(name, value, true);
  addItem("data", event.data, true);
  addItem("duration", event.duration, false);
  details.append(list);
}

// Only one row is in the tab order: the one that has, or last had, the focus.
function focusRow(row) {
  for (const each of rows) each.tabIndex = -1;
  row.tabIndex = 0;
  row.focus({preventScroll: false});
}

if (rows.length) rows[0].tabIndex = 0;
for (const row of rows) {
  row.addEventListener("mouseenter", () => { if (pinned === null) select(row.dataset.event); });
  row.addEventListener("focus", () => { if (pinned === null) select(row.dataset.event); });
  row.addEventListener("click", () => {
    pinned = pinned === row.dataset.event ? null : row.dataset.event;
    select(row.dataset.event);
  });
}
document.addEventListener("keydown", (event) => {
  const row = document.activeElement;
  const index = rows.indexOf(row);
  if (index < 0) return;
  const target = {ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: rows.length - 1}[event.key];
  if (target !== undefined && rows[target]) { event.preventDefault(); focusRow(rows[target]); }
  if (event.key === "Enter") row.click();
  if (event.key === "Escape") { pinned = null; select(row.dataset.event); }
});

// A finding links to its evidence: #e5 is event 5.
function selectLinkedRow() {
  const row = document.getElementById(location.hash.slice(1));
  if (row && row.dataset.event) { pinned = row.dataset.event; focusRow(row); select(pinned); }
}
window.addEventListener("hashchange", selectLinkedRow);
selectLinkedRow();
"""
