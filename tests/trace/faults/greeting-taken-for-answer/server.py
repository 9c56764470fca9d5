import socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
while True:
    c, _ = ls.accept()
    c.sendall(b"+OK ready\n")
    f = c.makefile("rb")
    for line in f:
        c.sendall(b"+RE " + line)
    c.close()
