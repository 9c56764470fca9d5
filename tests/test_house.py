"""The house's rules, checked against the code: who may import whom, and what a file may hold."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
MODULES = sorted((SOURCE / "bothends").rglob("*.py"))
LONGEST_MODULE = 600  # lines: more than that and a reader loses the thread

# Each unit (a module or package right below bothends) and its rank. Imports go to a lower rank only.
RANKS = {
    "errors": 0,
    "checksum": 0,
    "endpoints": 0,
    "events": 0,
    "framing": 0,
    "escaping": 0,
    "suggest": 0,
    "hexdump": 0,
    "osutil": 1,
    "sockets": 1,
    "layers": 1,
    "services": 1,
    "log": 1,
    "metrics": 1,
    "toxics": 1,
    "textfile": 1,
    "client": 2,
    "engines": 2,
    "socket_table": 2,
    "trace": 2,
    "impair": 2,
    "wire": 2,
    "configuration": 3,
    "server": 3,
    "__init__": 4,
    "bench": 4,
    "check": 4,
    "starters": 4,
    "testing": 4,
    "lab": 5,
    "cli": 6,
    "__main__": 6,
}

# The only imports within one rank, and `__main__`, which hands over to the command line.
SAME_RANK = {
    "endpoints": {"errors"},
    "events": {"errors", "endpoints"},
    "framing": {"errors", "endpoints"},
    "layers": {"services"},
    "__main__": {"cli"},
}

# Where less is allowed than the rank would: importer -> unit -> the modules it may name there.
NARROWED: dict[str, dict[str, set[str]]] = {
    # N services and M engines cost N + M files. The guard is for whoever moves a service's datagrams.
    "engines": {"services": {"services.base", "services.amplification_guard"}},
    "layers": {"services": {"services.base"}},  # a layer is a conversation around another
    "bench": {"engines": set()},  # a target is an address or a command, whatever its language
    "check": {"engines": set()},
}
EXPORTED = {"server", "client", "endpoints", "services"}  # what bothends/__init__.py may import

# Cut in two, so that this file doesn't hold them.
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


def imports_of(tree: ast.Module, importer: str, *, package: bool) -> Iterator[tuple[int, str]]:
    """Line and name of each of our modules that a module imports, lazily and for types only too."""
    parts = ["bothends", *importer.split(".")] if importer != "__init__" else ["bothends"]
    here = parts if package else parts[:-1]
    for node in ast.walk(tree):
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
    return whole if whole.removeprefix("bothends.") in {*KNOWN, *RANKS} else base


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
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path))
    module, package = name_of(path), path.name == "__init__.py"
    unit = module.partition(".")[0]
    faults = []
    if unit in RANKS:
        for line, imported in imports_of(tree, module, package=package):
            if reason := import_violation(module, imported):
                faults.append(f"line {line}: imports {imported}: {reason}")
    else:
        faults.append(f"{unit!r} has no rank: give it one in RANKS")
    if ast.get_docstring(tree) is None:
        faults.append("it has no docstring")
    if (lines := len(text.splitlines())) > LONGEST_MODULE:
        faults.append(f"it has {lines} lines, the limit is {LONGEST_MODULE}")
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
    found = list(imports_of(ast.parse(statement), importer, package=importer == "__init__"))
    assert found
    assert all(import_violation(importer, imported) == "" for _, imported in found) == allowed


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


def test_design_page_lists_every_unit_with_rank() -> None:
    page = (ROOT / "docs" / "explanation" / "design.md").read_text(encoding="utf-8")
    shown = {
        unit: int(rank)
        for rank, units in re.findall(r"^\| (\d) \| ((?:`\w+` ?)+)\|", page, re.MULTILINE)
        for unit in re.findall(r"`(\w+)`", units)
    }
    here = {name.partition(".")[0] for name in KNOWN} - {"__init__", "__main__"}
    assert shown == {unit: RANKS[unit] for unit in here}
