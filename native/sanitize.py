"""Build the C modules with AddressSanitizer and UBSan and run their tests: `make sanitize`.

The modules are built in a temporary directory. A sitecustomize module there makes every Python process that
is started from here load them instead of the installed ones. A sanitizer that finds an error prints it and
aborts the process, which fails the test. Leaks are left to the stress test, which counts objects:
LeakSanitizer reports too many of the interpreter's own at exit.
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
TESTED = [
    *sorted((TESTS / "engines").glob("test_native*.py")),
    TESTS / "engines" / "test_connection_state.py",
    *(
        TESTS / "bench" / f"test_{name}.py"
        for name in ("faults", "histogram", "http", "request_tracker", "schedule", "tls", "transports")
    ),
    *(TESTS / "trace" / f"test_{name}.py" for name in ("pipeline", "timeline", "strace", "usual_lines")),
]

MODULES = {
    "bothends.engines._native": NATIVE,
    "bothends.bench._generator": NATIVE / "generator",
    "bothends.trace._pipeline": NATIVE / "trace",
}

DEFAULTS = ["-n", "auto", "-m", "slow or not slow"]

SITECUSTOMIZE = """
import importlib.util
import sys


class SanitizedModules:
    def find_spec(self, name, path=None, target=None):
        module = {modules!r}.get(name)
        return None if module is None else importlib.util.spec_from_file_location(name, module)


sys.meta_path.insert(0, SanitizedModules())
"""


def library(name: str) -> str:
    """Return the path of one of the compiler's libraries."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def build(sources: Path, module: Path) -> None:
    """Compile the C files of a directory into one shared object."""
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fno-omit-frame-pointer", "-fPIC", "-shared"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror"]
    flags += ["-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    include = f"-I{sysconfig.get_paths()['include']}"
    files = sorted(str(path) for path in sources.glob("*.c"))
    subprocess.run(["gcc", *flags, include, *files, "-o", str(module), "-lm"], check=True)


def main() -> int:
    """Build the modules and run their tests. Arguments replace the default options of pytest."""
    with tempfile.TemporaryDirectory(prefix="bothends-sanitize-") as directory:
        modules = {name: f"{directory}/{name}.so" for name in MODULES}
        for name, sources in MODULES.items():
            build(sources, Path(modules[name]))
        (Path(directory) / "sitecustomize.py").write_text(SITECUSTOMIZE.format(modules=modules))
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [directory, os.environ.get("PYTHONPATH")])),
            "LD_PRELOAD": library("libasan.so"),
            "PYTHONMALLOC": "malloc",  # pymalloc's arenas would hide overflows of single blocks
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        command = [sys.executable, "-m", "pytest", "-q", *(sys.argv[1:] or DEFAULTS), *map(str, TESTED)]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
