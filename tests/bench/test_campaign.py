"""Targets that are run for it, measured beside each other, and gone afterwards."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bothends.bench import host_info, targets
from bothends.bench.campaign import KINDS, Kind, Settings, compare
from bothends.bench.results import decode
from bothends.bench.targets import RIVALS, Target, parse, rivals, running
from bothends.cli.bench.command import bench
from bothends.endpoints import Endpoint
from bothends.errors import CallerError, SystemRefused, Unavailable
from bothends.socket_table import read_table
from tests.interop.running import PATIENCE, Running
from tests.tools import needs_tool

SHORT = Settings(rounds=2, duration=0.1, warmup=0.02, timeout=10.0)
PATIENT = [replace(SHORT, duration=seconds) for seconds in (0.05, 0.5, 5.0)]  # the machine may be busy
BROKEN = "import sys; sys.exit('no \\x1b luck')"


def rival(name: str) -> Target:
    return next(each for each in rivals() if each.name == name)


def is_alive(pid: int) -> bool:
    """Runs, or could: a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_every_rival_has_a_file_and_every_file_a_rival() -> None:
    named = {each.source.name for each in rivals() if each.source is not None}
    named |= {Path(words[1]).name for each in rivals() for _, words in each.commands if each.source is None}
    assert named == {path.name for path in RIVALS.iterdir() if path.suffix in (".c", ".py")} - {"__init__.py"}


@pytest.mark.parametrize("name", [each.name for each in rivals()])
def test_every_rival_answers_in_capitals(name: str) -> None:
    target = rival(name)
    if target.missing:
        pytest.skip(target.missing)
    kinds = [
        kind for kind in (Kind("a", connections=5, depth=3), Kind("b", "udp", depth=5)) if _has(target, kind)
    ]
    for settings in PATIENT:
        entries = compare([target], kinds, settings, lambda *_: None)
        if all(each.completed for entry in entries for each in entry.rounds):
            break
    for entry in entries:
        assert [each.faults.total for each in entry.rounds] == [0, 0]
        assert not entry.failed
        assert entry.median(lambda each: each.server.cpu_us_per_request if each.server else None) is not None


def _has(target: Target, kind: Kind) -> bool:
    return not target.can(kind.transport, kind.connections)


def test_the_order_is_drawn_and_everything_is_measured_each_round() -> None:
    told: list[tuple[int, int, str]] = []
    chosen = [rival("asyncio-protocol"), rival("socketserver")]
    kinds = [Kind("two", connections=2), Kind("held", connections=20, idle=True)]
    entries = compare(chosen, kinds, SHORT, lambda *what: told.append(what))
    assert [done for done, _, _ in told] == list(range(8))
    assert {total for _, total, _ in told} == {8}
    assert all(len(entry.rounds) == 2 for entry in entries)
    held = [entry for entry in entries if entry.load.is_idle]
    assert len(held) == 2
    for entry in held:
        assert all(each.server and each.server.memory_kib_per_connection is not None for each in entry.rounds)


def test_what_cannot_is_skipped_with_its_reason() -> None:
    one = Target("one", (("tcp", ("x",)),), most=1)
    absent = Target("absent", (("tcp", ("x",)),), missing="it isn't here")
    entries = compare([one, absent], [KINDS["fifty"], KINDS["udp"]], SHORT, lambda *_: None)
    assert [entry.skipped for entry in entries] == [
        "it serves 1 connection at once",
        "it isn't here",
        "it has no udp",
        "it isn't here",
    ]


def test_a_target_ends_with_its_context_and_so_do_its_children(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(
        "import os, signal, socket, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "child = os.fork()\n"
        "print(f'{child} tcp://127.0.0.1:{s.getsockname()[1]}' if child else '', flush=True)\n"
        "time.sleep(60)\n"
    )
    target = Target("stubborn", (("tcp", (sys.executable, str(program))),))
    with running(target, "tcp", tmp_path, None) as place:
        assert place.pid is not None
        children = [
            int(each) for each in Path(f"/proc/{place.pid}/task/{place.pid}/children").read_text().split()
        ]
        assert children
    deadline = time.monotonic() + 10
    while any(map(is_alive, [place.pid, *children])):
        assert time.monotonic() < deadline


def test_a_target_is_told_its_port(tmp_path: Path) -> None:
    target = parse(f"mine={sys.executable} -m http.server --bind 127.0.0.1 {{port}}")
    with running(target, "tcp", tmp_path, None) as place:
        assert place.endpoint.scheme == "tcp"
        assert place.endpoint.port


def test_targets_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="name=command"):
        parse("server")
    assert parse("there=udp://127.0.0.1:9").address == Endpoint.parse("udp://127.0.0.1:9")
    with (
        pytest.raises(SystemRefused, match="ENOENT"),
        running(parse("x=no-such-program"), "tcp", tmp_path, None),
    ):
        pass
    broken = Target("broken", (("tcp", (sys.executable, "-c", BROKEN)),))
    with pytest.raises(Unavailable, match=r"said: no \\x1b luck"), running(broken, "tcp", tmp_path, None):
        pass
    ends = parse(f"ends={sys.executable} -c raise(SystemExit(3)) {{port}}")
    with pytest.raises(Unavailable, match="ended with status 3"), running(ends, "tcp", tmp_path, None):
        pass


def test_a_baseline_that_is_no_target_is_refused_before_anything_is_measured() -> None:
    done = CliRunner().invoke(bench, ["engines", "epoll", "--no-rivals", "--baseline", "nobody"])
    assert isinstance(done.exception, CallerError)
    assert "no target 'nobody'" in str(done.exception)


@needs_tool("cc")
def test_what_the_compiler_says_is_told(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return }\n")
    with pytest.raises(Unavailable, match=r"cannot compile wrong\.c: .*error"):
        targets.compiled(source, tmp_path)


def test_the_verb(tmp_path: Path) -> None:
    page, result = tmp_path / "page.html", tmp_path / "result.json"
    words = ["engines", "epoll", "--no-rivals", "--load", "one", "--load", "udp", "--rounds", "2"]
    words += ["--warmup", "0.02", "--baseline", "epoll", "--html", str(page), "--json"]
    for seconds in ("0.1", "1", "5"):  # the machine may be busy
        done = CliRunner().invoke(bench, [*words, "--duration", seconds])
        if done.exit_code == 0:
            break
    assert done.exit_code == 0, done.output
    document = decode(done.stdout_bytes, "here")
    assert document.baseline == "epoll"
    assert [entry.load.transport for entry in document.entries] == ["tcp", "udp"]
    assert page.read_text().count("<svg") == 4
    result.write_bytes(done.stdout_bytes)
    done = CliRunner().invoke(bench, ["compare", str(result), str(result)])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("no difference") >= 2
    assert "worse" not in done.stdout


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_ends_all_that_was_started(number: signal.Signals, status: int) -> None:
    words = ["bench", "engines", "epoll", "--no-rivals", "--load", "one", "--duration", "60"]
    with Running([sys.executable, "-m", "bothends", *words]) as measuring:
        deadline = time.monotonic() + PATIENCE
        while not is_asked(started := descendants(measuring.process.pid)):
            assert time.monotonic() < deadline
        measuring.process.send_signal(number)
        assert measuring.end() == status
    while any(map(is_alive, started)):
        assert time.monotonic() < deadline


def is_asked(pids: list[int]) -> bool:
    """Whether one of them is a server that is being measured: one that still begins may end of itself."""
    return any(row.state == "ESTABLISHED" for row in read_table(pids).sockets) if pids else False


def descendants(pid: int) -> list[int]:
    return [each for each in host_info.family(pid) if each != pid]
