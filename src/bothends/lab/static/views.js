// The views of the page, each with a tab. The first one is in page.html.
//
// A view with a module is built when it is first shown. The module exports `build(place, lab)`: `place` is
// an empty element, and `lab` is what lab.js makes of the page (see `Lab` there). What `build` returns may have
// a function `onShow`, called each time the view is shown. `style` is a style sheet of its own beside the
// module, if it has one.

import { append, button } from "./dom.js";

const VIEWS = [
  { name: "run", label: "Run" },
  { name: "compare", label: "Compare", module: "compare.js", style: "compare.css" },
  { name: "judge", label: "Judge", module: "judge.js", style: "tools.css" },
  { name: "measure", label: "Measure", module: "measure.js", style: "tools.css" },
  { name: "sockets", label: "Sockets", module: "sockets.js", style: "tools.css" },
  { name: "lessons", label: "Lessons", module: "lessons.js", style: "tools.css" },
];

const built = new Map();  // by name: what build() has returned, a promise

// Make the tabs. Returns a function that shows a view, by name.
export function makeViews(tabs, panels, lab) {
  const parts = new Map();
  let current = "";

  async function show(name, focus = false) {
    for (const [each, { tab, panel }] of parts) {
      tab.setAttribute("aria-selected", String(each === name));
      tab.tabIndex = each === name ? 0 : -1;
      panel.hidden = each !== name;
    }
    const { tab, panel, view } = parts.get(name);
    if (focus) tab.focus();
    current = name;
    if (!view.module) return;
    if (!built.has(name)) built.set(name, build(view, panel, lab));
    const made = await built.get(name);
    if (made && made.onShow && current === name) made.onShow();
  }

  for (const view of VIEWS) {
    const tab = button(view.label, "", () => show(view.name), "tab");
    tab.id = `tab-${view.name}`;
    tab.removeAttribute("title");
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", `view-${view.name}`);
    tabs.append(tab);
    let panel = document.getElementById(`view-${view.name}`);
    if (!panel) {
      panel = append(panels, "div", "", "view");
      panel.id = `view-${view.name}`;
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      panel.hidden = true;
    }
    parts.set(view.name, { tab, panel, view });
  }
  tabs.addEventListener("keydown", (event) => {
    const names = VIEWS.map((view) => view.name), at = names.indexOf(current);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    show(names[(next + names.length) % names.length], true);
  });
  show("run");
  show.current = () => current;
  return show;
}

async function build(view, panel, lab) {
  if (view.style) {
    const link = append(document.head, "link");
    link.rel = "stylesheet";
    link.href = `/static/${view.style}`;
    await new Promise((resolve) => { link.onload = link.onerror = resolve; });
  }
  const module = await import(`./${view.module}`);
  return module.build(panel, lab);
}
