// Measure servers of the page, and engines beside them, under a load.

import { append, button, element } from "./dom.js";
import { drawLatencies, drawRates, drawRounds, format, median } from "./plots.js";

const ENGINES = ["iterative", "fork", "threads", "pool", "select", "poll", "epoll", "asyncio", "native"];
const FIELDS = [
  ["connections", "connections", 1, 200, 10], ["depth", "requests in flight on each", 1, 64, 1],
  ["size", "bytes of a request", 16, 4096, 64], ["duration", "seconds", 0.1, 10, 1],
  ["warmup", "seconds of warm-up", 0, 5, 0.3], ["rounds", "rounds", 1, 9, 3],
];

export function build(place, lab) {
  place.classList.add("measure");
  const bar = append(place, "div", "", "toolbar");
  const field = (label, made) => {
    const around = append(bar, "label", "", "field short");
    append(around, "span", label);
    around.append(made);
    return made;
  };
  const transport = append(append(bar, "label", "Over ", "field"), "select");
  for (const each of ["tcp", "udp"]) append(transport, "option", each.toUpperCase()).value = each;
  const inputs = {};
  for (const [name, label, least, most, given] of FIELDS) {
    const made = element("input");
    Object.assign(made, { type: "number", min: least, max: most, step: name === "duration" || name === "warmup" ? 0.1 : 1,
      value: given, inputMode: "decimal" });
    inputs[name] = field(label, made);
  }
  const rate = element("input");
  Object.assign(rate, { type: "number", min: 1, max: 1000000, step: 1, placeholder: "all", inputMode: "numeric" });
  rate.title = "Requests per second. Empty: each reply triggers the next request";
  field("requests per second", rate);
  append(bar, "span", "", "space");
  const group = append(bar, "div", "", "group");
  const stop = button("Stop", "End the measurements", () => lab.connection.send({ type: "stop" }));
  const start = button("Measure", "Measure everything selected", measure, "main");
  stop.disabled = true;
  group.append(stop, start);
  const what = append(place, "fieldset", "", "targets");
  append(what, "legend", "What is measured");
  const servers = append(what, "span", "", "group servers");
  const engines = append(what, "span", "", "group");
  for (const each of ENGINES) checkbox(engines, each, each === "threads" || each === "epoll");
  const column = append(place, "div", "", "column wide");
  const status = append(column, "p", "A server of the page replies to each line with the same line, or with the line in "
    + "capitals. It is found out which; every reply is verified.", "muted");
  status.setAttribute("role", "status");
  const plots = append(column, "div", "", "plots");
  const notes = append(column, "ul", "", "notes");
  let about = null, rounds = [], samples = new Map(), isMeasuring = false, isDue = false;

  function checkbox(parent, name, isOn, value = name) {
    const label = append(parent, "label", "", "choice");
    const box = append(label, "input");
    box.type = "checkbox";
    box.value = value;
    box.checked = isOn;
    append(label, "span", name);
  }

  function showServers() {
    const off = new Set([...servers.querySelectorAll("input:not(:checked)")].map((each) => each.value));
    servers.replaceChildren();
    lab.programs().forEach((each, at) => {
      if (each.kind === "server") checkbox(servers, each.file, !off.has(String(at)), String(at));
    });
  }

  const checked = (parent) => [...parent.querySelectorAll("input:checked")].map((each) => each.value);
  const number = (name) => {
    const [, , least, most, given] = FIELDS.find((each) => each[0] === name);
    const found = Number(inputs[name].value);
    return Math.min(most, Math.max(least, inputs[name].value === "" || Number.isNaN(found) ? given : found));
  };

  async function measure() {
    if (lab.isRunning()) return;
    try { await lab.connection.open(); } catch { return; }
    about = null;
    rounds = [];
    samples = new Map();
    notes.replaceChildren();
    plots.replaceChildren();
    isMeasuring = true;
    start.disabled = true;
    stop.disabled = false;
    lab.beginJob("measuring");
    status.textContent = "Starts…";
    const load = {
      connections: Math.round(number("connections")), depth: Math.round(number("depth")), size: Math.round(number("size")),
      warmup: number("warmup"), duration: number("duration"), rate: rate.value === "" ? null : Math.max(1, Number(rate.value) || 1),
    };
    lab.connection.send({
      type: "measure", programs: checked(servers).map((at) => lab.programs()[Number(at)]), engines: checked(engines),
      transport: transport.value, load, rounds: Math.round(number("rounds")),
    });
  }

  function finish(text, kind) {
    if (!isMeasuring) return;
    isMeasuring = false;
    start.disabled = false;
    stop.disabled = true;
    lab.endJob(text, kind);
    draw();
  }

  const handlers = {
    measuring(message) { about = message; draw(); },
    built({ succeeded, output }) { if (!succeeded) append(notes, "li", output, "bad"); },
    output() {},
    sample(message) {
      const key = `${message.target}/${message.round}`;
      if (!samples.has(key)) samples.set(key, { target: message.target, found: [[0, 0]] });
      samples.get(key).found.push([message.at, message.completed]);
      status.textContent = `${about.targets[message.target]}, round ${message.round + 1} of ${about.rounds}: `
        + `${format(message.completed)} correct responses${message.faults ? `, ${format(message.faults)} faults` : ""}`;
      soon();
    },
    round(message) {
      rounds.push(message);
      const name = `${about.targets[message.target]}, round ${message.round + 1}`;
      if (message.skipped) append(notes, "li", `${about.targets[message.target]}: ${message.skipped}`, "bad");
      if (message.limit) append(notes, "li", `${name}: the generator was the limit: ${message.limit}`, "warn");
      if (message.faults) append(notes, "li", `${name}: ${message.faults}`, "bad");
      if (message.ended) append(notes, "li", `${name} ended early: ${message.ended}`, "bad");
      draw();
    },
    measured(message) {
      status.textContent = `Done: ${message.notes.join("; ")}.`;
      finish("measured", "done");
    },
    failed({ text }) { append(notes, "li", text, "bad"); status.textContent = ""; finish("failed", "failed"); },
  };
  for (const [type, handler] of Object.entries(handlers))
    lab.on(type, (message) => { if (lab.connection.job === "measure") handler(message); });
  lab.on("connected", ({ isOpen }) => { if (!isOpen) finish("the lab has ended", "failed"); });

  // Draw at most once a frame.
  function soon() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => { isDue = false; draw(); });
  }

  function draw() {
    if (!about) return;
    const lines = [...samples.values()].map(({ target, found }, at) => ({
      target, isLast: isMeasuring && at === samples.size - 1,
      points: found.slice(1).map(([seconds, count], index) => {
        const [before, earlier] = found[index];
        return [seconds, seconds > before ? (count - earlier) / (seconds - before) : 0];
      }),
    }));
    const rows = about.targets.map((name, target) => {
      const own = rounds.filter((each) => each.target === target);
      const measured = own.filter((each) => !each.skipped);
      return {
        name, target, reason: own.find((each) => each.skipped)?.skipped,
        values: measured.map((each) => ({ value: each.per_s, isLimited: Boolean(each.limit) })),
        rounds: measured.map((each) => each.latency), measured,
      };
    });
    plots.replaceChildren();
    const part = (title, svg, hint) => {
      const figure = append(plots, "figure");
      append(figure, "figcaption", title);
      figure.append(svg);
      if (hint) append(figure, "p", hint, "muted");
    };
    if (lines.length) {
      part("Correct responses per second, while it was measured", drawRates(lines,
        { warmup: about.load.warmup, total: about.load.warmup + about.load.duration }));
      const legend = append(plots.lastChild, "p", "", "legend");
      for (const row of rows) append(legend, "span", row.name, `series-${row.target % 6}`);
    }
    if (rounds.length) {
      part("Correct responses per second: each round, and their median", drawRounds(rows, "Correct responses per second", "/s"),
        rounds.some((each) => each.limit) ? "A hollow mark: the generator was the limit, so the server may be faster." : "");
      part("Latency of a request", drawLatencies(rows),
        about.load.rate === null ? "From the send. In a closed loop a slow server gets fewer requests, so its worst moments count less."
          : "From the time at which it was due.");
      plots.append(table(rows));
    }
  }

  function table(rows) {
    const scroll = element("div", "", "table-scroll");
    const made = append(scroll, "table");
    const head = append(append(made, "thead"), "tr");
    for (const each of ["", "responses/s", "least", "most", "p50", "p99", "longest", "processor time of the server", "faults"])
      append(head, "th", each).scope = "col";
    const body = append(made, "tbody");
    for (const row of rows) {
      if (!row.measured.length) continue;
      const line = append(body, "tr");
      append(line, "th", row.name).scope = "row";
      const rates = row.values.map((each) => each.value);
      const latency = (name) => {
        const found = row.rounds.map((each) => each[name]).filter(Boolean);
        return found.length ? `${format(median(found))} µs` : "–";
      };
      const cost = row.measured.map((each) => each.server_us).filter((each) => each !== null);
      const cells = [format(median(rates)), format(Math.min(...rates)), format(Math.max(...rates)), latency("p50"),
        latency("p99"), latency("max"), cost.length ? `${format(median(cost))} µs a request` : "–",
        row.measured.some((each) => each.faults) ? "yes" : "none"];
      for (const each of cells) append(line, "td", each);
    }
    return scroll;
  }

  return { onShow: showServers };
}
