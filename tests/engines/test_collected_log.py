"""The engines with an event loop write the lines of one iteration together, before they wait again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bothends.engines import registry
from bothends.events import LoggedTraffic
from bothends.log import JsonLog
from bothends.osutil.observer_file import ObserverFile
from bothends.server import Server
from bothends.testing.clients import Client
from bothends.testing.services import EchoService
from tests.engines.test_native import wait_for


class CountedFile(ObserverFile):
    """A file that keeps each write."""

    writes: list[bytes]

    def _append(self, data: bytes) -> bool:
        self.writes.append(data)
        return super()._append(data)


@pytest.mark.parametrize("engine", ["select", "poll", "epoll", "asyncio", "uvloop"])
def test_lines_of_an_iteration_are_written_together_before_the_loop_waits(
    engine: str, tmp_path: Path
) -> None:
    if (reason := registry.load(engine).unavailable_reason()) is not None:
        pytest.skip(reason)
    path = tmp_path / "log"
    file = CountedFile(os.open(path, os.O_WRONLY | os.O_CREAT), "log", missing_line=lambda *_: "missing\n")
    file.writes = []
    log = JsonLog(file)
    line_format = log.line_format()
    assert line_format is not None
    observe = LoggedTraffic(log, line_format, files=[file])
    with Server(EchoService(), ["tcp://127.0.0.1:0"], engine=engine, observe=observe) as server:
        with Client(server.endpoints[0]) as client:
            assert client.request(b"hello") == b"hello"
            wait_for(lambda: "sent" in path.read_text(encoding="utf-8"))  # although nothing else happens
            written = next(each for each in file.writes if b'"received"' in each)
        wait_for(lambda: "closed" in path.read_text(encoding="utf-8"))
    events = [json.loads(line)["event"] for line in written.splitlines()]
    assert events[-2:] == ["received", "sent"]
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    times = [record["at"] for record in records]
    assert times == sorted(times)
    assert records[-1]["event"] == "stopped"
    assert file.close() is None
