// A program of a recorded run: its text, and what it had printed by a moment.

import { append, element } from "./dom.js";

export class SourceView {
  // `onLine` is called with a line that is selected.
  constructor(program, number, role, onLine) {
    this.number = number;
    this.marks = {};
    this.root = element("article", "", `program ${program.kind}`);
    const head = append(this.root, "div", "", "head");
    append(head, "h2", role);
    append(head, "code", program.arguments ? `${program.file} ${program.arguments}` : program.file);
    const place = append(this.root, "div", "", "editor");
    this.lines = append(place, "ol", "", "source-text");
    this.lines.setAttribute("aria-label", `Text of ${program.file}`);
    this.lines.tabIndex = 0;
    program.text.replace(/\n$/, "").split("\n").forEach((text, at) => {
      const line = append(this.lines, "li", text || " ");
      line.dataset.line = at + 1;
    });
    const pick = (line) => { if (line && line.classList.contains("called")) onLine(this, Number(line.dataset.line)); };
    this.lines.addEventListener("click", (event) => pick(event.target.closest("li")));
    this.lines.addEventListener("keydown", (event) => {
      if (event.key === "Enter") pick(event.target.closest("li"));
    });
    const screen = append(this.root, "div", "", "screen");
    this.output = append(screen, "pre");
    this.output.tabIndex = 0;
    this.output.setAttribute("role", "log");
    this.output.setAttribute("aria-label", `Output of the ${role}`);
  }

  // Mark the lines that have made calls: they can be selected.
  setCalled(lines) {
    for (const line of lines) {
      const item = this.lines.children[line - 1];
      if (!item) continue;
      item.classList.add("called");
      item.tabIndex = 0;
      item.setAttribute("role", "button");
      item.title = "Mark the calls of this line";
    }
  }

  mark(name, line) {
    if (this.marks[name]) this.marks[name].classList.remove(name);
    this.marks[name] = line ? this.lines.children[line - 1] : null;
    if (!this.marks[name]) return;
    this.marks[name].classList.add(name);
    const place = this.lines.parentElement, top = this.marks[name].offsetTop;
    if (top < place.scrollTop || top + 40 > place.scrollTop + place.clientHeight) place.scrollTop = top - place.clientHeight / 2;
  }

  // Show texts: [text, kind] each.
  show(texts) {
    this.output.replaceChildren();
    for (const [text, kind] of texts) append(this.output, "span", text, kind);
    this.output.scrollTop = this.output.scrollHeight;
  }
}
