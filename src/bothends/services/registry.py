"""Which services there are, and how a name becomes one.

| what is asked for | what it is |
|---|---|
| `upper` | a built-in service: the table below |
| `shout.py:shout` | a name in a Python file |
| `shout.py` | the one service that the file holds |
| `package.module:shout` | a name in a module that can be imported from here |
| any other name | what an installed package offers in the entry point group "bothends.services" |

The name in a file or module may be what a decorator made, an instance of a subclass of `Service`, or
such a subclass, of which one is made without arguments.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Final

from bothends import suggest
from bothends.errors import ServiceError, UnknownName
from bothends.services.base import Conversation, Service

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

BUILT_IN: Final[dict[str, str]] = {
    "upper": "bothends.services.upper:Upper",
    "echo": "bothends.services.echo:Echo",
    "hello": "bothends.services.hello:Hello",
    "reply": "bothends.services.reply:Reply",
    "print": "bothends.services.print:Print",
    "clock": "bothends.services.clock:Clock",
    "chat": "bothends.services.chat:Chat",
    "discard": "bothends.services.discard:Discard",
    "chargen": "bothends.services.chargen:Chargen",
    "daytime": "bothends.services.daytime:Daytime",
    "time": "bothends.services.time:Time",
    "qotd": "bothends.services.qotd:Qotd",
}

ENTRY_POINT_GROUP: Final = "bothends.services"
"""The group in which an installed package offers services: name = "module:attribute"."""

_DECORATE_HINT: Final = "put @bothends.message above it"


def names() -> list[str]:
    """What `load` knows by name: the built-in services, then those of installed packages."""
    return [*BUILT_IN, *(name for name in sorted(_installed()) if name not in BUILT_IN)]


def load(spec: str) -> Service:
    """The service of this name, `file.py:name` or `module:name`.

    A file is run afresh each time. While it runs, what lies beside it can be imported, as when Python
    itself is given the file; imports that come later, inside a function, find it no more.

    Raises:
        UnknownName: no service of this name.
        ServiceError: what is named can't be loaded, or is no service.
    """
    # A folder may have a colon in its name, a Python name has no dot.
    place, colon, name = (spec, "", "") if spec.endswith(".py") else spec.rpartition(":")
    if not colon:
        place, name = spec, ""
    elif not place or not name:
        raise ServiceError(spec, "a file or module and a name belong on either side of the colon")
    if place.endswith(".py") or "/" in place:
        path = Path(place)
        return _select_service(spec, _run_file(spec, path), name)
    if colon:
        return _select_service(spec, _import_module(spec, place), name)
    if spec in BUILT_IN:
        module, _, name = BUILT_IN[spec].partition(":")
        return _as_service(spec, getattr(importlib.import_module(module), name))
    if entry := _installed().get(spec):
        with _user_errors(spec):
            thing = entry.load()
        return _as_service(spec, thing)
    nearest = suggest.nearest(spec, names())
    hint = "`bothends services` lists them; one of your own is given as file.py:name"
    raise UnknownName("service", spec, nearest, hint)


def _installed() -> dict[str, EntryPoint]:
    # Imported here: reading what is installed takes longer than all the rest of loading `upper`.
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _run_file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        reason = f"{path} is no file" if path.exists() else f"there is no file {path}"
        raise ServiceError(spec, reason, "" if path.is_absolute() else f"looked in {Path.cwd()}")
    path = path.resolve()
    # A name that no import statement can write, so the file can't stand in for a module of its name.
    loader = _UncachedLoader(f"service file {path.stem}", str(path))
    made = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert made is not None  # there is a loader
    module = importlib.util.module_from_spec(made)
    # Dataclasses and pickle look a class's module up by its name.
    sys.modules[loader.name] = module
    with _sys_path(path.parent), _user_errors(spec, path):
        loader.exec_module(module)
    return module


class _UncachedLoader(SourceFileLoader):
    """Compiles the file each time, and leaves no `__pycache__` beside it, as when Python is given it."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_module(spec: str, name: str) -> ModuleType:
    # An installed command's sys.path lacks the current directory, where the user's module likely is.
    with _sys_path(Path.cwd()), _user_errors(spec):
        return importlib.import_module(name)


@contextlib.contextmanager
def _sys_path(folder: Path) -> Iterator[None]:
    """Look for modules in a folder first, for as long as this lasts."""
    place = str(folder)
    sys.path.insert(0, place)
    # A finder may remember the folder as it was when it last looked.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(place)


@contextlib.contextmanager
def _user_errors(spec: str, path: Path | None = None) -> Iterator[None]:
    """Turn what the user's code raises into a ServiceError that says where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):
            reason = f"it left with sys.exit({error.code!r}) when it was loaded"
            hint = 'put what should not run on import under `if __name__ == "__main__":`'
        else:
            reason, hint = _describe_error(error), ""
        where = _error_location(error, path)
        raise ServiceError(spec, f"{where}: {reason}" if where else reason, hint) from error


def _describe_error(error: Exception) -> str:
    """What an exception says; never raises, whatever its `__str__` does."""
    if isinstance(error, ServiceError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    try:
        said = str(error)
    except Exception:
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _error_location(error: BaseException, path: Path | None) -> str:
    """`file:line` of the innermost line of the user's that the error passed; "" where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 1}"
    frames = traceback.extract_tb(error.__traceback__)
    if path is not None:
        frames = traceback.StackSummary([frame for frame in frames if frame.filename == str(path)])
    else:
        ours = (__file__, "<frozen importlib", importlib.__file__)
        frames = traceback.StackSummary([frame for frame in frames if not frame.filename.startswith(ours)])
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _select_service(spec: str, module: ModuleType, name: str) -> Service:
    """The service `name` of a module, or the only one that it holds."""
    services = _services_of(module)
    there = ", ".join(services)
    if not name:
        if len(services) == 1:
            return _as_service(spec, next(iter(services.values())))
        reason = f"it holds {len(services)} services: {there}" if services else "it holds no service"
        raise ServiceError(
            spec, reason, f"say which: {spec}:{next(iter(services))}" if services else _DECORATE_HINT
        )
    with _user_errors(spec):
        thing = getattr(module, name, None)
    if thing is None:
        nearest = suggest.nearest(name, services)
        hint = f"did you mean {nearest!r}?" if nearest else f"services there: {there or 'none'}"
        raise ServiceError(spec, f"it has no {name!r}", hint)
    return _as_service(spec, thing)


def _services_of(module: ModuleType) -> dict[str, object]:
    """The services that a module holds by name: what was made, then the classes that it defines."""
    made: dict[str, object] = {}
    for name, thing in vars(module).items():
        if isinstance(thing, Service) and not any(thing is other for other in made.values()):
            made[name] = thing
    types = {type(thing) for thing in made.values()}
    return made | {
        name: thing
        for name, thing in vars(module).items()
        if _is_service_class(thing) and thing not in types and thing.__module__ == module.__name__
    }


def _as_service(spec: str, thing: object) -> Service:
    if isinstance(thing, Service):
        return thing
    if isinstance(thing, type) and issubclass(thing, Service):
        with _user_errors(spec):
            service = thing()
        return service
    if isinstance(thing, type) and issubclass(thing, Conversation):
        raise ServiceError(spec, "it is a conversation, no service", "put @bothends.stream above it")
    if inspect.isroutine(thing) or isinstance(thing, functools.partial):
        raise ServiceError(spec, "it is a function, no service yet", _DECORATE_HINT)
    raise ServiceError(
        spec, f"it is {thing!r:.60}, no service", "a function becomes one by @bothends.message"
    )


def _is_service_class(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Service) and not inspect.isabstract(thing)
