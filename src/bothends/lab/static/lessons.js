// Lessons: a list of them, and beside the other views the text of one with its checks.
//
// The text comes from the server as HTML that it has made of Markdown, without HTML of the author's own. It is
// parsed apart from the page, and its elements are moved into it.

import { append, button, byId, element } from "./dom.js";

const PASSED = "lessons-passed";

export async function build(place, lab) {
  place.classList.add("lessons");
  const list = append(append(place, "div", "", "column"), "div");
  append(list, "h2", "Lessons");
  append(list, "p", "Each takes about five minutes: a short text, two programs to run, something to change, and checks "
    + "that turn green when it works.", "muted");
  const items = append(list, "ol", "", "lesson-list");
  const summaries = await (await fetch("/lessons")).json();
  const passed = new Set([...readPassed(), ...lab.passed]);
  const entries = new Map();
  summaries.forEach((each, at) => {
    const item = append(items, "li");
    const open = button("", "", () => openLesson(at), "lesson-entry");
    open.removeAttribute("title");
    append(open, "span", String(at + 1), "number");
    append(open, "span", each.title, "title");
    append(open, "span", `${each.minutes} min`, "muted");
    item.append(open);
    entries.set(each.id, item);
  });
  showPassed();

  const panel = element("section", "", "lesson");
  panel.id = "lesson";
  panel.setAttribute("aria-label", "Lesson");
  panel.hidden = true;
  byId("panels").prepend(panel);
  let current = null;
  let marks = [];

  function showPassed() {
    for (const [id, item] of entries) item.classList.toggle("passed", passed.has(id));
  }

  async function openLesson(at) {
    const answer = await fetch(`/lessons/${encodeURIComponent(summaries[at].id)}`);
    if (!answer.ok) return;
    const lesson = current = await answer.json();
    lab.setLesson(lesson.id);
    lab.openState({ programs: lesson.programs, seconds: lesson.seconds, path: lesson.path || {} });
    panel.replaceChildren();
    const head = append(panel, "div", "", "lesson-head");
    const title = append(head, "h2", `${at + 1}. ${lesson.title}`);
    title.tabIndex = -1;
    head.append(button("×", "Close the lesson", close, "remove"));
    const text = append(panel, "div", "", "lesson-text");
    text.append(...new DOMParser().parseFromString(lesson.html, "text/html").body.childNodes);
    const box = append(panel, "div", "", "lesson-checks");
    append(box, "h3", "It is done when");
    const checks = append(box, "ul");
    checks.setAttribute("aria-live", "polite");
    marks = lesson.checks.map((says) => {
      const item = append(checks, "li", "", "check");
      append(item, "span", "", "mark").setAttribute("aria-hidden", "true");
      const body = append(item, "span", says);
      const happened = append(item, "span", "", "happened");
      return { item, body, happened };
    });
    const foot = append(panel, "div", "", "lesson-foot");
    foot.append(button("Begin again", "Put the programs of the lesson into the editors again", () => openLesson(at)));
    if (at + 1 < summaries.length)
      foot.append(button("Next lesson", `${at + 2}. ${summaries[at + 1].title}`, () => openLesson(at + 1), "next"));
    panel.hidden = false;
    byId("panels").classList.add("with-lesson");
    panel.scrollTop = 0;
    await lab.show("run");
    title.focus();  // the entry or button that had it is gone
  }

  function close() {
    current = null;
    lab.setLesson("");
    panel.hidden = true;
    byId("panels").classList.remove("with-lesson");
    lab.show("lessons", true);
  }

  lab.on("started", () => { if (lab.connection.job === "start") setMarks(() => ["", ""]); });
  lab.on("ended", () => { if (current && lab.connection.job === "start") setMarks(() => ["checking", ""]); });
  lab.on("failed", () => { if (current) setMarks(() => ["", ""]); });
  lab.on("checked", ({ lesson, checks }) => {
    if (!current || current.id !== lesson) return;
    setMarks((at) => [checks[at].passed ? "passed" : "failed", checks[at].happened]);
    if (!checks.every((each) => each.passed)) return;
    passed.add(lesson);
    try { localStorage.setItem(PASSED, JSON.stringify([...passed])); } catch { /* it is full */ }
    showPassed();
    const next = panel.querySelector(".next");
    if (next) next.classList.add("main");
  });

  function setMarks(state) {
    marks.forEach(({ item, happened }, at) => {
      const [kind, text] = state(at);
      item.className = `check ${kind}`;
      happened.textContent = text;
      item.setAttribute("aria-label", `${item.children[1].textContent}: ${kind || "not run yet"}`);
    });
  }

  return { onShow() { showPassed(); }, passed };
}

function readPassed() {
  try {
    const found = JSON.parse(localStorage.getItem(PASSED));
    return Array.isArray(found) ? found.map(String) : [];
  } catch { return []; }
}
