// Keep and hand on: a link, a file of the lab, a page that replays without a server, a picture.

import { append, byId, button } from "./dom.js";
import { fromFile, toFile, toFragment } from "./link.js";

const MAX_PROGRAM = 100000;  // bytes
const MAX_PROGRAMS = 6;
const MAX_FILE = 16 << 20;  // bytes of a file of the lab
const PNG_SCALE = 2;
const MAX_PIXELS = 16000;  // of one side of a PNG: browsers draw no more

export class Keeper {
  // `state()` returns programs and path, `run()` the record of the last run, or null. `onOpen` gets what a file
  // holds, `onPrograms` programs of files, and `say` a sentence for the user.
  // `onProgram` gets the element of a program and what takes its place; `isBusy()`: whether nothing can be opened.
  constructor({ state, run, onOpen, onPrograms, onProgram, isBusy, say }) {
    Object.assign(this, { state, run, onOpen, onPrograms, onProgram, isBusy, say });
    this.fill(byId("save"));
    byId("link").addEventListener("click", () => this.copyLink());
    const chooser = document.createElement("input");
    chooser.type = "file";
    chooser.multiple = true;
    chooser.id = "chooser";
    chooser.hidden = true;
    document.body.append(chooser);
    byId("open").addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", async () => { await this.open([...chooser.files]); chooser.value = ""; });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.open([...event.dataTransfer.files], event.target.closest?.(".program"));
    });
  }

  fill(place) {
    const panel = append(place, "div", "", "panel");
    const item = (id, text, note, action) => {
      const made = button("", "", async () => {
        place.open = false;
        try { await action(); } catch (error) { this.say(`It could not be saved: ${error.message}`); }
      }, "item");
      made.id = id;
      made.removeAttribute("title");
      made.removeAttribute("aria-label");
      append(made, "b", text);
      append(made, "span", note, "muted");
      panel.append(made);
      return made;
    };
    item("save-file", "File", "programs, path, seed, and the run", () => this.saveFile());
    this.ofRun = [
      item("save-page", "Page", "the run, to play again without a server", () => this.saveExport("page", "html")),
      item("save-svg", "SVG", "a picture of the timeline", () => this.saveExport("svg", "svg")),
      item("save-png", "PNG", "the same, in pixels", () => this.savePng()),
    ];
    place.addEventListener("toggle", () => { for (const each of this.ofRun) each.disabled = this.run() === null; });
  }

  async copyLink() {
    history.replaceState(null, "", `#${await toFragment(this.state())}`);
    const copy = byId("link");
    try {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "In the address";
    }
    setTimeout(() => { copy.textContent = "Copy link"; }, 2000);
  }

  saveFile() {
    const text = JSON.stringify(toFile(this.state(), this.run()));
    download(new Blob([text], { type: "application/json" }), "run.lab");
  }

  async exported(kind) {
    const answer = await fetch(`/export/${kind}`, {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify(toFile(this.state(), this.run())),
    });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer.blob();
  }

  async saveExport(kind, suffix) { download(await this.exported(kind), `run.${suffix}`); }

  async savePng() {
    const text = await (await this.exported("svg")).text();
    const [, width, height] = /viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(text);
    const sized = text.replace("<svg ", `<svg width="${width}" height="${height}" `);
    const address = URL.createObjectURL(new Blob([sized], { type: "image/svg+xml" }));
    try {
      const image = new Image();
      image.src = address;
      await image.decode();
      const scale = Math.min(PNG_SCALE, MAX_PIXELS / image.naturalWidth, MAX_PIXELS / image.naturalHeight);
      const canvas = document.createElement("canvas");
      canvas.width = Math.round(image.naturalWidth * scale);
      canvas.height = Math.round(image.naturalHeight * scale);
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      download(await new Promise((resolve) => canvas.toBlob(resolve, "image/png")), "run.png");
    } finally {
      URL.revokeObjectURL(address);
    }
  }

  // `place`: the program on which one file was dropped, if it was.
  async open(files, place = null) {
    if (!files.length) return;
    if (this.isBusy()) { this.say("A run is in progress. Stop it, then open the file."); return; }
    const programs = [];
    for (const file of files.slice(0, MAX_PROGRAMS)) {
      try {
        if (file.name.endsWith(".lab")) { this.onOpen(fromFile(await textOf(file, MAX_FILE)), file.name); return; }
        const text = await textOf(file, MAX_PROGRAM);
        programs.push({ kind: kindOf(file.name, text), file: nameOf(file.name), text, arguments: "" });
      } catch (error) {
        this.say(`${file.name} cannot be opened: ${error.message}`);
        return;
      }
    }
    programs.sort((one, other) => (one.kind === "client") - (other.kind === "client"));
    if (programs.length === 1 && place) this.onProgram(place, programs[0]);
    else this.onPrograms(programs);
    if (files.length > MAX_PROGRAMS) this.say(`Only ${MAX_PROGRAMS} of ${files.length} files were opened.`);
  }
}

// Return the text of a file. Throws an error that says why it has none.
async function textOf(file, limit) {
  if (file.size > limit) throw new Error(`it has more than ${limit.toLocaleString("en")} bytes`);
  let text = "\0";
  try { text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()); } catch { /* as below */ }
  if (text.includes("\0")) throw new Error("it is not text");
  return text;
}

const nameOf = (name) => name.replace(/[^A-Za-z0-9_.-]/g, "_").replace(/^-+/, "");

// A guess, which the reader can change: a server is named so, or listens.
function kindOf(name, text) {
  if (/server/i.test(name)) return "server";
  if (/client/i.test(name)) return "client";
  return /listen|ServerSocket|create_server|bind\s*\(/.test(text) ? "server" : "client";
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
