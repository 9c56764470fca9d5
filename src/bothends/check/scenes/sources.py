"""The files and Python functions that the texts of a scene may name.

The author of a contract may be untrusted: files are those of the contract's folder only, and functions are
loaded only if the caller allows a contract to run code.
"""

from __future__ import annotations

import functools
import re
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bothends import suggest
from bothends.check.scenes.template import TextError, TextSources
from bothends.errors import ServiceError

MAX_FILE: Final = 1 << 24  # bytes: the largest text of a scene
_FILE: Final = re.compile(r"\{file:([^{}]+)\}")


def make_sources(files: Mapping[str, bytes], folder: Path, functions: str) -> TextSources:
    """Return the sources of a contract's texts.

    Args:
        files: contents by name, before those in the folder.
        folder: the contract's folder.
        functions: the Python file with the functions, relative to the folder, or empty.
    """

    def read(name: str) -> bytes:
        return files[name] if name in files else read_beside(folder, name)

    def find(name: str) -> Callable[..., Any]:
        if not functions:
            raise TextError(
                f"{name} is a Python function, and the contract names no file",
                rf'functions = "file.py"; write \{{{name}()}} if it is text',
            )
        return _find_function(folder / functions, name)

    return TextSources(read, find)


def read_beside(folder: Path, name: str) -> bytes:
    """Read a regular file of a folder, which a link must not lead out of.

    Raises:
        TextError: it is not there, is not in the folder, or has more than 16 MiB.
    """
    path = folder / name
    try:
        if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
            raise TextError(f"the file {name!r} is not in the contract's folder")
        if not path.is_file():
            raise TextError(
                f"there is no file {name!r} in [files] or in the contract's folder", r"write \{ if it is text"
            )
        if path.stat().st_size > MAX_FILE:
            raise TextError(f"the file {name!r} has more than {MAX_FILE:,} bytes")
        return path.read_bytes()
    except TextError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise TextError(f"cannot read the file {name!r}: {error}") from error


def named_files(talk: str) -> list[str]:
    """Return the names of the files in a talk."""
    return _FILE.findall(talk)


@functools.cache
def _load(path: Path) -> dict[str, Any]:
    try:
        return runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise ServiceError(str(path), f"{type(error).__name__}: {error}") from error


def _find_function(path: Path, name: str) -> Callable[..., Any]:
    found = _load(path)
    function: Callable[..., Any] | None = found.get(name)
    if not callable(function):
        known = [each for each, value in found.items() if callable(value)]
        guess = suggest.nearest(name, known)
        raise TextError(f"{path.name} has no function {name!r}", f"did you mean {guess!r}?" if guess else "")
    return function
