"""A lab for tests: its process, its address, requests with its cookie, and runs over its WebSocket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

TIMEOUT = 40.0
CAPITALS_SERVER = """\
import socket
listener = socket.create_server(("127.0.0.1", 12000))
connection, _ = listener.accept()
connection.sendall(connection.recv(100).upper())
connection.close()
"""
CAPITALS_CLIENT = """\
import socket
server = socket.create_connection(("127.0.0.1", 12000))
server.sendall(input("say: ").encode())
print("reply", server.recv(100))
"""


@dataclass
class Lab:
    """A running lab."""

    process: subprocess.Popen[str]
    address: str
    cookie: str = ""
    teacher_address: str = ""
    tls: ssl.SSLContext | None = None
    errors: list[str] = field(default_factory=list)

    @property
    def scheme(self) -> str:
        return urlsplit(self.address).scheme

    def notes(self) -> str:
        """Return what it has written to standard error, once the description of the sandbox is there."""
        deadline = time.monotonic() + TIMEOUT
        while not any("ends the lab" in each for each in self.errors) and time.monotonic() < deadline:
            os.sched_yield()
        return "".join(self.errors)

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    def get(
        self, path: str, fields: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, dict[str, str], str]:
        """Return the status, the header fields and the body of a response."""
        connection = (
            http.client.HTTPSConnection(self.host, timeout=TIMEOUT, context=self.tls)
            if self.tls is not None
            else http.client.HTTPConnection(self.host, timeout=TIMEOUT)
        )
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True)
            for name, value in ({"Host": self.host} | (fields or {})).items():
                connection.putheader(name, value)
            if method == "POST":
                connection.putheader("Content-Length", "0")
            connection.endheaders()
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read().decode()

    def connect(self, **changed: str) -> ClientConnection:
        """Open a WebSocket as the page does, except for the header fields that are `changed`."""
        fields = {"Origin": f"{self.scheme}://{self.host}", "Cookie": self.cookie} | changed
        return connect(
            f"{'wss' if self.tls is not None else 'ws'}://{self.host}/socket",
            ssl=self.tls,
            additional_headers={name: value for name, value in fields.items() if value},
            open_timeout=TIMEOUT,
            max_size=8 << 20,
            proxy=None,
        )


@contextlib.contextmanager
def running_lab(*options: str) -> Iterator[Lab]:
    """Start a lab, and end it with SIGTERM. With `--class`, its cookie is to be fetched."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bothends", "lab", "--no-browser", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    drain = threading.Thread(target=errors.extend, args=[process.stderr], daemon=True)
    drain.start()
    try:
        line = process.stdout.readline()
        assert line.startswith("lab  http"), errors
        lab = Lab(process, line.split()[1], errors=errors)
        if "--class" in options:
            lab.teacher_address = process.stdout.readline().split()[1]
        else:
            _, fields, _ = lab.get(lab.address.removeprefix(f"http://{lab.host}"))
            lab.cookie = fields["set-cookie"].partition(";")[0]
        yield lab
    finally:
        process.terminate()
        process.wait(TIMEOUT)
        process.stdout.close()
        drain.join(TIMEOUT)
        process.stderr.close()


def program(kind: str, text: str, file: str = "", arguments: str = "") -> dict[str, str]:
    """Return a program as the page sends it."""
    return {"kind": kind, "file": file or f"{kind}.py", "text": text, "arguments": arguments}


def pair(server: str, client: str) -> list[dict[str, str]]:
    return [program("server", server), program("client", client)]


Replies = list[dict[str, Any]]


def run(
    websocket: ClientConnection,
    programs: list[dict[str, str]],
    on_reply: Callable[[dict[str, Any]], object] = lambda _: None,
    *,
    time_limit: float = 20.0,
    path: dict[str, float] | None = None,
) -> Replies:
    """Run programs, and return all replies. `on_reply` is called with each."""
    start = {"type": "start", "programs": programs, "time_limit": time_limit, "path": path}
    websocket.send(json.dumps(start))
    replies: Replies = []
    deadline = time.monotonic() + TIMEOUT
    while not replies or replies[-1]["type"] not in ("ended", "failed"):
        replies.append(json.loads(websocket.recv(deadline - time.monotonic())))
        on_reply(replies[-1])
    return replies


def output_of(replies: Replies, number: int) -> str:
    """Return what a program has printed."""
    return "".join(each["text"] for each in replies if each["type"] == "output" and each["program"] == number)


def exit_of(replies: Replies, number: int) -> str:
    """Return how a program has ended."""
    exits = {each["program"]: str(each["how"]) for each in replies if each["type"] == "exited"}
    return exits[number]


def events_of(replies: Replies) -> list[dict[str, Any]]:
    """Return the events of the rows, in their last form."""
    found: dict[str, dict[str, Any]] = {}
    for each in replies:
        if each["type"] == "rows":
            found |= each["events"]
    return list(found.values())
