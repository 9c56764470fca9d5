// Plots of measurements, as SVG. Every axis of a rate begins at zero, each round is a mark of its own, and what
// does not count is marked: the warm-up, and measurements that the generator limited.

const NS = "http://www.w3.org/2000/svg";

function draw(parent, name, attributes, text = "") {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function canvas(width, height, label) {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  return svg;
}

// Return the steps of an axis from 0 to at least `most`.
export function steps(most, count = 5) {
  if (!(most > 0)) return [0, 1];
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let value = 0; value < most + step * 0.999; value += step) found.push(value);
  return found;
}

export const format = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
const duration = (us) => (us < 1000 ? `${format(us)} µs` : us < 1e6 ? `${format(us / 1000)} ms` : `${format(us / 1e6)} s`);

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// Rates while they are measured. `lines`: [{ target, points: [[seconds, rate]], isLast }].
export function drawRates(lines, { warmup, total }) {
  const width = 720, height = 230, left = 62, right = 12, top = 12, bottom = 34;
  const svg = canvas(width, height, "Correct responses per second, over the time of each measurement");
  const most = Math.max(1, ...lines.flatMap((line) => line.points.map((each) => each[1])));
  const ticks = steps(most);
  const x = (at) => left + (at / total) * (width - left - right);
  const y = (rate) => height - bottom - (rate / ticks.at(-1)) * (height - top - bottom);
  if (warmup > 0) {
    draw(svg, "rect", { x: x(0), y: top, width: x(warmup) - x(0), height: height - top - bottom, class: "warmup" });
    draw(svg, "text", { x: x(0) + 5, y: top + 14, class: "note" }, "warm-up: not counted");
  }
  for (const each of ticks) {
    draw(svg, "line", { x1: left, x2: width - right, y1: y(each), y2: y(each), class: "grid" });
    draw(svg, "text", { x: left - 7, y: y(each) + 4, class: "tick end" }, format(each));
  }
  for (const each of steps(total, 6).filter((value) => value <= total * 1.001))
    draw(svg, "text", { x: x(each), y: height - bottom + 17, class: "tick middle" }, `${format(each)} s`);
  for (const line of lines) {
    const points = line.points.map(([at, rate]) => `${x(at).toFixed(1)},${y(rate).toFixed(1)}`).join(" ");
    draw(svg, "polyline", { points, class: `rate series-${line.target % 6}${line.isLast ? " last" : ""}` });
  }
  return svg;
}

// One row for each target, with a mark for each round. `rows`: [{ name, target, values: [{ value, isLimited }] }].
export function drawRounds(rows, label, unit) {
  const width = 720, rowHeight = 34, left = 150, right = 190, top = 8, bottom = 30;
  const height = top + bottom + rowHeight * rows.length;
  const svg = canvas(width, height, label);
  const ticks = steps(Math.max(1, ...rows.flatMap((row) => row.values.map((each) => each.value))), 4);
  const x = (value) => left + (value / ticks.at(-1)) * (width - left - right);
  for (const each of ticks) {
    draw(svg, "line", { x1: x(each), x2: x(each), y1: top, y2: height - bottom, class: "grid" });
    draw(svg, "text", { x: x(each), y: height - bottom + 17, class: "tick middle" }, format(each));
  }
  rows.forEach((row, at) => {
    const y = top + rowHeight * (at + 0.5);
    draw(svg, "text", { x: left - 10, y: y + 4, class: "name end" }, shorten(row.name));
    if (!row.values.length) {
      draw(svg, "text", { x: left + 6, y: y + 4, class: "note" }, shorten(row.reason || "not measured yet", 70));
      return;
    }
    const values = row.values.map((each) => each.value);
    const [least, most, middle] = [Math.min(...values), Math.max(...values), median(values)];
    draw(svg, "line", { x1: x(least), x2: x(most), y1: y, y2: y, class: `range series-${row.target % 6}` });
    draw(svg, "line", { x1: x(middle), x2: x(middle), y1: y - 10, y2: y + 10, class: `median series-${row.target % 6}` });
    for (const each of row.values)
      draw(svg, "circle", { cx: x(each.value), cy: y, r: 4.5,
        class: `round series-${row.target % 6}${each.isLimited ? " limited" : ""}` });
    const spread = values.length > 1 ? ` (${format(least)} to ${format(most)})` : "";
    draw(svg, "text", { x: width - right + 10, y: y + 4, class: "value" }, `${format(middle)} ${unit}${spread}`);
  });
  return svg;
}

// Latencies on a logarithmic axis. `rows`: [{ name, target, rounds: [{ p50, p99, max, ... }] }].
export function drawLatencies(rows) {
  const shown = rows.filter((row) => row.rounds.length);
  const width = 720, rowHeight = 34, left = 150, right = 190, top = 22, bottom = 30;
  const height = top + bottom + rowHeight * Math.max(1, shown.length);
  const svg = canvas(width, height, "Latencies of each round: median, 99th percentile and largest, on a logarithmic axis");
  const all = shown.flatMap((row) => row.rounds.flatMap((each) => Object.values(each))).filter((each) => each > 0);
  if (!all.length) return svg;
  const low = 10 ** Math.floor(Math.log10(Math.min(...all))), high = 10 ** Math.ceil(Math.log10(Math.max(...all) * 1.0001));
  const x = (value) => left + (Math.log10(value / low) / Math.log10(high / low)) * (width - left - right);
  for (let each = low; each <= high * 1.001; each *= 10) {
    draw(svg, "line", { x1: x(each), x2: x(each), y1: top, y2: height - bottom, class: "grid" });
    draw(svg, "text", { x: x(each), y: height - bottom + 17, class: "tick middle" }, duration(each));
  }
  draw(svg, "text", { x: left, y: 13, class: "note" }, "● half of all   ◆ 99 of 100   ▲ the longest   (a mark for each round)");
  shown.forEach((row, at) => {
    const y = top + rowHeight * (at + 0.5);
    draw(svg, "text", { x: left - 10, y: y + 4, class: "name end" }, shorten(row.name));
    for (const each of row.rounds) {
      if (each.p50) draw(svg, "circle", { cx: x(each.p50), cy: y, r: 4.2, class: `round series-${row.target % 6}` });
      if (each.p99) diamond(svg, x(each.p99), y, row.target);
      if (each.max) triangle(svg, x(each.max), y, row.target);
    }
    const middle = (name) => {
      const found = row.rounds.map((each) => each[name]).filter(Boolean);
      return found.length ? duration(median(found)) : "–";
    };
    draw(svg, "text", { x: width - right + 10, y: y + 4, class: "value" }, `${middle("p50")}, p99 ${middle("p99")}`);
  });
  return svg;
}

function diamond(svg, x, y, target) {
  draw(svg, "path", { d: `M${x} ${y - 5}L${x + 5} ${y}L${x} ${y + 5}L${x - 5} ${y}Z`, class: `round series-${target % 6}` });
}

function triangle(svg, x, y, target) {
  draw(svg, "path", { d: `M${x} ${y - 5}L${x + 5} ${y + 4}L${x - 5} ${y + 4}Z`, class: `round series-${target % 6} outline` });
}

function shorten(text, most = 19) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
