from __future__ import annotations

import os
from pathlib import Path
from stat import S_IMODE

from bothends.osutil.private_files import open_private


def write_and_return_mode(path: Path) -> int:
    with os.fdopen(open_private(path), "w") as file:
        file.write("payload")
    assert path.read_text() == "payload"
    return S_IMODE(path.stat().st_mode)


def test_new_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        assert write_and_return_mode(tmp_path / "new") == 0o600
    finally:
        os.umask(mask)


def test_existing_file_loses_the_permissions_of_others(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("a longer text than the payload")
    path.chmod(0o664)
    assert write_and_return_mode(path) == 0o600


def test_device_keeps_its_permissions() -> None:
    mode = Path("/dev/null").stat().st_mode
    os.close(open_private(Path("/dev/null")))
    assert Path("/dev/null").stat().st_mode == mode
