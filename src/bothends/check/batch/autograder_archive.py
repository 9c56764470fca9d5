"""Make Gradescope's autograder.zip, and the workflow for GitHub Classroom.

autograder.zip holds bothends and the packages that it imports, as they are installed here, so that nothing
is installed from the network but a Python of the same version, if the image has none. Gradescope runs
`setup.sh` once, when it builds the image, and `run_autograder` for each submission.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bothends.check.batch.autograder import SETTINGS_FILE, settings_to_object
from bothends.check.batch.grading import BatchSettings
from bothends.errors import Unavailable

# What `bothends check` imports. The compiled module of msgspec needs the Python version it was built for.
_DISTRIBUTIONS: Final = ("click", "rich", "pygments", "markdown-it-py", "mdurl", "msgspec")
_OMITTED: Final = (".so", ".pyc", ".c", ".h", ".pyi")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # so that two archives of the same content are equal

_SETUP: Final = """\
#!/usr/bin/env bash
# Run once, when Gradescope builds the image: finds a Python for bothends, and installs compilers.
set -e
cd "$(dirname "$(readlink -f "$0")")"
packages=({packages})
python=$(command -v python{version} || true)
if [ -z "$python" ] || [ ${{#packages[@]}} -gt 0 ]; then
    apt-get update
    [ -n "$python" ] || apt-get install -y python{version} || true
    [ ${{#packages[@]}} -eq 0 ] || apt-get install -y "${{packages[@]}}"
fi
python=$(command -v python{version} || true)
if [ -z "$python" ]; then
    # Another version needs its own build of msgspec, the one compiled package.
    python=$(command -v python3)
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bothends needs Python 3.11 or newer")'
    "$python" -m pip install --target lib --upgrade msgspec
fi
"$python" -m venv --without-pip venv
echo "$PWD/lib" > "$(echo venv/lib/python3*/site-packages)/bothends.pth"
venv/bin/python -P -c 'import bothends.check.batch.autograder'
"""
_RUN: Final = """\
#!/bin/sh
# Run for each submission: judges it, and writes results/results.json.
root=$(dirname "$(readlink -f "$0")")
exec "$root/source/venv/bin/python" -P -m bothends.check.batch.autograder "$root"
"""

_WORKFLOW: Final = """\
# Judges a submission at each push, and reports its points to GitHub Classroom.
name: Autograding Tests
on:
  - push
  - workflow_dispatch
  - repository_dispatch
permissions:
  checks: write
  actions: read
  contents: read
jobs:
  run-autograding-tests:
    runs-on: ubuntu-latest
    if: github.actor != 'github-classroom[bot]'
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: pip install bothends
      - name: Allow the sandbox and network namespaces
        run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 || true
      - name: Judge
        id: bothends
        run: |
          bothends check batch . --role {role} --contract {contract}{options} \\
            --out "$RUNNER_TEMP/results" --report classroom --report text || true
          cat "$RUNNER_TEMP/results/students/"*.txt
          echo "result=$(base64 -w0 "$RUNNER_TEMP/results/students/"*.classroom.json)" >> "$GITHUB_OUTPUT"
      - uses: actions/upload-artifact@v4
        with:
          name: results
          path: ${{{{ runner.temp }}}}/results/students
      - uses: classroom-resources/autograding-grading-reporter@v1
        env:
          BOTHENDS_RESULTS: "${{{{ steps.bothends.outputs.result }}}}"
        with:
          runners: bothends
"""


def make_archive(settings: BatchSettings, packages: Sequence[str] = ()) -> bytes:
    """Return the content of autograder.zip.

    Args:
        packages: names of packages for apt-get(8), such as compilers, for the image.

    Raises:
        Unavailable: a package that bothends imports is not installed as a distribution.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    setup = _SETUP.format(version=version, packages=" ".join(packages))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "setup.sh", setup.encode(), 0o755)
        _add(archive, "run_autograder", _RUN.encode(), 0o755)
        _add(archive, SETTINGS_FILE, json.dumps(settings_to_object(settings), indent=2).encode())
        for name, path in sorted(_library_files()):
            _add(archive, f"lib/{name}", path.read_bytes())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes, mode: int = 0o644) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = (0o100000 | mode) << 16  # a regular file with these permissions (stat(2))
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)


def _library_files() -> Iterator[tuple[str, Path]]:
    """Yield the files of bothends and of what it imports, each with its path below the library's folder."""
    package = Path(__file__).resolve().parents[2]
    for path in package.rglob("*"):
        inside = path.relative_to(package.parent)
        if path.is_file() and path.suffix not in _OMITTED and "__pycache__" not in inside.parts:
            yield str(inside), path
    for name in _DISTRIBUTIONS:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            hint = f"pip install {name}"
            raise Unavailable("copy", name, hint=hint, reason="it is not installed") from error
        for file in distribution.files or ():
            if ".." not in file.parts and not file.is_absolute() and file.suffix != ".pyc":
                yield str(file), Path(str(distribution.locate_file(file)))


def make_workflow(role: str, contract: str, only: Sequence[str], *, allow_code: bool) -> str:
    """Return the workflow for GitHub Classroom. `contract`: a name, or a path in the repository."""
    options = "".join(f" --only {case}" for case in only) + (" --allow-code" if allow_code else "")
    return _WORKFLOW.format(role=role, contract=contract, options=options)
