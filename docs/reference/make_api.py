"""Write api.md from the docstrings of the public modules: `make api`.

A module is public if it is in `PUBLIC`, and a name if it is in the `__all__` of a public module. The page has
each name's signature and docstring. A test compares the page with what this writes.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

PAGE: Final = Path(__file__).with_name("api.md")

PUBLIC: Final = (
    "bothends",
    "bothends.server",
    "bothends.client.blocking",
    "bothends.client.asyncio",
    "bothends.client.tls",
    "bothends.client.faults",
    "bothends.endpoints",
    "bothends.errors",
    "bothends.escaping",
    "bothends.events",
    "bothends.framing",
    "bothends.services.base",
    "bothends.services.functions",
    "bothends.engines.base",
    "bothends.layers",
    "bothends.log",
    "bothends.metrics",
    "bothends.toxics.base",
    "bothends.testing",
    "bothends.testing.contract",
    "bothends.pytest_plugin",
)

HEAD: Final = """# Python API

After this page you can use each end, and every part of it, from a program of your own.

What a program may import. A module or name that is not on this page is internal and may change or go away
with any version. `make api` writes this page from the docstrings.

[Add a service](../how-to/add-a-service.md) and the [examples](../../examples/README.md) show these in use.
"""


def write() -> str:
    """Return the whole page."""
    parts = [HEAD, "\n".join(f"- [`{name}`](#{_anchor(name)})" for name in PUBLIC) + "\n"]
    for name in PUBLIC:
        parts += _module(importlib.import_module(name))
    return "\n".join(parts)


def _anchor(name: str) -> str:
    return re.sub(r"[^\w-]", "", name.lower())


def _module(module: ModuleType) -> Iterator[str]:
    yield f"## `{module.__name__}`\n"
    yield _block(inspect.getdoc(module) or "")
    for name in sorted(module.__all__, key=str.lower):
        value = getattr(module, name)
        home = getattr(value, "__module__", module.__name__)
        if inspect.ismodule(value):
            yield f"### `{name}`\n\nThe module [`{value.__name__}`](#{_anchor(value.__name__)}).\n"
        elif module.__name__ == "bothends" and home in PUBLIC:
            yield f"### `{name}`\n\nDefined in [`{home}`](#{_anchor(home)}).\n"
        elif inspect.isclass(value):
            yield from _class(name, value)
        elif callable(value) and hasattr(value, "__name__"):
            yield f"### `{name}{_signature(value)}`\n"
            yield _block(inspect.getdoc(value) or "")
        else:
            yield f"### `{name}`\n"
            if isinstance(value, str | bytes | int | float | tuple | frozenset):
                yield f"`{value!r}`\n"


def _class(name: str, kind: type) -> Iterator[str]:
    yield f"### `class {name}{'' if issubclass(kind, BaseException) else _signature(kind)}`\n"
    yield _block(inspect.getdoc(kind) or "")
    for attribute, value in vars(kind).items():
        if attribute.startswith("_") or (
            dataclasses.is_dataclass(kind) and attribute in kind.__annotations__
        ):
            continue
        text = _own_doc(value)
        if not text:
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        shown = attribute if isinstance(value, property) else f"{attribute}{_signature(function)}"
        yield f"#### `{name}.{shown}`\n"
        yield _block(text)


def _own_doc(value: Any) -> str:
    if isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value):
        return inspect.getdoc(value) or ""
    return ""


def _signature(value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return "(...)"
    # Annotations are strings here (PEP 563): drop their quotes, and addresses of objects in defaults.
    text = re.sub(r"""(: |-> )(['"])(.*?)\2""", r"\1\3", text)
    text = re.sub(r"\bself, |\bself(?=\))|\bcls, |\bcls(?=\))", "", text)
    return re.sub(r"<factory>|<(?:function|[\w.]+ object)[^>]*>? at 0x[0-9a-f]+>", "...", text)


def _block(docstring: str) -> str:
    return f"```text\n{docstring}\n```\n" if docstring else ""


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {len(PUBLIC)} modules\n")
