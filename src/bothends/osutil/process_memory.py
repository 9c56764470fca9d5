"""Read the memory of another process: process_vm_readv(2). Nothing is attached or stopped."""

from __future__ import annotations

import ctypes
from typing import Final

_MAX_MEMORY: Final = 1 << 20  # bytes: an array of 65,536 struct pollfd is half of that
_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    """struct iovec of process_vm_readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def read_memory(pid: int, address: int, length: int) -> bytes:
    """Read the memory of another process: process_vm_readv(2). Empty if it is not accessible."""
    length = min(length, _MAX_MEMORY)
    if length <= 0 or not address:
        return b""
    buffer = ctypes.create_string_buffer(length)
    target = _Vector(ctypes.cast(buffer, ctypes.c_void_p), length)
    source = _Vector(address, length)
    one = ctypes.c_ulong(1)
    number = _libc.process_vm_readv(
        pid, ctypes.byref(target), one, ctypes.byref(source), one, ctypes.c_ulong(0)
    )
    return buffer.raw[: max(number, 0)]
