"""gevent: a greenlet per connection, with calls that look blocking."""

import socket

from gevent.server import StreamServer


def handle_client(connection: socket.socket, _: object) -> None:
    """One connection."""
    while data := connection.recv(65536):
        connection.sendall(data.upper())


server = StreamServer(("127.0.0.1", 0), handle_client, backlog=4096)
server.start()
print(f"tcp://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201
server.serve_forever()
