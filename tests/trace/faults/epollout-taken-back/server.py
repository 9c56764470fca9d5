import select, socket, sys
ls = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print(ls.getsockname()[1], flush=True)
ls.setblocking(False)
ep = select.epoll()
ep.register(ls, select.EPOLLIN)
conns, pending = {}, {}
BODY = b"x" * 20_000_000
def flush(fd):
    c = conns[fd]
    try:
        while pending[fd]:
            n = c.send(pending[fd][:262144])
            pending[fd] = pending[fd][n:]
    except BlockingIOError:
        ep.modify(fd, select.EPOLLIN | select.EPOLLOUT)
    ep.modify(fd, select.EPOLLIN)
while True:
    for fd, ev in ep.poll():
        if fd == ls.fileno():
            c, _ = ls.accept()
            c.setblocking(False)
            conns[c.fileno()], pending[c.fileno()] = c, b""
            ep.register(c, select.EPOLLIN)
        elif ev & select.EPOLLOUT:
            flush(fd)
        elif ev & select.EPOLLIN:
            d = conns[fd].recv(4096)
            if not d:
                ep.unregister(fd); conns.pop(fd).close(); continue
            pending[fd] += len(BODY).to_bytes(8, "big") + BODY
            flush(fd)
