// The teacher's page: who is where, and the work of one student. It asks again every two seconds.

import { append, button, byId, element } from "./dom.js";

const INTERVAL = 2000;  // milliseconds
const STATES = { idle: "", waits: "waiting for a turn", runs: "running" };

function ago(seconds) {
  if (seconds < 15) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

function show({ students, lessons, address }) {
  byId("address").textContent = address;
  byId("empty").hidden = students.length > 0;
  const open = students.filter((each) => each.open).length;
  byId("title").textContent = `Students: ${students.length} (${open} online)`;
  const rows = students.map((each) => {
    const row = element("tr", "", each.open ? "" : "off");
    append(row, "td", String(each.number));
    append(row, "th", each.name || "no name yet").scope = "row";
    const lesson = lessons.find((one) => each.where === `lesson ${one.id}`);
    append(row, "td", lesson ? lesson.title : each.where);
    append(row, "td", STATES[each.state] ?? each.state, each.state);
    const progress = append(append(row, "td"), "span", "", "progress");
    progress.setAttribute("role", "img");
    progress.setAttribute("aria-label", `${each.passed.length} of ${lessons.length} lessons done`);
    for (const one of lessons) {
      const mark = append(progress, "i");
      mark.title = one.title;
      mark.classList.toggle("passed", each.passed.includes(one.id));
      mark.classList.toggle("here", one === lesson);
    }
    append(row, "td", ago(each.seen));
    append(row, "td").append(button("Work", `Show the programs of ${each.name || each.number}`, () => showWork(each.number)));
    return row;
  });
  const focused = document.activeElement?.title || "";
  byId("students").tBodies[0].replaceChildren(...rows);
  if (focused) [...document.querySelectorAll("#students button")].find((each) => each.title === focused)?.focus();
}

async function showWork(number) {
  const answer = await fetch(`/class/students/${number}`);
  if (!answer.ok) return;
  const student = await answer.json();
  const place = byId("work");
  place.replaceChildren();
  append(place, "h2", `The programs of ${student.name || `number ${student.number}`}`);
  place.append(removal(student));
  if (!student.work) { append(place, "p", "There are none yet.", "muted"); return; }
  for (const each of student.work.programs) {
    append(place, "h3", `${each.kind}: ${each.file} ${each.arguments}`);
    append(place, "pre", each.text);
  }
  place.scrollIntoView({ block: "start" });
}

// A button that removes a student when it is pressed twice.
function removal(student) {
  const name = student.name || `number ${student.number}`;
  let isSure = false;
  const made = button("Remove from the class", `Remove ${name}, with what is kept of its work`, async () => {
    if (!isSure) { isSure = true; made.textContent = `Remove ${name} and its work?`; return; }
    made.disabled = true;
    const answer = await fetch(`/class/students/${student.number}`, { method: "DELETE" });
    byId("work").replaceChildren(element("p", answer.ok ? `${name} is removed.` : `${name} is not in the class.`, "muted"));
  });
  made.addEventListener("blur", () => { isSure = false; made.textContent = "Remove from the class"; });
  return made;
}

async function refresh() {
  const state = byId("state");
  try {
    const answer = await fetch("/class/students");
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
    state.textContent = "up to date";
    state.className = "state done";
  } catch {
    state.textContent = "the lab does not answer";
    state.className = "state failed";
  }
  setTimeout(refresh, INTERVAL);
}

history.replaceState(null, "", "/class");  // the token is in the cookie now
refresh();
