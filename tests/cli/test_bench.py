"""`bothends bench`: its output, its files and its exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import astuple

import bothends
from bothends.bench.results import VERSION, decode
from bothends.cli.bench.command import bench
from bothends.cli.main import run
from bothends.server import Server

DURATIONS = ("0.1", "1", "5")  # seconds: the machine may be busy


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with bothends.serve("upper", "tcp://127.0.0.1:0", "udp://127.0.0.1:0") as server:
        yield server


def measure(server: Server, *options: str, scheme: str = "tcp") -> Result:
    endpoint = next(str(each) for each in server.endpoints if each.scheme == scheme)
    words = [endpoint, "--warmup", "0.02", "--timeout", "10", *options]
    for seconds in DURATIONS:
        done = CliRunner().invoke(bench, [*words, "--duration", seconds])
        if done.exit_code == 0 or not was_only_too_short(done):
            break
    return done


def was_only_too_short(done: Result) -> bool:
    """Return whether a run failed without a fault: on a busy machine nothing completes in a short round."""
    if done.stdout.startswith("{"):
        (entry,) = decode(done.stdout_bytes, "here").entries
        return not any(any(astuple(each.faults)) for each in entry.rounds)
    return "faults: none" in done.output


def test_text_report(server: Server) -> None:
    done = measure(server, "--connections", "10")
    assert done.exit_code == 0, done.output
    assert "10 connections, depth 1, 64 bytes, closed loop" in done.stdout
    assert "requests/s" in done.stdout
    assert "each answer byte for byte; faults: none" in done.stdout


def test_json_round_trip(server: Server) -> None:
    done = measure(server, "--rate", "500", "--rounds", "2", "--json", scheme="udp")
    assert done.exit_code == 0, done.output
    document = decode(done.stdout_bytes, "here")
    (entry,) = document.entries
    assert document.version == VERSION == json.loads(done.stdout)["version"]
    assert len(entry.rounds) == 2
    for each in entry.rounds:
        assert each.uncorrected.n + each.unsent == 500 * entry.load.duration_s
        assert each.corrected is not None
        assert each.corrected.mean_us >= each.uncorrected.mean_us
        assert each.own.lateness is not None
    assert "kernel" in document.machine


def test_files_and_tables(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "log.hgrm"
    done = measure(server, "--hgrm", str(log), "--csv", "--rate", "300")
    heads, *rows = done.stdout.splitlines()
    assert heads.startswith("name,target")
    assert len(rows) == 2  # uncorrected and corrected
    assert log.read_text().count("\nTag=") == 2
    assert measure(server, "--markdown").stdout.startswith("| tcp://127.0.0.1:")


def test_script_workload(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("> hello\n< HELLO\n> you\n< YOU\n")
    assert measure(server, "--script", str(script), "--connections", "3").exit_code == 0
    script.write_text("> hello\n< hello\n")
    done = measure(server, "--script", str(script))
    assert done.exit_code == 1
    assert "wrong" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["tcp://127.0.0.1:1"], 1, "ECONNREFUSED"),
        (["127.0.0.1"], 2, "no port"),
        (["stdio:"], 2, "bench needs an address to connect to"),
        (["tcp://127.0.0.1:1", "--insecure"], 2, "does not speak TLS"),
        (["tcp://127.0.0.1:1", "--reconnect", "--depth", "2"], 2, "leave out --depth"),
        (["tcp://127.0.0.1:1", "--script", "no-such-file"], 1, "ENOENT"),
    ],
)
def test_usage_errors(
    words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", *words]) == status
    assert message in capsys.readouterr().err


def test_server_without_echo_needs_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    with bothends.serve("hello", "tcp://127.0.0.1:0") as server:
        assert run(["bench", str(server.endpoints[0])]) == 2
    assert "use --script FILE" in capsys.readouterr().err
