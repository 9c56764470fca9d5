"""The process that attacks: it gets its plan on standard input, and prints its counts at the end.

It is apart from the honest client, so that the two don't wait for each other, and has a lower priority, so
that a small machine measures the server and not the attacker. It ends when its standard input is closed, so a
bothends that is killed leaves no attack behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
from typing import Any, Final

from bothends.attack.attacker import MAX_SOCKETS, Attacker
from bothends.attack.attacks import registry
from bothends.endpoints import Endpoint

_NICE: Final = 5  # see the docstring
_SPARE_DESCRIPTORS: Final = 100


async def attack(plan: dict[str, Any]) -> dict[str, int]:
    """Carry out a plan, and return the counts."""
    attacker = Attacker(
        Endpoint.parse(plan["endpoint"]), bytes.fromhex(plan["request"]), plan["seed"], plan["duration"]
    )
    try:
        await registry.ATTACKS[plan["attack"]].run(attacker)
        await attacker.pause(plan["duration"])
    finally:
        attacker.close_all()
    return dict(attacker.counts)


async def _main(plan: dict[str, Any]) -> dict[str, int]:
    task = asyncio.ensure_future(attack(plan))

    def on_input() -> None:
        if not os.read(0, 1):
            os._exit(0)  # the parent has gone, or wants no more: the kernel closes all sockets

    asyncio.get_running_loop().add_reader(0, on_input)
    return await task


def main() -> None:
    """Run one attack."""
    plan = json.loads(sys.stdin.buffer.readline())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_SOCKETS + _SPARE_DESCRIPTORS
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    counts = asyncio.run(_main(plan))
    sys.stdout.write(json.dumps(counts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
