// The path between the programs: a slider for each toxic, and the seed of their decisions.

import { append, button } from "./dom.js";

const TOXICS = [
  { name: "delay", label: "delay", unit: "ms", max: 500, step: 10, title: "Each packet arrives later" },
  { name: "jitter", label: "jitter", unit: "ms", max: 200, step: 5, title: "The delay varies by so much" },
  { name: "loss", label: "loss", unit: "%", max: 50, step: 1, title: "Packets are lost; TCP sends them again" },
  { name: "duplicate", label: "duplicates", unit: "%", max: 50, step: 1, title: "Packets arrive twice" },
  { name: "reorder", label: "reordering", unit: "%", max: 50, step: 1, title: "Packets are overtaken by others" },
  { name: "rate", label: "rate", unit: "KB/s", max: 1000, step: 10, title: "Packets leave at this rate; 0: as fast as it goes" },
];
const MAX_SEED = 4294967295;
const NO_PATH = { delay: 0, jitter: 0, loss: 0, duplicate: 0, reorder: 0, rate: 0, seed: 1 };

// Return a path that is valid, from one that may not be.
export function checkPath(given) {
  const found = { ...NO_PATH };
  const isNumber = (value, max) => typeof value === "number" && Number.isFinite(value) && value >= 0 && value <= max;
  for (const { name, max } of TOXICS) if (given && isNumber(given[name], max)) found[name] = given[name];
  if (given && isNumber(given.seed, MAX_SEED)) found.seed = Math.floor(given.seed);
  return found;
}

export const isImpaired = (path) => TOXICS.some(({ name }) => path[name] > 0);

export function describePath(path) {
  const parts = TOXICS.filter(({ name }) => path[name] > 0)
    .map(({ name, label, unit }) => `${label} ${path[name]} ${unit}`);
  return parts.length ? `${parts.join(", ")}, seed ${path.seed}` : "loopback";
}

export class PathPanel {
  // Fill a <details> element: its summary names the path, and its panel has the sliders.
  constructor(place, onChange) {
    this.onChange = onChange;
    this.inputs = new Map();
    const summary = append(place, "summary");
    append(summary, "span", "Path ", "muted");
    this.text = append(summary, "b");
    summary.title = "The path between the programs: delay, loss and so on, in both directions";
    const panel = append(place, "div", "", "panel");
    append(panel, "p", "In both directions. With all at 0, packets take the loopback interface.", "muted");
    for (const toxic of TOXICS) this.addSlider(panel, toxic);
    this.addSeed(panel);
    this.reset = button("Reset", "Without any toxic", () => { this.set({ ...NO_PATH, seed: this.get().seed }); onChange(); });
    panel.append(this.reset);
    this.place = place;
    this.show();
  }

  addSlider(panel, { name, label, unit, max, step, title }) {
    const row = append(panel, "label", "", "slider");
    row.title = title;
    append(row, "span", label);
    const input = append(row, "input");
    Object.assign(input, { type: "range", min: "0", max: String(max), step: String(step), value: "0", id: name });
    const output = append(row, "output");
    this.inputs.set(name, { input, show: () => {
      output.textContent = name === "rate" && input.value === "0" ? "no limit" : `${input.value} ${unit}`;
      input.setAttribute("aria-valuetext", output.textContent);
    } });
    input.addEventListener("input", () => this.show());
    input.addEventListener("change", this.onChange);
  }

  addSeed(panel) {
    const row = append(panel, "label", "", "slider seed");
    row.title = "The same seed decides the same for the same packets";
    append(row, "span", "seed");
    const input = append(row, "input");
    Object.assign(input, { type: "number", min: "0", max: String(MAX_SEED), step: "1", value: "1", id: "seed" });
    row.append(button("Another", "Another seed: other packets are lost", () => {
      input.value = String(Math.floor(Math.random() * 100000));
      this.show();
      this.onChange();
    }));
    this.seed = input;
    input.addEventListener("change", () => { this.show(); this.onChange(); });
  }

  get() {
    const found = { seed: Math.min(MAX_SEED, Math.max(0, Math.floor(Number(this.seed.value) || 0))) };
    for (const [name, { input }] of this.inputs) found[name] = Number(input.value);
    return found;
  }

  set(path) {
    const checked = checkPath(path);
    for (const [name, { input }] of this.inputs) input.value = String(checked[name]);
    this.seed.value = String(checked.seed);
    this.show();
  }

  show() {
    for (const { show } of this.inputs.values()) show();
    const path = this.get();
    this.text.textContent = describePath(path);
    this.place.classList.toggle("on", isImpaired(path));
  }

  setDisabled(isDisabled) {
    for (const each of [...this.place.querySelectorAll("input, button")]) each.disabled = isDisabled;
  }
}

// Close open menus on a click elsewhere, and on Escape.
export function closeMenus() {
  const others = (target) => [...document.querySelectorAll("details.menu[open]")].filter((each) => !each.contains(target));
  document.addEventListener("pointerdown", (event) => others(event.target).forEach((each) => { each.open = false; }));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const each of document.querySelectorAll("details.menu[open]")) {
      each.open = false;
      each.querySelector("summary").focus();
    }
  });
}
