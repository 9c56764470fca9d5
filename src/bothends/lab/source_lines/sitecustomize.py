"""Write down which line a Python program executes, and when. Runs in the program, before its first line.

Python imports a module of this name when it starts (module `site`). `records.py` has the format and reads it.

1. Records go to memory that this process shares with the lab (mmap(2)), so that writing one is no system
   call: the program's own calls stay as they are.
2. Only frames of the program's own file are traced line by line (sys.settrace): a library runs at its speed,
   and a call that it makes belongs to the line of the program that has called it.
3. A child process writes to a region of its own, if one is left.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

_HIDDEN_FROM = 32  # descriptors
_VARIABLE = "BOTHENDS_LINES"  # descriptor, size of a region, number of regions, the program's file


def _install(description: str) -> None:
    import mmap
    import struct
    import threading
    import time

    words = description.split(" ", 3)
    descriptor, size, regions = (int(word) for word in words[:3])
    # Python compiles the file under its absolute path (3.9 and newer).
    files = (words[3], os.path.join(os.getcwd(), words[3]))  # noqa: PTH109, PTH118
    # The mapping keeps a copy of the descriptor. With a high number, it takes none from the program.
    taken = [os.dup(descriptor) for _ in range(_HIDDEN_FROM)]
    memory = mmap.mmap(descriptor, size * regions)
    for each in (descriptor, *taken):
        os.close(each)
    header, record = struct.Struct("<QQ"), struct.Struct("<qII")
    room = (size - header.size) // record.size
    local = threading.local()
    start, count = 0, 0  # of this process's region, and how many records it has
    header.pack_into(memory, 0, 0, os.getpid())

    def write(line: int) -> None:
        nonlocal count
        try:
            thread = local.thread
        except AttributeError:
            thread = local.thread = threading.get_native_id()
        offset = start + header.size + count % room * record.size
        record.pack_into(memory, offset, time.time_ns(), thread, line)
        count += 1
        header.pack_into(memory, start, count, 1)

    def trace_line(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            write(frame.f_lineno)
        elif event == "return":
            caller = frame.f_back
            while caller is not None and caller.f_code.co_filename not in files:
                caller = caller.f_back
            write(caller.f_lineno or 0 if caller is not None else 0)
        return trace_line

    def trace_call(frame: FrameType, _event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        write(frame.f_lineno or 0)
        return trace_line

    def in_child() -> None:
        nonlocal local, start, count
        local, count = threading.local(), 0
        for region in range(1, regions):
            if header.unpack_from(memory, region * size)[1] == 0:
                start = region * size
                header.pack_into(memory, start, 0, 1)
                return
        sys.settrace(None)
        threading.settrace(None)

    os.register_at_fork(after_in_child=in_child)
    threading.settrace(trace_call)
    sys.settrace(trace_call)


def _start() -> None:
    """Remove what the program would see of this module, and begin."""
    description = os.environ.pop(_VARIABLE, "")
    os.environ.pop("PYTHONPATH", None)
    folder = os.path.dirname(__file__)  # noqa: PTH120  (pathlib takes milliseconds to import)
    sys.path[:] = [each for each in sys.path if each != folder]
    if description:
        _install(description)


_start()
