"""`bothends check record`: what it writes passes `check` on the same server, and fails a wrong one."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.check.contract import read
from tests.check.helpers import BOTHENDS_COMMAND, failed_cases, format_failures, judge
from tests.tools import needs_tool

PROGRAMS = Path(__file__).parent / "programs"
SERVER = [sys.executable, "-u", str(PROGRAMS / "tokens.py"), "{port}"]
CLIENT = f"{sys.executable} {PROGRAMS / 'tokens_client.py'} {{port}}"
RECORD = [*BOTHENDS_COMMAND, "check", "record"]
UPPER_UDP = [*BOTHENDS_COMMAND, "serve", "upper", "udp://127.0.0.1:{port}"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RECORD, *words], capture_output=True, text=True, timeout=50, check=False)


def test_recorded_contract_passes_and_finds_mistakes(tmp_path: Path) -> None:
    output = tmp_path / "tokens.toml"
    done = run(
        "--output", str(output), "--client", f"{CLIENT} one", "--client", f"{CLIENT} Two", "--", *SERVER
    )
    assert done.returncode == 0, done.stderr
    text = output.read_text()
    assert output.stat().st_mode & 0o777 == 0o600  # it may hold passwords
    assert r"ann< ready at {=\d+}" in text
    assert r"ann< TOKEN {value1=[\w-]+}" in text
    assert "ann> {value1} Two" in text
    assert r"ann< OK TWO in 0.{=\d+} ms" in text
    result = judge(SERVER, read(output))
    assert not failed_cases(result), format_failures(result)
    assert result.points == 7
    wrong = judge([*SERVER, "wrong"], read(output), "scene-recorded-2", timeout=0.5)
    assert failed_cases(wrong) == {"scene-recorded-2"}
    assert wrong.outcomes[-1].happened.startswith('ann received "OK tWO in 0.')


@pytest.mark.slow
def test_datagrams(tmp_path: Path) -> None:
    code = (
        "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(20)\n"
        "for text in (b'Ab', b'c\\n'): s.sendto(text, ('127.0.0.1', int(sys.argv[1]))); s.recv(99)"
    )
    (tmp_path / "client.py").write_text(code)
    done = run("--udp", "--client", f"{sys.executable} {tmp_path / 'client.py'} {{port}}", "--", *UPPER_UDP)
    assert (done.returncode, "ann> Ab\nann< AB\nann> c\\n\nann< C\\n\n" in done.stdout) == (0, True), done


@pytest.mark.slow
@needs_tool("curl")
def test_http(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello\n")
    server = ["-m", "http.server", "-d", str(tmp_path), "-b", "127.0.0.1", "{port}"]
    done = run("--client", "curl -s http://{host}:{port}/a.txt", "--", sys.executable, *server)
    assert (done.returncode, 'framing = "headers"' in done.stdout) == (0, True), done.stderr
    assert r"ann< HTTP/1.0 200 OK\nContent-type: text/plain\n\nhello\n" in done.stdout


@pytest.mark.slow
def test_own_clients_until_interrupt(tmp_path: Path) -> None:
    output = tmp_path / "own.toml"
    process = subprocess.Popen(
        [*RECORD, "--output", str(output), "--", *BOTHENDS_COMMAND, "serve", "upper", "tcp://127.0.0.1:{port}"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    endpoint = process.stderr.readline().partition("tcp://")[2].partition(";")[0]
    host, _, port = endpoint.partition(":")
    for text in (b"one\n", b"two\n"):  # two scenes, because no connection is open between them
        with socket.create_connection((host, int(port)), timeout=20) as conn:
            conn.sendall(text)
            assert conn.recv(100) == text.upper()
            conn.shutdown(socket.SHUT_WR)
            assert conn.recv(100) == b""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)
    assert process.returncode == 0
    assert output.read_text().count("[[scene]]") == 2


@pytest.mark.spread("words", "status", "message", one_in=3)
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--client", "true", "--", *SERVER], 2, "the client 'true' needs {port}"),
        (["--client", "true {port}", "--", *SERVER], 2, "no client has connected"),
        (["--client", "/no/such {port}", "--", *SERVER], 1, "/no/such"),
        (["--output", "/no/such/file.toml", "--", *SERVER], 1, "/no/such/file.toml"),
        (["--client", "true {port}", "--", "true"], 1, "exited before listening"),
        (["--client", "'open {port}", "--", *SERVER], 2, "No closing quotation"),
    ],
)
def test_errors_are_one_line(words: list[str], status: int, message: str) -> None:
    done = run(*words)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert done.stderr.count("\n") == 1
