// Elements and text. Everything that a program prints or names is inserted as text, never as HTML.

export const byId = (id) => document.getElementById(id);

export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function append(parent, name, text = "", className = "") {
  const made = element(name, text, className);
  parent.append(made);
  return made;
}

export function button(text, title, onClick, className = "") {
  const made = element("button", text, className);
  made.type = "button";
  made.title = title;
  if (text.length < 3) made.setAttribute("aria-label", title);
  made.addEventListener("click", onClick);
  return made;
}
