import http.server, sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "50000000")
        self.end_headers()
        try:
            for _ in range(500):
                self.wfile.write(bytes(100000))
        except (BrokenPipeError, ConnectionResetError):
            print("the client has gone")


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
