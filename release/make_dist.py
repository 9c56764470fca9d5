"""Build the packages of a release into dist: `make dist`.

1. An sdist, then from its content, so that it is seen to be complete: a wheel with the C parts for each
   Python found here (or named with --python), and one without them, for all other systems.
2. auditwheel finds the oldest glibc that a wheel runs with, and names the wheel after it (manylinux, PEP
   600). libbpf and libelf are the system's: eBPF needs root, and iproute2 brings them on most systems.
   Without them `bothends trace` uses strace.
3. Two builds of one commit give the same bytes: times are the commit's (SOURCE_DATE_EPOCH), and archives are
   written again with sorted names and fixed permissions and owners.
4. twine checks the metadata. SHA256SUMS has the hashes (sha256sum --check), and the .cdx.json file lists the
   locked dependencies in the form of CycloneDX (an SBOM).
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import zopfli.zlib as zopfli

from release.commit_time import commit_time
from release.interpreters import find_interpreters
from release.make_man import write_pages

ROOT = Path(__file__).resolve().parents[1]
SYSTEM_LIBRARIES = ("libbpf.so.*", "libelf.so.*")
MAX_WHEEL = 2_000_000  # bytes
# -Os in place of Python's -O3 makes the extensions a third smaller, and most of their time is the kernel's: a
# server in C under load spends 2 to 6 % of a core in its own code with either. Nothing unwinds their stack.
# Only the function that Python looks up is exported.
_COMPILE = (
    "-g0 -Os -fno-plt -fno-asynchronous-unwind-tables -fvisibility=hidden -ffunction-sections -fdata-sections"
)
_LINK = "-s -Wl,--gc-sections -Wl,--build-id=none"
_BACKEND = "import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
_TOOLS = Path(sys.executable).parent


def main() -> None:
    """Build everything, or print what failed and exit with 1."""
    parser = argparse.ArgumentParser(description="Build the packages of a release.")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist", help="Folder; it is emptied. Default: dist."
    )
    parser.add_argument("--python", action="append", metavar="3.N", help="Only for this version.")
    parser.add_argument("--pure-only", action="store_true", help="No wheel with C parts.")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    os.environ.setdefault("SOURCE_DATE_EPOCH", commit_time())
    interpreters = {} if arguments.pure_only else find_interpreters()
    if arguments.python:
        interpreters = {version: interpreters[version] for version in arguments.python}
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="bothends-dist-") as folder:
        build(Path(folder), out, interpreters)
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size:>10,}  {path.name}")


def build(folder: Path, out: Path, interpreters: dict[str, Path]) -> None:
    """Build all packages, in a temporary folder.

    Args:
        folder: an empty folder, for what is between.
        out: where the packages are put.
        interpreters: the Pythons to build wheels with C parts for, by version.
    """
    backend = folder / "backend"
    for name in _with_requirements(["setuptools", "setuptools-scm", "wheel"]):
        _copy_distribution(name, backend)
    write_pages(ROOT / "man")  # setup.py finds them there, and in the sdist
    (folder / "sdist").mkdir()
    _run_backend(Path(sys.executable), backend, "sdist", ROOT, folder / "sdist")
    (sdist,) = (folder / "sdist").glob("*.tar.gz")
    packed = out / sdist.name
    rewrite_sdist(sdist, packed)
    with tarfile.open(packed) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    made = [packed, _build_pure(source, backend, folder / "pure", out)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        building = [
            pool.submit(_build_native, interpreter, source, backend, folder / version, out)
            for version, interpreter in interpreters.items()
        ]
        made += [each.result() for each in building]
    for wheel in made[1:]:
        if wheel.stat().st_size > MAX_WHEEL:
            sys.exit(f"{wheel.name} has {wheel.stat().st_size:,} bytes; the limit is {MAX_WHEEL:,}")
    _run([str(_TOOLS / "twine"), "check", "--strict", *map(str, made)])
    made.append(_write_sbom(packed, out))
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(made))
    (out / "SHA256SUMS").write_text(sums)


def _build_pure(source: Path, backend: Path, folder: Path, out: Path) -> Path:
    folder.mkdir()
    _run_backend(Path(sys.executable), backend, "wheel", source, folder, BOTHENDS_PURE="1")
    (wheel,) = folder.glob("*-none-any.whl")
    return rewrite_wheel(wheel, out / wheel.name)


def _build_native(interpreter: Path, source: Path, backend: Path, folder: Path, out: Path) -> Path:
    """Build the wheel of one Python, in a copy of the source, as setup.py leaves files there."""
    (folder / "built").mkdir(parents=True)
    copied = shutil.copytree(source, folder / "source")
    flags = f"{_COMPILE} -ffile-prefix-map={copied}=."
    _run_backend(interpreter, backend, "wheel", copied, folder / "built", CFLAGS=flags, LDFLAGS=_LINK)
    (wheel,) = (folder / "built").glob("*.whl")
    path = os.pathsep.join((str(_TOOLS), os.environ["PATH"]))  # patchelf is there
    repair = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(folder / "repaired")]
    _run([*repair, *(f"--exclude={name}" for name in SYSTEM_LIBRARIES), str(wheel)], PATH=path)
    (repaired,) = (folder / "repaired").glob("*manylinux*.whl")
    return rewrite_wheel(repaired, out / repaired.name)


def rewrite_sdist(source: Path, target: Path) -> Path:
    """Write a .tar.gz again: names in order, the time of SOURCE_DATE_EPOCH, owner root, fixed permissions."""
    moment = int(os.environ["SOURCE_DATE_EPOCH"])
    packed = io.BytesIO()
    with (
        tarfile.open(source) as old,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = moment, 0, 0, "root", "root"
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with target.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=moment) as compressed:
        compressed.write(packed.getvalue())
    return target


def rewrite_wheel(source: Path, target: Path) -> Path:
    """Write a wheel again: the time of SOURCE_DATE_EPOCH, names in order, fixed permissions, and smaller."""
    earliest = 315_532_800  # 1980, ZIP's first year
    moment = time.gmtime(max(int(os.environ["SOURCE_DATE_EPOCH"]), earliest))
    with zipfile.ZipFile(source) as old:
        # The metadata last, as the format recommends.
        items = sorted(old.infolist(), key=lambda each: (".dist-info/" in each.filename, each.filename))
        entries = [
            (item.filename, 0o755 if (item.external_attr >> 16) & 0o100 else 0o644, old.read(item))
            for item in items
            if not item.is_dir()
        ]
    with target.open("wb") as file:
        _write_zip(file, entries, moment)
    return target


def _write_zip(file: BinaryIO, entries: list[tuple[str, int, bytes]], moment: time.struct_time) -> None:
    """Write a ZIP file of (name, permissions, content), compressed by zopfli, which zipfile can't do.

    The format is that of APPNOTE.TXT, 4.3: an entry and its header, then the directory of them all.
    """
    date = (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday
    clock = moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2
    directory = b""
    for name, mode, content in entries:
        data = _deflate(content)
        path = name.encode()
        # Version 2.0, names in UTF-8, deflate; sizes before and after.
        common = struct.pack(
            "<HHHHHIIIHH",
            *(20, 0x800, zipfile.ZIP_DEFLATED, clock, date, zlib.crc32(content)),
            *(len(data), len(content), len(path), 0),
        )
        made_by = 3 << 8 | 20  # UNIX, so that the upper half of the attributes is st_mode
        attributes = struct.pack("<HHHII", 0, 0, 0, (0o100000 | mode) << 16, file.tell())
        directory += b"PK\x01\x02" + struct.pack("<H", made_by) + common + attributes + path
        file.write(b"PK\x03\x04" + common + path + data)
    begin = file.tell()
    file.write(directory)
    sizes = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), begin, 0)
    file.write(b"PK\x05\x06" + sizes)


@functools.cache  # most files are the same in each wheel
def _deflate(content: bytes) -> bytes:
    """Return the smallest raw deflate data: zlib's format without its header and its checksum (RFC 1950)."""
    smallest: bytes = min(zopfli.compress(content), zlib.compress(content, 9), key=len)
    return smallest[2:-4]


def _write_sbom(sdist: Path, out: Path) -> Path:
    path = out / f"{sdist.name.removesuffix('.tar.gz')}.cdx.json"
    _run(
        [
            str(_TOOLS / "cyclonedx-py"),
            "requirements",
            "--output-reproducible",
            "--short-PURLs",
            f"--pyproject={ROOT / 'pyproject.toml'}",
            f"--output-file={path}",
            str(ROOT / "requirements.lock"),
        ]
    )
    return path


def _with_requirements(names: Iterable[str]) -> set[str]:
    """Return installed distributions and what they need, without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python or system
        found.add(name)
        waiting += [
            match[0]
            for each in requirements
            if "extra ==" not in each and (match := re.match(r"[\w.-]+", each))
        ]
    return found


def _copy_distribution(name: str, target: Path) -> None:
    """Copy an installed pure distribution, so that any Python can import it, with the locked version."""
    for file in importlib.metadata.files(name) or ():
        if ".." not in file.parts and file.suffix != ".pyc":
            copy = target / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), copy)


def _run_backend(python: Path, backend: Path, kind: str, folder: Path, out: Path, **variables: str) -> None:
    """Call a hook of setuptools (PEP 517) with a Python, in a folder."""
    command = [str(python), "-c", _BACKEND.format(kind=kind), str(out)]
    _run(command, folder=folder, PYTHONPATH=str(backend), PYTHONDONTWRITEBYTECODE="1", **variables)


def _run(command: list[str], folder: Path = ROOT, **variables: str) -> None:
    """Run a command; if it fails, print its output and exit."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with {done.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    main()
