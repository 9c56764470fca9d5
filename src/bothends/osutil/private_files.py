"""Files that only their owner may read, because they may hold what programs sent to each other. Rank 1."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Final

_OWNER_ONLY: Final = 0o600


def open_private(path: Path, flags: int = 0) -> int:
    """Open a file for writing, truncate it, and make it readable by its owner only.

    An existing regular file loses the permissions of others; a device or a pipe keeps its own. `flags`:
    further ones of open(2).

    Returns: the descriptor.

    Raises:
        OSError: as open(2).
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | flags, _OWNER_ONLY)
    if S_ISREG(os.fstat(descriptor).st_mode):
        with suppress(OSError):  # EPERM: it belongs to another user, and this one may only write to it
            os.fchmod(descriptor, _OWNER_ONLY)
    return descriptor
