"""The rules of the architecture, checked against the code.

They concern imports between packages and inside them, the names of public classes, the content of modules,
and which modules are public. The words that code and prose may use are checked by `test_language.py`.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
MODULES = sorted((SOURCE / "bothends").rglob("*.py"))
MAX_MODULE_LINES = 800
MAX_REPEATED_LINES = 9  # a longer identical block belongs in one place

# Each unit (a module or package right below bothends) and its rank. Imports go to a lower rank only.
RANKS = {
    "errors": 0,
    "checksum": 0,
    "dask_cluster": 1,
    "endpoints": 0,
    "events": 0,
    "framing": 0,
    "escaping": 0,
    "http1": 0,
    "suggest": 0,
    "install_hints": 0,
    "hexdump": 0,
    "source_programs": 1,
    "osutil": 1,
    "sockets": 1,
    "layers": 1,
    "services": 1,
    "log": 1,
    "metrics": 1,
    "toxics": 1,
    "textfile": 1,
    "foreign_text": 1,
    "client": 2,
    "engines": 2,
    "socket_table": 2,
    "trace": 3,
    "impair": 2,
    "why": 3,
    "wire": 3,
    "configuration": 3,
    "server": 3,
    "__init__": 4,
    "bench": 4,
    "check": 4,
    "starters": 4,
    "testing": 4,
    "attack": 5,
    "lab": 5,
    "pytest_plugin": 5,
    "assistant": 6,
    "cli": 7,
    "__main__": 7,
}

# The only imports within one rank, and `__main__`, which calls the command line.
SAME_RANK = {
    "endpoints": {"errors", "suggest"},
    "events": {"errors", "endpoints"},
    "framing": {"errors", "endpoints"},
    "layers": {"services"},
    "__main__": {"cli"},
}

# Imports narrower than the ranks allow: importer -> unit -> the modules it may import from there.
NARROWED: dict[str, dict[str, set[str]]] = {
    # N services and M engines cost N + M files. Datagram servers need the guards against forged sources.
    "engines": {"services": {"services.base", "services.amplification_guard", "services.loop_guard"}},
    "layers": {"services": {"services.base"}},  # a layer is a conversation around another
    "bench": {"engines": set()},  # a target is an address or a command, whatever its language
    "check": {"engines": set()},
}
# What bothends/__init__.py may import.
EXPORTED = {"server", "client", "endpoints", "engines", "errors", "events", "layers", "services"}

# In two parts each, so that this file doesn't contain them.
LEAKS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npmjs" + ".org",
    "npmjs" + ".com",
    "/wo" + "rk/",
    "/ro" + "ot/",
    "../" + "shared",
]


def name_of(path: Path) -> str:
    """`engines.select` for src/bothends/engines/select.py; `engines` for the package's `__init__`."""
    parts = path.relative_to(SOURCE / "bothends").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


KNOWN = {name_of(path) for path in MODULES}
IMPORTABLE = {*KNOWN, *RANKS}


@functools.cache
def text_of(path: Path) -> str:
    """A module's source code."""
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A module's syntax tree, parsed once for all tests."""
    return ast.parse(text_of(path), filename=str(path))


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of a module's syntax tree."""
    return list(ast.walk(tree_of(path)))


def imports_of(nodes: Iterable[ast.AST], importer: str, *, package: bool) -> Iterator[tuple[int, str]]:
    """Line and name of each of our modules that a module imports, lazily and for types only too."""
    parts = ["bothends", *importer.split(".")] if importer != "__init__" else ["bothends"]
    here = parts if package else parts[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*start, *(node.module.split(".") if node.module else [])])
            names = [resolve_import(base, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            if name == "bothends" or name.startswith("bothends."):
                yield node.lineno, name.removeprefix("bothends").removeprefix(".") or "__init__"


def resolve_import(base: str, name: str) -> str:
    """What `from base import name` imports: the module of that name, or the base that holds the name."""
    whole = f"{base}.{name}"
    return whole if whole.removeprefix("bothends.") in IMPORTABLE else base


def import_violation(importer: str, imported: str) -> str:
    """Why one module may not import another; empty if it may."""
    unit, other = importer.partition(".")[0], imported.partition(".")[0]
    if unit == other:
        return ""
    if unit == "__init__" and other not in EXPORTED:
        return "the package's __init__ exports only " + ", ".join(sorted(EXPORTED))
    if other not in RANKS:
        return f"{other!r} has no rank"
    if imported not in NARROWED.get(unit, {}).get(other, {imported}):
        return f"{unit} may import only {sorted(NARROWED[unit][other])} of {other}"
    if RANKS[other] >= RANKS[unit] and other not in SAME_RANK.get(unit, set()):
        return f"{other} has rank {RANKS[other]}, {unit} has rank {RANKS[unit]}"
    return ""


def is_export(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, an import or `__all__`."""
    if isinstance(statement, ast.Assign):
        return [ast.unparse(target) for target in statement.targets] == ["__all__"]
    return isinstance(statement, ast.Import | ast.ImportFrom) or (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def test_modules_are_found() -> None:
    assert "errors" in KNOWN


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_follows_architecture_rules(path: Path) -> None:
    tree = tree_of(path)
    module, package = name_of(path), path.name == "__init__.py"
    unit = module.partition(".")[0]
    faults = []
    if unit in RANKS:
        for line, imported in imports_of(nodes_of(path), module, package=package):
            if reason := import_violation(module, imported):
                faults.append(f"line {line}: imports {imported}: {reason}")
    else:
        faults.append(f"{unit!r} has no rank: give it one in RANKS")
    if ast.get_docstring(tree) is None:
        faults.append("it has no docstring")
    if (lines := len(text_of(path).splitlines())) > MAX_MODULE_LINES:
        faults.append(f"it has {lines} lines, the limit is {MAX_MODULE_LINES}")
    if package and module != "__init__":  # the top one holds PEP 562's __getattr__ beside its exports
        faults += [f"line {each.lineno}: not an export" for each in tree.body if not is_export(each)]
    assert not faults, f"{path.relative_to(ROOT)}:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("importer", "statement", "allowed"),
    [
        ("endpoints", "from bothends.errors import EndpointError", True),
        ("errors", "import bothends.endpoints", False),
        ("engines.epoll", "from bothends.services.base import Conversation", True),
        ("engines.epoll", "from bothends.services import echo", False),
        ("engines.epoll", "from . import base", True),
        ("engines.epoll", "from .. import trace", False),
        ("engines.epoll", "def late():\n    from ..client import blocking", False),
        ("engines.epoll", "if TYPE_CHECKING:\n    from bothends.server import Server", False),
        ("services.echo", "import bothends.toxics.pipeline", False),
        ("bench.load", "import bothends.engines.base", False),
        ("cli.serve", "from bothends import serve", True),
        ("server", "from bothends import serve", False),
        ("__main__", "from bothends.cli.main import main", True),
        ("__init__", "from .server import serve", True),
        ("__init__", "from .trace import timeline", False),
    ],
)
def test_import_rule(importer: str, statement: str, allowed: bool) -> None:
    found = list(imports_of(ast.walk(ast.parse(statement)), importer, package=importer == "__init__"))
    assert found
    assert all(import_violation(importer, imported) == "" for _, imported in found) == allowed


def import_graph() -> dict[str, set[str]]:
    """Every module with the modules it imports, lazily and for types only too."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        module, package = name_of(path), path.name == "__init__.py"
        found = {name for _, name in imports_of(nodes_of(path), module, package=package)}
        graph[module] = (found & KNOWN) - {module}
    return graph


def import_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of imports, beginning and ending with the same module; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return []


def test_no_import_cycle_between_or_inside_packages() -> None:
    assert import_cycle(import_graph()) == []


def test_import_cycle_is_found() -> None:
    assert import_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(import_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def test_public_class_names_are_unique() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        if "reference_servers" in path.parts:  # whole programs, none of which imports another
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def code_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line that isn't blank, a comment or part of an import."""
    skipped: set[int] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import | ast.ImportFrom):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate((line.strip() for line in text_of(path).splitlines()), start=1)
    return [(number, line) for number, line in lines if line and line[0] != "#" and number not in skipped]


def repeated_blocks(files: dict[str, list[tuple[int, str]]], length: int) -> list[str]:
    """Places that share `length` identical lines of code in a row."""
    seen: dict[tuple[str, ...], str] = {}
    found = []
    for name, lines in files.items():
        for at in range(len(lines) - length + 1):
            window = lines[at : at + length]
            place = f"{name}:{window[0][0]}"
            other = seen.setdefault(tuple(line for _, line in window), place)
            if other != place:
                found.append(f"{place} repeats {other}")
    return found


def test_no_block_of_code_stands_twice() -> None:
    files = {name_of(path): code_lines(path) for path in MODULES if "reference_servers" not in path.parts}
    assert repeated_blocks(files, MAX_REPEATED_LINES + 1) == []


def test_repeated_blocks_finds_a_copied_block() -> None:
    block = [(number, f"step {number}") for number in range(3)]
    assert repeated_blocks({"a": [*block, (9, "end")], "b": [(0, "start"), *block]}, 3) == ["b:0 repeats a:0"]
    assert repeated_blocks({"a": [*block, (9, "end")], "b": [(0, "start"), *block]}, 4) == []


def test_tracked_files_have_no_registry_urls_or_local_paths() -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git isn't installed")
    listing = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    faults = []
    for name in filter(None, listing.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file():
            content = path.read_bytes()
            faults += [f"{name} holds {leak!r}" for leak in LEAKS if leak.encode() in content]
    assert not faults, "\n".join(faults)


def test_ranks_in_docstrings_are_current() -> None:
    stale = []
    for path in MODULES:
        docstring = ast.get_docstring(tree_of(path)) or ""
        rank = RANKS[name_of(path).partition(".")[0]]
        named = set(map(int, re.findall(r"\bRank (\d)", docstring)))
        if named - {rank}:
            stale.append(f"{name_of(path)} has rank {rank}, its docstring says {named}")
    assert not stale


def test_design_page_lists_every_unit_with_rank() -> None:
    page = (ROOT / "docs" / "explanation" / "design.md").read_text(encoding="utf-8")
    shown = {
        unit: int(rank)
        for rank, units in re.findall(r"^\| (\d) \| ((?:`\w+` ?)+)\|", page, re.MULTILINE)
        for unit in re.findall(r"`(\w+)`", units)
    }
    here = {name.partition(".")[0] for name in KNOWN} - {"__init__", "__main__"}
    assert shown == {unit: RANKS[unit] for unit in here}
