"""Judge the submission of a Gradescope container, and write its results.json: the program that runs there.

    python -P -m bothends.check.batch.autograder /autograder

The folder has the layout of Gradescope's autograder specification: `source` with the unpacked archive,
`submission`, and `results` for results.json, which is written whatever happens. The sandbox is used if the
container allows it; if not, results.json says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bothends.check.batch.grading import (
    BatchSettings,
    judge_one,
    judged_submission_from_object,
    judging_failure,
    pack,
)
from bothends.check.reports import render
from bothends.errors import BothendsError
from bothends.escaping import escape

SETTINGS_FILE: Final = "autograder.json"
_PROBE: Final = "from bothends.check.sandbox.launcher import enter; enter()"


def settings_to_object(settings: BatchSettings) -> dict[str, Any]:
    """Return the settings of an autograder as an object for JSON."""
    return {
        "role": settings.role,
        "contract": settings.contract,
        "allow_code": settings.allow_code,
        "contract_files": [list(each) for each in settings.contract_files],
        "thorough": settings.thorough,
        "only": list(settings.only),
    }


def settings_from_object(value: dict[str, Any]) -> BatchSettings:
    """Return the settings for an object that `settings_to_object` returned."""
    files = tuple((name, content) for name, content in value["contract_files"])
    return BatchSettings(
        value["role"],
        value["contract"],
        allow_code=value["allow_code"],
        contract_files=files,
        thorough=value["thorough"],
        only=tuple(value["only"]),
    )


def judge_submission(root: Path) -> dict[str, Any]:
    """Judge the submission below a folder with Gradescope's layout. Returns: the object for results.json.

    Raises:
        OSError, ValueError, KeyError: the settings cannot be read.
    """
    text = (root / "source" / SETTINGS_FILE).read_text(encoding="utf-8")
    settings = settings_from_object(json.loads(text))
    reason = _missing_sandbox()
    settings = replace(settings, sandbox=not reason)
    try:
        judged = judged_submission_from_object(judge_one("submission", pack(root / "submission"), settings))
    except BothendsError as error:
        judged = judging_failure("submission", settings, error)
    results: dict[str, Any] = json.loads(render(judged.result, "gradescope"))
    notes = [note for note in (judged.language, judged.remark, *judged.result.notes) if note]
    if reason:
        notes.append(f"without a sandbox, because this container allows none ({reason})")
    results["output"] = "\n".join([results["output"], *notes])
    return results


def _missing_sandbox() -> str:
    """Return why there is no sandbox here, or ""."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROBE], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return escape(done.stderr.strip().rpartition(b"\n")[2]) if done.returncode else ""


def main(root: Path) -> int:
    """Judge the submission below `root`, and write results.json. Returns: the exit status."""
    try:
        results = judge_submission(root)
    except Exception as error:  # a teacher sees it on Gradescope, where nothing else can be seen
        text = f"the autograder failed: {type(error).__name__}: {error}"
        results = {"score": 0, "output": text, "tests": []}
    file = root / "results" / "results.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=2, ensure_ascii=True), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
