"""The report header with the available tools, and the hypothesis profile."""

from __future__ import annotations

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
