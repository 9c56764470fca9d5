"""How to build and run a program, from its source file: by suffix, first line or mode.

    server.py ──> Recipe(build=(), run=("python3", "server.py"))
    Server.java ─> Recipe(build=(("javac", ...),), run=("java", "-cp", "OUT/classes", "Server"))

1. The recipes only name commands. The caller runs the compiler, because `check` runs it in a sandbox.
2. A script that is executable and has a first line (#!) runs as that line says, as in a shell. Otherwise the
   suffix decides, then the first line, then the mode.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends.errors import Unavailable, UsageError

_FIRST_LINE_LIMIT: Final = 256  # bytes; execve(2) reads no more of a first line

_ELF: Final = b"\x7fELF"  # the start of a compiled program (elf(5))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to get a program: the `build` commands, one after another, then the command to `run` it."""

    language: str
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A source file and where its program is built.

    Args:
        path: the file, to be read.
        name: the file as the commands name it.
        output: the folder of the program as the commands name it.
        debug: build without optimisation and with debugging information.
        folder: the program is this whole folder, so that Go builds its module, and Java all files beside
            this one; None: Java compiles only the classes that the file uses.
        others: what a C or C++ compiler also gets: further files of the program, and folders of headers (-I).
    """

    path: Path
    name: str
    output: str
    debug: bool = False
    folder: Path | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Language:
    """A language: its compiler or interpreter, Debian's package with it, and how its programs are run."""

    name: str
    tool: str
    package: str
    recipe: Callable[[SourceFile], Recipe]


@dataclass(eq=False, repr=False)
class BuildFailed(UsageError):
    """A compiler reported errors, which it has printed. Fields: `file`, `tool`, `status`."""

    exit_status = 1

    file: str
    tool: str
    status: int

    def __str__(self) -> str:
        status = self.status
        how = f"exited with status {status}" if status > 0 else f"was killed by signal {-status}"
        return f"cannot build {self.file}: {self.tool} {how}"


@dataclass(eq=False, repr=False)
class NotAProgram(UsageError):
    """A file cannot be run. Fields: `file`, `reason`, `hint`."""

    file: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"cannot run {self.file}: {self.reason}" + (f"; {self.hint}" if self.hint else "")


def find_file_recipe(path: Path, output: Path) -> Recipe:
    """Return how to build and run a file, for debugging. Built programs are in the folder `output`.

    Raises:
        NotAProgram: it is no program, or its kind is not known.
        Unavailable: its interpreter or compiler is not installed.
    """
    name = str(path)
    if path.is_dir():
        raise NotAProgram(name, "it is a folder")
    if not path.is_file():
        raise NotAProgram(name, "it is not a file" if path.exists() else "there is no such file")
    language, interpreter = LANGUAGES.get(path.suffix), _interpreter(path)
    is_executable = os.access(path, os.X_OK)
    if not os.access(path, os.R_OK) and (language is not None or not is_executable):
        raise NotAProgram(name, "EACCES (Permission denied)", f"chmod u+r {name}")
    if is_executable and interpreter and shutil.which(interpreter[0]):
        return Recipe("", (), (*interpreter, name))
    if language is not None:
        if shutil.which(language.tool) is None:
            raise Unavailable(
                "run", name, reason=f"{language.tool} isn't installed", hint=f"apt install {language.package}"
            )
        return language.recipe(SourceFile(path, name, str(output), debug=True))
    if interpreter:
        if shutil.which(interpreter[0]) is None:
            raise Unavailable("run", name, reason=f"its first line names {interpreter[0]}, which isn't there")
        return Recipe("", (), (*interpreter, name))
    if not is_executable:
        if _read_start(path).startswith(_ELF):
            raise NotAProgram(name, "it is not executable", f"chmod +x {name}")
        raise NotAProgram(
            name,
            "its suffix is not that of a known language, and its first line names no interpreter (#!)",
            f'quote the command that runs it: "COMMAND {name}"',
        )
    return Recipe("", (), (name if "/" in name else f"./{name}",))


def is_runnable(path: Path) -> bool:
    """Return whether a file exists and looks like a program."""
    if not path.is_file():
        return False
    return path.suffix in LANGUAGES or os.access(path, os.X_OK) or bool(_interpreter(path))


def _interpreter(path: Path) -> tuple[str, ...]:
    """Return the interpreter in a script's first line (#!), and its argument; empty without such a line.

    A carriage return at its end, which the kernel takes for a part of the name, is removed.
    """
    line = _read_start(path).partition(b"\n")[0]
    words = line[2:].split(None, 1) if line.startswith(b"#!") else []
    return tuple(os.fsdecode(word.rstrip()) for word in words)


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_FIRST_LINE_LIMIT)
    except OSError:
        return b""


def _interpreted(name: str, tool: str, package: str, *options: str) -> Language:
    return Language(name, tool, package, lambda source: Recipe(name, (), (tool, *options, source.name)))


def _c(source: SourceFile) -> Recipe:
    return _compiled_c("C", "cc", source)


def _cpp(source: SourceFile) -> Recipe:
    return _compiled_c("C++", "c++", source)


def _compiled_c(language: str, compiler: str, source: SourceFile) -> Recipe:
    options = ("-g", "-O0") if source.debug else ("-O1",)
    program = f"{source.output}/program"
    command = (compiler, *options, "-pthread", "-o", program, source.name, *source.others, "-lm")
    return Recipe(language, (command,), (program,))


def _java(source: SourceFile) -> Recipe:
    text = source.path.read_text("utf-8", errors="replace")
    package = re.search(r"^\s*package\s+([\w.]+)\s*;", text, re.MULTILINE)
    name = _main_class(text, source.path.stem)
    name = f"{package[1]}.{name}" if package else name
    folder, classes = Path(source.name).parent, f"{source.output}/classes"
    if source.folder is not None or package:
        files = [str(folder / path.name) for path in sorted(source.path.parent.glob("*.java"))]
        if package:  # the classes of other packages
            depth = package[1].count(".") + 1
            root = Path(*[".."] * depth) if len(folder.parts) < depth else Path(*folder.parts[:-depth])
            files = ["-sourcepath", str(root), *files]
    else:
        files = ["-sourcepath", str(folder), source.name]
    debug = ("-g",) if source.debug else ()
    return Recipe("Java", (("javac", *debug, "-d", classes, *files),), ("java", "-cp", classes, name))


def _main_class(text: str, stem: str) -> str:
    """Return the class that has the main method: that of the file's name, or the last one before main."""
    classes = list(re.finditer(r"^(?:\w+\s+)*?(?:class|enum|record|interface)\s+(\w+)", text, re.MULTILINE))
    main = re.search(r"\bstatic\s+(?:\w+\s+)*void\s+main\s*\(", text)
    before = [each[1] for each in classes if main is not None and each.start() < main.start()]
    return stem if stem in [each[1] for each in classes] or not before else before[-1]


def _go(source: SourceFile) -> Recipe:
    is_module = source.folder is not None and (source.folder / "go.mod").exists()
    package = "." if is_module else source.name
    program = f"{source.output}/program"
    return Recipe("Go", (("go", "build", "-o", program, package),), (program,))


def _rust(source: SourceFile) -> Recipe:
    program, options = f"{source.output}/program", ("-g",) if source.debug else ("-O",)
    return Recipe("Rust", (("rustc", *options, "-o", program, source.name),), (program,))


LANGUAGES: Final[dict[str, Language]] = {
    ".py": _interpreted("Python", "python3", "python3"),
    ".c": Language("C", "cc", "gcc", _c),
    ".cpp": Language("C++", "c++", "g++", _cpp),
    ".cc": Language("C++", "c++", "g++", _cpp),
    ".java": Language("Java", "javac", "default-jdk-headless", _java),
    ".js": _interpreted("Node.js", "node", "nodejs"),
    ".mjs": _interpreted("Node.js", "node", "nodejs"),
    ".go": Language("Go", "go", "golang-go", _go),
    ".rs": Language("Rust", "rustc", "rustc", _rust),
    ".jar": _interpreted("Java", "java", "default-jre-headless", "-jar"),
    ".sh": _interpreted("shell", "sh", "dash"),
    ".rb": _interpreted("Ruby", "ruby", "ruby"),
    ".pl": _interpreted("Perl", "perl", "perl"),
    ".php": _interpreted("PHP", "php", "php-cli"),
}
