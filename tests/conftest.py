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
    """Apply the marker `spread`: tests that differ in its parameters only are a group.

    Classes with the same attribute `spread_over` share their groups: a test runs in one of them.
    """
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    shares: dict[str, int] = {}
    for item in items:
        marker = item.get_closest_marker("spread")
        others = dict(item.callspec.params) if marker and hasattr(item, "callspec") else {}
        differs = [others.pop(each) for each in marker.args if each in others] if marker else []
        if marker and (differs or hasattr(getattr(item, "cls", None), "spread_over")):
            cls = getattr(item, "cls", None)
            test_class = getattr(cls, "spread_over", cls and cls.__name__)
            group = f"{item.location[0]} {test_class} {getattr(item, 'originalname', item.name)} {others}"
            groups[group].append(item)
            shares[group] = marker.kwargs["one_in"]
    for name, alike in groups.items():
        one_in = min(shares[name], len(alike))
        # In the order of a hash, which is the same in each run and each worker.
        alike.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        for position, item in enumerate(alike):
            if position % one_in:
                item.add_marker(pytest.mark.slow)
