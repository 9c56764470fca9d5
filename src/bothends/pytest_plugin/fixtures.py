"""The fixtures, the option, and the hook that keeps the traces of a failed test: docs/how-to/pytest.md."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from bothends.pytest_plugin.bad_paths import PathFactory, WireRunner
from bothends.pytest_plugin.servers import PeerFactory, ServerFactory
from bothends.pytest_plugin.traces import DEFAULT_FOLDER, TraceRunner, attach_traces, keep_traces

_FOLDER: Final = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--bothends-traces`."""
    parser.getgroup("bothends").addoption(
        "--bothends-traces",
        metavar="DIR",
        default=DEFAULT_FOLDER,
        help=f"Where the traces of failed tests are kept; default {DEFAULT_FOLDER}.",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the traces of a test that failed, before its fixtures end."""
    report = yield
    folder = item.stash.get(_FOLDER, None)
    if folder is not None and report.failed and report.when == "call":
        target = item.config.rootpath / str(item.config.getoption("--bothends-traces"))
        if kept := keep_traces(folder, target, item.nodeid):
            attach_traces(report, kept)
    return report


@pytest.fixture
def _bothends_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bothends")
    request.node.stash[_FOLDER] = folder
    return folder


@pytest.fixture
def bothends_server(_bothends_folder: Path) -> Iterator[ServerFactory]:
    """Start servers: bothends_server("upper"), bothends_server(command="./server {port}")."""
    with contextlib.ExitStack() as stack:
        yield ServerFactory(stack, _bothends_folder)


@pytest.fixture
def bothends_peer() -> Iterator[PeerFactory]:
    """Start servers that misbehave: bothends_peer("reset")."""
    with contextlib.ExitStack() as stack:
        yield PeerFactory(stack)


@pytest.fixture
def bothends_path() -> Iterator[PathFactory]:
    """Put a bad path before a server: bothends_path(server, latency="50ms")."""
    with contextlib.ExitStack() as stack:
        yield PathFactory(stack)


@pytest.fixture
def bothends_wire() -> WireRunner:
    """Run commands in hosts with a bad network: bothends_wire({"server": ..., "client": ...}, loss="5%")."""
    return WireRunner()


@pytest.fixture
def bothends_trace(_bothends_folder: Path) -> TraceRunner:
    """Run a server and a client under `bothends trace`: bothends_trace(server=..., client=...)."""
    return TraceRunner(_bothends_folder)
