"""Builds what is in C with AddressSanitizer and UndefinedBehaviorSanitizer, and tries it: `make sanitize`.

The modules go to a directory of their own and are put in the place of those that are installed, for the
processes that are started from here, by a sitecustomize. What a sanitizer finds ends the process that did
it and is printed there, and the contract suite minds both. Leaks are looked for by the stress test, which
counts: at its end an interpreter leaves behind too much of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

NATIVE = Path(__file__).resolve().parent
TESTS = NATIVE.parent / "tests"
TRIED = [
    *sorted((TESTS / "engines").glob("test_native*.py")),
    *(
        TESTS / "bench" / f"test_{name}.py"
        for name in ("faults", "histogram", "ledger", "schedule", "transports")
    ),
]

MODULES = {"bothends.engines._native": NATIVE, "bothends.bench._generator": NATIVE / "generator"}

DEFAULTS = ["-n", "auto", "-m", "slow or not slow"]

INSTEAD = """
import importlib.util
import sys


class Instead:
    def find_spec(self, name, path=None, target=None):
        module = {modules!r}.get(name)
        return None if module is None else importlib.util.spec_from_file_location(name, module)


sys.meta_path.insert(0, Instead())
"""


def library(name: str) -> str:
    """Where the compiler has a library."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def build(sources: Path, module: Path) -> None:
    """The C files of a directory as one shared object."""
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fno-omit-frame-pointer", "-fPIC", "-shared"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror"]
    flags += ["-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    include = f"-I{sysconfig.get_paths()['include']}"
    files = sorted(str(path) for path in sources.glob("*.c"))
    subprocess.run(["gcc", *flags, include, *files, "-o", str(module), "-lm"], check=True)


def main() -> int:
    """Build, then run the tests of what is in C, with whatever else is asked of pytest."""
    with tempfile.TemporaryDirectory(prefix="bothends-sanitize-") as where:
        modules = {name: f"{where}/{name}.so" for name in MODULES}
        for name, sources in MODULES.items():
            build(sources, Path(modules[name]))
        (Path(where) / "sitecustomize.py").write_text(INSTEAD.format(modules=modules))
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [where, os.environ.get("PYTHONPATH")])),
            "LD_PRELOAD": library("libasan.so"),
            "PYTHONMALLOC": "malloc",  # or a block of ours is a part of one of Python's
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        command = [sys.executable, "-m", "pytest", "-q", *(sys.argv[1:] or DEFAULTS), *map(str, TRIED)]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
