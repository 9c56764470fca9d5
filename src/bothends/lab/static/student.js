// A page of a class: the student's name, and its work, which the lab keeps.

import { append, element } from "./dom.js";

const INTERVAL = 2000;  // milliseconds between two messages with the work

// `about`: what /begin says of the class. `where` returns the view or the lesson.
export function joinClass(about, lab, where) {
  const field = element("label", "", "field class-name");
  append(field, "span", about.number ? `#${about.number}` : "teacher");
  document.querySelector(".bar .space").before(field);
  if (!about.number) return;
  const name = append(field, "input");
  Object.assign(name, { type: "text", maxLength: 40, placeholder: "your name", value: about.name, autocomplete: "off" });
  name.setAttribute("aria-label", "Your name");
  name.addEventListener("change", () => lab.connection.send({ type: "name", name: name.value }));
  if (!about.name) name.focus();
  let sent = "";
  const keep = () => {
    const { programs, seconds, path } = lab.state();
    const message = JSON.stringify({ programs, seconds: seconds || 30, path, where: where() });
    if (message !== sent && lab.connection.send({ type: "keep", work: JSON.parse(message) })) sent = message;
  };
  setInterval(keep, INTERVAL);
  addEventListener("pagehide", keep);
}
