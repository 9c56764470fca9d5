import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = []
    def log_message(self, *a): pass
    def do_GET(self):
        b = json.dumps(self.store).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(b))); self.end_headers(); self.wfile.write(b)
    def do_POST(self):
        n = int(self.headers["Content-Length"])
        self.store.append(json.loads(self.rfile.read(n)))
        self.send_response(201); self.send_header("Content-Length", "0"); self.end_headers()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
