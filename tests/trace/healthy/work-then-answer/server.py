import hashlib, socketserver, sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        password = self.rfile.readline()
        digest = hashlib.pbkdf2_hmac("sha256", password, b"salt", 1_500_000)
        self.wfile.write(digest.hex().encode() + b"\n")


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True


with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
    server.serve_forever()
