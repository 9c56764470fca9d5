// The page of a recorded run: nothing but what the file holds.

import { byId } from "./dom.js";
import { checkPath, describePath } from "./path.js";
import { SourceView } from "./source_view.js";
import { addSplitter } from "./splitter.js";
import { RunViewer } from "./viewer.js";

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function showFile(file) {
  const { run } = file, programs = [];
  const viewer = new RunViewer(byId("picture"), {
    onSelect(event, index) {
      for (const each of programs) each.mark("line-selected", event && event.program === each.number ? event.line : null);
      showOutput(index < 0 ? Infinity : run.began + viewer.timeline.timeOf(index) / 1000);
    },
  });
  function showOutput(until) {
    for (const each of programs)
      each.show(run.output.filter(([number, at]) => number === each.number && at <= until)
        .map(([, , text, kind]) => [text, kind]));
  }
  file.programs.forEach((program, number) => {
    const view = new SourceView(program, number, run.roles[number] || program.kind,
      (from, line) => viewer.timeline.markLine(from.number, line));
    view.setCalled(new Set(Object.values(run.events).filter((each) => each.program === number && each.line)
      .map((each) => each.line)));
    programs.push(view);
    byId("programs").append(view.root);
  });
  addSplitter(byId("programs"), byId("picture"), byId("view-run"));
  viewer.clear(run.roles);
  viewer.add(run);
  viewer.timeline.scroll.scrollTop = 0;
  viewer.showWaits(run.ended.waits);
  viewer.showFindings(run.ended.findings, run.ended.notes);
  showOutput(Infinity);
  byId("path").textContent = `Path: ${describePath(checkPath(file.path))}`;
  byId("state").textContent = run.ended.reason ? `ended by ${run.ended.reason} after ${run.ended.seconds.toFixed(1)} s`
    : `ended after ${run.ended.seconds.toFixed(1)} s`;
}

unpack(byId("data").textContent).then(showFile);
