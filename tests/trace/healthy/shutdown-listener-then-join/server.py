import socket, sys, threading
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
stop = threading.Event()
def loop():
    while True:
        try:
            c, _ = ls.accept()
        except OSError:
            return
        with c:
            data = b""
            while d := c.recv(4096):
                data += d
            c.sendall(b"%d bytes\n" % len(data))
        if data == b"QUIT":
            stop.set()
t = threading.Thread(target=loop)
t.start()
stop.wait()
ls.shutdown(socket.SHUT_RDWR)
t.join()
ls.close()
