"""The script of the web page of a trace (`html.py`).

It builds the rows in view from columns of numbers and texts. It creates elements and sets their textContent;
it never parses HTML. A trace of few rows is built as a whole, and its texts wrap; in a longer one each has
one line, so that the place of any row is known, and only the rows in view are elements.
"""

from __future__ import annotations

from typing import Final

SCRIPT: Final = """
"use strict";
const MAX_WHOLE = 1500;  // rows that are all built at once
const MARGIN = 15;  // rows built above and below those in view
const details = document.getElementById("details");
const list = document.querySelector("ol");
const filters = document.querySelector(".filters");
const field = (name) => document.getElementById(name);

// The columns, by row: form, time, event, text. `view` are the rows as drawn: a row, or -1 - a fold's number.
let data, times, numbers, folds, foldOf, view = [], isOpen = [];
let rowsByEvent, effects = null, causes = null;
let pinned = null;  // the event that stays selected when the pointer leaves it, if any
let current = 0;  // the place in `view` of the row that has, or last had, the focus
let selected = null, relatedEvents = new Set();
let rowHeight = 20, isLong = false, first = 0, last = -1;
let headerRows = [], headed = -1;  // the rows with the names of the lanes; the one shown at the top

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function prepare() {
  data.texts = data.texts.split("\\n");
  const count = data.form.length;
  times = new Float64Array(count);
  numbers = new Float64Array(count);  // 0: the row shows no event
  rowsByEvent = new Map();
  let time = 0, number = 0;
  for (let row = 0; row < count; row++) {
    if (data.times[row] >= 0) { time += data.times[row]; times[row] = time; } else times[row] = -1;
    if (data.forms[data.form[row]][1]) headerRows.push(row);
    if (data.events[row] === null) continue;
    number += data.events[row];
    numbers[row] = number;
    if (!rowsByEvent.has(number)) rowsByEvent.set(number, row);
  }
  folds = data.folds;
  isOpen = folds.map(() => false);
  foldOf = new Int32Array(count).fill(-1);
  folds.forEach(([begin, size], index) => foldOf.fill(index, begin, begin + size));
}

// Which rows are drawn: all but those in a closed fold; with a filter, those that it selects.
function arrange() {
  const text = field("search").value.toLowerCase();
  const connection = Number(field("connection").value), process = Number(field("process").value);
  const call = field("call").value, finding = field("finding").value;
  const evidence = finding === "" ? null : new Set(data.findings[finding][1]);
  const isFiltered = text || connection || process || call || evidence;
  view = [];
  let rows = 0;
  for (let row = 0; row < data.form.length; row++) {
    const form = data.forms[data.form[row]];
    if (isFiltered && !form[1]) {
      if ((connection && form[2] !== connection) || (process && form[3] !== process)) continue;
      if (evidence && !evidence.has(numbers[row])) continue;
      if (call && kindOf(row) !== call) continue;
      if (text && !data.texts[row].toLowerCase().includes(text)) continue;
    } else if (foldOf[row] >= 0) {
      const fold = foldOf[row];
      if (row === folds[fold][0]) view.push(-1 - fold);
      if (!isOpen[fold]) { row = folds[fold][0] + folds[fold][1] - 1; continue; }
    }
    rows += !form[1];
    view.push(row);
  }
  isLong = view.length > MAX_WHOLE;
  list.classList.toggle("long", isLong);
  field("count").textContent = isFiltered ? `${rows.toLocaleString("en")} rows` : "";
  first = 0; last = -1;
  list.replaceChildren();
  list.style.paddingTop = list.style.paddingBottom = "0";
  draw(true);
}

function kindOf(row) {
  if (data.forms[data.form[row]][3] < 0) return "packets";
  const found = /^\\w+(?=\\()/.exec(data.texts[row]);
  return found ? found[0] : "";
}

// Build the rows in view, and keep those that are built already.
function draw(again) {
  field("heads").hidden = !isLong;
  if (!isLong) {
    if (again) list.replaceChildren(...view.map((_, place) => build(place)));
    return;
  }
  if (again && !list.childElementCount) {  // how high is a row?
    list.append(build(0));
    rowHeight = list.firstChild.getBoundingClientRect().height || rowHeight;
  }
  const top = -list.getBoundingClientRect().top;
  const shown = Math.ceil(window.innerHeight / rowHeight);
  showHeads(Math.max(0, Math.floor(top / rowHeight)));
  const begin = Math.max(0, Math.min(Math.floor(top / rowHeight) - MARGIN, view.length - shown));
  const end = Math.min(view.length, begin + shown + 2 * MARGIN);
  const inView = Math.floor(top / rowHeight);
  if (!again && inView >= first && Math.min(inView + shown, view.length) <= last + 1) return;
  if (again || begin > last || end <= first) {
    list.replaceChildren(...Array.from({length: end - begin}, (_, at) => build(begin + at)));
  } else {  // rows that stay are not touched: one of them may have the focus
    for (; first < begin; first++) list.firstChild.remove();
    for (; last >= end; last--) list.lastChild.remove();
    const above = [], below = [];
    for (let place = begin; place < first; place++) above.push(build(place));
    for (let place = last + 1; place < end; place++) below.push(build(place));
    list.prepend(...above);
    list.append(...below);
  }
  list.style.paddingTop = `${begin * rowHeight}px`;
  list.style.paddingBottom = `${(view.length - end) * rowHeight}px`;
  first = begin; last = end - 1;
}

// In a long list, the names of the lanes are shown above the rows in view.
function showHeads(place) {
  const item = view[Math.min(place, view.length - 1)];
  const row = item < 0 ? folds[-1 - item][0] : item;
  let header = -1;
  for (const each of headerRows) { if (each > row) break; header = each; }
  field("heads").style.visibility = place && header >= 0 ? "visible" : "hidden";
  if (header === headed || header < 0) return;
  headed = header;
  const cells = data.forms[data.form[header]].slice(5), texts = data.texts[header].split("\\t");
  field("heads").replaceChildren();
  for (let at = 0; at < cells.length; at += 2)
    append(field("heads"), "span", texts[at / 2], "cell lane").style.gridColumn = cells[at] + 2;
}

function append(parent, name, text, className) {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  if (className) element.className = className;
  parent.append(element);
  return element;
}

function build(place) {
  const item = document.createElement("li"), row = view[place];
  item.className = "row";
  item.tabIndex = place === current ? 0 : -1;
  item.dataset.place = place;
  if (row < 0) return buildFold(item, -1 - row);
  const [bars, isHeader, , , arrow, ...cells] = data.forms[data.form[row]], text = data.texts[row];
  if (isHeader) item.classList.add("lanes");
  const number = numbers[row];
  if (number) {
    item.dataset.event = number;
    if (rowsByEvent.get(number) === row) item.id = `e${number}`;
    item.classList.toggle("selected", number === selected);
    item.classList.toggle("related", relatedEvents.has(number));
  } else item.removeAttribute("tabindex");
  append(item, "span", times[row] < 0 ? "" : (times[row] / 1e4).toFixed(4), "time");
  if (!isHeader) drawBars(item, bars);
  if (arrow) {
    const [from, to, style, part] = arrow, left = Math.min(from, to), right = Math.max(from, to);
    const shaft = append(item, "span", "", `arrow ${from === left ? "right" : "left"} ${style}`);
    if (part !== "whole") shaft.classList.add(part);
    shaft.style.gridColumn = `${left + 2} / ${right + 2}`;
    append(shaft, "b", text);
    return item;
  }
  const texts = text.split("\\t");
  for (let at = 0; at < cells.length; at += 2) {
    const cell = append(item, "span", texts[at / 2], `cell ${cells[at + 1]}`);
    cell.style.gridColumn = cells[at] + 2;
  }
  return item;
}

// The bars of a row are its background: elements of their own would be most of the page.
const backgrounds = new Map();
function drawBars(item, bars) {
  let found = backgrounds.get(bars);
  if (!found) {
    const lanes = bars.map((bar, lane) => [bar, lane]).filter(([bar]) => bar !== "none");
    const count = getComputedStyle(list).getPropertyValue("--lanes");
    found = [
      lanes.map(([bar]) => bar === "waits" ? "var(--dashes)" : "var(--stroke)").join(),
      lanes.map(([, lane]) => `calc(var(--time) + (100% - var(--time)) * ${lane} / ${count}) 0`).join(),
    ];
    backgrounds.set(bars, found);
  }
  [item.style.backgroundImage, item.style.backgroundPosition] = found;
}

function buildFold(item, fold) {
  const [begin, , text] = folds[fold];
  item.classList.add("folded");
  item.dataset.fold = fold;
  item.setAttribute("aria-expanded", String(isOpen[fold]));
  append(item, "span", times[begin] < 0 ? "" : (times[begin] / 1e4).toFixed(4), "time");
  append(item, "span", `${isOpen[fold] ? "▾" : "▸"} ${text}`, "fold");
  return item;
}

// All events that can be reached from one event through its causes, or through its effects.
function related(number, relation) {
  const found = new Set(), pending = [number];
  while (pending.length && found.size < 10000) {
    for (const each of relation.get(pending.pop()) || []) {
      if (!found.has(each)) { found.add(each); pending.push(each); }
    }
  }
  return found;
}

function readCauses() {
  causes = new Map(); effects = new Map();
  for (let at = 0; at < data.causes.length;) {
    const number = data.causes[at], count = data.causes[at + 1];
    const found = data.causes.slice(at + 2, at + 2 + count).map((back) => number - back);
    causes.set(number, found);
    for (const each of found) {
      if (!effects.has(each)) effects.set(each, []);
      effects.get(each).push(number);
    }
    at += 2 + count;
  }
}

// What is told about an event: of one that is folded, what is told about one like it, and its own row.
function detailsOf(number) {
  const own = data.details[number];
  if (own) return own;
  const row = rowsByEvent.get(number);
  if (row === undefined) return null;
  const kind = kindOf(row), [, , connection, process] = data.forms[data.form[row]];
  for (const each of Object.keys(data.details)) {
    const other = rowsByEvent.get(Number(each));
    const [, , otherConnection, otherProcess] = data.forms[data.form[other]] || [];
    if (otherConnection === connection && otherProcess === process && kindOf(other) === kind)
      return {...data.details[each], title: data.texts[row], arguments: [], data: "", duration: ""};
  }
  return {title: data.texts[row]};
}

function select(number) {
  if (causes === null) readCauses();
  const event = detailsOf(number);
  if (!event) return;
  selected = number;
  relatedEvents = new Set([...related(number, causes), ...related(number, effects)]);
  for (const item of list.children) {
    const each = Number(item.dataset.event);
    item.classList.toggle("selected", each === number);
    item.classList.toggle("related", each !== number && relatedEvents.has(each));
  }
  details.replaceChildren();
  append(details, "h2", event.title);
  if (event.subject) append(details, "p", event.subject, "quiet");
  if (event.explanation) append(details, "p", event.explanation);
  if (event.summary && event.summary !== event.explanation) append(details, "p", event.summary, "quiet");
  const terms = document.createElement("dl");
  const addItem = (name, text, isCode) => {
    if (!text) return;
    append(terms, "dt", name);
    const value = append(terms, "dd", isCode ? "" : text);
    if (isCode) append(value, "code", text);
  };
  addItem("in C", event.c, true);
  addItem("in Python", event.python, true);
  for (const [name, value] of event.arguments || []) addItem(name, value, true);
  addItem("says", event.said || "", false);
  addItem("data", event.data, true);
  addItem("duration", event.duration, false);
  details.append(terms);
}

const itemAt = (place) => list.querySelector(`[data-place="${place}"]`);
const canFocus = (place) => view[place] < 0 || numbers[view[place]] > 0;

// Only one row is in the tab order: the one that has, or last had, the focus.
function focusRow(place) {
  const before = itemAt(current);
  if (before) before.tabIndex = -1;
  current = place;
  if (isLong && !itemAt(place)) {
    const top = list.getBoundingClientRect().top + window.scrollY + place * rowHeight;
    window.scrollTo(0, top - window.innerHeight / 2);
    draw(false);
  }
  const item = itemAt(place);
  if (!item) return;
  item.tabIndex = 0;
  item.focus({preventScroll: false});
}

function toggle(fold) {
  const place = view.indexOf(-1 - fold);
  isOpen[fold] = !isOpen[fold];
  arrange();
  current = Math.max(view.indexOf(-1 - fold), 0);
  if (place >= 0) focusRow(current);
}

function moveBy(place, step) {
  do place += step; while (view[place] !== undefined && !canFocus(place));
  if (view[place] !== undefined) focusRow(place);
}

list.addEventListener("mouseover", (event) => {
  const item = event.target.closest("li[data-event]");
  if (item && pinned === null && Number(item.dataset.event) !== selected) select(Number(item.dataset.event));
});
list.addEventListener("focusin", (event) => {
  const item = event.target.closest("li");
  current = Number(item.dataset.place);
  if (item.dataset.event && pinned === null) select(Number(item.dataset.event));
});
list.addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (!item) return;
  if (item.dataset.fold !== undefined) { toggle(Number(item.dataset.fold)); return; }
  if (!item.dataset.event) return;
  const number = Number(item.dataset.event);
  pinned = pinned === number ? null : number;
  select(number);
});
document.addEventListener("keydown", (event) => {
  const active = document.activeElement || document.body, item = active.closest("ol > li");
  if (!item && !(isLong && active === document.body)) return;  // the row may have been scrolled out of view
  const place = item ? Number(item.dataset.place) : current;
  const page = Math.max(1, Math.floor(window.innerHeight / rowHeight) - 3);
  const moves = {ArrowDown: [place, 1], ArrowUp: [place, -1], Home: [-1, 1], End: [view.length, -1],
    PageDown: [Math.min(place + page, view.length - 1) - 1, 1], PageUp: [Math.max(place - page, 0) + 1, -1]};
  if (moves[event.key]) { event.preventDefault(); moveBy(...moves[event.key]); }
  if (!item) return;
  if (event.key === "Enter") item.click();
  if (event.key === "Escape") { pinned = null; if (item.dataset.event) select(Number(item.dataset.event)); }
});

// A finding links to its evidence: #e5 is event 5.
function selectLinkedRow() {
  const number = Number((/^#e(\\d+)$/.exec(location.hash) || [])[1]), row = rowsByEvent.get(number);
  if (row === undefined) return;
  if (foldOf[row] >= 0 && !isOpen[foldOf[row]]) { isOpen[foldOf[row]] = true; arrange(); }
  let place = view.indexOf(row);
  if (place < 0) {
    for (const each of ["connection", "process", "call", "finding", "search"]) field(each).value = "";
    arrange();
    place = view.indexOf(row);
  }
  pinned = number;
  focusRow(place);
  select(number);
}

function fill(name, all, options) {
  const choices = [["", all], ...options];
  field(name).replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  field(name).addEventListener("change", arrange);
  field(name).closest("label").hidden = options.length < (name === "finding" ? 1 : 2);
}

async function start() {
  data = await unpack(field("events").textContent);
  prepare();
  const named = (names) => names.map((name, at) => [at, name]).filter(([at, name]) => at && name);
  fill("connection", "all", named(data.connections));
  fill("process", "all", named(data.processes));
  const kinds = new Set();
  for (let row = 0; row < data.form.length; row++) kinds.add(kindOf(row));
  kinds.delete("");
  fill("call", "all", [...kinds].sort().map((kind) => [kind, kind]));
  fill("finding", "all", data.findings.map(([title], at) => [at, title]));
  let timer = 0;
  field("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(arrange, 150); });
  field("unfold").hidden = !folds.length;
  field("unfold").addEventListener("click", () => {
    const isPressed = field("unfold").getAttribute("aria-pressed") !== "true";
    field("unfold").setAttribute("aria-pressed", String(isPressed));
    isOpen.fill(isPressed);
    arrange();
  });
  filters.hidden = data.form.length < 30;
  let isQueued = false;
  const onScroll = () => {
    if (isQueued || !isLong) return;
    isQueued = true;
    requestAnimationFrame(() => { isQueued = false; draw(false); });
  };
  window.addEventListener("scroll", onScroll, {passive: true});
  window.addEventListener("resize", () => { if (isLong) draw(true); });
  arrange();
  current = Math.max(view.findIndex((_, place) => canFocus(place)), 0);
  const item = itemAt(current);
  if (item) item.tabIndex = 0;
  window.addEventListener("hashchange", selectLinkedRow);
  selectLinkedRow();
  document.body.dataset.ready = "true";
}
start();
"""
