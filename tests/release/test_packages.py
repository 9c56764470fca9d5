"""The packages of a release: the same bytes from each build, and every verb works where installed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from release import make_dist
from release.interpreters import find_interpreters
from release.walk import walk

ROOT = Path(__file__).resolve().parents[2]
MANYLINUX = "manylinux"


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def test_wheel_is_the_same_whatever_times_order_and_permissions(tmp_path: Path) -> None:
    names = ["b.py", "b-1.dist-info/RECORD", "a.py"]
    found = []
    for number, order in enumerate((names, names[::-1])):
        wheel = tmp_path / f"{number}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in order:
                info = zipfile.ZipInfo(name, (2000 + number, 1, 1, 0, 0, 0))
                info.external_attr = (0o100600 + number) << 16
                archive.writestr(info, name)
        made = make_dist.rewrite_wheel(wheel, tmp_path / f"{number}-made.whl")
        assert zipfile.ZipFile(made).namelist() == ["a.py", "b.py", "b-1.dist-info/RECORD"]
        found.append(made.read_bytes())
    assert found[0] == found[1]


def test_sdist_is_the_same_whatever_times_order_and_owners(tmp_path: Path) -> None:
    found = []
    for number, order in enumerate((["x/a", "x/b"], ["x/b", "x/a"])):
        packed = tmp_path / f"{number}.tar.gz"
        with tarfile.open(packed, "w:gz") as archive:
            for name in order:
                info = tarfile.TarInfo(name)
                info.size, info.mtime, info.uid, info.uname = 3, 1_000_000.5 + number, number, f"user{number}"
                archive.addfile(info, io.BytesIO(name.encode()))
        found.append(make_dist.rewrite_sdist(packed, tmp_path / f"{number}-made.tar.gz").read_bytes())
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build all packages once, with the times of the commit."""
    return _build(tmp_path_factory.mktemp("dist"))


def _build(folder: Path, *options: str) -> Path:
    variables = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "-m", "release.make_dist", "--out", str(folder / "out"), *options]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    return folder / "out"


def packages(dist: Path) -> Iterator[Path]:
    yield from (path for path in dist.iterdir() if path.name.endswith((".whl", ".tar.gz")))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("packages")
class TestBuilt:
    def test_two_builds_have_one_hash(self, dist: Path, tmp_path: Path) -> None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        again = _build(tmp_path, "--python", version)
        made = sorted(packages(again))
        assert len(made) == 3
        for path in made:
            assert path.read_bytes() == (dist / path.name).read_bytes(), path.name

    def test_hashes_are_right(self, dist: Path) -> None:
        lines = (dist / "SHA256SUMS").read_text().splitlines()
        assert len(lines) == len(list(dist.iterdir())) - 1
        for line in lines:
            value, name = line.split()
            assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == value

    def test_sbom_lists_locked_versions(self, dist: Path) -> None:
        (path,) = dist.glob("*.cdx.json")
        listed = {(each["name"], each["version"]) for each in json.loads(path.read_text())["components"]}
        locked = {
            tuple(line.split()[0].split("=="))
            for line in (ROOT / "requirements.lock").read_text().splitlines()
            if "==" in line and not line.startswith((" ", "#"))
        }
        assert listed == locked

    def test_has_a_wheel_for_each_python_and_a_pure_one(self, dist: Path) -> None:
        names = sorted(path.name for path in dist.glob("*.whl"))
        assert sum(MANYLINUX in name for name in names) == len(find_interpreters())
        assert sum("py3-none-any" in name for name in names) == 1

    @pytest.mark.parametrize("version", [*find_interpreters(), "pure", "sdist"])
    def test_every_verb_works_when_installed(self, dist: Path, tmp_path: Path, version: str) -> None:
        pattern = {"pure": "*-none-any.whl", "sdist": "*.tar.gz"}.get(
            version, f"*-cp{version.replace('.', '')}-{MANYLINUX}*.whl"
        )
        (package,) = dist.glob(pattern)
        interpreter = find_interpreters().get(version, Path(sys.executable))
        environment = tmp_path / "environment"
        subprocess.run([str(interpreter), "-m", "venv", str(environment)], check=True)
        pip = [str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
        subprocess.run([*pip, str(package)], check=True)
        print(*walk(environment), sep="\n")
        engines = subprocess.run(
            [str(environment / "bin/bothends"), "engines"], capture_output=True, text=True, check=True
        ).stdout
        assert ("built without the C core" in engines) == (version == "pure")
