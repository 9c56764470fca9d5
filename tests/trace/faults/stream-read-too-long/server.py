import sys
import socketserver, threading, time
class Handler(socketserver.StreamRequestHandler):
    count = 0
    def setup(self):
        super().setup(); Handler.count += 1; self.started = time.time()
    def handle(self):
        while True:
            data = self.rfile.read(1024).strip()
            if not data: return
            name, _, text = data.partition(b":")
            self.wfile.write(b"stored " + name + b" (%d)\n" % len(text))
class S(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
with S(("127.0.0.1", int(sys.argv[1])), Handler) as s:
    s.serve_forever()
