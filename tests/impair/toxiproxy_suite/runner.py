"""Build a Go workspace from Toxiproxy's test and the files of this directory, and run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

API_PORT: Final = 8475
"""The port of the server in Toxiproxy's test."""

EXPECTED_FAILURES: Final = {
    "TestVersionEndpointReturnsVersion": 'it expects "git", the version of a build that is no release',
}
"""Cases that only a build of Toxiproxy can pass, with the reason."""

_HERE: Final = Path(__file__).parent
_MODULE: Final = "github.com/Shopify/toxiproxy/v2"
_TIMEOUT: Final = 120.0  # seconds


def run_suite(checkout: Path) -> dict[str, bool]:
    """Run Toxiproxy's api_test.go against `bothends impair`. Returns whether each case passed, by name."""
    command = [sys.executable, "-m", "bothends", "impair", "--api", f"tcp://localhost:{API_PORT}"]
    with tempfile.TemporaryDirectory() as folder:
        package = _lay_out(Path(folder), checkout)
        environment = {
            **os.environ,
            "GO111MODULE": "off",
            "GOFLAGS": "",
            "GOPATH": folder,
            "GOCACHE": os.environ.get("GOCACHE", f"{folder}/cache"),
        }
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                assert server.stderr is not None
                while "API:" not in (line := server.stderr.readline()):
                    assert line, "impair did not start"
                result = subprocess.run(
                    ["go", "test", "-json", "-count=1", "."],
                    cwd=package,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=_TIMEOUT,
                    check=False,
                )
            finally:
                server.terminate()
    results = {}
    for line in result.stdout.splitlines():
        event = json.loads(line)
        if event.get("Test") and event["Action"] in ("pass", "fail"):
            results[event["Test"]] = event["Action"] == "pass"
        elif event.get("Action") == "output" and not event["Output"].startswith(
            ("=== ", "---", "PASS", "ok")
        ):
            print(event["Output"], end="", file=sys.stderr)
    if not results:
        raise RuntimeError(result.stdout + result.stderr)
    return results


def _lay_out(folder: Path, checkout: Path) -> Path:
    """Create a GOPATH in `folder`. Returns the directory of the package to test."""
    package = folder / "src" / _MODULE
    shutil.copytree(checkout / "client", package / "client")
    shutil.copy(checkout / "api_test.go", package)
    shutil.copy(_HERE / "helper_test.go", package)
    shutil.copy(_HERE / "shim.go", package)
    for name, path in (("prometheus", "prometheus/client_golang/prometheus"), ("zerolog", "rs/zerolog")):
        target = folder / "src/github.com" / path
        target.mkdir(parents=True)
        shutil.copy(_HERE / f"{name}.go", target)
    return package
