// Two runs beside each other, and what differs. The server aligns them, by the same function as
// `bothends query --compare`.

import { append, button, element } from "./dom.js";
import { describePath } from "./path.js";

const MAX_OUTPUT = 100000;  // characters of a program that are compared
const MIN_FOLD = 4;  // steps that are the same and are folded
const MANY_TIMES = 3;  // so much longer is worth a word
const MIN_LONGER = 10e6;  // nanoseconds

export function build(place, lab) {
  place.classList.add("compare");
  const head = append(place, "div", "", "toolbar");
  const choose = (label) => {
    const field = append(head, "label", "", "field");
    append(field, "span", label);
    return append(field, "select");
  };
  const first = choose("First run"), second = choose("Second run");
  first.id = "first-run"; second.id = "second-run";
  const swap = button("⇄", "Exchange the two runs", () => {
    [first.value, second.value] = [second.value, first.value];
    compare();
  });
  head.append(swap);
  append(head, "span", "", "space");
  const again = button("Run again", "Run the programs of the page again", () => lab.run(), "again");
  const other = button("Run with another seed", "The same programs, and another seed of the path", () => lab.runWithAnotherSeed(), "again");
  head.append(again, other);
  const result = append(place, "div", "", "comparison");
  result.setAttribute("aria-live", "polite");
  let count = -1;

  function fill() {
    const runs = lab.runs();
    for (const each of [again, other]) each.disabled = lab.isRunning();
    if (count === runs.length && runs.at(-1)?.number === fill.last) return;
    for (const list of [first, second]) {
      list.replaceChildren();
      for (const run of runs) append(list, "option", describe(run)).value = run.number;
      list.disabled = swap.disabled = runs.length < 2;
    }
    count = runs.length;
    fill.last = runs.at(-1)?.number;
    if (runs.length > 1) { first.value = runs.at(-2).number; second.value = runs.at(-1).number; }
    compare();
  }

  async function compare() {
    const runs = lab.runs();
    const [one, two] = [first, second].map((list) => runs.find((run) => String(run.number) === list.value));
    result.replaceChildren();
    if (runs.length < 2) { showEmpty(result, runs.length); return; }
    const ofRun = (run) => ({ programs: run.state.programs, steps: run.ended.steps || [], output: outputOf(run) });
    const answer = await fetch("/compare", {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({ first: ofRun(one), second: ofRun(two) }),
    });
    if (!answer.ok) { append(result, "p", `The runs cannot be compared: ${await answer.text()}`, "empty"); return; }
    show(result, await answer.json(), one, two, lab);
  }

  for (const list of [first, second]) list.addEventListener("change", compare);
  lab.on("ended", () => { if (!place.hidden) fill(); });
  lab.on("failed", () => { if (!place.hidden) fill(); });
  lab.on("started", () => { for (const each of [again, other]) each.disabled = true; });
  return { onShow: fill };
}

// Return what each program has printed, its exit status included.
const outputOf = (run) => run.roles.map((_, number) => {
  let found = "";
  for (const [from, , text, kind] of run.output)
    if (from === number) found += (kind && found && !found.endsWith("\n") ? "\n" : "") + text;
  return found.slice(0, MAX_OUTPUT);
});

const describe = (run) => `${run.number}. ${run.time}, ${describePath(run.state.path)}`
  + `, ${run.ended.reason ? `ended by ${run.ended.reason}` : `${run.ended.seconds.toFixed(1)} s`}`;

function showEmpty(place, count) {
  const box = append(place, "div", "", "empty");
  append(box, "h2", "Two runs beside each other");
  append(box, "p", count ? "There is one run so far. Change something, a line of a program, the path or its seed, and run again."
    : "Run the programs twice: before and after a change, or with two seeds. What differs is marked here.");
}

function show(place, { pairs, programs, outputs }, one, two, lab) {
  const lanes = new Map();
  for (const pair of pairs) {
    if (!lanes.has(pair[0])) lanes.set(pair[0], []);
    lanes.get(pair[0]).push(pair);
  }
  const differing = pairs.filter(([, difference]) => difference !== "same").length;
  const summary = append(place, "p", "", `summary ${differing || outputs.length ? "differs" : "same"}`);
  append(summary, "b", (differing ? `${differing} of ${pairs.length} steps differ` : outputs.length ? "All steps are the same"
    : "Both runs did the same") + (outputs.length ? ", and the output of "
    + `${outputs.map(({ program }) => one.roles[program] || two.roles[program]).join(" and ")} differs.` : "."));
  append(summary, "span", " Times, ephemeral ports and numbers of processes are not compared.", "muted");
  for (const { file, lines } of programs) showChange(place, file, lines);
  for (const { program, lines } of outputs) showChange(place, `Output of ${one.roles[program] || two.roles[program]}`, lines);
  const heads = append(place, "div", "", "pair heads");
  for (const run of [one, two]) {
    const head = append(heads, "div");
    append(head, "b", `Run ${run.number}`);
    append(head, "span", ` ${describePath(run.state.path)}`, "muted");
    head.append(button("Show", `Show run ${run.number} on its timeline`, () => lab.openRun(run)));
  }
  for (const [lane, steps] of lanes) showLane(place, lane, steps);
}

function showChange(place, title, lines) {
  const box = append(place, "section", "", "changed-program");
  append(box, "h3", title);
  const code = append(box, "pre");
  for (const [kind, text] of lines) {
    const name = { "+": "added", "-": "removed", "@": "muted" }[kind] || "";
    append(code, "span", kind === "@" ? "…\n" : `${kind}${text}\n`, name);
  }
}

function showLane(place, lane, steps) {
  const count = steps.filter(([, difference]) => difference !== "same").length;
  const box = append(place, "section", "", "lane-steps");
  const head = append(box, "h3", lane);
  append(head, "span", count ? ` ${count} differ, ${steps.length - count} the same` : ` all ${steps.length} the same`,
    count ? "counts differ" : "counts muted");
  for (let at = 0; at < steps.length;) {
    let end = at;
    while (end < steps.length && steps[end][1] === "same") end += 1;
    const parent = end - at >= MIN_FOLD ? fold(box, end - at) : box;
    for (; at < end; at += 1) addPair(parent, steps[at]);
    for (; at < steps.length && steps[at][1] !== "same"; at += 1) addPair(box, steps[at]);
  }
}

function fold(parent, count) {
  const made = append(parent, "details", "", "fold-same");
  append(made, "summary", `${count} the same`);
  return made;
}

const WORDS = { same: "", changed: "changed", first: "only in the first run", second: "only in the second run" };

function addPair(parent, [, difference, first, second]) {
  const row = append(parent, "div", "", `pair ${difference}`);
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", WORDS[difference] || "the same");
  const longer = slower(first, second);
  addStep(row, first, second, difference, longer < 0 ? longer : 0);
  addStep(row, second, first, difference, longer > 0 ? longer : 0);
}

// Return 1 if the second took much longer, -1 if the first did.
function slower(first, second) {
  if (!first || !second || first[3] === null || second[3] === null) return 0;
  const [short, long] = [first[3], second[3]].sort((a, b) => a - b);
  if (long - short < MIN_LONGER || long < short * MANY_TIMES) return 0;
  return second[3] > first[3] ? 1 : -1;
}

function addStep(row, step, other, difference, longer) {
  const cell = append(row, "div", "", "step");
  if (!step) { append(cell, "span", "–", "muted"); return; }
  append(cell, "span", (step[2] / 1e9).toFixed(4), "time");
  const text = append(cell, "span", "", "text");
  if (difference === "changed") mark(text, step[1], other[1]);
  else text.textContent = step[1];
  if (longer) append(text, "span", ` took ${(step[3] / 1e6).toFixed(0)} ms`, "longer");
}

// Mark the part of a text that another one does not have in its place.
function mark(place, text, other) {
  let begin = 0, end = 0;
  while (begin < Math.min(text.length, other.length) && text[begin] === other[begin]) begin += 1;
  while (end < Math.min(text.length, other.length) - begin && text.at(-1 - end) === other.at(-1 - end)) end += 1;
  place.append(text.slice(0, begin));
  if (text.length - end > begin) place.append(element("mark", text.slice(begin, text.length - end)));
  place.append(text.slice(text.length - end));
}
