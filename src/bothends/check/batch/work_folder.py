"""Temporary folders in which submissions are built, and their removal, also after a killed batch.

Killed by SIGKILL, a process leaves its folders behind, with the sources of submissions. So each one is locked
(flock(2)) as long as its process runs, and the next batch removes those that are not locked.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "bothends-batch-"


@contextmanager
def work_folder() -> Iterator[Path]:
    """Make a temporary folder, lock it, and remove it at the end."""
    folder, lock = _make_locked()
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def remove_leftovers() -> None:
    """Remove the folders of this user whose process no longer runs."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another batch has removed it, or it is locked (EAGAIN)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # Others can make folders in /tmp, but not rename or replace those of this user (sticky bit).
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(folder)
            finally:
                os.close(lock)


def _make_locked() -> tuple[Path, int]:
    """Return a new folder, and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Another batch may lock and remove it as a leftover before it is locked here.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            with suppress(OSError):  # ENOLCK: a file system without locks, where nothing is removed either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder with rm(1), because shutil.rmtree fails on a very deep tree."""
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*command, "--", folder], stderr=subprocess.DEVNULL, check=False)
