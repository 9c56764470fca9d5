"""The standard library's socketserver: a thread per connection, a line at a time."""

import socketserver
import sys


class UpperStreamHandler(socketserver.StreamRequestHandler):
    """One connection."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class UpperDatagramHandler(socketserver.BaseRequestHandler):
    """One datagram."""

    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data.upper(), self.client_address)


class UpperTcpServer(socketserver.ThreadingTCPServer):
    """TCP, with a thread per connection."""

    daemon_threads = True
    request_queue_size = 4096

    def handle_error(self, request: object, client_address: object) -> None:
        pass


server: socketserver.BaseServer
if sys.argv[1] == "udp":
    server = socketserver.UDPServer(("127.0.0.1", 0), UpperDatagramHandler)
else:
    server = UpperTcpServer(("127.0.0.1", 0), UpperStreamHandler)
print(f"{sys.argv[1]}://127.0.0.1:{server.server_address[1]}", flush=True)  # noqa: T201
server.serve_forever()
