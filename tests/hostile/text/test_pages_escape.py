"""All that is inserted into HTML, SVG and XML is escaped, a number, or made of such: a walk of the source.

The same for files: each module that writes a text file is listed with how it escapes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.hostile.text.test_one_way_out import dotted

SOURCE: Final = Path(__file__).resolve().parents[3] / "src" / "bothends"
MODULES: Final = [path for path in sorted(SOURCE.rglob("*.py")) if "starters" not in path.parts]

_TAG: Final = re.compile(r"</?[a-z][a-z0-9]*(?:[ />]|$)")
_NUMBER_FORMAT: Final = re.compile(r"[,.0-9]*[defgx]?")

# What may be inserted without `markup`, by module: numbers, constants, and markup made there.
INSERTED: Final = {
    "bench/report/html.py": {
        "''.join(rendered)", "_STYLE", "_table(heads, rows, numeric)", "body", "cells", "head", "rows",
    },
    "check/reports/batch_report.py": {
        "'fail' if failed else 'pass'", "count", "heads", "passed", "points", "rows", "total",
        "failures or '<tr><td>0</td><td>-</td><td>none</td></tr>'",
    },
    "check/reports/comparison.py": {
        "' class=verdict' if number == 0 else ''", "_css_class(each)", "head", "heads", "rows",
    },
    "check/reports/html.py": {
        "about", "items", "points",
        "' open' if expanded else ''", "STYLE", "_CSS_CLASSES[outcome.verdict]", "_CSS_CLASSES[v]", "body",
        "facts", "head", "n", "name", "outcome.verdict.value", "pieces", "rows", "stderr", "transcript",
        "v.value", "words",
    },
    "trace/rendering/html.py": {
        "''.join(items)",
        "_finding_list(finding.consequences) if finding.consequences else ''",
        '_finding_list(findings)',
        'code',
        'index',
        'items',
        'links',
        'name',
        'number',
    },
    "services/functions.py": {"self.name"},  # a repr
    "trace/rendering/svg.py": {
        "arrow.style", "css_class", "dashes", "height", "number", "points", "position", "self.width", "sheet",
        "waits", "x", "y", "y + height", "y - 8",
    },
}  # fmt: skip

# Functions that open a text file for writing, with the reason.
FILES: Final = {
    "assistant/checking.py": "the source text of a program",
    "trace/capture/kernel_events.py": "settings of the kernel",
    "osutil/namespaces.py": "the same",
    "wire/interfaces.py": "the same",
    "check/sandbox/": "the same, and files of a contract's author for the program",
    "wire/supervisor.py": "the hosts file of a wire, from checked names",
    "cli/trace/output.py": "traces and recordings as JSON in ASCII; SVG, PDF and HTML of `markup`; pcapng",
    "cli/reporting.py": "reports: `markup`, `json_text`, or escaped lines",
    "cli/help_layout.py": "the help of a verb, into click's buffer",
    "cli/new.py": "a starter, from its template",
    "lab/run.py": "the trace of a run as JSON in ASCII",
    "lab/sources.py": "the programs of a page, for their compilers and interpreters in the sandbox",
    "lab/sandboxed.py": "settings of the kernel",
    "cli/lab.py": "a page and a picture of `markup`",
    "osutil/scratch.py": "files of a test, a lesson or a page, for programs in the sandbox",
    "cli/check/batch.py": "results.csv of `csv_cell`, results.html of `markup`",
    "cli/bench/output.py": "pages of `markup`, and numbers",
    "check/batch/grading.py": "results as JSON, which are read again and escaped when shown",
    "check/batch/contract_copy.py": "the user's own contract",
    "check/batch/autograder.py": "results.json in ASCII",
    "check/recording/": "no file: a function of this name, which escapes the texts of a contract",
    "cli/check/record.py": "a contract, with its texts escaped",
    "check/subjects/": "files of the contract's author for the program",
}


def insertions(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and code of each value that is inserted into a text with tags, without `markup`."""
    if not re.search("<[/a-z]", source):  # parsing takes long
        return
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        text = "".join(str(each.value) for each in node.values if isinstance(each, ast.Constant))
        if not _TAG.search(text):
            continue
        for each in node.values:
            if isinstance(each, ast.FormattedValue) and not is_safe(each):
                yield each.lineno, ast.unparse(each.value)


def is_safe(value: ast.FormattedValue) -> bool:
    """Whether a value is escaped, or formatted as a number, which raises for a text."""
    if isinstance(value.format_spec, ast.JoinedStr):
        spec = "".join(str(each.value) for each in value.format_spec.values if isinstance(each, ast.Constant))
        return bool(spec) and _NUMBER_FORMAT.fullmatch(spec) is not None and spec[-1] in "defgx"
    return isinstance(value.value, ast.Call) and dotted(value.value.func) == "markup"


def opened_files(source: str) -> Iterator[tuple[str, int]]:
    """Yield call and line for each text file that is opened for writing."""
    if not re.search("write_text|open", source):
        return
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func).rpartition(".")[2] or getattr(node.func, "attr", "")
        if name == "write_text" or (name in ("open", "fdopen", "_open") and _writes(node)):
            yield name, node.lineno


def _writes(call: ast.Call) -> bool:
    values = [*call.args, *(each.value for each in call.keywords)]
    modes = [each.value for value in values for each in ast.walk(value) if isinstance(each, ast.Constant)]
    return any(isinstance(each, str) and re.fullmatch("[wax]t?", each) for each in modes)


def test_text_in_pages_is_escaped() -> None:
    left = []
    for path in MODULES:
        name = str(path.relative_to(SOURCE))
        listed = INSERTED.get(name, set())
        left += [(name, *each) for each in insertions(path.read_text("utf-8")) if each[1] not in listed]
    assert not left, f"use bothends.foreign_text.markup, or list what is no text of others: {left}"


@pytest.mark.parametrize("name", INSERTED)
def test_listed_insertion_is_still_there(name: str) -> None:
    found = {code for _, code in insertions((SOURCE / name).read_text(encoding="utf-8"))}
    assert INSERTED[name] <= found


def test_text_files_are_written_by_listed_modules() -> None:
    left = []
    for path in MODULES:
        name = str(path.relative_to(SOURCE))
        if not any(name == each or (each.endswith("/") and name.startswith(each)) for each in FILES):
            left += [(name, *each) for each in opened_files(path.read_text("utf-8"))]
    assert not left, f"say in FILES how the text in these files is escaped: {left}"


@pytest.mark.parametrize("name", FILES)
def test_listed_module_still_writes_files(name: str) -> None:
    paths = (SOURCE / name).rglob("*.py") if name.endswith("/") else [SOURCE / name]
    assert any(list(opened_files(path.read_text(encoding="utf-8"))) for path in paths)


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("f'<td>{name}</td>'", True),
        ("f'<td class=\"{name}\">'", True),
        ("f'<td>{escape(name)}</td>'", True),
        ("f'<td>{name:>5}</td>'", True),
        ("f'<td>{name!r}</td>'", True),
        ("f'<td>{markup(name)}</td>'", False),
        ("f'<td>{seconds:.2f}</td>'", False),
        ("f'a < {name}'", False),
    ],
)
def test_walk_finds_insertions(line: str, is_found: bool) -> None:
    assert bool(list(insertions(line))) == is_found


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("Path('a').write_text(name)", True),
        ("open(path, 'w').write(name)", True),
        ("path.open('a', encoding='utf-8')", True),
        ("os.fdopen(3, 'w')", True),
        ("open(path)", False),
        ("open(path, 'rb')", False),
    ],
)
def test_walk_finds_files(line: str, is_found: bool) -> None:
    assert bool(list(opened_files(line))) == is_found
