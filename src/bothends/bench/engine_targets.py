"""The engines of bothends as targets: each in a process of its own, with the service `upper`."""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

from bothends.bench.targets import BenchTarget
from bothends.osutil.reexec import self_command

# Suffix of a target's name -> options of `serve`. A log goes to a file: reading it would cost the generator.
AS_RUN: Final = {
    "": ("--quiet",),
    ", metrics": ("--quiet", "--metrics", "tcp://127.0.0.1:0"),
    ", log": ("--log", "json", "--log-level", "connections"),
}
# Engine -> limit of concurrent connections, if it is below a load's number of connections.
_MAX_CONNECTIONS: Final = {"iterative": 1, "fork": 200, "threads": 2000, "select": 900}
_INTO_FILE: Final = ("sh", "-c", 'exec "$@" 2>&1 >"{folder}/log"', "sh")


class MeasuredEngine(Protocol):
    """What is known of an engine: the class of `engines/base.py`."""

    name: ClassVar[str]
    datagrams: ClassVar[bool]

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """Return why it cannot run here, or None."""


def engine_target(engine: type[MeasuredEngine], size: int | None, suffix: str = "") -> BenchTarget:
    """Return an engine as a target.

    Args:
        size: the connections that it serves at a time; None: not fixed.
        suffix: what runs beside it, a key of `AS_RUN`.
    """
    options = AS_RUN[suffix]
    command = (
        *(_INTO_FILE if "--log" in options else ()),
        *self_command(),
        "serve",
        *options,
        "upper",
    )
    transports = ("tcp", "udp") if engine.datagrams else ("tcp",)
    return BenchTarget(
        engine.name + suffix,
        tuple((each, (*command, f"{each}://127.0.0.1:0", "--engine", engine.name)) for each in transports),
        max_connections=size or _MAX_CONNECTIONS.get(engine.name),
        unavailable_reason=engine.unavailable_reason() or "",
    )
