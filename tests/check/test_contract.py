"""Contracts: the built-in ones, one's own, and what is said of a mistake in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.contract import answers, load, names, parse
from bothends.errors import ConfigurationError, ServiceError, UnknownName

HEAD = 'transport = "tcp"\n'


@pytest.mark.parametrize("name", names())
def test_every_built_in_contract_is_whole(name: str) -> None:
    contract = load(name)
    assert contract.summary
    known = answers(contract)
    message = b"any message" if known.free else known.questions[0]
    reply = known.reply(message)
    assert reply.silent or reply.fits(reply.sample)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("transport = ", "it is no TOML"),
        ('[answer]\nservice = "upper"', "required"),
        (HEAD + "framming = 'lines'\n[answer]\nnothing = true", "did you mean 'framing'?"),
        (HEAD + "[answer]\nservise = 'upper'", "did you mean 'service'?"),
        (HEAD + "framing = 'words'\n[answer]\nnothing = true", "framing: invalid enum value 'words'"),
        (HEAD, "exactly one way to find the reply, and has none"),
        (HEAD + "[answer]\nnothing = true\nservice = 'upper'", "service and nothing"),
        (HEAD + "[answer]\nmatches = '('", "unterminated"),
        (HEAD + "[[answer.exchanges]]\nrequest = 'a'", "needs either reply or matches"),
        (HEAD + "[answer]\nnothing = true\n[files]\n'../x' = ''", "outside"),
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


def test_an_unknown_contract_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'upper-tcp'"):
        load("uper-tcp")
