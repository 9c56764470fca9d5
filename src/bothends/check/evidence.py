"""Find the likely cause of a failure in its evidence: what the program wrote, and what it replied. Pure.

Traceback (most recent call last):
  File "server.py", line 7, in <module>
UnicodeDecodeError: ...                       ->  UnicodeDecodeError at line 7 of server.py
"""

from __future__ import annotations

import re
from typing import Final

from bothends.check.transcript import quote_bytes
from bothends.escaping import escape

_MAX_OUTPUT: Final = 65_536  # bytes of output that are searched, from its end

_PYTHON_FRAME: Final = re.compile(rb'^ +File "([^"\n]+)", line (\d+)', re.MULTILINE)
_PYTHON_ERROR: Final = re.compile(rb"^([A-Za-z_][\w.]*)(?::.*)?$", re.MULTILINE)
_PYTHON_START: Final = b"Traceback (most recent call last)"
_JAVA: Final = re.compile(
    rb"^(?:Exception in thread \"[^\"\n]*\" )?((?:[a-z]\w*\.)+[A-Z]\w*)\b[^\n]*", re.MULTILINE
)
_JAVA_FRAME: Final = re.compile(rb"^\tat (?!java\.|jdk\.|sun\.)[^(\n]*\(([\w$]+\.java):(\d+)\)", re.MULTILINE)
_NODE: Final = re.compile(
    rb"^(?:Uncaught )?(\w*Error\b(?:: [\w ]{1,40})?)[^\n]*\n((?: +at [^\n]*\n?)+)", re.MULTILINE
)
_NODE_FRAME: Final = re.compile(rb"(?:\(|at )(?:file://)?(/[^:()\n]+):(\d+):\d+")
_GO: Final = re.compile(rb"^panic: ([^\n]*)", re.MULTILINE)
_GO_FRAME: Final = re.compile(rb"^\t(/[^\n:]+\.go):(\d+)", re.MULTILINE)
_RUST: Final = re.compile(rb"panicked at (?:'[^'\n]*', )?([\w./-]+\.rs):(\d+)")
_CR_AFTER_INTERPRETER: Final = re.compile(rb"(env|sh)[^\n]*\\r'|\r'?: (bad interpreter|No such file)|\^M: ")
# What Python 3 says of a program for Python 2 -> what to change.
_PYTHON_2: Final = (
    (rb"Missing parentheses in call to 'print'", "print(...) needs parentheses"),
    (rb"Missing parentheses in call to 'exec'", "exec(...) needs parentheses"),
    (rb"multiple exception types must be parenthesized", "write `except Error as error`"),
    (rb"leading zeros in decimal integer literals", "octal numbers begin with 0o"),
    (rb"name 'raw_input' is not defined", "raw_input() is now input()"),
    (rb"name '(unicode|xrange|unichr|long)' is not defined", "there is no {} any more"),
    (rb"No module named '(SocketServer|Queue|BaseHTTPServer|SimpleHTTPServer|thread|urllib2|StringIO)'",
     "the module {} has another name"),
)  # fmt: skip
_MEANINGS: Final = {
    "UnicodeDecodeError": "the data is not text, or ends inside a character",
    "MalformedInputException": "the data is not text, or ends inside a character",
    "gaierror": "the name of the host in its source is not known here",
    "UnknownHostException": "the name of the host in its source is not known here",
}


def find_crash(output: bytes) -> str:
    """Return the last exception in a program's standard error and its place, escaped; "" if there is none."""
    text = output[-_MAX_OUTPUT:]
    at = text.rfind(_PYTHON_START)
    if at >= 0:
        return _python_crash(text[at:])
    if (found := _RUST.search(text)) is not None:
        return _place(b"a panic", found[1], found[2])
    if (found := _GO.search(text)) is not None:
        frame = _GO_FRAME.search(text, found.end())
        return _place(b"a panic", *frame.groups()) if frame else "a panic"
    if (found := _NODE.search(text)) is not None:
        frame = _NODE_FRAME.search(found[2])
        return _place(found[1], *frame.groups()) if frame else escape(found[1])
    if (found := _JAVA.search(text)) is not None and b"\n\tat " in text[found.start() :]:
        name = found[1].rpartition(b".")[2]
        frame = _JAVA_FRAME.search(text, found.end())
        return _place(name, *frame.groups()) if frame else escape(name)
    return ""


def _python_crash(text: bytes) -> str:
    frames = _PYTHON_FRAME.findall(text)
    # The program's own frame rather than one of a library that it calls.
    own = [each for each in frames if b"/lib/python" not in each[0] and not each[0].startswith(b"<")]
    error = _PYTHON_ERROR.search(text, text.rfind(frames[-1][1]) if frames else 0)
    lines = [line for line in text.splitlines() if line and not line.startswith(b" ")]
    named = re.match(rb"[A-Za-z_][\w.]*", lines[-1]) if len(lines) > 1 else error
    name = named[0] if named else b"an exception"
    return _place(name, *own[-1]) if own else escape(name)


def _place(name: bytes, file: bytes, line: bytes) -> str:
    return f"{escape(name)} at line {line.decode()} of {escape(file.rpartition(b'/')[2])}"


def find_cause(output: bytes) -> tuple[str, str]:
    """Return the exception that ended a program, as `find_crash`, and what it means: the likely cause.

    `output`: its standard error. Both are "" if it says nothing.
    """
    crash = find_crash(output)
    return crash, _explain_start(output) or (explain_crash(crash) if crash else "")


def _explain_start(output: bytes) -> str:
    """Return why an interpreter does not run a program, or ""."""
    if _CR_AFTER_INTERPRETER.search(output):
        return "its first line (#!) ends with CR LF, so its interpreter is not found; save it with LF"
    for pattern, change in _PYTHON_2:
        if (found := re.search(pattern, output)) is not None:
            lines = _PYTHON_FRAME.findall(output)
            line = f"line {lines[-1][1].decode()}: " if lines else ""
            change = change.format(*(escape(group) for group in found.groups()))
            return f"it is written for Python 2, and runs with Python 3: {line}{change}"
    return ""


def explain_crash(crash: str) -> str:
    """Return the likely cause of a failure in which this exception ended the program or the connection."""
    name = crash.partition(" ")[0].partition(":")[0]
    meaning = _MEANINGS.get(name, "")
    return f"{crash} is not handled{f': {meaning}' if meaning else ''}"


def explain_reply(expected: bytes, received: bytes, request: bytes, message: bytes) -> str:
    """Return how a reply came to be wrong, or "" if that is not plain.

    Args:
        expected: the correct reply, with its framing.
        received: what was received instead, not empty.
        request: what was sent, with its framing.
        message: what was sent, without it.
    """
    end = expected[len(expected.rstrip(b"\r\n")) :]
    core = expected[: len(expected) - len(end)]
    if end and received == core:
        return f"sends the reply without {quote_bytes(end)} at its end"
    if received.startswith(core) and received[len(core) :].strip(b"\r\n\0") == b"" and received != expected:
        rest = received[len(core) :]
        if b"\0" in rest:
            return "sends NUL bytes after the reply: the whole buffer, or the end of a string in C"
        return f"ends the reply with {quote_bytes(rest)} instead of {quote_bytes(end) if end else 'nothing'}"
    if received.strip() in (b"b'%b'" % core, b'b"%b"' % core):
        return "sends str() of bytes, b'...', instead of the bytes"
    if received in (request, message):
        return "sends the message back unchanged"
    if len(received) == len(expected) and received.lower() == expected.lower():
        return "sends the right letters in the wrong case"
    if core and core in received:
        before, _, after = received.partition(core)
        around = [f"{quote_bytes(before)} before it"] if before else []
        around += [f"{quote_bytes(after)} after it"] if after.strip(b"\r\n") else []
        return f"sends the reply with {' and '.join(around)}" if around else ""
    if received.startswith(core[:1]) and core.startswith(received):
        return "sends a part of the reply only: a buffer that is too small, or a wrong length"
    return ""
