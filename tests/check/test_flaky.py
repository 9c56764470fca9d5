"""A failure is repeated before it counts, and one that does not come again is said to be flaky."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.subjects import server_under_test
from bothends.sockets.free_port import free_port
from bothends.starters.writing import make_starter
from tests.check.helpers import failed_cases, format_failures, judge, write_server_script

# Counts its starts in a file. In those in {wrong}, its replies are in small letters.
SERVER = """
import socket, sys
from pathlib import Path
starts = Path({starts!r})
number = len(starts.read_text()) + 1
starts.write_text("x" * number)
wrong = number in {wrong}
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as stream:
        for line in stream:
            stream.write(line.lower() if wrong else line.upper())
            stream.flush()
"""


@pytest.mark.spread("wrong", "verdict", "attempts", one_in=2)
@pytest.mark.parametrize(
    ("wrong", "verdict", "attempts"),
    [
        ((2,), Verdict.NON_STRICT, 3),
        ((2, 3), Verdict.FAIL, 2),
        ((2, 4), Verdict.FAIL, 3),
        ((), Verdict.PASS, 1),
    ],
)
def test_failure_counts_if_it_comes_again(
    wrong: tuple[int, ...], verdict: Verdict, attempts: int, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    starts.write_text("", encoding="utf-8")
    text = SERVER.replace("{starts!r}", repr(str(starts))).replace("{wrong}", repr(wrong))
    result = judge(write_server_script(tmp_path, text), "upper-tcp", "tcp-one-message")
    [outcome] = result.outcomes
    assert (outcome.verdict, outcome.attempts) == (verdict, attempts)
    assert outcome.points == (0 if verdict is Verdict.FAIL else 1)
    assert ("flaky: failed in 1 of 3 attempts" in outcome.detail) == (verdict is Verdict.NON_STRICT)
    assert ("in 2 of 3 attempts" in outcome.happened) == (attempts == 3 and verdict is Verdict.FAIL)


@pytest.mark.slow
def test_port_in_source_is_judged_although_another_is_given(tmp_path: Path) -> None:
    text = make_starter("server", "python", "tcp").text.replace("int(sys.argv[1])", str(free_port()))
    result = judge(write_server_script(tmp_path, text), "upper-tcp", "tcp-restart", "tcp-several-messages")
    assert not failed_cases(result), format_failures(result)
    assert result.counts[Verdict.PASS] == 3
    assert "ignores the port that it is given" in " ".join(result.notes)


# Binds its port with the bytes swapped, but not in its first start, as if that port were in use: then
# listen() chooses a port.
SWAPS_BYTES = """
import socket, sys
from pathlib import Path
listener = socket.socket()
if Path({started!r}).exists():
    listener.bind(("127.0.0.1", socket.htons(int(sys.argv[1]))))
Path({started!r}).touch()
listener.listen(100)
while True:
    listener.accept()
"""


@pytest.mark.slow
def test_port_that_the_kernel_chose_is_not_taken_for_one_in_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_under_test, "STARTUP_TIMEOUT", 3.0)
    text = SWAPS_BYTES.replace("{started!r}", repr(str(tmp_path / "started")))
    result = judge(write_server_script(tmp_path, text), "upper-tcp", "tcp-one-message")
    [outcome] = result.outcomes
    assert (outcome.verdict, outcome.likely_cause) == (Verdict.FAIL, "does not call htons() for its port")
