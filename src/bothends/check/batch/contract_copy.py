"""Copy a contract and its files to the folder, or the machine, where a submission is judged.

Correct replies may come from Python code in a file beside the contract. The modules that it imports from
its own folder are found without running anything, and copied too, as are the files that the texts of its
scenes name. Other files are not copied.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final

from bothends.check.contract import Contract
from bothends.check.scenes.sources import named_files, read_beside
from bothends.errors import SystemCallFailed

_NAME: Final = "contract.toml"


def find_files(contract: Contract) -> tuple[tuple[str, str], ...]:
    """Return the files of a contract: paths relative to its folder, and contents, as Latin-1.

    A file with an absolute path is not copied.

    Raises:
        SystemCallFailed: a file cannot be read.
    """
    found: dict[str, str] = {}
    for main in contract.code_files:
        if not PurePath(main).is_absolute():
            _add_code(contract, main, found)
    for scene in contract.scene:
        for name in named_files(scene.talk):
            if name not in contract.files:
                found[name] = read_beside(Path(contract.folder), name).decode("latin-1")
    return tuple(sorted(found.items()))


def _add_code(contract: Contract, main: str, found: dict[str, str]) -> None:
    """Add a Python file and the modules that it imports from its folder to `found`: contents by path."""
    pending = [os.path.normpath(main)]
    while pending:
        name = pending.pop()
        path = Path(contract.folder, name)
        if name in found or not (path.is_file() or name == main):
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SystemCallFailed("read", str(path), error.errno or 0) from error
        found[name] = content.decode("latin-1")  # any byte is a character, so the copy is exact
        pending += (
            os.path.normpath(each) for each in _imported_files(content, PurePath(name), PurePath(main))
        )


def write_copy(folder: Path, text: str, files: tuple[tuple[str, str], ...]) -> Path:
    """Write a contract and its files below a folder. Returns: the contract's path.

    A path may begin with `..`: the contract is written so deep that it stays below `folder`.
    """
    depth = max((PurePath(name).parts.count("..") for name, _ in files), default=0)
    target = folder.joinpath(*["contract"] * (depth + 1))
    target.mkdir(parents=True)
    for name, content in files:
        path = Path(os.path.normpath(target / name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
    (target / _NAME).write_text(text, encoding="utf-8")
    return target / _NAME


def _imported_files(content: bytes, file: PurePath, main: PurePath) -> Iterator[PurePath]:
    """Return where the modules that a file imports would be, if they are in the folder of `main`."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return  # reported when it is loaded
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(main.parent, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = file.parent.joinpath(*[".."] * (node.level - 1)) if node.level else main.parent
            module = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _module_files(base, [*module, alias.name])


def _module_files(base: PurePath, parts: list[str]) -> Iterator[PurePath]:
    for length in range(1, len(parts) + 1):
        module = base.joinpath(*parts[:length])
        yield module.with_name(f"{module.name}.py")
        yield module / "__init__.py"
