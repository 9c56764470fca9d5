"""A Firefox for tests, driven by WebDriver BiDi (https://www.w3.org/TR/webdriver-bidi/)."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.tools import find_tool

TIMEOUT = 60.0  # seconds


class Firefox:
    """One window of a Firefox."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.call("session.new", capabilities={})
        self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command. Returns: its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(TIMEOUT))).get("id") != number:
            pass
        assert "result" in answer, answer
        return answer["result"]

    def open(self, address: str) -> None:
        """Open a page, and wait until it is loaded."""
        self.call("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of its promise."""
        target = {"context": self.context}
        answer = self.call("script.evaluate", expression=expression, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer
        return answer["result"].get("value")

    def wait_for(self, selector: str) -> None:
        """Wait for an element."""
        self.evaluate(
            "new Promise((done) => { const look = () => document.querySelector("
            f"{json.dumps(selector)}) ? done() : requestAnimationFrame(look); look(); }})"
        )


@contextlib.contextmanager
def running_firefox(profile: Path) -> Iterator[Firefox]:
    """Start a Firefox with a folder for its files, and end it."""
    command = [str(find_tool("firefox")), "--headless", "--profile", str(profile)]
    process = subprocess.Popen(
        [*command, "--remote-debugging-port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(profile)},
    )
    assert process.stderr is not None
    try:
        address = next(line.split()[-1] for line in process.stderr if "BiDi listening on" in line)
        with connect(f"{address}/session", max_size=None, proxy=None) as socket:
            yield Firefox(socket)
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)
