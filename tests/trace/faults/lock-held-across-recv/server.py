import sys
import socket, threading
lock = threading.Lock()
accounts = {"a": 10, "b": 20}
def recv_line(c, buf):
    while b"\n" not in buf:
        d = c.recv(1024)
        if not d: return None, b""
        buf += d
    l, buf = buf.split(b"\n", 1)
    return l.decode(), buf
def handle(c):
    buf = b""
    while True:
        line, buf = recv_line(c, buf)
        if line is None: break
        if line.startswith("BEGIN"):
            with lock:                      # one transaction at a time
                c.sendall(b"READY\n")
                while True:
                    op, buf = recv_line(c, buf)
                    if op is None or op == "COMMIT": break
                    k, v = op.split("="); accounts[k] = int(v)
                    c.sendall(b"OK\n")
            c.sendall(b"DONE\n")
        elif line.startswith("GET"):
            with lock:
                v = accounts.get(line[4:], 0)
            c.sendall(f"{v}\n".encode())
    c.close()
w = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = w.accept()
    threading.Thread(target=handle, args=(conn,), daemon=True).start()
