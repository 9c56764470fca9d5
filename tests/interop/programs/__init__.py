"""Small clients and servers as one writes them in a first course on sockets, and how to run them.

In C, Java and Python, each a whole program with the habits of the classroom: one recv for one message,
buffers sent whole with zeros behind the text, no newline, no time limit. A habit that a later reader
could take for a mistake of ours is named where it stands.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import find_tool, needs_tool

HERE = Path(__file__).resolve().parent

# The habits are in what the programs do; the compilers have nothing to say about how.
_C_FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]
_JAVA_FLAGS = ["-Xlint:all", "-Werror"]
# Most of a short program's time would be the virtual machine's.
_JVM_FLAGS = ["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]


def needs_compiler(name: str) -> list[pytest.MarkDecorator]:
    """The marks for a test that runs this program: `tcp_client.c` needs cc."""
    tools = {".c": ["cc"], ".java": ["javac"], ".py": []}
    return [needs_tool(tool) for tool in tools[Path(name).suffix]]


class Programs:
    """The programs, compiled when the first of their language is asked for, and once for all workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def command(self, name: str) -> list[str]:
        """How to run `tcp_client.c`, `LineClient.java` or `tcp_client.py`."""
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix == ".c":
            return [str(self._built("c") / stem)]
        if suffix == ".java":
            java = shutil.which("java")
            assert java is not None, "javac is installed, and java isn't"
            return [java, *_JVM_FLAGS, "-cp", str(self._built("java")), stem]
        return [sys.executable, str(HERE / "python" / name)]

    def _built(self, language: str) -> Path:
        target, done = self._folder / language, self._folder / f"{language}.done"
        with (self._folder / f"{language}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                target.mkdir(exist_ok=True)
                _COMPILERS[language](target)
                done.touch()
        return target


def _compile_c(target: Path) -> None:
    compiler = find_tool("cc")
    assert compiler is not None
    for source in sorted((HERE / "c").glob("*.c")):
        _compile([compiler, *_C_FLAGS, "-o", str(target / source.stem), str(source)])


def _compile_java(target: Path) -> None:
    compiler = find_tool("javac")
    assert compiler is not None
    sources = map(str, sorted((HERE / "java").glob("*.java")))
    _compile([compiler, *_JAVA_FLAGS, "-d", str(target), *sources])


_COMPILERS = {"c": _compile_c, "java": _compile_java}


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
