"""An echo server with the `websockets` library: `websockets_echo.py PORT`."""

from __future__ import annotations

import sys

from websockets.sync.server import ServerConnection, serve


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


with serve(echo, "127.0.0.1", int(sys.argv[1]), compression=None) as server:
    server.serve_forever()
