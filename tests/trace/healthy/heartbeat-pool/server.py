"""Heartbeats: each client pings every 0.4 s; a client that is silent for 2 s is dropped."""
import socket
import sys
import threading
def serve(c):
    c.settimeout(2)
    with c, c.makefile("rwb") as f:
        try:
            for line in f:
                if line.strip() == b"PING":
                    f.write(b"PONG\n")
                elif line.strip() == b"QUIT":
                    f.write(b"BYE\n")
                    f.flush()
                    return
                else:
                    f.write(b"= " + line.upper())
                f.flush()
        except OSError:
            return
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
