// The page: programs, runs and what they show. Classic CodeMirror is loaded before.

import { Connection } from "./connection.js";
import { append, byId } from "./dom.js";
import { explain, showFindings, showWaits } from "./explanation.js";
import { check, fromFragment, toFragment } from "./link.js";
import { ProgramView } from "./programs.js";
import { Timeline } from "./timeline.js";
import { makeViews } from "./views.js";

const DRAFT = "programs";
let views = [];
let limits = { programs: 6, seconds: 120, default_seconds: 30 };
let isRunning = false;
let beganAt = 0;
let problem = "";
let calls = 0;
let packets = 0;

const timeline = new Timeline(byId("scroll"), (number, event) => {
  explain(event);
  for (const view of views)
    view.mark("line-selected", event && event.program === view.number ? event.line : null, true);
});

// The state ------------------------------------------------------------------------------------------

function setState(text, kind = "") {
  byId("state").textContent = text;
  byId("state").className = `state ${kind}`;
}

function setRunning(runs) {
  isRunning = runs;
  byId("run").disabled = runs;
  byId("stop").disabled = !runs;
  for (const each of ["begin", "add-server", "add-client", "delay", "loss", "seed"]) byId(each).disabled = runs;
  for (const view of views) {
    view.setRunning(runs);
    view.remove.disabled = runs || views.length < 2;
  }
}

setInterval(() => {
  if (!isRunning || !beganAt) return;
  const waits = !byId("waits").hidden;
  const seconds = ((performance.now() - beganAt) / 1000).toFixed(1);
  setState(waits ? `nothing moves, ${seconds} s` : `running, ${seconds} s`, waits ? "waiting" : "running");
}, 100);

// Programs -------------------------------------------------------------------------------------------

function setPrograms(programs) {
  byId("programs").replaceChildren();
  views = [];
  for (const each of programs) addProgram(each);
  timeline.clear(views.map((view) => view.role));
  showWaits([]);
  showFindings([], [], () => {});
  explain(null);
  byId("counts").textContent = "";
  byId("nothing").hidden = false;
}

function addProgram(program) {
  const view = new ProgramView(program, {
    onInput: (from, text, ends) => connection.send({ type: "input", program: from.number, text, ends }),
    onCursor: (from) => timeline.markLine(from.number, from.editor.getCursor().line + 1),
    onRemove: (which) => {
      views = views.filter((each) => each !== which);
      which.root.remove();
      nameViews();
    },
    onChange: saveDraft,
  });
  views.push(view);
  byId("programs").append(view.root);
  view.editor.refresh();
  nameViews();
}

function nameViews() {
  const counts = {};
  views.forEach((view, number) => {
    counts[view.kind] = (counts[view.kind] || 0) + 1;
    view.setRole(counts[view.kind] === 1 ? view.kind : `${view.kind} ${counts[view.kind]}`, number);
    view.remove.disabled = views.length < 2;
  });
  saveDraft();
}

function currentState() {
  return { programs: views.map((view) => view.program), seconds: Number(byId("seconds").value), path: currentPath() };
}

function currentPath() {
  const number = (id) => Math.max(0, Number(byId(id).value) || 0);
  return { delay: number("delay"), loss: number("loss"), seed: Math.min(Math.floor(number("seed")), 4294967295) };
}

function setPath({ delay, loss, seed }) {
  byId("delay").value = delay;
  byId("loss").value = loss;
  byId("seed").value = seed;
  showPath();
}

function showPath() {
  document.querySelector("output[for=delay]").textContent = `${byId("delay").value} ms`;
  document.querySelector("output[for=loss]").textContent = `${byId("loss").value} %`;
}

function saveDraft() {
  try { sessionStorage.setItem(DRAFT, JSON.stringify(currentState())); } catch { /* it is full */ }
}

for (const kind of ["server", "client"]) {
  byId(`add-${kind}`).addEventListener("click", () => {
    const model = views.find((view) => view.kind === kind) || views[0];
    if (views.length < limits.programs) addProgram({ ...model.program, kind });
  });
}

// A run ----------------------------------------------------------------------------------------------

async function run() {
  if (isRunning) return;
  setRunning(true);
  setState("starting", "running");
  problem = "";
  beganAt = calls = packets = 0;
  for (const view of views) view.clear();
  timeline.clear(views.map((view) => view.role));
  showWaits([]);
  showFindings([], [], () => {});
  explain(null);
  byId("counts").textContent = "";
  byId("nothing").hidden = true;
  try {
    await connection.open();
  } catch {
    setRunning(false);
    setState("the lab does not answer: is it still running?", "failed");
    return;
  }
  const seconds = Math.min(limits.seconds, Math.max(1, Number(byId("seconds").value) || limits.default_seconds));
  const path = currentPath();
  connection.send({
    type: "start", programs: views.map((view) => view.program), time_limit: seconds,
    path: path.delay || path.loss ? path : null,
  });
}

function end(text, kind = "") {
  setRunning(false);
  setState(text, kind);
}

const handlers = {
  started() { beganAt = performance.now(); setState("running", "running"); },
  built({ program, succeeded, output, problems }) {
    const view = views[program];
    if (!view) return;
    view.print(`${output.trimEnd()}\n`, succeeded ? "how" : "compiler");
    view.showProblems(problems);
    if (!succeeded) problem = `${view.role}: it could not be built`;
  },
  output({ program, text }) { views[program]?.print(text); },
  rows({ rows, events }) {
    timeline.add(rows, events);
    for (const row of rows) {
      const event = events[row.event];
      if (event && event.line && views[event.program]) views[event.program].mark("line-current", event.line);
    }
    for (const number of Object.keys(events)) {
      if (events[number].c !== undefined) calls += 1;
      else if (events[number].arguments) packets += 1;
    }
    byId("counts").textContent = `${timeline.rows.length} rows`;
  },
  waits({ sentences }) { showWaits(sentences); },
  exited({ program, how }) {
    const view = views[program];
    if (!view) return;
    view.print(`${how}\n`, how === "exit status 0" || how.startsWith("ended") ? "how" : "how bad");
    view.setRunning(false);
    view.mark("line-current", null);
  },
  ended({ reason, findings, waits, notes, seconds }) {
    showWaits(waits);
    showFindings(findings, notes, (event) => timeline.selectEvent(event));
    const count = findings.length ? `, ${findings.length} finding${findings.length > 1 ? "s" : ""}` : "";
    if (problem) end(problem, "failed");
    else if (reason) end(`ended by ${reason} after ${seconds.toFixed(1)} s${count}`, "waiting");
    else end(`ended after ${seconds.toFixed(1)} s${count}`, findings.length ? "waiting" : "");
  },
  failed({ text }) {
    end("failed", "failed");
    showFindings([], [text], () => {});
  },
};

const connection = new Connection(
  (message) => {
    handlers[message.type]?.(message);
    for (const each of listeners[message.type] || []) each(message);
  },
  (isOpen) => {
    if (!isOpen) end("the lab has ended", "failed");
    else if (!isRunning) setState("ready");
  },
);

// Other views ------------------------------------------------------------------------------------------

// What a module of views.js gets. All it shows of programs it must show as text (dom.js does).
const listeners = {};
const lab = {
  connection,  // send(message): to the server, as messages.py describes
  on(type, handler) { (listeners[type] || (listeners[type] = [])).push(handler); },  // replies of a type
  programs: () => views.map((view) => view.program),
  state: () => currentState(),  // programs, seconds, path
  setPrograms: (programs) => setPrograms(programs),
  show: (name) => show(name),  // another view
  isRunning: () => isRunning,
  timeline: (place, onSelect, label) => new Timeline(place, onSelect, label),
};
const show = makeViews(byId("views"), byId("panels"), lab);

// The bar --------------------------------------------------------------------------------------------

byId("run").addEventListener("click", run);
byId("stop").addEventListener("click", () => connection.send({ type: "stop" }));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.defaultPrevented) run();
});
byId("first").addEventListener("click", () => timeline.goTo(0));
byId("back").addEventListener("click", () => timeline.step(-1));
byId("on").addEventListener("click", () => timeline.step(1));
byId("last").addEventListener("click", () => timeline.goTo(timeline.rows.length - 1));
for (const id of ["seconds", "delay", "loss", "seed"]) byId(id).addEventListener("change", saveDraft);
for (const id of ["delay", "loss"]) byId(id).addEventListener("input", showPath);
byId("link").addEventListener("click", async () => {
  history.replaceState(null, "", `#${await toFragment(currentState())}`);
  const copy = byId("link");
  try {
    await navigator.clipboard.writeText(location.href);
    copy.textContent = "Copied";
  } catch {
    copy.textContent = "In the address";
  }
  setTimeout(() => { copy.textContent = "Copy link"; }, 2000);
});

// The beginning --------------------------------------------------------------------------------------

async function begin() {
  history.replaceState(null, "", `/${location.hash}`);  // the token is in the cookie now
  const answer = await (await fetch("/begin")).json();
  limits = answer.limits;
  byId("seconds").max = limits.seconds;
  byId("seconds").value = limits.default_seconds;
  const sets = [];
  for (const group of answer.groups) {
    const part = append(byId("begin"), "optgroup");
    part.label = group.title;
    for (const set of group.sets) {
      append(part, "option", set.name).value = String(sets.length);
      sets.push(set.programs);
    }
  }
  byId("begin").addEventListener("change", () => {
    const programs = sets[Number(byId("begin").value)];
    if (byId("begin").value !== "" && programs) setPrograms(programs);
    byId("begin").value = "";
  });
  let given = null;
  let isDamaged = false;
  try { given = await fromFragment(location.hash.slice(1)); } catch { isDamaged = true; }
  if (!given) {
    try { given = check(JSON.parse(sessionStorage.getItem(DRAFT))); } catch { /* there is none */ }
  }
  if (given) setPath(given.path);
  setPrograms(given ? given.programs : sets[0]);
  if (isDamaged) showFindings([], ["The link is damaged: it holds no programs."], () => {});
  if (given && given.seconds) byId("seconds").value = Math.min(given.seconds, limits.seconds);
  try { await connection.open(); } catch { /* the state says so */ }
}

begin();
