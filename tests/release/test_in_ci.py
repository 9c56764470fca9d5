"""The hook for pre-commit and the GitHub Action: their files are valid, and they judge a program."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how-to/in-ci.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)]
BOTHENDS = [sys.executable, "-P", "-m", "bothends"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    subprocess.run([*BOTHENDS, "new", "server", str(tmp_path)], check=True, capture_output=True)
    return tmp_path


def test_hook_of_the_page_judges_a_server(program: Path) -> None:
    (used,) = BLOCKS[0]["repos"][0]["hooks"]
    hook = next(each for each in HOOKS if each["id"] == used["id"])
    assert not hook["pass_filenames"]
    name, *verb = hook["entry"].split()
    assert name == "bothends"
    one_case = ["--only", "tcp-one-message"]
    done = subprocess.run(
        [*BOTHENDS, *verb, *one_case, *used["args"]], cwd=program, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout


def run_action(folder: Path, given: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the last step of the action as a runner does, with bothends where the step before installs it."""
    bothends = folder / "runner/bothends/bin/bothends"
    bothends.parent.mkdir(parents=True)
    bothends.write_text(f'#!/bin/sh\nexec {shlex.join(BOTHENDS)} "$@"\n')
    bothends.chmod(0o755)
    inputs = {name: each.get("default", "") for name, each in ACTION["inputs"].items()} | given
    step = ACTION["runs"]["steps"][-1]
    variables = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) }}", lambda match: inputs[match[1]], value)
        for name, value in step["env"].items()
    }
    runner = {"RUNNER_TEMP": str(folder / "runner"), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env=os.environ | variables | runner,
        capture_output=True,
        text=True,
        check=False,
    )


def test_action_judges_a_server(program: Path) -> None:
    given = BLOCKS[1]["jobs"]["server"]["steps"][1]["with"]
    done = run_action(program, given | {"options": "--only 'tcp-one-message'"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in (program / "summary.md").read_text()
    assert "<testsuite" in (program / "bothends.xml").read_text()


def test_action_fails_if_a_case_fails(tmp_path: Path) -> None:
    given = {"command": "sh -c 'exit 3; # $(touch executed)'", "contract": "upper-tcp"}
    done = run_action(tmp_path, given)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL" in (tmp_path / "summary.md").read_text()
    assert not (tmp_path / "executed").exists()


def test_page_lists_every_input() -> None:
    assert set(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.M)) == set(ACTION["inputs"])
    assert set(BLOCKS[1]["jobs"]["server"]["steps"][1]["with"]) <= set(ACTION["inputs"])


def test_workflows_are_valid() -> None:
    paths = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert paths
    for path in paths:
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        assert all({"runs-on", "steps", "timeout-minutes"} <= job.keys() for job in jobs.values()), path
