"""The table of services, and loading a service by name.

| name | service |
|---|---|
| `upper` | a built-in service, in the table below |
| `shout.py:shout` | a name in a Python file |
| `shout.py` | the only service of a Python file |
| `package.module:shout` | a name in an importable module |
| any other name | a service of an installed package, in the entry point group "bothends.services" |

The name in a file or module may be the result of a decorator, an instance of a subclass of `Service`, or such
a subclass, which is instantiated without arguments.
"""

from __future__ import annotations

import ast
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

_SOCKET_MODULES: Final = frozenset({"socket", "socketserver", "asyncio", "http.server", "xmlrpc.server"})
"""Modules that a service does not need, because it has no socket; a program that is a server does."""

_DECORATE_HINT: Final = "put @bothends.message above it"


def names() -> list[str]:
    """Return the names that `load` accepts: the built-in services, then those of installed packages."""
    return [*BUILT_IN, *(name for name in sorted(_installed()) if name not in BUILT_IN)]


def load(spec: str) -> Service:
    """Return the service of a name, of `file.py:name` or of `module:name`.

    A file is executed at each call. While it runs, it can import modules of its own directory, as if Python
    ran the file; later imports, inside functions, cannot.

    Raises:
        UnknownName: there is no service of this name.
        ServiceError: the file or module cannot be loaded, or has no such service.
    """
    # A folder name may contain a colon, a Python name has no dot.
    location, colon, name = (spec, "", "") if spec.endswith(".py") else spec.rpartition(":")
    if not colon:
        location, name = spec, ""
    elif not location or not name:
        raise ServiceError(spec, "it needs a file or module before the colon, and a name after it")
    if location.endswith(".py") or "/" in location:
        path = Path(location)
        if not name:
            _reject_program(spec, path)
        return _select_service(spec, _run_file(spec, path), name)
    if colon:
        return _select_service(spec, _import_module(spec, location), name)
    if spec in BUILT_IN:
        module, _, name = BUILT_IN[spec].partition(":")
        return _as_service(spec, getattr(importlib.import_module(module), name))
    if entry := _installed().get(spec):
        with _user_errors(spec):
            thing = entry.load()
        return _as_service(spec, thing)
    nearest = suggest.nearest(spec, names())
    hint = "`bothends services` lists them; for a service of your own, give file.py:name"
    raise UnknownName("service", spec, nearest, hint)


def _installed() -> dict[str, EntryPoint]:
    # Imported here, because reading the installed packages takes longer than all else of loading `upper`.
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _reject_program(spec: str, path: Path) -> None:
    """Reject a file that uses sockets itself, because running it would start a server and never return.

    Raises ServiceError.
    """
    try:
        tree = ast.parse(path.read_bytes()) if path.is_file() else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return  # reported when it is loaded
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module)
    packages = {name.partition(".")[0] for name in imported}
    used = sorted(imported & _SOCKET_MODULES)
    if used and "bothends" not in packages:
        raise ServiceError(
            spec,
            f"it is a program, not a service: it imports {used[0]}, and nothing of bothends",
            f"run it with python3 {path}, or bothends trace {path} CLIENT",
        )


def _run_file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        reason = f"{path} is not a file" if path.exists() else f"there is no file {path}"
        raise ServiceError(spec, reason, "" if path.is_absolute() else f"looked in {Path.cwd()}")
    path = path.resolve()
    # A name that no import statement can contain, so the file cannot shadow a module of the same name.
    loader = _UncachedLoader(f"service file {path.stem}", str(path))
    module_spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert module_spec is not None  # because there is a loader
    module = importlib.util.module_from_spec(module_spec)
    # Dataclasses and pickle look up a class's module by name.
    sys.modules[loader.name] = module
    with _sys_path(path.parent), _user_errors(spec, path):
        loader.exec_module(module)
    return module


class _UncachedLoader(SourceFileLoader):
    """Compiles the file each time and writes no `__pycache__`, as if Python ran the file."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_module(spec: str, name: str) -> ModuleType:
    # sys.path of an installed command lacks the current directory, where the user's module usually is.
    with _sys_path(Path.cwd()), _user_errors(spec):
        return importlib.import_module(name)


@contextlib.contextmanager
def _sys_path(folder: Path) -> Iterator[None]:
    """Search a folder for modules first, within the context."""
    entry = str(folder)
    sys.path.insert(0, entry)
    # A path finder may have cached an earlier listing of the folder.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)


@contextlib.contextmanager
def _user_errors(spec: str, path: Path | None = None) -> Iterator[None]:
    """Convert exceptions of the user's code to a ServiceError with file and line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):
            reason = f"it called sys.exit({error.code!r}) while being loaded"
            hint = 'move the code that must not run on import under `if __name__ == "__main__":`'
        else:
            reason, hint = _describe_error(error), ""
        where = _error_location(error, path)
        raise ServiceError(spec, f"{where}: {reason}" if where else reason, hint) from error


def _describe_error(error: Exception) -> str:
    """Return type and message of an exception. Never raises, even if its `__str__` does."""
    if isinstance(error, ServiceError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    try:
        message = str(error)
    except Exception:
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _error_location(error: BaseException, path: Path | None) -> str:
    """Return `file:line` of the innermost traceback frame in the user's code; empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 1}"
    frames = traceback.extract_tb(error.__traceback__)
    if path is not None:
        frames = traceback.StackSummary([frame for frame in frames if frame.filename == str(path)])
    else:
        excluded = (__file__, "<frozen importlib", importlib.__file__)
        frames = traceback.StackSummary(
            [frame for frame in frames if not frame.filename.startswith(excluded)]
        )
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _select_service(spec: str, module: ModuleType, name: str) -> Service:
    """Return the service `name` of a module, or its only service."""
    services = _services_of(module)
    known = ", ".join(services)
    if not name:
        if len(services) == 1:
            return _as_service(spec, next(iter(services.values())))
        reason = f"it has {len(services)} services: {known}" if services else "it has no service"
        raise ServiceError(
            spec, reason, f"choose one, as {spec}:{next(iter(services))}" if services else _DECORATE_HINT
        )
    with _user_errors(spec):
        thing = getattr(module, name, None)
    if thing is None:
        nearest = suggest.nearest(name, services)
        hint = f"did you mean {nearest!r}?" if nearest else f"its services: {known or 'none'}"
        raise ServiceError(spec, f"it has no {name!r}", hint)
    return _as_service(spec, thing)


def _services_of(module: ModuleType) -> dict[str, object]:
    """Return the services of a module by name: instances, then the classes that it defines."""
    instances: dict[str, object] = {}
    for name, thing in vars(module).items():
        if isinstance(thing, Service) and not any(thing is other for other in instances.values()):
            instances[name] = thing
    types = {type(thing) for thing in instances.values()}
    return instances | {
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
        raise ServiceError(spec, "it is a conversation, not a service", "put @bothends.stream above it")
    if inspect.isroutine(thing) or isinstance(thing, functools.partial):
        raise ServiceError(spec, "it is a function, not a service", _DECORATE_HINT)
    raise ServiceError(
        spec, f"it is {thing!r:.60}, not a service", "decorate a function with @bothends.message"
    )


def _is_service_class(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Service) and not inspect.isabstract(thing)
