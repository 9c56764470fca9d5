// Find the line of a program that an uncaught exception names, in what the program has printed.

const PYTHON = /^ *File "(?:[^"\n]*\/)?([\w.-]+)", line (\d+)/gm;
const PYTHON_MESSAGE = /^(?:[\w.]*(?:Error|Exception|Exit|Interrupt|Warning|timeout))\b.*$/gm;
const JAVA = /^Exception in thread "[^"\n]*" (.*)\n((?:\s+(?:at|\.\.\.|Caused by).*\n?)*)/m;

// Return the problem as a compiler's, or null. `file` is the program's own.
export function findTraceback(text, file) {
  const java = JAVA.exec(text);
  if (java) {
    const own = [...java[2].matchAll(/\(([\w.-]+):(\d+)\)/g)].find((each) => each[1] === file);
    return own ? { line: Number(own[2]), severity: "error", text: java[1] } : null;
  }
  // A syntax error has no first line of its own.
  const headed = text.lastIndexOf("Traceback (most recent call last)");
  const begin = headed >= 0 ? headed : text.lastIndexOf('  File "');
  const part = begin < 0 ? "" : text.slice(begin);
  const places = [...part.matchAll(PYTHON)].filter((each) => each[1] === file);
  const messages = [...part.matchAll(PYTHON_MESSAGE)];
  if (!places.length || !messages.length) return null;
  return { line: Number(places.at(-1)[2]), severity: "error", text: messages.at(-1)[0] };
}
