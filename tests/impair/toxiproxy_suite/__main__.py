"""The command: print the result of each case of Toxiproxy's test."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.impair.toxiproxy_suite.runner import EXPECTED_FAILURES, run_suite


def main() -> int:
    """Run the suite of the checkout in the first argument. Returns 1 if a case fails unexpectedly."""
    results = run_suite(Path(sys.argv[1]))
    for case, is_passed in results.items():
        reason = EXPECTED_FAILURES.get(case, "")
        print("PASS" if is_passed else "FAIL", case, f"({reason})" if reason and not is_passed else "")
    print(f"{sum(results.values())} passed, {len(results) - sum(results.values())} failed")
    return int(any(not is_passed and case not in EXPECTED_FAILURES for case, is_passed in results.items()))


sys.exit(main())
