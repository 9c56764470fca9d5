// The sockets of the running programs, and what they wait for: once a second, while the view is shown.

import { append, byId, element } from "./dom.js";

const INTERVAL = 1000;  // milliseconds
const TITLES = {
  kind: "kind", state: "state", recv: "to be read", send: "not acknowledged", local: "this end", peer: "other end",
  process: "program", more: "more",
};

export function build(place, lab) {
  place.classList.add("sockets");
  const column = append(place, "div", "", "column wide");
  append(column, "h2", "Sockets");
  const note = append(column, "p", "", "muted");
  note.setAttribute("role", "status");
  const why = append(column, "div", "", "why");
  const scroll = append(column, "div", "", "table-scroll");
  const table = append(scroll, "table");
  const hint = append(column, "p", "For a listener: the connections in its accept queue, and the limit.", "muted hint");
  hint.hidden = true;
  const empty = "Run programs that go on for a while, and look here meanwhile: their sockets, the bytes that wait in "
    + "the buffers of each, and what each program waits for. Those of other programs are not shown.";
  let seen = false;
  show();

  function show() {
    if (!seen) note.textContent = empty;
    else if (!lab.isRunning()) note.textContent = "As last seen. The run is over.";
    else note.textContent = "Once a second, while the programs run.";
  }

  lab.on("looked", ({ columns, sockets, lines, notes }) => {
    if (!sockets.length && !lines.length) return;
    seen = true;
    const head = element("tr");
    for (const each of columns) append(head, "th", TITLES[each] || each).scope = "col";
    const rows = sockets.map((cells) => {
      const row = element("tr", "", `state-${cells[1].toLowerCase()}`);
      for (const each of cells) append(row, "td", each);
      return row;
    });
    table.replaceChildren(element("thead"), element("tbody"));
    table.tHead.append(head);
    table.tBodies[0].append(...rows);
    hint.hidden = false;
    why.replaceChildren();
    const problems = append(why, "div");
    const waits = append(why, "ul", "", "waits-for");
    let isProblem = false;
    for (const [style, text] of lines) {
      if (style !== "quiet") isProblem = style === "strong";
      if (isProblem) append(problems, "p", text.trim(), style === "quiet" ? "muted" : "problem-line");
      else if (text.trim()) append(waits, "li", text.trim()).style.marginLeft = `${text.search(/\S/) * 0.7}rem`;
    }
    for (const each of notes) append(waits, "li", each, "muted");
    show();
  });
  lab.on("started", () => { seen = false; show(); });
  lab.on("ended", show);

  setInterval(() => {
    if (!place.hidden && lab.isRunning() && lab.connection.job === "start" && !byId("stop").disabled)
      lab.connection.send({ type: "look" });
  }, INTERVAL);
  return { onShow: show };
}
