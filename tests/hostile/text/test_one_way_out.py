"""All output goes through `cli/terminal.py` or a writer that escapes: a walk through the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src" / "bothends"
MODULES = sorted(SOURCE.rglob("*.py"))

# Whole files, or functions, that may write to a standard stream, with the reason.
EXCEPTIONS = {
    "cli/terminal.py": "the place that escapes",
    "cli/connect/session.py:stdout_sink": "data of the peer: escaped on a terminal, unchanged in a pipe",
    "cli/output_files.py:notify": "escapes, where the reader of standard error may have stopped",
    "cli/serve/runtime.py:build_observer": "the logs escape (log/text.py, log/json.py)",
    "cli/trace/output.py:_trace_file": "a trace as JSON, in ASCII",
    "cli/trace/output.py:_observe": "the same, and packets as pcapng",
    "cli/trace/output.py:__init__": "packets as pcapng, which are binary",
    "engines/processes.py:_child_main": "an error in a child process, escaped; rank 2 imports no terminal",
    "engines/processes.py:flush_stdio": "flushes both in a loop",
    "osutil/child_result.py:__init__": "flushes both in a loop",
    "wire/supervisor.py:_start": "an error in the first process of a host, escaped",
    "check/batch/build.py:build": "a process in the sandbox; its parent process reads and escapes its output",
    "check/sandbox/init.py": "the same",
    "testing/contract/base.py:_engine_lifecycle": "a test suite for engines, which pytest captures",
    "attack/attacker_process.py": "numbers as JSON, in ASCII, for the parent process",
    "bench/reference_servers/": "programs of their own, which print their endpoint",
}

PRINTING = {"print", "click.echo", "click.secho", "click.style", "click.echo_via_pager"}
# Functions of `terminal` that take a stream; flushing a stream and comparing it write nothing.
STREAM_TAKERS = {"is_terminal", "has_colour", "styled", "show", "show_score"}


def dotted(node: ast.AST) -> str:
    """Return the source of a dotted name, such as `sys.stdout.write`, or an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def ways_out(source: str) -> Iterator[tuple[str, int, str]]:
    """Yield (function, line, code) for everything in a module that prints, or hands out a standard stream."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            is_output = name in PRINTING or name.endswith("console.Console")
            if name == "os.write" and isinstance(node.args[0], ast.Constant):
                is_output = True  # a number of a descriptor: 1 or 2
        else:
            is_output = dotted(node) in {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
            is_output = is_output and not is_harmless(node, parents)
        if is_output:
            yield enclosing_function(node, parents), getattr(node, "lineno", 0), ast.unparse(node)


def is_harmless(stream: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a stream is only looked at, flushed, or handed to the one place that writes."""
    parent = parents[stream]
    if isinstance(parent, ast.Attribute):
        return parent.attr == "flush"
    if isinstance(parent, ast.Compare):
        return all(isinstance(each, ast.Is | ast.IsNot) for each in parent.ops)
    if isinstance(parent, ast.IfExp):  # stream = sys.stderr if ... else sys.stdout: only for `stream=`
        parent = parents[parent]
        if isinstance(parent, ast.Assign):
            return [dotted(each) for each in parent.targets] == ["stream"]
    if isinstance(parent, ast.keyword):
        parent = parents[parent]
    return isinstance(parent, ast.Call) and (
        dotted(parent.func).rpartition(".")[2] in STREAM_TAKERS
        or dotted(parent.func) == "show_findings"  # which prints with `terminal.show`
    )


def enclosing_function(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    while not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
        node = parents[node]
    return node.name if not isinstance(node, ast.Module) else ""


def found_in(path: Path) -> list[tuple[str, int, str]]:
    return list(ways_out(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_prints_through_the_terminal_module_only(path: Path) -> None:
    name = str(path.relative_to(SOURCE))
    excepted = (name, *(each for each in EXCEPTIONS if each.endswith("/") and name.startswith(each)))
    if any(each in EXCEPTIONS for each in excepted):
        return
    found = [each for each in found_in(path) if f"{name}:{each[0]}" not in EXCEPTIONS]
    assert not found, f"{name}: use bothends.cli.terminal: {found}"


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_exception_is_still_needed(exception: str) -> None:
    name, _, function = exception.partition(":")
    if name.endswith("/"):
        assert any(found_in(path) for path in (SOURCE / name).rglob("*.py"))
        return
    assert [each for each in found_in(SOURCE / name) if each[0] == function or not function]


@pytest.mark.parametrize(
    "line",
    [
        "print(name)",
        "click.echo(name)",
        "sys.stdout.write(name)",
        "sys.stderr.buffer.write(name)",
        "os.write(1, name)",
        "os.write(sys.stdout.fileno(), name)",
        "print(name, file=sys.stderr)",
        "write = sys.stdout.write",
        "out = sys.stdout",
        "rich.console.Console(stderr=True).print(name)",
        "json.dump(name, sys.stdout)",
    ],
)
def test_walk_finds_a_direct_output(line: str) -> None:
    assert list(ways_out(f"def command(name):\n    {line}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "terminal.show(name, stream=sys.stderr)",
        "terminal.styled(name, 'quiet', sys.stdout)",
        "sys.stdout.flush()",
        "sys.stdout is None",
        "os.write(descriptor, name)",
    ],
)
def test_walk_accepts_what_writes_nothing_itself(line: str) -> None:
    assert not list(ways_out(f"def command(name):\n    {line}\n"))
