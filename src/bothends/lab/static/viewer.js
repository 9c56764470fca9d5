// One run, seen: the timeline with its controls, and beside it waits, findings, sockets and explanations.
//
// The page of the lab has one that grows, and a page of a recorded run has one that is complete.

import { append, button, element } from "./dom.js";
import { explain, showFindings, showWaits } from "./explanation.js";
import { Moment } from "./moment.js";
import { Player } from "./player.js";
import { Timeline } from "./timeline.js";

const SPEEDS = [[1, "as it was"], [10, "10 times slower"], [100, "100 times slower"], [1000, "1000 times slower"]];

export class RunViewer {
  // `onSelect` is called with an event, or null, and the place of its row; `empty` is shown before a run.
  constructor(place, { onSelect = () => {}, empty = "" } = {}) {
    this.onSelect = onSelect;
    const main = append(place, "div", "", "timeline");
    this.head = append(main, "div", "", "head");
    append(this.head, "h2", "Timeline");
    this.counts = append(this.head, "span", "", "counts muted");
    append(this.head, "span", "", "space");
    const scroll = append(main, "div");
    this.empty = append(scroll, "div", "", "empty");
    this.emptyText = empty;
    this.timeline = new Timeline(scroll, (number, event) => this.select(event));
    const aside = this.aside = append(place, "aside");
    const verdict = append(aside, "div", "", "verdict");
    this.waits = append(verdict, "div", "", "waits");
    this.waits.setAttribute("aria-live", "polite");
    this.findings = append(verdict, "div", "", "findings");
    this.details = append(aside, "div", "", "details");
    this.details.setAttribute("aria-live", "polite");
    this.moment = new Moment(append(aside, "div", "", "moment"));
    this.reference = append(aside, "div", "", "reference");
    this.hint = append(aside, "p", "Select a row to see what it means, what caused it, and what was in both buffers then.", "hint muted");
    this.player = new Player(this.timeline, (plays) => this.showPlaying(plays));
    this.addControls();
    this.clear([]);
  }

  addControls() {
    const speed = this.speed = element("select", "", "speed");
    speed.setAttribute("aria-label", "Speed of playing");
    speed.title = "Pauses of more than three seconds are cut";
    for (const [slower, text] of SPEEDS) append(speed, "option", text).value = slower;
    speed.value = this.player.slower;
    speed.addEventListener("change", () => { this.player.slower = Number(speed.value); });
    const steps = this.steps = append(this.head, "div", "", "group steps");
    const go = (action) => () => { this.player.stop(); action(); };
    this.play = button("▶", "Play again (space)", () => this.player.toggle(), "play");
    steps.append(
      button("⇤", "First row (Home)", go(() => this.timeline.goTo(0)), "first"),
      button("↑", "One row back (↑, or Alt+↑ from anywhere)", go(() => this.timeline.step(-1)), "back"),
      this.play,
      button("↓", "One row on (↓, or Alt+↓ from anywhere)", go(() => this.timeline.step(1)), "on"),
      button("⇥", "Last row (End)", go(() => this.timeline.goTo(this.timeline.rows.length - 1)), "last"),
    );
    this.head.append(speed);
    this.timeline.list.addEventListener("keydown", (event) => {
      if (event.key === " ") { event.preventDefault(); this.player.toggle(); }
    });
    this.timeline.list.addEventListener("click", () => this.player.stop());
    document.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!by || !event.altKey || event.ctrlKey || this.head.offsetParent === null) return;
      event.preventDefault();
      this.player.stop();
      this.timeline.goTo(this.timeline.selected ? this.timeline.index + by : by > 0 ? 0 : Infinity, { focus: false });
    });
  }

  showPlaying(plays) {
    this.play.textContent = plays ? "❚❚" : "▶";
    this.play.title = plays ? "Pause (space)" : "Play again (space)";
    this.play.setAttribute("aria-label", this.play.title);
    this.details.setAttribute("aria-live", plays ? "off" : "polite");
  }

  clear(roles) {
    this.player.stop();
    this.timeline.clear(roles);
    this.moment.clear();
    this.showWaits([]);
    this.showFindings([], []);
    this.counts.textContent = "";
    this.showEmpty(this.emptyText);
    this.select(null);
    this.enable();
  }

  // Say something in place of rows.
  showEmpty(text) {
    this.empty.replaceChildren();
    append(this.empty, "p", text);
    this.empty.hidden = !text;
  }

  add({ rows, events, sockets }) {
    this.empty.hidden = true;
    this.moment.add(sockets);
    for (const row of rows) if (row.event !== null && !row.header) this.moment.steps.push(row.states);
    this.timeline.add(rows, events);
    this.counts.textContent = `${this.timeline.rows.length.toLocaleString("en")} rows`;
    if (this.timeline.selected === null) this.moment.show(this.moment.steps.length - 1);
    this.enable();
  }

  enable() {
    const none = this.timeline.rows.length === 0;
    for (const each of this.steps.children) each.disabled = none;
    this.speed.disabled = none;
    this.hint.hidden = none || this.timeline.selected !== null;
  }

  select(event) {
    explain(this.details, this.reference, event);
    const index = this.timeline ? this.timeline.index : -1;
    if (this.timeline) this.moment.show(index < 0 ? this.moment.steps.length - 1 : index);
    // What is said about a row is below the findings, unless one of them has led here.
    if (event && !this.isJumping) this.aside.scrollTop = this.details.offsetTop - 8;
    if (this.hint) this.hint.hidden = event !== null || !this.moment.steps.length;
    this.onSelect(event, index);
  }

  // Return the line at which each program was after a row, by its number.
  linesAt(index) {
    const found = new Map();
    for (let at = index; at >= 0; at -= 1) {
      const event = this.timeline.events.get(Number(this.timeline.rows[at].dataset.event));
      if (event && event.line && !found.has(event.program)) found.set(event.program, event.line);
    }
    return found;
  }

  showWaits(sentences) { showWaits(this.waits, sentences); }

  showFindings(findings, notes) {
    showFindings(this.findings, findings, notes, (number) => {
      this.player.stop();
      this.isJumping = true;
      this.timeline.selectEvent(number);
      this.isJumping = false;
    });
  }
}
