"""Contracts: the built-in ones, one's own, and what is said of a mistake in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import answers, load, names, parse
from bothends.check.suites.registry import suite_for
from bothends.errors import CallerError, ConfigurationError, ServiceError, UnknownName
from bothends.server import serve
from tests.check.helpers import judge

HEAD = 'transport = "tcp"\n'


@pytest.mark.parametrize("name", names())
def test_every_built_in_contract_is_whole(name: str) -> None:
    contract = load(name)
    assert contract.summary
    known = answers(contract)
    message = b"any message" if known.free else known.questions[0]
    reply = known.reply(message)
    assert reply.silent or contract.endless or reply.fits(reply.sample)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("transport = ", "it is no TOML"),
        ('[answer]\nservice = "upper"', "required"),
        (HEAD + "framming = 'lines'\n[answer]\nnothing = true", "did you mean 'framing'?"),
        (HEAD + "[answer]\nservise = 'upper'", "did you mean 'service'?"),
        (HEAD + "framing = 'words'\n[answer]\nnothing = true", "framing: invalid enum value 'words'"),
        (HEAD.replace("tcp", "tpc"), "invalid enum value 'tpc'; there are tcp, udp, unix, unix+dgram"),
        (HEAD + "[answer]\nnothing = true\n[client]\ninput = 'x'", "there are stdin, arguments"),
        (HEAD + "limit = 0\n[answer]\nnothing = true", "limit: expected `int` >= 1"),
        (HEAD + "[answer]\nnothing = true\n[client]\nseconds = -1", "seconds: expected `float` > 0"),
        (HEAD + "[answer]\nnothing = true\n[weights]\ntcp-burst = -1", "expected `float` >= 0"),
        (HEAD + "[answer]\nmatches = 'a+'\nexample = 'b'", "'b' doesn't fit 'a+' as a whole"),
        (HEAD, "exactly one way to find the reply, and has none"),
        (HEAD + "[answer]\nnothing = true\nservice = 'upper'", "service and nothing"),
        (HEAD + "[answer]\nmatches = '('", "unterminated"),
        (HEAD + "[[answer.exchanges]]\nrequest = 'a'", "needs either reply or matches"),
        (HEAD + "[answer]\nnothing = true\n[files]\n'../x' = ''", "outside"),
        (HEAD + "endless = true\n[answer]\nservice = 'upper'", "speaks_first = true, and matches"),
        (
            "transport = 'udp'\nendless = true\nspeaks_first = true\n[answer]\nmatches = 'a+'",
            "a datagram has an end",
        ),
        ("transport = 'udp'\nframing = 'lines'\n[answer]\nnothing = true", "datagrams are messages already"),
    ],
)
def test_a_mistake_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "own.toml", "own", Path())
    assert said in str(raised.value)
    assert "own.toml" in str(raised.value)


def test_a_function_beside_the_contract_gives_the_reply(tmp_path: Path) -> None:
    (tmp_path / "turn.py").write_text("def turn(message):\n    return message[::-1]\n", encoding="utf-8")
    contract = parse(HEAD + "framing = 'lines'\n[answer]\nfunction = 'turn.py:turn'", "x", "x", tmp_path)
    assert answers(contract).reply(b"abc").exact == b"cba\n"
    with pytest.raises(ServiceError, match="holds no function 'tern'"):
        parse(HEAD + "[answer]\nfunction = 'turn.py:tern'", "x", "x", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def turn(message):\n    return 'text'", "it gives str; a reply is bytes"),
        ("def turn(message):\n    return message.nope", "it raises AttributeError"),
        ("def turn(", "SyntaxError"),
    ],
)
def test_a_function_that_gives_no_reply_is_told_at_once(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "turn.py").write_text(text, encoding="utf-8")
    with pytest.raises(ServiceError, match=said):
        parse(HEAD + "framing = 'lines'\n[answer]\nfunction = 'turn.py:turn'", "x", "x", tmp_path)


def test_a_function_that_fails_later_makes_no_failure_of_the_program(tmp_path: Path) -> None:
    text = "def turn(message):\n    return message.decode().upper().encode()\n"
    (tmp_path / "turn.py").write_text(text, encoding="utf-8")
    contract = parse(HEAD + "framing = 'lines'\n[answer]\nfunction = 'turn.py:turn'", "x", "x", tmp_path)
    with serve("upper", "tcp://127.0.0.1:0") as server:
        result = judge([], contract, "tcp-binary", endpoint=str(server.endpoints[0]))
    assert [each.verdict for each in result.outcomes] == [Verdict.PASS, Verdict.SKIP]
    assert "UnicodeDecodeError" in result.outcomes[1].detail


@pytest.mark.parametrize(
    "where", ["relax = ['tcp-bursts']", "leave_out = ['tcp-bursts']", "weights.tcp-bursts = 1"]
)
def test_a_case_that_there_is_not_is_told(where: str) -> None:
    contract = parse(HEAD + where + "\n[answer]\nnothing = true", "x", "x", Path())
    with pytest.raises(UnknownName, match="did you mean 'tcp-burst'"):
        suite_for(contract, "server")


def test_a_client_is_not_judged_by_a_reply_that_never_ends() -> None:
    with pytest.raises(CallerError, match="chargen-tcp the reply never ends"):
        suite_for(load("chargen-tcp"), "client")


def test_an_unknown_contract_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'upper-tcp'"):
        load("uper-tcp")
