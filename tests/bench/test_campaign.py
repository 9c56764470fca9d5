"""Campaigns: start targets, measure them under several loads, and terminate them."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bothends.bench import targets
from bothends.bench.campaign import LOAD_PROFILES, CampaignSettings, LoadProfile, run_campaign
from bothends.bench.results import decode
from bothends.bench.targets import REFERENCE_SERVERS, BenchTarget, parse_target, reference_servers, run_target
from bothends.cli.bench.command import bench
from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed, Unavailable, UsageError
from bothends.osutil.process_info import descendants
from bothends.socket_table import read_table
from tests.interop.running import TIMEOUT, Running
from tests.tools import needs_tool

SHORT = CampaignSettings(rounds=2, duration=0.1, warmup=0.02, timeout=10.0)
LONGER = [replace(SHORT, duration=seconds) for seconds in (0.05, 0.5, 5.0)]  # the machine may be busy
BROKEN = "import sys; sys.exit('failed \\x1b here')"


def reference_server(name: str) -> BenchTarget:
    return next(each for each in reference_servers() if each.name == name)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_reference_servers_match_files() -> None:
    named = {each.source.name for each in reference_servers() if each.source is not None}
    named |= {
        Path(words[1]).name
        for each in reference_servers()
        for _, words in each.commands
        if each.source is None
    }
    assert named == {path.name for path in REFERENCE_SERVERS.iterdir() if path.suffix in (".c", ".py")} - {
        "__init__.py"
    }


@pytest.mark.spread("name", one_in=3)
@pytest.mark.parametrize("name", [each.name for each in reference_servers()])
def test_reference_server_answers_upper(name: str) -> None:
    target = reference_server(name)
    if target.unavailable_reason:
        pytest.skip(target.unavailable_reason)
    profiles = [
        profile
        for profile in (LoadProfile("a", connections=5, depth=3), LoadProfile("b", "udp", depth=5))
        if _supports(target, profile)
    ]
    for settings in LONGER:
        entries = run_campaign([target], profiles, settings, lambda *_: None)
        if all(each.completed for entry in entries for each in entry.rounds):
            break
    for entry in entries:
        assert [each.faults.total for each in entry.rounds] == [0, 0]
        assert not entry.failed
        assert entry.median(lambda each: each.server.cpu_us_per_request if each.server else None) is not None


def _supports(target: BenchTarget, profile: LoadProfile) -> bool:
    return not target.unsupported_reason(profile.transport, profile.connections)


def test_campaign_measures_every_target_each_round() -> None:
    calls: list[tuple[int, int, str]] = []
    measured = [reference_server("asyncio-protocol"), reference_server("socketserver")]
    profiles = [LoadProfile("two", connections=2), LoadProfile("held", connections=20, idle=True)]
    entries = run_campaign(measured, profiles, SHORT, lambda *arguments: calls.append(arguments))
    assert [done for done, _, _ in calls] == list(range(8))
    assert {total for _, total, _ in calls} == {8}
    assert all(len(entry.rounds) == 2 for entry in entries)
    idle = [entry for entry in entries if entry.load.is_idle]
    assert len(idle) == 2
    for entry in idle:
        assert all(each.server and each.server.memory_kib_per_connection is not None for each in entry.rounds)


def test_unsupported_target_is_skipped_with_reason() -> None:
    one = BenchTarget("one", (("tcp", ("x",)),), max_connections=1)
    absent = BenchTarget("absent", (("tcp", ("x",)),), unavailable_reason="not installed")
    entries = run_campaign(
        [one, absent], [LOAD_PROFILES["fifty"], LOAD_PROFILES["udp"]], SHORT, lambda *_: None
    )
    assert [entry.skipped for entry in entries] == [
        "limited to 1 concurrent connection",
        "not installed",
        "no UDP support",
        "not installed",
    ]


def test_run_target_kills_process_and_children_on_exit(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(
        "import os, signal, socket, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "child = os.fork()\n"
        "print(f'{child} tcp://127.0.0.1:{s.getsockname()[1]}' if child else '', flush=True)\n"
        "time.sleep(60)\n"
    )
    target = BenchTarget("stubborn", (("tcp", (sys.executable, str(program))),))
    with run_target(target, "tcp", tmp_path, None) as running:
        assert running.pid is not None
        children = [
            int(each) for each in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        ]
        assert children
    deadline = time.monotonic() + 10
    while any(map(is_alive, [running.pid, *children])):
        assert time.monotonic() < deadline


def test_run_target_substitutes_port(tmp_path: Path) -> None:
    target = parse_target(f"mine={sys.executable} -m http.server --bind 127.0.0.1 {{port}}")
    with run_target(target, "tcp", tmp_path, None) as running:
        assert running.endpoint.scheme == "tcp"
        assert running.endpoint.port


def test_invalid_targets_raise(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="NAME=COMMAND"):
        parse_target("server")
    assert parse_target("there=udp://127.0.0.1:9").address == Endpoint.parse("udp://127.0.0.1:9")
    with (
        pytest.raises(SystemCallFailed, match="ENOENT"),
        run_target(parse_target("x=no-such-program"), "tcp", tmp_path, None),
    ):
        pass
    broken = BenchTarget("broken", (("tcp", (sys.executable, "-c", BROKEN)),))
    with (
        pytest.raises(Unavailable, match=r"output: failed \\x1b here"),
        run_target(broken, "tcp", tmp_path, None),
    ):
        pass
    exits = parse_target(f"exits={sys.executable} -c raise(SystemExit(3)) {{port}}")
    with pytest.raises(Unavailable, match="exited with status 3"), run_target(exits, "tcp", tmp_path, None):
        pass


def test_unknown_baseline_is_rejected_before_measuring() -> None:
    result = CliRunner().invoke(bench, ["engines", "epoll", "--no-rivals", "--baseline", "nobody"])
    assert isinstance(result.exception, UsageError)
    assert "no target 'nobody'" in str(result.exception)


@needs_tool("cc")
def test_compile_error_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return }\n")
    with pytest.raises(Unavailable, match=r"cannot compile wrong\.c: .*error"):
        targets.compile_source(source, tmp_path)


def test_bench_engines_command(tmp_path: Path) -> None:
    page, file = tmp_path / "page.html", tmp_path / "result.json"
    words = ["engines", "epoll", "--no-rivals", "--load", "one", "--load", "udp", "--rounds", "2"]
    words += ["--warmup", "0.02", "--baseline", "epoll", "--html", str(page), "--json"]
    for seconds in ("0.1", "1", "5"):  # the machine may be busy
        result = CliRunner().invoke(bench, [*words, "--duration", seconds])
        if result.exit_code == 0:
            break
    assert result.exit_code == 0, result.output
    document = decode(result.stdout_bytes, "stdout")
    assert document.baseline == "epoll"
    assert [entry.load.transport for entry in document.entries] == ["tcp", "udp"]
    assert page.read_text().count("<svg") == 4
    file.write_bytes(result.stdout_bytes)
    result = CliRunner().invoke(bench, ["compare", str(file), str(file)])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("no difference") >= 2
    assert "worse" not in result.stdout


def test_engines_are_measured_as_they_are_run() -> None:
    words = ["engines", "epoll", "--as-run", "--no-rivals", "--load", "reconnect", "--rounds", "1", "--json"]
    result = CliRunner().invoke(bench, [*words, "--duration", "0.1", "--warmup", "0"])
    assert result.exit_code == 0, result.output
    found = decode(result.stdout_bytes, "here")
    assert [each.name for each in found.entries] == ["epoll", "epoll, metrics", "epoll, log"]
    assert all(each.rounds[0].completed for each in found.entries)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_signal_terminates_all_targets(number: signal.Signals, status: int) -> None:
    words = ["bench", "engines", "epoll", "--no-rivals", "--load", "one", "--duration", "60"]
    with Running([sys.executable, "-m", "bothends", *words]) as measuring:
        deadline = time.monotonic() + TIMEOUT
        while not has_established_connection(started := list(descendants(measuring.process.pid))):
            assert time.monotonic() < deadline
        measuring.process.send_signal(number)
        assert measuring.wait() == status
    while any(map(is_alive, started)):
        assert time.monotonic() < deadline


def has_established_connection(pids: list[int]) -> bool:
    """Whether one of the processes is serving: a process that is still starting may exit by itself."""
    return any(row.state == "ESTABLISHED" for row in read_table(pids).sockets) if pids else False
