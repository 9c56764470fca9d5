"""Fixtures: the course programs, built once, and running bothends servers for each engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.engines import registry
from tests.interop.bothends_servers import EngineServers
from tests.interop.programs import Programs


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The course programs. All workers of a test run share the built ones."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    built = folder / "programs"
    built.mkdir(exist_ok=True)
    return Programs(built)


@pytest.fixture(scope="module", params=registry.names())
def servers(request: pytest.FixtureRequest) -> Iterator[EngineServers]:
    """Bothends servers on one engine, each started at its first use."""
    engine = registry.load(request.param)
    missing = engine.unavailable_reason()
    if missing is not None:
        pytest.skip(f"engine {engine.name}: {missing}")
    with EngineServers(engine) as started:
        yield started


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a short path, because sun_path of a UNIX socket has 108 bytes (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="bothends-") as folder:
        yield Path(folder)
