"""What every test run shows first: which tools are here, and so what may be skipped."""

from __future__ import annotations

from tests.tools import TOOLS, find_tool


def pytest_report_header() -> list[str]:
    here = [tool for tool in TOOLS if find_tool(tool)]
    missing = [tool for tool in TOOLS if tool not in here]
    return [f"tools here: {', '.join(here) or 'none'}", f"tools missing: {', '.join(missing) or 'none'}"]
