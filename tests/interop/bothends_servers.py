"""Run bothends servers as child processes, as a user starts and stops them."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from bothends.engines.base import Engine
from bothends.services import registry as services
from tests.interop.running import Running

BOTHENDS = [sys.executable, "-m", "bothends"]


class EngineServers:
    """The servers of one engine, by service, each started at its first use.

    On exit the context manager stops them with SIGTERM, and checks their exit status.
    """

    def __init__(self, engine: type[Engine]) -> None:
        self.engine = engine
        self._started: dict[str, BothendsServer] = {}
        self._stack = contextlib.ExitStack()

    def __getitem__(self, service: str) -> BothendsServer:
        if service not in self._started:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bothends-")))
            self._started[service] = self._stack.enter_context(BothendsServer(service, self.engine, folder))
        return self._started[service]

    def __enter__(self) -> EngineServers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            for server in self._started.values():
                server.process.terminate()
            for server in self._started.values():
                status = server.wait()
                assert status == 0, f"{server.command} exited with {status}:\n{server.stderr}"


class BothendsServer(Running):
    """`bothends serve SERVICE` on every kind of socket that the engine and the service can have.

    `addresses` are the fields of a client's command line: `{tcp}` and `{udp}` are an address and a port,
    `{port}` is the TCP port, `{unix}` and `{unix_dgram}` are paths, and `{own}` is a free path for the
    client.
    """

    def __init__(self, service: str, engine: type[Engine], folder: Path) -> None:
        self.addresses = {each: str(folder / each) for each in ("unix", "unix_dgram", "own")}
        endpoints = ["tcp://127.0.0.1:0", f"unix://{self.addresses['unix']}"]
        if engine.datagrams and services.load(service).datagrams:
            endpoints += ["udp://127.0.0.1:0", f"unix+dgram://{self.addresses['unix_dgram']}"]
        super().__init__([*BOTHENDS, "serve", service, *endpoints, "--engine", engine.name])
        for scheme in ("tcp", "udp"):
            if f"{scheme}://127.0.0.1:0" in endpoints:
                port = self.error_line(rb"  %s://127\.0\.0\.1:(\d+)" % scheme.encode())[1].decode()
                self.addresses[scheme] = f"127.0.0.1 {port}"
        self.addresses["port"] = self.addresses["tcp"].split()[1]
