"""Whole suites are skipped where bothends says that the system can't do something: it must not be mistaken.

Each test here asks the system itself, by other programs.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.check.test_sandbox import sandbox_unavailable_reason
from tests.tools import needs_tool
from tests.wire.hosts import wire_unavailable_reason

NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--uts", "--pid", "--fork")


def require(*command: str) -> None:
    """Skip the test if a command fails in new namespaces."""
    if subprocess.run([*NAMESPACES, *command], capture_output=True, check=False).returncode:
        pytest.skip("the system allows no namespaces")


@needs_tool("unshare")
@needs_tool("ip")
def test_wires_are_supported_where_the_system_allows_namespaces() -> None:
    require("ip", "link", "add", "a0", "type", "veth", "peer", "name", "a1")
    assert wire_unavailable_reason() == ""


@needs_tool("unshare")
def test_programs_are_sandboxed_where_the_system_allows_namespaces() -> None:
    require("mount", "-t", "tmpfs", "tmpfs", "/tmp")
    assert sandbox_unavailable_reason() == ""
