import sys, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/pdf":
            page = urllib.request.urlopen("http://127.0.0.1:%d/page" % self.server.server_address[1]).read()
            out = b"PDF:" + page
        else:
            out = b"page"
        self.send_response(200)
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)
srv = HTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), H)
print(srv.server_address[1], flush=True)
srv.serve_forever()
