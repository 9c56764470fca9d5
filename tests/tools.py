"""Programs of the system that some tests need, and how a test says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

# What a tool may be called: the first name that is found is used.
TOOLS: dict[str, tuple[str, ...]] = {
    "busybox": ("busybox",),
    "bwrap": ("bwrap",),
    "cc": ("cc", "gcc", "clang"),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "curl": ("curl",),
    "haproxy": ("haproxy", "/usr/sbin/haproxy"),
    "initdb": (*map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), "initdb"),
    "javac": ("javac",),
    "nc": ("nc.openbsd", "nc"),
    "ncat": ("ncat",),
    "nginx": ("nginx", "/usr/sbin/nginx"),
    "openssl": ("openssl",),
    "psql": ("psql",),
    "setpriv": ("setpriv",),
    "socat": ("socat",),
    "strace": ("strace",),
    "systemd-analyze": ("systemd-analyze",),
    "systemd-socket-activate": ("systemd-socket-activate",),
    "tmux": ("tmux",),
    "tshark": ("tshark",),
    "xinetd": ("xinetd", "/usr/sbin/xinetd"),
}


def find_tool(tool: str) -> str | None:
    """The path of a tool of `TOOLS`, or None where it isn't installed."""
    for name in TOOLS[tool]:
        path = shutil.which(name)
        if path is not None:
            return path
    return None


def needs_tool(tool: str) -> pytest.MarkDecorator:
    """Mark a test that can't run without a tool: `@needs_tool("javac")`."""
    return pytest.mark.skipif(find_tool(tool) is None, reason=f"{tool} isn't installed")
