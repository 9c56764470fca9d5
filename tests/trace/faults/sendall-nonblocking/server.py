import select, socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
socks = [ls]
while True:
    r, _, _ = select.select(socks, [], [])
    for s in r:
        if s is ls:
            c, _ = ls.accept()
            c.setblocking(False)
            socks.append(c)
            continue
        d = s.recv(1024)
        if not d:
            socks.remove(s); s.close(); continue
        body = b"d" * 12_000_000
        try:
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except BlockingIOError as e:
            print("send:", e, flush=True)
