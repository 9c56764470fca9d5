"""Temporary folders, and their removal, also after the process that made them was killed. Rank 1.

Killed by SIGKILL, a process leaves its folders behind, with the sources of others' programs. So each folder
is locked (flock(2)) as long as its process runs, and a later process of the same user removes those that are
not locked, when it makes its first one. Names have the user's number: root gives some of its folders away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

# Whose folders root may remove, beside its own: those of the user that programs in the sandbox run as.
_GIVEN_TO: Final = 65534

_locks: dict[Path, int] = {}
_cleaned: set[str] = set()  # folders for temporary files in which this process has looked for leftovers


def make_scratch_folder(purpose: str) -> Path:
    """Make a temporary folder, `bothends-PURPOSE-UID-...`, and lock it until `remove_scratch_folder`."""
    if tempfile.gettempdir() not in _cleaned:
        _cleaned.add(tempfile.gettempdir())
        remove_leftovers()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"bothends-{purpose}-{os.getuid()}-"))
        # Another process may lock and remove it as a leftover before it is locked here.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            with suppress(OSError):  # ENOLCK: a file system without locks, where nothing is removed either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                _locks[folder] = lock
                return folder
            os.close(lock)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts to files of a folder, by their names, which may have folders of their own."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def remove_scratch_folder(folder: Path) -> None:
    """Remove a folder that `make_scratch_folder` has made, with its contents."""
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _remove_with_tools(folder)
    lock = _locks.pop(folder, -1)
    if lock >= 0:
        os.close(lock)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Make a temporary folder, lock it, and remove it at the end."""
    folder = make_scratch_folder(purpose)
    try:
        yield folder
    finally:
        remove_scratch_folder(folder)


def remove_leftovers() -> None:
    """Remove the folders of this user whose process no longer runs."""
    for folder in Path(tempfile.gettempdir()).glob(f"bothends-*-{os.getuid()}-*"):
        with suppress(OSError):  # another process has removed it, or it is locked (EAGAIN)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # Others can make folders in /tmp, but not rename or replace those of this user (sticky bit).
                if _is_own(os.fstat(lock)):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove_with_tools(folder)
            finally:
                os.close(lock)


def _is_own(found: os.stat_result) -> bool:
    if found.st_uid == os.getuid():
        return True
    return os.getuid() == 0 and found.st_uid == _GIVEN_TO and stat.S_IMODE(found.st_mode) == 0o700


def _remove_with_tools(folder: Path) -> None:
    """Remove a folder with rm(1), because shutil.rmtree fails on a very deep tree.

    Root needs no chmod(1), which would follow a link that another user puts in the place of the folder.
    """
    commands = [["rm", "-rf"]] if os.getuid() == 0 else [["chmod", "-R", "u+rwX"], ["rm", "-rf"]]
    for command in commands:
        subprocess.run([*command, "--", folder], stderr=subprocess.DEVNULL, check=False)
