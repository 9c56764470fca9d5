import sys
import socketserver


class Ctl(socketserver.StreamRequestHandler):
    state = {}

    def handle(self):
        for raw in self.rfile:
            cmd = raw.decode().split()
            if not cmd:
                continue
            if cmd[0] == "set":
                self.state[cmd[1]] = cmd[2]
                self.wfile.write(b"ok\n")
            elif cmd[0] == "get":
                self.wfile.write(self.state.get(cmd[1], "?").encode() + b"\n")
            else:
                self.wfile.write(b"unknown\n")


class Server(socketserver.TCPServer):
    allow_reuse_address = True


with Server(("127.0.0.1", int(sys.argv[1])), Ctl) as srv:
    srv.handle_request()
