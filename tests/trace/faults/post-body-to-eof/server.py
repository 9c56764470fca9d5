import http.server, sys


class Notes(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    notes: list[bytes] = []

    def do_POST(self):
        body = self.rfile.read()
        self.notes.append(body)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Notes).serve_forever()
