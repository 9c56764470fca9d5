"""Build the code that reports lines in a compiled program, and make lines of the addresses that it reports.

    readelf -W --debug-dump=decodedline PROGRAM
    server.c    13    0x1201    x

The program is not trusted, and nor is its table: a wrong number marks a wrong line.
"""

from __future__ import annotations

import bisect
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

AUDITOR: Final = Path(__file__).with_name("library_calls.c")
"""The auditing library, to be compiled for each run: it must fit the C library of the machine."""

JAVA_AGENT: Final = Path(__file__).with_name("java_lines.c")
"""The agent of the JVM, the same."""

_ENTRY: Final = re.compile(r"(?:.*/)?(\S+?):? +(\d+|-) +(0x[0-9a-f]{1,8})(?:\[\d+\])?(?: |$)")
_MAX_ENTRIES: Final = 100_000


def build_command(compiler: str, library: Path, headers: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the command that compiles a library whose source stands beside it."""
    folders = (f"-I{each}" for each in headers)
    return compiler, "-shared", "-fPIC", "-O1", *folders, "-o", str(library), str(library.with_suffix(".c"))


def java_headers() -> tuple[Path, ...]:
    """Return the folders with jvmti.h; empty if there is none, or no C compiler."""
    compiler = shutil.which("javac")
    if compiler is None or shutil.which("cc") is None:
        return ()
    folder = Path(compiler).resolve().parents[1] / "include"
    return (folder, folder / "linux") if (folder / "jvmti.h").exists() else ()


def table_command(program: str) -> tuple[str, ...]:
    """Return the command that prints the table of a program."""
    return "readelf", "-W", "--debug-dump=decodedline", program


def parse_table(text: str, file: str) -> Callable[[int], int | None]:
    """Return a function from the return address of a call to its line in a file.

    Args:
        text: what `table_command` has printed.
        file: the name of the source file; the lines of others, such as headers, are not known.
    """
    entries: list[tuple[int, int]] = []
    for each in text.splitlines():
        found = _ENTRY.match(each)
        if found is None or len(entries) >= _MAX_ENTRIES:
            continue
        is_own = found[1] == file and found[2] != "-" and len(found[2]) < 8
        entries.append((int(found[3], 16), int(found[2]) if is_own else 0))
    entries.sort(key=lambda entry: entry[0])
    addresses = [address for address, _ in entries]

    def line_of(address: int) -> int | None:
        # The address is that after the call, which may belong to the next line.
        index = bisect.bisect_right(addresses, address - 1) - 1
        return (entries[index][1] or None) if index >= 0 else None

    return line_of
