import socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
import select
while True:
    c, _ = ls.accept()
    f = c.makefile("rb")
    while True:
        select.select([c], [], [])
        line = f.readline()
        if not line: break
        c.sendall(b"did " + line)
    c.close()
