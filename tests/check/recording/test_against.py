"""`bothends check server --against`: a program is compared with a reference server that runs beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import Contract, parse
from bothends.check.results import SuiteResult
from bothends.check.runner import SuiteRun
from bothends.check.subjects import own_network
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.suites.registry import cases, suite_for
from tests.check.helpers import BOTHENDS_COMMAND, failed_cases, format_failures
from tests.check.recording.test_record import SERVER
from tests.check.scenes.test_servers import outcome

SCENE = r"""
transport = "tcp"
framing = "lines"
[[scene]]
name = "words"
repeat = "after"
talk = '''
ann> (connects)
ann< ready at {=\d+}
ann> LOGIN
ann< TOKEN {token=\w+}
ann> {token} one
ann< OK {=\w+} in {=.*}
ann> another word
ann< (as the reference)
ann< (as the reference)
ben> (connects)
ben< ready at {=\d+}
ben< (as the reference)
'''
"""
REPLY = 'transport = "tcp"\nframing = "lines"\n[answer]\nreference = true\n'
SERVE = [*BOTHENDS_COMMAND, "serve"]


def contract(text: str) -> Contract:
    return parse(text, "own.toml", "own", Path())


def judge_against(agreed: Contract, command: list[str], reference: list[str], *only: str) -> SuiteResult:
    import asyncio

    subject = ServerUnderTest(agreed, command)
    subject.reference = ServerUnderTest(agreed, reference)
    suite = suite_for(agreed, "server")
    return asyncio.run(SuiteRun(subject, cases(suite, agreed), suite, only=only, timeout=1.0).run())


def edited(folder: Path, old: str, new: str) -> list[str]:
    text = Path(SERVER[2]).read_text()
    assert old in text
    (folder / "edited.py").write_text(text.replace(old, new))
    return [*SERVER[:2], str(folder / "edited.py"), "{port}"]


def test_right_server_passes_each_with_its_own_values() -> None:
    result = judge_against(contract(SCENE), SERVER, SERVER, "scene-words", "scene-words-gone")
    assert not failed_cases(result), format_failures(result)
    assert outcome(result, "scene-words").verdict is Verdict.PASS
    assert outcome(result, "scene-words-gone").verdict is Verdict.PASS


@pytest.mark.spread("old", "new", "expected", "happened", one_in=8)
@pytest.mark.parametrize(
    ("old", "new", "expected", "happened"),
    [
        ('self.say("NO")', 'self.say("no")', 'line 8: ann< (as the reference): "NO"', 'ann received "no"'),
        ("                return\n", "", "line 9: ann< (as the reference): (closes)", "still open"),
        (
            'self.say(f"ready at {time.time_ns()}")',
            'self.say(f"ready at {time.time_ns()}\\nand more")',
            "line 4: ann< TOKEN",
            'ann received "and more"',
        ),
    ],
)
def test_difference_fails_at_the_line(
    old: str, new: str, expected: str, happened: str, tmp_path: Path
) -> None:
    result = judge_against(contract(SCENE), edited(tmp_path, old, new), SERVER, "scene-words")
    found = outcome(result, "scene-words")
    assert found.verdict is Verdict.FAIL, format_failures(result)
    assert found.expected.startswith(expected)
    assert happened in found.happened


def test_wrong_reference_is_no_failure_of_the_program(tmp_path: Path) -> None:
    reference = edited(tmp_path, "TOKEN", "TICKET")
    found = outcome(judge_against(contract(SCENE), SERVER, reference, "scene-words"), "scene-words")
    assert found.verdict is Verdict.SKIP
    assert "the reference server: expected line 4" in found.detail


@pytest.mark.slow
def test_replies_of_a_reference_server() -> None:
    upper = [*SERVE, "upper", "tcp://127.0.0.1:{port}"]
    result = judge_against(contract(REPLY), upper, upper, "tcp-several-messages", "tcp-split-write")
    assert not failed_cases(result), format_failures(result)
    assert result.points == 3
    echo = [*SERVE, "echo", "tcp://127.0.0.1:{port}"]
    result = judge_against(contract(REPLY), echo, upper, "tcp-one-message")
    assert result.outcomes[0].expected == '"MESSAGE 0 OF THE CHECK\\n" (23 bytes)'


def test_replies_to_datagrams() -> None:
    text = 'transport = "udp"\n[answer]\nreference = true\n'
    upper = [*SERVE, "upper", "udp://127.0.0.1:{port}"]
    result = judge_against(contract(text), upper, upper, "udp-two-clients", "udp-lengths")
    assert not failed_cases(result), format_failures(result)
    assert result.points >= 3


@pytest.mark.spread("text", "words", "message", one_in=4)
@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (SCENE, ["server", "--contract", "own.toml", "--", "true"], "give its command with --against"),
        (REPLY, ["server", "--contract", "own.toml", "--", "true"], "give its command with --against"),
        (REPLY, ["batch", "--no-sandbox", "--contract", "own.toml", "."], "give its command with --against"),
        (
            "loss = 0.3\n" + REPLY,
            ["server", "--contract", "own.toml", "--", "true"],
            "a stream loses nothing",
        ),
        (REPLY, ["client", "--contract", "own.toml", "--", "true", "{port}"], "is for servers only"),
        (REPLY, ["server", "--contract", "own.toml", "--against", "'", "--", "true"], "is not a command"),
        (
            REPLY,
            ["server", "--contract", "own.toml", "--against", "true {port}", "--", *SERVER],
            "the reference server 'true {port}' exited before listening",
        ),
    ],
)
def test_errors_are_one_line(text: str, words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(text)
    done = subprocess.run(
        [sys.executable, *BOTHENDS_COMMAND[1:], "check", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("\n") == 1


BATCH_SERVER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        conn, _ = listener.accept()
        with conn, conn.makefile("rw") as stream:
            for line in stream:
                print(REPLY, file=stream, flush=True)
"""
RELAY = """
import glob, socket, sys
found = [int(line.split()[1].rpartition(":")[2], 16) for path in glob.glob("/proc/net/tcp")
         for line in open(path).readlines()[1:] if line.split()[3] == "0A"]
others = [port for port in found if port != int(sys.argv[1])]
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
others += [port for port in range(20000, 33000) if socket.socket().connect_ex(("127.0.0.1", port)) == 0
           and port != int(sys.argv[1])]
while True:
    conn, _ = listener.accept()
    with conn, conn.makefile("rw") as stream, socket.create_connection(("127.0.0.1", others[0])) as right:
        for line in stream:
            right.sendall(line.encode())
            stream.write(right.makefile().readline())
            stream.flush()
"""


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [True, False])
def test_batch_compares_with_a_reference_that_submissions_cannot_reach(sandbox: bool, tmp_path: Path) -> None:
    if sandbox and not own_network.is_available():
        pytest.skip("the system does not allow network namespaces")
    reply = "f'{len(line)} {line.upper().strip()}'"
    (tmp_path / "right.py").write_text(BATCH_SERVER.replace("REPLY", reply))
    (tmp_path / "own.toml").write_text(REPLY)
    for name, text in (("ada", reply), ("bob", "line.strip()")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "server.py").write_text(BATCH_SERVER.replace("REPLY", text))
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / "server.py").write_text(RELAY)
    words = [
        "check",
        "batch",
        "ada",
        "bob",
        "eve",
        "--contract",
        "own.toml",
        "--only",
        "tcp-several-messages",
    ]
    against = ["--against", "python3 right.py {port}", *([] if sandbox else ["--no-sandbox"])]
    done = subprocess.run(
        [*BOTHENDS_COMMAND, *words, *against], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    rows = {line.split()[0]: line.split()[2] for line in done.stdout.splitlines()[1:4]}
    assert (done.returncode, rows["ada"], rows["bob"]) == (1, "2", "0"), done
    if sandbox:
        assert rows["eve"] == "0", done
