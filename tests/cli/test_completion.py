"""`bothends completion`: what bash, zsh and fish complete, asked of the shells themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.cli.completion import VARIABLE, answer_shell
from bothends.cli.main import VERBS, command_line, run
from bothends.engines import registry as engines
from bothends.services import registry as services
from bothends.toxics.registry import TOXICS
from tests.tools import needs_tool

BREAKS = " \t\n\"'><=;|&(:"  # COMP_WORDBREAKS of an interactive bash


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what bothends answers to bash for a line, in this process."""
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", BREAKS)
    assert answer_shell(command_line, "bash_complete") == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bothends ", list(VERBS)),
        ("bothends se", ["serve", "services"]),
        ("bothends serve ", services.names()),
        ("bothends serve u", ["upper"]),
        ("bothends serve upper t", ["tcp://", "tls://"]),
        ("bothends serve upper tcp:", ["//"]),  # bash keeps what ends with a colon
        ("bothends serve --exec 'sort -n' u", ["udp://", "unix:", "unix+dgram:", "unix+seqpacket:"]),
        ("bothends serve --engine ", engines.names()),
        ("bothends serve --engine=ep", ["epoll"]),
        ("bothends serve --quiet --engine ep", ["epoll"]),
        ("bothends serve upper --log ", ["text", "json"]),  # a choice, of which click knows
        ("bothends serve --idle ", []),
        ("bothends serve --eng", ["--engine"]),
        ("bothends check server --contract upper-t", ["upper-tcp", "upper-tcp-once"]),
        ("bothends check server --contract upper-udp --only tcp-split-w", []),  # a case of other contracts
        ("bothends check client --only client-rese", ["client-reset"]),
        ("bothends check explain tcp-split-w", ["tcp-split-write"]),
        ("bothends check server --contract no-such --only ", []),
        ("bothends check li", ["list"]),
        ("bothends impair --toxic ", list(TOXICS)),
        ("bothends trace --wire loss=5%,dela", ["5%,delay="]),
        ("bothends attack --only slow", ["slow-senders"]),
        ("bothends bench engines ep", ["epoll"]),
        ("bothends query run.trace fi", ["findings"]),
        ("bothends new --lang ", ["python", "c", "java"]),
        ("bothends sockets --only l", ["listen"]),
        ("bothends completion ", ["bash", "zsh", "fish"]),
        ("bothends no-such-verb ", []),
        ("bothends wire -- ", []),
    ],
)
def test_line_is_completed(
    line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = completed(line, monkeypatch, capsys)
    order = sorted if line == "bothends " else list
    assert order(found) == order(expected)


def in_shell(shell: str, script: str, tmp_path: Path, *arguments: str) -> str:
    """Run a script in a shell whose PATH has a bothends."""
    program = tmp_path / "bothends"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m bothends "$@"\n')
    program.chmod(0o755)
    variables = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    variables["XDG_CONFIG_HOME"] = variables["XDG_DATA_HOME"] = str(tmp_path)
    done = subprocess.run(
        [shell, *arguments, "-c", script],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash_completes(tmp_path: Path) -> None:
    script = """
    eval "$(bothends completion bash)"
    complete -p bothends
    compopt() { echo "$@"; }  # only a completion that readline started may call the builtin
    try() {
        COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
        _bothends_completion bothends
        echo "${COMPREPLY[@]}"
    }
    try 'bothends serve --engine=ep'
    try 'bothends serve upper tcp:'
    """
    registered, *lines = in_shell("bash", script, tmp_path, "--norc").splitlines()
    assert registered == "complete -o bashdefault -o default -o nosort -F _bothends_completion bothends"
    assert lines == ["epoll", "-o nospace", "//"]


@needs_tool("zsh")
def test_zsh_completes(tmp_path: Path) -> None:
    script = """
    compdef() { print registered $2 }
    _describe() { print -l ${(P)3} }
    compadd() { print -l $5 $completions }
    eval "$(bothends completion zsh)"
    words=(bothends serve --engine ep) CURRENT=4
    _bothends_completion
    """
    found = in_shell("zsh", script, tmp_path, "-f")
    assert "registered bothends" in found
    assert re.search(r"\bepoll\b", found)


@needs_tool("fish")
def test_fish_completes(tmp_path: Path) -> None:
    script = """
    bothends completion fish | source
    complete -C 'bothends serve --engine ep'
    complete -C 'bothends check explain tcp-split-w'
    """
    found = in_shell("fish", script, tmp_path, "--no-config").splitlines()
    assert [line.split("\t")[0] for line in found] == ["epoll", "tcp-split-write"]


def test_script_says_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, place in (("bash", "~/.bashrc"), ("zsh", "~/.zshrc"), ("fish", "~/.config/fish")):
        assert run(["completion", shell]) == 0
        out = capsys.readouterr().out
        assert out.startswith("# ")
        assert place in out.splitlines()[0]
        assert VARIABLE in out
