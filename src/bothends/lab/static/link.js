// Programs as a link: the fragment of the address holds them, so no server keeps them.

const VERSION = "1.";
const MAX_TEXT = 700000;  // characters: six programs of the largest size

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

export function check(value) {
  const programs = value && Array.isArray(value.programs) ? value.programs.slice(0, 6) : [];
  const isText = (each, limit) => typeof each === "string" && each.length <= limit;
  const valid = programs.filter((each) => each && ["server", "client"].includes(each.kind)
    && isText(each.file, 50) && isText(each.text, 100000) && isText(each.arguments || "", 500));
  if (!valid.length) throw new Error("no programs in it");
  const path = value.path || {};
  const number = (each, limit, otherwise) => Number.isFinite(each) && each >= 0 && each <= limit ? each : otherwise;
  return {
    programs: valid, seconds: Number(value.seconds) || 0,
    path: {
      delay: number(path.delay, 500, 0), loss: number(path.loss, 50, 0),
      seed: Math.floor(number(path.seed, 4294967295, 1)),
    },
  };
}
