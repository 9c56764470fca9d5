"""The Python code of a contract: it imports modules of its own folder, which no other code sees.

The folder is searched first, and its modules are in `sys.modules`, only while code of the contract runs: when
its file is loaded, and for each reply, because a function may import when it is called. So two contracts can
have different modules of one name, and none of them replaces a module of Python or bothends for others.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from bothends.check.oracle import ExpectedReply, Oracle
from bothends.errors import ServiceError
from bothends.escaping import escape_text


class ModuleFolder:
    """The modules of a folder, as its own code sees them."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder.resolve())
        self._modules: dict[str, ModuleType] = {}

    @contextmanager
    def searched(self) -> Iterator[None]:
        """Context: imports find the modules of the folder first."""
        hidden = {name: sys.modules[name] for name in self._modules if name in sys.modules}
        sys.modules.update(self._modules)
        before = set(sys.modules)
        sys.path.insert(0, self._folder)
        importlib.invalidate_caches()  # a finder may have cached an earlier listing of the folder
        try:
            yield
        finally:
            with suppress(ValueError):
                sys.path.remove(self._folder)
            for name in sys.modules.keys() - before:
                if self._contains(sys.modules[name]):
                    self._modules[name] = sys.modules[name]
            for name in self._modules:
                sys.modules.pop(name, None)
            sys.modules.update(hidden)

    def _contains(self, module: ModuleType) -> bool:
        files = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        return any(each and Path(each).is_relative_to(self._folder) for each in files)


class CodeOracle(Oracle):
    """Replies of an oracle that runs code of a contract, which imports from the contract's folder."""

    def __init__(self, inner: Oracle, modules: ModuleFolder) -> None:
        self._inner = inner
        self._modules = modules
        self.accepts_any_message = inner.accepts_any_message
        self.exact_replies = inner.exact_replies
        self.messages = inner.messages

    def reply(self, message: bytes) -> ExpectedReply:
        with self._modules.searched():
            return self._inner.reply(message)


def load_function(name: str) -> Any:
    """Run the file of `file.py:name`, and return its function.

    Raises:
        ServiceError: there is no such file or function, or the file raises an exception.
    """
    file, colon, attribute = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ServiceError(escape_text(name), "not a function", "write file.py:name")
    try:
        found = runpy.run_path(file).get(attribute)
    except (Exception, SystemExit) as error:
        raise ServiceError(name, f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise ServiceError(name, f"the file has no function {attribute!r}")
    return found
