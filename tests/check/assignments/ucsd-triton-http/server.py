import email.utils
import mimetypes
import socketserver
import sys
from pathlib import Path

ROOT = Path(sys.argv[2]).resolve()


class Handler(socketserver.StreamRequestHandler):
    timeout = 5

    def handle(self):
        try:
            while line := self.rfile.readline():
                if not self.answer(line):
                    return
        except TimeoutError:
            pass

    def answer(self, line):
        fields = {}
        while field := self.rfile.readline().decode("latin-1").strip():
            name, _, value = field.partition(":")
            fields[name.lower()] = value.strip()
        words = line.decode("latin-1").split()
        if len(words) != 3 or words[0] != "GET" or words[2] != "HTTP/1.1" or "host" not in fields:
            self.send("400 Bad Request", {"Connection": "close"})
            return False
        closes = fields.get("connection") == "close"
        more = {"Connection": "close"} if closes else {}
        path = words[1] + "index.html" * words[1].endswith("/")
        file = (ROOT / path.lstrip("/")).resolve()
        if file.is_relative_to(ROOT) and file.is_file():
            more["Last-Modified"] = email.utils.formatdate(file.stat().st_mtime, usegmt=True)
            more["Content-Type"] = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self.send("200 OK", more, file.read_bytes())
        else:
            self.send("404 Not Found", more)
        return not closes

    def send(self, status, fields, body=b""):
        fields = {"Date": email.utils.formatdate(usegmt=True), **fields, "Content-Length": len(body)}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.wfile.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
