import socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
while True:
    c, _ = ls.accept()
    f = c.makefile("rwb")
    for line in f:
        f.write(b"echo " + line); f.flush()
    c.close()
