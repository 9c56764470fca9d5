"""A submission that searches the machine from inside the sandbox finds nothing that is not its own."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import pytest

from tests.check.test_sandbox import sandbox_unavailable_reason
from tests.hostile.sandbox.confined import run, users

pytestmark = pytest.mark.skipif(
    bool(sandbox_unavailable_reason()), reason=f"no sandbox here: {sandbox_unavailable_reason()}"
)

# Looks for a secret in the names and the contents of all files, and in all that /proc tells.
SEARCH = """
import os, sys
secret = TOKEN[::-1].encode()
toolchain = {os.path.dirname(folder) for folder in os.environ["PATH"].split(":")} - {"/"} | {"/usr"}
found = []
def look(path):
    try:
        text = os.fsencode(path)
        if os.path.isfile(path) and os.path.getsize(path) < 1 << 20:
            with open(path, "rb") as file:
                text += file.read(1 << 20)
    except OSError:
        pass
    if secret in text or b"to be found: it is its own" in text and not path.endswith("hostile.py"):
        found.append(path)
for root, folders, files in os.walk("/", followlinks=False):
    if root in toolchain or root.startswith("/proc/sys"):
        folders.clear()
    if root.count("/") > 4 and root.startswith("/proc"):
        folders.clear()
    for name in folders + files:
        look(os.path.join(root, name))
print(*found, sep="\\n")
"""

# Lists what there is: the top folders, what is in /etc, the users, the processes, the environment.
LIST = """
import os, socket
print(sorted(os.listdir("/")))
print(sorted(os.listdir("/etc")))
print(open("/etc/passwd").read().split(), open("/etc/resolv.conf").read())
print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
print(sorted(os.environ))
print(os.getresuid(), os.getresgid(), socket.gethostname(), os.getpid())
"""

REACH = """
import socket, sys
for address in (PATH, "\\0" + NAME):
    try:
        socket.socket(socket.AF_UNIX).connect(address)
        print("reached", repr(address))
    except OSError as error:
        print(error.errno)
for family in (40, 38, 17, 31):  # AF_VSOCK, AF_ALG, AF_PACKET, AF_BLUETOOTH
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            print("reached", family)
        except OSError:
            pass
"""

# Runs bothends in every way that may find it.
CHEAT = """
import glob, os, subprocess, sys
pythons = {path for folder in os.environ["PATH"].split(":") for path in glob.glob(folder + "/python3*")
           if os.access(path, os.X_OK) and "config" not in path}
assert pythons
commands = [["bothends", "--version"], *([path, "-m", "bothends", "--version"] for path in sorted(pythons))]
for command in commands:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        continue
    if done.returncode == 0:
        print("cheated with", command)
for root, folders, files in os.walk("/"):
    if root.startswith("/proc"):
        folders.clear()
    if os.path.basename(root) == "bothends" and files + folders:
        print("found", root)
"""


@pytest.mark.parametrize("user", users())
def test_search_for_a_secret_finds_nothing(user: str, tmp_path: Path) -> None:
    secret = secrets.token_hex(12)
    other = tmp_path / "other"
    other.mkdir()
    (other / f"{secret}.py").write_text(secret, encoding="utf-8")
    (tmp_path / "beside").write_text(secret, encoding="utf-8")
    own = tmp_path / "own"
    own.mkdir()
    (own / "control").write_text("to be found: it is its own", encoding="utf-8")
    outcome = run(SEARCH.replace("TOKEN", repr(secret[::-1])), own, user, VERY_SECRET=secret)
    assert (outcome.status, outcome.stdout.split()) == (0, [str(own / "control")]), outcome


@pytest.mark.parametrize("user", users())
def test_listing_shows_a_small_machine(user: str, tmp_path: Path) -> None:
    outcome = run(LIST, tmp_path / "own", user, VERY_SECRET="1")
    assert outcome.status == 0, outcome
    top, etc, files, processes, variables, identity = outcome.stdout.splitlines()
    allowed = {
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "run",
        "sbin",
        "tmp",
        "usr",
        "var",
    }
    # What else there is leads to the program's own folder, or to a tool outside /usr.
    assert not {*eval(top)} & {"boot", "home", "media", "mnt", "srv", "sys"} - {tmp_path.parts[1]}
    assert {"bin", "dev", "etc", "proc", "tmp", "usr"} <= {*eval(top)} & allowed
    assert not {*eval(etc)} & {"shadow", "gshadow", "ssh", "sudoers", "machine-id", "fstab", "environment"}
    assert files.count(":x:") == 2
    assert len(eval(processes)) == 2
    assert {*eval(variables)} <= {
        "ASAN_OPTIONS", "BOTHENDS_CHECK", "HOME", "JAVA_HOME", "LANG", "LC_CTYPE", "PATH", "TMPDIR"
    }  # fmt: skip
    assert identity == "(65534, 65534, 65534) (65534, 65534, 65534) localhost 2"


@pytest.mark.parametrize("user", users())
def test_sockets_of_others_are_out_of_reach(user: str, tmp_path: Path) -> None:
    name = f"hostile-{os.getpid()}"
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as by_name:
        by_path.bind(str(path))
        path.chmod(0o777)
        by_name.bind(f"\0{name}")
        by_path.listen()
        by_name.listen()
        program = REACH.replace("PATH", repr(str(path))).replace("NAME", repr(name))
        outcome = run(program, tmp_path / "own", user)
    assert outcome.status == 0, outcome
    assert outcome.stdout.split() == ["2", "111"]  # ENOENT, ECONNREFUSED


@pytest.mark.parametrize("user", users())
def test_bothends_itself_is_not_there(user: str, tmp_path: Path) -> None:
    outcome = run(CHEAT, tmp_path / "own", user)
    assert (outcome.status, outcome.stdout) == (0, ""), outcome


def test_root_runs_programs_whose_files_only_root_may_read(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    (own / "data").write_text("mine", encoding="utf-8")
    (own / "data").chmod(0o600)
    outcome = run("print(open('data').read())", own)
    assert outcome.stdout == "mine\n", outcome
