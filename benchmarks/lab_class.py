"""Measure a class in the lab: students that all press Run at once, and one of them with a fork bomb.

    python -m benchmarks.lab_class [STUDENTS]

Prints the seconds until the first rows of each student's timeline, and the processor time of everything.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Final
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import connect

from bothends.lab.lessons import load_lessons

LESSON: Final = "02-capitaliser-over-tcp"
BOMB: Final = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
TIMEOUT: Final = 60.0  # seconds
SETTLING: Final = 3.0  # seconds from the start of the lab until its processes are ready


def join(address: str) -> tuple[str, str]:
    """Open the address as a new browser does. Returns: the host, and the cookie."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.netloc, timeout=TIMEOUT)
    connection.request("GET", f"{url.path}?{url.query}")
    response = connection.getresponse()
    response.read()
    return url.netloc, (response.getheader("set-cookie") or "").partition(";")[0]


async def run(address: str, programs: object, begin: asyncio.Event, times: list[float]) -> None:
    """Run programs as one student, and add the seconds until the first rows."""
    host, cookie = await asyncio.to_thread(join, address)
    fields = {"Origin": f"http://{host}", "Cookie": cookie}
    async with connect(
        f"ws://{host}/socket", additional_headers=fields, proxy=None, max_size=None, open_timeout=TIMEOUT
    ) as page:
        await begin.wait()
        started = time.monotonic()
        await page.send(json.dumps({"type": "start", "programs": programs, "time_limit": 10}))
        async for message in page:
            kind = json.loads(message)["type"]
            if kind == "rows":
                times.append(time.monotonic() - started)
                break
        async for message in page:
            if json.loads(message)["type"] in ("ended", "failed"):
                break


async def measure(address: str, students: int, bombs: int) -> list[float]:
    """Return the sorted times of all students, without those that run a fork bomb."""
    programs = msgspec.to_builtins(load_lessons()[LESSON].solution)
    bomb = [{"kind": "client", "file": "bomb.py", "text": BOMB}]
    begin, times = asyncio.Event(), []  # type: ignore[var-annotated]
    tasks = [asyncio.create_task(run(address, programs, begin, times)) for _ in range(students)]
    hostile = [asyncio.create_task(run(address, bomb, begin, [])) for _ in range(bombs)]
    await asyncio.sleep(SETTLING)
    begin.set()
    await asyncio.gather(*tasks)
    for each in hostile:
        each.cancel()
    return sorted(times)


def main() -> None:
    """Print a line without a fork bomb, and one with it."""
    students = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    for bombs in (0, 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as state:
            lab = subprocess.Popen(
                [sys.executable, "-m", "bothends", "lab", "--no-browser", "--class", "--state", state],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert lab.stdout is not None
            try:
                times = asyncio.run(measure(lab.stdout.readline().split()[1], students, bombs))
            finally:
                lab.terminate()
                lab.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows = f"{statistics.median(times):.1f} s (median), {times[-1]:.1f} s (last)"
        print(f"{students} students, {bombs} fork bombs: first rows after {rows};", end=" ")
        print(f"{spent:.1f} s of processor time; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
