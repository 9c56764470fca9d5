"""Repair in the copy of a submission what an upload has done to it.

A script from Windows has CR LF at the ends of its lines, and the kernel takes the CR after #! for a part of
the interpreter's name (execve(2)).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_MAX_SCRIPT: Final = 1 << 20  # bytes


def repair_scripts(folder: Path) -> str:
    """Change CR LF to LF in scripts whose first line is #!. Returns: a remark about it, or ""."""
    repaired = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_SCRIPT:
            continue
        content = path.read_bytes()
        if content.startswith(b"#!") and content.partition(b"\n")[0].endswith(b"\r"):
            path.write_bytes(content.replace(b"\r\n", b"\n"))
            repaired.append(str(path.relative_to(folder)))
    if not repaired:
        return ""
    more = f" and {len(repaired) - 1} more" if len(repaired) > 1 else ""
    return f"changed CR LF to LF in {repaired[0]}{more}, because of its first line (#!)"
