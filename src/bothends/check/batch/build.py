"""Run a build command of a submission in the sandbox, because it is no more trusted than the program.

    python -P -m bothends.check.batch.build COMMAND...

This is a separate process, because `launcher.enter` leaves the network for good: a build can use only the
files in its folder, the working directory. It copies the compiler's standard error and exits with the same
status.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bothends.check.sandbox.launcher import SandboxLimits, enter
from bothends.check.subjects.process import start_program
from bothends.errors import BothendsError

BUILD_LIMITS: Final = SandboxLimits(memory=2 << 30, processes=1024, disk=512 << 20, files=32_768)
"""Higher than those of a program, because compilers need more."""

_MAX_BUILD_TIME: Final = 86_400.0  # seconds: far above the timeout of the parent process


async def build(command: Sequence[str], folder: Path) -> int:
    """Run a command in `folder`, in the sandbox. Returns: its exit status, 128 plus the number for a signal.

    Raises:
        Unavailable: the system does not allow a sandbox.
        SystemCallFailed: the command cannot be started.
    """
    program = start_program(
        command, cwd=folder, sandbox=enter(BUILD_LIMITS, folder), scratch_dir=folder, build=True
    )
    try:
        await program.wait(_MAX_BUILD_TIME)
        await program.stderr.wait_eof(1.0)
        status = program.status or 0
    finally:
        await program.kill_tree()
    sys.stderr.buffer.write(program.stderr.data)
    if program.kill_reason:
        sys.stderr.write(f"{program.exit_description}\n")
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(build(sys.argv[1:], Path.cwd())))
    except BothendsError as error:
        sys.exit(str(error))
