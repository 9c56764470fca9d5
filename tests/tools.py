"""System programs that some tests need, and marks to skip those tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

# The possible names of each tool; the first one found is used.
TOOLS: dict[str, tuple[str, ...]] = {
    "busybox": ("busybox",),
    "bwrap": ("bwrap",),
    "aiosmtpd": ("aiosmtpd",),
    "cc": ("cc", "gcc", "clang"),
    "c++": ("c++", "g++", "clang++"),
    "cmake": ("cmake",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "curl": ("curl",),
    "dnsmasq": ("dnsmasq", "/usr/sbin/dnsmasq"),
    "firefox": ("firefox", "firefox-esr"),
    "fish": ("fish",),
    "go": ("go", *map(str, Path("/usr/lib").glob("go-*/bin/go")), "/usr/local/go/bin/go"),
    "haproxy": ("haproxy", "/usr/sbin/haproxy"),
    "in.tftpd": ("in.tftpd", "/usr/sbin/in.tftpd"),
    "initdb": (*map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), "initdb"),
    "javac": ("javac",),
    "make": ("make",),
    "mandoc": ("mandoc",),
    "nc": ("nc.openbsd", "nc"),
    "ncat": ("ncat",),
    "ip": ("ip", "/usr/sbin/ip"),
    "ngircd": ("ngircd", "/usr/sbin/ngircd"),
    "nginx": ("nginx", "/usr/sbin/nginx"),
    "nft": ("nft", "/usr/sbin/nft"),
    "node": ("node",),
    "openssl": ("openssl",),
    "pgbench": ("pgbench",),
    "psql": ("psql",),
    "py-spy": ("py-spy",),
    "redis-cli": ("redis-cli",),
    "redis-server": ("redis-server",),
    "rustc": ("rustc",),
    "setpriv": ("setpriv",),
    "socat": ("socat",),
    "strace": ("strace",),
    "systemd-analyze": ("systemd-analyze",),
    "systemd-socket-activate": ("systemd-socket-activate",),
    "tmux": ("tmux",),
    "tshark": ("tshark",),
    "unshare": ("unshare",),
    "wget": ("wget",),
    "xinetd": ("xinetd", "/usr/sbin/xinetd"),
    "zsh": ("zsh",),
}


def find_tool(tool: str) -> str | None:
    """Return the path of a tool of `TOOLS`, or None if it is not installed."""
    for name in TOOLS[tool]:
        path = shutil.which(name)
        if path is not None:
            return path
    return None


def needs_tool(tool: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test if a tool is not installed: `@needs_tool("javac")`."""
    return pytest.mark.skipif(find_tool(tool) is None, reason=f"{tool} is not installed")
