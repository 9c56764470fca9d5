// A timeline: rows as they come, and one of them selected. A page may have several.

import { append, element } from "./dom.js";

const STYLES = { state: "state-change" };  // .state is the state of the run

export class Timeline {
  // `place` is the element that scrolls. `onSelect` is called with the number of an event and what there is to
  // say about it, or with null twice.
  constructor(place, onSelect, label = "Calls and packets, in order. Use the arrow keys to move between them.") {
    this.onSelect = onSelect;
    this.scroll = place;
    place.classList.add("rows");
    this.lanes = element("div", "", "row lanes");
    this.lanes.setAttribute("aria-hidden", "true");
    this.list = element("ol");
    this.list.setAttribute("aria-label", label);
    place.prepend(this.lanes, this.list);
    this.clear([]);
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("[data-event]");
      if (row) this.select(row);
    });
    this.list.addEventListener("keydown", (event) => this.onKey(event));
  }

  clear(roles) {
    this.events = new Map();
    this.rows = [];  // those of an event
    this.times = [];  // of each of them, nanoseconds
    this.rowsOf = new Map();  // by event
    this.effects = new Map();
    this.selected = null;
    this.list.replaceChildren();
    this.setLanes(roles.map((role, lane) => [lane, role, "lane"]), Math.max(roles.length, 1));
  }

  setLanes(cells, count) {
    this.scroll.style.setProperty("--lanes", count);
    this.lanes.replaceChildren(element("span", "", "time"));
    for (const [lane, text] of cells) {
      // "server 2 1234": a role, and the number of its process.
      const [, role, pid] = /^(.*?)(?: (\d{3,}))?$/.exec(text);
      const cell = append(this.lanes, "span", role, role.startsWith("server") ? "cell server" : "cell");
      if (pid) append(cell, "small", `process ${pid}`);
      cell.style.gridColumn = lane + 2;
    }
  }

  add(rows, events) {
    const atEnd = this.scroll.scrollTop + this.scroll.clientHeight >= this.scroll.scrollHeight - 24;
    for (const [number, event] of Object.entries(events)) this.addEvent(Number(number), event);
    const made = document.createDocumentFragment();
    for (const row of rows) {
      if (row.header) this.setLanes(row.cells, row.bars.length);
      else made.append(this.makeRow(row));
    }
    this.list.append(made);
    if (atEnd && this.selected === null) this.scroll.scrollTop = this.scroll.scrollHeight;
    if (this.rows.length && !this.rows.some((row) => row.tabIndex === 0)) this.rows[0].tabIndex = 0;
  }

  addEvent(number, event) {
    this.events.set(number, event);
    for (const cause of event.causes || []) {
      if (!this.effects.has(cause)) this.effects.set(cause, new Set());
      this.effects.get(cause).add(number);
    }
  }

  makeRow(row) {
    const made = element("li", "", "row");
    if (row.event !== null) {
      made.dataset.event = row.event;
      made.tabIndex = -1;
      this.rows.push(made);
      this.times.push(row.at === null ? this.times.at(-1) || 0 : row.at);
      if (!this.rowsOf.has(row.event)) this.rowsOf.set(row.event, []);
      this.rowsOf.get(row.event).push(made);
    }
    append(made, "span", row.at === null ? "" : (row.at / 1e9).toFixed(4), "time");
    row.bars.forEach((bar, lane) => {
      if (bar !== "none") append(made, "i", "", `lane ${bar}`).style.gridColumn = lane + 2;
    });
    for (const [lane, text, style] of row.cells) {
      const cell = append(made, "span", text, `cell ${STYLES[style] || style}`);
      cell.style.gridColumn = lane + 2;
      const event = this.events.get(row.event);
      if (event && event.line) append(cell, "span", `line ${event.line}`, "source");
    }
    if (row.arrow) this.makeArrow(made, row.arrow);
    return made;
  }

  makeArrow(row, [from, to, text, style, part, lost]) {
    const [left, right] = from < to ? [from, to] : [to, from];
    const classes = ["arrow", from < to ? "right" : "left", STYLES[style] || style, part === "whole" ? "" : part];
    const arrow = append(row, "span", "", classes.join(" "));
    arrow.style.gridColumn = `${left + 2} / ${right + 2}`;
    append(arrow, "b", text + (lost ? ` (lost: ${lost})` : ""));
  }

  // Select a row, or nothing, and mark its causes and effects.
  select(row, { focus = true } = {}) {
    for (const each of this.list.querySelectorAll(".related, .selected, .now")) {
      each.classList.remove("related", "selected", "now");
      each.removeAttribute("aria-current");
    }
    this.selected = row;
    if (row === null) { this.onSelect(null, null); return; }
    row.classList.add("now");
    row.setAttribute("aria-current", "true");
    const number = Number(row.dataset.event);
    for (const each of [...this.reach(number, (event) => this.events.get(event)?.causes || []),
      ...this.reach(number, (event) => this.effects.get(event) || [])])
      for (const other of this.rowsOf.get(each) || []) other.classList.add("related");
    for (const each of this.rowsOf.get(number) || []) each.classList.add("selected");
    for (const each of this.rows) each.tabIndex = -1;
    row.tabIndex = 0;
    if (focus) row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
    this.onSelect(number, this.events.get(number));
  }

  reach(number, next) {
    const found = new Set(), pending = [number];
    while (pending.length) {
      for (const each of next(pending.pop()))
        if (!found.has(each)) { found.add(each); pending.push(each); }
    }
    return found;
  }

  selectEvent(number) {
    const row = (this.rowsOf.get(number) || [])[0];
    if (row) this.select(row);
  }

  // The place of the selected row among the rows of events; -1 if none is selected.
  get index() {
    return this.selected === null ? -1 : this.rows.indexOf(this.selected);
  }

  timeOf(index) {
    return this.times[Math.max(0, Math.min(index, this.times.length - 1))] || 0;
  }

  step(by) {
    this.goTo((this.selected === null ? (by > 0 ? -1 : this.rows.length) : this.index) + by);
  }

  goTo(index, options) {
    const row = this.rows[Math.max(0, Math.min(index, this.rows.length - 1))];
    if (row) this.select(row, options);
  }

  onKey(event) {
    const keys = {
      ArrowDown: () => this.step(1), ArrowUp: () => this.step(-1), Home: () => this.goTo(0),
      End: () => this.goTo(this.rows.length - 1), Escape: () => this.select(null),
      Enter: () => this.select(event.target.closest("[data-event]")),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  }

  // Mark the rows of one source line.
  markLine(program, line) {
    for (const each of this.list.querySelectorAll(".of-line")) each.classList.remove("of-line");
    let first = null;
    for (const [number, event] of this.events) {
      if (event.program !== program || event.line !== line || !line) continue;
      for (const row of this.rowsOf.get(number) || []) { row.classList.add("of-line"); first = first || row; }
    }
    if (first) first.scrollIntoView({ block: "nearest" });
  }
}
