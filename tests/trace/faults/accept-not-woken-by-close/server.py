import socket, sys, threading, time
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
stop = threading.Event()
done = threading.Event()
def serve(c):
    with c:
        if c.recv(100).strip() == b"QUIT":
            c.sendall(b"stopping\n")
            time.sleep(0.3)
            stop.set()
            done.wait()
            c.sendall(b"stopped\n")
def loop():
    while not stop.is_set():
        try:
            c, _ = ls.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(c,), daemon=True).start()
t = threading.Thread(target=loop)
t.start()
stop.wait()
ls.close()
t.join()
done.set()
