"""Run a program in the sandbox, as this user or as an ordinary one, and return what became of it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import bothends

_SOURCE = Path(bothends.__file__).parents[1]
_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
_RUNNER = """
import asyncio, json, pathlib, sys
from bothends.check.sandbox.launcher import SandboxLimits, enter, make_scratch_dir, remove_scratch_dir
from bothends.check.subjects.process import start_program, subreaper
folder, build, command = pathlib.Path(sys.argv[1]), sys.argv[2] == "build", sys.argv[3:]
limits = SandboxLimits(memory=256 << 20, disk=32 << 20, files=2000, processes=400, cpu=5)
async def run():
    scratch = folder if build else make_scratch_dir(sandbox, writable=False)
    program = start_program(command, cwd=folder, sandbox=sandbox, scratch_dir=scratch, build=build)
    await program.wait(60)
    await program.stdout.wait_eof(1)
    await program.stderr.wait_eof(1)
    status = program.status
    await program.kill_tree()
    if not build:
        remove_scratch_dir(scratch)
    print(json.dumps([status, program.kill_reason, program.stdout.data.decode(), program.stderr.data.decode(),
                      sandbox.groups is not None]))
with subreaper():
    sandbox = enter(limits, folder)
    asyncio.run(run())
"""


@dataclass(frozen=True)
class Outcome:
    """How a program ended. `counted`: whether a control group counted its memory."""

    status: int | None
    kill_reason: str
    stdout: str
    stderr: str
    counted: bool


def users() -> list[str]:
    """Return the users to test with: this one, and an ordinary one if this one is root."""
    return (
        ["this user", "an ordinary user"] if os.getuid() == 0 and shutil.which("setpriv") else ["this user"]
    )


@functools.cache
def _python(user: str) -> tuple[str, ...]:
    """Return the command of a Python that the user may run."""
    if user == "this user":
        return (sys.executable,)
    for python in (sys.executable, "/usr/bin/python3"):
        words = (*_NOBODY, python)
        code = (
            "import subprocess, sys, bothends.check; subprocess.run([sys.executable, '-c', ''], check=True)"
        )
        probe = [*words, "-c", code]
        with_source = {**os.environ, "PYTHONPATH": str(_SOURCE)}
        if subprocess.run(probe, env=with_source, capture_output=True, check=False).returncode == 0:
            return words
    return ()


def run(
    program: str, folder: Path, user: str = "this user", *, build: bool = False, **environment: str
) -> Outcome:
    """Run a Python program in the sandbox. `folder` becomes its own folder, with the program in it."""
    folder.mkdir(exist_ok=True)
    (folder / "hostile.py").write_text(program, encoding="utf-8")
    python = _python(user)
    if not python:
        pytest.skip("an ordinary user can run no Python here that has what bothends needs")
    if user != "this user":
        for path in (folder, *folder.iterdir()):
            os.chown(path, 65534, 65534)
        for parent in folder.parents:
            if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    command = [*python, "-c", _RUNNER, str(folder), "build" if build else "run", "python3", "hostile.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd="/",
        env={**os.environ, "PYTHONPATH": str(_SOURCE), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Outcome(*json.loads(done.stdout))
