"""The style sheet of the web page of a trace (`html.py`)."""

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
main { --time: 4.6rem; --stroke: linear-gradient(var(--line), var(--line));
  --dashes: repeating-linear-gradient(var(--muted) 0 3px, transparent 3px 6px); }
.row { display: grid; grid-template-columns: var(--time) repeat(var(--lanes), minmax(0, 1fr));
  min-height: 1.5em; background-size: 1px 100%; background-repeat: no-repeat; }
.row > * { grid-row: 1; }
.row[data-event] { cursor: default; }
ol.long .row { height: 1.6em; min-height: 0; }
ol.long .cell, ol.long .arrow b { white-space: pre; overflow: hidden; text-overflow: ellipsis; }
ol.long .arrow b { display: inline-block; max-width: 100%; vertical-align: top; }
ol.long .lanes { position: static; padding: 0; }
#heads[hidden] { display: none; }
#heads { font: bold 12.5px/1.35 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.wide { padding-bottom: 34vh; }
.wide .columns { display: block; }
.wide main { width: calc(4.6rem + var(--lanes) * 17rem); }
.wide aside { position: fixed; inset: auto 0 0 0; max-height: 32vh; z-index: 3;
  border-top: 1px solid var(--line); border-radius: 0; }
.wide header, .wide .findings, .wide .filters { max-width: calc(100vw - 2rem); }
.fold { grid-column: 2 / -1; color: var(--note); padding: .1em .65em; white-space: pre; overflow: hidden;
  text-overflow: ellipsis; }
.row.folded { cursor: pointer; background-color: var(--panel); }
.filters { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: center; padding: 0 1rem .6rem; }
.filters[hidden] { display: none; }
.filters label { color: var(--muted); }
.filters input, .filters select, .filters button { font: inherit; color: var(--text);
  background: var(--panel); border: 1px solid var(--line); border-radius: 4px; padding: .1rem .4rem;
  max-width: 16rem; }
.filters output { color: var(--muted); }
.lanes { position: sticky; top: 0; z-index: 2; background-color: var(--background); font-weight: bold;
  padding: .35rem 0; }
.time { grid-column: 1; color: var(--muted); white-space: pre; padding-top: .1em; }
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
.related, .related .arrow b { background-color: var(--related); }
.selected, .selected .arrow b { background-color: var(--selected); }
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
  main { --time: 3.4rem; }
  .row { scroll-margin-bottom: 42vh; }
  aside { position: fixed; inset: auto 0 0 0; max-height: 40vh; border-radius: 10px 10px 0 0;
    border-top: 1px solid var(--line); z-index: 3; }
}
"""
