"""Connect to a dask.distributed cluster, on which `bench` and `check batch` run their work. Rank 1.

A scheduler without TLS accepts any client, and its workers run what a client sends (pickled functions) as
their own user. So such a cluster is reported, also on loopback, which all users of a machine share.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from bothends.errors import Unavailable
from bothends.escaping import escape_text
from bothends.install_hints import install_command

_TIMEOUT: Final = 10  # seconds until a scheduler must answer
_ENCRYPTED: Final = ("tls://", "wss://")


def connect(address: str, warn: Callable[[str], object]) -> Any:
    """Return a client of the scheduler at an address, such as tls://host:8786.

    The certificates are those of dask's configuration (distributed.comm.tls).

    Args:
        warn: called with one line if the connection is not encrypted.

    Raises:
        Unavailable: dask.distributed is not installed, or no scheduler answers.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        hint = install_command("cluster")
        raise Unavailable("use", "a cluster", reason="distributed is not installed", hint=hint) from error
    try:
        client = distributed.Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # a TimeoutError is an OSError
        reason = f"no scheduler answers there ({escape_text(str(error)[:100]) or type(error).__name__})"
        hint = "start one with: dask scheduler"
        if address.startswith(_ENCRYPTED):
            hint = "certificates are those of distributed.comm.tls in dask's configuration"
        raise Unavailable("reach", address, reason=reason, hint=hint) from error
    found = str(client.scheduler.address)
    if not found.startswith(_ENCRYPTED):
        warn(
            f"the cluster at {found} has no TLS: any program that reaches it can run code on its "
            "workers and change results; use tls:// where it is not only yours"
        )
    return client
