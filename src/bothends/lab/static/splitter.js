// A line between two parts of the page that can be moved, with the mouse, a finger or the arrow keys.

import { element } from "./dom.js";

export function addSplitter(above, below, container) {
  const line = element("div", "", "splitter");
  line.tabIndex = 0;
  line.setAttribute("role", "separator");
  line.setAttribute("aria-orientation", "horizontal");
  line.setAttribute("aria-label", "Height of the programs");
  line.setAttribute("aria-valuemin", "20");
  line.setAttribute("aria-valuemax", "80");
  let share = 50;
  const set = (value) => {
    share = Math.round(Math.max(20, Math.min(80, value)));
    container.style.setProperty("--upper", `${share}fr`);
    container.style.setProperty("--lower", `${100 - share}fr`);
    line.setAttribute("aria-valuenow", String(share));
  };
  line.addEventListener("pointerdown", (event) => { line.setPointerCapture(event.pointerId); event.preventDefault(); });
  line.addEventListener("pointermove", (event) => {
    if (!line.hasPointerCapture(event.pointerId)) return;
    const top = above.getBoundingClientRect().top, bottom = below.getBoundingClientRect().bottom;
    set(100 * (event.clientY - top) / (bottom - top));
  });
  line.addEventListener("keydown", (event) => {
    const by = { ArrowUp: -4, ArrowDown: 4 }[event.key];
    if (by) { event.preventDefault(); set(share + by); }
  });
  line.addEventListener("dblclick", () => set(50));
  below.before(line);
  set(share);
}
