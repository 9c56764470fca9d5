from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Protocol

import pytest

from bothends.errors import ServiceError, UnknownName
from bothends.services import registry
from bothends.services.base import Service
from tests.services.scripted import WHOLE

SHOUT = """
    import bothends

    @bothends.message
    def shout(message: bytes) -> bytes:
        return message.upper()
"""
WHISPER = """
    @bothends.message
    def whisper(message: bytes) -> bytes:
        return message.lower()
"""


class Write(Protocol):
    def __call__(self, *parts: str, name: str = ...) -> Path: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a user's file, of parts each indented in its own way, and gives its path."""

    def write(*parts: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("".join(map(textwrap.dedent, parts)), encoding="utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    """Loading changes no search path; modules that a test's files gave are forgotten."""
    paths = list(sys.path)
    yield
    assert sys.path == paths
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def refused(spec: object) -> str:
    with pytest.raises(ServiceError) as caught:
        registry.load(str(spec))
    return str(caught.value)


# --- names ---


def test_every_name_of_the_table_is_a_service() -> None:
    assert registry.names()[: len(registry.BUILT_IN)] == list(registry.BUILT_IN)
    for name, target in registry.BUILT_IN.items():
        service = registry.load(name)
        assert service.name == name
        assert target == f"{type(service).__module__}:{type(service).__name__}"


def test_every_service_of_the_package_is_in_the_table() -> None:
    folder = Path(registry.__file__).parent
    for path in folder.glob("*.py"):
        module = importlib.import_module(f"bothends.services.{path.stem}")
        for name, thing in vars(module).items():
            if isinstance(thing, type) and issubclass(thing, Service) and thing.__module__ == module.__name__:
                assert f"{module.__name__}:{name}" in registry.BUILT_IN.values() or path.stem in (
                    "base",
                    "functions",
                    "http_pages",  # made with its pages
                )


@pytest.mark.parametrize(("name", "nearest"), [("uper", "upper"), ("Echo", "echo"), ("zzz", ""), ("", "")])
def test_an_unknown_name_is_met_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownName) as caught:
        registry.load(name)
    assert (caught.value.kind, caught.value.name, caught.value.nearest) == ("service", name, nearest)
    assert "bothends services" in str(caught.value)


def test_an_installed_package_offers_services(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    folder = write(SHOUT, name="elsewhere.py").parent
    monkeypatch.syspath_prepend(folder)
    offered = {
        "loud": EntryPoint("loud", "elsewhere:shout", registry.ENTRY_POINTS),
        "gone": EntryPoint("gone", "elsewhere:gone", registry.ENTRY_POINTS),
        "upper": EntryPoint("upper", "elsewhere:shout", registry.ENTRY_POINTS),
    }
    monkeypatch.setattr(registry, "_installed", lambda: offered)
    assert registry.names() == [*registry.BUILT_IN, "gone", "loud"]
    assert registry.load("loud").name == "shout"
    assert registry.load("upper").name == "upper"  # nobody stands in for a built-in one
    assert "AttributeError" in refused("gone")
    with pytest.raises(UnknownName, match="'loud'"):
        registry.load("lowd")
    monkeypatch.undo()


# --- files ---


def test_a_name_in_a_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(SHOUT, WHISPER)
    assert registry.load(f"{path}:whisper").answer(b"Hi", WHOLE) == b"hi"
    monkeypatch.chdir(path.parent)
    assert registry.load("mine.py:shout").answer(b"Hi", WHOLE) == b"HI"
    assert registry.load("./mine.py:shout").name == "shout"
    assert registry.load(str(write(SHOUT, name="a:b/mine.py"))).name == "shout"


def test_a_file_with_one_service_needs_no_name(write: Write) -> None:
    assert registry.load(str(write(SHOUT))).name == "shout"
    assert registry.load(str(write(SHOUT, "alias = shout\n"))).name == "shout"
    several = write(SHOUT, WHISPER)
    assert f"it holds 2 services: shout, whisper; say which: {several}:shout" in refused(several)
    assert "it holds no service; put @bothends.message above it" in refused(write("x = 1\n"))


def test_a_class_is_made_one_of_and_an_instance_is_taken(write: Write) -> None:
    text = """
        from bothends.services.base import Service
        from bothends.services.echo import Echo

        class Loud(Echo):
            name = "loud"

        class Abstract(Service):
            pass
    """
    path = write(text)
    assert registry.load(str(path)).name == "loud"  # Echo is only imported there, Abstract can't be made
    assert registry.load(f"{path}:Echo").name == "echo"
    assert "TypeError" in refused(f"{path}:Abstract")
    assert registry.load(str(write(text, "loud = Loud()\n"))).name == "loud"
    assert (
        registry.load(str(write("from bothends.services.echo import Echo\nmine = Echo()\n"))).name == "echo"
    )


def test_what_lies_beside_the_file_can_be_imported(write: Write) -> None:
    write("PREFIX = b'> '\n", name="beside_the_service.py")
    path = write("""
        import bothends
        from beside_the_service import PREFIX

        @bothends.message
        def quote(message):
            return PREFIX + message
    """)
    assert registry.load(str(path)).answer(b"hi", WHOLE) == b"> hi"


def test_a_file_is_run_afresh_and_under_no_modules_name(write: Write) -> None:
    path = write(SHOUT, name="json.py")
    first = registry.load(str(path))
    import json

    assert json.dumps([]) == "[]"
    write(SHOUT.replace("upper", "lower"), name="json.py")
    assert registry.load(str(path)).answer(b"Hi", WHOLE) == b"hi"
    assert first.answer(b"Hi", WHOLE) == b"HI"
    assert list(path.parent.iterdir()) == [path]  # no __pycache__, as when Python is given the file


def test_a_dataclass_in_the_file_works(write: Write) -> None:
    text = """
        from __future__ import annotations
        import dataclasses

        @dataclasses.dataclass
        class State:
            seen: int = 0
    """
    assert registry.load(str(write(text, SHOUT))).name == "shout"


def test_a_file_without_the_suffix(write: Write) -> None:
    assert registry.load(f"{write(SHOUT, name='mine')}:shout").name == "shout"


# --- files that are wrong, or hostile ---


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        refused("mine.py:shout") == f"service mine.py:shout: there is no file mine.py; looked in {tmp_path}"
    )
    assert "there is no file" in refused(f"{tmp_path}/mine.py:shout")
    assert "is no file" in refused(f"{tmp_path}/:shout")
    assert "there is no file" in refused("a\0b.py:shout")


@pytest.mark.parametrize("spec", [":shout", "mine.py:", ":", "module:"])
def test_half_a_name_is_refused(spec: str) -> None:
    assert "either side of the colon" in refused(spec)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("\n1/0\n", 2, "ZeroDivisionError: division by zero"),
        ("def f(:\n", 1, "SyntaxError: "),
        ("import no_such_module_here\n", 1, "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("from bothends import nothing\n", 1, "ImportError: cannot import name 'nothing'"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: "),
        ("import sys\nsys.exit(3)\n", 2, "it left with sys.exit(3) when it was loaded"),
        ("class E(Exception):\n    def __str__(self): raise self\nraise E\n", 3, "E"),
        (
            "import bothends\n@bothends.message\nasync def f(m): return m\n",
            2,
            "service f: it is async, and a service answers at once",
        ),
    ],
)
def test_a_file_that_fails_is_told_by_line_and_words(write: Write, text: str, line: int, told: str) -> None:
    path = write(text)
    with pytest.raises(ServiceError) as caught:
        registry.load(f"{path}:shout")
    assert f"{path}:{line}: {told}" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_failure_in_a_file_beside_it_names_both(write: Write) -> None:
    write("1/0\n", name="broken_beside.py")
    path = write("\nimport broken_beside\n")
    assert f"{path}:2: ZeroDivisionError" in refused(f"{path}:shout")


@pytest.mark.parametrize("content", [b"\0", b"\xff\xfe", b"# coding: none-such\n", b"\x7fELF\x02\x01\x01\0"])
def test_a_file_that_is_no_python(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    assert "Error: " in refused(f"{path}:shout")


def test_an_interrupt_is_not_swallowed(write: Write) -> None:
    with pytest.raises(KeyboardInterrupt):
        registry.load(str(write("raise KeyboardInterrupt\n")))


def test_a_file_that_meddles_with_the_search_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    registry.load(str(write("import sys\nsys.path.clear()\n", SHOUT)))
    assert sys.path == []
    sys.path[:] = before


def test_a_file_whose_names_fail_when_they_are_asked_for(write: Write) -> None:
    path = write("def __getattr__(name): raise ValueError(name)\n")
    assert "ValueError: shout" in refused(f"{path}:shout")


def test_a_name_that_is_not_in_the_file(write: Write) -> None:
    path = write(SHOUT, WHISPER)
    assert "it has no 'shuot'; did you mean 'shout'?" in refused(f"{path}:shuot")
    assert "it has no 'zzz'; services there: shout, whisper" in refused(f"{path}:zzz")
    assert "services there: none" in refused(f"{write('')}:zzz")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "def shout(message): return message",
            "it is a function, no service yet; put @bothends.message above",
        ),
        ("shout = bytes.upper", "it is a function, no service yet"),
        ("import functools\nshout = functools.partial(int)", "it is a function, no service yet"),
        (
            "from bothends.services.base import Conversation as shout",
            "it is a conversation, no service; put @bothends.stream above it",
        ),
        ("shout = 7", "it is 7, no service"),
        ("class shout: pass", "no service"),
    ],
)
def test_what_is_no_service_is_told_how_to_become_one(write: Write, text: str, told: str) -> None:
    assert told in refused(f"{write(text)}:shout")


def test_a_service_that_cannot_be_made(write: Write) -> None:
    path = write("""
        from bothends.services.echo import Echo

        class Mine(Echo):
            def __init__(self):
                raise OSError("no disk")
    """)
    assert f"{path}:6: OSError: no disk" in refused(path)


# --- modules ---


def test_a_module_in_the_current_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(SHOUT, name="package_of_mine/inner.py").parent.parent)
    assert registry.load("package_of_mine.inner:shout").answer(b"a", WHOLE) == b"A"
    assert registry.load("bothends.services.echo:Echo").name == "echo"


def test_a_module_that_is_not_there_or_fails(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("\n\n1/0\n", name="failing_module_of_mine.py")
    monkeypatch.chdir(path.parent)
    assert "No module named 'no_module_of_mine'" in refused("no_module_of_mine:shout")
    assert f"{path}:3: ZeroDivisionError" in refused("failing_module_of_mine:shout")
    assert "Error" in refused("..:shout")
