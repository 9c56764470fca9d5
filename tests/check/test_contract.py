"""Contracts: the built-in ones, user-defined ones, and the errors for invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import builtin_names, load, make_oracle, parse
from bothends.check.suites.registry import suite_for
from bothends.errors import ConfigurationError, ServiceError, UnknownName, UsageError
from bothends.server import serve
from tests.check.helpers import judge

TCP_HEADER = 'transport = "tcp"\n'
TURN_CONTRACT = TCP_HEADER + "framing = 'lines'\n[answer]\nfunction = 'turn.py:turn'"


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_contract_loads_and_replies(name: str) -> None:
    contract = load(name)
    assert contract.summary
    oracle = make_oracle(contract)
    message = b"any message" if oracle.accepts_any_message else oracle.messages[0]
    reply = oracle.reply(message)
    assert reply.silent or contract.endless or reply.matches(reply.sample)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("transport = ", "invalid TOML"),
        ("a = " + "[" * 5000, "nested too deeply"),
        (TCP_HEADER + '"new\\nline" = 1', "unknown key `new\\nline`"),
        ('[answer]\nservice = "upper"', "required"),
        (TCP_HEADER + "framming = 'lines'\n[answer]\nnothing = true", "did you mean 'framing'?"),
        (TCP_HEADER + "[answer]\nservise = 'upper'", "did you mean 'service'?"),
        (TCP_HEADER + "framing = 'words'\n[answer]\nnothing = true", "framing: invalid enum value 'words'"),
        (TCP_HEADER.replace("tcp", "tpc"), "invalid enum value 'tpc'; use tcp, udp, unix, unix+dgram"),
        (TCP_HEADER + "[answer]\nnothing = true\n[client]\ninput = 'x'", "use stdin, arguments"),
        (TCP_HEADER + "limit = 0\n[answer]\nnothing = true", "limit: expected `int` >= 1"),
        (TCP_HEADER + "[answer]\nnothing = true\n[client]\nseconds = -1", "seconds: expected `float` > 0"),
        (TCP_HEADER + "[answer]\nnothing = true\n[weights]\ntcp-burst = -1", "expected `float` >= 0"),
        (TCP_HEADER + "[answer]\nmatches = 'a+'\nexample = 'b'", "'a+' doesn't match the whole of 'b'"),
        (
            TCP_HEADER,
            "service, function, exchanges, matches, nothing, reference is required, found none",
        ),
        (TCP_HEADER + "[answer]\nnothing = true\nservice = 'upper'", "service and nothing"),
        (TCP_HEADER + "[answer]\nmatches = '('", "unterminated"),
        (TCP_HEADER + "[answer]\nmatches = 'a{9999999999}'", "repetition number is too large"),
        (TCP_HEADER + f"[answer]\nmatches = '{'(' * 5000}{')' * 5000}'", "nested too deeply"),
        (TCP_HEADER + "[[answer.exchanges]]\nrequest = 'a'", "needs either reply or matches"),
        (TCP_HEADER + "[answer]\nnothing = true\n[files]\n'../x' = ''", "outside"),
        (TCP_HEADER + "endless = true\n[answer]\nservice = 'upper'", "speaks_first = true, and matches"),
        (
            "transport = 'udp'\nendless = true\nspeaks_first = true\n[answer]\nmatches = 'a+'",
            "a datagram has an end",
        ),
        ("transport = 'udp'\nframing = 'lines'\n[answer]\nnothing = true", "datagrams are messages already"),
    ],
)
def test_parse_invalid_contract_reports_location(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "own.toml", "own", Path())
    assert message in str(raised.value)
    assert "own.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_pattern_that_python_warns_of_is_accepted() -> None:
    contract = parse(TCP_HEADER + "[answer]\nmatches = '[[a]+'\nexample = 'a'", "own.toml", "own", Path())
    assert make_oracle(contract).reply(b"x").matches(b"[a")


def test_answer_function_is_loaded_beside_contract(tmp_path: Path) -> None:
    (tmp_path / "turn.py").write_text("def turn(message):\n    return message[::-1]\n", encoding="utf-8")
    contract = parse(
        TURN_CONTRACT,
        "x",
        "x",
        tmp_path,
        allow_code=True,
    )
    assert make_oracle(contract).reply(b"abc").exact == b"cba\n"
    with pytest.raises(ServiceError, match="has no function 'tern'"):
        parse(TCP_HEADER + "[answer]\nfunction = 'turn.py:tern'", "x", "x", tmp_path, allow_code=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def turn(message):\n    return 'text'", "it returned str; a reply must be bytes"),
        ("def turn(message):\n    return message.nope", "it raised AttributeError"),
        ("def turn(", "SyntaxError"),
    ],
)
def test_answer_function_without_reply_fails_at_parse(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "turn.py").write_text(text, encoding="utf-8")
    with pytest.raises(ServiceError, match=message):
        parse(
            TURN_CONTRACT,
            "x",
            "x",
            tmp_path,
            allow_code=True,
        )


def test_answer_function_error_during_case_is_skip(tmp_path: Path) -> None:
    text = "def turn(message):\n    return message.decode().upper().encode()\n"
    (tmp_path / "turn.py").write_text(text, encoding="utf-8")
    contract = parse(
        TURN_CONTRACT,
        "x",
        "x",
        tmp_path,
        allow_code=True,
    )
    with serve("upper", "tcp://127.0.0.1:0") as server:
        result = judge([], contract, "tcp-binary", endpoint=str(server.endpoints[0]))
    assert [each.verdict for each in result.outcomes] == [Verdict.PASS, Verdict.SKIP]
    assert "UnicodeDecodeError" in result.outcomes[1].detail


@pytest.mark.parametrize(
    "line", ["relax = ['tcp-bursts']", "leave_out = ['tcp-bursts']", "weights.tcp-bursts = 1"]
)
def test_contract_with_unknown_case_raises_unknown_name(line: str) -> None:
    contract = parse(TCP_HEADER + line + "\n[answer]\nnothing = true", "x", "x", Path())
    with pytest.raises(UnknownName, match="did you mean 'tcp-burst'"):
        suite_for(contract, "server")


def test_suite_for_client_with_endless_contract_raises() -> None:
    with pytest.raises(UsageError, match="chargen-tcp is for servers only"):
        suite_for(load("chargen-tcp"), "client")


def test_load_unknown_contract_suggests_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'upper-tcp'"):
        load("uper-tcp")
