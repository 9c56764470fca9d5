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
from tests.services.scripted import MESSAGE_PEER

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
    """Return a function that writes a user's file of dedented parts and returns its path."""

    def write(*parts: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("".join(map(textwrap.dedent, parts)), encoding="utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def restore_import_state(tmp_path: Path) -> Iterator[None]:
    """Check that loading changes no search path, and forget the modules of a test's files."""
    paths = list(sys.path)
    yield
    assert sys.path == paths
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def load_error(spec: object) -> str:
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
                    "http_pages",  # it is created with its pages
                )


@pytest.mark.parametrize(("name", "nearest"), [("uper", "upper"), ("Echo", "echo"), ("zzz", ""), ("", "")])
def test_unknown_name_suggests_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownName) as caught:
        registry.load(name)
    assert (caught.value.kind, caught.value.name, caught.value.nearest) == ("service", name, nearest)
    assert "bothends services" in str(caught.value)


def test_entry_point_service(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    folder = write(SHOUT, name="elsewhere.py").parent
    monkeypatch.syspath_prepend(folder)
    offered = {
        "loud": EntryPoint("loud", "elsewhere:shout", registry.ENTRY_POINT_GROUP),
        "gone": EntryPoint("gone", "elsewhere:gone", registry.ENTRY_POINT_GROUP),
        "upper": EntryPoint("upper", "elsewhere:shout", registry.ENTRY_POINT_GROUP),
    }
    monkeypatch.setattr(registry, "_installed", lambda: offered)
    assert registry.names() == [*registry.BUILT_IN, "gone", "loud"]
    assert registry.load("loud").name == "shout"
    assert registry.load("upper").name == "upper"  # a built-in service cannot be replaced
    assert "AttributeError" in load_error("gone")
    with pytest.raises(UnknownName, match="'loud'"):
        registry.load("lowd")
    monkeypatch.undo()


# --- files ---


def test_a_name_in_a_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(SHOUT, WHISPER)
    assert registry.load(f"{path}:whisper").answer(b"Hi", MESSAGE_PEER) == b"hi"
    monkeypatch.chdir(path.parent)
    assert registry.load("mine.py:shout").answer(b"Hi", MESSAGE_PEER) == b"HI"
    assert registry.load("./mine.py:shout").name == "shout"
    assert registry.load(str(write(SHOUT, name="a:b/mine.py"))).name == "shout"


def test_a_file_with_one_service_needs_no_name(write: Write) -> None:
    assert registry.load(str(write(SHOUT))).name == "shout"
    assert registry.load(str(write(SHOUT, "alias = shout\n"))).name == "shout"
    several = write(SHOUT, WHISPER)
    assert f"it has 2 services: shout, whisper; choose one, as {several}:shout" in load_error(several)
    assert "it has no service; put @bothends.message above it" in load_error(write("x = 1\n"))


def test_service_class_is_instantiated_and_instance_is_used(write: Write) -> None:
    text = """
        from bothends.services.base import Service
        from bothends.services.echo import Echo

        class Loud(Echo):
            name = "loud"

        class Abstract(Service):
            pass
    """
    path = write(text)
    assert (
        registry.load(str(path)).name == "loud"
    )  # Echo is only imported there, Abstract cannot be instantiated
    assert registry.load(f"{path}:Echo").name == "echo"
    assert "TypeError" in load_error(f"{path}:Abstract")
    assert registry.load(str(write(text, "loud = Loud()\n"))).name == "loud"
    assert (
        registry.load(str(write("from bothends.services.echo import Echo\nmine = Echo()\n"))).name == "echo"
    )


def test_sibling_module_can_be_imported(write: Write) -> None:
    write("PREFIX = b'> '\n", name="beside_the_service.py")
    path = write("""
        import bothends
        from beside_the_service import PREFIX

        @bothends.message
        def quote(message):
            return PREFIX + message
    """)
    assert registry.load(str(path)).answer(b"hi", MESSAGE_PEER) == b"> hi"


def test_file_is_executed_on_each_load(write: Write) -> None:
    path = write(SHOUT, name="json.py")
    first = registry.load(str(path))
    import json

    assert json.dumps([]) == "[]"
    write(SHOUT.replace("upper", "lower"), name="json.py")
    assert registry.load(str(path)).answer(b"Hi", MESSAGE_PEER) == b"hi"
    assert first.answer(b"Hi", MESSAGE_PEER) == b"HI"
    assert list(path.parent.iterdir()) == [path]  # no __pycache__, as if Python ran the file


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


# --- invalid and malicious files ---


def test_missing_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        load_error("mine.py:shout")
        == f"service mine.py:shout: there is no file mine.py; looked in {tmp_path}"
    )
    assert "there is no file" in load_error(f"{tmp_path}/mine.py:shout")
    assert "is not a file" in load_error(f"{tmp_path}/:shout")
    assert "there is no file" in load_error("a\0b.py:shout")


@pytest.mark.parametrize("spec", [":shout", "mine.py:", ":", "module:"])
def test_incomplete_spec_is_rejected(spec: str) -> None:
    assert "before the colon" in load_error(spec)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n1/0\n", 2, "ZeroDivisionError: division by zero"),
        ("def f(:\n", 1, "SyntaxError: "),
        ("import no_such_module_here\n", 1, "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("from bothends import nothing\n", 1, "ImportError: cannot import name 'nothing'"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: "),
        ("import sys\nsys.exit(3)\n", 2, "it called sys.exit(3) while being loaded"),
        ("class E(Exception):\n    def __str__(self): raise self\nraise E\n", 3, "E"),
        (
            "import bothends\n@bothends.message\nasync def f(m): return m\n",
            2,
            "service f: it is async, but a service must return its answer at once",
        ),
    ],
)
def test_load_error_names_line_and_message(write: Write, text: str, line: int, message: str) -> None:
    path = write(text)
    with pytest.raises(ServiceError) as caught:
        registry.load(f"{path}:shout")
    assert f"{path}:{line}: {message}" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_error_in_sibling_module_names_both_files(write: Write) -> None:
    write("1/0\n", name="broken_beside.py")
    path = write("\nimport broken_beside\n")
    assert f"{path}:2: ZeroDivisionError" in load_error(f"{path}:shout")


@pytest.mark.parametrize("content", [b"\0", b"\xff\xfe", b"# coding: none-such\n", b"\x7fELF\x02\x01\x01\0"])
def test_invalid_python_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    assert "Error: " in load_error(f"{path}:shout")


def test_an_interrupt_is_not_swallowed(write: Write) -> None:
    with pytest.raises(KeyboardInterrupt):
        registry.load(str(write("raise KeyboardInterrupt\n")))


def test_file_that_modifies_sys_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    registry.load(str(write("import sys\nsys.path.clear()\n", SHOUT)))
    assert sys.path == []
    sys.path[:] = before


def test_module_getattr_exception(write: Write) -> None:
    path = write("def __getattr__(name): raise ValueError(name)\n")
    assert "ValueError: shout" in load_error(f"{path}:shout")


def test_a_name_that_is_not_in_the_file(write: Write) -> None:
    path = write(SHOUT, WHISPER)
    assert "it has no 'shuot'; did you mean 'shout'?" in load_error(f"{path}:shuot")
    assert "it has no 'zzz'; its services: shout, whisper" in load_error(f"{path}:zzz")
    assert "its services: none" in load_error(f"{write('')}:zzz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def shout(message): return message",
            "it is a function, not a service; put @bothends.message above",
        ),
        ("shout = bytes.upper", "it is a function, not a service"),
        ("import functools\nshout = functools.partial(int)", "it is a function, not a service"),
        (
            "from bothends.services.base import Conversation as shout",
            "it is a conversation, not a service; put @bothends.stream above it",
        ),
        ("shout = 7", "it is 7, not a service"),
        ("class shout: pass", "not a service"),
    ],
)
def test_non_service_error_has_hint(write: Write, text: str, message: str) -> None:
    assert message in load_error(f"{write(text)}:shout")


def test_service_constructor_exception(write: Write) -> None:
    path = write("""
        from bothends.services.echo import Echo

        class Mine(Echo):
            def __init__(self):
                raise OSError("no disk")
    """)
    assert f"{path}:6: OSError: no disk" in load_error(path)


# --- modules ---


def test_a_module_in_the_current_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(SHOUT, name="package_of_mine/inner.py").parent.parent)
    assert registry.load("package_of_mine.inner:shout").answer(b"a", MESSAGE_PEER) == b"A"
    assert registry.load("bothends.services.echo:Echo").name == "echo"


def test_missing_or_failing_module(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("\n\n1/0\n", name="failing_module_of_mine.py")
    monkeypatch.chdir(path.parent)
    assert "No module named 'no_module_of_mine'" in load_error("no_module_of_mine:shout")
    assert f"{path}:3: ZeroDivisionError" in load_error("failing_module_of_mine:shout")
    assert "Error" in load_error("..:shout")


@pytest.mark.parametrize(
    "text",
    [
        "from socket import *\nraise SystemExit('it ran')",
        "import socketserver\nraise SystemExit('it ran')",
        "def main():\n    import asyncio\nraise SystemExit('it ran')",
        "import http.server\nraise SystemExit('it ran')",
    ],
)
def test_program_with_sockets_is_not_run(write: Write, text: str) -> None:
    path = write(text)
    message = load_error(path)
    assert "it is a program, not a service: it imports " in message
    assert f"run it with python3 {path}, or bothends trace {path} CLIENT" in message


def test_service_file_may_import_socket(write: Write) -> None:
    assert registry.load(str(write("import socket\n", SHOUT))).name == "shout"
    assert "it has no 'shout'" in load_error(f"{write('import socket')}:shout")  # a name was given: it is run
