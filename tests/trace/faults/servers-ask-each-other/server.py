import socket, sys, threading, os
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
b = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    ls2 = ls.getsockname(); ls.close()
    while True:
        c, _ = b.accept()
        c.recv(100)
        with socket.create_connection(ls2) as s:
            s.sendall(b"token?\n"); s.recv(100)
        c.sendall(b"ok\n"); c.close()
addr = b.getsockname(); b.close()
while True:
    c, _ = ls.accept()
    if c.recv(100).startswith(b"login"):
        with socket.create_connection(addr) as s:
            s.sendall(b"check\n"); s.recv(100)
        c.sendall(b"welcome\n")
    else:
        c.sendall(b"token\n")
    c.close()
