"""Contracts that carry Python code: it runs only with --allow-code, and is never taken from a submission."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.check.contract import make_oracle, parse

BATCH = ("batch", "--no-sandbox")
VERBS = [("server", "--endpoint", "tcp://127.0.0.1:1"), ("client",), BATCH]
HEADER = 'transport = "udp"\n[answer]\n'
LEFT_BEHIND = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
CODE = [
    'function = "evil.py:answer"',
    'service = "evil.py"',
    'service = "evil.py:answer"',
    'service = "./evil.py:answer"',
    'service = "/{folder}/evil.py"',
    'service = "evil:answer"',
    'service = "./evil:answer"',
]
BY_SIBLING = "import helper\nimport pack.part\n"
SHOUT = "import bothends\n\n@bothends.datagram\ndef answer(message):\n    return {turned}\n"
SERVER = """import socket, sys
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    message, peer = udp.recvfrom(65536)
    udp.sendto(message[::-1], peer)
"""


def run_check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "bothends", "check", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.spread("verb", "line", one_in=3)
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("line", CODE)
def test_contract_with_code_is_refused_without_option(
    line: str, verb: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "evil.py").write_text(LEFT_BEHIND)
    (tmp_path / "evil").write_text(LEFT_BEHIND)
    (tmp_path / "one").mkdir()
    (tmp_path / "own.toml").write_text(HEADER + line.format(folder=tmp_path))
    last = ["one"] if verb is BATCH else [] if verb[0] == "server" else ["true"]
    done = run_check(tmp_path, *verb, "--contract", "own.toml", *last)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--allow-code" in done.stderr or "write file.py:name" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "results").exists()


@pytest.mark.spread("where", "answer", "code", one_in=4)
@pytest.mark.parametrize(
    ("where", "answer", "code"),
    [
        ("ref.py", 'function = "{}:answer"', "def answer(message):\n    return message[::-1]\n"),
        ("lib/ref.py", 'function = "{}:answer"', "def answer(message):\n    return message[::-1]\n"),
        ("../ref.py", 'function = "{}:answer"', "def answer(message):\n    return message[::-1]\n"),
        (
            "ref.py",
            'function = "{}:answer"',
            BY_SIBLING + "def answer(message):\n    return helper.turn(message)\n",
        ),
        (
            "lib/ref.py",
            'function = "{}:answer"',
            "import near\ndef answer(message):\n    return near.turn(message)\n",
        ),
        ("shout.py", 'service = "{}"', SHOUT.format(turned="message[::-1]")),
        ("shout.py", 'service = "{}:answer"', BY_SIBLING + SHOUT.format(turned="helper.turn(message)")),
    ],
    ids=[
        "function",
        "function in a folder",
        "function above",
        "function with modules",
        "function with modules in a folder",
        "service",
        "service with modules",
    ],
)
def test_batch_gives_right_program_its_points_under_contract_with_code(
    where: str, answer: str, code: str, tmp_path: Path
) -> None:
    course, submission = tmp_path / "course" / "one", tmp_path / "good"
    (course / where).parent.mkdir(parents=True, exist_ok=True)
    (course / "pack").mkdir()
    (course / where).with_name("near.py").write_text("def turn(message):\n    return message[::-1]\n")
    submission.mkdir()
    (course / where).write_text(code)
    (course / "helper.py").write_text("def turn(message):\n    return message[::-1]\n")
    (course / "pack" / "__init__.py").touch()
    (course / "pack" / "part.py").write_text("from . import __name__\n")
    (course / "own.toml").write_text(HEADER + answer.format(where))
    (submission / "server.py").write_text(SERVER)
    # A module of the same name in a submission must not replace the contract's.
    for name in ("ref.py", "shout.py", "helper.py"):
        (submission / name).write_text("raise SystemExit('the module of the submission')\n")
    (submission / "check.toml").write_text('run = "python3 -I server.py {port}"\n')
    done = run_check(
        tmp_path, *BATCH, "--allow-code", "--contract", str(course / "own.toml"), str(submission)
    )
    result = json.loads((tmp_path / "results" / "good.json").read_text())
    assert result["points"] == result["most"] > 1, done.stdout + done.stderr
    assert done.returncode == 0


FIRST_AND_LATER = """import helper
def answer(message):
    import later
    return message + helper.TEXT + later.TEXT
"""


def test_contracts_see_their_own_modules_only(tmp_path: Path) -> None:
    oracles = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for module in ("helper", "later"):
            (tmp_path / folder / f"{module}.py").write_text(f"TEXT = b' {module} of {folder}'")
        (tmp_path / folder / "ref.py").write_text(FIRST_AND_LATER)
        text = HEADER + 'function = "ref.py:answer"'
        contract = parse(text, "x", "x", tmp_path / folder, allow_code=True)
        oracles.append(make_oracle(contract))
    before = sys.path.copy()
    for _ in range(2):
        replies = [each.reply(b"a").exact for each in oracles]
        assert replies == [b"a helper of one later of one", b"a helper of two later of two"]
    assert sys.path == before
    assert not {"helper", "later", "ref"} & set(sys.modules)


def test_batch_reports_once_what_cannot_be_copied(tmp_path: Path) -> None:
    text = "from pathlib import Path\nWORDS = Path(__file__).with_name('words').read_text()\n"
    (tmp_path / "ref.py").write_text(text + "def answer(message):\n    return message\n")
    (tmp_path / "words").touch()
    (tmp_path / "own.toml").write_text(HEADER + 'function = "ref.py:answer"')
    (tmp_path / "one").mkdir()
    done = run_check(tmp_path, *BATCH, "--allow-code", "--contract", "own.toml", "one")
    assert done.returncode == 2
    assert "a copy fails: FileNotFoundError" in done.stderr
    assert "other files are not" in done.stderr
    assert not (tmp_path / "results").exists()
