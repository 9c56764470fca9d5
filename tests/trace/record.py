"""Record the strace logs of the classic pairs, which the tests of the parser read.

    python -m tests.trace.record

Lines about files are omitted, because they are most lines and contain this machine's paths. So are the
arguments of execve.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bothends.trace.capture.strace import OPTIONS
from tests.interop.running import ROOT, Running

PROGRAMS = ROOT / "tests" / "interop" / "programs"
RECORDINGS = Path(__file__).parent / "recordings"
NODE_SERVER = """
const net = require("net");
const server = net.createServer((s) => s.on("data", (d) => s.end(d.toString().toUpperCase())));
server.listen(0, "127.0.0.1", () => console.log("port " + server.address().port));
"""
NODE_CLIENT = """
const s = require("net").connect(process.argv[1], "127.0.0.1", () => s.write("hello\\n"));
s.on("data", (d) => process.stdout.write(d));
"""


def scrub(text: str) -> str:
    """Remove this machine's paths from a log."""
    lines = []
    for line in text.splitlines():
        if re.search(r" execve\(", line):
            line = re.sub(r"execve\(.*\)( +=|$)", r'execve("\\x70", ["\\x70"], 0x7ffc0 /* 9 vars */)\1', line)
        line = re.sub(r"<(?:\\x[0-9a-f]{2})*(?:\\x2f(?:\\x[0-9a-f]{2})*){2,}>", r"<\\x2f\\x66>", line)
        if "<\\x2f\\x66>" in line and not line.endswith("<unfinished ...>") and " exec" not in line:
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"


def record(name: str, server: list[str], client: list[str], port: bytes = rb"port (\d+)") -> None:
    """Record both ends of a pair."""
    with tempfile.TemporaryDirectory() as folder:
        logs = {end: Path(folder, end) for end in ("server", "client")}
        strace = ["strace", *OPTIONS, "--seccomp-bpf", "-o"]
        with Running([*strace, str(logs["server"]), "--", *server]) as running:
            number = running.line(port)[1].decode()
            command = [each.replace("PORT", number) for each in client]
            subprocess.run(
                [*strace, str(logs["client"]), "--", *command], input=b"hello\n", check=True, timeout=20
            )
            child = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
            subprocess.run(["kill", *child.split()], check=True)
            running.wait()
        for end, log in logs.items():
            (RECORDINGS / f"{name}-{end}.strace").write_text(scrub(log.read_text()))


def main() -> None:
    """Record all pairs. Needs cc, javac, java and node."""
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        for each in ("tcp_client", "fork_server", "teller", "select_server"):
            subprocess.run(["cc", "-o", f"{folder}/{each}", f"{PROGRAMS}/c/{each}.c"], check=True)
        record("c-fork", [f"{folder}/fork_server"], [f"{folder}/tcp_client", "127.0.0.1", "PORT"])
        record("c-select", [f"{folder}/select_server"], [f"{folder}/teller", "tcp", "127.0.0.1", "PORT"])
        client = [python, "-I", "-S", f"{PROGRAMS}/python/tcp_client.py", "127.0.0.1", "PORT"]
        record("python", [python, "-I", "-S", f"{PROGRAMS}/python/tcp_server.py"], client)
        record("python-threads", [python, "-I", "-S", f"{PROGRAMS}/python/threaded_server.py"], client)
        subprocess.run(
            ["javac", "-d", folder, f"{PROGRAMS}/java/LineServer.java", f"{PROGRAMS}/java/LineClient.java"],
            check=True,
        )
        record(
            "java",
            ["java", "-cp", folder, "LineServer"],
            ["java", "-cp", folder, "LineClient", "127.0.0.1", "PORT"],
        )
        record("node", ["node", "-e", NODE_SERVER], ["node", "-e", NODE_CLIENT, "PORT"])


if __name__ == "__main__":
    main()
