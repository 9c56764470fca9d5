import socketserver
import struct
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while record := self.rfile.read(64):
            kind, size = struct.unpack_from("!II", record)
            self.wfile.write(struct.pack("!II", kind + 1, size))
            body = self.rfile.read(size)
            self.wfile.write(struct.pack("!I", sum(body)))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
    server.serve_forever()
