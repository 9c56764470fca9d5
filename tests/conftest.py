"""The report header with the available tools, the hypothesis profile, and the marker `spread`."""

from __future__ import annotations

import zlib
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings

from tests.tools import TOOLS, find_tool

# The same examples in each run, and no deadline, because a busy machine would exceed it.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")


def pytest_report_header() -> list[str]:
    here = [tool for tool in TOOLS if find_tool(tool)]
    missing = [tool for tool in TOOLS if tool not in here]
    return [f"tools here: {', '.join(here) or 'none'}", f"tools missing: {', '.join(missing) or 'none'}"]


@pytest.hookimpl(tryfirst=True)  # before tests are deselected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Apply the marker `spread`: tests that differ in its parameters only are a group."""
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    shares: dict[str, int] = {}
    for item in items:
        marker = item.get_closest_marker("spread")
        others = dict(item.callspec.params) if marker and hasattr(item, "callspec") else {}
        if marker and [others.pop(each) for each in marker.args if each in others]:
            group = f"{item.nodeid.partition('[')[0]} {others}"
            groups[group].append(item)
            shares[group] = marker.kwargs["one_in"]
    for name, alike in groups.items():
        one_in = min(shares[name], len(alike))
        # Groups begin at different parameters, which are the same in each run and each worker.
        for position, item in enumerate(alike, start=zlib.crc32(alike[0].nodeid.encode())):
            if position % one_in:
                item.add_marker(pytest.mark.slow)
