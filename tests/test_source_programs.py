"""How programs are built and run from their source files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bothends.errors import Unavailable
from bothends.source_programs import LANGUAGES, NotAProgram, find_file_recipe, is_runnable
from tests.tools import needs_tool


def write(path: Path, text: str, *, executable: bool = False) -> Path:
    path.write_bytes(text.encode())
    if executable:
        path.chmod(0o755)
    return path


@pytest.fixture
def all_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that every interpreter and compiler is installed."""
    monkeypatch.setattr("bothends.source_programs.shutil.which", lambda name: f"/usr/bin/{name}")


@pytest.mark.usefixtures("all_tools")
@pytest.mark.parametrize(
    ("name", "text", "executable", "run"),
    [
        ("a.py", "", False, ("python3", "{}")),
        ("a.js", "", False, ("node", "{}")),
        ("a.mjs", "", False, ("node", "{}")),
        ("a.sh", "", False, ("sh", "{}")),
        ("a.jar", "", False, ("java", "-jar", "{}")),
        ("a.pl", "", False, ("perl", "{}")),
        ("a.py", "", True, ("python3", "{}")),  # a file system without modes, such as FAT
        ("a.py", "#!/usr/bin/env -S python3 -u\n", True, ("/usr/bin/env", "-S python3 -u", "{}")),
        ("a.py", "#!/usr/bin/env -S python3 -u\n", False, ("python3", "{}")),
        ("a.py", "#!/usr/bin/python3\r\nprint()\r\n", True, ("/usr/bin/python3", "{}")),
        ("a", "#! /bin/awk -f\n", False, ("/bin/awk", "-f", "{}")),
        ("a", "#!/bin/awk -f\r\n", True, ("/bin/awk", "-f", "{}")),
        ("a", "\x7fELF", True, ("{}",)),
    ],
)
def test_interpreter_is_found(
    name: str, text: str, executable: bool, run: tuple[str, ...], tmp_path: Path
) -> None:
    path = write(tmp_path / name, text, executable=executable)
    recipe = find_file_recipe(path, tmp_path)
    assert recipe.run == tuple(each.format(path) for each in run)
    assert not recipe.build
    assert is_runnable(path)


@pytest.mark.usefixtures("all_tools")
def test_relative_file_is_not_looked_up_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("ls"), "\x7fELF", executable=True)
    assert find_file_recipe(Path("ls"), tmp_path).run == ("./ls",)


@pytest.mark.usefixtures("all_tools")
@pytest.mark.parametrize(
    ("text", "main"),
    [
        ("public class A { public static void main(String[] a) {} }", "A"),
        (
            "class Helper {}\nclass Tcp {\n  class In {}\n  static void main(String[] a) {} }",
            "Tcp",
        ),
        ("package org.course;\nclass A { public static void main(String[] a) {} }", "org.course.A"),
        ("// a class that waits\nclass B { public static final void main(String... a) {} }\nclass C {}", "B"),
    ],
)
def test_java_main_class(text: str, main: str, tmp_path: Path) -> None:
    recipe = find_file_recipe(write(tmp_path / "A.java", text), tmp_path / "out")
    assert recipe.run == ("java", "-cp", str(tmp_path / "out" / "classes"), main)


@needs_tool("javac")
@pytest.mark.slow
def test_java_compiles_only_what_the_file_uses(tmp_path: Path) -> None:
    write(tmp_path / "Used.java", 'class Used { static String text = "used"; }')
    write(tmp_path / "Broken.java", "class Broken {")
    source = "class A { public static void main(String[] a) { System.out.println(Used.text); } }"
    recipe = find_file_recipe(write(tmp_path / "A.java", source), tmp_path / "out")
    for command in (*recipe.build, recipe.run):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "used\n"


@pytest.mark.usefixtures("all_tools")
@pytest.mark.parametrize("suffix", [".c", ".cpp", ".cc", ".java", ".rs"])
def test_programs_are_built_with_debugging_information(suffix: str, tmp_path: Path) -> None:
    """A traced call names its line, and variables are not optimised away."""
    recipe = find_file_recipe(write(tmp_path / f"A{suffix}", ""), tmp_path / "out")
    assert "-g" in recipe.build[0]
    assert not {"-O", "-O1", "-O2"} & {*recipe.build[0]}


@needs_tool("cc")
def test_c_program_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.c", '#include <stdio.h>\nint main(void) { puts("built"); }\n')
    recipe = find_file_recipe(path, tmp_path)
    for command in (*recipe.build, recipe.run):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "built\n"


@pytest.mark.parametrize("suffix", LANGUAGES)
def test_missing_tool_names_its_package(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    path = write(tmp_path / f"a{suffix}", "")
    with pytest.raises(Unavailable) as caught:
        find_file_recipe(path, tmp_path)
    language = LANGUAGES[suffix]
    message = f"cannot run {path}: {language.tool} isn't installed; apt install {language.package}"
    assert str(caught.value) == message


def test_file_that_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(NotAProgram, match=r'known language, and its first line .*: "COMMAND .*/notes.txt"'):
        find_file_recipe(write(tmp_path / "notes.txt", "later"), tmp_path)
    with pytest.raises(NotAProgram, match=r"it is not executable; chmod \+x"):
        find_file_recipe(write(tmp_path / "server", "\x7fELF"), tmp_path)
    with pytest.raises(NotAProgram, match="it is a folder"):
        find_file_recipe(tmp_path, tmp_path)
    with pytest.raises(NotAProgram, match="there is no such file"):
        find_file_recipe(tmp_path / "absent.py", tmp_path)
    with pytest.raises(Unavailable, match="its first line names /absent/sh, which isn't there"):
        find_file_recipe(write(tmp_path / "a", "#!/absent/sh\n"), tmp_path)


@pytest.mark.parametrize("name", ["a.py", "a.c", "a"])
def test_file_that_may_not_be_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / name, "")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may read everything
    with pytest.raises(NotAProgram, match=r"EACCES \(Permission denied\); chmod u\+r "):
        find_file_recipe(path, tmp_path)
