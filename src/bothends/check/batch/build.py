"""Builds a submission in the sandbox: who wrote it wrote what builds it too.

    python -P -m bothends.check.batch.build COMMAND...

A process of its own, since its network is left for good (`sandbox.enter`): what isn't in the folder, the
current one, can't be fetched. It writes the compiler's complaints to standard error and leaves as it did.
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

BUILD_LIMITS: Final = SandboxLimits(memory=2 << 30, processes=1024, disk=512 << 20)
"""A compiler takes more than what it makes."""

_MAX_BUILD_TIME: Final = 86_400.0  # seconds: for how long it may go on is for whoever started us to say


async def build(command: Sequence[str], folder: Path) -> int:
    """Run a command in `folder`, confined; its exit status, as a shell has it.

    Raises:
        Unavailable: the system allows no sandbox.
        SystemRefused: it can't be started.
    """
    program = start_program(
        command, cwd=folder, sandbox=enter(BUILD_LIMITS), scratch_dir=folder, writable=True
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
