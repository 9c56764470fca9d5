// The programs: an editor and a terminal for each, side by side.

import { append, button, element } from "./dom.js";

const MODES = {
  py: "python", c: "text/x-csrc", h: "text/x-csrc", cc: "text/x-c++src", cpp: "text/x-c++src", java: "text/x-java",
};
const MAX_SCREEN = 300000;  // characters that are kept in a terminal

export class ProgramView {
  constructor(program, { onInput, onCursor, onRemove, onChange }) {
    this.kind = program.kind;
    this.number = 0;
    this.problems = [];
    this.root = element("article", "", `program ${program.kind}`);
    const head = append(this.root, "div", "", "head");
    this.title = append(head, "h2");
    this.file = this.field(head, "file", program.file, "File name; its suffix is the language");
    this.arguments = this.field(head, "arguments", program.arguments || "", "Command-line arguments");
    this.arguments.placeholder = "no arguments";
    this.remove = button("×", "Remove this program", () => onRemove(this), "remove");
    head.append(this.remove);
    const place = append(this.root, "div", "", "editor");
    this.editor = CodeMirror(place, {
      value: program.text, lineNumbers: true, indentUnit: 4, matchBrackets: true,
      mode: this.mode(), screenReaderLabel: `Text of ${program.file}; Escape leaves the editor`,
      extraKeys: {
        Tab: (editor) => editor.somethingSelected() ? editor.indentSelection("add")
          : editor.replaceSelection(" ".repeat(4 - editor.getCursor().ch % 4)),
        "Shift-Tab": (editor) => editor.indentSelection("subtract"),
        Esc: () => (this.typed.disabled ? this.output : this.typed).focus(),
        "Ctrl-Enter": () => document.getElementById("run").click(),
      },
    });
    this.editor.on("cursorActivity", () => { if (this.editor.hasFocus()) onCursor(this); });
    // A file that is dropped is for the page: CodeMirror would insert its text as well.
    this.editor.on("drop", (_, event) => { if (event.dataTransfer?.files.length) event.codemirrorIgnore = true; });
    this.editor.on("focus", () => onCursor(this));
    this.editor.on("change", () => { this.clearProblems(); onChange(); });
    for (const field of [this.file, this.arguments]) field.addEventListener("input", onChange);
    this.file.addEventListener("change", () => this.editor.setOption("mode", this.mode()));
    this.makeScreen(onInput);
  }

  field(head, name, value, title) {
    const input = append(head, "input", "", name);
    input.value = value;
    input.title = title;
    input.spellcheck = false;
    input.setAttribute("aria-label", title);
    return input;
  }

  makeScreen(onInput) {
    const screen = append(this.root, "div", "", "screen");
    this.output = append(screen, "pre");
    this.output.tabIndex = 0;
    this.output.setAttribute("role", "log");
    const form = append(screen, "form");
    this.typed = append(form, "input");
    this.typed.spellcheck = false;
    this.typed.autocomplete = "off";
    this.typed.maxLength = 1000;
    const type = append(form, "button", "Type");
    this.end = button("End of input", "The end of standard input, as ^D at a terminal",
      () => onInput(this, "", true));
    form.append(this.end);
    this.controls = [this.typed, type, this.end];
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      onInput(this, `${this.typed.value}\n`, false);
      this.typed.value = "";
    });
    this.setRunning(false);
    this.clear();
  }

  mode() {
    return MODES[this.file.value.split(".").pop()] || "text/plain";
  }

  // Name it as the timeline does: server, server 2 and so on.
  setRole(role, number) {
    this.number = number;
    this.role = role;
    this.title.textContent = role;
    this.output.setAttribute("aria-label", `Output of the ${role}`);
    this.typed.placeholder = `type to the ${role}`;
    this.typed.setAttribute("aria-label", `Input of the ${role}`);
  }

  setRunning(runs) {
    for (const each of this.controls) each.disabled = !runs;
  }

  // Another file takes its place; role and arguments stay.
  replace(file, text) {
    this.file.value = file;
    this.editor.setOption("mode", this.mode());
    this.editor.setValue(text);
  }

  get program() {
    return {
      kind: this.kind, file: this.file.value.trim(), text: this.editor.getValue(),
      arguments: this.arguments.value,
    };
  }

  clear() {
    this.output.replaceChildren();
    this.length = 0;
    this.printed = [];  // { at, node }, in order
    this.until = Infinity;  // what was printed after it is dimmed
    this.clearProblems();
    this.mark("line-current", null);
    this.mark("line-selected", null);
  }

  // `at`: microseconds, as in the record of a run.
  print(text, className = "", at = 0) {
    if (this.length > MAX_SCREEN) return;
    this.length = (this.length || 0) + text.length;
    const atEnd = this.output.scrollTop + this.output.clientHeight >= this.output.scrollHeight - 8;
    const last = this.printed.at(-1);
    if (last && last.at === at && !className && !last.node.className) last.node.firstChild.appendData(text);
    else {
      const before = className ? this.output.textContent : "";
      const node = append(this.output, "span", (before && !before.endsWith("\n") ? "\n" : "") + text, className);
      node.classList.toggle("later", at > this.until);
      this.printed.push({ at, node });
    }
    if (atEnd && this.until === Infinity) this.output.scrollTop = this.output.scrollHeight;
  }

  // Dim what was printed after a moment (microseconds), and show the end of what was printed before.
  showUntil(until) {
    if (until === this.until) return;
    this.until = until;
    let end = null;
    for (const { at, node } of this.printed) {
      if (at > until !== node.classList.contains("later")) node.classList.toggle("later", at > until);
      if (at <= until) end = node;
    }
    const bottom = end ? end.offsetTop + end.offsetHeight : 0;
    this.output.scrollTop = until === Infinity ? this.output.scrollHeight : bottom - this.output.clientHeight;
  }

  // Give one line a mark, and take it from the line that had it.
  mark(name, line, scroll = false) {
    const marks = this.marks || (this.marks = {});
    if (marks[name]) this.editor.removeLineClass(marks[name], "background", name);
    marks[name] = null;
    if (!line || line > this.editor.lineCount()) return;
    marks[name] = this.editor.addLineClass(line - 1, "background", name);
    if (scroll) this.show(line);
  }

  // Scroll the editor, and not the page, so that a line is in view.
  show(line) {
    const top = this.editor.charCoords({ line: line - 1, ch: 0 }, "local").top, { top: from, clientHeight } = this.editor.getScrollInfo();
    if (top < from + 20 || top > from + clientHeight - 40) this.editor.scrollTo(null, top - clientHeight / 2);
  }

  showProblems(problems) {
    for (const { line, severity, text } of problems) {
      if (line > this.editor.lineCount()) continue;
      const shown = element("div", `${severity}: ${text}`, `problem ${severity}`);
      if (severity === "error") this.editor.addLineClass(line - 1, "background", "line-problem");
      this.problems.push(this.editor.addLineWidget(line - 1, shown, { noHScroll: true }));
    }
    if (problems.length) this.show(problems[0].line);
  }

  clearProblems() {
    for (const each of this.problems) {
      this.editor.removeLineClass(each.line, "background", "line-problem");
      each.clear();
    }
    this.problems = [];
  }
}
