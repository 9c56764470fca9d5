"""What a program in the sandbox sees of the file system: the toolchain, and its own folder.

1. The toolchain is /usr with /bin, /lib and similar, the compilers and interpreters that PATH finds
   elsewhere, with the prefix that they are installed in, and the parts of /etc that programs need. Never a
   home folder.
2. Of bothends nothing is visible, wherever it is installed: a submission that is bothends would pass.
3. The program's own folder is that of the files that its command names. If it names none, it is the working
   directory, unless that is a place of many things, such as a home folder or /tmp.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends.source_programs import LANGUAGES

_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC: Final = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "gai.conf", "host.conf", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "magic", "mime.types", "pki/ca-trust",
    "pki/java", "pki/tls/certs", "pki/tls/openssl.cnf", "protocols", "services", "ssl/certs",
    "ssl/openssl.cnf", "timezone",
)  # fmt: skip
_ETC_PATTERNS: Final = ("java*", "python3*", "perl")
_TOOLS: Final = (
    "cargo", "cc", "clang", "cmake", "g++", "gcc", "java", "javac", "make", "node", "python3",
    *sorted({each.tool for each in LANGUAGES.values()}),
)  # fmt: skip
_PARTS_OF_A_PREFIX: Final = ("lib", "lib64", "libexec", "include", "pkg", "jmods")
# Folders of many things, none of which is the folder of one program.
_CROWDED: Final = (
    "/", "/boot", "/dev", "/etc", "/home", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys",
    "/tmp", "/usr", "/usr/local", "/var", "/var/lib", "/var/tmp",
)  # fmt: skip

# /etc/passwd and /etc/group (passwd(5), group(5)): the users of the sandbox.
_FILES: Final = {
    "/etc/passwd": "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    "/etc/resolv.conf": "",
    "/etc/hostname": "localhost\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
}


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Paths that are visible to every program.

    `paths` are visible as they are, `links` are symbolic links (target, path), `files` have the given text,
    `hidden` are folders that appear empty, `search_path` is PATH, and `variables` are further environment
    variables.
    """

    paths: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    files: Mapping[str, str]
    hidden: tuple[str, ...]
    search_path: str
    variables: Mapping[str, str]


def find_toolchain() -> Toolchain:
    """Return the toolchain of this machine, as PATH finds it."""
    paths: list[str] = []
    links: list[tuple[str, str]] = []
    etc = [Path("/etc") / name for name in _ETC]
    etc += [path for pattern in _ETC_PATTERNS for path in sorted(Path("/etc").glob(pattern))]
    for path in (*map(Path, _SYSTEM), *etc):
        if path.is_symlink():
            links.append((str(path.readlink()), str(path)))
        elif path.exists():
            paths.append(str(path))
    links += [("/tmp", "/var/tmp"), ("/run", "/var/run")]
    prefixes = list(dict.fromkeys(_installed_elsewhere()))
    folders = [each for each in _search_path() if _is_inside(each, paths) or _is_inside(each, prefixes)]
    folders += [f"{prefix}/bin" for prefix in prefixes if Path(prefix, "bin").is_dir()]
    folders += [each for each in ("/usr/bin", "/bin") if Path(each).is_dir()]
    java = os.environ.get("JAVA_HOME", "")
    variables = {"JAVA_HOME": java} if java and _is_inside(java, (*paths, *prefixes)) else {}
    return Toolchain(
        (*paths, *prefixes), tuple(links), _FILES, tuple(_bothends_folders((*paths, *prefixes))),
        ":".join(dict.fromkeys(folders)), variables,
    )  # fmt: skip


def _search_path() -> list[str]:
    own = os.path.realpath(sys.prefix) if sys.prefix != sys.base_prefix else None
    folders = [each for each in os.environ.get("PATH", os.defpath).split(":") if each.startswith("/")]
    return [each for each in folders if own is None or os.path.realpath(Path(each).parent) != own]


def _installed_elsewhere() -> Iterator[str]:
    """Yield the prefixes of tools that are not in the folders of the system."""
    search_path = ":".join(_search_path())
    for tool in _TOOLS:
        for folder in search_path.split(":"):
            found = shutil.which(tool, path=folder)
            if found is not None:
                yield from _prefixes(Path(found))
                break
    if (java := os.environ.get("JAVA_HOME", "")) and Path(java, "bin").is_dir():
        yield from _prefixes(Path(java, "bin", "java"))
    # If PATH finds Python only in the virtual environment of bothends: the one that it was made of.
    yield from _prefixes(Path(sys.base_prefix, "bin", "python3"))


def _prefixes(tool: Path) -> Iterator[str]:
    """Yield the prefix of a tool and that of the file that it links to, if they are not the system's."""
    real = tool.resolve()
    if real.name == "rustup":
        yield from _rust_toolchain()
        return
    for path in dict.fromkeys((tool, real)):
        prefix = path.parent.parent.resolve()
        if path.parent.name not in ("bin", "sbin") or _is_inside(str(prefix), _SYSTEM) or is_crowded(prefix):
            continue
        if prefix.name != ".local" and any((prefix / part).is_dir() for part in _PARTS_OF_A_PREFIX):
            yield str(prefix)


def _rust_toolchain() -> Iterator[str]:
    """Yield the default toolchain of rustup, whose commands only start those of a toolchain."""
    home = Path(os.environ.get("RUSTUP_HOME", f"{home_folder()}/.rustup"))
    with suppress(OSError, ValueError):
        settings = tomllib.loads((home / "settings.toml").read_text(encoding="utf-8"))
        name = os.environ.get("RUSTUP_TOOLCHAIN", str(settings.get("default_toolchain", "stable")))
        for found in sorted((home / "toolchains").glob(f"{name}*"))[:1]:
            yield str(found.resolve())


def _bothends_folders(visible: Iterable[str]) -> Iterator[str]:
    """Yield the folders of the package in this and any other installation below the visible paths."""
    package = Path(__file__).resolve().parents[2]
    patterns = ("lib*/python3*/*-packages/bothends", "local/lib*/python3*/*-packages/bothends")
    found = [
        package,
        *(path for each in visible for pattern in patterns for path in Path(each).glob(pattern)),
    ]
    yield from dict.fromkeys(str(path.resolve()) for path in found)


def _is_inside(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def home_folder() -> str:
    """Return the user's home folder, or "~" for a user without a name, as in some containers."""
    return os.path.expanduser("~")  # noqa: PTH111  (Path.home() raises an error for a user without a name)


def is_crowded(folder: Path) -> bool:
    """Whether a folder holds more than one program: a home folder, for example, or one above it."""
    real = str(folder.resolve())
    inner = [os.path.realpath(each) for each in (home_folder(), tempfile.gettempdir())]
    return real in _CROWDED or any(_is_inside(each, [real.rstrip("/")]) for each in inner)


def own_paths(command: Sequence[str], folder: Path) -> list[str]:
    """Return the files and folders of a program, as absolute paths: those that its command names.

    `folder` is its working directory. Paths inside others are left out.
    """
    named = (_own_path(folder / word) for word in command if _names_a_file(word, folder))
    found = [each for each in dict.fromkeys(named) if each]
    if not found and not is_crowded(folder):
        found = [str(folder)]
    if (program := shutil.which(command[0])) is not None:
        found += _prefixes(Path(program))
    return outermost(found)


def outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths that are neither inside another one nor the system's."""
    found = [each for each in dict.fromkeys(paths) if not _is_inside(each, _SYSTEM)]
    return [each for each in found if not _is_inside(each, [other for other in found if other != each])]


def resolve_program(name: str) -> str:
    """Return a program's name as the sandbox knows it: the virtual environment of bothends is not visible."""
    own = os.path.realpath(sys.prefix)
    if "/" in name and sys.prefix != sys.base_prefix and _is_inside(os.path.abspath(name), [own, sys.prefix]):  # noqa: PTH100
        return os.path.realpath(name)
    return name


def _names_a_file(word: str, folder: Path) -> bool:
    try:
        return bool(word) and not word.startswith("-") and (folder / word).exists()
    except (OSError, ValueError):  # too long for a name, or with NUL
        return False


def _own_path(path: Path) -> str:
    """Return what to show for a file: its folder, or only the file if its folder is crowded."""
    path = Path(os.path.abspath(path))  # noqa: PTH100  (keeps symbolic links, as the command does)
    if path.is_dir():
        return "" if is_crowded(path) else str(path)
    return str(path if is_crowded(path.parent) else path.parent)
