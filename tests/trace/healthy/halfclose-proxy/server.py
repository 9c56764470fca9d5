import sys
import socketserver


class Sorter(socketserver.StreamRequestHandler):
    def handle(self):
        lines = self.rfile.read().decode().splitlines()
        self.wfile.write("".join(l + "\n" for l in sorted(lines)).encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[2])), Sorter).serve_forever()
