import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_HEAD(self, body=b""):
        self.send_response(200)
        self.send_header("Content-Length", "1192")
        self.end_headers()
    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(b"b" * 1192)
srv = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), H)
print(srv.server_address[1], flush=True)
srv.serve_forever()
