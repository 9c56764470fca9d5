// The page: programs, runs and what they show. Classic CodeMirror is loaded before.

import { Connection } from "./connection.js";
import { append, byId } from "./dom.js";
import { Keeper } from "./keep.js";
import { check, fromFragment } from "./link.js";
import { closeMenus, isImpaired, PathPanel } from "./path.js";
import { ProgramView } from "./programs.js";
import { addSplitter } from "./splitter.js";
import { joinClass } from "./student.js";
import { findTraceback } from "./tracebacks.js";
import { RunViewer } from "./viewer.js";
import { makeViews } from "./views.js";

const DRAFT = "programs";
const CLOSED = { 4001: "the teacher has removed you from the class", 1013: "too many pages of the lab are open" };
let views = [];
let limits = { programs: 6, seconds: 120, default_seconds: 30 };
let isRunning = false;
let beganAt = 0;
let problem = "";
let lesson = "";  // that the programs are of
let record = null;  // of the run: what its replies have said
const MAX_RUNS = 8;  // that are kept for a comparison, the newest
const runs = [];  // { number, time, state, ...record }
let runCount = 0;

const viewer = new RunViewer(byId("picture"), {
  empty: "Press Run. The calls of all programs and the packets between them appear here as they happen.",
  onSelect(event, index) {
    const lines = event ? viewer.linesAt(index) : new Map();
    for (const view of views) {
      const isOwn = event !== null && event.program === view.number;
      if (event || !isRunning) view.mark("line-current", isOwn ? null : lines.get(view.number), true);
      view.mark("line-selected", isOwn ? event.line : null, true);
      view.showUntil(event && record ? record.began + viewer.timeline.timeOf(index) / 1000 : Infinity);
    }
  },
});

addSplitter(byId("programs"), byId("picture"), byId("view-run"));

// The state ------------------------------------------------------------------------------------------

function setState(text, kind = "") {
  byId("state").textContent = byId("state").title = text;
  byId("state").className = `state ${kind}`;
}

function setRunning(runs) {
  isRunning = runs;
  byId("run").disabled = runs;
  byId("stop").disabled = !runs;
  for (const each of ["begin", "add-server", "add-client", "open"]) byId(each).disabled = runs;
  path.setDisabled(runs);
  for (const view of views) {
    view.setRunning(runs);
    view.remove.disabled = runs || views.length < 2;
  }
}

setInterval(() => {
  if (!isRunning || !beganAt) return;
  const waits = !viewer.waits.hidden;
  const seconds = ((performance.now() - beganAt) / 1000).toFixed(1);
  setState(waits ? `nothing moves, ${seconds} s` : `running, ${seconds} s`, waits ? "waiting" : "running");
}, 100);

// Programs -------------------------------------------------------------------------------------------

function setPrograms(programs) {
  byId("programs").replaceChildren();
  views = [];
  for (const each of programs) addProgram(each);
  record = null;
  viewer.clear(views.map((view) => view.role));
}

function addProgram(program) {
  const view = new ProgramView(program, {
    onInput: (from, text, ends) => connection.send({ type: "input", program: from.number, text, ends }),
    onCursor: (from) => viewer.timeline.markLine(from.number, from.editor.getCursor().line + 1),
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
  return view;
}

function nameViews() {
  const counts = {};
  views.forEach((view, number) => {
    counts[view.kind] = (counts[view.kind] || 0) + 1;
    view.setRole(counts[view.kind] === 1 ? view.kind : `${view.kind} ${counts[view.kind]}`, number);
    view.remove.disabled = views.length < 2;
  });
  for (const each of ["add-server", "add-client"]) byId(each).disabled = views.length >= limits.programs;
  saveDraft();
}

function currentState() {
  return { programs: views.map((view) => view.program), seconds: Number(byId("seconds").value), path: path.get() };
}

function saveDraft() {
  try { sessionStorage.setItem(DRAFT, JSON.stringify(currentState())); } catch { /* it is full */ }
}

const path = new PathPanel(byId("path"), saveDraft);

for (const kind of ["server", "client"]) {
  byId(`add-${kind}`).addEventListener("click", () => {
    const model = views.find((view) => view.kind === kind) || views[0];
    if (views.length >= limits.programs) return;
    addProgram({ ...model.program, kind }).root.scrollIntoView({ block: "nearest", inline: "end" });
  });
}

// A run ----------------------------------------------------------------------------------------------

function clearRun() {
  problem = "";
  beganAt = 0;
  record = { roles: views.map((view) => view.role), rows: [], events: {}, sockets: {}, began: 0, output: [], ended: null, state: currentState() };
  for (const view of views) view.clear();
  viewer.clear(record.roles);
}

async function run() {
  if (isRunning) return;
  setRunning(true);
  setState("starting", "running");
  clearRun();
  viewer.showEmpty("Starting…");
  try {
    await connection.open();
  } catch {
    setRunning(false);
    setState("the lab does not answer: is it still running?", "failed");
    return;
  }
  const seconds = Math.min(limits.seconds, Math.max(1, Number(byId("seconds").value) || limits.default_seconds));
  const chosen = path.get();
  connection.send({
    type: "start", programs: views.map((view) => view.program), time_limit: seconds,
    path: isImpaired(chosen) ? chosen : null, lesson,
  });
}

function end(text, kind = "") {
  setRunning(false);
  setState(text, kind);
}

// Show and record what a program has printed, or how it ended.
function print(number, text, kind, at) {
  const view = views[number];
  if (!view) return;
  view.print(text, kind, at);
  if (record) record.output.push([number, at, text, kind]);
}

const handlers = {
  started() {
    beganAt = performance.now();
    setState("running", "running");
    viewer.showEmpty("Running. The first call on a socket appears here.");
  },
  built({ program, succeeded, output, problems }) {
    const view = views[program];
    if (!view) return;
    print(program, `${output.trimEnd()}\n`, succeeded ? "how" : "compiler", 0);
    view.showProblems(problems);
    if (!succeeded) problem = `${view.role}: it could not be built`;
  },
  output({ program, text, at }) { print(program, text, "", at); },
  rows({ rows, events, sockets, began }) {
    viewer.add({ rows, events, sockets });
    if (record) {
      record.rows.push(...rows);
      Object.assign(record.events, events);
      Object.assign(record.sockets, sockets);
      record.began = began;
    }
    const lines = new Map();  // the last ones: each mark takes the editor a while
    for (const row of rows) {
      const event = events[row.event];
      if (event && event.line) lines.set(event.program, event.line);
    }
    for (const [number, line] of lines) views[number]?.mark("line-current", line);
  },
  waits({ sentences }) { viewer.showWaits(sentences); },
  exited({ program, how, at }) {
    const view = views[program];
    if (!view) return;
    print(program, `${how}\n`, how === "exit status 0" || how.startsWith("ended") ? "how" : "how bad", at || 0);
    view.setRunning(false);
    view.mark("line-current", null);
    const traceback = how === "exit status 1" ? findTraceback(view.output.textContent, view.file.value) : null;
    if (traceback) view.showProblems([traceback]);
  },
  ended({ reason, findings, waits, notes, seconds, steps }) {
    viewer.showWaits(waits);
    viewer.showFindings(findings, notes);
    if (record) record.ended = { reason, findings, waits, notes, seconds, steps };
    if (record && !record.rows.length) record = null;
    if (record && !record.number) {
      runs.push(Object.assign(record, { number: runCount += 1, time: new Date().toLocaleTimeString() }));
      if (runs.length > MAX_RUNS) runs.shift();
    }
    const count = findings.length ? `, ${findings.length} finding${findings.length > 1 ? "s" : ""}` : "";
    if (!viewer.timeline.rows.length)
      viewer.showEmpty(problem ? `${problem}. The errors are shown at their lines.` : "No program made a call on a socket.");
    if (problem) end(problem, "failed");
    else if (reason) end(`ended by ${reason} after ${seconds.toFixed(1)} s${count}`, "waiting");
    else end(`ended after ${seconds.toFixed(1)} s${count}`, findings.length ? "waiting" : "done");
  },
  failed({ text }) {
    end("failed", "failed");
    record = null;
    viewer.showEmpty("");
    viewer.showFindings([], [text]);
  },
};

const connection = new Connection(
  (message) => {
    if (connection.job === "start") handlers[message.type]?.(message);
    for (const each of listeners[message.type] || []) each(message);
  },
  (isOpen, code) => {
    if (!isOpen) end(CLOSED[code] || "the lab has ended", "failed");
    else if (!isRunning) setState("ready");
    for (const each of listeners.connected || []) each({ isOpen });
  },
);

// Show a run that was recorded, as it was when it ended.
function showRun(run) {
  clearRun();
  const roles = views.map((view) => view.role);
  record = { ...record, ...run, roles };
  viewer.add({ rows: run.rows, events: run.events, sockets: run.sockets });
  for (const [number, at, text, kind] of run.output) views[number]?.print(text, kind, at);
  handlers.ended(run.ended);
}

// Other views ----------------------------------------------------------------------------------------

// What a module of views.js gets. All it shows of programs it must show as text (dom.js does).
const listeners = {};
const lab = {
  connection,  // send(message): to the server, as messages.py describes
  on(type, handler) { (listeners[type] || (listeners[type] = [])).push(handler); },  // replies of a type
  // Announce a job of another view, which has sent its request: no run can start meanwhile.
  beginJob(text) { setRunning(true); beganAt = 0; setState(text, "running"); },
  endJob(text, kind) { end(text, kind); },
  openState: (state) => openState(state),
  setLesson(id) { lesson = id; },
  passed: [],  // lessons that the student has done, as the lab of a class knows them
  programs: () => views.map((view) => view.program),
  state: () => currentState(),  // programs, seconds, path
  show: (name) => show(name),  // another view
  run: () => run(),
  runWithAnotherSeed() { path.set({ ...path.get(), seed: path.get().seed + 1 }); saveDraft(); run(); },
  runs: () => runs,  // the last runs, the newest last
  openRun(run) { openState({ ...run.state, run }); show("run"); },
  isRunning: () => isRunning,
  viewer: (place, options) => new RunViewer(place, options),  // a timeline with all that stands beside it
};
const show = makeViews(byId("views"), byId("panels"), lab);

// The bar --------------------------------------------------------------------------------------------

byId("run").addEventListener("click", () => { show("run"); run(); });
byId("stop").addEventListener("click", () => connection.send({ type: "stop" }));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.defaultPrevented) { show("run"); run(); }
});
byId("seconds").addEventListener("change", saveDraft);
closeMenus();

function say(text) { viewer.showFindings([], [text]); }

function openState(state) {
  path.set(state.path);
  setPrograms(state.programs);
  if (state.seconds) byId("seconds").value = Math.min(state.seconds, limits.seconds);
  if (!state.run) return;
  try { showRun(state.run); } catch { viewer.clear([]); say("The recorded run in it is damaged; the programs are not."); }
}

new Keeper({
  state: currentState,
  run() {
    if (!record?.ended) return null;
    const { roles, rows, events, sockets, began, output, ended } = record;
    return { roles, rows, events, sockets, began, output, ended };
  },
  onOpen(state) { show("run"); openState(state); },
  onPrograms(programs) { show("run"); setPrograms(programs); },
  onProgram(place, { file, text }) { views.find((view) => view.root === place)?.replace(file, text); },
  isBusy: () => isRunning,
  say,
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
  try {
    given = await fromFragment(location.hash.slice(1));
    isDamaged = given === null && location.hash.length > 1;
  } catch { isDamaged = true; }
  if (answer.class) lab.passed = answer.class.passed;
  if (answer.class) joinClass(answer.class, lab, () => (lesson ? `lesson ${lesson}` : show.current()));
  if (!given && answer.class && answer.class.work) given = answer.class.work;
  if (!given && answer.opened) given = { ...check(answer.opened), run: answer.opened.run || null };
  if (!given) {
    try { given = check(JSON.parse(sessionStorage.getItem(DRAFT))); } catch { /* there is none */ }
  }
  openState(given || { programs: sets[0], path: path.get() });
  if (isDamaged) say("The link is damaged: it holds no programs.");
  try { await connection.open(); } catch { /* the state says so */ }
}

begin();
