// What stands beside a timeline: waits, findings, and the explanation of one event.

import { append, button } from "./dom.js";

export function showWaits(place, sentences) {
  place.replaceChildren();
  place.hidden = sentences.length === 0;
  if (sentences.length) append(place, "h2", "Who waits for whom");
  for (const each of sentences) append(place, "p", each);
}

export function showFindings(place, findings, notes, onJump) {
  place.replaceChildren();
  if (findings.length) append(place, "h2", findings.length === 1 ? "One finding" : `${findings.length} findings`);
  for (const each of findings) addFinding(place, each, onJump);
  for (const each of notes) append(place, "p", each, "note muted");
}

function addFinding(parent, finding, onJump) {
  const box = append(parent, "div", "", "finding");
  const title = button(finding.title, "Jump to the first event that shows it",
    () => onJump(finding.evidence[0]), "jump");
  append(box, "h3").append(title);
  append(box, "p", finding.text);
  if (finding.inferred) append(box, "p", `Inferred: ${finding.inferred}`, "muted");
  append(box, "p", finding.remedy, "remedy");
  if (finding.evidence.length > 1) {
    const places = append(box, "p", "", "evidence");
    append(places, "span", "Seen at", "muted");
    finding.evidence.forEach((number, at) => places.append(
      button(String(at + 1), `Jump to event ${at + 1} that shows it`, () => onJump(number), "place")));
  }
  const list = append(box, "dl");
  addItem(list, "in C", finding.in_c, true);
  addItem(list, "in Python", finding.in_python, true);
  for (const each of finding.consequences) addFinding(box, each, onJump);
}

// Say what an event means in `place`, and its arguments in `reference`.
export function explain(place, reference, event) {
  place.replaceChildren();
  reference.replaceChildren();
  if (!event) return;
  append(place, "h2", event.title);
  if (event.subject) append(place, "p", event.subject + (event.line ? `, line ${event.line}` : ""), "muted");
  if (event.explanation) append(place, "p", event.explanation);
  if (event.summary && event.summary !== event.explanation) append(place, "p", event.summary, "muted");
  const list = append(reference, "dl");
  addItem(list, "in C", event.c, true);
  addItem(list, "in Python", event.python, true);
  for (const [name, value] of event.arguments || []) addItem(list, name, value, true);
  addItem(list, "data", event.data, true);
  addItem(list, "duration", event.duration, false);
  if (!list.childElementCount) list.remove();
}

function addItem(list, name, text, isCode) {
  if (!text) return;
  append(list, "dt", name);
  const value = append(list, "dd", isCode ? "" : text);
  if (isCode) append(value, "code", text);
}
