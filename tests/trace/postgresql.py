"""A PostgreSQL server with a database of its own."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.running import TIMEOUT
from tests.tools import find_tool


@pytest.fixture
def postgres_command() -> Iterator[list[str]]:
    """The command line of a PostgreSQL server, without its port. It refuses to run as root."""
    programs = Path(str(find_tool("initdb"))).parent
    unprivileged: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bothends-") as name:
        folder = Path(name)
        if os.getuid() == 0:
            owner = pwd.getpwnam("nobody")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            unprivileged = [str(find_tool("setpriv")), f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}"]
            unprivileged += ["--clear-groups"]
        data = ["-D", str(folder / "data")]
        initdb = [*unprivileged, str(programs / "initdb"), *data, "-U", "postgres", "--no-sync", "--locale=C"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, timeout=TIMEOUT)
        options = ["-k", name, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        yield [*unprivileged, str(programs / "postgres"), *data, *options]
