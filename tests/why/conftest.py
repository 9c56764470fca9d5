"""Fixtures of the tests of `bothends why`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.why.programs import Programs


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Start programs that end with the test. Skips where calls of other processes are not readable."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if os.geteuid() != 0 and scope.exists() and scope.read_text(encoding="ascii").strip() not in ("0", "1"):
        pytest.skip("kernel.yama.ptrace_scope hides the calls of other processes")
    if not Path("/proc/self/syscall").exists():
        pytest.skip("this kernel has no /proc/PID/syscall")
    found = Programs(tmp_path)
    yield found
    found.stop()
