"""A batch for a whole class: every language, hostile programs, a stopped and resumed batch, a cluster.

`BOTHENDS_SUBMISSIONS=100` judges a hundred; a quarter of that is what `make slow` has time for.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bothends.check.batch.grading import BatchSettings, judge_all
from bothends.check.case import Verdict
from bothends.starters.writing import make_starter
from tests.check.helpers import BOTHENDS_COMMAND, failed_cases, format_failures
from tests.check.test_batch import write_file
from tests.check.test_sandbox import HOSTILE, sandbox_unavailable_reason, wait_leftover_processes

SUBMISSION_COUNT = int(os.environ.get("BOTHENDS_SUBMISSIONS", "25"))
NODE = """
const server = require('dgram').createSocket('udp4');
server.on('message', (message, peer) => {
  for (let i = 0; i < message.length; i++)
    if (message[i] >= 97 && message[i] <= 122) message[i] -= 32;
  server.send(message, peer.port, peer.address);
});
server.on('error', () => {});
server.bind(Number(process.argv[2]), '127.0.0.1');
"""
RUST = """
use std::{env, net::UdpSocket};

fn main() {
    let port = env::args().nth(1).expect("a port");
    let server = UdpSocket::bind(format!("127.0.0.1:{port}")).expect("bind");
    let mut room = [0u8; 65535];
    loop {
        if let Ok((size, peer)) = server.recv_from(&mut room) {
            room[..size].make_ascii_uppercase();
            let _ = server.send_to(&room[..size], peer);
        }
    }
}
"""
GO = """
package main

import ("net"; "os")

func main() {
	server, err := net.ListenPacket("udp", "127.0.0.1:"+os.Args[1])
	if err != nil { panic(err) }
	room := make([]byte, 65535)
	for {
		if size, peer, err := server.ReadFrom(room); err == nil {
			for i, each := range room[:size] { // bytes.ToUpper() would replace invalid UTF-8 by U+FFFD
				if 'a' <= each && each <= 'z' { room[i] -= 32 }
			}
			server.WriteTo(room[:size], peer)
		}
	}
}
"""
OTHER_LANGUAGES = {  # language: file name, program, tool
    "Node.js": ("server.js", NODE, "node"),
    "Rust": ("server.rs", RUST, "rustc"),
    "Go": ("server.go", GO, "go"),
    "C++": ("server.cpp", make_starter("server", "c", "udp").text, "c++"),
}
STARTERS = [
    (language, style)
    for language, tool in (("python", "python3"), ("c", "cc"), ("java", "javac"))
    for style in ("robust", "minimal")
    if shutil.which(tool)
]
MINIMAL_STARTER_FAILURES = {  # see docs/how-to/from-the-slide.md
    "python": {"udp-largest", "udp-source", "udp-malformed", "udp-binary"},
    "c": {"udp-largest", "udp-source"},
    "java": {"udp-largest", "udp-source", "udp-binary"},
}
UDP_SETTINGS = BatchSettings("server", "upper-udp")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60 + 30 * SUBMISSION_COUNT),
    pytest.mark.skipif(
        bool(sandbox_unavailable_reason()), reason=f"no sandbox here: {sandbox_unavailable_reason()}"
    ),
]


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_batch_builds_and_judges_other_language(language: str, tmp_path: Path) -> None:
    file, text, tool = OTHER_LANGUAGES[language]
    if not shutil.which(tool):
        pytest.skip(f"{tool} isn't installed")
    [found] = judge_all([write_file(tmp_path / "one", file, text)], UDP_SETTINGS, tmp_path / "out", workers=1)
    assert found.language == language
    assert not failed_cases(found.result), format_failures(found.result)


def write_submissions(folder: Path, count: int) -> dict[str, set[str]]:
    """Write `count` submissions: correct, faulty and hostile ones. Returns: the cases that fail, by name."""
    expected: dict[str, set[str]] = {}
    for number in range(count):
        index, remainder = divmod(number, 5)
        if remainder == 4:
            kind, text = list(HOSTILE.items())[index % len(HOSTILE)]
            name = f"{number:03} {kind}"
            write_file(folder / name, "server.py", text)
            expected[name] = {"udp-one-message"}
        else:
            language, style = STARTERS[number % len(STARTERS)]
            made = make_starter("server", language, "udp", style=style)
            name = f"{number:03} {style} {language}"
            write_file(folder / name, made.file, made.text)
            expected[name] = MINIMAL_STARTER_FAILURES[language] if style == "minimal" else set()
    return expected


def batch_command(folder: Path, out: Path) -> list[str]:
    folders = sorted(str(each) for each in folder.iterdir())
    return [*BOTHENDS_COMMAND, "check", "batch", "--contract", "upper-udp", "--out", str(out), *folders]


def test_batch_with_hostile_programs_judges_each(tmp_path: Path) -> None:
    expected = write_submissions(tmp_path / "class", SUBMISSION_COUNT)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    out = tmp_path / "results"
    done = subprocess.run(
        batch_command(tmp_path / "class", out), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        row["name"]: {case for case, verdict in row.items() if verdict == Verdict.FAIL.value} for row in rows
    }
    assert found == expected
    page = (out / "results.html").read_text(encoding="utf-8")
    assert all(name in page for name in expected)
    assert not wait_leftover_processes(scratch)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_batch_stopped_by_signal_resumes(number: signal.Signals, status: int, tmp_path: Path) -> None:
    write_submissions(tmp_path / "class", 8)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    out = tmp_path / "results"
    words = batch_command(tmp_path / "class", out)
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # until the first result
        process.send_signal(number)
        assert process.wait(60) == status
    assert not wait_leftover_processes(scratch)
    assert not (out / "results.csv").exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert 1 <= len(before) < 8
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count(" points; ") == 8 - len(before)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in out.iterdir()}.items()


@pytest.mark.filterwarnings("ignore")  # of dask, about its event loops and sockets
def test_cluster_results_equal_local_results(tmp_path: Path) -> None:
    distributed: Any = pytest.importorskip("distributed")
    expected = write_submissions(tmp_path / "class", 5)
    folders = sorted((tmp_path / "class").iterdir())
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        warnings: list[str] = []
        address = cluster.scheduler_address
        found = judge_all(
            folders, UDP_SETTINGS, tmp_path / "out", workers=1, cluster=address, remark=warnings.append
        )
    assert len(warnings) == 1
    assert {one.name: failed_cases(one.result) for one in found} == expected
    assert {path.stem for path in (tmp_path / "out").iterdir()} == set(expected)
    assert json.loads((tmp_path / "out" / f"{folders[0].name}.json").read_text())["language"] == "Python"
