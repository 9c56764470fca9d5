import socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
while True:
    c, _ = ls.accept()
    c.sendall(b"220 mx\r\n")
    buf = b""
    mode = b"\r\n"
    while True:
        while mode not in buf:
            d = c.recv(4096)
            if not d: break
            buf += d
        if mode not in buf: break
        line, buf = buf.split(mode, 1)
        if mode == b"\r\n.\r\n":
            mode = b"\r\n"; c.sendall(b"250 queued\r\n"); continue
        verb = line[:4].upper()
        if verb == b"DATA": c.sendall(b"354 go\r\n"); mode = b"\r\n.\r\n"
        elif verb == b"QUIT": c.sendall(b"221 bye\r\n"); break
        else: c.sendall(b"250 ok\r\n")
    c.close()
