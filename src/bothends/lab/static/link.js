// Programs as text: a link whose fragment holds them, so that no server keeps them, and a file.

import { checkPath } from "./path.js";

const VERSION = "1.";
const MAX_TEXT = 700000;  // characters of a link: six programs of the largest size
export const FILE_FORMAT = "bothends-lab";
const FILE_VERSION = 1;

async function pass(bytes, stream) {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > MAX_TEXT) throw new Error("the link holds too much");
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

export async function toFragment(value) {
  const packed = await pass(new TextEncoder().encode(JSON.stringify(value)), new CompressionStream("deflate-raw"));
  let text = "";
  for (const byte of packed) text += String.fromCharCode(byte);
  return VERSION + btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// Return what a fragment holds; null if it is no link of this page.
export async function fromFragment(fragment) {
  if (!fragment.startsWith(VERSION)) return null;
  const text = atob(fragment.slice(VERSION.length).replaceAll("-", "+").replaceAll("_", "/"));
  const packed = Uint8Array.from(text, (each) => each.charCodeAt(0));
  const bytes = await pass(packed, new DecompressionStream("deflate-raw"));
  return check(JSON.parse(new TextDecoder().decode(bytes)));
}

// Return the content of a file: the programs and the path, and the run, if there is one.
export function toFile(state, run = null) {
  return { [FILE_FORMAT]: FILE_VERSION, ...state, ...(run ? { run } : {}) };
}

// Return what the text of a file holds. Throws an error that says what is wrong.
export function fromFile(text) {
  let value = null;
  try { value = JSON.parse(text); } catch { /* it is null */ }
  if (!value || typeof value !== "object" || !(FILE_FORMAT in value)) throw new Error("it is not a file of the lab");
  if (value[FILE_FORMAT] !== FILE_VERSION) throw new Error("another version of the lab has written it");
  return { ...check(value), run: value.run && typeof value.run === "object" ? value.run : null };
}

export function check(value) {
  const programs = value && Array.isArray(value.programs) ? value.programs.slice(0, 6) : [];
  const isText = (each, limit) => typeof each === "string" && each.length <= limit;
  const valid = programs.filter((each) => each && ["server", "client"].includes(each.kind)
    && isText(each.file, 50) && isText(each.text, 100000) && isText(each.arguments || "", 500))
    .map(({ kind, file, text, arguments: words }) => ({ kind, file, text, arguments: words || "" }));
  if (!valid.length) throw new Error("no programs in it");
  return { programs: valid, seconds: Number(value.seconds) || 0, path: checkPath(value.path) };
}
