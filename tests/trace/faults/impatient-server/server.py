import sys
import socketserver


class Ingest(socketserver.StreamRequestHandler):
    timeout = 1.5

    def handle(self):
        hello = self.rfile.readline().split()
        if not hello or hello[0] != b"BEGIN":
            self.wfile.write(b"ERR expected BEGIN\n")
            return
        self.wfile.write(b"OK " + hello[1] + b"\n")
        rows = 0
        for line in self.rfile:
            if line == b"END\n":
                break
            rows += 1
        self.wfile.write(b"STORED %d\n" % rows)
        print("stored", rows, "rows")


class Server(socketserver.TCPServer):
    allow_reuse_address = True


with Server(("127.0.0.1", int(sys.argv[1])), Ingest) as srv:
    srv.handle_request()
