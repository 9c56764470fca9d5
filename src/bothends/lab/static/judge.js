// Judge a program by a contract: verdicts as they come, each failure with its transcript and its timeline.

import { append, button, element } from "./dom.js";

const ORDER = ["FAIL", "NON-STRICT", "PASS", "INFO", "SKIP"];

export async function build(place, lab) {
  place.classList.add("judge");
  const bar = append(place, "div", "", "toolbar");
  const program = select(bar, "Program");
  const contract = select(bar, "Contract");
  const edit = button("Write your own", "Edit this contract, or write another", () => setEditing(!isEditing));
  bar.append(edit);
  append(bar, "span", "", "space");
  const counts = append(bar, "span", "", "counts muted");
  counts.setAttribute("role", "status");
  const stop = button("Stop", "End the judging", () => lab.connection.send({ type: "stop" }));
  const start = button("Judge", "Run all cases of the contract", judge, "main");
  const group = append(bar, "div", "", "group");
  group.append(stop, start);
  const main = append(place, "div", "", "judge-main");
  const left = append(main, "div", "", "judge-cases");
  const summary = append(left, "p", "", "muted");
  const text = append(left, "textarea", "", "contract-text");
  text.setAttribute("aria-label", "Contract (TOML)");
  text.spellcheck = false;
  text.maxLength = 20000;
  const list = append(left, "ol", "", "cases");
  const right = append(main, "div", "", "judge-picture");
  const viewer = lab.viewer(right, { empty: "Choose “Show its timeline” of a failure: the case is run again, and traced." });
  let isEditing = false;
  let cases = new Map();  // by id: the element and the outcome
  let current = "";  // the case that is traced
  let isJudging = false;
  let built = "";
  stop.disabled = true;
  text.hidden = true;
  edit.disabled = start.disabled = true;

  const known = await (await fetch("/contracts")).json();
  edit.disabled = false;
  for (const transport of [...new Set(known.map((each) => each.transport))]) {
    const part = append(contract, "optgroup");
    part.label = transport.toUpperCase();
    for (const each of known.filter((one) => one.transport === transport))
      append(part, "option", each.name).value = each.name;
  }
  contract.value = "upper-tcp";
  contract.addEventListener("change", showContract);
  program.addEventListener("change", showContract);

  function chosen() { return lab.programs()[Number(program.value)] || lab.programs()[0]; }

  function showPrograms() {
    const before = program.value;
    program.replaceChildren();
    lab.programs().forEach((each, at) => { append(program, "option", `${each.kind}: ${each.file}`).value = String(at); });
    program.value = before && Number(before) < lab.programs().length ? before : "0";
    showContract();
  }

  async function showContract() {
    const found = known.find((each) => each.name === contract.value);
    if (!found) return;
    const fits = !lab.programs().length || found.roles.includes(chosen().kind);
    summary.textContent = isEditing ? "The contract below, which must not name code (TOML)."
      : fits ? `The program ${found.summary}.` : "This contract is for servers only.";
    start.disabled = !fits || lab.isRunning();
    if (isEditing) return;
    text.value = await (await fetch(`/contracts/${encodeURIComponent(found.name)}`)).text();
  }

  function setEditing(edits) {
    isEditing = edits;
    text.hidden = !edits;
    contract.disabled = edits;
    edit.textContent = edits ? "Use a built-in one" : "Write your own";
    showContract();
  }

  function request(more) {
    const what = isEditing ? { text: text.value } : { name: contract.value };
    return { type: "judge", program: chosen(), ...what, ...more };
  }

  async function judge() {
    if (lab.isRunning()) return;
    try { await lab.connection.open(); } catch { return; }
    begin("judging");
    cases = new Map();
    list.replaceChildren();
    counts.textContent = "";
    viewer.clear([]);
    current = built = "";
    lab.connection.send(request({}));
  }

  async function trace(id) {
    if (lab.isRunning()) return;
    try { await lab.connection.open(); } catch { return; }
    begin(`tracing ${id}`);
    current = id;
    viewer.clear([chosen().kind]);
    viewer.empty.hidden = true;
    right.scrollIntoView({ block: "nearest" });
    lab.connection.send(request({ case: id }));
  }

  function begin(state) {
    isJudging = true;
    start.disabled = program.disabled = true;
    stop.disabled = false;
    for (const each of list.querySelectorAll(".show-timeline")) each.disabled = true;
    lab.beginJob(state);
  }

  function finish(state, kind) {
    if (!isJudging) return;
    isJudging = false;
    start.disabled = program.disabled = false;
    stop.disabled = true;
    for (const each of list.querySelectorAll(".show-timeline")) each.disabled = false;
    lab.endJob(state, kind);
  }

  const handlers = {
    queued({ ahead }) { counts.textContent = `waiting for a turn: ${ahead} ahead`; },
    built({ succeeded, output }) { if (!succeeded) built = output; },
    judging(message) {
      for (const each of message.cases) {
        const item = append(list, "li", "", "case");
        cases.set(each.id, { item, about: each, outcome: null });
        show(each.id);
      }
      count();
    },
    verdict({ outcome }) {
      if (current) return;  // of the traced case: the verdict of the list stands
      const found = cases.get(outcome.case);
      if (!found) return;
      found.outcome = outcome;
      show(outcome.case);
      count();
    },
    judged({ result }) {
      if (!result) { finish(built ? "it could not be built" : "stopped", "failed"); showProblem(built); return; }
      for (const outcome of result.outcomes) {
        const found = cases.get(outcome.case);
        if (found) { found.outcome = outcome; show(outcome.case); }
      }
      for (const each of cases.values()) if (!each.outcome) each.item.remove();
      count();
      const failed = result.counts.FAIL;
      counts.textContent += `, ${result.points.toLocaleString("en")} of ${result.most.toLocaleString("en")} points`;
      finish(failed ? `judged: ${failed} failed` : "judged: all passed", failed ? "waiting" : "done");
    },
    started({ roles }) { viewer.clear(roles); viewer.empty.hidden = true; },
    rows({ rows, events, sockets }) { viewer.add({ rows, events, sockets }); },
    ended({ findings, waits, notes }) {
      viewer.showWaits(waits);
      viewer.showFindings(findings, notes);
      finish(`traced: ${current}`, "done");
      current = "";
    },
    failed({ text: reason }) { finish("failed", "failed"); showProblem(reason); current = ""; },
  };
  for (const [type, handler] of Object.entries(handlers))
    lab.on(type, (message) => { if (lab.connection.job === "judge") handler(message); });
  lab.on("connected", ({ isOpen }) => { if (!isOpen) finish("the lab has ended", "failed"); });

  function showProblem(reason) {
    if (!reason) return;
    const item = append(list, "li", "", "case problem-text");
    append(item, "pre", reason);
    item.scrollIntoView({ block: "nearest" });
  }

  function count() {
    const found = {};
    for (const { outcome } of cases.values()) {
      const verdict = outcome ? outcome.verdict : "to come";
      found[verdict] = (found[verdict] || 0) + 1;
    }
    counts.textContent = [...ORDER, "to come"].filter((each) => found[each])
      .map((each) => `${found[each]} ${each}`).join(", ");
  }

  function show(id) {
    const { item, about, outcome } = cases.get(id);
    const verdict = outcome ? outcome.verdict : "";
    const wasOpen = item.querySelector("details")?.open;
    item.className = `case ${verdict || "to-come"}`;
    item.replaceChildren();
    const box = append(item, "details");
    box.open = Boolean(wasOpen);
    const head = append(box, "summary");
    append(head, "span", verdict || "…", "verdict-badge");
    append(head, "span", id, "case-id");
    append(head, "span", outcome ? outcome.happened || outcome.detail || about.stimulus : about.stimulus, "case-text");
    const body = append(box, "div", "", "case-body");
    const facts = append(body, "dl");
    const fact = (name, value) => {
      if (!value) return;
      append(facts, "dt", name);
      append(facts, "dd", value);
    };
    fact("test", about.stimulus);
    fact("expected", outcome ? outcome.expected || about.expectation : about.expectation);
    if (outcome) {
      fact("happened", outcome.happened || outcome.detail);
      fact("likely cause", outcome.mistake);
    }
    fact("why", about.why);
    if (!outcome) return;
    if (outcome.transcript.length) {
      const table = append(append(body, "div", "", "table-scroll"), "table", "", "transcript");
      for (const entry of outcome.transcript) {
        const row = append(table, "tr");
        append(row, "td", entry.seconds.toFixed(4));
        append(row, "th", entry.who).scope = "row";
        append(row, "td", entry.what);
      }
    }
    if (outcome.complaint) append(body, "pre", outcome.complaint);
    if (verdict === "FAIL") {
      const trace_ = button("Show its timeline", "Run this case again, and trace it", () => trace(id), "show-timeline");
      trace_.disabled = isJudging;
      body.append(trace_);
    }
  }

  return { onShow: showPrograms };
}

function select(bar, label) {
  const field = append(bar, "label", "", "field");
  append(field, "span", label);
  return append(field, "select");
}
