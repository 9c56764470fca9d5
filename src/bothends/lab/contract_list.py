"""The built-in contracts, for the page."""

from __future__ import annotations

import functools
from typing import Any

from bothends.check import contract as contracts


@functools.cache
def list_contracts() -> list[dict[str, Any]]:
    """Return the contracts that a program of the page can be judged by, for JSON."""
    found = []
    for name in contracts.builtin_names():
        contract = contracts.load(name)
        if not contract.needs_reference:
            roles = ["server"] if contract.endless else ["server", "client"]
            found.append(
                {
                    "name": name,
                    "transport": contract.transport,
                    "summary": contract.summary,
                    "roles": roles,
                }
            )
    return found


def contract_text(name: str) -> str | None:
    """Return the text of a built-in contract, or None."""
    if name not in contracts.builtin_names():
        return None
    return (contracts.BUILTIN_DIR / f"{name}.toml").read_text(encoding="utf-8")
