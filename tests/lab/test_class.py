"""A class over its server: students, the teacher, limits, turns, TLS and a restart."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.lab.running import TIMEOUT, Lab, output_of, program, run, running_lab
from tests.lab.test_lessons import LESSONS
from tests.tools import needs_tool

pytestmark = [needs_tool("strace")]
SOLUTION = [program(each.kind, each.text, each.file) for each in LESSONS["02-capitaliser-over-tcp"].solution]
BOMB = [
    program(
        "client", "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    )
]
STUDENTS = 30


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab("--class", "--state", str(tmp_path_factory.mktemp("state"))) as found:
        yield found


def join(room: Lab, address: str = "") -> Lab:
    """Return the lab as another browser sees it: with a cookie of its own."""
    made = Lab(room.process, address or room.address, tls=room.tls)
    status, fields, _ = made.get(made.address.removeprefix(f"{room.scheme}://{room.host}"))
    assert status == 200
    made.cookie = fields["set-cookie"].partition(";")[0]
    return made


def students(teacher: Lab) -> dict[int, dict[str, Any]]:
    _, _, text = teacher.get("/class/students", {"Cookie": teacher.cookie})
    return {each["number"]: each for each in json.loads(text)["students"]}


def own_page(student: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(student.get("/begin", {"Cookie": student.cookie})[2])["class"]
    return found


def test_student_sees_nothing_of_the_class_and_the_teacher_all(room: Lab) -> None:
    ann, teacher = join(room), join(room, room.teacher_address)
    number = own_page(ann)["number"]
    for path in ("/class", "/class/students", f"/class/students/{number}"):
        assert ann.get(path, {"Cookie": ann.cookie})[0] == 404
        assert teacher.get(path, {"Cookie": teacher.cookie})[0] == 200
        assert ann.get(path)[0] == 403
    token = room.address.partition("=")[2]
    assert ann.get(f"/class?token={token}", {"Cookie": ann.cookie})[0] == 404
    assert ann.get("/?token=wrong")[0] == 403
    assert join(room).cookie != ann.cookie
    assert own_page(teacher)["number"] == 0


def test_names_and_work_reach_the_teacher_as_text(room: Lab) -> None:
    ann, ben, teacher = join(room), join(room), join(room, room.teacher_address)
    hostile = "<img src=x>\x1b[31m"
    with ann.connect() as websocket:
        websocket.send(json.dumps({"type": "name", "name": hostile}))
        work = {"programs": [program("client", "text")], "where": "lesson 02", "seconds": 9.0}
        websocket.send(json.dumps({"type": "keep", "work": work}))
        websocket.send("{")
        assert json.loads(websocket.recv(10))["type"] == "failed"
        number = own_page(ann)["number"]
        found = students(teacher)[number]
        assert (found["name"], found["where"], found["open"]) == ("<img src=x>\\x1b[31m", "lesson 02", True)
        _, _, text = teacher.get(f"/class/students/{number}", {"Cookie": teacher.cookie})
        assert json.loads(text)["work"]["programs"][0]["text"] == "text"
        assert own_page(ann)["work"]["seconds"] == 9.0
        assert own_page(ben)["work"] is None
    for wrong in (
        {"type": "name", "name": "x" * 41},
        {"type": "keep", "work": {"programs": [program("client", "")] * 7}},
        {"type": "keep", "work": {"programs": [], "where": "<b>"}},
        {"type": "measure", "engines": ["epoll"]},
    ):
        with ben.connect() as websocket:
            websocket.send(json.dumps(wrong))
            assert json.loads(websocket.recv(10))["type"] == "failed"


def test_lesson_that_is_done_is_noted(room: Lab) -> None:
    ann, teacher = join(room), join(room, room.teacher_address)
    with ann.connect() as websocket:
        start = {"type": "start", "programs": SOLUTION, "lesson": "02-capitaliser-over-tcp"}
        websocket.send(json.dumps(start))
        while (reply := json.loads(websocket.recv(TIMEOUT)))["type"] != "checked":
            assert reply["type"] != "failed"
    assert own_page(ann)["passed"] == ["02-capitaliser-over-tcp"]
    assert students(teacher)[own_page(ann)["number"]]["passed"] == ["02-capitaliser-over-tcp"]


def test_student_has_one_run_at_a_time_and_two_pages(room: Lab) -> None:
    ann = join(room)
    sleeper = {"type": "start", "programs": [program("client", "import time\ntime.sleep(60)\n")]}
    with ann.connect() as first, ann.connect() as second, ann.connect() as third:
        with pytest.raises(Exception, match=r"1013|too many"):
            third.recv(10)
        first.send(json.dumps(sleeper))
        while json.loads(first.recv(TIMEOUT))["type"] != "started":
            pass
        second.send(json.dumps(sleeper))
        assert "another page of yours" in json.loads(second.recv(10))["text"]
        first.send('{"type": "stop"}')


def test_teacher_removes_a_student_with_its_run(room: Lab) -> None:
    ann, ben, teacher = join(room), join(room), join(room, room.teacher_address)
    number = own_page(ann)["number"]
    path = f"/class/students/{number}"
    assert ben.get(path, {"Cookie": ben.cookie}, method="DELETE")[0] == 404
    sleeper = {"type": "start", "programs": [program("client", "import time\ntime.sleep(60)\n")]}
    with ann.connect() as websocket:
        websocket.send(json.dumps(sleeper))
        while json.loads(websocket.recv(TIMEOUT))["type"] != "started":
            pass
        assert teacher.get(path, {"Cookie": teacher.cookie}, method="DELETE")[0] == 204
        with pytest.raises(Exception, match="4001"):
            list(websocket)
    assert number not in students(teacher)
    assert ann.get("/begin", {"Cookie": ann.cookie})[0] == 403
    assert teacher.get(path, {"Cookie": teacher.cookie}, method="DELETE")[0] == 404
    assert own_page(ben)["number"] != number


def test_costly_requests_of_a_student_are_limited(room: Lab) -> None:
    ann, ben, teacher = join(room), join(room), join(room, room.teacher_address)
    for path in ("/compare", "/export/page"):
        statuses = {ann.get(path, {"Cookie": ann.cookie}, method="POST")[0] for _ in range(11)}
        assert 429 in statuses
        assert ben.get(path, {"Cookie": ben.cookie}, method="POST")[0] == 400
    own = [teacher.get("/compare", {"Cookie": teacher.cookie}, method="POST")[0] for _ in range(11)]
    assert set(own) == {400}


def test_limits_of_a_class_are_smaller(room: Lab) -> None:
    text = (
        "import os, resource\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0], os.getpriority(os.PRIO_PROCESS, 0))\n"
    )
    with join(room).connect() as websocket:
        assert output_of(run(websocket, [program("client", text)]), 0) == "10 5\n"


@pytest.mark.slow
def test_restart_keeps_addresses_cookies_and_work(tmp_path: Path) -> None:
    options = ("--class", "--state", str(tmp_path))
    with running_lab(*options) as room:
        ann = join(room)
        with ann.connect() as websocket:
            websocket.send(json.dumps({"type": "name", "name": "Ann"}))
            websocket.send("{")
            websocket.recv(10)
        port = room.host.rpartition(":")[2]
    with running_lab(*options, "--port", port) as again:
        assert again.address == room.address
        assert own_page(Lab(again.process, again.address, ann.cookie))["name"] == "Ann"


@pytest.mark.slow
def test_class_over_tls(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = tmp_path / "lab.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with running_lab("--class", "--state", str(tmp_path / "s"), "--tls-cert", str(certificate)) as room:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        room.tls = context
        ann = join(room)
        assert room.address.startswith("https://")
        _, fields, _ = ann.get("/", {"Cookie": ann.cookie})
        assert "wss://" in fields["content-security-policy"]
        _, fields, _ = room.get(room.address.removeprefix(f"https://{room.host}"))
        assert "Secure" in fields["set-cookie"]
        with ann.connect() as websocket:
            assert output_of(run(websocket, SOLUTION), 1) == "TCP SENDS A STREAM\n"


def bothends(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bothends", "lab", "--no-browser", *arguments],
        capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--host", "0.0.0.0"), "--host needs --class"),
        (("--tls-cert", __file__), "--tls-cert needs --class"),
        (("--class", "--tls-key", __file__), "--tls-key needs --tls-cert"),
    ],
)
def test_options_of_a_class_need_it(arguments: tuple[str, ...], reason: str) -> None:
    done = bothends(*arguments)
    assert done.returncode == 2
    assert reason in done.stderr


@pytest.mark.slow
def test_other_machines_reach_it_only_if_that_is_said(tmp_path: Path) -> None:
    for options, reach in (((), ["127.0.0.1"]), (("--host", "*"), ["0.0.0.0", "::"])):
        with running_lab("--class", "--state", str(tmp_path / str(len(options))), *options) as room:
            port = int(room.host.rpartition(":")[2])
            text = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
            found = [
                line.split()[1] for line in text.splitlines() if f":{port:04X} 00" in line and " 0A " in line
            ]
            assert found
            assert all(("0100007F" in each) == (reach == ["127.0.0.1"]) for each in found)
            assert ("other machines can reach this lab on every address" in room.notes()) == bool(options)
            assert ("--tls-cert" in room.notes()) == bool(options)
            with socket.create_connection(("127.0.0.1", port)):
                pass


# Many at a time ----------------------------------------------------------------------------------------


async def _attend(
    student: Lab, programs: list[dict[str, str]], begin: asyncio.Event, times: list[float]
) -> None:
    """Run programs, and add the seconds until the first rows of the timeline."""
    fields = {"Origin": f"http://{student.host}", "Cookie": student.cookie}
    async with connect(
        f"ws://{student.host}/socket",
        additional_headers=fields,
        proxy=None,
        max_size=8 << 20,
        open_timeout=TIMEOUT,
    ) as websocket:
        await begin.wait()
        started = time.monotonic()
        await websocket.send(json.dumps({"type": "start", "programs": programs, "time_limit": 10}))
        has_rows = False
        async for message in websocket:
            reply = json.loads(message)
            assert reply["type"] != "failed", reply
            if reply["type"] == "rows" and not has_rows:
                has_rows = True
                times.append(time.monotonic() - started)
            if reply["type"] == "ended":
                return


async def _class_times(room: Lab, count: int, bombs: int) -> list[float]:
    begin = asyncio.Event()
    times: list[float] = []
    own = [await asyncio.to_thread(join, room) for _ in range(count)]
    hostile = [await asyncio.to_thread(join, room) for _ in range(bombs)]
    tasks = [asyncio.create_task(_attend(each, SOLUTION, begin, times)) for each in own]

    async def keep_bombing(each: Lab) -> None:
        while True:
            await _attend(each, BOMB, begin, [])

    others = [asyncio.create_task(keep_bombing(each)) for each in hostile]
    begin.set()
    await asyncio.gather(*tasks)
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return sorted(times)


@pytest.mark.slow
def test_thirty_students_run_at_once_and_a_fork_bomb_does_not_stop_them(tmp_path: Path) -> None:
    """Each has its timeline within ten seconds, on two processors of which each is free for this.

    On a machine with other work it takes longer by the number of other processes that want to run.
    """
    processors = min(2, len(os.sched_getaffinity(0)))
    busy = max(1.0, os.getloadavg()[0] / processors)
    with running_lab("--class", "--state", str(tmp_path)) as room:
        quiet = asyncio.run(_class_times(room, STUDENTS, 0))
        disturbed = asyncio.run(_class_times(room, STUDENTS, 1))
    assert len(quiet) == len(disturbed) == STUDENTS
    assert quiet[-1] < 10.0 * (1.0 + busy)
    assert disturbed[-1] < 2.0 * quiet[-1] + 2.0 * busy
