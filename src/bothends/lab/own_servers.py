"""Servers of bothends among the programs of a page, so that two engines can be compared there.

Such a program is a file `NAME.bothends` whose text is a command line of `serve`:

    serve upper tcp://127.0.0.1:12000 --engine epoll

The sandbox shows nothing of bothends, so the program gets a copy in its own folder. Lines that begin with #
are comments.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Final

from bothends.errors import UsageError
from bothends.trace.capture.tracees import split_words

SUFFIX: Final = ".bothends"
EXAMPLE_ENGINES: Final = ("iterative", "fork", "threads", "select", "poll", "epoll", "asyncio")
_PACKAGES: Final = ("bothends", "click")  # what `serve` imports, except the standard library
_LEFT_OUT: Final = shutil.ignore_patterns("lab", "assistant", "attack", "starters", "testing", "*.c", "*.h")


def command_of(text: str) -> list[str]:
    """Return the command line of a program's text. Raises UsageError if it is not one of `serve`."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    words = split_words(" ".join(lines))
    if words[:1] == ["bothends"]:
        del words[0]
    if words[:1] != ["serve"] or len(words) == 1:
        raise UsageError(
            f"a file {SUFFIX} holds a command line of serve: serve upper tcp://127.0.0.1:12000 --engine epoll"
        )
    return ["python3", "-m", "bothends", *words]


def copy_packages(folder: Path) -> dict[str, str]:
    """Copy what `serve` needs into a folder. Returns: the environment in which Python finds it.

    Raises:
        UsageError: this bothends is not installed as files.
    """
    for name in _PACKAGES:
        found = importlib.util.find_spec(name)
        places = list(found.submodule_search_locations or ()) if found is not None else []
        if not places or not Path(places[0]).is_dir():
            raise UsageError(f"{name} is not installed as a folder, so the lab cannot run its servers")
        shutil.copytree(places[0], folder / name, ignore=_LEFT_OUT)
    return {"PYTHONPATH": str(folder)}


def engine_programs(engine: str, client: dict[str, str], port: str) -> list[dict[str, str]]:
    """Return an engine with a client, as the page begins with them."""
    text = f"serve upper tcp://127.0.0.1:{port} --engine {engine}\n"
    return [{"kind": "server", "file": f"server{SUFFIX}", "text": text, "arguments": ""}, client]
