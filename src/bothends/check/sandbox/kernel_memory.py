"""Memory of a confined program that no process shows as resident: shared mappings and socket buffers.

A control group counts it; this module estimates it where there is none. Without one it stays an estimate: of
a shared mapping only the mapped part is known, and the buffers of pipes and the kernel's own structures are
not listed anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from bothends.socket_table import sock_diag

# Lines of /proc/PID/maps (proc(5)) with shared memory without a file: address, permissions, offset, device,
# inode, name. The name is that of MAP_ANONYMOUS, of a mapping of /dev/zero, or of shmget(2).
_SHARED: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..[-x]s ([0-9a-f]+) \S+ (\d+) +/(?:dev/zero|SYSV|memfd)", re.MULTILINE
)
_FEW_SOCKETS: Final = 8  # of the checker itself
_QUERY_TIMEOUT: Final = 0.5  # seconds


def shared_mappings(pids: Iterable[int]) -> int:
    """Return the size of the shared anonymous memory that is mapped, in bytes.

    Pages count even if no process has them in its page table, because munmap(2) of a part, madvise(2) and the
    exit of the process that wrote them do not free them.
    """
    ends: dict[bytes, int] = {}
    for pid in pids:
        with suppress(OSError):
            for start, end, offset, inode in _SHARED.findall(Path(f"/proc/{pid}/maps").read_bytes()):
                size = int(offset, 16) + int(end, 16) - int(start, 16)
                ends[inode] = max(ends.get(inode, 0), size)
    return sum(ends.values())


def socket_buffers(*, tcp_only: bool) -> int:
    """Return the bytes in the buffers of this network namespace's sockets; 0 if they cannot be listed.

    `tcp_only`: without the others, which a control group of version 1 counts (Linux 5.x and later).
    """
    with suppress(OSError, ValueError, IndexError):
        first = Path("/proc/self/net/sockstat").read_text(encoding="ascii").split("\n", 1)[0]
        if int(first.split()[2]) > _FEW_SOCKETS:  # "sockets: used N"
            with sock_diag.open_socket(_QUERY_TIMEOUT) as sock:
                return sock_diag.buffer_memory(sock, tcp_only=tcp_only)
    return 0
