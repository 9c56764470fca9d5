"""The public Python API: which modules it has, that every name is documented, and the page that lists it."""

from __future__ import annotations

import ast
import importlib
import inspect
import types

import pytest

import bothends
from docs.reference.make_api import PAGE, PUBLIC, write
from tests.test_architecture import MODULES, name_of

# Packages that gather names for the rest of bothends; no program is to import them.
INTERNAL = {"check.reports", "socket_table", "sockets", "trace.findings", "why", "wire"}


def has_all(text: str) -> bool:
    """Whether a module's source assigns `__all__`."""
    return any(
        isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
        for node in ast.parse(text).body
    )


def test_modules_with_all_are_the_public_ones() -> None:
    declared = {name_of(path) for path in MODULES if has_all(path.read_text(encoding="utf-8"))}
    public = {name.removeprefix("bothends.") if name != "bothends" else "__init__" for name in PUBLIC}
    assert declared - INTERNAL == public


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist_and_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    for each in module.__all__:
        value = getattr(module, each)
        if inspect.isclass(value) or isinstance(value, types.FunctionType):
            assert inspect.getdoc(value), f"{name}.{each} has no docstring"


def test_top_level_names_are_imported_lazily_and_unknown_ones_fail() -> None:
    assert bothends.errors is importlib.import_module("bothends.errors")
    assert bothends.Limits is importlib.import_module("bothends.engines.base").Limits
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        bothends.nonesuch  # noqa: B018


def test_api_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == write(), "run: make api"
