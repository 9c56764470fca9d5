"""Both ends of the classic pairs, traced as a user does it: `bothends trace` as a process, real strace."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.interop.running import ENVIRONMENT, ROOT
from tests.tools import needs_tool

PROGRAMS = ROOT / "tests" / "interop" / "programs"
PATIENCE = 40

pytestmark = [needs_tool("strace")]


def traced(*arguments: str, said: str = "", status: int = 0) -> str:
    """What `bothends trace` shows."""
    done = subprocess.run(
        [sys.executable, "-m", "bothends", "trace", "--width", "140", *arguments],
        input=said.encode(),
        capture_output=True,
        timeout=PATIENCE,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode()


def pair(server: str, client: str) -> tuple[str, ...]:
    python = sys.executable
    return (
        "--server",
        f"{python} {PROGRAMS}/python/{server}",
        "--client",
        f"{python} {PROGRAMS}/python/{client} 127.0.0.1 {{port}}",
    )


def calls(shown: str, lane: int) -> list[str]:
    """The calls that stand in a lane, ends that only say how long somebody waited included."""
    found = []
    for line in shown.splitlines():
        cells = re.split("[│┆]", line)
        if len(cells) > lane + 1 and (call := re.match(r" (\w+)\(", cells[lane + 1])):
            found.append(call[1])
    return found


def test_a_capitalising_pair_over_tcp() -> None:
    shown = traced(*pair("tcp_server.py", "tcp_client.py"), "--calls-only", said="hello\n")
    assert "From Server: HELLO" in shown
    assert calls(shown, 0)[:3] == ["socket", "bind", "listen"]
    assert [each for each in calls(shown, 1) if each != "recvfrom"] == [
        "socket",
        "connect",
        "sendto",
        "close",
    ]
    order = [
        "listen(3, 1)",
        "connect(3, 127.0.0.1:",
        "accept4(3) = 4 from 127.0.0.1:",
        'recvfrom(4, 1024) = 5 "hello"',
    ]
    places = [shown.index(each) for each in order]
    assert places == sorted(places)
